"""What a policy earns is measured right whenever rewards arrive, and a worse policy is told from chance."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents import Bundle, Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import AutoFeatures
from policylab.cli import main
from policylab.deployment.capture.format import EpisodeEnd, captured_line, hour_folder, reward_line
from policylab.errors import ConfigError, UserError
from policylab.monitoring.outcomes.constraints import read_outcome_constraints, suggested, violations
from policylab.monitoring.outcomes.joined import OutcomeQuery, Outcomes, read_outcomes
from policylab.monitoring.outcomes.means import mean_of, rate_of, ratio_of
from policylab.monitoring.outcomes.measures import OutcomeSettings, measure
from policylab.monitoring.outcomes.period import offset, period
from policylab.monitoring.outcomes.values import calibration, values_on

START_S = 1_700_000_000.0


def decision(
    name: str, *, episode: str | None, step: int | None, time_s: float = START_S, **own: Any
) -> dict[str, Any]:
    facts = {
        "endpoint": "lake", "variant": "a", "policy_version": "0" * 64, "variant_probability": 1.0,
        "assignment": "random", "source": "policy", "exploration": True, "propensity": 0.5, "log_propensity": -0.693,
        "propensity_kind": "probability", "episode": episode, "step": step, "sampling_probability": 1.0,
    }  # fmt: skip
    return captured_line(
        decision_id=name, inference_id=own.get("inference_id"), time_s=time_s, observation=own.get("observation", 0),
        action=own.get("action", 0), facts=facts,
    )  # fmt: skip


def write(folder: Path, decisions: list[dict[str, Any]], rewards: list[dict[str, Any]]) -> Path:
    for place, lines in (("captured/lake/a", decisions), ("ground-truth/lake", rewards)):
        hour = folder / place / hour_folder(START_S)
        hour.mkdir(parents=True)
        (hour / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def two_episodes() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    decisions = [
        decision("d0", episode="e", step=0, inference_id="mine"),
        decision("d1", episode="e", step=1, time_s=START_S + 1),
        decision("d2", episode="f", step=0, time_s=START_S + 3600),
    ]
    rewards = [reward_line("mine", reward=1.0), reward_line("d1", reward=2.0), reward_line("d2", reward=-1.0)]
    return decisions, rewards


def test_rewards_are_joined_by_inference_id_else_event_id_in_any_order(tmp_path: Path) -> None:
    decisions, rewards = two_episodes()
    found = read_outcomes(write(tmp_path, decisions[::-1] + decisions, rewards[::-1]))
    assert found.reward.tolist() == [1.0, 2.0, -1.0]
    assert found.returns().tolist() == [3.0, -1.0]
    assert found.returns(0.5).tolist() == [2.0, -1.0]


def test_a_reward_that_has_not_arrived_is_not_zero(tmp_path: Path) -> None:
    decisions, rewards = two_episodes()
    found = measure(read_outcomes(write(tmp_path, decisions, rewards[:1] + rewards[2:])))
    assert found.metrics["return_mean"].value == -1.0
    assert found.metrics["return_mean"].n == 1
    assert found.metrics["reward_mean"].value == 0.0
    assert found.metrics["reward_coverage"].value == pytest.approx(2 / 3)
    assert found.notes == ("1 of 3 decisions have no reward yet; episodes with one of them have no return",)
    said = read_outcomes(tmp_path, query=OutcomeQuery(missing_reward=0.0))
    assert said.returns().tolist() == [1.0, -1.0]


def test_rewards_that_never_arrive_leave_no_mean_and_violate_their_coverage(tmp_path: Path) -> None:
    decisions = [decision(f"d{i}", episode=None, step=None, time_s=START_S + i) for i in range(200)]
    rewards = [reward_line(f"d{i}", reward=float(i % 2)) for i in range(200)]
    usual = measure(read_outcomes(write(tmp_path / "then", decisions, rewards)))
    found = measure(read_outcomes(write(tmp_path / "now", decisions, [])))
    assert (found.n_decisions, found.metrics["reward_coverage"].value) == (200, 0.0)
    assert "return_mean" not in found.metrics
    assert "reward_mean" not in found.metrics
    assert "200 of 200 decisions have no reward yet" in found.notes[0]
    broken = violations(found, suggested(usual))
    assert [one.metric_name for one in broken] == ["reward_coverage"]


def test_clocks_that_disagree_change_no_return(tmp_path: Path) -> None:
    backwards = [decision(f"d{i}", episode="e", step=i, time_s=START_S - 5 * i) for i in range(3)]
    rewards = [reward_line(f"d{i}", reward=10.0**i) for i in range(3)]
    folder = write(tmp_path, backwards, [])
    for i, line in enumerate(rewards):  # dated by a clock an hour behind and one a day ahead
        file = folder / "ground-truth/lake" / hour_folder(START_S + (-3600, 0, 86_400)[i]) / "2.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(line) + "\n")
    found = read_outcomes(folder)
    assert found.reward.tolist() == [1.0, 10.0, 100.0]
    assert found.returns(0.1).tolist() == [pytest.approx(3.0)]


def test_an_episode_without_its_end_has_no_return_where_ends_are_told(tmp_path: Path) -> None:
    decisions, rewards = two_episodes()
    end = EpisodeEnd(terminated=True)
    told = [rewards[0], reward_line("d1", reward=2.0, end=end), rewards[2]]
    found = read_outcomes(write(tmp_path / "one", decisions, told))
    assert found.returns().tolist() == [3.0]
    assert found.ended.tolist() == [False, True]
    assert found.left_out == {"of episodes that had not ended": 1}
    told[0], told[1] = reward_line("mine", reward=1.0, end=end), rewards[1]
    with pytest.raises(UserError, match="episode 'e' goes on after it was reported to have ended"):
        read_outcomes(write(tmp_path / "two", decisions, told))


def test_strange_rewards_are_counted_and_change_no_number(tmp_path: Path) -> None:
    decisions, rewards = two_episodes()
    strange = [reward_line("d1", reward=math.inf), reward_line("d2", reward=math.nan), reward_line("x", reward=5.0)]
    found = read_outcomes(write(tmp_path, decisions, rewards + strange))
    assert found.returns().tolist() == [3.0, -1.0]
    assert found.left_out == {"rewards that are no usable number": 2}
    assert found.n_unmatched == 1


def test_offsets_choose_episodes_by_their_first_decision(tmp_path: Path) -> None:
    folder = write(tmp_path, *two_episodes())
    at = datetime.fromtimestamp(START_S + 7200.5, UTC)
    early = OutcomeQuery(period=period(at, start_offset="-P1D", end_offset="-PT2H"))
    found = read_outcomes(folder, query=early)
    assert (found.returns().tolist(), found.left_out) == ([3.0], {"after the period": 1})  # d1 is past the end, too
    late = read_outcomes(folder, query=OutcomeQuery(period=period(at, start_offset="-PT1H30M")))
    assert (late.returns().tolist(), late.left_out) == ([-1.0], {"before the period": 2})
    assert late.n_unmatched == 0


def test_an_episode_with_a_lost_step_has_no_return(tmp_path: Path) -> None:
    decisions, rewards = two_episodes()
    found = read_outcomes(write(tmp_path, decisions[1:], rewards))
    assert (found.returns().tolist(), found.left_out) == ([-1.0], {"of episodes whose steps are not all there": 1})


def test_an_empty_period_is_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "data", *two_episodes())
    code = main(["monitor", "quality", str(folder), "--start-offset=-PT1S", "--out", str(tmp_path / "o"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["status"], found["metrics"]) == (0, "no data", {})


@pytest.mark.parametrize("text", ["P", "1D", "-P", "PT", "P1H", "-PT5", "P999999999D"])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="must be a duration such as -P1D"):
        offset(text)


# ------------------------------------------------------------------ intervals


def test_the_interval_of_a_mean_is_students() -> None:
    found = mean_of("m", np.array([2.0, 4.0, 6.0]), level=0.95, worse="lower")
    assert found is not None
    # t(0.975, 2) = 4.302653 (any table); s = 2, n = 3
    assert (found.value, found.high) == pytest.approx((4.0, 4.0 + 4.302653 * 2 / math.sqrt(3)), rel=1e-6)


def test_a_ratio_counts_episodes_not_steps() -> None:
    found = ratio_of("r", np.array([1.0, 2.0, 9.0]), counts=np.array([1.0, 2.0, 9.0]), level=0.95, worse="lower")
    assert found is not None
    assert (found.value, found.std_error, found.n) == (1.0, 0.0, 3)


def test_intervals_cover_the_mean_of_dependent_episodes() -> None:
    rng, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(300):
        noise = rng.normal(size=2_000)
        values = np.empty(2_000)
        values[0] = noise[0] / math.sqrt(1 - 0.8**2)
        for i in range(1, 2_000):
            values[i] = 0.8 * values[i - 1] + noise[i]
        found = mean_of("m", values, level=0.95, worse=None)
        assert found is not None
        covered += found.low < 0.0 < found.high
        naive += abs(values.mean()) < 1.96 * values.std() / math.sqrt(2_000)
    assert covered >= 0.91 * 300  # 95 % less three standard deviations of 300 draws
    assert naive < 0.6 * 300


def test_a_rate_of_no_success_still_has_an_interval() -> None:
    found = rate_of("s", np.zeros(10, dtype=np.bool_), level=0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.0, 0.277533), abs=1e-6)  # Wilson: z² / (n + z²)


# ------------------------------------------------------------------ values


def chain_bundle(folder: Path, *, scale: float = 1.0) -> tuple[Bundle, Outcomes]:
    """Return FrozenLake's way along its edge with exact values (times ``scale``), and ten episodes that follow it."""
    env = gym.make("FrozenLake-v1", is_slippery=False, max_episode_steps=100)
    path, actions = [0, 4, 8, 9, 13, 14, 15], [1, 1, 2, 1, 2, 2]
    values = np.zeros((16, 4))
    for steps_left, (state, action) in enumerate(zip(path[-2::-1], actions[::-1], strict=True)):
        values[state, action] = scale * 0.9**steps_left
    policy = TabularPolicy(values, make_encoder(AutoFeatures(), env.observation_space))
    bundle = write_bundle(folder / "bundle", policy, env=env, lineage=Lineage(), metrics={})
    n = 10
    outcomes = Outcomes(
        reward=np.tile([0.0, 0, 0, 0, 0, 1], n), starts=np.arange(n) * 6, ended=np.tile(np.arange(6) == 5, n),
        observation=np.tile(path[:-1], n), next_observation=np.tile(path[1:], n), action=np.tile(actions, n),
    )  # fmt: skip
    return bundle, outcomes


