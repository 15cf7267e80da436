"""Stored policies: acting, probabilities and their agreement, and rebuilding from parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from policylab.agents.features import AutoFeatures, IndexEncoder, TilesFeatures, make_encoder
from policylab.agents.policy import POLICIES, StoredPolicy, policy_from
from policylab.agents.value_policies import BanditPolicy, TabularPolicy, action_probabilities
from policylab.errors import UnknownNameError, UserError
from policylab.seeding import generator

WEIGHTS = np.array([[0.0, 2.0, 2.0], [1.0, 0.0, -1.0]])
ENCODER = IndexEncoder([2], [0])


def policies() -> list[StoredPolicy]:
    box = make_encoder(TilesFeatures(n_tilings=4, n_tiles=2), spaces.Box(-1, 1, (2,)))
    tile_weights = np.random.default_rng(0).normal(size=(box.n_features, 4))
    return [
        TabularPolicy(WEIGHTS, ENCODER),
        TabularPolicy(WEIGHTS, ENCODER, epsilon=0.3, first_action=-1),
        TabularPolicy(tile_weights, box, temperature=0.5),
        BanditPolicy(np.array([0.1, 0.9, -2.0])),
        BanditPolicy(np.array([0.1, 0.9, -2.0]), temperature=1.0),
    ]


def observation_for(policy: StoredPolicy) -> Any:
    return np.array([0.3, -0.2], np.float32) if getattr(policy, "temperature", None) == 0.5 else 1


def test_greedy_takes_the_first_of_tied_actions_with_and_without_a_generator() -> None:
    policy = TabularPolicy(WEIGHTS, ENCODER)
    assert policy.probabilities(0).tolist() == [0.0, 1.0, 0.0]
    assert {policy.act(0, rng=generator(seed, "act")) for seed in range(20)} == {policy.act(0)} == {1}


def test_epsilon_spreads_over_all_actions() -> None:
    assert action_probabilities(WEIGHTS[1], epsilon=0.3).tolist() == pytest.approx([0.8, 0.1, 0.1])


def test_softmax_probabilities_follow_the_definition() -> None:
    expected = np.exp(WEIGHTS[1] / 0.5) / np.exp(WEIGHTS[1] / 0.5).sum()
    assert action_probabilities(WEIGHTS[1], temperature=0.5).tolist() == pytest.approx(expected.tolist())


@given(
    values=arrays(np.float64, st.integers(1, 8), elements=st.floats(-1e6, 1e6)),
    epsilon=st.floats(0, 1),
    temperature=st.none() | st.floats(1e-320, 1e3, exclude_min=True),
)
def test_probabilities_sum_to_one_and_favour_the_greedy_action(
    values: Any, epsilon: float, temperature: float | None
) -> None:
    found = action_probabilities(values, epsilon=epsilon, temperature=temperature)
    assert found.sum() == pytest.approx(1.0)
    assert found.min() >= 0.0
    assert found[values.argmax()] == found.max()


def test_sampled_actions_have_the_stated_probabilities() -> None:
    policy = TabularPolicy(WEIGHTS, ENCODER, epsilon=0.3)
    rng = generator(0, "act")
    n_draws = 20_000
    counts = np.bincount([policy.act(1, rng=rng) for _ in range(n_draws)], minlength=3)
    expected = policy.probabilities(1) * n_draws
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # chi-square, 2 degrees of freedom, p = 0.001


@pytest.mark.parametrize("policy", policies(), ids=lambda policy: policy.kind)
def test_a_policy_rebuilt_from_its_parts_is_the_same(policy: StoredPolicy) -> None:
    rebuilt = policy_from(policy.kind, policy.config(), arrays=policy.arrays())
    observation = observation_for(policy)
    assert type(rebuilt) is POLICIES.load(policy.kind)
    assert rebuilt.probabilities(observation).tolist() == policy.probabilities(observation).tolist()
    assert rebuilt.act(observation) == policy.act(observation)
    assert rebuilt.config() == policy.config()


def test_tile_values_are_the_sum_of_the_active_rows() -> None:
    encoder = make_encoder(TilesFeatures(n_tilings=4, n_tiles=2), spaces.Box(-1, 1, (1,)))
    policy = TabularPolicy(np.arange(encoder.n_features, dtype=float)[:, None] * [1.0, -1.0], encoder)
    total = float(encoder.encode([0.1]).sum())
    assert policy.values([0.1]).tolist() == [total, -total]
    assert policy.act([0.1]) == 0


def test_act_batch_equals_single_acts_and_returns_action_types() -> None:
    policy = TabularPolicy(WEIGHTS, ENCODER)
    assert policy.act_batch([0, 1, 1]).tolist() == [policy.act(0), policy.act(1), policy.act(1)]
    assert type(policy.act(0)) is int


def test_actions_count_from_the_first_action_of_the_environment() -> None:
    policy = TabularPolicy(WEIGHTS, ENCODER, epsilon=0.5, first_action=5)
    assert policy.act(0) == 6
    assert {policy.act(0, rng=generator(seed, "act")) for seed in range(50)} == {5, 6, 7}


def test_a_policy_does_not_change_with_the_learner_it_came_from() -> None:
    table = WEIGHTS.copy()
    policy = TabularPolicy(table, ENCODER)
    table[0] = [9.0, 0.0, 0.0]
    assert policy.act(0) == 1
    with pytest.raises(ValueError, match="read-only"):
        policy.weights[0, 0] = 1.0


@pytest.mark.parametrize("shape", [(3, 3), (2,), (2, 0), (2, 3, 1)])
def test_weights_that_do_not_fit_the_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"weights must have shape \(2, n_actions\)"):
        TabularPolicy(np.zeros(shape), ENCODER)


FEATURES = make_encoder(AutoFeatures(), spaces.Discrete(2)).settings()


@pytest.mark.parametrize(
    ("kind", "config", "parts", "message"),
    [
        ("tabular", {"features": FEATURES}, {}, "exactly one float64 array named 'weights', got none"),
        ("tabular", {"features": FEATURES}, {"weights": WEIGHTS.astype(np.float32)}, r"got weights \(float32\)"),
        ("tabular", {"features": FEATURES}, {"weights": WEIGHTS, "more": WEIGHTS}, "exactly one float64 array"),
        ("tabular", {}, {"weights": WEIGHTS}, "policy config: features: Field required"),
        ("tabular", {"features": FEATURES, "epsilon": 2}, {"weights": WEIGHTS}, "policy config: epsilon"),
        ("tabular", {"features": {"kind": "x"}}, {"weights": WEIGHTS}, "features do not describe an encoder"),
        ("bandit", {"temperature": 0}, {"values": np.zeros(2)}, "policy config: temperature"),
        ("bandit", {}, {"values": np.zeros((2, 2))}, r"shape \(n_actions,\)"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(
    kind: str, config: dict[str, Any], parts: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        policy_from(kind, config, arrays=parts)


def test_an_unknown_kind_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="unknown policy 'tabula'; did you mean 'tabular'"):
        policy_from("tabula", {}, arrays={})


def test_a_drawn_action_comes_with_its_log_probability() -> None:
    policy = BanditPolicy(WEIGHTS[1], temperature=0.5)
    for seed in range(20):
        action, log_probability = policy.sample(0, generator(seed, "act"))
        assert action == policy.act(0, rng=generator(seed, "act"))
        assert log_probability == pytest.approx(np.log(policy.probabilities(0)[action]))


def test_an_action_that_is_never_taken_has_log_probability_minus_infinity() -> None:
    greedy = TabularPolicy(WEIGHTS, make_encoder(AutoFeatures(), spaces.Discrete(2)), first_action=5)
    best = greedy.act(0)
    assert greedy.log_probability(0, best) == 0.0
    others = [action for action in (4, 5, 6, 7, 8) if action != best]
    assert {greedy.log_probability(0, action) for action in others} == {-np.inf}


MASK = np.array([True, False, True])


@pytest.mark.parametrize("policy", policies(), ids=lambda policy: policy.kind)
def test_a_mask_takes_away_all_probability(policy: Any) -> None:
    seen = observation_for(policy)
    mask = np.ones(len(policy.probabilities(seen)), dtype=np.bool_)
    mask[int(policy.probabilities(seen).argmax())] = False
    for greedy in (False, True):
        found = policy.probabilities(seen, mask=mask, greedy=greedy)
        assert found.sum() == pytest.approx(1.0)
        assert (found[~mask] == 0.0).all()
    assert policy.probabilities(seen, mask=mask, greedy=True).max() == 1.0
    batch = policy.probabilities_batch([seen, seen], masks=[mask, None])
    assert (batch == np.stack([policy.probabilities(seen, mask=mask), policy.probabilities(seen)])).all()


def test_epsilon_spreads_over_allowed_actions() -> None:
    policy = TabularPolicy(WEIGHTS, ENCODER, epsilon=0.2)
    assert policy.probabilities(0, mask=MASK) == pytest.approx(np.array([0.1, 0.0, 0.9]))
    assert policy.probabilities(0, mask=MASK, greedy=True).tolist() == [0.0, 0.0, 1.0]
