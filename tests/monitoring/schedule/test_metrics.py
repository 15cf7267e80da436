"""Prometheus reads what a monitor found, whatever columns are called, and nobody else's browser does."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policylab.cli import main
from policylab.errors import UserError
from policylab.monitoring.alarms.alarm import Alarm, Verdict
from policylab.monitoring.alarms.measurement import Measurement
from policylab.monitoring.schedule.metrics import MetricsPage, serving
from policylab.monitoring.schedule.watch import LiveStatus

parser = pytest.importorskip("prometheus_client.parser")
HOSTILE = 'x"\n\\<script>'
END_S = 1_769_871_600.0
Samples = dict[tuple[str, ...], float]


def document(*measured: Measurement, checks: tuple[str, ...] = ("passed",), alarm: str | None = None) -> dict[str, Any]:
    alarms = () if alarm is None else (Alarm(alarm, measured[:1]),)
    verdict = Verdict("pond", "lake", "2026-01-31T14:00:00+00:00", "2026-01-31T15:00:00+00:00", measured, alarms)
    return {**verdict.document(), "checks": [{"kind": "data", "status": status} for status in checks], "done": []}


def page_() -> MetricsPage:
    return MetricsPage("pond", endpoint="lake", alarms=["worse", "stream"])


def samples(text: str) -> Samples:
    """Return the samples of a page by name and labels, without those of the monitor."""
    found = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation
        assert family.type == ("counter" if family.samples[0].name.endswith("_total") else "gauge")
        for one in family.samples:
            assert (one.labels.pop("monitor"), one.labels.pop("endpoint")) == ("pond", "lake")
            found[one.name.removeprefix("policylab_monitor_"), *one.labels.values()] = one.value
    return found


def test_a_window_is_what_prometheus_reads() -> None:
    page = page_()
    assert samples(page.text()) == {("windows_total",): 0, ("alarmed_windows_total",): 0}
    measured = (
        Measurement(f"data.{HOSTILE}", 0.25, 0.5, True, ""), Measurement("data.y", float("nan"), None, False, ""),
    )  # fmt: skip
    page.told(document(*measured, checks=("violations",), alarm="worse"))
    found = samples(page.text())
    assert found["value", f"data.{HOSTILE}"] == 0.25
    assert found["value", "data.y"] != found["value", "data.y"]
    assert (found["violated", f"data.{HOSTILE}"], found["violated", "data.y"]) == (1, 0)
    assert (found["alarm", "worse"], found["alarm", "stream"]) == (1, 0)
    assert (found["check", "data", "violations"], found["check", "data", "passed"]) == (1, 0)
    assert found["window_end_seconds",] == END_S
    assert (found["windows_total",], found["alarmed_windows_total",]) == (1, 1)
    page.told(document(Measurement("data.z", 0.0, 0.5, False, "")))
    found = samples(page.text())
    assert ("value", "data.y") not in found
    assert (found["alarm", "worse"], found["windows_total",], found["alarmed_windows_total",]) == (0, 2, 1)


def test_live_alarms_stand_beside_the_latest_window_until_the_next_one() -> None:
    page = page_()
    page.told(document(Measurement("data.y", 0.1, 0.5, False, "")))
    page.stands(LiveStatus(300, 20, {HOSTILE: 0.5}))
    page.told(document(Measurement("live.reward", -1.0, None, True, ""), checks=(), alarm="stream"))
    found = samples(page.text())
    assert (found["value", "data.y"], found["value", "live.reward"], found["alarm", "stream"]) == (0.1, -1.0, 1)
    assert (found["live_decisions_total",], found["live_rewards_total",]) == (300, 20)
    assert (found["live_share", HOSTILE], found["windows_total",]) == (0.5, 1)
    page.told(document(Measurement("data.y", 0.2, 0.5, False, "")))
    found = samples(page.text())
    assert ("value", "live.reward") not in found
    assert (found["alarm", "stream"], found["windows_total",]) == (0, 2)


@pytest.fixture
def url() -> Iterator[str]:
    page = page_()
    page.told(document(Measurement("data.y", 0.1, 0.5, False, "")))
    with serving(page, host="127.0.0.1", port=0) as found:
        yield found


def asked(url: str, **headers: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", error.read().decode()


def test_the_page_answers_this_machine_under_its_own_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLICYLAB_TOKEN", raising=False)
    status, content_type, text = asked(url)
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert samples(text)["value", "data.y"] == 0.1
    assert asked(url, Host="evil.example")[0] == 401
    assert asked(url.replace("/metrics", "/"))[0] == 404


def test_others_need_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLICYLAB_TOKEN", raising=False)
    with pytest.raises(UserError, match="can be reached from other machines"), serving(page_(), host="0.0.0.0", port=0):
        pass
    monkeypatch.setenv("POLICYLAB_TOKEN", "a-secret-of-some-length")
    with serving(page_(), host="127.0.0.1", port=0) as found:
        assert asked(found)[0] == 401
        assert asked(found, Authorization="Bearer a-secret-of-some-length")[0] == 200


def test_a_schedule_serves_its_latest_window(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "monitor.yaml").write_text(
        json.dumps({"name": "pond", "data": "d", "endpoint": "lake", "checks": [{"kind": "data", "baseline": "b"}]})
    )
    windows = tmp_path / "monitored" / "windows"
    windows.mkdir(parents=True)
    found = document(Measurement("data.y", 0.1, 0.5, False, ""))
    (windows / "20260131T140000Z--20260131T150000Z.json").write_text(json.dumps(found))
    assert main(["monitor", "schedule", str(tmp_path / "monitor.yaml"), "--once", "--metrics-port", "0"]) == 2
    assert "--once ends before anybody could scrape --metrics-port" in capsys.readouterr().err
    command = [sys.executable, "-m", "policylab", "monitor", "schedule", "monitor.yaml", "--metrics-port=0", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POLICYLAB_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], 30.0)[0]
            page = json.loads(process.stdout.readline())["metrics"]
            assert samples(asked(page)[2])["value", "data.y"] == 0.1
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30.0) == 0
