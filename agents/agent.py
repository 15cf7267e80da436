"""The Agent protocol: what every learner offers, whatever it learns with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from policylab.agents.policy import StoredPolicy


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What one call of `Agent.learn` achieved.

    Attributes:
        steps: environment steps taken in total since the agent was made, as counted, not as asked for.
        episodes: episodes ended in total (terminated or truncated).
        metrics: named finite floats of the steps since the last report: ``train/return_mean`` and
            ``train/length_mean`` (absent when no episode ended), ``train/epsilon``, ``train/td_error`` ...
        warnings: what went wrong since the last report and the user should know, one sentence each.
    """

    steps: int
    episodes: int
    metrics: Mapping[str, float]
    warnings: tuple[str, ...] = ()


class Agent(Protocol):
    """A learner bound to its environment, budget and random streams.

    An agent of `exact_resume`, saved and restored into a freshly made agent of the same settings, continues exactly:
    learning N steps equals learning k, saving, restoring and learning N - k, to the last bit. Others continue from the
    same knowledge through other episodes, and say so in `execution_report`.

    Attributes:
        online: every episode is a new problem to it, so that it is judged by what it earns while it learns.
        exact_resume: whether a restored agent continues bit-exactly.
        stochastic: its policy is a distribution over actions, of which acting deterministically is only a part; both
            are evaluated.

    A class of agents that knows the names of all metrics it may report has them as ``metrics``, a frozenset; without
    it, any name may be asked for.
    """

    online: bool
    exact_resume: bool
    stochastic: bool

    @property
    def steps(self) -> int:
        """Environment steps taken so far, those before a restored checkpoint included."""
        ...

    @property
    def execution_report(self) -> Mapping[str, str]:
        """How it learns: ``kind`` (``compiled``, ``plain`` or ``rllib``), the ``reason``, and what else is to know."""
        ...

    def learn(self, steps: int, *, pause: Callable[[], None] | None = None) -> Report:
        """Take ``steps`` more environment steps and learn from them.

        An agent that learns from whole batches may take more: what counts is `Report.steps`.

        Args:
            steps: environment steps, at least 0.
            pause: called where work of seconds can be interrupted and the state saved; an agent that takes its steps
                within a fraction of a second never calls it. What it raises ends learning.
        """
        ...

    def policy(self) -> StoredPolicy:
        """Return the deterministic policy learned so far, independent of later learning."""
        ...

    def save(self, folder: Path) -> None:
        """Write the whole state into ``folder``."""
        ...

    def restore(self, folder: Path, *, retuned: bool = False) -> None:
        """Continue from what `save` wrote.

        Args:
            folder: the checkpoint.
            retuned: let it have been saved with other values of what its settings class calls ``mutable``; the values
                of this agent hold from here on.

        Raises:
            CheckpointError: the checkpoint is damaged or belongs to another agent or environment.
        """
        ...

    def close(self) -> None:
        """End whatever the agent runs outside of this process; it learns no more."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """What an agent may offer besides: to learn up to several marks at once, faster than by calls of `learn`."""

    def learn_each(self, steps: Sequence[int]) -> Iterator[tuple[Report, StoredPolicy]]:
        """Take each number of ``steps`` in turn; yield what `learn` and `policy` would return after each.

        The agent itself may be past the last of them when the first is yielded.
        """
        ...
