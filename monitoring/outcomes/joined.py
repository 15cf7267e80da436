"""`Outcomes`: decisions joined with the rewards that were reported for them, whenever those arrived.

The join is by inference id where the client gave one, else by decision (event) id, as Amazon SageMaker merges ground
truth. Rewards of a decision add up. A decision whose reward has not arrived has none: it is not 0, unless that is said.
A reward that is no number within ±1e150 counts as not arrived.

| symbol | field | shape |
|---|---|---|
| r | reward; NaN where none was reported | (N,) |
| s, a | observation, action; None where no policy says what they are | (N, ...) |
| | starts: the first row of each of E episodes | (E,) |
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.agents.space_json import value_from_json
from policylab.agents.transitions import stored
from policylab.deployment.capture.format import CapturedDecision
from policylab.deployment.capture.reading import each_once, read_captured, read_rewards
from policylab.errors import UserError
from policylab.monitoring.causes.steps import read_steps
from policylab.monitoring.ope.captured_log import NO_NUMBER, only_endpoint
from policylab.monitoring.ope.reported import Ends, Reported, endings
from policylab.monitoring.outcomes.period import Period

Floats = NDArray[np.float64]
EVER = Period()


@dataclasses.dataclass(frozen=True, slots=True)
class OutcomeQuery:
    """Which decisions are meant.

    Attributes:
        endpoint: its name; None if the folder holds one endpoint.
        variant: None takes all variants.
        period: when they were made.
        missing_reward: what a decision earned for which no reward was reported; None leaves it unknown.
    """

    endpoint: str | None = None
    variant: str | None = None
    period: Period = EVER
    missing_reward: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Decisions, those of an episode one after the other, episodes in the order of time; see the module's table.

    Attributes:
        ended: whether the episode terminated with the step, shape (N,); captured traffic in which nobody tells an end
            is taken to end each episode with its last captured decision.
        left_out: how many decisions were left out, by reason.
        n_unmatched: rewards of decisions that are not there.
        ends: how much is known of the ends of episodes; where their last ``next_observation`` is not, it is the
            observation before.
    """

    reward: Floats
    starts: NDArray[np.int64]
    ended: NDArray[np.bool_]
    observation: NDArray[Any] | None = None
    next_observation: NDArray[Any] | None = None
    action: NDArray[Any] | None = None
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)
    n_unmatched: int = 0
    ends: Ends = "whole"

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, shape (E,)."""
        return np.asarray(np.diff(np.r_[self.starts, len(self)]))

    def totals(self, values: Floats) -> Floats:
        """Return the sum of ``values``, shape (N,), over each episode, shape (E,); NaN where one is missing."""
        return np.add.reduceat(values, self.starts) if len(self) else np.zeros(0)

    def returns(self, discount: float = 1.0) -> Floats:
        """Return the return of each episode from its first step, shape (E,); NaN where a reward is missing."""
        step = np.arange(len(self)) - np.repeat(self.starts, self.lengths)
        return self.totals(discount**step * self.reward)


def read_outcomes(path: Path, *, bundle: Bundle | None = None, query: OutcomeQuery | None = None) -> Outcomes:
    """Return the outcomes in a folder of captured traffic, or in a Parquet file of `policylab record`.

    Args:
        path: the folder or file.
        bundle: a policy of the task, whose spaces captured observations and actions belong to; None leaves them out.
        query: which decisions are meant.

    Raises:
        UserError: there is nothing of the kind, or a line is damaged.
    """
    asked = query or OutcomeQuery()
    if path.is_dir():
        return _captured(path, bundle, query=asked)
    if asked.period.bounded or asked.variant or asked.endpoint or asked.missing_reward is not None:
        raise UserError(f"{path} is a recording; offsets, endpoints and missing rewards are of captured traffic")
    steps = read_steps(path)
    return Outcomes(
        steps.reward, steps.starts, steps.terminated,
        observation=steps.observation, next_observation=steps.next_observation, action=steps.action,
    )  # fmt: skip


def _captured(folder: Path, bundle: Bundle | None, *, query: OutcomeQuery) -> Outcomes:
    endpoint = query.endpoint or only_endpoint(folder)
    episodes: dict[str, list[CapturedDecision]] = defaultdict(list)
    for decision in each_once(read_captured(folder, endpoint=endpoint, variant=query.variant)):
        episodes[_episode(decision)].append(decision)
    reported = Reported.of(read_rewards(folder, endpoint=endpoint))
    left_out: Counter[str] = Counter()
    kept: list[list[CapturedDecision]] = []
    known: set[str] = set()
    for steps in episodes.values():
        known.update(one.reward_id for one in steps)
        made = sorted(steps, key=lambda one: (one.facts.step or 0, one.time_utc))
        reason = query.period.place(min(one.time_utc for one in made)) or _gap(made) or _unfinished(made, reported)
        if reason is None:
            kept.append(made)
        else:
            left_out[reason] += len(made)
    if reported.n_unusable:
        left_out[NO_NUMBER] = reported.n_unusable
    default = math.nan if query.missing_reward is None else query.missing_reward
    kept.sort(key=lambda made: (min(one.time_utc for one in made), made[0].decision_id))
    found = _assembled(kept, bundle, reported=reported, missing_reward=default)
    n_unmatched = len(set(reported.reward) - known) if query.variant is None else 0
    return dataclasses.replace(found, left_out=dict(left_out), n_unmatched=n_unmatched)


def _gap(made: list[CapturedDecision]) -> str | None:
    """Return why an episode is not whole; None if it is, or if nobody counted its steps."""
    steps = [one.facts.step for one in made]
    whole = made[0].facts.episode is None or None in steps or steps == list(range(len(steps)))
    return None if whole else "of episodes whose steps are not all there"


def _unfinished(made: list[CapturedDecision], reported: Reported) -> str | None:
    """Return why an episode has no end; None if it has, or if nobody tells ends.

    Raises:
        UserError: it goes on after its end.
    """
    if not reported.end or made[0].facts.episode is None:
        return None
    if any(reported.ended(one) for one in made[:-1]):
        raise UserError(
            f"episode {made[0].facts.episode!r:.60} goes on after it was reported to have ended; name each differently"
        )
    return None if reported.ended(made[-1]) else "of episodes that had not ended"


def _episode(decision: CapturedDecision) -> str:
    named = decision.facts.episode
    return f"decision {decision.decision_id}" if named is None else f"episode {named}"


def _assembled(
    episodes: list[list[CapturedDecision]], bundle: Bundle | None, *, reported: Reported, missing_reward: float
) -> Outcomes:
    made = [one for episode in episodes for one in episode]
    rewards = np.array([reported.reward.get(one.reward_id, missing_reward) for one in made], dtype=np.float64)
    lengths = np.array([len(made) for made in episodes], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    last = np.zeros(len(made), dtype=np.bool_)
    last[starts + lengths - 1] = True
    found = endings(made, reported, last=last, space=None if bundle is None else bundle.observation_space)
    if bundle is None or not episodes:
        return Outcomes(rewards, starts, found.terminated, ends=found.ends)
    seen, done = bundle.observation_space, bundle.action_space
    observation = np.array([stored(seen, value_from_json(seen, one.observation)) for one in made])
    action = np.array([value_from_json(done, one.action) for one in made])
    following = observation[np.arange(len(made)) + ~last]
    for row, after in found.after.items():
        following[row] = after
    return Outcomes(
        rewards, starts, found.terminated,
        observation=observation, next_observation=following, action=action, ends=found.ends,
    )  # fmt: skip
