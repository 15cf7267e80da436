"""The log in an endpoint's captured traffic: decisions joined with the rewards that were reported for them.

A decision that belongs to an episode is a step of it; one that does not is an episode of its own, as in a contextual
bandit. Rewards and ends of episodes are as `policylab.monitoring.ope.reported` says; what a decision earned whose
reward never came must be said. Decisions that a client aimed at a variant were not drawn and are left out; a decision
that is there twice counts once.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.agents.space_json import value_from_json
from policylab.agents.transitions import stored
from policylab.deployment.capture.format import CAPTURED, CAPTURED_PARQUET, CapturedDecision
from policylab.deployment.capture.reading import each_once, read_captured, read_rewards
from policylab.errors import UserError
from policylab.monitoring.ope.log import Log, assembled
from policylab.monitoring.ope.reported import Endings, Reported, endings

NO_NUMBER = "rewards that are no usable number"


@dataclasses.dataclass(frozen=True, slots=True)
class CaptureQuery:
    """Which captured decisions are meant.

    Attributes:
        endpoint: its name; None if the folder holds one endpoint.
        variant: None takes all variants.
        missing_reward: what a decision earned for which no reward was reported; None refuses such a log.
    """

    endpoint: str | None = None
    variant: str | None = None
    missing_reward: float | None = None


def read_captured_log(folder: Path, bundle: Bundle, *, query: CaptureQuery | None = None) -> Log:
    """Return the episodes in a folder of captured traffic, as a policy for the same task sees them.

    Args:
        folder: with ``captured`` and ``ground-truth`` in it.
        bundle: whose spaces the observations and actions belong to.
        query: which decisions are meant.

    Raises:
        UserError: there is no such traffic, a line is damaged, an observation or action is of another task, a reward is
            missing and nothing says what that means, or no episode is whole.
    """
    asked = query or CaptureQuery()
    endpoint = asked.endpoint or only_endpoint(folder)
    captured = list(each_once(read_captured(folder, endpoint=endpoint, variant=asked.variant)))
    decisions = [decision for decision in captured if decision.facts.assignment != "target"]
    if not decisions:
        raise UserError(f"{folder} holds no decisions of endpoint '{endpoint}' whose variant was drawn")
    reported = Reported.of(read_rewards(folder, endpoint=endpoint))
    decisions.sort(key=lambda decision: decision.time_utc)
    columns, found = _columns(decisions, reported, bundle=bundle, missing_reward=asked.missing_reward)
    log = assembled(columns, source=str(folder))
    also = {"aimed at a variant by the client": len(captured) - len(decisions), NO_NUMBER: reported.n_unusable}
    left_out = {**log.left_out, **{reason: n for reason, n in also.items() if n}}
    return dataclasses.replace(log, left_out=left_out, ends=found.ends)


def only_endpoint(folder: Path) -> str:
    """Return the name of the one endpoint whose traffic a folder holds.

    Raises:
        UserError: it holds none or several.
    """
    kinds = (CAPTURED, CAPTURED_PARQUET)
    found = sorted({path.name for kind in kinds for path in (folder / kind).glob("*") if path.is_dir()})
    if len(found) == 1:
        return found[0]
    shown = ", ".join(found) or "none"
    raise UserError(f"{folder / CAPTURED} must hold one endpoint, or name one with --endpoint; it holds {shown}")


def _columns(
    decisions: list[CapturedDecision], reported: Reported, *, bundle: Bundle, missing_reward: float | None
) -> tuple[dict[str, NDArray[Any]], Endings]:
    rewards = reported.reward
    unrewarded = [decision for decision in decisions if decision.reward_id not in rewards]
    if unrewarded and missing_reward is None:
        raise UserError(
            f"{len(unrewarded):,} of {len(decisions):,} decisions have no reward, such as {unrewarded[0].decision_id}; "
            "say what they earned with --missing-reward, or take a time for which all have arrived"
        )
    episodes = {name: i for i, name in enumerate(dict.fromkeys(_episode(decision) for decision in decisions))}
    episode = np.array([episodes[_episode(decision)] for decision in decisions])
    t = np.array([_step(decision) for decision in decisions])
    last = np.zeros(len(episodes), dtype=np.int64)
    np.maximum.at(last, episode, t)
    observations = np.array([_observation(bundle, decision) for decision in decisions])
    following = {(int(e), int(i)): row for row, (e, i) in enumerate(zip(episode, t, strict=True))}
    after = [following.get((int(e), int(i) + 1), row) for row, (e, i) in enumerate(zip(episode, t, strict=True))]
    next_observation = observations[after]
    found = endings(decisions, reported, last=t == last[episode], space=bundle.observation_space)
    for row, observation in found.after.items():
        next_observation[row] = observation
    default = 0.0 if missing_reward is None else missing_reward
    columns = {
        "episode_id": episode,
        "t": t,
        "observation": observations,
        "action": np.array([value_from_json(bundle.action_space, decision.action) for decision in decisions]),
        "reward": np.array([rewards.get(decision.reward_id, default) for decision in decisions]),
        "next_observation": next_observation,
        "terminated": found.terminated,
        "truncated": found.truncated,
        "log_propensity": np.array([decision.facts.log_propensity for decision in decisions]),
    }
    if any(decision.facts.mask is not None for decision in decisions):
        columns["mask"] = np.array([_mask(bundle, decision) for decision in decisions])
    return columns, found


def _episode(decision: CapturedDecision) -> tuple[str, str]:
    named = decision.facts.episode
    return ("decision", decision.decision_id) if named is None else ("episode", named)


def _step(decision: CapturedDecision) -> int:
    if decision.facts.episode is None:
        return 0
    if decision.facts.step is None:
        raise UserError(
            f"decision {decision.decision_id} of episode {decision.facts.episode!r:.60} has no step; count the steps "
            "of an episode when asking for decisions"
        )
    return decision.facts.step


def _observation(bundle: Bundle, decision: CapturedDecision) -> Any:
    return stored(bundle.observation_space, value_from_json(bundle.observation_space, decision.observation))


def _mask(bundle: Bundle, decision: CapturedDecision) -> NDArray[np.bool_]:
    space = bundle.action_space
    if not isinstance(space, spaces.Discrete) or (
        decision.facts.mask is not None and len(decision.facts.mask) != int(space.n)
    ):
        raise UserError(f"decision {decision.decision_id} has a mask that does not fit the actions {str(space)[:60]}")
    return np.ones(int(space.n), dtype=np.bool_) if decision.facts.mask is None else np.array(decision.facts.mask)
