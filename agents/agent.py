"""The Agent protocol: what every learner offers, whatever it learns with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from policylab.agents.policy import StoredPolicy


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What one call of `Agent.learn` achieved.

    Attributes:
        steps: environment steps taken in total since the agent was made.
        episodes: episodes ended in total (terminated or truncated).
        metrics: named finite floats of the steps since the last report: ``train/return_mean`` and
            ``train/length_mean`` (absent when no episode ended), ``train/epsilon``, ``train/td_error`` ...
    """

    steps: int
    episodes: int
    metrics: Mapping[str, float]


class Agent(Protocol):
    """A learner bound to its environment, budget and random streams.

    `save` then `restore` into a freshly made agent of the same settings continues exactly: learning N
    steps equals learning k, saving, restoring and learning N - k, to the last bit.

    Attributes:
        online: every episode is a new problem to it, so that it is judged by what it earns while it learns.
    """

    online: bool

    @property
    def execution_report(self) -> Mapping[str, str]:
        """How it learns: ``kind`` (``"compiled"`` or ``"plain"``) and the ``reason``."""
        ...

    def learn(self, steps: int) -> Report:
        """Take ``steps`` more environment steps and learn from them."""
        ...

    def policy(self) -> StoredPolicy:
        """Return the greedy policy learned so far, independent of later learning."""
        ...

    def save(self, folder: Path) -> None:
        """Write the whole state into ``folder`` (arrays and JSON, never a pickle)."""
        ...

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            CheckpointError: the checkpoint is damaged or belongs to another agent or environment.
        """
        ...