def test_true_values_have_no_error_and_the_optimum_no_regret(tmp_path: Path) -> None:
    bundle, outcomes = chain_bundle(tmp_path)
    found = measure(outcomes, bundle=bundle, settings=OutcomeSettings(discount=0.9, success_above=0.5))
    values = {name: found.metrics[name].value for name in found.metrics}
    assert values["td_error_squared"] == pytest.approx(0.0, abs=1e-20)
    assert values["overestimation"] == pytest.approx(0.0, abs=1e-12)
    assert values["regret"] == pytest.approx(0.0, abs=1e-9)
    assert values["success_rate"] == 1.0
    assert found.regression["rmse"] == pytest.approx(0.0, abs=1e-12)


def test_a_value_is_expected_after_a_cut_and_none_after_an_end(tmp_path: Path) -> None:
    bundle, _ = chain_bundle(tmp_path)  # true values, so that δ = 0 wherever what follows is known
    decisions = [
        decision(f"d{step}", episode="e", step=step, time_s=START_S + step, observation=state, action=1)
        for step, state in enumerate((0, 4))
    ]
    last = {}
    for name, end in (("cut", EpisodeEnd(truncated=True, next_observation=8)), ("over", EpisodeEnd(terminated=True))):
        rewards = [reward_line("d0", reward=0.0), reward_line("d1", reward=0.0, end=end)]
        found = read_outcomes(write(tmp_path / name, decisions, rewards), bundle=bundle)
        values = values_on(found, bundle, discount=0.9)
        assert values is not None
        last[name] = float(values.td_error[-1])
    assert last == {"cut": pytest.approx(0.0), "over": pytest.approx(-(0.9**4))}


