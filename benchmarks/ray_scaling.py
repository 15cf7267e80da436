"""How runs on Ray scale: two workers against one, the overhead of a run, and a study's decisions as trials grow.

    python -m benchmarks.ray_scaling [--runs 10] [--seconds 1] [--small 100] [--trials 100 1000 10000] [--only PART]

*efficiency*: n runs of ``--seconds`` on one worker, then 2 n on two, the workers up before the clock starts; 1 means
that the second worker costs nothing. Asleep, a run takes its time whatever the machine does, so what is lost is ours;
busy, the runs also share the machine. *overhead*: ``--small`` runs of one step on one worker, Ray beside the local one.
*growth*: studies of 100, 1,000 and 10,000 trials on a backend that costs nothing, the log on disk; processor seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.experiments.rundir import create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.launchers import Handle, Launcher, open_launcher
from policylab.tuning.backend import Job
from policylab.tuning.limits import Limits
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import SCHEDULERS, Horizon
from policylab.tuning.searcher import SEARCHERS
from policylab.tuning.space import Space
from policylab.tuning.study import Study, study_facts

PARTS = ("efficiency", "overhead", "growth")
FULL = 27


def experiment(n_runs: int, *, launcher: Mapping[str, Any], steps: int, **step: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "name": "scaling",
            "env": {"id": "benchmarks.sleeping:policylab-benchmarks/Sleeping-v0", "kwargs": step},
            "agent": {"kind": "q_learning", "execution": "plain"},
            "budget": {"steps": steps},
            "seeds": {"tune": n_runs, "confirm": 0},
            "evaluation": {"kind": "online", "marks": 1},
            "launcher": launcher,
            "tracking": {"kind": "none"},
        }
    )


def elapsed(config: ExperimentConfig, *, n_workers: int) -> float:
    """Return the seconds that the runs of ``config`` take once every worker has executed one."""
    with tempfile.TemporaryDirectory() as parent:
        run = create_run(config, parent=Path(parent))
        folders = [run.folder(spec) for spec in config.specs()]
        with open_launcher(config.launcher, n_workers=n_workers, folder=run.path) as launcher:
            finish(launcher, [launcher.submit(folder) for folder in folders[:n_workers]])
            started = time.perf_counter()
            finish(launcher, [launcher.submit(folder) for folder in folders[n_workers:]])
            return time.perf_counter() - started


def finish(launcher: Launcher, handles: Sequence[Handle]) -> None:
    while not all(launcher.poll(handle).state.ended for handle in handles):
        launcher.wait(timeout_s=0.05)
    failed = [progress.error for handle in handles if (progress := launcher.poll(handle)).error]
    if failed:
        raise SystemExit(f"{len(failed)} runs failed; the first: {failed[0]}")


def efficiency(*, n_runs: int, seconds: float) -> None:
    print(f"efficiency: {n_runs} runs of {seconds:g} s on one worker, {2 * n_runs} on two")
    print(f"{'launcher':10}{'runs are':>10}{'one worker':>14}{'two workers':>14}{'efficiency':>12}")
    for busy in (False, True):
        for kind in ("local", "ray"):
            taken = {}
            for workers in (1, 2):
                launcher = {"kind": kind, "workers": workers}
                n = workers * (n_runs + 1)  # the first of each worker is not measured
                config = experiment(n, launcher=launcher, steps=10, seconds=seconds / 10, busy=busy)
                taken[workers] = elapsed(config, n_workers=workers)
            what = "busy" if busy else "asleep"
            print(f"{kind:10}{what:>10}{taken[1]:>12.2f} s{taken[2]:>12.2f} s{taken[1] / taken[2]:>12.2f}", flush=True)


def overhead(*, n_runs: int) -> None:
    print(f"overhead: {n_runs} runs of one step on one worker")
    for kind in ("local", "ray"):
        config = experiment(n_runs + 1, launcher={"kind": kind, "workers": 1}, steps=1, seconds=0.0)
        print(f"{kind:10}{1e3 * elapsed(config, n_workers=1) / n_runs:>10.1f} ms per run", flush=True)


class FreeBackend:
    """Trains any number of runs at once at no cost; the value says how good x is."""

    capacity = 8

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def stop(self, trial: int, seed: int) -> None:
        pass

    def wait(self) -> Sequence[Mapping[str, Any]]:
        jobs, self._jobs = self._jobs, []
        events: list[Mapping[str, Any]] = []
        for job in jobs:
            at = {"trial": job.trial, "seed": job.seed}
            value = 1.0 - (job.configuration["x"] - 0.3) ** 2 + 0.001 * job.until
            events.append({"event": "report", **at, "resource": job.until, "value": value})
            events.append({"event": "end", **at, "error": None})
        return events


def growth(*, trials: Sequence[int]) -> None:
    print("growth: processor seconds of a whole study on a free backend, random search")
    print(f"{'scheduler':12}" + "".join(f"{n:>12,} trials" for n in trials) + "   ms per trial")
    for name in ("fixed", "asha", "hyperband", "median", "race"):
        seconds = []
        print(f"{name:12}", end="", flush=True)
        for n in trials:
            seconds.append(study_seconds(name, n_trials=n))
            print(f"{seconds[-1]:>17.2f} s", end="", flush=True)
        print("   " + ", ".join(f"{1e3 * taken / n:.2f}" for taken, n in zip(seconds, trials, strict=True)))


def study_seconds(scheduler: str, *, n_trials: int) -> float:
    space = Space.model_validate({"parameters": {"x": {"kind": "continuous", "low": 0.0, "high": 1.0}}})
    kind, searcher = SCHEDULERS.load(scheduler), SEARCHERS.load("random")
    settings = kind.Settings(**({"seeds": 1} if scheduler == "fixed" else {}))
    horizon = Horizon(max_resource=FULL, budget=None, n_seeds=3, n_trials=n_trials)
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(Path(folder) / "events.jsonl")
        log.open(study_facts({}, seed=0))
        study = Study(
            searcher=searcher.make(searcher.Settings(), space),
            scheduler=kind.make(settings, horizon),
            backend=FreeBackend(),
            log=log,
            limits=Limits(trials=n_trials),
            max_resource=FULL,
            seed=0,
        )
        started = time.process_time()
        study.run()
        taken = time.process_time() - started
    assert len(study.history.trials) == n_trials
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--small", type=int, default=100)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    arguments = parser.parse_args()
    if arguments.only in (None, "efficiency"):
        efficiency(n_runs=arguments.runs, seconds=arguments.seconds)
    if arguments.only in (None, "overhead"):
        overhead(n_runs=arguments.small)
    if arguments.only in (None, "growth"):
        growth(trials=arguments.trials)


if __name__ == "__main__":
    main()
