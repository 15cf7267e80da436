"""Tuners on tabulated learning curves: normalised regret on seeds they never saw, at equal cost.

    python benchmarks/landscapes.py [FILE.npz] [--repeats 200] [--strategies race random_1 ...] [--budgets 32 64 128]

Without a file, the project's own landscapes are used: tabular agents on small environments, their greedy policies
evaluated exactly. A file holds, per task T, ``T`` (configurations, seeds, checkpoints) and ``T__<hyperparameter>``
(configurations,), such as ARLBench's curves (Becktepe et al. 2024) repacked.

Each repeat draws a random order of the configurations and splits the seeds into tuning and test seeds, alike for all
strategies and budgets. A full training of one configuration on one seed costs 1, going on from a checkpoint the
difference. The score is (best - mean test return of the chosen configuration) / (best - median) at the end of the
training: 0 is the best configuration, 1 the median one. Intervals are 95 % over repeats, for these tasks. With
``--results FILE`` a long measurement goes on where it was ended: what the file holds is not measured again.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from policylab.agents.exploration import EpsilonGreedy
from policylab.agents.registry import AGENTS
from policylab.agents.tabular.compiled import train_many
from policylab.envs.enumeration import table_of
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.envs.table import TabularMDP
from policylab.seeding import generator
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.landscape import ROW, Landscape, LandscapeBackend, RowSearcher, landscape_study, quantiles
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import SCHEDULERS, Horizon, Scheduler
from policylab.tuning.searcher import SEARCHERS, Searcher
from policylab.tuning.space import Space

FLOORS = {"brax": -2000.0, "box2d": -200.0}
"""Returns below are clipped: how badly a failed agent fails says nothing."""

ALIKE = {"minigrid_unlock_dqn", "minigrid_four_rooms_ppo"}
"""Tasks whose best and median configurations are alike."""

# --- landscapes


def load(path: Path) -> dict[str, Landscape]:
    data = np.load(path, allow_pickle=False)
    found = {}
    for task in sorted(name for name in data.files if "__" not in name and name not in ALIKE):
        values = data[task].astype(np.float64)
        values = np.where(np.isnan(values), np.nanmin(values), values)
        values = np.maximum(values, FLOORS.get(task.split("_")[0], -np.inf))
        columns = {name: data[name].astype(np.float64) for name in data.files if name.startswith(f"{task}__")}
        found[task] = Landscape(values, quantiles({k: v for k, v in columns.items() if not k.endswith("__budget")}))
    return found


TASKS = {
    "frozen_lake": ("FrozenLake-v1", 10_000),
    "cliff_slippery": ("CliffWalkingSlippery-v1", 10_000),
    "dyna_maze": ("policylab/DynaMaze-v0", 5000),
}
"""Task -> environment and environment steps of a full training: enough for good settings to get near the optimum."""

KINDS = ("q_learning", "sarsa", "expected_sarsa", "double_q_learning")
DISCOUNT = 0.99
"""Of the evaluation: with it the value of a policy that never ends an episode is finite, too."""


def generate(
    tasks: Sequence[str] = tuple(TASKS), *, n: int = 256, n_seeds: int = 10, share: float = 1.0
) -> dict[str, Landscape]:
    """Return landscapes of tabular agents; ``share`` of the steps makes them smaller."""
    return {task: _generate(*TASKS[task], n=n, n_seeds=n_seeds, share=share) for task in tasks}


def _generate(env_id: str, steps: int, *, n: int, n_seeds: int, share: float) -> Landscape:
    mdp = table_of(make_env(EnvSettings(id=env_id)))
    rng = generator(0, "landscape", env_id)
    rates, epsilons = 10 ** rng.uniform(-2, 0, n), 10 ** rng.uniform(-2, 0, n)
    discounts, initial = 1 - 10 ** rng.uniform(-3, -0.5, n), rng.uniform(-1, 1, n)
    kinds = rng.integers(len(KINDS), size=n)
    settings = [
        AGENTS.load(KINDS[kind]).Settings(
            learning_rate=rate, discount=discount, initial_value=value, exploration=EpsilonGreedy(epsilon=epsilon)
        )
        for kind, rate, discount, value, epsilon in zip(kinds, rates, discounts, initial, epsilons, strict=True)
    ]
    pairs = [(chosen, seed) for chosen in settings for seed in range(n_seeds)]
    # No setting changes with time, so the first part of a longer training is the shorter training.
    at = [round(steps * share * k / 10) for k in range(1, 11)]
    values = [exact_values(mdp, train_many(mdp, pairs, steps=k).q.argmax(axis=2)) for k in at]
    columns = {
        "rate": rates,
        "epsilon": epsilons,
        "discount": discounts,
        "initial": initial,
        "kind": kinds.astype(float),
    }
    return Landscape(np.stack(values, axis=1).reshape(n, n_seeds, 10), quantiles(columns))


def exact_values(mdp: TabularMDP, policies: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the exact discounted value of each policy at the start; shape (n, S) to (n,)."""
    state = np.arange(mdp.n_states)
    probability, target = mdp.probability[state, policies], mdp.next_state[state, policies]
    reward = (probability * mdp.reward[state, policies]).sum(axis=2)
    going_on = np.where(mdp.terminated[state, policies], 0.0, probability)
    found = np.empty(len(policies))
    for first in range(0, len(policies), 256):
        part = slice(first, first + 256)
        system = np.zeros((len(policies[part]), mdp.n_states, mdp.n_states))
        system[:, state, state] = 1.0
        rows = np.arange(len(system))[:, None, None]
        np.add.at(system, (rows, state[:, None], target[part]), -DISCOUNT * going_on[part])
        found[part] = np.linalg.solve(system, reward[part, :, None])[:, :, 0] @ mdp.initial_distribution
    return found


