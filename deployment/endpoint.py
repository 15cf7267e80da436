"""The endpoint file: which policies answer, in which shares, within which limits, and what is recorded of it.

    name: lake
    variants:
      - {name: stable, bundle: runs/pond-1/bundle, weight: 9}
      - {name: candidate, bundle: runs/pond-2/bundle, weight: 1}
    capture: {folder: captured}

Paths are relative to the file. Names follow Amazon SageMaker's rule for endpoints and variants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, field_validator, model_validator

from policylab.config import Document, Settings, assign, read, validate
from policylab.deployment.guardrails.settings import ComparisonSettings, Guardrail
from policylab.deployment.mode_settings import AsynchronousSettings, ModelsSettings, ServerlessSettings
from policylab.deployment.sagemaker.settings import HostingSettings
from policylab.deployment.scaling_settings import Autoscaling, RayServeSettings
from policylab.errors import ConfigError
from policylab.files import content_hash

MAX_NAME = 63
NAME = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*")
"""SageMaker's pattern, with the anchors and the length that it lacks."""


def valid_name(text: str) -> str:
    """Return ``text`` if it may name an endpoint or a variant.

    >>> valid_name("lake-2")
    'lake-2'
    """
    if not NAME.fullmatch(text) or len(text) > MAX_NAME:
        raise ValueError(f"a name has letters, digits and inner hyphens, at most {MAX_NAME}")
    return text


Name = Annotated[str, AfterValidator(valid_name)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class VariantSettings(Settings):
    """One policy that answers requests."""

    name: Name
    bundle: Path = Field(description="folder or model.tar.gz of a policy bundle, relative to the endpoint file")
    weight: float = Field(
        default=1.0,
        ge=0.0,
        le=1e9,
        description="share of the traffic, relative to the sum of all weights, at the start",
    )
    exploration: bool = Field(
        default=True, description="draw actions from the policy; false: its deterministic action, of propensity 1"
    )


class ShadowSettings(Settings):
    """One policy that is asked about requests and whose answers are recorded, never returned."""

    name: Name
    bundle: Path = Field(description="folder or model.tar.gz of a policy bundle, relative to the endpoint file")
    sampling: Share = Field(default=1.0, description="share of the decisions it is asked about")
    exploration: bool = Field(default=True, description="judge the policy as it draws actions; false: deterministic")


class CaptureSettings(Settings):
    """What is recorded of decisions, in the format of `policylab.deployment.capture.format`."""

    folder: Path = Field(description="receives captured/ and ground-truth/, relative to the endpoint file")
    sampling: float = Field(default=1.0, gt=0.0, le=1.0, description="share of the decisions to record")
    format: Literal["jsonl", "parquet"] = Field(
        default="jsonl",
        description="of decisions: SageMaker's lines by variant and hour, or Parquet by policy version and hour",
    )
    queue: int = Field(
        default=10_000, ge=1, le=1_000_000, description="decisions that may wait for the disk; more are dropped"
    )
    write_s: float | None = Field(
        default=None,
        ge=0.2,
        le=3600.0,
        description="of Parquet: seconds after which what was decided becomes a file; default: 10",
    )
    max_file_bytes: int = Field(default=16 * 2**20, ge=1024, description="size at which a new file is begun")
    max_disk_use: float = Field(
        default=0.75, gt=0.0, le=1.0, description="share of the disk in use above which decisions are dropped"
    )

    @model_validator(mode="after")
    def _files_in_time(self) -> Self:
        if self.write_s is not None and self.format != "parquet":
            raise ValueError("write_s is of format: parquet; lines are written every 0.2 s, remove it")
        return self


class Limits(Settings):
    """What a client may ask for, and how much at once."""

    body_bytes: int = Field(
        default=6_291_456, ge=1, le=100 * 2**20, description="largest request body, also after decompression"
    )
    batch: int = Field(default=1024, ge=1, le=100_000, description="most observations of one request")
    in_flight: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="with a deadline: decisions that are computed or wait for it; more get the fallback action",
    )
    connections: int = Field(default=2048, ge=1, le=100_000, description="open connections; more get 503")
    requests_per_s: float | None = Field(default=None, gt=0.0, description="more get 429; default: no limit")
    body_timeout_s: float = Field(default=10.0, gt=0.0, le=3600.0, description="time for a request to arrive whole")
    deadline_ms: float | None = Field(
        default=None,
        gt=0.0,
        le=60_000.0,
        description="time for a decision, after which the fallback action is answered",
    )
    remembered_ids: int = Field(
        default=10_000, ge=0, le=10_000_000, description="latest inference ids whose decision a retry gets again"
    )


