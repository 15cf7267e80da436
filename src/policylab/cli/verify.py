"""``policylab verify``: recompute published and exact results."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from policylab.cli.output import emit

if TYPE_CHECKING:
    from policylab.experiments.verify import Row

HEADER = f"{'measured':>14}  {'published':>14}  {'tolerance':>10}"


def verify(arguments: argparse.Namespace) -> int:
    """Recompute published numbers, one row each; exit code 1 if any disagrees."""
    from policylab.experiments.verify import checks
    from policylab.experiments.verify import verify as recompute

    width = max(len(check.name) for check in checks(arguments.only, slow=arguments.slow))

    def show(row: Row) -> None:
        sys.stdout.write(_line(row, width) + "\n")
        sys.stdout.flush()

    if not arguments.json:
        sys.stdout.write(f"{'':4}  {'name':<{width}}  {HEADER}  source [tolerance]\n")
    rows = recompute(arguments.only, None if arguments.json else show, slow=arguments.slow)
    n_passed = sum(row.passed for row in rows)
    document = {"rows": [dataclasses.asdict(row) for row in rows]}
    emit(arguments, document, text=lambda: f"{n_passed} of {len(rows)} passed")
    return 0 if n_passed == len(rows) else 1


def _line(row: Row, width: int) -> str:
    verdict = "pass" if row.passed else "FAIL"
    numbers = f"{row.measured:>14.9g}  {row.published:>14.9g}  {row.tolerance:>10.2g}"
    return f"{verdict}  {row.name:<{width}}  {numbers}  {row.source}"
