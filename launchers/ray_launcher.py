"""Runs on a Ray cluster, each in a long-lived actor that holds the processors and GPUs of one run.

An actor executes many runs one after another. When it is killed, its node is lost or its run takes too long, the run
goes on from the last checkpoint in another actor, at most ``retries`` times. Run folders are used in place where every
node sees them, else carried by a `SnapshotStore`.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from policylab.errors import StorageError, UserError
from policylab.launchers.launcher import Handle
from policylab.launchers.local import WORKER_LOG
from policylab.launchers.pool import WorkerLost, WorkerPool
from policylab.launchers.ray_settings import RaySettings
from policylab.launchers.ray_worker import RayWorker
from policylab.launchers.snapshots import SnapshotStore
from policylab.ray_session import ray_session
from policylab.stacks import ANSWER_S

SERVE = "policylab.experiments.worker:serve"
"""Executes runs in an actor; named here and imported there, for launchers know nothing of what a run does."""

LOOK_S = 0.5
"""How often one that waits for a place looks whether it is to end."""


class RayLauncher(WorkerPool):
    """A pool of actors; a context manager that ends them, and the cluster if it was started for them.

    Args:
        settings: where, and what each run holds.
        n_workers: how many runs execute at once.
        folder: the run directory.

    Raises:
        UserError: the cluster cannot be reached, or has no node that is large enough for a run.
    """

    Settings = RaySettings

    def __init__(self, settings: RaySettings, *, n_workers: int, folder: Path) -> None:
        self._store = SnapshotStore(settings.storage) if settings.storage else None
        self._resources = contextlib.ExitStack()
        ray = self._resources.enter_context(
            ray_session(settings.address, num_cpus=settings.local_cpus, runtime_env=settings.runtime_env)
        )
        try:
            _check_fits(ray, settings)
        except BaseException:
            self._resources.close()
            raise
        super().__init__(
            n_workers=n_workers,
            make_worker=lambda: _Actor(ray, settings, store=self._store, folder=folder),
            attempts=settings,
        )
        self._folder = folder

    @classmethod
    def make(cls, settings: RaySettings, *, n_workers: int, folder: Path) -> RayLauncher:
        """Return the launcher that ``settings`` describe."""
        return cls(settings, n_workers=n_workers, folder=folder)

    def submit(self, folder: Path, *, n_failed: int = 0) -> Handle:
        """Queue the run in ``folder``, bringing it together with what the storage holds of it."""
        if self._store is not None:
            self._store.exchange(folder, _key(self._folder, folder))
        return super().submit(folder, n_failed=n_failed)

    def close(self, *, timeout_s: float) -> None:
        """Stop every run, let it save, end the actors and leave Ray."""
        try:
            super().close(timeout_s=timeout_s)
        finally:
            self._resources.close()


def _key(root: Path, folder: Path) -> str:
    """Return the name of a run in the storage."""
    return f"{root.name}/{folder.relative_to(root).as_posix()}"


def wanted(settings: RaySettings) -> dict[str, float]:
    """Return the resources that a run holds, by Ray's names."""
    all_ = {"CPU": settings.cpus_per_run, "GPU": settings.gpus_per_run, **settings.resources_per_run}
    return {name: amount for name, amount in all_.items() if amount}


def _check_fits(ray: Any, settings: RaySettings) -> None:
    """Wait for a node that is large enough for one run."""
    needed = wanted(settings)
    timeout_s = 0.0 if settings.address == "local" else settings.start_timeout_s
    deadline = time.monotonic() + timeout_s
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if any(all(node.get(name, 0.0) >= amount for name, amount in needed.items()) for node in nodes):
            return
        if time.monotonic() >= deadline:
            break
        time.sleep(LOOK_S)
    asked = ", ".join(f"{amount:g} {name}" for name, amount in needed.items())
    largest = ", ".join(f"{max((node.get(name, 0.0) for node in nodes), default=0.0):g} {name}" for name in needed)
    raise UserError(
        f"launcher: a run holds {asked}, but none of the cluster's {len(nodes)} nodes has that (the most: {largest}); "
        "lower launcher.cpus_per_run, gpus_per_run or resources_per_run, or start a larger node"
    )


