"""Tracking settings: where a run directory is projected to, and how a tracker's address is written down."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from policylab.config import Settings
from policylab.errors import ConfigError

STORE_NAME = "mlflow.db"
"""The default store, in the folder where the run was started."""

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
_PASSWORD = re.compile(r"(?<=//)([^/\s:@]*):[^/\s]*@")
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&\s]*(?:pass|token|secret|key)[^=&\s]*=)[^&\s]*")
_RESERVED_ALIAS = re.compile(r"(?i)latest|v\d+")


class NoTracking(Settings):
    """The run directory alone; `policylab sync` can still upload it later."""

    kind: Literal["none"] = "none"

    def resolved(self, *, experiment: str, folder: Path) -> Self:
        """Return the same settings; nothing depends on where and when the run starts."""
        return self


class MlflowTracking(Settings):
    """An MLflow tracking server or database, fed by a process beside the training.

    Every field with a null default is filled by `resolved` when the run starts.
    """

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = Field(
        None,
        description="tracking URI (sqlite:///, postgresql://, http(s)://, arn:, ...); null takes "
        "MLFLOW_TRACKING_URI, else the SQLite file mlflow.db in the working directory",
    )
    experiment: str | None = Field(None, min_length=1, max_length=500, description="null takes the experiment's name")
    registered_model: str | None = Field(
        None, min_length=1, max_length=255, description="name in the model registry; null takes the experiment's name"
    )
    alias: str = Field(
        "candidate",
        max_length=255,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="registry alias that moves to each new policy",
    )
    flush_s: float = Field(5.0, ge=0.1, le=3600.0, description="pause between two uploads while training, seconds")
    timeout_s: float = Field(60.0, ge=1.0, le=86_400.0, description="longest the end of a run waits, seconds")

    @field_validator("uri")
    @classmethod
    def _database_or_server(cls, uri: str | None) -> str | None:
        if uri is None or uri == "databricks":
            return uri
        if uri.startswith("file:") or not _SCHEME.match(uri):
            raise ValueError(
                f"MLflow no longer writes to a plain folder ('{redacted(uri)}'); "
                "use a database such as sqlite:///mlflow.db, or a server's http address"
            )
        if uri.startswith("sqlite:") and _sqlite_path(uri) is None:
            raise ValueError("an in-memory SQLite store is lost with its process; use sqlite:///mlflow.db")
        return uri

    @field_validator("registered_model")
    @classmethod
    def _registry_name(cls, name: str | None) -> str | None:
        if name is not None and re.search(r"[/:]", name):
            raise ValueError(f"a registered model's name has no '/' and no ':', got '{name}'")
        return name

    @field_validator("alias")
    @classmethod
    def _free_alias(cls, alias: str) -> str:
        if _RESERVED_ALIAS.fullmatch(alias):
            raise ValueError(
                f"MLflow reserves the alias '{alias}' ('latest', 'v1', ...); choose another, e.g. candidate"
            )
        return alias

    def resolved(self, *, experiment: str, folder: Path) -> Self:
        """Return settings that mean the same from any folder and at any later time.

        Args:
            experiment: name of the experiment, the default of `experiment` and `registered_model`.
            folder: absolute working directory, to which a SQLite path is relative.

        Raises:
            ConfigError: MLFLOW_TRACKING_URI, taken as the default, breaks the rules of `uri`.
        """
        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{STORE_NAME}"
        try:
            self._database_or_server(uri)
        except ValueError as error:
            raise ConfigError(f"environment variable MLFLOW_TRACKING_URI: {error}") from None
        path = _sqlite_path(uri)
        if path is not None and not path.is_absolute():
            uri = uri.replace(f":///{path}", f":///{folder / path}", 1)
        return self.model_copy(
            update={
                "uri": uri,
                "experiment": self.experiment or experiment,
                "registered_model": self.registered_model or re.sub(r"[/:]", "-", experiment),
            }
        )

    @property
    def store_path(self) -> Path | None:
        """The SQLite file, or None for another kind of store."""
        return None if self.uri is None else _sqlite_path(self.uri)


TrackingSettings = Annotated[NoTracking | MlflowTracking, Field(discriminator="kind")]


def redacted(text: str) -> str:
    """Return ``text`` with the passwords of the URIs in it replaced by ``***``.

    >>> redacted("postgresql://ann:s3cret@db.example/mlflow?sslpassword=x&a=1")
    'postgresql://ann:***@db.example/mlflow?sslpassword=***&a=1'
    """
    return _SECRET_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))


def parse(section: Any, *, place: str) -> MlflowTracking | NoTracking:
    """Return the settings in a tracking section.

    Raises:
        ConfigError: it breaks a rule; the message starts with ``place``.
    """
    adapter: TypeAdapter[NoTracking | MlflowTracking] = TypeAdapter(TrackingSettings)
    try:
        return adapter.validate_python(section)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("none", "mlflow"))
        raise ConfigError(f"{place}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def configured(run_dir: Path) -> MlflowTracking | NoTracking:
    """Return the tracking settings that a run directory was made with.

    Raises:
        ConfigError: its config.yaml is missing, or its tracking section is not valid.
    """
    path = run_dir / "config.yaml"
    try:
        document: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); restore it from a copy") from None
    section = document.get("tracking") if isinstance(document, dict) else None
    return parse(section or {"kind": "none"}, place=f"{path}: tracking")


def _sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite URI; None for other URIs and for in-memory databases."""
    match = re.match(r"^sqlite(?:\+\w+)?:///([^?]+)", uri)
    return None if match is None or ":memory:" in uri else Path(match.group(1))
