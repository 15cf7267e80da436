"""`ReportData`: everything a report shows, as plain data.

The report draws and formats; it measures nothing. Whoever fills this in (the runner, or a reader of a run
directory) has done the statistics.

| symbol | meaning |
|---|---|
| n | seeds of one role |
| P | evaluation marks along a run |
| A | actions |
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from policylab.experiments.report.study_data import StudyData

Role = Literal["tune", "confirm"]


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """A value over seeds with its confidence interval; ``low`` and ``high`` are NaN where there is none."""

    value: float
    low: float
    high: float
    n_seeds: int


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectiveValues:
    """What a search selected by, where that is not the return: the measure in words, and its values over seeds."""

    measure: str
    selected: Estimate
    confirmed: Estimate | None


@dataclasses.dataclass(frozen=True, slots=True)
class Exact:
    """The exact optimum of the environment's table, and the value of the packaged policy in it.

    ``policy_is`` says which policy that is, such as ``"best of 10 tuning seeds"``; ``""`` when nobody knows.
    """

    optimal_return: float
    policy_return: float
    optimality_gap: float
    policy_is: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class BaselineValue:
    """A classical baseline's value.

    Attributes:
        name: of the rule; ``"random"`` acts at random.
        value: its value; ``low`` and ``high`` are NaN where it is exact.
        low: lower end of its confidence interval.
        high: upper end.
        n_episodes: episodes behind it, 0 where it is exact.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    n_episodes: int = 0

    @property
    def classical(self) -> bool:
        """Whether it is a rule at all."""
        return self.name != "random"


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """Where the policy stands: 0 is the best classical baseline, 1 the optimum; ``confirmed`` may be None."""

    policy: float
    confirmed: float | None
    baseline: str


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What the experiment used: environment steps and wall-clock seconds in total, and trials."""

    env_steps: int
    wall_s: float
    trials: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The evaluations of all runs of one role along training.

    Attributes:
        role: ``"tune"`` (the seeds that selected) or ``"confirm"`` (fresh seeds).
        seeds: the run seeds, in the order of ``returns``, length n.
        steps: environment steps at each mark, shape (P,).
        returns: value at each mark, shape (n, P); NaN where a run has not got there.
        middle: the statistic over seeds at each mark, shape (P,).
        low: lower end of its confidence band, shape (P,).
        high: upper end of its confidence band, shape (P,).
        final: value of each run's final policy, shape (n,).
    """

    role: Role
    seeds: Sequence[int]
    steps: NDArray[np.int64]
    returns: NDArray[np.float64]
    middle: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    final: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Values and greedy actions laid out on a grid.

    Attributes:
        values: value of each cell, shape (rows, columns); NaN where nothing is decided (walls, ends of episodes).
        actions: whether each action is greedy there, shape (rows, columns, A); ties are all true.
        moves: the (row change, column change) of each action, length A; (0, 0) stays.
        kinds: what each cell is (``"free"``, ``"wall"``, ``"start"``, ``"goal"``, ``"pit"`` ...), (rows, columns).
        note: which slice of the states the map shows, ``""`` if all of them.
        walls: pairs of neighbouring cells (row, column) with a wall between them.
    """

    values: NDArray[np.float64]
    actions: NDArray[np.bool_]
    moves: Sequence[tuple[int, int]]
    kinds: Sequence[Sequence[str]]
    note: str = ""
    walls: Sequence[tuple[tuple[int, int], tuple[int, int]]] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Lineage:
    """Where the numbers come from.

    Attributes:
        config_hash: sha256 of the settings that determine the results.
        git_commit: of the folder the experiment ran in; None outside a repository.
        host: name of the machine.
        created_utc: ISO 8601 time of the start.
        root_seed: root of every random stream.
        versions: package -> version.
    """

    config_hash: str
    git_commit: str | None
    host: str
    created_utc: str
    root_seed: int
    versions: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class EnvironmentFacts:
    """The environment as resolved.

    Attributes:
        id: the Gymnasium id that was made.
        max_episode_steps: its time limit, None if it has none.
        n_states: states of its table, None if it has no table.
        n_actions: number of discrete actions, None if they are continuous.
        notes: what was noticed about it, such as a retired id that was replaced.
    """

    id: str
    max_episode_steps: int | None
    n_states: int | None = None
    n_actions: int | None = None
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ReportData:
    """One experiment, ready to be drawn.

    Attributes:
        name: of the experiment.
        status: ``"finished"``, ``"interrupted"``, ``"failed"`` or ``"running"``.
        description: a sentence of the author's, or ``""``.
        metric: what the values are, such as ``"undiscounted return per episode"``.
        statistic: how seeds are summarised, such as ``"mean"`` or ``"IQM"``.
        confidence: level of every interval, in (0, 1).
        selected: the winner's value on the tuning seeds; None if no run got far enough.
        confirmed: its value on the confirmation seeds; None without such seeds.
        objective: what the search selected by, where that is not what the other values are.
        exact: None where the environment has no table.
        baselines: classical rules and random actions, best first.
        score: None where the optimum or a classical baseline is missing.
        config: the resolved configuration, nested.
        curves: of the winner, one per role that has runs.
        warnings: what a careful reader must know, one sentence each.
        tracking: name -> text, such as uri, experiment_id, run_id.
        files: name -> path, such as the policy bundle and the run directory.
        grid: values and actions of the packaged policy, where the environment lies on a grid.
        episode_gif: a rendered episode of the packaged policy.
        episode_caption: what the episode shows.
        study: the search that selected the configuration, None without one.
    """

    name: str
    status: str
    metric: str
    cost: Cost
    lineage: Lineage
    environment: EnvironmentFacts
    config: Mapping[str, Any]
    description: str = ""
    statistic: str = "mean"
    confidence: float = 0.95
    selected: Estimate | None = None
    confirmed: Estimate | None = None
    objective: ObjectiveValues | None = None
    exact: Exact | None = None
    baselines: Sequence[BaselineValue] = ()
    score: Score | None = None
    curves: Sequence[Curves] = ()
    warnings: Sequence[str] = ()
    tracking: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    grid: Grid | None = None
    episode_gif: bytes | None = None
    episode_caption: str = ""
    study: StudyData | None = None
