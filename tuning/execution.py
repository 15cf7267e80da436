"""`Execution`: in which processes `policylab.tuning.tune` calls an objective, and what becomes of calls that fail."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from policylab.attempts import Attempts
from policylab.tuning.backend import Backend, InlineBackend, Objective
from policylab.tuning.processes import ProcessBackend


class Execution(Attempts):
    """How `tune` calls the objective: in this process, one call at a time, or in forked processes.

    A limit of time needs a process that can be killed; ``workers`` is then 1 if it is not set.
    """

    workers: int | None = Field(
        default=None, ge=1, le=1024, description="calls at once, each in a process of its own; default: in this process"
    )

    @model_validator(mode="after")
    def _can_lose_something(self) -> Self:
        if self.retries and not self.retry_errors and self.n_processes == 0:
            raise ValueError("in this process nothing but exceptions can be retried: set retry_errors, or workers")
        return self

    @property
    def n_processes(self) -> int:
        """Processes at once; 0: none but this one."""
        return self.workers or (0 if self.max_runtime_s is None else 1)

    @contextlib.contextmanager
    def backend(self, objective: Objective, *, folder: Path) -> Iterator[Backend]:
        """Yield what executes the jobs of a study so, with checkpoints in ``folder``; at the end no call is left."""
        if self.n_processes == 0:
            yield InlineBackend(objective, folder=folder, attempts=self)
            return
        backend = ProcessBackend(objective, folder=folder, attempts=self, workers=self.n_processes)
        with contextlib.closing(backend):
            yield backend
