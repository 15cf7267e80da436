"""What an experiment's runs are judged by: the metric of its search, else the return of their final policies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from policylab.errors import RunError
from policylab.runspec import ReportRow, RunResult

RETURN_METRIC = "eval/return_mean"
"""The metric that values a policy; after the last step it is what a run's result holds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Objective:
    """A metric and which way is better.

    Attributes:
        metric: of the reports; a run is worth its last report of it.
        sign: 1 where larger is better, -1 where smaller is.
    """

    metric: str = RETURN_METRIC
    sign: float = 1.0

    @property
    def is_return(self) -> bool:
        """Whether it is the return of the final policy."""
        return self.metric == RETURN_METRIC

    def value(self, result: RunResult, rows: Sequence[ReportRow], *, name: str) -> float:
        """Return what a finished run is worth, in the metric's own direction.

        Args:
            result: of the run.
            rows: its reports.
            name: of the run, for the error.

        Raises:
            RunError: no report holds the metric.
        """
        if self.is_return:
            return result.value
        for row in reversed(rows):
            if self.metric in row.metrics:
                return row.metrics[self.metric]
        raise RunError(f"{name}: no report holds search.metric '{self.metric}'; search by {RETURN_METRIC}")

    def measure(self, result: RunResult) -> str:
        """Return what the value is, in words."""
        if self.is_return:
            return result.measure
        return f"{self.metric} at the end of the training, {'larger' if self.sign > 0 else 'smaller'} is better"
