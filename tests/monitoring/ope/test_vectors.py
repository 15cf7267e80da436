"""Off-policy evaluation where observations never repeat, and where actions cannot be listed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from policylab.errors import UserError
from policylab.monitoring.ope import Choices, Log, OpeSettings, Target, evaluate_target
from policylab.monitoring.ope.fitted_q import FittedQ
from policylab.monitoring.ope.states import States

Floats = NDArray[np.float64]
HORIZON = 4
SETTINGS = OpeSettings(n_refits=20, n_resamples=500, discount=0.9)


def likes_right(x: Floats, strength: float) -> Floats:
    """Return the probabilities of two actions, shape (..., 2)."""
    right = 1 / (1 + np.exp(-strength * x[..., 0]))
    return np.stack([1 - right, right], axis=-1)


def play(strength: float, n: int, *, seed: int, continuous: bool = False) -> tuple[Log, Floats]:
    """Return a log of a point in the plane, moved by its actions and rewarded for its place, and the returns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    columns: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("s", "a", "r", "n", "p")}
    for _ in range(HORIZON):
        if continuous:
            action = strength * x[:, 0] + 0.5 * rng.standard_normal(n)
            log_p, push = norm.logpdf(action, strength * x[:, 0], 0.5), action
        else:
            chances = likes_right(x, strength)
            action = (rng.random(n) < chances[:, 1]).astype(float)
            log_p, push = np.log(chances[np.arange(n), action.astype(int)]), 2 * action - 1
        after = 0.8 * x + np.column_stack([0.3 * push, 0 * push]) + 0.1 * rng.standard_normal((n, 2))
        reward = after[:, 0] * after[:, 1] + after[:, 0] + 0.1 * rng.standard_normal(n)
        for name, value in zip("sarnp", (x, action, reward, after, log_p), strict=True):
            columns[name].append(value)
        x = after
    table = {name: np.stack(values, axis=1) for name, values in columns.items()}
    flat = {name: value.reshape(n * HORIZON, *value.shape[2:]) for name, value in table.items()}
    last = np.tile(np.arange(HORIZON) == HORIZON - 1, n)
    log = Log(
        observation=flat["s"], action=flat["a"][:, None] if continuous else flat["a"].astype(np.int64),
        reward=flat["r"], next_observation=flat["n"], terminated=np.zeros(len(last), dtype=bool), truncated=last,
        log_propensity=flat["p"], starts=np.arange(n + 1) * HORIZON,
    )  # fmt: skip
    return log, table["r"] @ 0.9 ** np.arange(HORIZON)


def target_on(log: Log, strength: float) -> Target:
    here, after = likes_right(log.observation, strength), likes_right(log.next_observation, strength)
    return Target.of_choices(Choices(log.action, here=here, after=after))


def test_every_estimate_is_near_the_value_that_playing_finds() -> None:
    log, _ = play(0.5, 1_500, seed=0)
    truth = float(play(1.5, 200_000, seed=1)[1].mean())
    found = evaluate_target(log, target_on(log, 1.5), settings=SETTINGS)
    assert States.of(log) is None
    assert set(found.estimates) == {"is", "pdis", "wis", "pdwis", "dr", "wdr", "magic", "dm"}
    assert found.refused == {"mis": "needs observations that repeat"}
    for name, interval in found.estimates.items():
        half = 1.6 * max(interval.high - interval.value, interval.value - interval.low)
        assert abs(interval.value - truth) <= half + (0.05 if name == "dm" else 0.0), (name, str(interval), truth)
    # A model takes variance away.
    width = {name: interval.high - interval.low for name, interval in found.estimates.items()}
    assert width["dr"] < 0.85 * width["pdis"]


def test_fitted_q_learns_a_curved_function() -> None:
    log, _ = play(0.5, 3_000, seed=2)
    target = target_on(log, 1.5)
    model = FittedQ(log, target.choices, states=None, discount=0.9, horizon=HORIZON)
    guesses = model.guesses()
    last = log.step == HORIZON - 1
    # One step left: E[r | s, a] = x y + x at the mean of the next place (noise in x and y is independent).
    place = 0.8 * log.observation + np.column_stack([0.3 * (2.0 * log.action - 1), 0.0 * log.action])
    expected = place[:, 0] * place[:, 1] + place[:, 0]
    assert np.corrcoef(guesses.action_value[last], expected[last])[0, 1] > 0.97


def test_the_same_seed_makes_the_same_model() -> None:
    log, _ = play(0.5, 200, seed=3)
    choices = target_on(log, 1.5).choices
    first, second = (
        FittedQ(log, choices, states=None, discount=0.9, horizon=HORIZON, seed=4).cross_fitted() for _ in range(2)
    )
    assert np.array_equal(first.value, second.value)


def test_continuous_actions_have_importance_sampling_estimates_only() -> None:
    log, _ = play(0.3, 3_000, seed=5, continuous=True)
    truth = float(play(0.4, 200_000, seed=6, continuous=True)[1].mean())
    log_probability = norm.logpdf(log.action[:, 0], 0.4 * log.observation[:, 0], 0.5)
    found = evaluate_target(log, Target(log_probability), settings=SETTINGS)
    assert set(found.estimates) == {"is", "pdis", "wis", "pdwis"}
    assert set(found.refused) == {"dr", "wdr", "magic", "dm", "mis"}
    assert found.answer == "pdwis"
    for interval in found.estimates.values():
        half = 1.6 * max(interval.high - interval.value, interval.value - interval.low)
        assert abs(interval.value - truth) <= half


def test_values_that_grow_without_end_are_refused() -> None:
    here = np.array([0, 1])
    log = Log(
        observation=here, action=np.zeros(2, dtype=np.int64), reward=np.ones(2), next_observation=here[::-1],
        terminated=np.zeros(2, dtype=bool), truncated=np.array([False, True]), log_propensity=np.zeros(2),
        starts=np.array([0, 2]),
    )  # fmt: skip
    choices = Choices(log.action, here=np.ones((2, 1)), after=np.ones((2, 1)))
    model = FittedQ(log, choices, states=States.of(log), discount=1.0, horizon=None)
    with pytest.raises(UserError, match="still change after 10000 sweeps"):
        model.guesses()
    assert FittedQ(log, choices, states=States.of(log), discount=0.5, horizon=None).guesses().value == pytest.approx(2)
    assert FittedQ(log, choices, states=States.of(log), discount=1.0, horizon=7).guesses().value.tolist() == [7, 6]
