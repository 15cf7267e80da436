"""Evaluation of bundles on recorded logs: the exact value is found, or no value is given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from policylab.agents import Bundle, Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import AutoFeatures
from policylab.cli import main
from policylab.envs import epsilon_soft, evaluate_policy, table_of, value_iteration
from policylab.envs.planning_evaluation import start_value
from policylab.errors import UserError
from policylab.experiments.recording import record
from policylab.monitoring.ope import OpeSettings, evaluate, evaluate_target, read_log
from policylab.monitoring.ope.bounds import empirical_bernstein, hoeffding, lower_bounds, student_t
from policylab.monitoring.ope.log import assembled

EVERY = {"is", "pdis", "wis", "pdwis", "dr", "wdr", "magic", "mis", "dm"}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """FrozenLake, its best policy at three degrees of randomness, and logs of two of them."""
    folder = tmp_path_factory.mktemp("lake")
    env = gym.make("FrozenLake-v1", is_slippery=False, max_episode_steps=30)
    mdp = table_of(env)
    best = value_iteration(mdp, discount=0.99).action_values
    encoder = make_encoder(AutoFeatures(), env.observation_space)

    def bundle(name: str, epsilon: float) -> Bundle:
        policy = TabularPolicy(best, encoder, epsilon=epsilon)
        return write_bundle(folder / name, policy, env=env, lineage=Lineage(), metrics={})

    def value(epsilon: float) -> float:
        policy = epsilon_soft(best.argmax(axis=1), epsilon=epsilon, n_actions=4)
        return start_value(mdp, evaluate_policy(mdp, policy, discount=1.0, horizon=30))

    behaviour = bundle("behaviour", 0.5)
    record(behaviour, folder / "log.parquet", episodes=600, seed=3)
    record(bundle("greedy", 0.0), folder / "greedy.parquet", episodes=60, seed=3)
    return SimpleNamespace(folder=folder, bundle=bundle, value=value, behaviour=behaviour)


@pytest.mark.parametrize("epsilon", [0.5, 0.3])
def test_every_estimate_holds_the_exact_value(lake: SimpleNamespace, epsilon: float) -> None:
    found = evaluate(lake.bundle(f"target-{epsilon}", epsilon), read_log(lake.folder / "log.parquet"))
    truth = lake.value(epsilon)
    assert set(found.estimates) == EVERY
    assert found.answer == "wdr"
    assert found.refused == {}
    for name, interval in found.estimates.items():
        # A 95 % interval may miss; widened by half it holds 99.7 % of the time.
        half = 1.5 * max(interval.high - interval.value, interval.value - interval.low)
        assert abs(interval.value - truth) <= half + 1e-12, (name, str(interval), truth)
        assert half < 0.35
    for name in ("hoeffding", "empirical_bernstein", "t"):
        assert found.lower_bounds[name] <= truth
    assert found.logged.value == pytest.approx(lake.value(0.5), abs=0.08)
    assert found.horizon == 30


def test_the_policy_that_acted_is_valued_at_what_it_earned(lake: SimpleNamespace) -> None:
    found = evaluate(lake.behaviour, read_log(lake.folder / "log.parquet"))
    assert found.overlap.effective_episodes == pytest.approx(600)
    assert found.overlap.unsupported == pytest.approx(0, abs=1e-12)
    for name in ("is", "pdis", "wis", "pdwis"):
        assert found.estimates[name].value == pytest.approx(found.logged.value)


def test_the_same_seed_gives_the_same_answer(lake: SimpleNamespace) -> None:
    log = read_log(lake.folder / "log.parquet")
    first, second = (evaluate(lake.bundle("t", 0.3), log, settings=OpeSettings(n_refits=10)) for _ in range(2))
    assert first == second


def test_missing_support_is_refused(lake: SimpleNamespace) -> None:
    # The greedy policy's log says nothing about what exploring actions earn.
    found = evaluate(lake.bundle("random", 1.0), read_log(lake.folder / "greedy.parquet"))
    assert found.answer is None
    assert found.estimates == {}
    assert found.lower_bounds == {}
    assert found.overlap.unsupported == pytest.approx(0.75)
    assert found.overlap.unlogged == pytest.approx(0.75)
    assert set(found.refused) == EVERY
    assert all("never takes 75.0% of the target's actions" in reason for reason in found.refused.values())


def test_too_few_effective_episodes_leave_only_what_needs_no_trajectory_weights(lake: SimpleNamespace) -> None:
    log = read_log(lake.folder / "log.parquet")
    found = evaluate(lake.bundle("near", 0.3), log, settings=OpeSettings(min_effective_episodes=10_000))
    assert set(found.estimates) <= {"mis", "dm"}
    assert found.lower_bounds == {}
    assert "worth" in found.refused["is"]
    few = evaluate(lake.bundle("near", 0.3), log.take(np.arange(12)), settings=OpeSettings(min_effective_episodes=50))
    assert few.answer is None


def test_the_command_answers_and_refuses(
    lake: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    lake.bundle("target", 0.3)
    arguments = ["ope", str(lake.folder / "target"), str(lake.folder / "log.parquet")]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    interval = document["estimates"][document["answer"]]
    assert interval["low"] <= interval["value"] <= interval["high"]
    assert main(arguments) == 0
    assert "<- the answer" in capsys.readouterr().out
    assert main(["ope", str(lake.folder / "target"), str(lake.folder / "greedy.parquet")]) == 1
    assert "refused" in capsys.readouterr().out
    assert main([*arguments, "--discount", "1.5"]) == 2
    assert "--discount: Input should be less than or equal to 1, got 1.5" in capsys.readouterr().err
    assert main([*arguments, "--horizon", "2"]) == 2
    assert "more than the horizon 2" in capsys.readouterr().err
    assert main([*arguments, "--horizon", "2000000000"]) == 2
    assert "a horizon of 2,000,000,000 steps exceeds 1,000,000" in capsys.readouterr().err


def test_a_log_of_another_environment_is_refused(lake: SimpleNamespace, tmp_path: Path) -> None:
    env = gym.make("Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3")
    encoder = make_encoder(AutoFeatures(), env.observation_space)
    other = write_bundle(
        tmp_path / "taxi", TabularPolicy(np.zeros((500, 2)), encoder), env=_with_actions(env, 2), lineage=Lineage(),
        metrics={},
    )  # fmt: skip
    with pytest.raises(UserError, match="is none of Discrete"):
        evaluate(other, read_log(lake.folder / "log.parquet"))


def _with_actions(env: gym.Env[Any, Any], n: int) -> gym.Env[Any, Any]:
    return gym.wrappers.TransformAction(env, lambda action: action, gym.spaces.Discrete(n))


# ------------------------------------------------------------------ hostile and malformed logs


def columns(lake: SimpleNamespace) -> dict[str, NDArray[Any]]:
    table = pq.read_table(lake.folder / "log.parquet").to_pydict()
    renamed = {"obs": "observation", "next_obs": "next_observation"}
    wanted = ("episode_id", "t", "obs", "action", "reward", "next_obs", "terminated", "truncated", "log_propensity")
    return {renamed.get(name, name): np.array(table[name]) for name in wanted}


def test_order_and_repetition_of_rows_do_not_matter(lake: SimpleNamespace) -> None:
    rows = columns(lake)
    n = len(rows["t"])
    order = np.concatenate([np.random.default_rng(0).permutation(n), np.arange(0, n, 3)])
    shuffled = assembled({name: column[order] for name, column in rows.items()}, source="x")
    log = assembled(rows, source="x")
    for field in dataclasses.fields(log):
        assert np.array_equal(getattr(log, field.name), getattr(shuffled, field.name)), field.name


def test_incomplete_episodes_are_left_out_and_counted(lake: SimpleNamespace) -> None:
    rows = columns(lake)
    first, second = (np.flatnonzero(rows["episode_id"] == i) for i in (0, 1))
    kept = np.delete(np.arange(len(rows["t"])), [first[-1], second[0]])  # one not ended, one without its first step
    log = assembled({name: column[kept] for name, column in rows.items()}, source="x")
    assert log.left_out == {"steps are missing": 1, "had not ended": 1}
    assert log.n_episodes == 598
    notes = evaluate(lake.behaviour, log, settings=OpeSettings(n_refits=0)).notes
    assert any("favours short ones" in note for note in notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["reward"].__setitem__(1, 5.0), "twice with different 'reward'"),
        (lambda rows: rows["log_propensity"].__setitem__(0, -np.inf), "propensity above 0"),
        (lambda rows: rows["log_propensity"].__setitem__(0, np.nan), "propensity above 0"),
        (lambda rows: rows["t"].__iadd__(7), "no whole episode"),
    ],
)
def test_a_log_that_cannot_be_right_is_refused(lake: SimpleNamespace, change: Any, message: str) -> None:
    rows = {name: np.concatenate([column[:1], column]) for name, column in columns(lake).items()}
    change(rows)
    if message != "twice with different 'reward'":
        rows = {name: column[1:] if "propensity" not in message else column for name, column in rows.items()}
        rows["log_propensity"][1] = rows["log_propensity"][0]
    with pytest.raises(UserError, match=message):
        assembled(rows, source="log.parquet")


def test_a_file_without_propensities_says_so(lake: SimpleNamespace, tmp_path: Path) -> None:
    table = pq.read_table(lake.folder / "log.parquet").drop_columns("log_propensity")
    pq.write_table(table, tmp_path / "bare.parquet")
    with pytest.raises(UserError, match="has no column 'log_propensity'"):
        read_log(tmp_path / "bare.parquet")


def test_infinite_weights_are_refused_not_printed(lake: SimpleNamespace, exact: SimpleNamespace) -> None:
    log = read_log(lake.folder / "log.parquet")
    target = exact.target_of(log, np.full((16, 4), 0.25))
    tiny = dataclasses.replace(log, log_propensity=np.full(len(log), -600.0))
    found = evaluate_target(tiny, target, settings=OpeSettings(n_refits=0))
    assert found.answer is None or found.answer in ("mis", "dm")
    assert not {"is", "wis", "dr", "wdr", "magic"} & set(found.estimates)


# ------------------------------------------------------------------ bounds


def test_lower_bounds_by_hand() -> None:
    x = np.array([0.0, 1.0] * 50)
    # Hoeffding: sqrt(ln 20 / 200) = .122387. Bernstein: variance 25/99, ln 40 = 3.688879, sqrt(2 * .252525 * 3.688879 /
    # 100) = .136494, 7 * 3.688879 / (3 * 99) = .086943. t: 1.660391 * .502519 / 10 = .083438
    assert hoeffding(x, threshold=1.0, level=0.95) == pytest.approx(0.5 - 0.122387, abs=1e-6)
    assert empirical_bernstein(x, threshold=1.0, level=0.95) == pytest.approx(0.5 - 0.136494 - 0.086943, abs=1e-6)
    assert student_t(x, level=0.95) == pytest.approx(0.5 - 0.083438, abs=1e-6)


def test_lower_bounds_hold_as_often_as_they_say() -> None:
    # Weighted returns with a heavy tail: weight 1 / 0.02 with probability 0.02, reward 1; the value is 1.
    misses = {"hoeffding": 0, "empirical_bernstein": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        weight = (rng.random(400) < 0.02) / 0.02
        found = lower_bounds(weight, np.ones(400), level=0.9, rng=rng, least_return=0.0)
        for name in misses:
            misses[name] += found[name] > 1.0
    assert max(misses.values()) <= 20  # a tenth


def test_a_return_below_the_stated_least_is_refused() -> None:
    with pytest.raises(UserError, match="below the least return 0"):
        lower_bounds(np.ones(50), np.full(50, -1.0), level=0.9, rng=np.random.default_rng(0), least_return=0.0)
