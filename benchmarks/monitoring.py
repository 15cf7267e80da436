"""Baseline and check of a million rows against a million, beside peers; memory at ten million; sketches and alarms.

    python -m benchmarks.monitoring [--rows 1000000] [--rounds 5] [--only check|merge|memory|alarms|power]
        [--peer NAME=PYTHON ...] [--stream-values N ...] [--pair-rows N ...]

*check*: 8 columns of numbers from Parquet files, one thread. The clock runs from the file to the verdict, once for both
files (baseline + check) and once with the baseline stored. Peers (evidently, nannyml, whylogs, datasketches) get the
same files, each in an interpreter of its own that `--peer evidently=PYTHON` names, since their pins exclude each other.
Imports are not timed. Rounds alternate, the fastest counts; peers have one round.

*merge*: 1,000 hourly profiles merged, against one pass over the same rows: largest difference of their distribution
functions beside the stated error.

*memory*: peak resident memory of a process that checks ten million rows.

*alarms*: share of undrifted pairs of streams, independent and AR(1) with 0.9, on which a distance exceeds what chance
explains at the false-alarm rate of 5 %, and how often it does after a shift of a tenth of a standard deviation.

*power*: share of pairs of tables (two columns of numbers, one of categories) on which something is found after a change
of the mean, the variance, the shares of categories, or the correlation of two columns of unchanged margins, beside
peers at their defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.signal import lfilter

from policylab.monitoring.profiles.cells import of_numbers
from policylab.monitoring.profiles.column import ColumnProfile
from policylab.monitoring.profiles.distances import between_numbers
from policylab.monitoring.profiles.profile import Profile, profile_of
from policylab.monitoring.profiles.quantile_sketch import QuantileSketch, Steps
from policylab.monitoring.quality.check import check
from policylab.monitoring.quality.constraints import suggested

N_COLUMNS = 8


def write(path: Path, n_rows: int, *, seed: int) -> Path:
    """Write normal, skewed, whole and heavy-tailed columns, piece by piece."""
    rng = np.random.default_rng(seed)
    names = [f"x{i}" for i in range(N_COLUMNS)]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in names])) as writer:
        for start in range(0, n_rows, 250_000):
            n = min(250_000, n_rows - start)
            columns = [
                rng.standard_normal(n), rng.standard_normal(n) * 3 + 1, rng.gamma(2.0, size=n), rng.exponential(size=n),
                rng.standard_t(3, n), rng.random(n), rng.poisson(4, n).astype(float), rng.lognormal(size=n),
            ]  # fmt: skip
            writer.write_table(pa.table(dict(zip(names, columns, strict=True))))
    return path


def ours(reference: Path, current: Path) -> None:
    baseline = profile_of([reference])
    found = check(profile_of([current], like=baseline), baseline, constraints=suggested(baseline))
    assert not found.violations


def stored(reference: Path, current: Path) -> None:
    baseline = Profile.load(reference.with_suffix(".npz"))
    check(profile_of([current], like=baseline), baseline, constraints=suggested(baseline))


def by_peer(task: str, name: str, *, python: str, folder: Path) -> Any:
    """Return what a task of `benchmarks.monitoring_peers` prints, run by a peer's own interpreter."""
    command = [python, str(Path(__file__).with_name("monitoring_peers.py")), task, name, str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["NML_DISABLE_USAGE_LOGGING"] = "1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(folder: Path, *, n_rows: int, rounds: int, peers: dict[str, str]) -> None:
    files = [write(folder / f"{name}.parquet", n_rows, seed=seed) for seed, name in enumerate(("reference", "current"))]
    profile_of([files[0]]).save(files[0].with_suffix(".npz"))
    contenders = {"policylab, baseline + check": ours, "policylab, baseline stored": stored}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, run in contenders.items():
            wall, processor = time.perf_counter(), time.process_time()
            run(*files)
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
        for name, python in peers.items() if number == 0 else ():
            times[name] = [tuple(by_peer("check", name, python=python, folder=folder))]
    best = min(times["policylab, baseline + check"], key=lambda found: found[1])
    print(f"| {n_rows:,} + {n_rows:,} rows x {N_COLUMNS} | wall s | processor s | times ours |\n|---|---|---|---|")
    for name, found in times.items():
        fastest = min(found, key=lambda one: one[1])
        print(f"| {name} | {fastest[0]:.2f} | {fastest[1]:.2f} | {fastest[1] / best[1]:.1f} |")


def correlated(r: float) -> Callable[[Any], Any]:
    """Return what gives the second of two independent columns the correlation ``r`` with the first."""
    return lambda x: np.stack([x[:, 0], r * x[:, 0] + np.sqrt(1 - r * r) * x[:, 1]], axis=1)


CASES: dict[str, Callable[[Any], Any]] = {
    "0 nothing": lambda x: x,
    **{f"1 mean +{by:g}": lambda x, by=by: x + np.array([by, 0.0]) for by in (0.05, 0.1, 0.2, 0.5)},
    **{f"2 variance x {by:g}": lambda x, by=by: x * [by**0.5, 1.0] for by in (1.2, 1.5, 2.0, 4.0)},
    **{f"4 correlation {r:g}": correlated(r) for r in (0.2, 0.5, 0.8)},
}
SHARES = {f"3 category +{by:g}": (0.5 + by, 0.3, 0.2 - by) for by in (0.05, 0.1, 0.15)}


def write_pair(folder: Path, case: str, *, n: int, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in ("reference", "current"):
        x = rng.standard_normal((n, 2))
        changed = name == "current"
        if changed and case in CASES:
            x = CASES[case](x)
        shares = SHARES.get(case, (0.5, 0.3, 0.2)) if changed else (0.5, 0.3, 0.2)
        kinds = rng.choice(["a", "b", "c"], n, p=shares)
        pq.write_table(pa.table({"x": x[:, 0], "y": x[:, 1], "kind": kinds}), folder / f"{name}.parquet")


def ours_found(pair: Path) -> tuple[bool, bool, bool]:
    """Whether the check is violated by default; whether chance does not explain a distance, by default and at 5 %.

    5 % are of each of the three columns, as peers have it, and of the correlation of two of them.
    """
    baseline = profile_of([pair / "reference.parquet"])
    window = profile_of([pair / "current.parquet"], like=baseline)
    limits = suggested(baseline)
    found, often = (check(window, baseline, constraints=limits, false_alarm_rate=rate) for rate in (0.003, 0.2))
    beyond = [
        any(column.distances["linf_simple"].beyond_chance for column in one.columns)
        or any(pair.change.beyond_chance for pair in one.pairs)
        for one in (found, often)
    ]
    return bool(found.violations), beyond[0], beyond[1]


def power(folder: Path, *, n: int, n_pairs: int, peers: dict[str, str]) -> None:
    cases = sorted([*CASES, *SHARES])
    for number, case in enumerate(cases):
        for pair in range(n_pairs):
            write_pair(folder / case / f"{pair:03}", case, n=n, seed=1_000 * number + pair)
    verdicts = {case: np.array([ours_found(pair) for pair in sorted((folder / case).iterdir())]) for case in cases}
    shown = {
        "policylab, violations": {case: found[:, 0].sum() for case, found in verdicts.items()},
        "beyond chance at 0.3 %": {case: found[:, 1].sum() for case, found in verdicts.items()},
        "at 5 % a column": {case: found[:, 2].sum() for case, found in verdicts.items()},
    }
    shown |= {name: by_peer("power", name, python=python, folder=folder) for name, python in peers.items()}
    print(f"| {n_pairs} pairs, n = {n:,} | {' | '.join(shown)} |\n|---|{'---|' * len(shown)}")
    for case in cases:
        print(f"| {case[2:]} | {' | '.join(f'{counts[case] / n_pairs:.2f}' for counts in shown.values())} |")


def merging() -> None:
    values = np.random.default_rng(0).lognormal(size=1_000_000)
    one, merged = QuantileSketch(np.random.default_rng(1)), QuantileSketch(np.random.default_rng(2))
    one.update(values)
    started = time.perf_counter()
    hours = []
    for hour, part in enumerate(np.split(values, 1_000)):
        sketch = QuantileSketch(np.random.default_rng(hour))
        sketch.update(part)
        hours.append(sketch)
    for sketch in hours:
        merged.merge(sketch)
    steps = Steps.of(one, merged)
    gap = float(np.abs(steps.first - steps.second).max())
    print("| 1,000 sketches of 1,000 rows | |\n|---|---|")
    print(f"| largest difference from one pass | {gap:.5f} |")
    print(f"| stated error, one pass and merged | {one.rank_error():.5f}, {merged.rank_error():.5f} |")
    print(f"| seconds for sketching and merging | {time.perf_counter() - started:.2f} |")


def memory(folder: Path, *, n_rows: int) -> None:
    files = [write(folder / f"{name}.parquet", n_rows, seed=seed) for seed, name in enumerate(("large", "larger"))]
    code = (  # not getrusage: what it tells begins with the peak of the process that started this one
        "import sys; from pathlib import Path; from benchmarks.monitoring import ours; "
        "peak = lambda: int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) / 1024; "
        "before = peak(); ours(*map(Path, sys.argv[1:])); print(before, peak())"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=True)
    before, peak = map(float, done.stdout.split())
    print(f"| {n_rows:,} + {n_rows:,} rows | |\n|---|---|")
    print(f"| peak memory, MB (of which imports) | {peak:.0f} ({before:.0f}) |")
    print(f"| wall s | {time.perf_counter() - started:.1f} |")


def stream(rng: np.random.Generator, n: int, *, phi: float) -> Any:
    return lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], rng.standard_normal(n + 1_000))[1_000:]