# --- strategies


class NearestRow:
    """Turns any searcher over the unit cube into one over the table: the nearest row that was not tried."""

    def __init__(self, inner: Searcher, points: NDArray[np.float64], *, axes: Sequence[str]) -> None:
        self._inner, self._points, self._axes = inner, points, axes

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        tried = [trial.configuration[ROW] for trial in history.trials.values()]
        wanted = self._inner.suggest(history, rng=rng) if len(tried) < len(self._points) else None
        if wanted is None:
            return None
        distance = ((self._points - [wanted[axis] for axis in self._axes]) ** 2).sum(axis=1)
        distance[tried] = np.inf
        row = int(distance.argmin())
        return {ROW: row, **dict(zip(self._axes, self._points[row].tolist(), strict=True))}


class OptunaSearcher:
    """An Optuna sampler, fed with what the history holds of each row on its tuning seeds."""

    def __init__(self, sampler: str, *, axes: Sequence[str], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._optuna, self._n_told = optuna, 0
        self._study = optuna.create_study(direction="maximize", sampler=getattr(optuna.samplers, sampler)(seed=seed))
        self._axes = {axis: optuna.distributions.FloatDistribution(0.0, 1.0) for axis in axes}

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        trials = list(history.trials.values())
        for trial in trials[self._n_told :]:
            values = list(trial.values_at(history.max_resource).values())
            parameters = {axis: trial.configuration[axis] for axis in self._axes}
            self._study.add_trial(
                self._optuna.create_trial(params=parameters, distributions=self._axes, value=float(np.mean(values)))
            )
        self._n_told = len(trials)
        asked = self._study.ask(self._axes)
        self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)  # the nearest row takes its place
        return dict(asked.params)


class Split(NamedTuple):
    """One repeat: the study's seed, the order of the rows, and which seeds tune and which test."""

    seed: int
    order: list[int]
    tuning: list[int]
    test: list[int]


