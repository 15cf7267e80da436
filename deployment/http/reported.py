"""Reports of rewards, as clients send them: late, by decision id, with the end of the episode if it ended there.

    {"rewards": [{"decision_id": ID, "reward": NUMBER, "reward_id": ID,
                  "terminated": BOOL, "truncated": BOOL, "next_observation": JSON}]}

All but the first two may be left out; the last three are `policylab.deployment.capture.format.EpisodeEnd`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gymnasium import Space
from pydantic import ValidationError

from policylab.agents.space_json import value_from_json
from policylab.deployment.capture.format import EpisodeEnd
from policylab.deployment.capture.rewards import Rewards
from policylab.deployment.decision import Refusal
from policylab.errors import UserError

_FIELDS = {"decision_id", "reward", "reward_id"}


class _Report(NamedTuple):
    decision_id: str
    reward: float
    reward_id: str | None
    end: EpisodeEnd | None


def take_rewards(
    document: dict[str, Any], rewards: Rewards, *, most: int, space: Space[Any] | None = None
) -> dict[str, Any]:
    """Take the rewards of a document; return how many were new.

    Args:
        document: what a client sent.
        rewards: takes them.
        most: reports of one document.
        space: of observations; None where policies of different tasks are served, and readers look at them.

    Raises:
        Refusal: the document is none of that, or there is no room for them now.
    """
    reports = document.get("rewards", [document] if "decision_id" in document else None)
    if not isinstance(reports, list) or ("rewards" in document and len(document) > 1) or not 1 <= len(reports) <= most:
        raise Refusal('rewards are {"rewards": [{"decision_id": ID, "reward": NUMBER}]}', kind="invalid")
    checked = [_report(report, space) for report in reports]
    n_new = sum(
        rewards.take(one.decision_id, reward=one.reward, reward_id=one.reward_id, end=one.end) for one in checked
    )
    return {"accepted": n_new, "repeated": len(checked) - n_new, "recorded": rewards.recorded}


def _report(report: Any, space: Space[Any] | None) -> _Report:
    if not isinstance(report, dict) or not set(report) <= _FIELDS | set(EpisodeEnd.model_fields):
        raise Refusal(
            "a reward has decision_id and reward; reward_id, and terminated, truncated and next_observation of an "
            "episode that ended, if need be",
            kind="invalid",
        )
    decision_id, reward, reward_id = report.get("decision_id"), report.get("reward"), report.get("reward_id")
    for name, text in (("decision_id", decision_id), ("reward_id", reward_id)):
        good = isinstance(text, str) and 0 < len(text) <= 128 and text.isascii() and text.isprintable()
        if not good and not (name == "reward_id" and text is None):
            raise Refusal(f"{name} is a text of 1 to 128 printable ASCII characters", kind="invalid")
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not abs(reward) <= 1e300:
        raise Refusal("reward is a finite number", kind="invalid")
    return _Report(str(decision_id), float(reward), reward_id, _end(report, space))


def _end(report: dict[str, Any], space: Space[Any] | None) -> EpisodeEnd | None:
    given = {name: report[name] for name in EpisodeEnd.model_fields if name in report}
    told = {name: value for name, value in given.items() if value is not None and value is not False}
    if not told:
        return None
    try:
        end = EpisodeEnd.model_validate(told)
        if space is not None and end.next_observation is not None:
            value_from_json(space, end.next_observation)
    except ValidationError as error:
        raise Refusal(error.errors(include_url=False)[0]["msg"].removeprefix("Value error, "), kind="invalid") from None
    except UserError as error:
        raise Refusal(f"next_observation: {error}", kind="invalid") from None
    return end
