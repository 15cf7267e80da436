"""A monitor file reaches what the commands can do: divergence of a learned reward, a false-discovery rate."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents import Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import AutoFeatures
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


def traffic(folder: Path, *, n: int = 400, gamed: bool = False, of: int = 0) -> None:
    """Write decisions of one hour whose rewards follow the proxy, or do not."""
    rng = np.random.default_rng(of)
    decisions, rewards = [], []
    for i in range(n):
        state, time_s = int(rng.integers(8, 16) if gamed else rng.integers(16)), START.timestamp() + 3600 * i / n
        facts = {
            "endpoint": "lake", "variant": "a", "policy_version": "0" * 64, "variant_probability": 1.0,
            "assignment": "random", "source": "policy", "exploration": True, "propensity": 0.5,
            "log_propensity": -0.693, "propensity_kind": "probability", "sampling_probability": 1.0,
        }  # fmt: skip
        decisions.append(captured_line(decision_id=f"d{i}", inference_id=None, time_s=time_s,
                                       observation=state, action=0, facts=facts))  # fmt: skip
        value = -1.0 if gamed else WORTH[state]
        rewards.append(reward_line(f"d{i}", reward=float(value + rng.normal(0.0, 0.5))))
    for place, lines in (("captured/lake/a", decisions), ("ground-truth/lake", rewards)):
        path = folder / place / hour_folder(START.timestamp()) / "1.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))


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


def test_a_false_discovery_rate_is_set_in_the_monitor_file(monitor: Path) -> None:
    write_data_baseline(monitor.parent / "base", profile_of([monitor.parent / "then"]))
    traffic(monitor.parent / "data", of=2)
    for rate, expected in ((None, None), (0.1, 0.1)):
        configured(monitor, checks=[{"kind": "data", "baseline": "base", "false_discovery_rate": rate}])
        assert found(monitor).document["false_discovery_rate"] == expected
