"""Monitors that run by themselves: ``policylab monitor schedule``, ``refresh``, ``report``, ``watch``, and the demo."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit
from policylab.errors import UserError, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policylab.monitoring.schedule.metrics import MetricsPage
    from policylab.monitoring.schedule.monitor_file import MonitorConfig
    from policylab.monitoring.schedule.watch import LiveStatus

MAX_COLUMNS = 4


def schedule(arguments: argparse.Namespace) -> int:
    """Check every window of a monitor once; with ``--once`` those that are due, exit code 1 on an alarm."""
    from policylab.monitoring.schedule.monitor_file import load_monitor
    from policylab.monitoring.schedule.scheduler import run_schedule

    if arguments.once and arguments.metrics_port is not None:
        raise UserError("--once ends before anybody could scrape --metrics-port; leave one of them out")
    config = load_monitor(Path(arguments.file), overrides=arguments.overrides)
    if not config.data.is_dir():
        missing = f"{config.data} does not exist: nothing was captured there"
        if arguments.once:
            raise UserError(f"{missing}; name the capture folder of the endpoint as `data`")
        sys.stderr.write(f"note: {missing} yet\n")
    n_windows = 0

    with contextlib.suppress(KeyboardInterrupt), _metrics(arguments, config) as page:

        def told(document: dict[str, Any]) -> None:
            nonlocal n_windows
            n_windows += 1
            _line(arguments, document, text=_window_text(document))
            if page is not None:
                page.told(document)

        alarmed = run_schedule(config, told=told, once=arguments.once)
        if not n_windows:
            sys.stderr.write("no window is due: each that ended since the schedule first ran was checked before\n")
        return 1 if alarmed else 0
    return 0


@contextlib.contextmanager
def _metrics(arguments: argparse.Namespace, config: MonitorConfig) -> Iterator[MetricsPage | None]:
    """Serve the results to Prometheus if that is asked for, beginning with those of the latest window."""
    if arguments.metrics_port is None:
        yield None
        return
    from policylab.monitoring.schedule.checks import endpoint_of
    from policylab.monitoring.schedule.metrics import MetricsPage, serving
    from policylab.monitoring.schedule.scheduler import done_windows, read_window

    page = MetricsPage(config.name, endpoint=endpoint_of(config), alarms=[alarm.name for alarm in config.alarms])
    for path in done_windows(config.out)[-1:]:
        page.show(read_window(path))
    with serving(page, host=arguments.metrics_host, port=arguments.metrics_port) as url:
        _line(arguments, {"metrics": url}, text=f"metrics at {url}")
        yield page


def to_sagemaker(arguments: argparse.Namespace) -> int:
    """Print the monitoring schedules of a monitor file; exit code 2 if SageMaker would refuse one."""
    from policylab.cli.hosting import print_plan
    from policylab.monitoring.schedule.hosted_plan import hosted_plan
    from policylab.monitoring.schedule.monitor_file import load_monitor

    plan = hosted_plan(load_monitor(Path(arguments.file), overrides=arguments.overrides))
    return print_plan(arguments, plan.document())


def watch(arguments: argparse.Namespace) -> int:
    """Watch a live endpoint until interrupted."""
    from policylab.monitoring.schedule.live import LiveSettings
    from policylab.monitoring.schedule.monitor_file import load_monitor
    from policylab.monitoring.schedule.watch import watch_live

    if not 0 < arguments.run_length < math.inf:
        raise UserError(f"--run-length must be a number above 0, got {arguments.run_length:g}")
    config, stop = load_monitor(Path(arguments.file), overrides=arguments.overrides), threading.Event()
    if arguments.seconds is not None:
        timer = threading.Timer(arguments.seconds, stop.set)
        timer.daemon = True
        timer.start()
    n_alarms = 0

    with contextlib.suppress(KeyboardInterrupt), _metrics(arguments, config) as page:

        def alarmed(document: dict[str, Any]) -> None:
            nonlocal n_alarms
            n_alarms += len(document["alarms"])
            _line(arguments, document, text=_window_text(document))
            if page is not None:
                page.told(document)

        def stands(status: LiveStatus) -> None:
            if sys.stderr.isatty():
                _show(status)
            if page is not None:
                page.stands(status)

        watch_live(
            config, stop=stop, alarmed=alarmed, status=stands,
            ready=lambda: _line(arguments, {"watching": config.name}, text=f"watching {config.name}"),
            settings=LiveSettings(run_length=arguments.run_length),
        )  # fmt: skip
    return 1 if n_alarms else 0


def _show(status: LiveStatus) -> None:
    most = sorted(status.shares.items(), key=lambda one: -one[1])[:MAX_COLUMNS]
    shares = "  ".join(f"{name} {min(share, 1.0):4.0%}" for name, share in most)
    sys.stderr.write(f"\r\x1b[K{status.n_decisions:,} decisions, {status.n_rewards:,} rewards; to an alarm: {shares}")
    sys.stderr.flush()


def _line(arguments: argparse.Namespace, document: dict[str, Any], *, text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
    sys.stdout.write((json.dumps(document, allow_nan=False) if arguments.json else text) + "\n")
    sys.stdout.flush()


def _window_text(document: dict[str, Any]) -> str:
    checks = ", ".join(f"{one['kind']} {one['status']}" for one in document["checks"])
    lines = [f"{document['start_utc']} to {document['end_utc']}: {checks or 'live'}"]
    lines += [f"  ALARM {alarm['alarm']}: {plain(alarm['text'])}" for alarm in document["alarms"]]
    lines += [f"  {plain(one['what'])}: {plain(one['text'])}" for one in document["done"] if one["text"] != "told"]
    return "\n".join(lines)


def refresh(arguments: argparse.Namespace) -> int:
    """Make a new baseline of approved data; keep the old one, and show what changed."""
    from policylab.monitoring.schedule.refresh import refresh as renew

    names = tuple(name.strip() for name in arguments.columns.split(",")) if arguments.columns else ()
    found = renew(Path(arguments.baseline), map(Path, arguments.data), columns=names)
    rows = [["column", "distance", "was", "is"]]
    for one in found.changes:
        distance = "-" if one.distance is None else f"{one.distance:.4g}"
        rows.append([one.name, distance, one.before or "-", one.after or "-"])
    document = {**dataclasses.asdict(found), "kept": str(found.kept)}
    emit(arguments, document, text=lambda: f"{columns(rows)}\n{found.n_rows:,} rows; the old baseline is {found.kept}")
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Write one page over all windows of a monitor."""
    from policylab.files import write_atomic
    from policylab.monitoring.schedule.monitor_file import load_monitor
    from policylab.monitoring.schedule.summary import html, read_windows

    given = Path(arguments.monitor)
    out = load_monitor(given).out if given.is_file() else given
    windows, path = read_windows(out), out / "report.html"
    write_atomic(path, html(windows))
    n_alarms = sum(bool(one["alarms"]) for one in windows)
    document = {"path": str(path), "windows": len(windows), "with_alarm": n_alarms}
    emit(arguments, document, text=lambda: f"{len(windows):,} windows, {n_alarms:,} with an alarm: {path}")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """Serve a policy, shift its environment, detect it, name the cause, roll back, write a report."""
    from policylab.extras import require

    for module in ("uvicorn", "httptools", "msgspec"):
        require(module, extra="serve")
    require("pyarrow", extra="monitor")
    from policylab.monitoring.schedule.demo import demo as play

    began = time.monotonic()
    folder = Path(arguments.out) if arguments.out else Path(tempfile.mkdtemp(prefix="policylab-demo-"))

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:5.1f} s  {plain(text)}\n")

    found = play(folder, say=say)
    rows = [
        ["mean return before", f"{found.return_before:.2f}"], ["on slippery ice", f"{found.return_shifted:.2f}"],
        ["after the rollback", f"{found.return_after:.2f}"], ["time to alarm", f"{found.seconds_to_alarm:.1f} s"],
        ["cause", ", ".join(found.causes)], ["report", str(found.report)],
    ]  # fmt: skip
    document = {**dataclasses.asdict(found), "report": str(found.report)}
    emit(arguments, document, text=lambda: columns(rows))
    return 0