def column(values: Any) -> ColumnProfile:
    found = ColumnProfile(np.random.default_rng(0))
    found.update(of_numbers(np.asarray(values)))
    return found


def alarms(*, n_streams: int, lengths: list[int]) -> None:
    print("| distance | stream | n | alarms without drift | found: shift of 0.1 |\n|---|---|---|---|---|")
    for phi in (0.0, 0.9):
        for n in lengths:
            counts: dict[str, list[int]] = {}
            for seed in range(n_streams):
                rng = np.random.default_rng(seed)
                first, second = column(stream(rng, n, phi=phi)), stream(rng, n, phi=phi)
                for moved, shift in enumerate((0.0, 0.1)):
                    found = between_numbers(first, column(second + shift), false_alarm_rate=0.05)
                    for name, distance in found.items():
                        counts.setdefault(name, [0, 0])[moved] += distance.beyond_chance
            kind = f"AR(1), {phi}" if phi else "independent"
            for name, (without, shifted) in counts.items():
                print(f"| {name} | {kind} | {n:,} | {without / n_streams:.3f} | {shifted / n_streams:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--stream-values", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--only", choices=["check", "merge", "memory", "alarms", "power"])
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--pair-rows", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    arguments = parser.parse_args()
    peers = dict(entry.split("=", 1) for entry in arguments.peer)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only in (None, "check"):
            compare(Path(folder), n_rows=arguments.rows, rounds=arguments.rounds, peers=peers)
        if arguments.only in (None, "merge"):
            merging()
        if arguments.only in (None, "memory"):
            memory(Path(folder), n_rows=10 * arguments.rows)
        if arguments.only in (None, "alarms"):
            alarms(n_streams=arguments.streams, lengths=arguments.stream_values)
        if arguments.only in (None, "power"):
            for n in arguments.pair_rows:
                power(Path(folder) / f"power-{n}", n=n, n_pairs=arguments.pairs, peers=peers)


if __name__ == "__main__":
    main()
