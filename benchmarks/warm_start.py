"""Does a warm start with a good parent beat the same search cold, at a quarter of its budget?

    python -m benchmarks.warm_start [--repeats 20] [--budget 24] [--parent 96]

A good parent has searched a task cold with four times the budget. The child then searches the same task with fresh
noise (identical), or a related one whose optimum lies elsewhere and whose values have another scale (transfer): cold
with the full budget, and warm with a quarter of it. What a bad parent costs is seen on the parent's task turned upside
down (misleading): cold and warm, both with the full budget.

The score is the regret of the selected configuration without noise, in units of the distance between the best and the
median value of the task: 0 is the optimum, 1 a configuration as good as half of all. Repeats are paired: parent, cold
and warm child of one repeat share task and noise. Intervals are 95 % bootstrap intervals of the mean difference.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from policylab.seeding import generator
from policylab.tuning.backend import InlineBackend, Task
from policylab.tuning.history import History
from policylab.tuning.limits import Limits
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.fixed import Fixed
from policylab.tuning.searcher import SEARCHERS, Searcher
from policylab.tuning.searchers.observations import Observation, gather
from policylab.tuning.space import Space
from policylab.tuning.study import Study
from policylab.tuning.study_facts import Parent, StudyFacts
from policylab.tuning.warm_start import WarmStart, WarmStartedSearcher, WarmStartSettings

Function = Callable[[np.ndarray], np.ndarray]
NOISE = 0.1
"""Standard deviation of one evaluation, in units of the distance between best and median."""


def branin(u: np.ndarray) -> np.ndarray:
    x, y = 15 * u[:, 0] - 5, 15 * u[:, 1]
    bowl = (y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6) ** 2
    return np.asarray(-(bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10))


def hartmann6(u: np.ndarray) -> np.ndarray:
    alpha = np.array([1.0, 1.2, 3.0, 3.2])
    a = np.array(
        [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
    )
    p = 1e-4 * np.array(
        [
            [1312, 1696, 5569, 124, 8283, 5886],
            [2329, 4135, 8307, 3736, 1004, 9991],
            [2348, 1451, 3522, 2883, 3047, 6650],
            [4047, 8828, 8732, 5743, 1091, 381],
        ]
    )
    return np.asarray((alpha * np.exp(-(a * (u[:, None, :] - p) ** 2).sum(axis=2))).sum(axis=1))


def ridge(u: np.ndarray) -> np.ndarray:
    """Two settings that must fit each other, on a plateau of failure, as in reinforcement learning."""
    fit = np.exp(-(((u[:, 0] - 0.6 * u[:, 1] - 0.2) / 0.12) ** 2)) * u[:, 1]
    return np.asarray(fit * np.exp(-(((u[:, 2] - 0.4) / 0.4) ** 2)))


def ackley4(u: np.ndarray) -> np.ndarray:
    x = 20 * (u - 0.35)
    flat = -20 * np.exp(-0.2 * np.sqrt((x**2).mean(axis=1)))
    return np.asarray(-(flat - np.exp(np.cos(2 * np.pi * x).mean(axis=1)) + 20 + np.e))


FUNCTIONS: dict[str, tuple[Function, int]] = {
    "branin": (branin, 2),
    "ridge": (ridge, 3),
    "ackley4": (ackley4, 4),
    "hartmann6": (hartmann6, 6),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Landscape:
    """A function moved by ``shift`` and turned by ``sign``, with its best and its median."""

    function: Function
    shift: np.ndarray
    sign: float
    scale: float
    best: float
    median: float

    @classmethod
    def make(cls, name: str, *, shift: np.ndarray, sign: float = 1.0, scale: float = 1.0) -> Landscape:
        function, d = FUNCTIONS[name]
        made = cls(function, shift, sign, scale, 0.0, 0.0)
        u = np.random.default_rng(0).random((20_000, d))
        values = made.at(u)
        top = u[np.argsort(-values)[:20]]
        for width in (0.03, 0.01, 0.003, 0.001):
            near = np.random.default_rng(1).normal(np.repeat(top, 200, axis=0), width)
            near = np.clip(np.vstack([top, near]), 0, 1)
            top = near[np.argsort(-made.at(near))[:20]]
        return dataclasses.replace(made, best=float(made.at(top).max()), median=float(np.median(values)))

    def at(self, u: np.ndarray) -> np.ndarray:
        return self.scale * self.sign * self.function(np.clip(u - self.shift, 0, 1))

    def regret(self, u: np.ndarray) -> float:
        return float((self.best - self.at(u[None])[0]) / (self.best - self.median))


def space_of(name: str) -> Space:
    """Half of the axes are logarithmic, as learning rates are."""
    parameters = {
        f"x{i}": {
            "kind": "continuous",
            "low": 1e-4 if i % 2 else 0.0,
            "high": 1.0,
            "scaling": "logarithmic" if i % 2 else "linear",
        }
        for i in range(FUNCTIONS[name][1])
    }
    return Space.model_validate({"parameters": parameters})


def search(space: Space, landscape: Landscape, *, searcher: Searcher, trials: int, seed: int) -> tuple[History, float]:
    """Run a study and return its history and the regret of what it selects."""
    spread = landscape.best - landscape.median

    def objective(task: Task) -> float:
        noise = generator(seed, "noise", str(sorted(task.configuration.items()))).normal()
        return float(landscape.at(space.to_unit(task.configuration)[None])[0] + NOISE * spread * noise)

    scheduler = Fixed(Horizon(max_resource=1, budget=None, n_seeds=1, n_trials=trials), n_seeds=1)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(
            searcher=searcher,
            scheduler=scheduler,
            backend=InlineBackend(objective, folder=Path(folder)),
            log=EventLog(None),
            limits=Limits(trials=trials),
            max_resource=1,
            seed=seed,
        )
        study.run()
    winner = scheduler.best(study.history)
    assert winner is not None
    return study.history, landscape.regret(space.to_unit(study.history.trials[winner].configuration))


KINDS = ("identical", "transfer", "misleading")


def one(job: tuple[str, str, int, int, int]) -> list[tuple[float, ...]]:
    """Return for each kind of child the regrets: cold, warm, cold at a quarter of the budget, and the parent's own."""
    name, searcher, budget, parent_budget, repeat = job
    space, rng = space_of(name), generator(7, name, repeat)
    d = len(space.paths)
    base = rng.uniform(-0.1, 0.1, size=d)
    parent = Landscape.make(name, shift=base)
    children = (
        parent,
        Landscape.make(name, shift=base + rng.uniform(-0.06, 0.06, size=d), scale=37.0),
        Landscape.make(name, shift=base, sign=-1.0),
    )
    before, own = search(space, parent, searcher=build(searcher, space), trials=parent_budget, seed=1000 + repeat)
    found = []
    for kind, child in zip(KINDS, children, strict=True):
        started = warm_started(kind, before, space=space, searcher=searcher)
        history, cold = search(space, child, searcher=build(searcher, space), trials=budget, seed=2000 + repeat)
        trials = budget if kind == "misleading" else budget // 4
        _, warm = search(space, child, searcher=started, trials=trials, seed=2000 + repeat)
        quarter = list(history.trials.values())[: budget // 4]
        early = max(quarter, key=lambda trial: trial.runs[0].value or -math.inf)
        found.append((cold, warm, child.regret(space.to_unit(early.configuration)), own))
    return found


def build(kind: str, space: Space, *, prior: tuple[Observation, ...] = ()) -> Searcher:
    made = SEARCHERS.load(kind)
    searcher: Searcher = made.make(made.Settings(), space, prior=prior)
    return searcher


def warm_started(kind: str, before: History, *, space: Space, searcher: str) -> WarmStartedSearcher:
    observed = gather(before, n_parameters=-1).observed
    facts = StudyFacts(name="parent", space=space, searcher=searcher)
    parent = Parent(facts, "completed", observed, observed, len(before.trials))
    settings = WarmStartSettings(
        kind="identical_data_and_algorithm" if kind == "identical" else "transfer_learning", parents=("parent",)
    )
    warm = WarmStart.make(settings, facts.model_copy(update={"name": "child"}), parents=[parent])
    return WarmStartedSearcher(
        warm, space, build=lambda prior: build(searcher, space, prior=prior), box=searcher == "random"
    )


def interval(values: np.ndarray) -> str:
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(10_000, len(values)))].mean(axis=1)
    return f"{values.mean():+.3f} [{np.quantile(means, 0.025):+.3f}, {np.quantile(means, 0.975):+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--budget", type=int, default=24)
    parser.add_argument("--parent", type=int, default=96)
    parser.add_argument("--searchers", nargs="+", default=["random", "bayesian"])
    arguments = parser.parse_args()
    n, quarter = arguments.budget, arguments.budget // 4
    print(f"| searcher | child | task | parent, {arguments.parent} | cold, {quarter} | cold, {n} | warm "
          f"| warm - cold {n} |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    started = time.monotonic()
    with ProcessPoolExecutor(max_workers=2) as pool:
        for searcher in arguments.searchers:
            results = {}
            for name in FUNCTIONS:
                jobs = [(name, searcher, n, arguments.parent, repeat) for repeat in range(arguments.repeats)]
                results[name] = np.array(list(pool.map(one, jobs)))
            results["**all**"] = np.concatenate(list(results.values()))
            for place, kind in enumerate(KINDS):
                for name, found in results.items():
                    spent = n if kind == "misleading" else quarter
                    report(f"{searcher} | {kind} | {name}", found[:, place], spent=spent)
    print(f"\n{arguments.repeats} repeats, {time.monotonic() - started:.0f} s")


def report(label: str, found: np.ndarray, *, spent: int) -> None:
    cold, warm, early, own = found.mean(axis=0)
    difference = interval(found[:, 1] - found[:, 0])
    print(f"| {label} | {own:.3f} | {early:.3f} | {cold:.3f} | {warm:.3f} ({spent}) | {difference} |", flush=True)


if __name__ == "__main__":
    main()
