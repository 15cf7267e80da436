"""Where requests go: to SageMaker and S3, or to the emulator and a folder of this machine."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from policylab.launchers.sagemaker.object_store import FolderStore, ObjectStore, S3Store
from policylab.launchers.sagemaker.service import PatientService, TrainingService, client
from policylab.launchers.sagemaker.settings import SageMakerSettings

logger = logging.getLogger(__name__)

EMULATED = "emulated"
"""Folder of a run directory with everything that the emulator leaves: its records, logs and the object store."""


FIRST_LOOK_S, LONGEST_PAUSE_S = 5.0, 30.0
"""Pauses before the first look at a job in AWS, and between two looks at one that does not change."""


@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """A training service and the store that its jobs read and write.

    Attributes:
        service: calls of it are repeated while that may help.
        store: of objects.
        outlives: whether jobs go on when this process ends.
        first_look_s: pause before the first look at a job.
        longest_pause_s: pause between two looks at a job that does not change.
        logs: where what a job printed is found, with ``{job}`` for its name.
        close: lets it go; jobs that do not outlive it end at once.
    """

    service: TrainingService
    store: ObjectStore
    outlives: bool
    first_look_s: float
    longest_pause_s: float
    logs: str
    close: Callable[[], None] = lambda: None


def connect(settings: SageMakerSettings, *, folder: Path) -> Connection:
    """Return where the requests of ``settings`` go.

    Args:
        settings: of the launcher.
        folder: the run directory, which holds what the emulator leaves.

    Raises:
        UserError, MissingExtraError: no region or profile, or the extra is not installed.
    """
    if settings.emulate:
        return _emulated(settings, folder / EMULATED)
    service = PatientService(client("sagemaker", region=settings.region))
    store = S3Store(client("s3", region=settings.region))
    return Connection(
        service,
        store,
        outlives=True,
        first_look_s=FIRST_LOOK_S,
        longest_pause_s=LONGEST_PAUSE_S,
        logs="`policylab jobs logs {job} --launcher sagemaker`",
    )


def _emulated(settings: SageMakerSettings, root: Path) -> Connection:
    from policylab.launchers.sagemaker.emulator import EmulatedSageMaker, EmulatorSettings

    store = FolderStore(root / "s3")
    emulator = EmulatedSageMaker(root, store, settings=EmulatorSettings(parallel=settings.parallel))
    if not emulator.isolated:
        logger.warning("emulated hosts are processes beside each other: %s", emulator.isolation_reason)
    return Connection(
        PatientService(emulator),
        store,
        outlives=False,
        first_look_s=0.2,
        longest_pause_s=1.0,
        logs=f"{root}/jobs/{{job}}/logs",
        close=lambda: emulator.close(hurry=True),
    )
