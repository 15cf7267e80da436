"""Early stopping: a run whose return no longer rises ends before its budget is used up."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from policylab.config import Settings
from policylab.runspec import ReportRow

MEASURES = ("eval/return_mean", "train/return_mean")
"""What must rise: the evaluation, or for agents judged while they learn the training return."""


class EarlyStopping(Settings):
    """When a run has reached its plateau.

    Source: Prechelt 1998, Early stopping - but when?, whose third criterion counts evaluations without progress.
    """

    patience: int = Field(ge=1, le=10_000, description="reports in a row without improvement after which a run ends")
    min_delta: float = Field(default=0.0, ge=0.0, description="rise of the return above its best that counts as one")


def plateau(rows: Iterable[ReportRow], settings: EarlyStopping) -> str | None:
    """Return what is to say of the plateau the rows end with, or None if they do not.

    A pure function of the reports: a run resumed at its plateau ends there.

    >>> values = [1.0, 5.0, 5.0, 4.0]
    >>> rows = [ReportRow(step=n, episodes=n, metrics={"eval/return_mean": values[n]}) for n in range(4)]
    >>> plateau(rows, EarlyStopping(patience=2))
    'plateau: eval/return_mean has not risen above 5 (step 1) in the last 2 reports'
    >>> plateau(rows[:3], EarlyStopping(patience=2))
    """
    best, at, since, measure = None, 0, 0, ""
    for row in rows:
        measure = next((name for name in MEASURES if name in row.metrics), "")
        if not measure:
            continue  # no episode has ended
        value = row.metrics[measure]
        if best is None or value > best + settings.min_delta:
            best, at, since = value, row.step, 0
        else:
            since += 1
    if since < settings.patience:
        return None
    margin = f" by more than {settings.min_delta:g}" if settings.min_delta else ""
    return f"plateau: {measure} has not risen above {best:.6g} (step {at:,}){margin} in the last {since} reports"