class _Actor:
    """One worker of the pool: an actor, and another one after it was lost."""

    def __init__(self, ray: Any, settings: RaySettings, *, store: SnapshotStore | None, folder: Path) -> None:
        self._ray = ray
        self._settings = settings
        self._store = store
        self._folder = folder
        self._actor: Any = None
        self._place: Any = None
        self._closing = threading.Event()

    def start(self) -> None:
        if self._actor is not None:
            return
        ray, settings = self._ray, self._settings
        actor = (
            ray.remote(RayWorker)
            .options(**self._placed(), max_concurrency=4, max_restarts=0)  # stop and close come while run is under way
            .remote(SERVE, storage=settings.storage, sync_every_s=settings.sync_every_s)
        )
        ready = actor.ready.remote()
        self._actor = actor
        try:
            while not self._closing.is_set() and not ray.wait([ready], timeout=LOOK_S)[0]:
                pass
            if not self._closing.is_set():
                ray.get(ready)
        except ray.exceptions.RayError as error:
            self._forget()
            raise WorkerLost(f"cannot start a worker on the cluster: {_first_line(error)}") from None

    def _placed(self) -> dict[str, Any]:
        """Return the options that make an actor hold the resources of a run.

        Of several processors the actor takes one itself; what it starts in turn finds the others kept for it, as a
        first bundle and bundles of one processor each, which is how Tune lays them out and RLlib expects them.
        """
        settings = self._settings
        others = {"num_gpus": settings.gpus_per_run, "resources": settings.resources_per_run or None}
        if settings.cpus_per_run <= 1:
            return {"num_cpus": settings.cpus_per_run, **others}
        scheduling = importlib.import_module("ray.util.scheduling_strategies")
        first = {**wanted(settings), "CPU": 1.0}
        rest = [{"CPU": 1.0}] * (math.ceil(settings.cpus_per_run) - 1)
        self._place = self._ray.util.placement_group([first, *rest], strategy="STRICT_PACK")
        strategy = scheduling.PlacementGroupSchedulingStrategy(
            self._place, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        )
        return {"num_cpus": 1, **others, "scheduling_strategy": strategy}

    def execute(self, folder: Path) -> Iterator[dict[str, Any]]:
        key = _key(self._folder, folder)
        stream = self._actor.run.options(num_returns="streaming").remote(str(folder), key)
        try:
            for reference in stream:
                event = self._ray.get(reference)
                if event.pop("stored", False):
                    assert self._store is not None
                    self._store.pull(key, into=folder)
                if event["event"] == "log":
                    self._log(event["text"])
                else:
                    yield event
        except StorageError as error:
            self._forget()
            yield {"event": "failed", "error": str(error)}
        except self._ray.exceptions.RayTaskError as error:  # a defect of ours, not of the run: worth the whole text
            self._forget()
            self._log(str(error))
            yield {"event": "failed", "error": _first_line(error)}
        except self._ray.exceptions.RayError as error:
            self._forget()
            self._log(f"{folder}: lost its worker: {error}")
            raise WorkerLost(_first_line(error)) from None

    def stop(self, folder: Path) -> None:
        self._tell(lambda actor: actor.stop.remote(str(folder)))

    def abort(self) -> str | None:
        where = None
        with contextlib.suppress(self._ray.exceptions.RayError, AttributeError):  # it is gone, or too busy to answer
            where = str(self._ray.get(self._actor.stacks.remote(), timeout=ANSWER_S))
        self._forget()
        return where

    def close(self) -> None:
        self._closing.set()
        self._tell(lambda actor: actor.close.remote())

    def kill(self, *, after_s: float) -> None:
        self._forget()

    def _tell(self, message: Callable[[Any], Any]) -> None:
        actor = self._actor
        if actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):  # the reader notices that it is gone
                message(actor)

    def _forget(self) -> None:
        """End the actor, if it is still there: it must not go on with a run that another one continues."""
        actor, self._actor = self._actor, None
        if actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)
        place, self._place = self._place, None
        if place is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.util.remove_placement_group(place)

    def _log(self, text: str) -> None:
        with (self._folder / WORKER_LOG).open("a") as log:
            log.write(text.rstrip("\n") + "\n")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
