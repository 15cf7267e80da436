"""Windows one after the other, each exactly once, however often the process is killed.

The windows lie between successive moments of the schedule. What was found in one is a file of its own,
``OUT/windows/START--END.json``, written whole when its checks are done: a window without the file is done again, one
with it never. ``OUT/began.json`` holds the moment before the first window. Alarms are told and acted on before the file
is there, so that none is lost; where a kill falls between the two, they are told twice.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from policylab.errors import RunDirectoryError
from policylab.files import locked, read_json, write_atomic
from policylab.monitoring.alarms.alarm import Verdict
from policylab.monitoring.alarms.dispatch import dispatch, raised
from policylab.monitoring.schedule.check_result import CheckResult
from policylab.monitoring.schedule.checks import endpoint_of, run_checks
from policylab.monitoring.schedule.cron import Cron
from policylab.monitoring.schedule.monitor_file import MonitorConfig

WINDOWS, BEGAN, LOCK = "windows", "began.json", ".lock"
LOOK_S = 1.0
_STAMP = "%Y%m%dT%H%M%SZ"
_PARTS = {"monitor": str, "start_utc": str, "end_utc": str, "measurements": list, "alarms": list, "checks": list,
          "done": list}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Decisions from ``start`` on and before ``end``."""

    start: datetime
    end: datetime

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.start.strftime(_STAMP)}--{self.end.strftime(_STAMP)}"


def windows_due(config: MonitorConfig, now: datetime) -> Iterator[Window]:
    """Yield the windows that are over and not done, from the first on."""
    cron = Cron.parse(config.schedule)
    start = _began(config, cron.before(now.astimezone(UTC)))
    settled = now - timedelta(seconds=config.settle_s)
    while (end := cron.after(start)) <= settled:
        window = Window(start, end)
        if not (config.out / WINDOWS / f"{window.name}.json").exists():
            yield window
        start = end


def _began(config: MonitorConfig, default: datetime) -> datetime:
    path = config.out / BEGAN
    if not path.exists():
        write_atomic(path, json.dumps({"monitor": config.name, "start_utc": default.isoformat()}))
    return datetime.fromisoformat(read_json(path)["start_utc"])


def do_window(config: MonitorConfig, window: Window) -> dict[str, Any]:
    """Check a window, tell of it, act on it, store what was found; return that as JSON."""
    results = run_checks(config, start=window.start, end=window.end)
    measured = tuple(one for result in results for one in result.measurements)
    alarms = raised(config.alarms, measured, before=_alarms_before(config, window))
    start, end = (moment.isoformat() for moment in (window.start, window.end))
    verdict = Verdict(config.name, endpoint_of(config), start, end, measured, alarms)
    done = dispatch(verdict, alarms=config.alarms, targets=config.targets)
    document = {
        **verdict.document(),
        "checks": [_check_document(result) for result in results],
        "done": [dataclasses.asdict(one) for one in done],
    }
    write_atomic(config.out / WINDOWS / f"{window.name}.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    return document


def _check_document(result: CheckResult) -> dict[str, Any]:
    return {"kind": result.kind, "status": result.status, "text": result.text, "result": result.document}


def _alarms_before(config: MonitorConfig, window: Window) -> set[str]:
    earlier = [path for path in done_windows(config.out) if path.stem < window.name]
    return {one["alarm"] for one in read_window(earlier[-1])["alarms"]} if earlier else set()


def read_window(path: Path) -> dict[str, Any]:
    """Return what was found in a window.

    Raises:
        RunDirectoryError: the file is damaged.
    """
    content = read_json(path)
    whole = isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in _PARTS.items())
    if not whole:
        raise RunDirectoryError(f"{path} holds no window; remove it, and the schedule checks the window again")
    found: dict[str, Any] = content
    return found


def done_windows(out: Path) -> list[Path]:
    """Return the files of the windows that are done, in the order of time."""
    return sorted((out / WINDOWS).glob("*--*.json"))


def run_schedule(
    config: MonitorConfig,
    *,
    told: Callable[[dict[str, Any]], None],
    once: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> bool:
    """Do every window that is due, and go on with those that become due; return whether any had an alarm.

    Args:
        config: the monitor.
        told: is given what was found in each window.
        once: return when nothing is due.
        now: the time.

    Raises:
        RunDirectoryError: another process does the same.
    """
    alarmed = False
    with locked(config.out / LOCK):
        while True:
            for window in windows_due(config, now()):
                document = do_window(config, window)
                alarmed = alarmed or bool(document["alarms"])
                told(document)
            if once:
                return alarmed
            time.sleep(LOOK_S)