class SessionSettings(Settings):
    """Sessions keep their variant from the first request to the last."""

    expire_s: float = Field(default=1200.0, gt=0.0, le=604_800.0, description="time after its last request")
    max_sessions: int = Field(
        default=100_000, ge=1, le=10_000_000, description="at once; the one that was used least recently makes room"
    )


class FallbackSettings(Settings):
    """What is answered when the policy has no answer in time."""

    action: JsonValue = Field(description="an action of the policies' action space, as JSON")


class BoundsSettings(Settings):
    """Narrower bounds of continuous actions than those of the action space; actions are clipped to them."""

    low: float | tuple[float, ...] = Field(description="for all components or for each")
    high: float | tuple[float, ...] = Field(description="for all components or for each")


_OF_ONE_MEMORY = ("models", "shadows", "asynchronous", "serverless", "capture", "comparison")
_OF_ONE_SERVER = ("connections", "requests_per_s", "body_timeout_s")


class EndpointConfig(Settings):
    """One endpoint."""

    name: Name
    variants: tuple[VariantSettings, ...] = Field(
        default=(), max_length=10, description="the policies that answer, at least one; none with `models`"
    )
    models: ModelsSettings | None = Field(default=None, description="many policies, of which requests name one")
    shadows: tuple[ShadowSettings, ...] = Field(default=(), max_length=10)
    asynchronous: AsynchronousSettings | None = Field(default=None, description="default: answers at once")
    serverless: ServerlessSettings | None = Field(default=None, description="default: policies stay in memory")
    ray_serve: RayServeSettings | None = Field(default=None, description="default: on this machine alone, without Ray")
    autoscaling: Autoscaling | None = Field(default=None, description="with `ray_serve`, or on SageMaker")
    limits: Limits = Limits()
    sessions: SessionSettings = SessionSettings()
    fallback: FallbackSettings | None = Field(default=None, description="required with limits.deadline_ms")
    bounds: BoundsSettings | None = None
    capture: CaptureSettings | None = Field(default=None, description="default: nothing is recorded")
    comparison: ComparisonSettings | None = Field(default=None, description="an A/B test of the variants")
    guardrail: Guardrail = Field(default=Guardrail(), description="how the next version takes over")
    sagemaker: HostingSettings | None = Field(default=None, description="what only `--on sagemaker` needs")

    @field_validator("name", mode="before")
    @classmethod
    def _name_is_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [name.lower() for name, _ in self.bundles()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"variants and shadows need names that differ in more than case, got {twice[0]!r} twice")
        return self

    @model_validator(mode="after")
    def _somebody_answers(self) -> Self:
        if self.models is None and not self.variants:  # no minimum length: that would be told of wrong variants too
            raise ValueError("an endpoint needs at least one variant, or a folder of models")
        if self.variants and not sum(variant.weight for variant in self.variants) > 0.0:
            raise ValueError("the weights of the variants must not all be 0")
        if self.limits.deadline_ms is not None and self.fallback is None:
            raise ValueError("limits.deadline_ms needs a fallback, such as {action: 0}")
        return self

    @model_validator(mode="after")
    def _models_alone(self) -> Self:
        given = [
            name for name in ("variants", "shadows", "comparison", "asynchronous", "serverless") if getattr(self, name)
        ]
        if self.models is not None and given:
            raise ValueError(f"an endpoint of many models has no {given[0]}; requests name their model, remove one")
        return self

    @model_validator(mode="after")
    def _serverless_alone(self) -> Self:
        given = [name for name in ("shadows", "comparison", "asynchronous") if getattr(self, name)]
        if self.serverless is not None and (given or len(self.variants) > 1):
            what = given[0] if given else "second variant"
            raise ValueError(f"a serverless endpoint has no {what}, as on SageMaker; remove one of them")
        return self

    @model_validator(mode="after")
    def _scaled(self) -> Self:
        if self.autoscaling is not None and self.ray_serve is None and self.sagemaker is None:
            raise ValueError("autoscaling is for Ray Serve or SageMaker; add `ray_serve: {}`, or `sagemaker`")
        if self.ray_serve is None:
            return self
        if self.autoscaling is None or self.autoscaling.concurrent_requests is None:
            raise ValueError("ray_serve needs a target, such as autoscaling: {max_capacity: 4, concurrent_requests: 8}")
        given = [name for name in _OF_ONE_MEMORY if getattr(self, name)]
        given += [name for name in ("sessions", "guardrail") if getattr(self, name) != type(getattr(self, name))()]
        given += [f"limits.{name}" for name in _OF_ONE_SERVER if getattr(self.limits, name) != getattr(Limits(), name)]
        if given:
            raise ValueError(
                f"an endpoint on Ray Serve cannot have {given[0]}, since its replicas share no memory; remove it, or "
                "remove ray_serve and divide the endpoint among processes with `policylab serve --workers`"
            )
        return self

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        names = [variant.name for variant in self.variants]
        if self.comparison is not None and len(names) < 2:
            raise ValueError("a comparison needs at least two variants")
        if self.comparison is not None and self.comparison.baseline not in (None, *names):
            raise ValueError(f"comparison.baseline must be a variant: {', '.join(names)}")
        return self

    @property
    def config_hash(self) -> str:
        """sha256 of the whole file."""
        return content_hash(self.model_dump(mode="json"))

    def with_folder(self, folder: Path) -> EndpointConfig:
        """Return the endpoint with its paths taken relative to ``folder``, as absolute ones."""
        folder = folder.resolve()

        def placed(part: Any, key: str) -> Any:
            return part.model_copy(update={key: folder / getattr(part, key)})

        return self.model_copy(
            update={
                "variants": tuple(placed(variant, "bundle") for variant in self.variants),
                "shadows": tuple(placed(shadow, "bundle") for shadow in self.shadows),
                "capture": self.capture and placed(self.capture, "folder"),
                "models": self.models and placed(self.models, "folder"),
                "asynchronous": self.asynchronous and placed(self.asynchronous, "folder"),
            }
        )

    def bundles(self) -> Iterator[tuple[str, Path]]:
        """Yield the name and the bundle of every variant and shadow."""
        yield from ((variant.name, variant.bundle) for variant in self.variants)
        yield from ((shadow.name, shadow.bundle) for shadow in self.shadows)


