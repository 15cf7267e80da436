"""The expectation of every estimator over all trajectories of a small process is the exact value."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from policylab.envs import evaluate_policy, table_of
from policylab.envs.textbook.blackjack import OBSERVATION_SHAPE, observed_policy
from policylab.monitoring.ope import Trajectories, magic
from policylab.monitoring.ope.bandit import (
    Decisions,
    doubly_robust,
    ips,
    self_normalised_doubly_robust,
    shrunk_doubly_robust,
    snips,
    switch_doubly_robust,
)
from policylab.monitoring.ope.estimators import ESTIMATORS, direct_method
from policylab.monitoring.ope.fitted_q import FittedQ
from policylab.monitoring.ope.marginalised import marginalised
from policylab.monitoring.ope.states import States

HORIZON, DISCOUNT = 4, 0.9
UNBIASED = ("is", "pdis", "dr")


@pytest.fixture(scope="module", params=[0, 1, 2])
def world(request: pytest.FixtureRequest, exact: SimpleNamespace) -> SimpleNamespace:
    mdp = exact.random_mdp(request.param)
    behaviour, policy = exact.random_policy(10 + request.param), exact.random_policy(20 + request.param)
    episodes, probabilities = exact.trajectories(mdp, behaviour, horizon=HORIZON)
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    log = exact.log_of(episodes, behaviour)
    target = exact.target_of(log, policy)
    return SimpleNamespace(
        mdp=mdp, behaviour=behaviour, policy=policy, log=log, target=target, share=probabilities[None],
        ratio=target.log_probability - log.log_propensity,
        value=exact.true_value(mdp, policy, discount=DISCOUNT, horizon=HORIZON),
    )  # fmt: skip


def model(world: SimpleNamespace) -> FittedQ:
    states = States.of(world.log)
    return FittedQ(world.log, world.target.choices, states=states, discount=DISCOUNT, horizon=HORIZON)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_expectation_is_the_exact_value_with_any_model(world: SimpleNamespace, name: str) -> None:
    # Ratio estimators: the ratio of exact expectations, their limit. DR and WDR: with a Q that is plain wrong.
    q = np.random.default_rng(5).normal(size=world.policy.shape)
    of = Trajectories.of(
        world.log, world.ratio, discount=DISCOUNT,
        action_value=q[world.log.observation, world.log.action],
        value=(world.policy * q).sum(axis=1)[world.log.observation],
    )  # fmt: skip
    assert ESTIMATORS[name](of, world.share)[0] == pytest.approx(world.value, abs=1e-12)


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_means_so_for_every_sample_size(world: SimpleNamespace, name: str, exact: SimpleNamespace) -> None:
    # Two episodes drawn independently: the mean over all pairs of the estimate from the pair.
    episodes, p = exact.trajectories(world.mdp, world.behaviour, horizon=2)
    log = exact.log_of(episodes, world.behaviour)
    ratio = exact.target_of(log, world.policy).log_probability - log.log_propensity
    of = Trajectories.of(log, ratio, discount=DISCOUNT)
    n = len(p)
    pairs = (np.eye(n)[:, None, :] + np.eye(n)[None, :, :]).reshape(n * n, n) / 2
    mean = np.outer(p, p).ravel() @ ESTIMATORS[name](of, pairs)
    assert mean == pytest.approx(exact.true_value(world.mdp, world.policy, discount=DISCOUNT, horizon=2), abs=1e-12)


def test_weighted_estimators_are_biased_for_two_episodes(world: SimpleNamespace, exact: SimpleNamespace) -> None:
    # ... which says that the test above can fail.
    episodes, p = exact.trajectories(world.mdp, world.behaviour, horizon=2)
    log = exact.log_of(episodes, world.behaviour)
    ratio = exact.target_of(log, world.policy).log_probability - log.log_propensity
    n = len(p)
    pairs = (np.eye(n)[:, None, :] + np.eye(n)[None, :, :]).reshape(n * n, n) / 2
    mean = np.outer(p, p).ravel() @ ESTIMATORS["wis"](Trajectories.of(log, ratio, discount=DISCOUNT), pairs)
    assert abs(mean - exact.true_value(world.mdp, world.policy, discount=DISCOUNT, horizon=2)) > 1e-3


def test_fitted_q_finds_the_exact_values_and_makes_dm_and_dr_exact(world: SimpleNamespace) -> None:
    weight = world.share[0] * world.log.n_episodes
    guesses = model(world).guesses(weight)
    of_state = [evaluate_policy(world.mdp, world.policy, discount=DISCOUNT, horizon=left) for left in range(1, 5)]
    expected = np.array(of_state)[HORIZON - world.log.step - 1, world.log.observation]
    assert guesses.value == pytest.approx(expected, abs=1e-12)
    of = Trajectories.of(
        world.log, world.ratio, discount=DISCOUNT, action_value=guesses.action_value, value=guesses.value
    )
    assert direct_method(of, world.share)[0] == pytest.approx(world.value, abs=1e-12)
    # With the exact Q, the doubly robust terms of every single step have mean 0 beyond V(s_0).
    assert ESTIMATORS["dr"](of, world.share)[0] == pytest.approx(world.value, abs=1e-12)


def test_fitted_q_without_a_limit_is_the_exact_value(exact: SimpleNamespace) -> None:
    mdp, behaviour, policy = exact.random_mdp(3), exact.random_policy(4), exact.random_policy(5)
    episodes, p = exact.trajectories(mdp, behaviour, horizon=3)
    log = exact.log_of(episodes, behaviour)
    target = exact.target_of(log, policy)
    guesses = FittedQ(log, target.choices, states=States.of(log), discount=0.8, horizon=None).guesses(p)
    assert guesses.value == pytest.approx(evaluate_policy(mdp, policy, discount=0.8)[log.observation], abs=1e-8)


def test_the_marginalised_estimator_is_exact(world: SimpleNamespace) -> None:
    states = States.of(world.log)
    assert states is not None
    found = marginalised(world.log, world.ratio, states=states, discount=DISCOUNT, share=world.share)
    assert found[0] == pytest.approx(world.value, abs=1e-12)


def test_the_j_step_returns_lead_from_the_model_to_wdr(world: SimpleNamespace) -> None:
    guesses = model(world).cross_fitted()
    of = Trajectories.of(
        world.log, world.ratio, discount=DISCOUNT, action_value=guesses.action_value, value=guesses.value
    )
    even = np.full((1, of.n_episodes), 1 / of.n_episodes)
    returns = magic.j_step_returns(of, steps=np.arange(-1, HORIZON)).sum(axis=0)
    assert returns[0] == pytest.approx(direct_method(of, even)[0], abs=1e-12)
    assert returns[-1] == pytest.approx(ESTIMATORS["wdr"](of, even)[0], abs=1e-12)


def test_every_policy_evaluates_itself(world: SimpleNamespace, exact: SimpleNamespace) -> None:
    target = exact.target_of(world.log, world.behaviour)
    of = Trajectories.of(world.log, target.log_probability - world.log.log_propensity, discount=DISCOUNT)
    assert of.weight == pytest.approx(1.0)
    for name in ("is", "pdis", "wis", "pdwis"):
        assert ESTIMATORS[name](of, world.share)[0] == pytest.approx((world.share @ of.reward.sum(axis=1))[0])


def test_blackjack_state_of_sutton_and_barto(exact: SimpleNamespace) -> None:
    # Example 5.4 (2nd edition, page 106): dealer shows a deuce, player 13 with a usable ace, behaviour random, target
    # sticks on 20 or 21: value -0.27726 by a hundred million episodes, whose standard error is 1e-4.
    # Episodes the target would never play have weight 0 and need not be listed.
    table = table_of(gym.make("Blackjack-v1", sab=True).unwrapped)
    start = int(np.ravel_multi_index((13, 2, 1), OBSERVATION_SHAPE))
    mdp = dataclasses.replace(table, initial_distribution=np.eye(table.n_states)[start])
    total = np.arange(table.n_states) // (11 * 2)
    policy = np.eye(2)[observed_policy((total < 20).astype(int))]
    behaviour = np.full(policy.shape, 0.5)
    episodes, under_target = exact.trajectories(mdp, policy, horizon=30)
    log = exact.log_of(episodes, behaviour)
    share = (under_target * 0.5**log.lengths)[None]
    of = Trajectories.of(log, exact.target_of(log, policy).log_probability - log.log_propensity, discount=1.0)
    for name in ("is", "pdis"):
        assert ESTIMATORS[name](of, share)[0] == pytest.approx(-0.27726, abs=3e-4)


def test_bandit_forms_are_exact(exact: SimpleNamespace) -> None:
    mdp = exact.random_mdp(7, n_actions=3)
    behaviour, policy = exact.random_policy(8, n_actions=3), exact.random_policy(9, n_actions=3)
    episodes, p = exact.trajectories(mdp, behaviour, horizon=1)
    log = exact.log_of(episodes, behaviour)
    target = exact.target_of(log, policy)
    q = np.random.default_rng(1).normal(size=policy.shape)
    of = Decisions(
        np.exp(target.log_probability - log.log_propensity), log.reward,
        action_value=q[log.observation, log.action], value=(policy * q).sum(axis=1)[log.observation],
    )  # fmt: skip
    value = exact.true_value(mdp, policy, discount=1.0, horizon=1)
    for estimator in (ips, snips, doubly_robust, self_normalised_doubly_robust):
        assert estimator(of, p[None])[0] == pytest.approx(value, abs=1e-12)
    # Above every ratio Switch-DR is DR, below every one it is the model; so is shrinkage at its two ends.
    model = p @ of.value
    assert switch_doubly_robust(of, p[None], threshold=1e9)[0] == pytest.approx(value, abs=1e-12)
    assert switch_doubly_robust(of, p[None], threshold=1e-9)[0] == pytest.approx(model, abs=1e-12)
    assert shrunk_doubly_robust(of, p[None], shrinkage=1e12)[0] == pytest.approx(value, abs=1e-6)
    assert shrunk_doubly_robust(of, p[None], shrinkage=1e-12)[0] == pytest.approx(model, abs=1e-6)


def test_the_blend_is_the_least_of_the_simplex() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 6):
        root = rng.normal(size=(size, size + 1))
        matrix = root @ root.T
        x = magic.least_in_simplex(matrix)
        assert (x >= 0).all()
        assert x.sum() == pytest.approx(1.0)
        # Optimality on the simplex: no vertex is downhill (Frank and Wolfe 1956).
        gradient = matrix @ x
        assert gradient.min() >= x @ gradient - 1e-9 * np.abs(matrix).max()


def test_magic_trusts_a_model_that_is_right_and_not_one_that_is_wrong(world: SimpleNamespace) -> None:
    rng = np.random.default_rng(1)
    episodes = rng.choice(world.log.n_episodes, 400, p=world.share[0])
    log = world.log.take(episodes)
    ratio = world.ratio[np.concatenate([np.arange(*world.log.starts[i : i + 2]) for i in episodes])]
    left = HORIZON - log.step - 1
    v = np.array([evaluate_policy(world.mdp, world.policy, discount=DISCOUNT, horizon=h + 1) for h in range(HORIZON)])
    after = np.concatenate([np.zeros((1, len(v[0]))), v[:-1]])
    p, r, to, end = world.mdp.probability, world.mdp.reward, world.mdp.next_state, world.mdp.terminated
    q = np.array([(p * (r + DISCOUNT * ~end * row[to])).sum(axis=2) for row in after])
    resampled = rng.multinomial(400, np.full(400, 1 / 400), size=200) / 400

    def blend(shift: float) -> NDArray[np.float64]:
        of = Trajectories.of(
            log, ratio, discount=DISCOUNT, action_value=q[left, log.observation, log.action] + shift,
            value=v[left, log.observation] + shift,
        )  # fmt: skip
        return magic.magic(of, resampled=resampled)[2]

    assert blend(0.0)[0] > 0.1  # the direct method's share
    assert blend(5.0)[0] < 0.01
