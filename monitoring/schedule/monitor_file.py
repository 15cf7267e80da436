"""The monitor file: what is checked of an endpoint's captured traffic, how often, what is an alarm, and what follows.

    name: lake
    data: data                      # the endpoint's capture folder
    policy: runs/pond-1/bundle
    out: monitored
    schedule: "0 * * * *"
    checks:
      - {kind: data, baseline: base}
      - {kind: quality, baseline: good, late: PT1H}
      - {kind: causes, baseline: then}
    alarms:
      - name: worse
        of: quality.*
        actions: [{kind: rollback, url: "http://127.0.0.1:8080"}]
    targets: [{kind: terminal}, {kind: file, path: alarms.jsonl}]

Paths are relative to the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from policylab.config import Settings, assign, read, validate
from policylab.deployment.endpoint import Name
from policylab.errors import ConfigError, UserError
from policylab.monitoring.alarms.dispatch import AlarmSettings, Target
from policylab.monitoring.bias.selection import Selection
from policylab.monitoring.outcomes.measures import OutcomeSettings
from policylab.monitoring.outcomes.period import offset
from policylab.monitoring.schedule.cron import Cron
from policylab.monitoring.schedule.hosting_settings import MonitorHosting
from policylab.monitoring.schedule.measured_names import never_alarms

Model = TypeVar("Model", bound=Settings)
Rate = Annotated[float, Field(gt=0.0, lt=1.0)]


def _as_value_error(parse: Any) -> Any:
    def checked(text: str) -> str:
        try:
            parse(text)
        except UserError as error:
            raise ValueError(str(error)) from None
        return text

    return AfterValidator(checked)


Chosen = Annotated[str, _as_value_error(lambda text: Selection.parse(text, option="this"))]


class DataCheck(Settings):
    """`policylab monitor check` of a window's decisions."""

    kind: Literal["data"]
    baseline: Path = Field(description="folder of `policylab monitor baseline`, relative to the monitor file")
    columns: tuple[str, ...] = Field(default=(), description="look at these columns alone")
    false_alarm_rate: Rate = Field(default=0.003, description="of the whole check, without any drift")
    false_discovery_rate: Rate | None = Field(
        default=None, description="of all columns instead; default: as constraints.json says"
    )

    @model_validator(mode="after")
    def _one_rate(self) -> Self:
        if self.false_discovery_rate is not None and "false_alarm_rate" in self.model_fields_set:
            raise ValueError("a check keeps a false_alarm_rate or a false_discovery_rate; leave one of them out")
        return self


Late = Annotated[
    str,
    _as_value_error(offset),
    Field(description="how long episodes and their rewards take, such as PT1H; windows so much older are looked at"),
]


class QualityCheckSettings(OutcomeSettings):
    """`policylab monitor quality` of the episodes that began in a window, when they have had time to end."""

    kind: Literal["quality"]
    baseline: Path = Field(description="folder of `policylab monitor quality`, relative to the monitor file")
    late: Late = "PT0S"
    missing_reward: float | None = Field(
        default=None, description="what a decision earned for which no reward was reported; default: unknown"
    )


class CauseCheck(Settings):
    """`policylab monitor causes` of the episodes that began in a window."""

    kind: Literal["causes"]
    baseline: Path = Field(description="recording, or captured traffic of another time, relative to the monitor file")
    late: Late = "PT0S"
    false_alarm_rate: Rate = Field(default=0.003, description="of all layers, without any drift")


class DivergenceCheck(Settings):
    """`policylab monitor divergence` of a learned and the reported reward of the episodes that began in a window."""

    kind: Literal["divergence"]
    proxy: Path = Field(description="reward model of `policylab labels train`, relative to the monitor file")
    baseline: Path = Field(description="recording, or captured traffic of another time, relative to the monitor file")
    late: Late = "PT0S"
    false_alarm_rate: Rate = Field(default=0.003, description="without any divergence")
    missing_reward: float | None = Field(
        default=None, description="what a decision earned for which no reward was reported; default: unknown"
    )


