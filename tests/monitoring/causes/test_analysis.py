"""Drift is attributed to what was changed in the world, and to nothing else; without change there is no alarm."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from policylab.cli import main
from policylab.errors import UserError
from policylab.monitoring.causes.analysis import Diagnosis, DriftSettings, diagnose
from policylab.monitoring.causes.matching import leaves, matches, two_samples
from policylab.monitoring.causes.steps import Steps, read_steps, steps_of
from policylab.monitoring.causes.strata import homogeneity
from policylab.monitoring.ope.reported import Ends

Floats = NDArray[np.float64]
SETTINGS = DriftSettings()


@dataclasses.dataclass(frozen=True)
class Chain:
    """Twelve states on a line, two actions, noise; every part of it can be changed."""

    right: float = 0.6  # the policy's probability of going right
    slip: float = 0.1
    prize: float = 1.0
    forward: float = 0.0  # reward of a step that comes nearer to the end
    start: tuple[float, ...] = (0.5, 0.5)  # of states 2 and 3
    n_states: int = 12

    def play(self, seed: int, n_episodes: int = 400) -> Steps:
        rng = np.random.default_rng(seed)
        rows: list[tuple[Any, ...]] = []
        for episode in range(n_episodes):
            state = 2 + int(rng.random() > self.start[0])
            for t in range(30):
                action = int(rng.random() < self.right)
                move = (1 if action else -1) * (-1 if rng.random() < self.slip else 1)
                after = min(max(state + move, 0), self.n_states - 1)
                terminated = after == self.n_states - 1
                reward = (self.prize if terminated else -0.1) + 0.05 * int(rng.integers(3))
                reward += self.forward * (after > state)
                p = self.right if action else 1 - self.right
                rows.append((episode, t, state, action, reward, after, terminated, t == 29, np.log(p)))
                state = after
                if terminated:
                    break
        return to_steps(rows)


def to_steps(rows: list[tuple[Any, ...]]) -> Steps:
    names = ("episode_id", "t", "obs", "action", "reward", "next_obs", "terminated", "truncated", "log_propensity")
    return steps_of({name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})


@dataclasses.dataclass(frozen=True)
class Plane:
    """A point in two dimensions that a noisy policy pushes to the middle; observations never repeat."""

    gain: float = 1.0
    pull: float = 0.9
    bonus: float = 0.0
    rewards_arrival: bool = False  # by where a step leads, not by where it begins
    start: float = 0.0
    continuous: bool = False

    def play(self, seed: int, n_episodes: int = 300, horizon: int = 20) -> Steps:
        rng = np.random.default_rng(seed)
        x = rng.normal(self.start, 1.0, (n_episodes, 2))
        columns: dict[str, list[Any]] = {name: [] for name in ("obs", "action", "reward", "next_obs")}
        for _ in range(horizon):
            if self.continuous:
                action: Any = -0.3 * self.gain * x[:, 0] + 0.2 * rng.standard_normal(n_episodes)
                push = action
                action = action[:, None]
            else:
                action = (rng.random(n_episodes) < 1 / (1 + np.exp(2.0 * self.gain * x[:, 0]))).astype(np.int64)
                push = 0.4 * (2 * action - 1)
            after = self.pull * x + np.column_stack([push, 0 * push]) + 0.2 * rng.standard_normal(x.shape)
            judged = after if self.rewards_arrival else x
            reward = -np.abs(judged[:, 0]) + self.bonus * (x[:, 1] > 0) + 0.1 * rng.standard_normal(n_episodes)
            for name, value in (("obs", x), ("action", action), ("reward", reward), ("next_obs", after)):
                columns[name].append(value)
            x = after
        stacked = {name: np.stack(values, axis=1) for name, values in columns.items()}
        flat = {name: value.reshape(n_episodes * horizon, *value.shape[2:]) for name, value in stacked.items()}
        last = np.tile(np.arange(horizon) == horizon - 1, n_episodes)
        return Steps(
            observation=flat["obs"], action=flat["action"], reward=flat["reward"], next_observation=flat["next_obs"],
            terminated=np.zeros(len(last), dtype=bool), ended=last, log_propensity=None,
            starts=np.arange(n_episodes) * horizon,
        )  # fmt: skip


def diagnosis(baseline: Any, window: Any) -> Diagnosis:
    return diagnose(baseline.play(0), window.play(1))


CHANGES: list[tuple[Any, Any, set[str]]] = [
    (Plane(rewards_arrival=True), Plane(rewards_arrival=True, pull=0.6), {"transition"}),
    (Chain(), Chain(), set()),
    (Chain(), Chain(right=0.8), {"policy"}),
    (Chain(), Chain(slip=0.3), {"transition"}),
    (Chain(forward=0.5), Chain(forward=0.5, slip=0.3), {"transition"}),
    (Chain(), Chain(prize=0.5), {"reward"}),
    (Chain(), Chain(start=(0.1, 0.9)), {"start"}),
    (Chain(), Chain(right=0.8, slip=0.3), {"policy", "transition"}),
    (Plane(), Plane(), set()),
    (Plane(), Plane(gain=0.3), {"policy"}),
    (Plane(), Plane(pull=0.7), {"transition"}),
    (Plane(), Plane(bonus=0.5), {"reward"}),
    (Plane(), Plane(start=1.0), {"start"}),
    (Plane(continuous=True), Plane(continuous=True), set()),
    (Plane(continuous=True), Plane(continuous=True, gain=2.5), {"policy"}),
    (Plane(continuous=True), Plane(continuous=True, pull=0.7), {"transition"}),
]


def words(part: Any) -> str:
    """Name a part of a case alike in every process, as tests that run in several must be."""
    return "+".join(sorted(part)) if isinstance(part, set) else str(part)


@pytest.mark.parametrize(("baseline", "window", "causes"), CHANGES, ids=words)
def test_the_cause_that_was_changed_is_named_and_no_other(baseline: Any, window: Any, causes: set[str]) -> None:
    found = diagnosis(baseline, window)
    assert set(found.causes) == causes, [(layer.name, layer.effect, layer.p_value) for layer in found.layers]
    assert found.drifted == bool(causes)
    if not causes:
        assert found.verdict == "no drift"


def cart_pole(seed: int, *, epsilon: float = 0.3, **constants: float) -> Steps:
    """Return what a swaying controller does on CartPole, whose moves are without any noise."""
    env: Any = gym.make("CartPole-v1").unwrapped
    for name, value in constants.items():
        setattr(env, name, value)
    rng = np.random.default_rng(seed)
    rows: list[tuple[Any, ...]] = []
    for episode in range(25):
        now, _ = env.reset(seed=int(rng.integers(2**31)))
        for t in range(200):
            action = int(rng.integers(2)) if rng.random() < epsilon else int(now[2] + 0.3 * now[3] > 0)
            after, reward, terminated, _, _ = env.step(action)
            rows.append((episode, t, now, action, reward, after, terminated, t == 199, 0.0))
            now = after
            if terminated:
                break
    return to_steps(rows)


@pytest.mark.parametrize(
    ("window", "causes"),
    [
        ([{"seed": seed} for seed in range(1, 6)], set()),
        ([{"seed": 1, "force_mag": 11.0}, {"seed": 2, "gravity": 15.0}, {"seed": 3, "length": 0.7}], {"transition"}),
        ([{"seed": 1, "epsilon": 0.7}], {"policy"}),
    ],
    ids=["nothing", "physics", "policy"],
)
def test_a_deterministic_environment_is_not_mistaken_for_a_changed_one(
    window: list[dict[str, Any]], causes: set[str]
) -> None:
    baseline = cart_pole(0)
    for one in window:
        found = diagnose(baseline, cart_pole(**one))
        assert set(found.causes) == causes, (one, [(layer.name, layer.effect, layer.p_value) for layer in found.layers])


def drifted(found: Diagnosis) -> set[str]:
    return {layer.name for layer in found.layers if layer.drifted}


def test_symptoms_follow_from_causes() -> None:
    assert {"action", "exploration", "observation", "return"} <= drifted(diagnosis(Chain(right=0.5), Chain(right=0.9)))
    faster = diagnosis(Chain(), Chain(slip=0.0, right=0.6))
    assert "transition" in faster.causes
    assert "the environment reacts differently to the same actions" in faster.verdict


def test_states_and_places_never_seen_are_noticed() -> None:
    assert "unseen" in drifted(diagnosis(Chain(right=0.05, slip=0.0), Chain(right=0.95, slip=0.0)))
    far = diagnosis(Plane(), Plane(start=5.0))
    assert "unseen" in drifted(far)
    assert next(layer for layer in far.layers if layer.name == "unseen").effect > 0.05


@pytest.mark.parametrize(
    ("world", "n_episodes"), [(Chain(), 100), (Plane(), 60), (Plane(continuous=True), 60)], ids=str
)
def test_without_drift_alarms_are_as_rare_as_asked(world: Any, n_episodes: int) -> None:
    # Chance alone decides (threshold 0): of 60 pairs at 5 %, more than 8 would happen twice in a hundred times.
    settings = DriftSettings(false_alarm_rate=0.05, effect_threshold=0.0, unseen_threshold=0.0)
    alarms: list[str] = []
    for seed in range(60):
        pair = world.play(2 * seed, n_episodes), world.play(2 * seed + 1, n_episodes)
        alarms += drifted(diagnose(*pair, settings=settings))
    assert len(alarms) <= 8, alarms


def as_captured(steps: Steps, ends: Ends) -> Steps:
    """Return steps as captured traffic has them where the observation after an episode is not told."""
    assert ends != "whole"
    following = np.where(steps.ended, steps.observation, steps.next_observation)
    terminated = steps.terminated if ends == "told" else steps.ended
    return dataclasses.replace(steps, next_observation=following, terminated=terminated, ends=ends)


@pytest.mark.parametrize("ends", ["told", "assumed"])
def test_what_one_side_does_not_know_of_ends_is_no_drift(ends: Ends) -> None:
    baseline, window = Chain().play(1), as_captured(Chain().play(2), ends)
    assert not diagnose(baseline, window).drifted
    assert not diagnose(window, baseline).drifted


@dataclasses.dataclass(frozen=True)
class Doors:
    """One decision in one place; it leads through the good door or the bad one, and the episode is over."""

    good: float

    def play(self, seed: int, n_episodes: int = 1_000) -> Steps:
        rng = np.random.default_rng(seed)
        rows: list[tuple[Any, ...]] = []
        for episode in range(n_episodes):
            after = 1 if rng.random() < self.good else 2
            rows.append((episode, 0, 0, int(rng.integers(2)), float(after == 1), after, True, False, np.log(0.5)))
        return to_steps(rows)


def test_an_end_elsewhere_is_a_changed_transition_once_the_last_observation_is_told() -> None:
    baseline, window = Doors(good=0.8).play(1), Doors(good=0.3).play(2)
    assert diagnose(baseline, window).causes == ("transition",)
    without = diagnose(as_captured(baseline, "told"), as_captured(window, "told"))
    assert without.causes == ("reward",), "what cannot be told apart without the last observation"


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match="observations have shape"):
        diagnose(Chain().play(0), Plane().play(0))
    with pytest.raises(UserError, match="at least 100 steps"):
        diagnose(Chain().play(0), Chain().play(0, 1))


def write(steps: Steps, path: Path) -> None:
    episode = np.repeat(np.arange(len(steps.starts)), steps.lengths)
    table = pa.table({
        "episode_id": episode, "t": np.arange(len(steps)) - steps.starts[episode], "obs": steps.observation,
        "action": steps.action, "reward": steps.reward, "next_obs": steps.next_observation,
        "terminated": steps.terminated, "truncated": steps.ended & ~steps.terminated,
    })  # fmt: skip
    pq.write_table(table.take(np.random.default_rng(0).permutation(len(steps))), path)


def test_recordings_are_read_whatever_their_order(tmp_path: Path) -> None:
    steps = Chain().play(0, 50)
    write(steps, tmp_path / "log.parquet")
    again = read_steps(tmp_path / "log.parquet")
    assert np.array_equal(again.reward, steps.reward)
    assert np.array_equal(again.starts, steps.starts)
    assert again.log_propensity is None
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        read_steps(tmp_path / "bad.parquet")


def test_the_command_names_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for name, world, seed in (("base", Chain(), 0), ("same", Chain(), 1), ("slippery", Chain(slip=0.3), 1)):
        write(world.play(seed), tmp_path / f"{name}.parquet")
    base, same, slippery = (str(tmp_path / f"{name}.parquet") for name in ("base", "same", "slippery"))
    assert main(["monitor", "causes", base, same]) == 0
    assert "no drift" in capsys.readouterr().out
    assert main(["monitor", "causes", base, slippery, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["causes"] == ["transition"]
    assert {layer["name"] for layer in document["layers"]} >= {"start", "policy", "transition", "reward", "return"}
    assert main(["monitor", "causes", base, slippery]) == 1
    assert "the environment reacts differently" in capsys.readouterr().out
    assert main(["monitor", "causes", base, str(tmp_path / "absent.parquet")]) == 2


# ------------------------------------------------------------------ the tests themselves


def test_homogeneity_by_hand() -> None:
    # One stratum, outcomes (30, 20) and (20, 30): expected 25 each, χ² = 4 * 25 / 25 = 4; apart by 2 * 0.2² / 2 = 0.04,
    # of which chance is 1/4 (1/50 + 1/50) = 0.01.
    baseline = np.zeros(50, dtype=int), np.repeat([0, 1], [30, 20])
    window = np.zeros(50, dtype=int), np.repeat([0, 1], [20, 30])
    found = homogeneity(baseline, window)
    assert (found.statistic, found.degrees) == (pytest.approx(4.0), 1)
    assert found.p_value == pytest.approx(0.0455003, abs=1e-7)
    assert found.effect == pytest.approx(np.sqrt(0.03))
    assert found.compared == 1.0


@pytest.mark.parametrize(("n", "m"), [(1_000, 1_000), (20_000, 500), (500, 20_000)])
def test_an_effect_is_at_most_one_and_does_not_depend_on_the_sizes(n: int, m: int) -> None:
    def effect(first: int, second: int) -> float:
        """Of two outcomes, of which the first falls so often."""
        sides = ((n, first), (m, second))
        return homogeneity(*((np.zeros(k, dtype=int), np.repeat([0, 1], [one, k - one])) for k, one in sides)).effect

    assert effect(n // 2, m // 2) == 0.0
    assert effect(n // 2, m * 6 // 10) == pytest.approx(0.1, abs=0.01)
    assert 0.9 < effect(n - n // 50, m // 50) <= 1.0


def test_strata_add_up_and_rare_outcomes_are_left_out() -> None:
    one = np.zeros(50, dtype=int), np.repeat([0, 1], [30, 20])
    other = np.zeros(50, dtype=int), np.repeat([0, 1], [20, 30])
    both = [(np.r_[side[0], side[0] + 1], np.r_[side[1], side[1]]) for side in (one, other)]
    found = homogeneity(*both)
    assert (found.statistic, found.degrees) == (pytest.approx(8.0), 2)
    rare = homogeneity((np.r_[one[0], 0], np.r_[one[1], 2]), other)
    assert (rare.statistic, rare.degrees) == (pytest.approx(4.0), 1)
    nothing = homogeneity((np.zeros(3, dtype=int), np.arange(3)), (np.zeros(3, dtype=int), np.arange(3)))
    assert (nothing.degrees, nothing.p_value, nothing.effect) == (0, 1.0, 0.0)


def test_matching_is_one_to_one_near_and_within_groups() -> None:
    rng = np.random.default_rng(0)
    baseline = np.tile([[0.0], [10.0]], (50, 1)) + rng.normal(0, 0.5, (100, 1))
    window = np.array([[0.1], [0.1001], [9.9], [500.0]])
    found = matches(baseline, window)
    assert found.unseen.tolist() == [False, False, False, True]
    assert len(np.unique(found.baseline)) == len(found.baseline) == len(found.window)
    assert np.abs(baseline[found.baseline] - window[found.window]).max() < 0.5
    groups = np.tile([0, 1], 50), np.array([1, 1, 0, 0])
    assert matches(baseline, window, groups=groups).window.tolist() == []


def test_leaves_have_equal_sizes_and_divide_space() -> None:
    points = np.random.default_rng(0).normal(size=(1_000, 2)) * [3.0, 1.0]
    leaf = leaves(points)
    assert np.bincount(leaf).tolist() == [125] * 8
    assert points[leaf < 4, 0].max() <= points[leaf >= 4, 0].min()


def test_two_samples_are_scipys_and_count_effective_sizes() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=400), rng.normal(0.3, 1, 300)
    exact = ks_2samp(x, y, method="asymp")
    found = two_samples(x, y)
    assert found.distance == pytest.approx(exact.statistic)
    assert found.p_value == pytest.approx(exact.pvalue, rel=0.3)  # scipy corrects the asymptotic value for size
    assert two_samples(x, y, time=4.0).p_value > found.p_value
    assert two_samples(x[:10], y).p_value == 1.0
