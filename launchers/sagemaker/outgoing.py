"""`Outgoing`: one run ready to be sent as a training job, and what must lie in the store before it is."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any, Self

from policylab.errors import UserError
from policylab.launchers.sagemaker.object_store import ObjectStore
from policylab.launchers.sagemaker.sender import extras_to_track
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.source_bundle import SourceBundle, build
from policylab.launchers.sagemaker.training_request import (
    TrainingRun,
    code_prefix,
    job_name,
    run_prefix,
    spec_prefix,
    training_request,
)
from policylab.runspec import RunSpec

NEEDS = "policylab.experiments.needs:extras_of"
"""Tells the extras that a run needs; named here and imported there, for launchers know nothing of what a run does."""

IN_THE_CONTAINER = "/opt/ml/"

LAST = "bootstrap.py"
"""The file of a source bundle that is uploaded last: where it is, the others are."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """A run and the settings and code it is sent with.

    Attributes:
        settings: of the launcher.
        bundle: the code.
        spec: what the run is told.
        run: what names the job.
    """

    settings: SageMakerSettings
    bundle: SourceBundle
    spec: RunSpec
    run: TrainingRun

    @classmethod
    def of(cls, settings: SageMakerSettings, spec: RunSpec, *, bundle: SourceBundle) -> Self:
        """Return the first attempt to have the run executed.

        Raises:
            UserError: the run reads a file of this machine.
        """
        dataset = spec.agent.get("dataset")
        if isinstance(dataset, str) and not dataset.startswith(IN_THE_CONTAINER):
            raise UserError(
                f"agent.dataset '{dataset}': a training job does not see this machine's files; give it through a "
                f"channel (launcher.channels) and name it {IN_THE_CONTAINER}input/data/CHANNEL/FILE, or use "
                "another launcher"
            )
        run = TrainingRun(
            experiment=spec.experiment,
            config_hash=spec.config_hash,
            trial=spec.trial,
            role=spec.role,
            index=spec.index,
            stop_at_steps=spec.stop_at_steps,
            code_hash=bundle.hash,
            spec_hash=hashlib.sha256(_spec_bytes(spec)).hexdigest(),
        )
        return cls(settings, bundle, spec, run)

    def again(self) -> Self:
        """Return the next attempt: the same under another name, for names are never free again."""
        return dataclasses.replace(self, run=dataclasses.replace(self.run, attempt=self.run.attempt + 1))

    @property
    def request(self) -> dict[str, Any]:
        """The literal CreateTrainingJob request."""
        return training_request(self.settings, self.run)

    @property
    def name(self) -> str:
        """The job's name."""
        return job_name(self.run)

    @property
    def request_text(self) -> str:
        """The request as a JSON file."""
        return json.dumps(self.request, indent=1) + "\n"

    @property
    def prefix(self) -> str:
        """Where the run's folder lies while jobs carry it on."""
        return run_prefix(self.settings, self.run)

    def upload(self, store: ObjectStore) -> None:
        """Put code and spec where the request says they are; what is there already is not sent again.

        Raises:
            StorageError: the store refused.
        """
        code = code_prefix(self.settings, self.run)
        if not store.exists(code + LAST):
            for name in sorted(self.bundle.files, key=lambda name: (name == LAST, name)):
                store.put_bytes(self.bundle.files[name], code + name)
        spec = spec_prefix(self.settings, self.run) + "spec.json"
        if not store.exists(spec):
            store.put_bytes(_spec_bytes(self.spec), spec)


def source_bundle(settings: SageMakerSettings, spec: RunSpec) -> SourceBundle:
    """Return the code that the runs of an experiment need, ready to travel.

    Args:
        settings: name the user's own modules, and the extras unless the run tells them.
        spec: any run of the experiment.

    Raises:
        UserError: a module or an extra does not exist, or it is too much.
    """
    module, _, function = NEEDS.partition(":")
    extras = settings.extras
    if extras is None:
        needed = getattr(importlib.import_module(module), function)(spec)
        extras = tuple(sorted({*needed, *extras_to_track(settings.environment)}))
    return build(extras=extras, include=[Path(path) for path in settings.include])


def _spec_bytes(spec: RunSpec) -> bytes:
    return (spec.model_dump_json(indent=1) + "\n").encode()
