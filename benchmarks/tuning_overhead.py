"""What a study costs beside its objective: 100 trivial trials, the log on disk, beside Optuna with the same sampler.

    python -m benchmarks.tuning_overhead [--rounds 7] [--trials 100]

Three parameters (linear, logarithmic, integer), an objective that costs nothing, one process. Rounds alternate between
`policylab.tuning.tune` with a folder and ``optuna.Study.optimize`` in memory; imports are done before the clock starts.
The fastest rounds are compared, which other work on the machine disturbs least, and the medians. Optuna's
Gaussian-process sampler needs torch; its row appears where torch is installed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import scipy.stats  # noqa: F401 - loaded before the clock starts, as both sides use it

from policylab.tuning import tune

SPACE = {
    "parameters": {
        "x": {"kind": "continuous", "low": -1.0, "high": 1.0},
        "rate": {"kind": "continuous", "low": 1e-4, "high": 1.0, "scaling": "logarithmic"},
        "n": {"kind": "integer", "low": 1, "high": 20},
    }
}


def value(*, x: float, rate: float, n: int) -> float:
    return x**2 + rate + n


def ours(searcher: Mapping[str, Any], n_trials: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        result = tune(
            lambda task: value(**task.configuration),
            SPACE,
            limits={"trials": n_trials},
            searcher=searcher,
            mode="min",
            folder=Path(folder),
        )
        elapsed = time.perf_counter() - started
    assert len(result.trials) == n_trials
    return elapsed


def optunas(sampler: optuna.samplers.BaseSampler, n_trials: int) -> float:
    def objective(trial: optuna.Trial) -> float:
        return value(
            x=trial.suggest_float("x", -1.0, 1.0),
            rate=trial.suggest_float("rate", 1e-4, 1.0, log=True),
            n=trial.suggest_int("n", 1, 20),
        )

    started = time.perf_counter()
    optuna.create_study(sampler=sampler).optimize(objective, n_trials=n_trials)
    return time.perf_counter() - started


def peers() -> list[tuple[Mapping[str, Any], str, Callable[[], optuna.samplers.BaseSampler] | None]]:
    """Return our searcher, the name of Optuna's counterpart, and how to make it where it can be made."""
    gaussian = (lambda: optuna.samplers.GPSampler(seed=0)) if find_spec("torch") else None
    return [
        ({"kind": "random"}, "RandomSampler", lambda: optuna.samplers.RandomSampler(seed=0)),
        ({"kind": "random", "sobol": True}, "QMCSampler", lambda: optuna.samplers.QMCSampler(seed=0)),
        ({"kind": "tpe"}, "TPESampler", lambda: optuna.samplers.TPESampler(seed=0, multivariate=True)),
        ({"kind": "bayesian"}, "GPSampler", gaussian),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--trials", type=int, default=100)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print(f"{arguments.trials} trivial trials, {arguments.rounds} rounds; seconds: fastest (median)\n")
    print(f"{'searcher':28}{'policylab, log on disk':>24}{'optuna, in memory':>22}{'ratio':>8}")
    for searcher, name, make in peers():
        own: list[float] = []
        theirs: list[float] = []
        for number in range(arguments.rounds):
            own.append(ours(searcher, arguments.trials))
            if make is not None and (number == 0 or searcher["kind"] != "bayesian"):  # a minute a round
                theirs.append(optunas(make(), arguments.trials))
        label = " ".join(str(item) for key, item in searcher.items() if key == "kind" or item is True)
        row = f"{label + ' / ' + name:28}{min(own):>15.3f} ({statistics.median(own):.3f})"
        if theirs:
            row += f"{min(theirs):>13.3f} ({statistics.median(theirs):.3f}){min(own) / min(theirs):>8.2f}"
        print(row if theirs else f"{row}   (Optuna's needs torch)")


if __name__ == "__main__":
    main()
