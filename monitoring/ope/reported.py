"""`Reported`: what clients said of captured decisions afterwards: their rewards, and how their episodes ended.

Rewards come late, in any order, several for one decision (they add up), or never. One that is no number within ±1e150
counts as not arrived. How an episode ends is told with a reward of its last decision
(`policylab.deployment.capture.format.EpisodeEnd`). Traffic in which nobody tells any end is taken to end each
episode with its last decision; where one is told, an episode without one had not ended yet.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from gymnasium import Space
from numpy.typing import NDArray

from policylab.agents.space_json import value_from_json
from policylab.agents.transitions import stored
from policylab.deployment.capture.format import CapturedDecision, EpisodeEnd, Reward
from policylab.errors import UserError

Ends = Literal["whole", "told", "assumed"]
"""Of the ends of episodes: all is known; how, but not everywhere with which observation; neither."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reported:
    """Reports by the id that they name.

    Attributes:
        reward: what each id earned in all.
        end: of each decision that was the last one of its episode; of several reports the latest.
        n_unusable: rewards that are no usable number.
    """

    reward: Mapping[str, float]
    end: Mapping[str, EpisodeEnd]
    n_unusable: int

    @classmethod
    def of(cls, rewards: Iterable[Reward]) -> Reported:
        """Return the reports in lines of rewards, in the order of their arrival."""
        reward: dict[str, float] = defaultdict(float)
        end: dict[str, EpisodeEnd] = {}
        n_unusable = 0
        for one in rewards:
            if one.usable:
                reward[one.decision_id] += one.reward
            else:
                n_unusable += 1
            if one.end is not None:
                end[one.decision_id] = one.end
        return cls(dict(reward), end, n_unusable)

    def ended(self, decision: CapturedDecision) -> bool:
        """Return whether an episode is told to have ended with a decision; one outside of episodes always has."""
        return decision.facts.episode is None or decision.reward_id in self.end


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Endings:
    """How the episodes of N decisions end.

    Attributes:
        terminated: shape (N,).
        truncated: shape (N,).
        after: the row and the observation after it, of the ends whose observation was told.
        ends: how much is known of them.
    """

    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    after: Mapping[int, Any]
    ends: Ends


def endings(
    decisions: list[CapturedDecision], reported: Reported, *, last: NDArray[np.bool_], space: Space[Any] | None
) -> Endings:
    """Return how the episodes of decisions end.

    Args:
        decisions: N of them.
        reported: what was said of them.
        last: which are the last captured ones of their episodes, shape (N,): where no end was told at all, the ends.
        space: of observations; None leaves them out.

    Raises:
        UserError: an observation that was told is of another task.
    """
    nothing = np.zeros(len(decisions), dtype=np.bool_)
    if not reported.end:
        return Endings(last, nothing, {}, "assumed")
    terminated, truncated, after = nothing.copy(), nothing.copy(), dict[int, Any]()
    for row, decision in enumerate(decisions):
        end = reported.end.get(decision.reward_id)
        terminated[row] = end.terminated if end is not None else decision.facts.episode is None
        truncated[row] = end is not None and end.truncated
        if end is not None and end.next_observation is not None and space is not None:
            after[row] = _observation(space, end.next_observation, decision=decision)
    known = len(after) == int((terminated | truncated).sum())
    return Endings(terminated, truncated, after, "whole" if known else "told")


def _observation(space: Space[Any], value: Any, *, decision: CapturedDecision) -> Any:
    try:
        return stored(space, value_from_json(space, value))
    except UserError as error:
        raise UserError(f"next_observation reported for decision {decision.decision_id[:60]}: {error}") from error
