"""`policylab verify`: published and exact results, recomputed with policylab's own code."""

from __future__ import annotations

from collections.abc import Callable

from policylab.errors import UnknownNameError
from policylab.experiments.verify import (
    applications,
    bandits,
    gridworlds,
    maximization_bias,
    supply_chain,
    temporal_difference,
    textbook,
    toy_text,
    worlds,
)
from policylab.experiments.verify.rows import Check, Estimate, Row

__all__ = ["CHECKS", "Check", "Estimate", "Row", "checks", "verify"]

CHECKS: tuple[Check, ...] = (
    *toy_text.CHECKS,
    *gridworlds.CHECKS,
    *textbook.CHECKS,
    *applications.CHECKS,
    *supply_chain.CHECKS,
    *worlds.CHECKS,
    *bandits.CHECKS,
    *maximization_bias.CHECKS,
    *temporal_difference.CHECKS,
)
"""Every check, the quick exact ones first."""


def checks(only: str | None = None, *, slow: bool = False) -> list[Check]:
    """Return the checks whose name contains ``only`` (any case), all of them for None; the slow ones if asked for.

    Raises:
        UnknownNameError: no name contains it.
    """
    wanted = (only or "").casefold()
    named = [check for check in CHECKS if wanted in check.name.casefold()]
    found = [check for check in named if slow or not check.slow]
    if named and not found:
        raise UnknownNameError(f"the rows of verify with {only!r} in their name take minutes; add --slow")
    if not found:
        raise UnknownNameError(
            f"no row of verify has {only!r} in its name; --only takes a part of a name, such as 'Taxi' or 'cliff' "
            "(policylab verify prints all names)"
        )
    return found


def verify(only: str | None = None, on_row: Callable[[Row], None] | None = None, *, slow: bool = False) -> list[Row]:
    """Recompute the published results and say for each whether it agrees.

    Args:
        only: part of the names of the rows to compute, None for all.
        on_row: called with each row as soon as it is there.
        slow: compute the slow rows too.

    Raises:
        UnknownNameError: no row's name contains ``only``.
    """
    rows = []
    for check in checks(only, slow=slow):
        rows.append(check.run())
        if on_row is not None:
            on_row(rows[-1])
    return rows
