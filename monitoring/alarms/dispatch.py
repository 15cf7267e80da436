"""Measurements become alarms, alarms are told and acted upon; what fails of that stops nothing else."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated

from pydantic import Field

from policylab.config import Settings
from policylab.errors import PolicylabError
from policylab.monitoring.alarms.actions import Retrain, RollBack
from policylab.monitoring.alarms.alarm import Alarm, Verdict
from policylab.monitoring.alarms.cloudwatch import CloudWatch
from policylab.monitoring.alarms.measurement import Measurement
from policylab.monitoring.alarms.mlflow_tags import MlflowTags
from policylab.monitoring.alarms.queue_labels import QueueLabels
from policylab.monitoring.alarms.targets import AlarmFile, PrometheusFile, Terminal
from policylab.monitoring.alarms.thresholds import FromBaseline, Threshold
from policylab.monitoring.alarms.webhook import Webhook

logger = logging.getLogger(__name__)
Target = Annotated[
    Terminal | AlarmFile | PrometheusFile | Webhook | CloudWatch | MlflowTags, Field(discriminator="kind")
]
Action = Annotated[RollBack | Retrain | QueueLabels, Field(discriminator="kind")]


class AlarmSettings(Settings):
    """When something is wrong, and what is done about it."""

    name: str = Field(pattern=r"^[a-zA-Z0-9](-?[a-zA-Z0-9])*$", max_length=63)
    of: str = Field(default="*", description="which measurements, such as data.* or quality.return_mean")
    threshold: Threshold = FromBaseline(kind="baseline")
    actions: tuple[Action, ...] = Field(default=(), description="done when the alarm begins, not while it lasts")


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """What came of telling or acting: in words, or the error."""

    what: str
    ok: bool
    text: str


def raised(
    settings: Iterable[AlarmSettings], measured: Sequence[Measurement], *, before: Collection[str] = ()
) -> tuple[Alarm, ...]:
    """Return the alarms of a window.

    Args:
        settings: the alarms there are.
        measured: of the window.
        before: names of the alarms of the window before.
    """
    found = []
    for one in settings:
        exceeded = one.threshold.exceeded([m for m in measured if fnmatch.fnmatchcase(m.name, one.of)])
        if exceeded:
            found.append(Alarm(one.name, tuple(exceeded), begins=one.name not in before))
    return tuple(found)


def dispatch(
    verdict: Verdict, *, alarms: Sequence[AlarmSettings], targets: Sequence[Target], act: bool = True
) -> list[Done]:
    """Tell all targets of a window, and do what the alarms that begin ask for; actions come first."""
    done = []
    begun = {alarm.name for alarm in verdict.alarms if alarm.begins}
    for settings in alarms if act else ():
        if settings.name in begun:
            done += [
                _tried(f"{settings.name}: {action.kind}", functools.partial(action.act, verdict))
                for action in settings.actions
            ]
    names = [settings.name for settings in alarms]
    for target in targets:
        done.append(_tried(target.kind, lambda target=target: _tell(target, verdict, names=names)))
    return done


def _tell(target: Target, verdict: Verdict, *, names: Sequence[str]) -> str:
    if isinstance(target, CloudWatch | PrometheusFile):
        target.tell(verdict, names=names)
    else:
        target.tell(verdict)
    return "told"


def _tried(what: str, do: object) -> Done:
    assert callable(do)
    try:
        return Done(what, True, str(do()))
    except (PolicylabError, OSError) as error:
        logger.warning("%s failed: %s", what, error)
        return Done(what, False, str(error))