def load_endpoint(path: Path, *, overrides: Sequence[str] = ()) -> EndpointConfig:
    """Load an endpoint file with ``a.b=c`` overrides; its paths come back absolute.

    Raises:
        ConfigError: every finding, one per line, with its place.
    """
    document = assign(read(path), overrides)
    config = validate(EndpointConfig, document).with_folder(path.parent)
    keys = [("variants", i) for i in range(len(config.variants))] + [("shadows", i) for i in range(len(config.shadows))]
    missing = [
        f"{document.place((*key, 'bundle'))}: {'.'.join(map(str, (*key, 'bundle')))}: no such bundle: {bundle}"
        for key, (_, bundle) in zip(keys, config.bundles(), strict=True)
        if not bundle.exists()
    ]
    if config.models is not None and not config.models.folder.is_dir():
        folder = ("models", "folder")
        missing.append(f"{document.place(folder)}: {'.'.join(folder)}: no such folder: {config.models.folder}")
    if missing:
        raise ConfigError("\n".join(missing))
    return config


def endpoint_of_bundle(path: Path, *, overrides: Sequence[str] = ()) -> EndpointConfig:
    """Return the endpoint ``policy`` that serves one bundle, with ``a.b=c`` overrides; paths are relative to here.

    Raises:
        ConfigError: every finding, one per line, with its place.
    """
    data = {"name": "policy", "variants": [{"name": "policy", "bundle": str(path)}]}
    return validate(EndpointConfig, assign(Document(data, {}, source=str(path)), overrides)).with_folder(Path.cwd())
