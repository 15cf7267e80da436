"""The experiment file: its schema, and how one is found, loaded and hashed."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias, Union

from pydantic import Field, JsonValue, field_validator, model_validator

from policylab.agents.registry import AGENTS
from policylab.config import Document, Settings, read, validate
from policylab.envs.settings import EnvSettings
from policylab.errors import ConfigError, did_you_mean
from policylab.experiments.evaluation import EvaluationSettings
from policylab.experiments.plateau import EarlyStopping
from policylab.experiments.project import with_project
from policylab.experiments.search import SearchSettings, check_search, check_stages, configured
from policylab.experiments.tracking.settings import MlflowTracking, TrackingSettings
from policylab.files import content_hash
from policylab.launchers import LAUNCHERS, LocalSettings
from policylab.runspec import CHECKPOINT_EVERY_S, CheckpointEveryS, Role, RunSpec, RunStage
from policylab.seeding import run_seed

CONFIGS = Path(__file__).parent / "configs"

if TYPE_CHECKING:
    AgentSettings: TypeAlias = Any
    LauncherSettings: TypeAlias = Any
else:
    AgentSettings = Annotated[
        Union[tuple(AGENTS.load(name).Settings for name in AGENTS.names())],  # noqa: UP007 - built at run time
        Field(discriminator="kind"),
    ]
    LauncherSettings = Annotated[
        Union[tuple(LAUNCHERS.load(name).Settings for name in LAUNCHERS.names())],  # noqa: UP007
        Field(discriminator="kind"),
    ]


class Budget(Settings):
    """How long each run trains."""

    steps: int = Field(
        ge=1,
        le=10**12,
        description="environment steps per run; of an agent that learns from recorded data, transitions learned from",
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="end a run whose return no longer rises; what it leaves of its steps is not used"
    )


class Seeds(Settings):
    """How many independent runs, and the root they grow from."""

    tune: int = Field(default=10, ge=1, le=10_000, description="seeds a configuration is judged and selected on")
    confirm: int = Field(default=10, ge=0, le=10_000, description="fresh seeds the selected one is run on again")
    root: int = Field(default=0, ge=0, description="root of every random stream of the experiment")


class Stage(Settings):
    """Values of agent settings until a step; what they leave out is as in the ``agent`` section."""

    until_steps: int = Field(ge=1, description="step at which the next stage, or the agent section, takes over")
    settings: dict[str, JsonValue] = Field(
        min_length=1, description="dotted path, such as agent.learning_rate, and its value"
    )


class ExperimentConfig(Settings):
    """One experiment, from environment to tracked, reported and packaged policy."""

    name: str = Field(description="lower-case letters, digits, '_', '-' and '.', at most 63")
    description: str = ""
    env: EnvSettings
    agent: AgentSettings
    stages: tuple[Stage, ...] = Field(
        default=(), description="what every run begins with, one after the other: a schedule, as of a population"
    )
    budget: Budget
    seeds: Seeds = Seeds()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint_every_s: CheckpointEveryS = CHECKPOINT_EVERY_S
    search: SearchSettings | None = None
    launcher: LauncherSettings = LocalSettings()
    tracking: TrackingSettings = MlflowTracking()

    @field_validator("launcher", mode="before")
    @classmethod
    def _launcher_is_local(cls, value: Any) -> Any:
        """Without a kind it is this machine, as before there were others: ``--set launcher.workers=1``."""
        return {"kind": "local", **value} if isinstance(value, dict) else value

    @field_validator("name", mode="before")
    @classmethod
    def _name_is_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) else value

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", name):
            raise ValueError("a name has lower-case letters, digits, '_', '-' and '.', at most 63, and names a folder")
        return name

    @model_validator(mode="after")
    def _stages_rise_below_the_budget(self) -> Self:
        ends = [stage.until_steps for stage in self.stages]
        if any(end <= before for before, end in pairwise([0, *ends])) or (ends and ends[-1] >= self.budget.steps):
            raise ValueError(f"stages must end at rising steps below budget.steps, {self.budget.steps}, got {ends}")
        if self.stages and self.search is not None:
            raise ValueError("stages and search exclude each other: a search tries settings that hold throughout")
        if self.budget.early_stopping is not None and (self.search is not None or self.stages):
            raise ValueError("budget.early_stopping is for single runs: a search stops trials by its scheduler")
        return self

    @property
    def config_hash(self) -> str:
        """sha256 of what determines the results: not the launcher, tracking, checkpoints, description or storage."""
        without: dict[str, Any] = dict.fromkeys(("launcher", "tracking", "description", "checkpoint_every_s"), True)
        if not self.stages:
            without["stages"] = True  # the hash of an experiment without any is what it was before there were stages
        if self.budget.early_stopping is None:
            without["budget"] = {"early_stopping"}
        return content_hash(self.model_dump(mode="json", exclude={**without, "search": {"storage"}}))

    @property
    def n_workers(self) -> int:
        """Runs at once: as the launcher is told; without that, on this machine, as many as its cores can carry."""
        processors = int(getattr(self.agent, "n_cpus", 1))
        if self.launcher.kind == "local" and self.launcher.workers is None:
            return max(1, int(self.launcher.n_workers) // processors)
        return int(self.launcher.n_workers)

    def specs(
        self, roles: Sequence[Role] = ("tune", "confirm"), *, trial: int = 0, config_hash: str | None = None
    ) -> list[RunSpec]:
        """The runs of one trial on all seeds of ``roles``; ``config_hash`` as for `spec`."""
        counts, hashed = {"tune": self.seeds.tune, "confirm": self.seeds.confirm}, config_hash or self.config_hash
        runs = [(role, index) for role in roles for index in range(counts[role])]
        return [self.spec(role, index, trial=trial, config_hash=hashed) for role, index in runs]

    def spec(
        self,
        role: Role,
        index: int,
        *,
        trial: int = 0,
        stop_at_steps: int | None = None,
        config_hash: str | None = None,
    ) -> RunSpec:
        """The run of one trial on one seed, to the end of the budget or to ``stop_at_steps``.

        Where this is the experiment of one configuration of a search, ``config_hash`` is that of the search.
        """
        return RunSpec(
            experiment=self.name,
            config_hash=config_hash or self.config_hash,
            trial=trial,
            role=role,
            index=index,
            seed=run_seed(self.seeds.root, role=role, index=index),
            evaluation_seed=run_seed(self.seeds.root, role="evaluation", index=0),
            environment=self.env.model_dump(mode="json"),
            agent=self.agent.model_dump(mode="json"),
            earlier=tuple(RunStage(until_steps=end, agent=agent) for end, agent in self._earlier),
            evaluation=self.evaluation.model_dump(mode="json"),
            budget_steps=self.budget.steps,
            stop_at_steps=stop_at_steps or self.budget.steps,
            report_every_steps=-(-self.budget.steps // self.evaluation.marks),
            checkpoint_every_s=self.checkpoint_every_s,
            early_stopping=early.model_dump(mode="json") if (early := self.budget.early_stopping) else None,
        )

    @functools.cached_property
    def _earlier(self) -> list[tuple[int, dict[str, Any]]]:
        """The agent's settings in each stage, with the step until which they hold."""
        return [
            (stage.until_steps, configured(self, stage.settings).agent.model_dump(mode="json")) for stage in self.stages
        ]

    def trial(
        self, configuration: Mapping[str, Any], *, earlier: Sequence[tuple[int, Mapping[str, Any]]] = ()
    ) -> ExperimentConfig:
        """Return the experiment of one configuration of the search, after ``earlier`` ones if it is a schedule."""
        return configured(self, configuration, earlier=earlier)


