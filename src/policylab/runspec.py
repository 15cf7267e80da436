"""The run formats: what one run is told (`RunSpec`) and what it answers (`ReportRow`, `RunResult`).

One run is one (trial, seed) pair. The same JSON file is executed in process, in a worker process, on a
cluster or in a container; the kernel carries the environment, agent and evaluation settings as plain data.

| file in the run's folder | content |
|---|---|
| spec.json | the `RunSpec` |
| reports.jsonl | one `ReportRow` per mark, append-only, equal to the last byte after an exact resume |
| cost.jsonl | wall-clock and processor seconds per stretch of work |
| checkpoints/STEPS/ | the agent's state after that many steps, renamed into place when complete |
| result.json | the `RunResult`, written last |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from policylab.config import Settings
from policylab.errors import RunDirectoryError
from policylab.files import write_atomic

Role = Literal["tune", "confirm"]
CheckpointEveryS = Annotated[
    float,
    Field(
        ge=0.0,
        le=86_400.0,
        description="seconds of work after which a run saves as soon as it can: at a mark, or between iterations of a "
        "deep agent; 0: whenever it can. Where saving takes long and this is not 0, twenty times as long",
    ),
]
CHECKPOINT_EVERY_S = 5.0


class ParentRun(Settings):
    """The run that another goes on from: that of ``trial`` in the same role and on the same seed, after ``steps``."""

    trial: int = Field(ge=0)
    steps: int = Field(ge=1)


class RunStage(Settings):
    """Agent settings that a run begins with, until a step; then come the next ones."""

    until_steps: int = Field(ge=1)
    agent: dict[str, Any]


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
    checkpoint_every_s: CheckpointEveryS = CHECKPOINT_EVERY_S
    parent: ParentRun | None = Field(default=None, description="it begins with a copy of this run's checkpoint")
    earlier: tuple[RunStage, ...] = Field(default=(), description="settings that hold before ``agent``, in order")
    early_stopping: dict[str, Any] | None = Field(default=None, description="when it ends before its budget")

    @property
    def changes(self) -> frozenset[int]:
        """Steps at which the agent's settings change."""
        inherited = () if self.parent is None else (self.parent.steps,)
        return frozenset((*inherited, *(stage.until_steps for stage in self.earlier)))

    def agent_at(self, steps: int) -> dict[str, Any]:
        """Return the agent settings that the step after ``steps`` is trained with."""
        return next((stage.agent for stage in self.earlier if steps < stage.until_steps), self.agent)

    @property
    def path(self) -> str:
        """The run's folder below the run directory, such as ``trials/0000/tune-003``."""
        return f"trials/{self.trial:04d}/{self.role}-{self.index:03d}"


class ReportRow(Settings):
    """The state of a run at one mark."""

    step: int = Field(ge=0, description="the mark: environment steps it was due after, the same for all runs")
    episodes: int = Field(ge=0)
    metrics: dict[str, float]
    env_steps: int | None = Field(
        default=None, ge=0, description="steps really taken by an agent that learns from whole batches; None: `step`"
    )
    warnings: tuple[str, ...] | None = Field(default=None, description="what the user should know of the agent")


class RunResult(Settings):
    """The outcome of a finished run."""

    schema_version: Literal[1] = 1
    status: Literal["finished"] = "finished"
    steps: int = Field(description="environment steps really taken")
    episodes: int
    value: float = Field(
        description="final evaluation: undiscounted return per episode unless `measure` says otherwise"
    )
    measure: str = Field(description="what `value` is and how it was obtained")
    episode_returns: list[float] = Field(default_factory=list, description="of the final evaluation; empty when exact")
    stochastic_value: float | None = Field(
        default=None, description="the same with actions drawn from the policy's distribution, where it has one"
    )
    execution: dict[str, str] = Field(description="kind (compiled, plain or rllib), the reason, and how it resumes")
    ended: str | None = Field(default=None, description="why it ended before its budget was used up")
    warnings: tuple[str, ...] | None = Field(default=None, description="everything its reports warned of")


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


def place_spec(folder: Path, spec: RunSpec, *, source: str) -> None:
    """Make ``folder`` the place of the run ``spec``: a fresh one, or one that holds the same run.

    A spec that stops later than the one in the folder replaces it: the run goes on from its checkpoint.

    Args:
        folder: made if absent.
        spec: the run.
        source: where ``spec`` comes from, for the message.

    Raises:
        RunDirectoryError: the folder holds another run.
        StorageError: a write failed.
    """
    file = folder / "spec.json"
    held: RunSpec | None = read_model(RunSpec, file) if file.exists() else None
    if held is not None and held.model_copy(update={"stop_at_steps": spec.stop_at_steps}) != spec:
        raise RunDirectoryError(f"{file} is not the run that {source} describes; restore it from a copy")
    if held is None or held.stop_at_steps < spec.stop_at_steps:
        (folder / "result.json").unlink(missing_ok=True)
        write_atomic(file, spec.model_dump_json(indent=1) + "\n")
