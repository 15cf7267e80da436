"""How much live MLflow tracking slows training, and how long the end of a run waits for it.

    python -m benchmarks.tracking_overhead [--rounds 5] [--seconds 10]

Plain Python Q-learning, bound to the interpreter lock, in one process beside the tracking or in one
process per core (so that the follower finds no idle core), writing 20 report lines a second and run.
Rounds alternate between untracked and tracked. The slowdown compares the fastest rounds, which other work on
the machine disturbs least, and the medians. With every core busy, the follower's share of the core time bounds
what it can have taken from the training, however noisy the machine. A fresh store includes the creation of
MLflow's tables.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from policylab.experiments.tracking import LiveTracker, MlflowTracking, NoTracking, open_tracker

STEPS_PER_REPORT = 50_000


def train(folder: Path, reports: int) -> None:
    """Q-learning on a random walk of 64 states, in the interpreter."""
    rng, q = random.Random(0), [[0.0, 0.0] for _ in range(64)]
    state = 32
    with (folder / "reports.jsonl").open("a") as file:
        for report in range(1, reports + 1):
            for _ in range(STEPS_PER_REPORT):
                action = rng.random() < 0.5
                following = state + (1 if action else -1)
                ended = following in (0, 63)
                target = float(following == 63) if ended else 0.99 * max(q[following])
                q[state][action] += 0.1 * (target - q[state][action])
                state = 32 if ended else following
            metrics = {"train/return_mean": q[32][1], "train/length_mean": 1.0, "train/epsilon": 0.1}
            row = {"step": report * STEPS_PER_REPORT, "episodes": report, "metrics": metrics}
            file.write(json.dumps(row) + "\n")
            file.flush()


def make_run(parent: Path, n_runs: int) -> Path:
    run = parent / "run"
    document = {
        "name": "overhead",
        "run_id": str(parent),
        "status": "running",
        "created_utc": "2026-01-01T00:00:00+00:00",
        "environment": {"id": "RandomWalk-v0"},
    }
    for index in range(n_runs):
        folder = run / "trials" / "0000" / f"tune-{index:03d}"
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps({"seed": index, "agent": {"kind": "q_learning"}}))
    (run / "run.json").write_text(json.dumps(document))
    (run / "config.yaml").write_text("name: overhead\n")
    return run


class Measured(NamedTuple):
    trained_s: float
    follower_cpu_s: float  # while training ran
    waited_s: float  # for the tracker, at the end
    complete: bool


def follower_cpu_s(tracker: LiveTracker) -> float:
    """Return the processor seconds that the tracking process has used so far."""
    if tracker._follower is None:
        return 0.0
    fields = Path(f"/proc/{tracker._follower._process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(n_processes: int, reports: int, *, store: Path | None, inside: bool) -> Measured:
    parent = Path(tempfile.mkdtemp(prefix="policylab-overhead-"))
    run = make_run(parent, n_processes)
    settings = NoTracking() if store is None else MlflowTracking(uri=f"sqlite:///{store}", flush_s=1.0)
    folders = sorted((run / "trials" / "0000").iterdir())
    with contextlib.ExitStack() as stack:
        began = time.perf_counter()
        tracker = stack.enter_context(open_tracker(run, settings))
        if inside:
            train(folders[0], reports)
        else:
            command = [sys.executable, "-m", "benchmarks.tracking_overhead", "--train", str(reports)]
            workers = [subprocess.Popen([*command, str(folder)]) for folder in folders]
            for worker in workers:
                worker.wait()
        trained = time.perf_counter()
        taken = follower_cpu_s(tracker)
        finished = json.loads((run / "run.json").read_text()) | {"status": "finished"}
        (run / "run.json").write_text(json.dumps(finished))
    ended = time.perf_counter()
    shutil.rmtree(parent)
    return Measured(trained - began, taken, ended - trained, tracker.result.complete)


def case(name: str, n_processes: int, *, fresh: bool, rounds: int, reports: int) -> None:
    measured: dict[bool, list[Measured]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "mlflow.db"
        if not fresh:
            measure(1, 1, store=warm, inside=True)
        for number in range(rounds):
            store = Path(folder) / f"{number}" / "mlflow.db" if fresh else warm
            store.parent.mkdir(exist_ok=True)
            for tracked in (False, True) if number % 2 else (True, False):
                used = store if tracked else None
                measured[tracked].append(measure(n_processes, reports, store=used, inside=n_processes == 1))
    assert all(one.complete for one in measured[True]), "the tracker did not get everything"
    times = {tracked: [one.trained_s for one in some] for tracked, some in measured.items()}
    fastest = 100 * (min(times[True]) / min(times[False]) - 1)
    middle = 100 * (statistics.median(times[True]) / statistics.median(times[False]) - 1)
    taken = statistics.median(100 * one.follower_cpu_s / (n_processes * one.trained_s) for one in measured[True])
    waited = statistics.median(one.waited_s for one in measured[True])
    print(
        f"{name:48s} slowdown {fastest:+5.1f} % (fastest) {middle:+5.1f} % (medians)   "
        f"follower {taken:4.1f} % of the training's core time   end waits {waited:4.1f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="training per measurement")
    parser.add_argument("--train", nargs=2, metavar=("REPORTS", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(Path(arguments.train[1]), int(arguments.train[0]))
        return
    trial = measure(1, 50, store=None, inside=True).trained_s
    reports = max(1, int(50 * arguments.seconds / trial))
    n_cores = len(os.sched_getaffinity(0))
    print(f"{n_cores} cores, {arguments.rounds} rounds of about {arguments.seconds:g} s")
    for n_processes, label in ((n_cores, "every core busy"), (1, "one process, interpreter-bound")):
        for fresh in (False, True):
            store = "fresh store" if fresh else "existing store"
            case(f"{label}, {store}", n_processes, fresh=fresh, rounds=arguments.rounds, reports=reports)


if __name__ == "__main__":
    main()
