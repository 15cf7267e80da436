"""What a job is told while it runs: by files in its folder, from any process, and by planned injections."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from policylab.launchers.sagemaker.emulator.injections import OF_JOBS, Injection

LOSSES = ("kill", "unplug")
"""What befalls a host while it runs."""

HURRY = "hurry"
"""The order to kill hosts that are being ended instead of waiting out their grace."""


def give_order(folder: Path, kind: str, *, host: str | None = None) -> None:
    """Tell the job in ``folder`` to stop or to hurry, or let trouble befall it or one of its hosts."""
    assert kind in (LOSSES if host else (*OF_JOBS, HURRY))
    (folder / "orders").mkdir(exist_ok=True)
    (folder / "orders" / (f"{kind}:{host}" if host else kind)).touch()


class Orders:
    """The orders of one job; a stop holds for good, an interruption or a fault is taken once.

    Args:
        folder: the job's.
        injections: planned trouble.
    """

    def __init__(self, folder: Path, injections: Iterable[Injection]) -> None:
        self._folder = folder / "orders"
        self._planned = [one for one in injections if one.kind not in ("late", "missing")]
        self._delays = {one.host: one.at_s for one in injections if one.kind == "late"}
        self._missing = {one.host for one in injections if one.kind == "missing"}
        self._began: float | None = None

    def training_began(self) -> None:
        """Count the seconds of planned trouble from now, unless that began before."""
        self._began = self._began or time.monotonic()

    def stopped(self) -> bool:
        """Return whether the job is to stop."""
        if self._due("stop"):
            give_order(self._folder.parent, "stop")
        return (self._folder / "stop").exists()

    def hurried(self) -> bool:
        """Return whether hosts have no grace left."""
        return (self._folder / HURRY).exists()

    def befalls(self, kind: str) -> bool:
        """Return whether an interruption or a fault is due; each is told once."""
        given = self._folder / kind
        if given.exists():
            given.unlink(missing_ok=True)
            return True
        return bool(self._due(kind))

    def hosts(self, kind: str) -> list[str]:
        """Return the hosts that are to be killed or unplugged now; each is told once."""
        given = list(self._folder.glob(f"{kind}:*"))
        for file in given:
            file.unlink(missing_ok=True)
        planned = [one.host for one in self._due(kind) if one.host is not None]
        return [*planned, *(file.name.partition(":")[2] for file in given)]

    def delay_s(self, host: str) -> float | None:
        """Return how much later than the others a host begins; None if it never does."""
        return None if host in self._missing else self._delays.get(host, 0.0)

    def _due(self, kind: str) -> list[Injection]:
        if self._began is None:
            return []
        passed = time.monotonic() - self._began
        due = [one for one in self._planned if one.kind == kind and one.at_s <= passed]
        self._planned = [one for one in self._planned if one not in due]
        return due
