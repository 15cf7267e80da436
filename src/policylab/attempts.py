"""`Attempts`: how long a run may take, and how often it is tried again; the same for every place where runs execute."""

from __future__ import annotations

import dataclasses
import traceback
from typing import Annotated, Self, TypeAlias

from pydantic import Field

from policylab.config import Settings

Retries: TypeAlias = Annotated[
    int,
    Field(
        ge=0,
        le=100,
        description="how often a run goes on from its last checkpoint after its worker was lost or it took too long",
    ),
]


@dataclasses.dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed: one sentence, and the stack where it did, if that is known."""

    error: str
    traceback: str | None = None

    @classmethod
    def of(cls, error: Exception) -> Self:
        """Return what an exception tells, with its traceback.

        >>> Failure.of(ValueError("the pole fell over")).error
        'ValueError: the pole fell over'
        """
        return cls(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))


class Attempts(Settings):
    """What a run may take, and what becomes of one that fails.

    An exception, or a value that is NaN, is retried only if that is asked for: exact repetitions end alike.
    """

    max_runtime_s: float | None = Field(
        default=None,
        gt=0,
        description="seconds that a run may execute at a stretch; one that takes longer is killed and has failed",
    )
    retries: Retries = 0
    retry_errors: bool = Field(
        default=False,
        description="retry a run that raised an exception or ended with NaN, too; never after a mistake of the user's",
    )

    def again(self, n_failures: int, *, lost: bool) -> bool:
        """Return whether a run is tried again after its ``n_failures``-th failure.

        Args:
            n_failures: failures so far, this one included.
            lost: whether its worker was lost or the time was over; False: it raised an exception.

        >>> [Attempts(retries=1).again(n, lost=lost) for n, lost in ((1, True), (2, True), (1, False))]
        [True, False, False]
        """
        return n_failures <= self.retries and (lost or self.retry_errors)

    @property
    def overdue(self) -> str:
        """The reason of a run that took too long."""
        return f"ran longer than {self.max_runtime_s:g} s"
