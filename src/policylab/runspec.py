"""The run formats: what one run is told (`RunSpec`) and what it answers (`ReportRow`, `RunResult`).

One run is one (trial, seed) pair. The same JSON file is executed in process, in a worker process, on a
cluster or in a container; the kernel carries the environment, agent and evaluation settings as plain data.

| file in the run's folder | content |
|---|---|
| spec.json | the `RunSpec` |
| reports.jsonl | one `ReportRow` per mark, append-only, equal to the last byte after a resume |
| cost.jsonl | wall-clock and processor seconds per stretch of work |
| checkpoints/STEPS/ | the agent's state after that many steps, renamed into place when complete |
| result.json | the `RunResult`, written last |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from policylab.config import Settings
from policylab.errors import RunDirectoryError

Role = Literal["tune", "confirm"]


class RunSpec(Settings):
    """Everything that determines one run, and nothing else (no paths, no clocks)."""

    schema_version: Literal[1] = 1
    experiment: str
    config_hash: str = Field(description="sha256 of the resolved experiment configuration")
    trial: int = Field(ge=0)
    role: Role
    index: int = Field(ge=0, description="which seed of that role")
    seed: int = Field(ge=0, description="root of the run's own random streams")
    evaluation_seed: int = Field(ge=0, description="root of the evaluation streams, shared by all runs compared")
    environment: dict[str, Any]
    agent: dict[str, Any]
    evaluation: dict[str, Any]
    budget_steps: int = Field(ge=1, description="full budget; schedules stretch over it")
    stop_at_steps: int = Field(ge=1, description="where this run stops; at most the full budget")
    report_every_steps: int = Field(ge=1)
    checkpoint_every_s: float = Field(default=5.0, ge=0.0)

    @property
    def path(self) -> str:
        """The run's folder below the run directory, such as ``trials/0000/tune-003``."""
        return f"trials/{self.trial:04d}/{self.role}-{self.index:03d}"


class ReportRow(Settings):
    """The state of a run at one mark."""

    step: int = Field(ge=0, description="environment steps so far")
    episodes: int = Field(ge=0)
    metrics: dict[str, float]


class RunResult(Settings):
    """The outcome of a finished run."""

    schema_version: Literal[1] = 1
    status: Literal["finished"] = "finished"
    steps: int
    episodes: int
    value: float = Field(
        description="final evaluation: undiscounted return per episode unless `measure` says otherwise"
    )
    measure: str = Field(description="what `value` is and how it was obtained")
    episode_returns: list[float] = Field(default_factory=list, description="of the final evaluation; empty when exact")
    execution: dict[str, str] = Field(description="kind (compiled or plain) and the reason")


def read_model(model: type[Settings], path: Path) -> Any:
    """Read the JSON file ``path`` as ``model``.

    Raises:
        RunDirectoryError: the file is missing, not JSON, or of another format or version.
    """
    try:
        return model.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        raise RunDirectoryError(f"{path}: missing; is this a run directory?") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RunDirectoryError(f"{path}: not a {model.__name__}: {where}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: damaged: {error}; restore it from a copy") from None
