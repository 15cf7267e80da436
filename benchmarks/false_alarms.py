"""How often checks alarm where nothing has changed, beside the rate that they promise.

    python -m benchmarks.false_alarms --results FILE [--only NAME ...] [--values 1000 10000 ...] [--pairs 1000]
        [--seconds 60]
    python -m benchmarks.false_alarms --results FILE --table

The checks are those of `benchmarks.undrifted`. Pairs are numbered, and a pair's number is its seed: a later run goes
on after the last pair that FILE holds, until there are ``--pairs`` of each check, kind of stream and n, or
``--seconds`` are over for it. ``--table`` prints what all runs found together. A bound is broken if the whole 95 %
interval of the share is above it (Clopper and Pearson), or of the mean below it: such a share is marked ``!``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.undrifted import LINES, PHI, Line
from scipy.special import betaincinv, ndtri

from policylab.errors import UserError

VALUES = (1_000, 10_000, 100_000, 1_000_000)
REFUSED = "refused"
LEVEL = 0.95
Key = tuple[str, float, int]
"""A check, the autocorrelation of its streams, and n."""
Sums = dict[str, list[float]]
"""Number of pairs, sum of what was found and of its squares, by part of a check."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(LINES), default=list(LINES), metavar="NAME")
    parser.add_argument("--values", type=int, nargs="+", default=VALUES)
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    if not arguments.table:
        for n in arguments.values:
            for name in (name for name in arguments.only if n <= LINES[name].most):
                for phi in (0.0, PHI):
                    add((name, phi, n), to=arguments.results, n_pairs=arguments.pairs, seconds=arguments.seconds)
    for row in table(read(arguments.results)[1]):
        print(f"| {' | '.join(row)} |")


def add(key: Key, *, to: Path, n_pairs: int, seconds: float) -> None:
    """Append what further pairs came to."""
    first, began = read(to)[0].get(key, 0) + 1, time.monotonic()
    pair, sums = first, defaultdict(lambda: [0.0, 0.0, 0.0])
    while pair <= n_pairs and (pair == first or time.monotonic() - began < seconds):
        for part, value in found(key, pair).items():
            sums[part] = [old + more for old, more in zip(sums[part], (1.0, value, value**2), strict=True)]
        pair += 1
    if pair > first:
        with to.open("a") as file:
            file.write(json.dumps({"key": key, "last": pair - 1, "sums": sums}) + "\n")


def found(key: Key, pair: int) -> dict[str, float]:
    """Return what the parts of a check found in a pair; whether it refuses to be made of so few values."""
    name, phi, n = key
    try:
        told = LINES[name].alarms(np.random.default_rng([pair, n]), n, phi=phi)
    except UserError:
        return {REFUSED: 1.0}
    return {part: float(value) for part, value in (told if isinstance(told, dict) else {"": told}).items()}


def read(path: Path) -> tuple[dict[Key, int], dict[Key, Sums]]:
    """Return the last pair of each key, and the sums of all."""
    last: dict[Key, int] = {}
    sums: dict[Key, Sums] = defaultdict(dict)
    for line in path.read_text().splitlines() if path.exists() else []:
        entry = json.loads(line)
        name, phi, n = entry["key"]
        last[name, phi, n] = max(entry["last"], last.get((name, phi, n), 0))
        of_key = sums[name, phi, n]
        for part, more in entry["sums"].items():
            of_key[part] = [a + b for a, b in zip(of_key.get(part, (0.0,) * 3), more, strict=True)]
    return last, sums


def table(sums: dict[Key, Sums]) -> list[list[str]]:
    """Return the rows of a table: a check and a kind of stream each, with what was found at each n."""
    rows = [["check", "streams", "bound", *(f"n = {n:,}" for n in VALUES)], ["---"] * (3 + len(VALUES))]
    for name, line in LINES.items():
        parts = dict.fromkeys(part for (one, _, _), of in sums.items() if one == name for part in of)
        for part in (part for part in parts if part != REFUSED):
            for phi in (0.0, PHI):
                cells = [_cell(sums.get((name, phi, n), {}), part, line=line) for n in VALUES]
                bound = f"at least {line.bound:g}" if line.least else f"{line.bound:g}"
                title = f"{name}: {part}" if part else name
                rows.append([title, f"AR(1), {phi}" if phi else "independent", bound, *cells])
    return rows


def _cell(of: Sums, part: str, *, line: Line) -> str:
    if part not in of:
        return REFUSED if REFUSED in of else ""
    n, total, squares = of[part]
    mean = total / n
    if not line.least:
        return f"{mean:.3f} of {n:,.0f}{' !' if lowest(total, n) > line.bound else ''}"
    error = np.sqrt(max(0.0, squares / n - mean**2) / n)
    broken = n > 1 and mean - ndtri((1 - LEVEL) / 2) * error < line.bound
    return f"{mean:.2f} ± {error:.2f} of {n:,.0f}{' !' if broken else ''}"


def lowest(alarms: float, n: float) -> Any:
    """Return the lower end of Clopper and Pearson's interval of a share."""
    return betaincinv(alarms, n - alarms + 1, (1 - LEVEL) / 2) if alarms else 0.0


if __name__ == "__main__":
    main()
