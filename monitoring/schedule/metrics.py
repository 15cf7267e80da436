"""The latest results of a monitor for Prometheus to scrape: GET /metrics, on the standard library's HTTP server.

| metric | type | labels besides monitor and endpoint |
|---|---|---|
| those of `policylab.monitoring.alarms.exposition` | gauge | |
| policylab_monitor_check | gauge: 1 for the status it has, else 0 | check, status |
| policylab_monitor_windows_total, policylab_monitor_alarmed_windows_total | counter, since the start | |
| policylab_monitor_live_decisions_total, policylab_monitor_live_rewards_total | counter, since the start | |
| policylab_monitor_live_share | gauge: how far a live detector is on the way to an alarm, 1 | column |

Without a token only this machine may ask, by its own name (DNS rebinding); with one every request needs it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from policylab.deployment.decision import Refusal
from policylab.deployment.http.access import access_for
from policylab.deployment.http.listening import bound_socket
from policylab.monitoring.alarms.alarm import read_verdict
from policylab.monitoring.alarms.exposition import exposition, metric
from policylab.monitoring.schedule.watch import LiveStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUSES = ("passed", "violations", "no data", "failed")
logger = logging.getLogger(__name__)


class MetricsPage:
    """What is told to Prometheus: of the latest window, and of a live watch what came since.

    Args:
        monitor: its name.
        endpoint: that is watched.
        alarms: names of all alarms there are.
    """

    def __init__(self, monitor: str, *, endpoint: str, alarms: Sequence[str]) -> None:
        self._labels = {"monitor": monitor, "endpoint": endpoint}
        self._alarms = alarms
        self._lock = threading.Lock()
        self._window: Mapping[str, Any] | None = None
        self._live: Mapping[str, Any] | None = None
        self._status: LiveStatus | None = None
        self._n_windows = self._n_alarmed = 0

    def show(self, document: Mapping[str, Any]) -> None:
        """Show a window that was checked before the start."""
        with self._lock:
            self._window = document

    def told(self, document: Mapping[str, Any]) -> None:
        """Take what was found in a window, or the alarm of a live detector: one without checks."""
        with self._lock:
            if not document["checks"]:
                self._live = document
                return
            self._window, self._live = document, None
            self._n_windows += 1
            self._n_alarmed += bool(document["alarms"])

    def stands(self, status: LiveStatus) -> None:
        """Take how a live watch stands."""
        with self._lock:
            self._status = status

    def text(self) -> str:
        """Return the page in Prometheus' text format."""
        with self._lock:
            latest = [read_verdict(one) for one in (self._window, self._live) if one is not None]
            checks = [] if self._window is None else self._window["checks"]
            counts = {"windows": self._n_windows, "alarmed_windows": self._n_alarmed}
            status = self._status
        lines = exposition(latest, alarms=self._alarms).splitlines() if latest else []
        samples = [
            ({"check": one["kind"], "status": which}, float(one["status"] == which))
            for one in checks
            for which in STATUSES
        ]
        lines += self._metric("check", samples, text="1 for the status of a check of the latest window")
        lines += self._metric("windows_total", [({}, counts["windows"])], text="windows checked")
        lines += self._metric("alarmed_windows_total", [({}, counts["alarmed_windows"])], text="windows with an alarm")
        if status is not None:
            shares = [({"column": name}, share) for name, share in status.shares.items()]
            lines += self._metric("live_decisions_total", [({}, status.n_decisions)], text="decisions seen")
            lines += self._metric("live_rewards_total", [({}, status.n_rewards)], text="rewards seen")
            lines += self._metric("live_share", shares, text="how far a detector is on the way to an alarm")
        return "\n".join(lines) + "\n"

    def _metric(self, name: str, samples: Sequence[tuple[dict[str, str], float]], *, text: str) -> list[str]:
        return metric(name, [({**self._labels, **labels}, value) for labels, value in samples], text=text)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, page: MetricsPage, *, host: str) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_activate()
        self.page = page
        self.access = access_for(host)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 30
    server_version, sys_version = "policylab", ""

    def do_GET(self) -> None:
        status, text = self._answer()
        content = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _answer(self) -> tuple[int, str]:
        try:
            headers = {name.lower().encode(): value.encode() for name, value in self.headers.items()}
            self.server.access.check_admin(headers)
            return (200, self.server.page.text()) if self.path == "/metrics" else (404, "the page is /metrics\n")
        except Refusal as refusal:
            return 401, f"{refusal}\n"
        except Exception:
            logger.exception("the metrics could not be told")
            return 500, "the monitor failed; its log says why\n"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: being scraped is no news."""


@contextlib.contextmanager
def serving(page: MetricsPage, *, host: str, port: int) -> Iterator[str]:
    """Serve a page until the end of the block; yield its address.

    Args:
        page: what is told.
        host: where others reach it, a token is needed (``POLICYLAB_TOKEN``).
        port: 0 takes a free one.

    Raises:
        UserError: the address cannot be bound, or others could reach it and there is no token.
    """
    access_for(host)  # before the address is taken
    server = _Server(bound_socket(host, port), page, host=host)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    shown, number = server.socket.getsockname()[:2]
    try:
        yield f"http://{f'[{shown}]' if ':' in shown else shown}:{number}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
