"""How far a run trains before it writes what it did: to the next mark, or past several where they follow fast.

To write the rows of a mark takes as long as thousands of compiled steps, so a run of many marks a second writes those
of `STRETCH_S` together, after one call of the agent where it can learn up to several marks at once.
"""

from __future__ import annotations

import dataclasses
import math

from policylab.runspec import ReportRow

STRETCH_S = 0.02
"""Processor time that a run should train for at a stretch; to write what it did takes a few milliseconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """What a run did before it wrote.

    Attributes:
        rows: of the marks it passed, in order.
        seconds: elapsed and processor seconds of the thread that trained.
        error: what ended the run; to be raised once the rows are written.
    """

    rows: list[ReportRow]
    seconds: tuple[float, float]
    error: Exception | None = None


class Pace:
    """How many marks a stretch passes; one pace serves runs of a kind, one after the other or side by side.

    Attributes:
        n_marks: marks of the next stretch.

    >>> pace = Pace()
    >>> pace.follow(Stretch([ReportRow(step=1000, episodes=0, metrics={})], seconds=(0.001, 0.001)))
    >>> pace.n_marks
    4
    """

    def __init__(self) -> None:
        self.n_marks = 1

    def follow(self, stretch: Stretch) -> None:
        """Choose by what the last stretch took, growing to fourfold at most."""
        if stretch.rows:
            fitting = math.ceil(STRETCH_S * len(stretch.rows) / max(stretch.seconds[1], 1e-6))
            self.n_marks = min(fitting, 4 * self.n_marks)
