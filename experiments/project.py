"""The project file ``policylab.yaml`` of the folder that a command runs in: launcher settings that experiments share.

    launchers:
      sagemaker: {role_arn: "arn:aws:iam::...", image: ..., s3_prefix: "s3://BUCKET/PATH"}

They are the defaults of every experiment that is launched there; what an experiment file or ``--set`` says goes first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, JsonValue, field_validator

from policylab.config import Document, Settings, assign, read, validate
from policylab.errors import ConfigError, did_you_mean
from policylab.launchers import LAUNCHERS

FILE = "policylab.yaml"


class Project(Settings):
    """What the project file may say."""

    launchers: dict[str, dict[str, JsonValue]] = Field(default_factory=dict, description="kind -> its settings")

    @field_validator("launchers")
    @classmethod
    def _are_launchers(cls, launchers: dict[str, dict[str, JsonValue]]) -> dict[str, dict[str, JsonValue]]:
        for name in launchers:
            if name not in LAUNCHERS.names():
                raise ValueError(
                    f"no launcher is called '{name}'{did_you_mean(name, LAUNCHERS.names())} "
                    f"(known: {', '.join(LAUNCHERS.names())})"
                )
        return launchers


def shared_setting(kind: str, name: str, *, folder: Path = Path()) -> str | None:
    """Return a text that the project file says of a launcher, such as the region of SageMaker; None if it does not.

    For commands that read no experiment.

    Raises:
        ConfigError: the project file is malformed.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    project = read(path)
    value = validate(Project, project).launchers.get(kind, {}).get(name)
    if value is None or isinstance(value, str):
        return value
    place = ("launchers", kind, name)
    raise ConfigError(f"{project.place(place)}: {'.'.join(place)}: must be a text, got {value!r}")


def with_project(document: Document, overrides: Sequence[str], *, folder: Path = Path()) -> Document:
    """Return an experiment with the launcher settings of the project put in where it has none, then the overrides.

    Args:
        document: an experiment.
        overrides: assignments such as ``launcher.kind=sagemaker``.
        folder: where the project file lies, if there is one.

    Raises:
        ConfigError: the project file or an override is malformed.
    """
    path = folder / FILE
    if not path.is_file():
        return assign(document, overrides)
    project = read(path)
    defaults = validate(Project, project).launchers
    launcher = assign(document, overrides).data.get("launcher")
    kind = launcher.get("kind", "local") if isinstance(launcher, dict) else "local"
    data, places = {**document.data}, {**document.places}
    given = data.get("launcher")
    if kind in defaults and isinstance(given, dict | None):
        given = given or {}
        data["launcher"] = {**defaults[kind], **given}
        for known, place in project.places.items():
            if known[:2] == ("launchers", kind) and len(known) > 2 and known[2] not in given:
                places["launcher", *known[2:]] = place
    return assign(dataclasses.replace(document, data=data, places=places), overrides)
