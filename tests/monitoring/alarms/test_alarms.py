"""Alarms are raised when they should be, and everyone who is to hear of them does, on real servers."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from policylab.errors import RunError
from policylab.monitoring.alarms.actions import Retrain
from policylab.monitoring.alarms.alarm import Alarm, Verdict
from policylab.monitoring.alarms.cloudwatch import CloudWatch
from policylab.monitoring.alarms.dispatch import AlarmSettings, dispatch, raised
from policylab.monitoring.alarms.exposition import exposition
from policylab.monitoring.alarms.measurement import Measurement
from policylab.monitoring.alarms.mlflow_tags import MlflowTags
from policylab.monitoring.alarms.targets import AlarmFile, PrometheusFile, Terminal
from policylab.monitoring.alarms.thresholds import FalseDiscovery, Fixed, RunLength
from policylab.monitoring.alarms.webhook import Webhook

HOSTILE = 'x"\n\\<script>'


def measurement(name: str = "data.x", value: float = 0.5, p: float | None = 0.5, violated: bool = False) -> Measurement:
    return Measurement(name, value, p, violated, "detail")


def verdict(*alarms: Alarm, measured: tuple[Measurement, ...] = ()) -> Verdict:
    start, end = "2026-01-31T16:00:00+00:00", "2026-01-31T17:00:00+00:00"
    return Verdict("pond", "lake", start, end, measured, alarms)


def test_fixed_thresholds_have_two_sides() -> None:
    values = [measurement(value=value) for value in (0.0, 0.5, 1.0, float("nan"))]
    found = Fixed(kind="fixed", above=0.9, below=0.1).exceeded(values)
    assert [one.value for one in found] == [0.0, 1.0]
    with pytest.raises(ValidationError, match="needs above or below"):
        Fixed(kind="fixed")


def test_a_run_length_is_kept_over_all_features() -> None:
    rng, threshold = np.random.default_rng(0), RunLength(kind="run_length", windows=50)
    n_alarms = sum(bool(threshold.exceeded([measurement(p=float(p)) for p in rng.random(20)])) for _ in range(5_000))
    # 5,000 windows at 1 / 50 each: 100 ± 4 standard deviations.
    assert 60 <= n_alarms <= 140


def test_false_discoveries_are_a_share_of_the_alarms() -> None:
    measured = [measurement(f"data.{i}", p=p) for i, p in enumerate([1e-6, 2e-6, 0.04, 0.3, 0.9])]
    found = FalseDiscovery(kind="false_discovery", rate=0.05).exceeded(measured)
    assert [one.name for one in found] == ["data.0", "data.1"]  # 0.04 alone would pass an uncorrected 5 %
    assert not FalseDiscovery(kind="false_discovery", least=0.6).exceeded(measured)
    assert not FalseDiscovery(kind="false_discovery").exceeded([measurement(p=None)])


def test_an_alarm_begins_once_while_it_lasts() -> None:
    settings = [AlarmSettings(name="a", of="data.*"), AlarmSettings(name="b", of="quality.*")]
    measured = [measurement(violated=True), measurement("quality.regret")]
    (first,) = raised(settings, measured)
    (second,) = raised(settings, measured, before={"a"})
    assert (first.name, first.begins, second.begins) == ("a", True, False)


def test_an_alarm_in_a_file_and_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alarm = Alarm("a", (measurement(HOSTILE, value=float("inf"), violated=True),))
    AlarmFile(kind="file", path=tmp_path / "deep" / "a.jsonl").tell(verdict(alarm))
    (line,) = (tmp_path / "deep" / "a.jsonl").read_text().splitlines()
    assert json.loads(line)["measurements"][0]["value"] is None
    Terminal(kind="terminal").tell(verdict(alarm))
    assert capsys.readouterr().err.count("\n") == 1


def test_prometheus_text_escapes_names(tmp_path: Path) -> None:
    measured = (measurement(HOSTILE, value=float("inf"), violated=True), measurement("n", value=float("nan")))
    PrometheusFile(kind="prometheus", path=tmp_path / "a.prom").tell(verdict(Alarm("a", measured), measured=measured))
    text = (tmp_path / "a.prom").read_text()
    assert text == exposition([verdict(Alarm("a", measured), measured=measured)])
    assert r'policylab_monitor_value{monitor="pond",endpoint="lake",name="x\"\n\\<script>"} Inf' in text
    assert 'policylab_monitor_alarm{monitor="pond",endpoint="lake",alarm="a"} 1' in text
    assert all(line.startswith(("#", "policylab_monitor_")) for line in text.splitlines())


@pytest.fixture
def web() -> Iterator[tuple[str, list[Any]]]:
    """A server that fails the first request with 503."""
    taken: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append((self.headers["authorization"], json.loads(body)))
            self.send_response(503 if len(taken) == 1 else 400 if self.path == "/no" else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_webhook_is_tried_again(web: tuple[str, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, taken = web
    monkeypatch.setenv("HOOK", "secret")
    hook = Webhook(kind="webhook", url=f"{url}/hook", token_env="HOOK")
    hook.tell(verdict(Alarm("a", (measurement(),))))
    assert len(taken) == 2
    assert taken[1][0] == "Bearer secret"
    assert (taken[1][1]["alarm"], taken[1][1]["endpoint"]) == ("a", "lake")
    with pytest.raises(RunError, match=r"^the webhook at 127.0.0.1:\d+ answers 400$"):
        Webhook(kind="webhook", url=f"{url}/no").tell(verdict(Alarm("a", (measurement(),))))
    with pytest.raises(ValidationError, match="http or https"):
        Webhook(kind="webhook", url="file:///etc/passwd")


def test_what_fails_stops_nothing_else(tmp_path: Path) -> None:
    alarms = [AlarmSettings.model_validate({
        "name": "a", "actions": [{"kind": "rollback", "url": "http://127.0.0.1:9", "endpoint": "lake"}],
    })]  # fmt: skip
    targets = [
        Webhook(kind="webhook", url="http://127.0.0.1:9/secret", timeout_s=1.0),
        AlarmFile(kind="file", path=tmp_path / "a.jsonl"),
    ]
    done = dispatch(verdict(Alarm("a", (measurement(),))), alarms=alarms, targets=targets)
    assert [(one.what, one.ok) for one in done] == [("a: rollback", False), ("webhook", False), ("file", True)]
    assert "secret" not in done[1].text
    lasting = dispatch(verdict(Alarm("a", (measurement(),), begins=False)), alarms=alarms, targets=targets[1:])
    assert [one.what for one in lasting] == ["file"]


def test_cloudwatch_has_metrics_and_alarms(aws: str) -> None:
    boto3 = pytest.importorskip("boto3")
    target = CloudWatch.model_validate({"kind": "cloudwatch", "namespace": "pond", "alarm_actions": []})
    measured = (measurement("data.x", 0.25), measurement("quality.return_mean", -1.5), measurement("n", float("inf")))
    target.tell(verdict(Alarm("drift", measured[:1]), measured=measured), names=["drift", "other"])
    client = boto3.client("cloudwatch")
    metrics = client.list_metrics(Namespace="pond")["Metrics"]
    assert {metric["MetricName"] for metric in metrics} == {
        "feature_baseline_drift_x", "quality.return_mean", "alarm.drift", "alarm.other",
    }  # fmt: skip
    assert {d["Name"]: d["Value"] for d in metrics[0]["Dimensions"]} == {
        "Endpoint": "lake", "MonitoringSchedule": "pond",
    }  # fmt: skip
    alarms = client.describe_alarms()["MetricAlarms"]
    assert {alarm["AlarmName"] for alarm in alarms} == {"pond-drift", "pond-other"}


@pytest.mark.filterwarnings("ignore")  # of MLflow's own libraries
def test_mlflow_tags_a_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri, uri)
    run_id = client.create_run("0").info.run_id
    target = MlflowTags(kind="mlflow", uri=uri, run_id=run_id)
    target.tell(verdict(Alarm("a", (measurement(),))))
    assert client.get_run(run_id).data.tags["policylab.monitor.pond"] == "a: data.x (detail)"
    target.tell(verdict())
    assert client.get_run(run_id).data.tags["policylab.monitor.pond"] == "no alarm"
    with pytest.raises(RunError, match="MLflow did not take the tags"):
        MlflowTags(kind="mlflow", uri=uri, run_id="0" * 32).tell(verdict())
    with pytest.raises(ValidationError, match="either a run_id"):
        MlflowTags(kind="mlflow", model="m")


def test_retraining_learns_from_the_last_study(tmp_path: Path) -> None:
    command = Retrain(
        kind="retrain", config=tmp_path / "a.yaml", out=tmp_path, warm_start=tmp_path / "runs/1"
    ).command()
    assert command[2:] == [
        "policylab", "tune", str(tmp_path / "a.yaml"), "--out", str(tmp_path),
        "--set", f"search.warm_start.parents=['{tmp_path / 'runs/1'}']",
    ]  # fmt: skip
    assert Retrain(kind="retrain", config=tmp_path / "a.yaml").command()[3] == "run"
