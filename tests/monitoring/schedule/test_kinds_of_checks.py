"""A monitor file reaches what the commands can do: divergence, attribution, bias, a false-discovery rate."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents import Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import AutoFeatures, BinsFeatures
from policylab.cli import main
from policylab.deployment.capture.format import captured_line, hour_folder, reward_line
from policylab.envs.reward_model import Part, RewardModel
from policylab.errors import ConfigError
from policylab.monitoring.profiles.profile import profile_of
from policylab.monitoring.schedule.baselines import write_data_baseline
from policylab.monitoring.schedule.checks import CheckResult, run_checks
from policylab.monitoring.schedule.monitor_file import load_monitor

START = datetime(2026, 1, 31, 16, tzinfo=UTC)
WORTH = np.linspace(-1.0, 1.0, 16)
"""Reward of each of sixteen states, as the proxy has it."""


def write(folder: Path, observations: list[Any], rewards: list[float]) -> None:
    """Write the decisions of one hour, each an episode of its own, and what they earned."""
    decisions, reported = [], []
    for i, (observation, reward) in enumerate(zip(observations, rewards, strict=True)):
        facts = {
            "endpoint": "lake", "variant": "a", "policy_version": "0" * 64, "variant_probability": 1.0,
            "assignment": "random", "source": "policy", "exploration": True, "propensity": 0.5,
            "log_propensity": -0.693, "propensity_kind": "probability", "sampling_probability": 1.0,
        }  # fmt: skip
        time_s = START.timestamp() + 3600 * i / len(observations)
        decisions.append(captured_line(decision_id=f"d{i}", inference_id=None, time_s=time_s,
                                       observation=observation, action=0, facts=facts))  # fmt: skip
        reported.append(reward_line(f"d{i}", reward=reward))
    for place, lines in (("captured/lake/a", decisions), ("ground-truth/lake", reported)):
        path = folder / place / hour_folder(START.timestamp()) / "1.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def traffic(folder: Path, *, n: int = 400, gamed: bool = False, of: int = 0) -> None:
    """Write decisions whose rewards follow the proxy, or do not."""
    rng = np.random.default_rng(of)
    states = rng.integers(8, 16, n) if gamed else rng.integers(16, size=n)
    worth = np.full(n, -1.0) if gamed else WORTH[states]
    write(folder, states.tolist(), (worth + rng.normal(0.0, 0.5, n)).tolist())


@pytest.fixture
def monitor(tmp_path: Path) -> Path:
    env = gym.make("FrozenLake-v1")
    policy = TabularPolicy(np.zeros((16, 4)), make_encoder(AutoFeatures(), env.observation_space))
    write_bundle(tmp_path / "bundle", policy, env=env, lineage=Lineage(), metrics={})
    arrays = {"mean": np.zeros(16), "scale": np.ones(16), "first": WORTH[None], "offset": np.zeros(1)}
    model = RewardModel((Part(name="observation", size=16, first=0),), {**arrays, "unit": np.ones(1)}, lineage={})
    model.save(tmp_path / "model")
    traffic(tmp_path / "then", of=1)
    return configured(tmp_path / "monitor.yaml", policy="bundle")


def configured(path: Path, **settings: Any) -> Path:
    check = {"kind": "divergence", "proxy": "model", "baseline": "then"}
    path.write_text(json.dumps({"name": "pond", "data": "data", "checks": [check], **settings}))
    return path


def found(monitor: Path) -> CheckResult:
    (one,) = run_checks(load_monitor(monitor), start=START, end=START + timedelta(hours=1))
    return one


def test_a_proxy_that_still_goes_with_the_reward_passes(monitor: Path) -> None:
    traffic(monitor.parent / "data", of=2)
    one = found(monitor)
    assert one.status == "passed"
    (measured,) = one.measurements
    assert (measured.name, measured.violated) == ("divergence.correlation", False)
    assert measured.value == pytest.approx(0.75, abs=0.1)


def test_a_gamed_proxy_is_a_violation(monitor: Path) -> None:
    traffic(monitor.parent / "data", gamed=True, of=2)
    one = found(monitor)
    assert one.status == "violations"
    assert "the proxy rose and the true reward did not" in one.text
    assert one.measurements[0].violated


def test_too_few_episodes_are_no_data(monitor: Path) -> None:
    traffic(monitor.parent / "data", n=10, of=2)
    assert (found(monitor).status, found(monitor).measurements) == ("no data", ())


def test_a_model_of_another_task_fails_the_check_with_its_reason(monitor: Path) -> None:
    arrays = {"mean": np.zeros(2), "scale": np.ones(2), "first": np.ones((1, 2)), "offset": np.zeros(1)}
    model = RewardModel((Part(name="observation", size=2),), {**arrays, "unit": np.ones(1)}, lineage={})
    model.save(monitor.parent / "other")
    configured(monitor, policy="bundle", checks=[{"kind": "divergence", "proxy": "other", "baseline": "then"}])
    traffic(monitor.parent / "data", of=2)
    one = found(monitor)
    assert (one.status, one.measurements[0].name) == ("failed", "divergence.failed")
    assert "the reward model is of other observations" in one.text


def test_next_observations_that_nobody_told_are_not_guessed(monitor: Path) -> None:
    arrays = {"mean": np.zeros(16), "scale": np.ones(16), "first": WORTH[None], "offset": np.zeros(1)}
    parts = (Part(name="next_observation", size=16, first=0),)
    RewardModel(parts, {**arrays, "unit": np.ones(1)}, lineage={}).save(monitor.parent / "other")
    configured(monitor, policy="bundle", checks=[{"kind": "divergence", "proxy": "other", "baseline": "then"}])
    traffic(monitor.parent / "data", of=2)
    assert "let clients report `next_observation` with the last reward" in found(monitor).text


def test_divergence_needs_the_policy(monitor: Path) -> None:
    with pytest.raises(ConfigError, match="divergence need the policy"):
        load_monitor(configured(monitor))


# ------------------------------------------------------------------ bias


def groups(folder: Path, *, gap: float, of: int, n: int = 2_000, states: int = 16) -> None:
    """Write episodes of which those that start in the states from 6 on succeed less often, by ``gap``."""
    rng = np.random.default_rng(of)
    start = rng.integers(states, size=n)
    succeeds = rng.random(n) < 0.7 - gap * (start >= 6)
    write(folder, start.tolist(), succeeds.astype(float).tolist())


@pytest.fixture
def asked(monitor: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A monitor of bias, whose baseline the command made of captured traffic."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    folder = monitor.parent
    groups(folder / "fair", gap=0.1, of=1)
    question = ("--facet", "obs>5", "--label", "return>0", "--per-episode", "--policy", str(folder / "bundle"))
    assert main(["monitor", "bias", str(folder / "fair"), *question, "--out", str(folder / "usual")]) == 0
    capsys.readouterr()
    return configured(monitor, policy="bundle", checks=[
        {"kind": "bias", "baseline": "usual", "facet": "obs>5", "label": "return>0"}
    ])  # fmt: skip


def test_groups_of_episodes_that_fare_alike_pass(asked: Path) -> None:
    groups(asked.parent / "data", gap=0.1, of=2)
    one = found(asked)
    assert one.status == "passed"
    values = {measured.name: measured.value for measured in one.measurements}
    assert values["bias.DPL"] == pytest.approx(0.1, abs=0.05)


def test_a_group_that_fares_worse_than_it_did_is_a_violation(asked: Path) -> None:
    groups(asked.parent / "data", gap=0.4, of=2)
    one = found(asked)
    assert one.status == "violations"
    assert {measured.name for measured in one.measurements if measured.violated} >= {"bias.DPL", "bias.KS"}
    assert "bias.CI" not in {measured.name for measured in one.measurements if measured.violated}


def test_a_window_without_one_of_the_groups_has_nothing_to_compare(asked: Path) -> None:
    groups(asked.parent / "data", gap=0.0, of=2, states=6)
    assert (found(asked).status, found(asked).measurements) == ("no data", ())


def test_a_column_that_episodes_do_not_have_is_told_with_what_they_have(asked: Path) -> None:
    groups(asked.parent / "data", gap=0.0, of=2)
    check = {"kind": "bias", "baseline": "usual", "facet": "age>5", "label": "return>0"}
    configured(asked, policy="bundle", checks=[check])
    assert "no column 'age'; an episode has obs, action, return, length" in found(asked).text
    with pytest.raises(ConfigError, match="COLUMN>NUMBER"):
        load_monitor(configured(asked, policy="bundle", checks=[{**check, "facet": "age"}]))


# ------------------------------------------------------------------ attribution


def cart_pole(folder: Path, name: str, *, weights: list[float]) -> None:
    env = gym.make("CartPole-v1")
    features = BinsFeatures(n_bins=4, low=(-2.4, -3.0, -0.2, -3.0), high=(2.4, 3.0, 0.2, 3.0))
    centres = np.stack(np.meshgrid(*[np.linspace(-1, 1, 4)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lean = centres @ weights
    policy = TabularPolicy(np.stack([-lean, lean], axis=1), make_encoder(features, env.observation_space))
    write_bundle(folder / name, policy, env=env, lineage=Lineage(), metrics={})


@pytest.mark.parametrize(("then", "status"), [(None, "passed"), ("pole", "passed"), ("cart", "violations")])
def test_a_policy_that_decides_by_other_features_is_a_violation(then: str | None, status: str, tmp_path: Path) -> None:
    cart_pole(tmp_path, "pole", weights=[0.1, 0.1, 2.0, 1.0])
    cart_pole(tmp_path, "cart", weights=[2.0, 1.0, 0.1, 0.1])
    for name, of in (("then", 1), ("data", 2)):
        seen = np.random.default_rng(of).uniform(-1, 1, (120, 4)) * [2.4, 3.0, 0.2, 3.0]
        write(tmp_path / name, seen.tolist(), [1.0] * len(seen))
    check = {"kind": "attribution", "baseline": "then", "then": then}
    one = found(configured(tmp_path / "monitor.yaml", policy="pole", checks=[check]))
    assert one.status == status, one.text
    assert [measured.name for measured in one.measurements] == ["attribution.label0", "attribution.label1"]
    assert all(measured.violated == (status == "violations") for measured in one.measurements)


# ------------------------------------------------------------------ data


def test_a_false_discovery_rate_is_set_in_the_monitor_file(monitor: Path) -> None:
    write_data_baseline(monitor.parent / "base", profile_of([monitor.parent / "then"]))
    traffic(monitor.parent / "data", of=2)
    for rate, expected in ((None, None), (0.1, 0.1)):
        configured(monitor, checks=[{"kind": "data", "baseline": "base", "false_discovery_rate": rate}])
        assert found(monitor).document["false_discovery_rate"] == expected


def test_a_rate_beside_that_of_the_constraints_is_refused(monitor: Path) -> None:
    write_data_baseline(monitor.parent / "base", profile_of([monitor.parent / "then"]))
    traffic(monitor.parent / "data", of=2)
    rules = json.loads((monitor.parent / "base" / "constraints.json").read_text())
    rules["monitoring_config"]["false_discovery_rate"] = 0.1
    (monitor.parent / "base" / "constraints.json").write_text(json.dumps(rules))
    configured(monitor, checks=[{"kind": "data", "baseline": "base"}])
    assert found(monitor).document["false_discovery_rate"] == 0.1
    configured(monitor, checks=[{"kind": "data", "baseline": "base", "false_alarm_rate": 0.01}])
    refused = found(monitor)
    assert refused.status == "failed"
    assert "false_alarm_rate 0.01 in the monitor file and false_discovery_rate 0.1 in" in refused.text