class AttributionCheck(Settings):
    """`policylab monitor attribution` of the observations of episodes that began in a window."""

    kind: Literal["attribution"]
    baseline: Path = Field(description="recording, or captured traffic of another time, relative to the monitor file")
    then: Path | None = Field(default=None, description="bundle of the baseline, if it was another policy")
    late: Late = "PT0S"


class BiasCheck(Settings):
    """`policylab monitor bias --per-episode` of the episodes that began in a window."""

    kind: Literal["bias"]
    baseline: Path = Field(description="folder of `policylab monitor bias --out`, relative to the monitor file")
    facet: Chosen = Field(description="the disfavoured facet, of obs, action, return or length: such as obs_0>0.5")
    label: Chosen = Field(description="the positive outcome, such as return>0")
    prediction: Chosen | None = Field(default=None, description="the positive prediction, such as action=1")
    group: str | None = Field(default=None, description="column of groups for conditional disparity")
    false_alarm_rate: Rate = Field(
        default=0.003, description="of all metrics, without any drift, beside a baseline of many more episodes"
    )
    late: Late = "PT0S"


Check = Annotated[
    DataCheck | QualityCheckSettings | CauseCheck | DivergenceCheck | AttributionCheck | BiasCheck,
    Field(discriminator="kind"),
]


class MonitorConfig(Settings):
    """One monitor."""

    name: Name
    data: Path = Field(description="capture folder of the endpoint, relative to the monitor file")
    endpoint: str | None = Field(default=None, description="its name; default: the one whose traffic is in the folder")
    variant: str | None = Field(default=None, description="default: all variants")
    policy: Path | None = Field(default=None, description="bundle of the task, for causes, regret and action values")
    out: Path = Field(default=Path("monitored"), description="receives the results, relative to the monitor file")
    schedule: Annotated[str, _as_value_error(Cron.parse)] = Field(
        default="0 * * * *", description="cron expression, UTC: five fields, or SageMaker's cron(...)"
    )
    settle_s: float = Field(
        default=5.0, ge=0.0, le=86_400.0, description="time after a window's end until its lines are all written"
    )
    checks: tuple[Check, ...] = Field(min_length=1)
    alarms: tuple[AlarmSettings, ...] = (AlarmSettings(name="violations"),)
    targets: tuple[Target, ...] = ()
    sagemaker: MonitorHosting | None = Field(default=None, description="for `policylab monitor to-sagemaker`")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        kinds = [check.kind for check in self.checks]
        if len(set(kinds)) < len(kinds):
            raise ValueError("a monitor has at most one check of each kind; give others monitors of their own")
        needing = [kind for kind in kinds if kind not in ("data", "quality")]
        if needing and self.policy is None:
            raise ValueError(f"{' and '.join(needing)} need the policy, to read captured traffic")
        names = [alarm.name for alarm in self.alarms]
        if len(set(names)) < len(names):
            raise ValueError("alarms need different names")
        return self


def load_monitor(path: Path, *, overrides: Sequence[str] = ()) -> MonitorConfig:
    """Load a monitor file with ``a.b=c`` overrides; its paths come back absolute.

    Raises:
        ConfigError: every finding, one per line, with its place.
    """
    document = assign(read(path), overrides)
    config = placed(validate(MonitorConfig, document), folder=path.parent.resolve())
    baselines: dict[str, Path] = {check.kind: check.baseline for check in config.checks}
    findings = [
        f"{document.place(('alarms', position, wrong.partition(':')[0]))}: alarms.{position}.{wrong}"
        for position, alarm in enumerate(config.alarms)
        if (wrong := never_alarms(alarm, baselines)) is not None
    ]
    if findings:
        raise ConfigError("\n".join(findings))
    return config


def placed(settings: Model, *, folder: Path) -> Model:
    """Return settings whose paths, on every level, are taken relative to ``folder``."""
    found = {name: getattr(settings, name) for name in type(settings).model_fields}
    moved = {name: _placed(value, folder=folder) for name, value in found.items()}
    return settings.model_copy(update={name: value for name, value in moved.items() if value != found[name]})


def _placed(value: Any, *, folder: Path) -> Any:
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, Settings):
        return placed(value, folder=folder)
    return tuple(_placed(one, folder=folder) for one in value) if isinstance(value, tuple) else value