def split(landscape: Landscape, *, task: str, repeat: int) -> Split:
    rng = generator(repeat, "landscapes", task)
    n, n_seeds, _ = landscape.values.shape
    order, seeds = rng.permutation(n).tolist(), rng.permutation(n_seeds).tolist()
    return Split(int(rng.integers(2**31)), order, seeds[: n_seeds // 2], seeds[n_seeds // 2 :])


Proposer = Callable[[Landscape, Split], Searcher]


def random_rows(landscape: Landscape, drawn: Split) -> Searcher:
    return RowSearcher(drawn.order)


def modelled(name: str) -> Proposer:
    def make(landscape: Landscape, drawn: Split) -> Searcher:
        axes = [f"x{axis}" for axis in range(landscape.points.shape[1])]
        if name.endswith("Sampler"):
            inner: Searcher = OptunaSearcher(name, axes=axes, seed=drawn.seed)
        else:
            kind = SEARCHERS.load(name)
            unit = {"kind": "continuous", "low": 0.0, "high": 1.0, "scaling": "linear"}
            inner = kind.make(kind.Settings(), Space.model_validate({"parameters": dict.fromkeys(axes, unit)}))
        return NearestRow(inner, landscape.points, axes=axes)

    return make


STRATEGIES: dict[str, tuple[Mapping[str, Any], Proposer]] = {
    "random_1": ({"kind": "fixed", "seeds": 1}, random_rows),
    "random_3": ({"kind": "fixed", "seeds": 3}, random_rows),
    "median": ({"kind": "median"}, random_rows),
    "hyperband": ({"kind": "hyperband"}, random_rows),
    "asha": ({"kind": "asha"}, random_rows),
    "optuna_tpe_1": ({"kind": "fixed", "seeds": 1}, modelled("TPESampler")),
    "optuna_tpe_3": ({"kind": "fixed", "seeds": 3}, modelled("TPESampler")),
    "optuna_gp_1": ({"kind": "fixed", "seeds": 1}, modelled("GPSampler")),
    "optuna_gp_3": ({"kind": "fixed", "seeds": 3}, modelled("GPSampler")),
    "race": ({"kind": "race"}, random_rows),
    "race_bayesian": ({"kind": "race"}, modelled("bayesian")),
}
"""Name -> scheduler and searcher. ``race`` is the default scheduler."""

PLANLESS = {"fixed", "median", "asha"}
"""Schedulers that spend alike whatever the budget: one study answers for all budgets."""


def choose(strategy: str, landscape: Landscape, *, drawn: Split, budgets: Sequence[int]) -> list[int]:
    """Return the row that the strategy chooses at each budget, in full trainings."""
    chosen, proposer = STRATEGIES[strategy]
    full = landscape.values.shape[2]
    table = landscape.values[:, drawn.tuning]
    kind = SCHEDULERS.load(chosen["kind"])

    def study(budget: int) -> tuple[EventLog, Scheduler]:
        log = EventLog(None)
        horizon = Horizon(max_resource=full, budget=budget * full, n_seeds=len(drawn.tuning))
        scheduler: Scheduler = kind.make(kind.Settings(**chosen), horizon)
        searcher = proposer(landscape, drawn)
        landscape_study(LandscapeBackend(table), scheduler, searcher=searcher, log=log, seed=drawn.seed).run()
        return log, scheduler

    if chosen["kind"] in PLANLESS:
        log, scheduler = study(max(budgets))
        return [winner(log, scheduler, budget=budget * full, full=full) for budget in budgets]
    return [winner(*study(budget), budget=budget * full, full=full) for budget in budgets]


def winner(log: EventLog, scheduler: Scheduler, *, budget: int, full: int) -> int:
    """Return the row chosen from the events that ``budget`` pays for."""
    history, affordable = History(max_resource=full), History(max_resource=full)
    for event in log.events:
        history.apply(event)
        if history.spent > budget:
            break
        affordable.apply(event)
    best = scheduler.best(affordable)
    assert best is not None
    return int(affordable.trials[best].configuration[ROW])


# --- measurement


def regrets(task: str, landscape: Landscape, *, strategy: str, budgets: Sequence[int], repeat: int) -> list[float]:
    """Return the regret of one repeat at each budget."""
    drawn = split(landscape, task=task, repeat=repeat)
    chosen = choose(strategy, landscape, drawn=drawn, budgets=budgets)
    return [landscape.regret(row, drawn.test) for row in chosen]


Place: TypeAlias = tuple[str, str, int, int]
"""Strategy, task, repeat and budget."""


class Results:
    """Regrets by place, kept in a file of comma-separated values where one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._regrets: dict[Place, float] = {}
        if path is not None and path.exists():
            with path.open(newline="") as file:
                self._regrets = {(row[0], row[1], int(row[2]), int(row[3])): float(row[4]) for row in csv.reader(file)}

    def __contains__(self, place: Place) -> bool:
        return place in self._regrets

    def __getitem__(self, place: Place) -> float:
        return self._regrets[place]

    def update(self, found: Mapping[Place, float]) -> None:
        self._regrets.update(found)
        if self._path is not None:
            with self._path.open("a", newline="") as file:
                csv.writer(file).writerows((*place, repr(regret)) for place, regret in found.items())


def measure(
    landscapes: Mapping[str, Landscape],
    strategy: str,
    *,
    budgets: Sequence[int],
    n_repeats: int,
    workers: int,
    results: Results | None = None,
) -> NDArray[np.float64]:
    """Return regrets of shape (tasks, repeats, budgets); what ``results`` hold is not measured again."""
    results = results or Results(None)
    work = functools.partial(regrets, strategy=strategy, budgets=budgets)
    # Small matrices: threads within a worker only get into each other's way.
    with ProcessPoolExecutor(workers, initializer=threadpool_limits, initargs=(1,)) as pool:
        jobs = {
            pool.submit(work, task, landscape, repeat=repeat): (task, repeat)
            for repeat in range(n_repeats)
            for task, landscape in landscapes.items()
            if any((strategy, task, repeat, budget) not in results for budget in budgets)
        }
        for job in as_completed(jobs):
            places = [(strategy, *jobs[job], budget) for budget in budgets]
            results.update(dict(zip(places, job.result(), strict=True)))
    return np.array(
        [
            [[results[strategy, task, repeat, budget] for budget in budgets] for repeat in range(n_repeats)]
            for task in landscapes
        ]
    )


def interval(found: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of (tasks, repeats, budgets) over tasks and repeats, and half its 95 % interval, per budget."""
    variance = found.var(axis=1, ddof=1).sum(axis=0) / found.shape[1] / found.shape[0] ** 2
    return found.mean(axis=(0, 1)), 1.96 * np.sqrt(variance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="tabulated landscapes; default: generated ones")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--budgets", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--tasks", action="store_true", help="print the mean of every task, too")
    parser.add_argument("--results", type=Path, help="file of regrets that is read and added to")
    given = parser.parse_args()
    started = time.monotonic()
    landscapes = load(given.file) if given.file else generate()
    print(f"{len(landscapes)} tasks, {given.repeats} repeats; {time.monotonic() - started:.0f} s to load or build\n")
    print("| strategy | " + " | ".join(f"{budget} trainings" for budget in given.budgets) + " | seconds |")
    print("|---" * (len(given.budgets) + 2) + "|")
    measured = functools.partial(measure, results=Results(given.results), workers=given.workers)
    for strategy in given.strategies:
        started = time.monotonic()
        found = measured(landscapes, strategy, budgets=given.budgets, n_repeats=given.repeats)
        cells = " | ".join(f"{mean:.3f} ± {half:.3f}" for mean, half in zip(*interval(found), strict=True))
        print(f"| {strategy} | {cells} | {time.monotonic() - started:.0f} |", flush=True)
        if given.tasks:
            for task, means in zip(landscapes, found.mean(axis=1), strict=True):
                print(f"|   {task} | " + " | ".join(f"{mean:.3f}" for mean in means) + " | |")


if __name__ == "__main__":
    main()