def test_doubled_values_are_overestimates(tmp_path: Path) -> None:
    bundle, outcomes = chain_bundle(tmp_path, scale=2.0)
    found = measure(outcomes, bundle=bundle, settings=OutcomeSettings(discount=0.9))
    assert found.metrics["overestimation"].value == pytest.approx(0.9**5)
    # δ = 0 but at the last step: 1 - 2
    assert found.metrics["td_error_mean"].value == pytest.approx(-1 / 6)
    assert found.regression["mae"] == pytest.approx(0.9**5)


def test_calibration_bins_hold_like_values() -> None:
    expected = np.repeat([3.0, 1.0, 2.0], 10)
    bins = calibration(expected, np.where(np.arange(30) % 3, expected, np.nan))
    assert sum(one.n for one in bins) == 20
    assert [one.expected for one in bins] == sorted(one.realised for one in bins)


# ------------------------------------------------------------------ constraints


def episodes(returns: np.ndarray) -> Outcomes:
    return Outcomes(returns.astype(np.float64), np.arange(len(returns)), np.ones(len(returns), dtype=np.bool_))


def test_a_worse_window_violates_and_the_same_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    base = measure(episodes(rng.normal(1.0, 1.0, 2_000)))
    limits = suggested(base)
    alarms = sum(bool(violations(measure(episodes(rng.normal(1.0, 1.0, 500))), limits)) for _ in range(200))
    assert alarms <= 4  # 3 in 1,000 for either of two metrics that are the same here
    worse = violations(measure(episodes(rng.normal(0.7, 1.0, 500))), limits)
    assert {one.metric_name for one in worse} == {"reward_mean", "return_mean"}
    assert worse[0].description.startswith("Metric reward_mean with 0.")
    assert worse[0].description.endswith(f"was LessThanThreshold {limits.policy_constraints['reward_mean'].threshold}")