def shipped_configs() -> dict[str, Path]:
    """Name -> path of the experiment files that come with policylab."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}


def find_config(name_or_path: str) -> Path:
    """Return the path of an experiment file given by path or by the name of a shipped one.

    Raises:
        ConfigError: neither exists.
    """
    path, shipped = Path(name_or_path), shipped_configs()
    if name_or_path in shipped and not path.is_file():
        return shipped[name_or_path]
    if path.exists() and not path.is_dir():
        return path
    if path.is_dir():
        raise ConfigError(
            f"{name_or_path}: is a folder; name an experiment file, or `policylab resume` a run directory"
        )
    hint = did_you_mean(name_or_path, shipped)
    raise ConfigError(f"{name_or_path}: no such file or shipped config{hint} (shipped: {', '.join(shipped)})")


def read_experiment(name_or_path: str, *, overrides: Sequence[str] = ()) -> Document:
    """Read an experiment by path or shipped name, with ``a.b=c`` overrides, and where each setting stands.

    Launcher settings that it lacks come from the project file, `policylab.experiments.project`.

    Raises:
        ConfigError: it cannot be found or read, or is not YAML.
    """
    return with_project(read(find_config(name_or_path)), overrides)


def parse_experiment(document: Document) -> ExperimentConfig:
    """Return the experiment that ``document`` describes.

    Raises:
        ConfigError: every finding, one per line, with its place.
    """
    config = validate(ExperimentConfig, document)
    check_search(config, document)
    check_stages(config, document)
    return config


def load_experiment(name_or_path: str, *, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Load an experiment by path or shipped name, with ``a.b=c`` overrides.

    Raises:
        ConfigError: every finding, one per line, with its place.
    """
    return parse_experiment(read_experiment(name_or_path, overrides=overrides))


def load_file(path: Path) -> ExperimentConfig:
    """Load the experiment file at ``path``.

    Raises:
        ConfigError: every finding, one per line, with its place.
    """
    return parse_experiment(read(path))
