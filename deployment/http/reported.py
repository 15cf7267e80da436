"""Reports of rewards, as clients send them."""

from __future__ import annotations

from typing import Any

from policylab.deployment.capture.rewards import Rewards
from policylab.deployment.decision import Refusal


def take_rewards(document: dict[str, Any], rewards: Rewards, *, most: int) -> dict[str, Any]:
    """Take rewards, given as ``{"rewards": [{"decision_id", "reward", "reward_id"?}]}``; return how many were new.

    Args:
        document: what a client sent.
        rewards: takes them.
        most: reports of one document.

    Raises:
        Refusal: the document is none of that, or there is no room for them now.
    """
    reports = document.get("rewards", [document] if "decision_id" in document else None)
    if not isinstance(reports, list) or not 1 <= len(reports) <= most:
        raise Refusal('rewards are {"rewards": [{"decision_id": ID, "reward": NUMBER}]}', kind="invalid")
    checked = [_reward(report) for report in reports]
    n_new = sum(
        rewards.take(decision_id, reward=reward, reward_id=reward_id) for decision_id, reward, reward_id in checked
    )
    return {"accepted": n_new, "repeated": len(checked) - n_new, "recorded": rewards.recorded}


def _reward(report: Any) -> tuple[str, float, str | None]:
    if not isinstance(report, dict) or not set(report) <= {"decision_id", "reward", "reward_id"}:
        raise Refusal("a reward has decision_id, reward, and reward_id if need be", kind="invalid")
    decision_id, reward, reward_id = report.get("decision_id"), report.get("reward"), report.get("reward_id")
    for name, text in (("decision_id", decision_id), ("reward_id", reward_id)):
        good = isinstance(text, str) and 0 < len(text) <= 128 and text.isascii() and text.isprintable()
        if not good and not (name == "reward_id" and text is None):
            raise Refusal(f"{name} is a text of 1 to 128 printable ASCII characters", kind="invalid")
    if isinstance(reward, bool) or not isinstance(reward, int | float) or not abs(reward) <= 1e300:
        raise Refusal("reward is a finite number", kind="invalid")
    return str(decision_id), float(reward), reward_id
