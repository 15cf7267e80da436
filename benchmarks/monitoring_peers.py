"""What `benchmarks.monitoring` asks of peers; run by an interpreter that has them, and needs nothing of this project.

    PYTHON benchmarks/monitoring_peers.py check|power evidently|nannyml|nannyml-multivariate|whylogs|datasketches FOLDER

*check*: seconds from the files ``reference.parquet`` and ``current.parquet`` to a verdict. *power*: for each case in
the folder, on how many of its pairs of files a drift is found in any column. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def frames(reference: Path, current: Path) -> list[Any]:
    return [pq.read_table(path, use_threads=False).to_pandas() for path in (reference, current)]


def datasketches(reference: Path, current: Path) -> bool:
    import datasketches as library

    found = False
    for name in pq.read_schema(reference).names:
        sides = []
        for path in (reference, current):
            sketch = library.kll_doubles_sketch(2048)
            sketch.update(pq.read_table(path, columns=[name], use_threads=False)[name].to_numpy())
            sides.append(sketch)
        found |= library.ks_test(*sides, 0.003)
    return found


def evidently(reference: Path, current: Path) -> bool:
    from evidently import Report
    from evidently.presets import DataDriftPreset

    then, now = frames(reference, current)
    result = Report([DataDriftPreset()]).run(now, then).dict()
    counted = next(metric["value"] for metric in result["metrics"] if "DriftedColumnsCount" in str(metric))
    return bool(counted["count"] > 0)


def nannyml(reference: Path, current: Path) -> bool:
    import nannyml as library

    then, now = frames(reference, current)
    calculator = library.UnivariateDriftCalculator(
        column_names=list(then.columns), continuous_methods=["kolmogorov_smirnov"], chunk_number=5
    )
    calculator.fit(then)
    table = calculator.calculate(now).filter(period="analysis").to_df()
    alerts = [column for column in table.columns if column[-1] == "alert"]
    return bool(table[alerts].to_numpy().any())


def nannyml_multivariate(reference: Path, current: Path) -> bool:
    import nannyml as library

    then, now = frames(reference, current)
    calculator = library.DataReconstructionDriftCalculator(column_names=list(then.columns), chunk_number=5)
    calculator.fit(then)
    table = calculator.calculate(now).filter(period="analysis").to_df()
    alerts = [column for column in table.columns if column[-1] == "alert"]
    return bool(table[alerts].to_numpy().any())


def whylogs(reference: Path, current: Path) -> bool:
    import whylogs as library
    from whylogs.viz.drift.column_drift_algorithms import calculate_drift_scores

    views = [library.log(frame).view() for frame in frames(reference, current)]
    scores = calculate_drift_scores(views[1], views[0], with_thresholds=True)
    return any(score and score.get("drift_category") == "DRIFT" for score in scores.values())


PEERS: dict[str, Callable[[Path, Path], bool]] = {
    "datasketches": datasketches, "evidently": evidently, "nannyml": nannyml,
    "nannyml-multivariate": nannyml_multivariate, "whylogs": whylogs,
}  # fmt: skip


def check(peer: Callable[[Path, Path], bool], folder: Path) -> list[float]:
    small = [pq.read_table(folder / f"{name}.parquet").slice(0, 2_000) for name in ("reference", "current")]
    for name, table in zip(("a", "b"), small, strict=True):
        pq.write_table(table, folder / f"{name}.warm")
    peer(folder / "a.warm", folder / "b.warm")  # imports and compiles
    wall, processor = time.perf_counter(), time.process_time()
    peer(folder / "reference.parquet", folder / "current.parquet")
    return [time.perf_counter() - wall, time.process_time() - processor]


def power(peer: Callable[[Path, Path], bool], folder: Path) -> dict[str, int]:
    return {
        case.name: sum(peer(pair / "reference.parquet", pair / "current.parquet") for pair in sorted(case.iterdir()))
        for case in sorted(folder.iterdir())
    }


if __name__ == "__main__":
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    task, name, place = sys.argv[1:]
    print(json.dumps({"check": check, "power": power}[task](PEERS[name], Path(place))))