def test_a_few_failures_of_a_rare_success_are_chance() -> None:
    base = measure(episodes(np.random.default_rng(2).random(2_000) < 0.03))
    few, many = (measure(episodes(np.zeros(n))) for n in (20, 2_000))
    spreads = {"return_mean": math.sqrt(0.03 * 0.97), "reward_mean": math.sqrt(0.03 * 0.97)}
    assert not violations(few, suggested(base), spreads=spreads)
    assert violations(many, suggested(base), spreads=spreads)


def test_the_command_compares_with_its_own_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)

    def folder(name: str, mean: float) -> Path:
        decisions = [decision(f"d{i}", episode=None, step=None, time_s=START_S + i) for i in range(200)]
        rewards = [reward_line(f"d{i}", reward=float(rng.normal(mean))) for i in range(200)]
        return write(tmp_path / name, decisions, rewards)

    base, out = str(tmp_path / "base"), str(tmp_path / "out")
    assert main(["monitor", "quality", str(folder("a", 2.0)), "--out", base]) == 0
    assert main(["monitor", "quality", str(folder("b", 2.0)), "--baseline", base, "--out", out]) == 0
    capsys.readouterr()
    assert main(["monitor", "quality", str(folder("c", 0.0)), "--baseline", base, "--out", out]) == 1
    assert "violation: Metric return_mean with" in capsys.readouterr().out
    written = json.loads((tmp_path / "out" / "constraint_violations.json").read_text())["violations"]
    assert {one["constraint_check_type"] for one in written} == {"LessThanThreshold"}
    assert "Quality of the policy" in (tmp_path / "out" / "report.html").read_text()


def test_a_misspelt_metric_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "constraints.json"
    path.write_text(
        '{"version": 0, "policy_constraints": {\n"retrun_mean": {"threshold": 1, '
        '"comparison_operator": "LessThanThreshold"}}}'
    )
    with pytest.raises(ConfigError, match=r"json:2:1: policy_constraints.retrun_mean: .*did you mean 'return_mean'"):
        read_outcome_constraints(path)
