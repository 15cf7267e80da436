"""Windows are checked once each whatever happens, live traffic alarms soon, and baselines are renewed without loss."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policylab.agents import Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import AutoFeatures
from policylab.cli import main
from policylab.deployment.capture.format import (
    CAPTURED_PARQUET,
    EpisodeEnd,
    Reward,
    captured_line,
    hour_folder,
    reward_line,
)
from policylab.deployment.capture.parquet import ParquetFiles
from policylab.errors import ConfigError, UserError
from policylab.monitoring.outcomes.joined import read_outcomes
from policylab.monitoring.outcomes.measures import measure
from policylab.monitoring.profiles.profile import profile_of
from policylab.monitoring.schedule import live as live_module
from policylab.monitoring.schedule import scheduler
from policylab.monitoring.schedule.baselines import write_data_baseline, write_quality_baseline
from policylab.monitoring.schedule.cron import Cron
from policylab.monitoring.schedule.demo import demo
from policylab.monitoring.schedule.live import LiveWatch
from policylab.monitoring.schedule.monitor_file import load_monitor
from policylab.monitoring.schedule.scheduler import run_schedule
from policylab.monitoring.schedule.summary import html, read_windows
from policylab.monitoring.schedule.tail import Tail
from policylab.monitoring.schedule.watch import LiveStatus, watch_live

START = datetime(2026, 1, 31, 16, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 * * * *", "2026-01-31T16:00", "2026-01-31T17:00"),
        ("cron(0 * ? * * *)", "2026-01-31T16:59", "2026-01-31T17:00"),
        ("cron(0 17 ? * * *)", "2026-01-31T17:00", "2026-02-01T17:00"),
        ("cron(0 5/6 ? * * *)", "2026-01-31T12:00", "2026-01-31T17:00"),
        ("cron(0 9 ? * 2-6 *)", "2026-01-31T00:00", "2026-02-02T09:00"),  # 31 January 2026 is a Saturday
        ("30 9 * * mon", "2026-01-31T00:00", "2026-02-02T09:30"),
        ("*/20 22-23 * * *", "2026-01-31T22:41", "2026-01-31T23:00"),
        ("0 0 29 2 *", "2026-01-31T00:00", "2028-02-29T00:00"),
        ("0 0 13 * 5", "2026-02-01T00:00", "2026-02-06T00:00"),  # crontab: the 13th or a Friday
        ("0 0 * * 7", "2026-01-31T00:00", "2026-02-01T00:00"),
    ],
)
def test_moments_of_cron_expressions(expression: str, after: str, expected: str) -> None:
    assert Cron.parse(expression).after(utc(after)) == utc(expected)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),
    st.sampled_from(["*/7 3-5 * * *", "0 1 1 * 1", "5 * * * *"]),
)
def test_after_and_before_are_neighbours(moment: datetime, expression: str) -> None:
    cron, moment = Cron.parse(expression), moment.replace(tzinfo=UTC)
    after, before = cron.after(moment), cron.before(moment)
    assert before <= moment < after
    assert cron.before(after) == after
    assert cron.after(before) == after


@pytest.mark.parametrize("wrong", ["", "0 * * *", "60 * * * *", "0 0 30 2 *", "a * * * *", "5-1 * * * *", "*/0 * * * *",
                                   "cron(0 * ? * * 2026)", "0 0 0 * *"])  # fmt: skip
def test_what_is_no_schedule_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match="schedule"):
        Cron.parse(wrong)


# ------------------------------------------------------------------ the file


@pytest.mark.parametrize(
    ("of", "wrong"),
    [
        ("dta.*", "did you mean 'data.*'"), ("data", "did you mean"), ("data.observatoin_0", "'data.observation_0'"),
        ("quality.retrun_mean", "did you mean 'quality.return_mean'"), ("causes.reward", "there are data.*, quality.*"),
        ("quality.return_mean.*", "no measurement is called"), ("", "no measurement is called ''"),
    ],
)  # fmt: skip
def test_an_alarm_of_what_nobody_measures_is_refused(monitor: Path, of: str, wrong: str) -> None:
    checks = [{"kind": kind, "baseline": "base"} for kind in ("data", "quality")]
    configure(monitor, checks=checks, alarms=[{"name": "any"}, {"name": "never", "of": of}])
    with pytest.raises(ConfigError, match=r"monitor\.yaml:1:\d+: alarms\.1\.of: no measurement is called") as caught:
        load_monitor(monitor)
    assert wrong in str(caught.value)


@pytest.mark.parametrize(
    "of",
    ["*", "*.failed", "data.*", "data.observation_?", "data.new.extra_column_check", "*_mean", "live.propensity",
     "data.observation_0.completeness_check", "quality.[rt]*", "data.correlation", "l*"],
)  # fmt: skip
def test_an_alarm_may_ask_for_what_may_be_measured(monitor: Path, of: str) -> None:
    checks = [{"kind": kind, "baseline": "base"} for kind in ("data", "quality")]
    configure(monitor, checks=checks, alarms=[{"name": "some", "of": of}])
    assert load_monitor(monitor).alarms[0].of == of


@pytest.mark.parametrize(
    ("of", "refused"),
    [("bias.*", True), ("*.failed", True), ("live.*", True), ("*", False), ("data.*", False), ("b*", True)],
)
@pytest.mark.parametrize("kind", ["run_length", "false_discovery"])
def test_a_threshold_of_chance_needs_measurements_that_tell(monitor: Path, of: str, refused: bool, kind: str) -> None:
    checks = [{"kind": "data", "baseline": "base"},
              {"kind": "bias", "baseline": "fair", "facet": "obs>0", "label": "return>0"}]  # fmt: skip
    configure(monitor, policy="bundle", checks=checks,
              alarms=[{"name": "some", "of": of, "threshold": {"kind": kind}}])  # fmt: skip
    if not refused:
        assert load_monitor(monitor).alarms[0].of == of
        return
    with pytest.raises(ConfigError, match=rf"alarms\.0\.threshold: {kind} needs to know how often chance does as much"):
        load_monitor(monitor)


def test_two_rates_of_a_data_check_are_one_mistake(monitor: Path) -> None:
    rates = {"false_alarm_rate": 0.01, "false_discovery_rate": 0.05}
    configure(monitor, checks=[{"kind": "data", "baseline": "base", **rates}])
    with pytest.raises(ConfigError, match=r"checks\.0: a check keeps a false_alarm_rate or a false_dis"):
        load_monitor(monitor)


def test_one_look_at_a_schedule_says_what_it_could_not_do(monitor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "schedule", str(monitor), "--once"]) == 2
    assert "data does not exist: nothing was captured there; name the capture folder" in capsys.readouterr().err
    (monitor.parent / "data").mkdir()
    assert main(["monitor", "schedule", str(monitor), "--once"]) == 0
    assert "no window is due: each that ended since the schedule first ran" in capsys.readouterr().err


# ------------------------------------------------------------------ windows


def traffic(folder: Path, hours: int, *, shifted: tuple[int, ...] = (), n: int = 120, first: int = 0) -> None:
    """Write hours of traffic of one column, higher in some of them."""
    for hour in range(first, first + hours):
        rng = np.random.default_rng(100 + hour)
        decisions, rewards = [], []
        for i in range(n):
            time_s = (START + timedelta(hours=hour, seconds=3600 * i / n)).timestamp()
            facts = {
                "endpoint": "lake", "variant": "a", "policy_version": "0" * 64, "variant_probability": 1.0,
                "assignment": "random", "source": "policy", "exploration": True, "propensity": 0.5,
                "log_propensity": -0.693, "propensity_kind": "probability", "sampling_probability": 1.0,
            }  # fmt: skip
            value = float(rng.normal(3.0 if hour in shifted else 0.0))
            decisions.append(captured_line(decision_id=f"d{hour}-{i}", inference_id=None, time_s=time_s,
                                           observation=[value], action=0, facts=facts))  # fmt: skip
            rewards.append(reward_line(f"d{hour}-{i}", reward=float(rng.normal(-value))))
        for place, lines in (("captured/lake/a", decisions), ("ground-truth/lake", rewards)):
            path = folder / place / hour_folder((START + timedelta(hours=hour)).timestamp()) / "1.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def monitor(tmp_path: Path) -> Path:
    """A monitor of the column, whose baseline is ten hours of traffic."""
    traffic(tmp_path / "then", 10, first=-20)
    write_data_baseline(tmp_path / "base", profile_of([tmp_path / "then"]))
    path = tmp_path / "monitor.yaml"
    path.write_text(json.dumps({
        "name": "pond", "data": "data", "out": "out", "checks": [{"kind": "data", "baseline": "base"}],
        "alarms": [{"name": "drift", "of": "data.*"}], "targets": [{"kind": "file", "path": "alarms.jsonl"}],
    }))  # fmt: skip
    return path


def run(path: Path, at: datetime) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    run_schedule(load_monitor(path), told=told.append, once=True, now=lambda: at)
    return told


def test_every_window_is_checked_once(monitor: Path) -> None:
    assert run(monitor, START + timedelta(minutes=1)) == []  # begins here
    traffic(monitor.parent / "data", 5, shifted=(2, 3))
    first = run(monitor, START + timedelta(hours=3, minutes=1))
    assert [one["start_utc"][11:13] for one in first] == ["16", "17", "18"]
    assert [bool(one["alarms"]) for one in first] == [False, False, True]
    again = run(monitor, START + timedelta(hours=6, minutes=1))
    assert [one["start_utc"][11:13] for one in again] == ["19", "20", "21"]
    assert [[alarm["begins"] for alarm in one["alarms"]] for one in again] == [[False], [], []]
    assert again[2]["checks"][0]["status"] == "no data"
    assert run(monitor, START + timedelta(hours=6, minutes=2)) == []
    assert run(monitor, START + timedelta(hours=2)) == []  # a clock that was set back repeats nothing
    assert len((monitor.parent / "alarms.jsonl").read_text().splitlines()) == 2


def test_a_kill_within_a_window_loses_nothing(monitor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 3, shifted=(1,))
    with monkeypatch.context() as patched:
        calls = []

        def killed(*arguments: Any, **_: Any) -> None:
            calls.append(arguments)
            raise KeyboardInterrupt("killed")

        patched.setattr(scheduler, "dispatch", killed)
        with pytest.raises(KeyboardInterrupt, match="killed"):
            run(monitor, START + timedelta(hours=3, minutes=1))
    found = run(monitor, START + timedelta(hours=3, minutes=1))
    assert [bool(one["alarms"]) for one in found] == [False, True, False]
    assert len(calls) == 1


def test_a_damaged_line_fails_its_check_by_name_and_no_other_window(monitor: Path) -> None:
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 3)
    file = next((monitor.parent / "data/captured/lake/a/2026/01/31/17").glob("*.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], lines[3][:50] + b"\n", *lines[4:], lines[5][:20]]))
    found = run(monitor, START + timedelta(hours=3, minutes=1))
    assert [one["checks"][0]["status"] for one in found] == ["passed", "failed", "passed"]
    assert f"{file}:4: not a line of the capture format" in found[1]["checks"][0]["text"]
    assert [one["alarms"][0]["alarm"] for one in found[1:2]] == ["drift"]


def test_a_damaged_line_is_of_the_minutes_around_it(monitor: Path) -> None:
    configure(monitor, schedule="*/20 * * * *")
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 1)
    file = next((monitor.parent / "data/captured/lake/a/2026/01/31/16").glob("*.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:60], b"[" * 100_000 + b"\n", *lines[60:]]))  # half past
    found = run(monitor, START + timedelta(hours=1, minutes=1))
    assert [one["checks"][0]["status"] for one in found] == ["passed", "failed", "passed"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda line: line[:50], ["failed", "failed", "passed"]),  # whose reward it is cannot be read
        (lambda line: line.replace(b'"data": "', b'"data": "?'), ["passed", "failed", "passed"]),
    ],
)
def test_a_damaged_reward_fails_the_windows_it_may_be_of(
    monitor: Path, damage: Callable[[bytes], bytes], expected: list[str]
) -> None:
    quality(monitor)
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 3)
    file = next((monitor.parent / "data/ground-truth/lake/2026/01/31/17").glob("*.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:3], damage(lines[3]).rstrip() + b"\n", *lines[4:]]))
    found = run(monitor, START + timedelta(hours=3, minutes=1))
    assert [one["checks"][0]["status"] for one in found] == expected
    assert f"{file}:4: not a reward line" in found[1]["checks"][0]["text"]


def test_windows_that_others_wrote_are_one_clear_error(monitor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 1)
    run(monitor, START + timedelta(hours=1, minutes=1))
    (path,) = (monitor.parent / "out/windows").glob("*.json")
    for content in ("{", "[]", "{}", '{"alarms": 3}'):
        path.write_text(content)
        assert main(["monitor", "report", str(monitor)]) == 2
        error = capsys.readouterr().err
        assert str(path) in error
        assert "Traceback" not in error


# ------------------------------------------------------------------ episodes


def episodes(
    folder: Path,
    spans: dict[str, tuple[float, float]],
    *,
    counted: bool = True,
    parquet: bool = False,
    ended: Collection[str] = (),
) -> None:
    """Write episodes of a decision a minute, by their first and last minute; each decision earns 1.

    The ends of those in ``ended`` are told.
    """
    line_files: dict[Path, list[str]] = {}
    rows = ParquetFiles(folder / CAPTURED_PARQUET / "lake")
    for name, (first, last) in spans.items():
        for step in range(int(last - first) + 1):
            moment = START + timedelta(minutes=first + step)
            facts = {
                "endpoint": "lake", "variant": "a", "policy_version": "0" * 64, "variant_probability": 1.0,
                "assignment": "random", "source": "policy", "exploration": True, "propensity": 0.5,
                "log_propensity": -0.693, "propensity_kind": "probability", "sampling_probability": 1.0,
                "episode": name, "step": step if counted else None, "shadows": [], "n_dropped": 0,
            }  # fmt: skip
            line = captured_line(decision_id=f"{name}-{step}", inference_id=None, time_s=moment.timestamp(),
                                 observation=[0.5], action=0, facts=facts)  # fmt: skip
            hour = hour_folder(moment.timestamp())
            if parquet:
                rows.add(line, time_s=moment.timestamp())
            else:
                line_files.setdefault(folder / "captured/lake/a" / hour / "1.jsonl", []).append(json.dumps(line))
            end = EpisodeEnd(terminated=True) if name in ended and step == int(last - first) else None
            reward = json.dumps(reward_line(f"{name}-{step}", reward=1.0, end=end))
            line_files.setdefault(folder / "ground-truth/lake" / hour / "1.jsonl", []).append(reward)
    rows.flush(last=True)
    for path, lines in line_files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines))


def configure(monitor: Path, **settings: Any) -> None:
    monitor.write_text(json.dumps({**json.loads(monitor.read_text()), **settings}))


def quality(monitor: Path, **settings: Any) -> None:
    """Make it a monitor of what is earned."""
    good = measure(read_outcomes(monitor.parent / "then"))
    write_quality_baseline(monitor.parent / "good", good)
    configure(monitor, checks=[{"kind": "quality", "baseline": "good", **settings}], alarms=[])


def returns(window: dict[str, Any]) -> float:
    return float(window["checks"][0]["result"]["metrics"]["return_mean"]["value"])


SPANS = {"a": (10, 30), "b": (50, 75), "c": (65, 70), "d": (110, 130)}
"""Minutes: `b` and `d` go over the hour."""


@pytest.mark.parametrize(("counted", "parquet"), [(True, False), (False, False), (True, True)])
def test_an_episode_is_whole_in_the_window_in_which_it_began(monitor: Path, *, counted: bool, parquet: bool) -> None:
    quality(monitor, late="PT1H")
    run(monitor, START + timedelta(hours=1, minutes=1))
    episodes(monitor.parent / "data", SPANS, counted=counted, parquet=parquet)
    found = run(monitor, START + timedelta(hours=4, minutes=1))
    assert [one["checks"][0]["result"].get("n_episodes", 0) for one in found] == [2, 2, 0]
    assert [returns(one) for one in found[:2]] == [(21 + 26) / 2, (6 + 21) / 2]
    assert all("left out" not in one["checks"][0]["text"] for one in found)


def test_an_episode_that_goes_on_is_left_out_and_told(monitor: Path) -> None:
    quality(monitor)
    run(monitor, START + timedelta(minutes=1))
    episodes(monitor.parent / "data", SPANS)
    first, second, third = run(monitor, START + timedelta(hours=3, minutes=1))
    assert (returns(first), returns(second)) == (21, 6)
    assert "left out: 1 episode that still went on; raise `late`" in first["checks"][0]["text"]
    assert third["checks"][0]["status"] == "no data"


def test_an_episode_whose_end_is_not_told_goes_on_where_others_tell_it(monitor: Path) -> None:
    quality(monitor)
    run(monitor, START + timedelta(minutes=1))
    episodes(monitor.parent / "data", {"a": (10, 30), "b": (20, 25)}, ended=("a",))
    (found,) = run(monitor, START + timedelta(hours=1, minutes=1))
    assert returns(found) == 21
    assert "left out: 1 episode whose end nobody has reported; raise `late`" in found["checks"][0]["text"]


def test_decisions_of_parquet_are_checked(monitor: Path) -> None:
    run(monitor, START + timedelta(minutes=1))
    episodes(monitor.parent / "data", {"a": (0, 50)}, parquet=True)
    (found,) = run(monitor, START + timedelta(hours=1, minutes=1))
    assert found["checks"][0]["result"]["n_window"] == 51
    profile = profile_of([monitor.parent / "data"])
    assert list(profile.columns) == ["observation_0", "action", "propensity"]
    assert profile.n_rows == 51


# ------------------------------------------------------------------ copies


def test_a_copied_file_of_decisions_counts_once(monitor: Path) -> None:
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 1)
    file = next((monitor.parent / "data/captured").rglob("*.jsonl"))
    (file.parent / "1 (copy).jsonl").write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:40]))
    (found,) = run(monitor, START + timedelta(hours=1, minutes=1))
    assert found["checks"][0]["result"]["n_window"] == 120
    assert profile_of([monitor.parent / "data"]).n_rows == 120


def test_different_decisions_of_one_id_are_an_error(monitor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traffic(monitor.parent / "data", 1)
    file = next((monitor.parent / "data/captured").rglob("*.jsonl"))
    other = json.loads(file.read_text().splitlines()[0])
    other["captureData"]["endpointOutput"]["data"] = "1"
    (file.parent / "2.jsonl").write_text(json.dumps(other) + "\n")
    data, base = str(monitor.parent / "data"), str(monitor.parent / "base")
    for command in (["check", data, "--baseline", base, "--out", base], ["quality", data, "--out", base]):
        assert main(["monitor", *command]) == 2
        assert "'d0-0' was captured twice with different contents" in capsys.readouterr().err


def test_a_copied_file_of_rewards_is_an_error(monitor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traffic(monitor.parent / "data", 1)
    file = next((monitor.parent / "data/ground-truth").rglob("*.jsonl"))
    (file.parent / "2.jsonl").write_bytes(file.read_bytes())
    assert main(["monitor", "quality", str(monitor.parent / "data"), "--out", str(monitor.parent / "o")]) == 2
    assert "is a copy of 1.jsonl, so that its rewards would count twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content", ["[]", '{"policy_metrics": 3}', '{"policy_metrics": {"reward_mean": 3}}', "{",
                '{"policy_metrics": {"reward_mean": {"value": "x", "standard_deviation": 1.0}}}']
)  # fmt: skip
def test_a_damaged_baseline_of_quality_is_one_clear_error(
    monitor: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quality(monitor)
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 1)
    path = monitor.parent / "good/statistics.json"
    path.write_text(content)
    data, good = str(monitor.parent / "data"), str(monitor.parent / "good")
    assert main(["monitor", "quality", data, "--baseline", good, "--out", str(monitor.parent / "o")]) == 2
    assert "good/statistics.json" in capsys.readouterr().err
    (found,) = run(monitor, START + timedelta(hours=1, minutes=1))
    assert found["checks"][0]["status"] == "failed"
    assert "good/statistics.json" in found["checks"][0]["text"]


def test_decisions_are_of_the_window_of_their_time_whatever_file_holds_them(monitor: Path) -> None:
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 2)
    hours = monitor.parent / "data/captured/lake/a/2026/01/31"
    early = hours / "16/1.jsonl"
    lines = early.read_bytes().splitlines(keepends=True)
    early.write_bytes(b"".join(reversed(lines[:100])))
    (hours / "17/0.jsonl").write_bytes(b"".join(lines[100:]))  # of a clock that is an hour ahead
    found = run(monitor, START + timedelta(hours=2, minutes=1))
    assert [one["checks"][0]["result"]["n_window"] for one in found] == [120, 120]


def test_a_torn_last_line_is_left_out(monitor: Path) -> None:
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 1)
    file = next((monitor.parent / "data/captured/lake/a").rglob("*.jsonl"))
    file.write_bytes(file.read_bytes()[:-10])
    (found,) = run(monitor, START + timedelta(hours=1, minutes=1))
    assert found["checks"][0]["result"]["n_window"] == 119


def test_mistakes_in_the_file_are_told_with_their_place(monitor: Path) -> None:
    text = monitor.read_text()
    monitor.write_text(text.replace('"targets"', '"tragets"'))
    with pytest.raises(ConfigError, match=r"monitor.yaml:1:\d+: tragets: unknown key; did you mean 'targets'"):
        load_monitor(monitor)
    monitor.write_text(text.replace('"name": "pond"', '"name": "pond", "schedule": "0 25 * * *"'))
    with pytest.raises(ConfigError, match=r"monitor.yaml:1:\d+: schedule: .*no field of a schedule"):
        load_monitor(monitor)


def test_the_page_escapes_what_data_may_hold(monitor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(monitor, START + timedelta(minutes=1))
    traffic(monitor.parent / "data", 4, shifted=(1,))
    run(monitor, START + timedelta(hours=4, minutes=1))
    assert main(["monitor", "report", str(monitor), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["with_alarm"] == 1
    windows = read_windows(monitor.parent / "out")
    windows[1]["alarms"][0]["text"] = windows[1]["measurements"][0]["name"] = windows[0]["monitor"] = HOSTILE
    page = html(windows)
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "<polyline" in page


# ------------------------------------------------------------------ live


def test_a_tail_reads_each_whole_line_once(tmp_path: Path) -> None:
    traffic(tmp_path, 1)
    tail = Tail(tmp_path, endpoint="lake")
    assert list(tail.decisions()) == []
    file = next((tmp_path / "captured").rglob("*.jsonl"))
    line = file.read_bytes().splitlines(keepends=True)[0]
    with file.open("ab") as content:
        content.write(line + line[:30])
    assert len(list(tail.decisions())) == 1
    with file.open("ab") as content:
        content.write(line[30:])
    assert len(list(tail.decisions())) == 1
    traffic(tmp_path, 1, first=1)
    assert (len(list(tail.decisions())), len(list(tail.rewards()))) == (120, 120)


def test_a_tail_reads_each_parquet_file_once_in_the_order_of_time(tmp_path: Path) -> None:
    episodes(tmp_path, {"a": (0, 5)}, parquet=True)
    tail = Tail(tmp_path, endpoint="lake")
    assert list(tail.decisions()) == []
    episodes(tmp_path, {"b": (50, 75)}, parquet=True)  # files of two hours
    found = [one.time_utc for one in tail.decisions()]
    assert len(found) == 26
    assert found == sorted(found)
    assert list(tail.decisions()) == []
    damaged = next((tmp_path / CAPTURED_PARQUET).rglob("*.parquet")).with_name("x.parquet")
    damaged.write_bytes(b"PAR1")
    assert list(tail.decisions()) == []
    assert [str(damaged) in one for one in tail.damage] == [True]
    assert list(tail.decisions()) == []
    assert len(tail.damage) == 1


def test_live_detectors_alarm_on_a_shift_alone(tmp_path: Path) -> None:
    traffic(tmp_path / "then", 5)
    live = LiveWatch(tmp_path / "then", endpoint="lake", bundle=None)
    assert set(live.detectors) == {"reward"}  # the propensity never varies
    traffic(tmp_path / "now", 6, first=10, shifted=(15,))
    tail = Tail(tmp_path / "now", endpoint="lake", from_end=False)
    rewards = list(tail.rewards())
    assert not any(live.rewarded(one) for one in rewards)  # they wait for their decisions
    found = [(decision.time_utc, alarm) for decision in tail.decisions() for alarm in live.decided(decision)]
    assert [alarm.name for _, alarm in found] == ["live.reward"]
    shift = START + timedelta(hours=15)
    assert shift <= found[0][0] < shift + timedelta(minutes=10)
    assert live.change_utc is not None
    assert abs(live.change_utc - shift) < timedelta(minutes=15)  # the sum grows a little by chance, too


def test_the_baseline_of_a_live_watch_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic(tmp_path / "then", 6, shifted=(0, 1, 2))
    monkeypatch.setattr(live_module, "LATEST", 240)
    live = LiveWatch(tmp_path / "then", endpoint="lake", bundle=None)
    assert abs(live.detectors["reward"].usual) < 0.5  # of the last two hours; the shifted ones had a mean of -3


def test_a_copied_decision_and_strange_rewards_move_no_detector(tmp_path: Path) -> None:
    traffic(tmp_path / "then", 5)
    live = LiveWatch(tmp_path / "then", endpoint="lake", bundle=None)
    (decision, *_) = Tail(tmp_path / "then", endpoint="lake", from_end=False).decisions()
    live.rewarded(Reward(decision.decision_id, 1.0))
    for value in (float("nan"), float("inf"), -1e200):
        live.rewarded(Reward(decision.decision_id, value))
    for _ in range(3):
        live.decided(decision)
    assert live.detectors["reward"].n == 1


def test_a_damaged_line_is_told_and_the_watch_goes_on(monitor: Path) -> None:
    env = gym.make("FrozenLake-v1")
    policy = TabularPolicy(np.zeros((16, 4)), make_encoder(AutoFeatures(), env.observation_space))
    write_bundle(monitor.parent / "bundle", policy, env=env, lineage=Lineage(), metrics={})
    data = monitor.parent / "data"
    traffic(data, 1)
    configure(monitor, policy="bundle", checks=[{"kind": "causes", "baseline": "then"}],
              alarms=[{"name": "any", "of": "live.*"}])  # fmt: skip
    told: list[dict[str, Any]] = []
    stop = threading.Event()
    seen: list[int] = []

    def ready() -> None:
        traffic(data, 1, first=1)
        file = next((data / "captured/lake/a/2026/01/31/17").glob("*.jsonl"))
        file.write_bytes(b"{\n" + file.read_bytes())

    def status(one: LiveStatus) -> None:
        seen.append(one.n_decisions)
        if one.n_decisions == 120 or len(seen) > 1_000:
            stop.set()

    watch_live(load_monitor(monitor), stop=stop, alarmed=told.append, status=status, ready=ready)
    assert seen[-1] == 120
    assert "1.jsonl: not a line of the capture format" in told[0]["alarms"][0]["text"]


def test_a_live_watch_without_traffic_to_compare_is_refused(monitor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", "watch", str(monitor), "--seconds", "1"]) == 2
    assert "needs a check {kind: causes}" in capsys.readouterr().err


def test_refreshing_keeps_the_old_baseline(monitor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = monitor.parent / "base"
    before = (base / "constraints.json").read_bytes()
    traffic(monitor.parent / "new", 2, shifted=(0, 1))
    assert main(["monitor", "refresh", str(base), str(monitor.parent / "new"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert Path(found["kept"]) == base / "previous" / "0001"
    assert (base / "previous" / "0001" / "constraints.json").read_bytes() == before
    change = next(one for one in found["changes"] if one["name"].startswith("observation"))
    assert change["distance"] > 0.8
    assert main(["monitor", "check", str(monitor.parent / "new"), "--baseline", str(base),
                 "--out", str(monitor.parent / "o")]) == 0  # fmt: skip


@pytest.mark.slow
def test_the_demo_detects_names_the_cause_and_rolls_back(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    found = demo(tmp_path)
    assert found.causes == ("transition",)
    assert found.return_shifted < 0.3 < found.return_after < found.return_before
    page = found.report.read_text()
    assert "the environment reacts differently" in page
    assert "whose end nobody has reported" not in page  # the player reports every end
    assert set(threading.enumerate()) <= before, "it leaves no thread"
