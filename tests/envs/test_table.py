"""Tables: what is accepted, what is refused, and that a false one is found out."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.toy_text.utils import categorical_sample
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.envs.enumeration import EnumerableModel, has_table, table_of, table_refusal, time_limit
from policylab.envs.table import TabularMDP
from policylab.envs.table_check import check_table
from policylab.errors import EnvironmentRuleError

TAXI = "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"
WITH_TABLE = [
    ("FrozenLake-v1", {}),
    ("FrozenLake8x8-v1", {"is_slippery": False}),
    (TAXI, {}),
    (TAXI, {"is_rainy": True}),
    ("CliffWalking-v1", {}),
    ("CliffWalkingSlippery-v1", {}),
    ("Blackjack-v1", {}),
    ("Blackjack-v1", {"sab": False, "natural": False}),
    ("Blackjack-v1", {"sab": False, "natural": True}),
]


class CoinWalk(gym.Env):
    """A walk on 0..4 described by a model instead of P; states are strings."""

    n_states = 6

    def __init__(self, aliased=False):
        self.observation_space = gym.spaces.Discrete(6)
        self.action_space = gym.spaces.Discrete(2)
        self.aliased = aliased

    def initial_outcomes(self):
        return [(0.5, "2"), (0.5, "1")]

    def transitions(self, state, action):
        here = int(state)
        rows = []
        for probability, target in ((0.9, here + (1 if action else -1)), (0.1, here)):
            ends = target in (0, 4)
            rows.append((probability, str(target), float(target == 4), ends))
        return rows

    def encode(self, state):
        return min(int(state), 2) if self.aliased else int(state)


@pytest.mark.parametrize(("env_id", "kwargs"), WITH_TABLE)
def test_table_agrees_with_simulation(env_id, kwargs):
    env = gym.make(env_id, **kwargs)
    check_table(env, table_of(env), n_steps=20_000, rng=np.random.default_rng(1))


def test_table_has_the_shapes_limit_and_name_of_its_environment():
    mdp = table_of(gym.make("FrozenLake-v1"))
    assert (mdp.n_states, mdp.n_actions, mdp.probability.shape[2]) == (16, 4, 3)
    assert (mdp.env_id, mdp.max_episode_steps) == ("FrozenLake-v1", 100)
    assert table_of(gym.make("FrozenLake-v1", max_episode_steps=7)).max_episode_steps == 7
    assert table_of(gym.make("FrozenLake-v1").unwrapped).max_episode_steps is None
    assert mdp.next_state.dtype == np.int32
    for name in ("probability", "next_state", "reward", "terminated", "initial_distribution"):
        array = getattr(mdp, name)
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


@given(
    seed=st.integers(0, 2**32 - 1),
    uniform=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=200, deadline=None)
def test_cumulative_sampling_of_a_padded_row_picks_what_gymnasium_picks(seed, uniform):
    rng = np.random.default_rng(seed)
    weights = rng.random(rng.integers(1, 6)) * (rng.random() < 0.9) + 1e-3
    weights /= weights.sum()
    row = [(float(p), k, float(k), False) for k, p in enumerate(weights)]
    table = {s: {0: [(1.0, s, 0.0, True)] * 1} for s in range(8)}
    table[0] = {0: row}
    table[1] = {0: [(0.125, s, 0.0, False) for s in range(8)]}  # makes padding for the other rows
    mdp = TabularMDP.from_outcomes(table, np.eye(8)[0])

    class Fixed:
        def random(self):
            return uniform

    ours = int(np.argmax(np.cumsum(mdp.probability[0, 0]) > uniform))
    assert ours == categorical_sample([p for p, *_ in row], Fixed())


def row(*outcomes):
    return {0: {0: list(outcomes)}, 1: {0: [(1.0, 1, 0.0, True)]}}


@pytest.mark.parametrize(
    ("table", "initial", "message"),
    [
        (row((0.9, 1, 0.0, True)), [1, 0], r"sum to 1, got \[0.9\] in state 0, action 0"),
        (row((1.5, 1, 0.0, True), (-0.5, 1, 0.0, True)), [1, 0], ">= 0 and sum to 1"),
        (row((float("nan"), 1, 0.0, True)), [1, 0], ">= 0 and sum to 1"),
        (row((1.0, 2, 0.0, True)), [1, 0], r"integers in 0 \.\. 1, got \[2.0\]"),
        (row((1.0, -1, 0.0, True)), [1, 0], r"integers in 0 \.\. 1"),
        (row((1.0, 0.5, 0.0, True)), [1, 0], r"integers in 0 \.\. 1"),
        (row((1.0, 1, float("inf"), True)), [1, 0], "rewards must be finite"),
        (row(), [1, 0], "at least one outcome"),
        (row((1.0, 1, 0.0)), [1, 0], "outcome of four parts"),
        ({0: {0: [(1.0, 0, 0.0, True)]}, 2: {0: []}}, [1, 0], "numbered from 0 without gaps"),
        ({0: {0: [(1.0, 0, 0.0, True)]}, 1: {}}, [1, 0], "numbered from 0 without gaps"),
        (row((1.0, 1, "x", True)), [1, 0], r"must be a list of \(probability"),
        (row((1.0, 1, 0.0, True)), [1], r"shape \(2,\), got \(1,\)"),
        (row((1.0, 1, 0.0, True)), [0.5, 0.4], "sum to 1, got the sum 0.9"),
        (row((1.0, 1, 0.0, True)), [1.5, -0.5], "must be >= 0"),
    ],
)
def test_a_broken_table_is_refused_with_its_place(table, initial, message):
    with pytest.raises(EnvironmentRuleError, match=message):
        TabularMDP.from_outcomes(table, initial, env_id="Broken-v0")


def test_a_model_is_enumerated_from_its_first_states():
    env = CoinWalk()
    assert isinstance(env, EnumerableModel)
    mdp = table_of(env)
    assert mdp.probability.shape == (6, 2, 2)
    assert mdp.initial_distribution.tolist() == [0, 0.5, 0.5, 0, 0, 0]
    assert mdp.next_state[3, 1].tolist() == [4, 3]
    assert mdp.reward[3, 1].tolist() == [1.0, 0.0]
    assert mdp.terminated[3, 1].tolist() == [True, False]
    assert mdp.terminated[5].all()
    assert not mdp.reward[5].any()


def test_a_model_whose_observations_alias_states_is_refused():
    with pytest.raises(EnvironmentRuleError, match="'2' and '3' share observation 2"):
        table_of(CoinWalk(aliased=True))


@pytest.mark.parametrize(
    ("env_id", "kwargs", "reason"),
    [
        ("CartPole-v1", {}, "neither P and initial_state_distrib"),
        ("Pendulum-v1", {}, "not Discrete"),
        (TAXI, {"fickle_passenger": True}, "fickle_passenger=False"),
        ("policylab/BlockingMaze-v0", {}, "dynamics change"),
        ("policylab/MaximizationBias-v0", {}, "mean_rewards=True"),
        ("policylab/ShortCorridor-v0", {}, "do not tell its states apart"),
    ],
)
def test_no_table_comes_with_a_reason(env_id, kwargs, reason):
    env = gym.make(env_id, **kwargs)
    assert not has_table(env)
    with pytest.raises(EnvironmentRuleError, match=f"{env_id} has no exact table: .*{reason}"):
        table_of(env)


def test_mean_rewards_are_accepted_for_planning_when_asked_for():
    env = gym.make("policylab/MaximizationBias-v0")
    assert has_table(env, mean_rewards=True)
    assert table_of(env, mean_rewards=True).reward.min() == -0.1


def test_a_wrapper_that_may_change_the_environment_hides_its_table():
    env = gym.wrappers.TransformReward(gym.make("FrozenLake-v1"), lambda reward: 2 * reward)
    assert "TransformReward" in (table_refusal(env) or "")
    assert has_table(gym.wrappers.RecordEpisodeStatistics(gym.make("FrozenLake-v1")))


def test_a_table_over_the_limit_is_refused():
    with pytest.raises(EnvironmentRuleError, match="S x A x K = 192 exceeds the limit of 100"):
        table_of(gym.make("FrozenLake-v1"), max_entries=100)
    walk = CoinWalk()
    walk.n_states = 5
    assert table_of(walk, max_entries=12).n_states == 5
    with pytest.raises(EnvironmentRuleError, match="more than 11 outcomes"):
        table_of(walk, max_entries=11)


def test_the_innermost_of_several_time_limits_counts():
    env = gym.wrappers.TimeLimit(gym.make("FrozenLake-v1", max_episode_steps=20), 50)
    assert time_limit(env) == 20


def test_the_false_table_of_a_fickle_passenger_is_contradicted():
    env = gym.make(TAXI, fickle_passenger=True)
    base = env.unwrapped
    mdp = TabularMDP.from_outcomes(base.P, base.initial_state_distrib)
    with pytest.raises(EnvironmentRuleError, match=r"table of Taxi-v. is false: action \d in state \d+ led to"):
        check_table(env, mdp, n_steps=100_000, rng=np.random.default_rng(0))


def test_wrong_probabilities_rewards_and_starts_are_contradicted():
    env = gym.make("FrozenLake-v1")
    base = env.unwrapped

    def changed(edit):
        return {s: {a: [edit(*o, k) for k, o in enumerate(outcomes)] for a, outcomes in acts.items()}
                for s, acts in base.P.items()}  # fmt: skip

    def tilt(p, s, r, t, k):
        return (p, s, r, t) if p == 1 else ((0.4, 0.3, 0.3)[k], s, r, t)

    start = base.initial_state_distrib
    rng = np.random.default_rng(0)
    with pytest.raises(EnvironmentRuleError, match="probabilities do not fit 20000 simulated steps"):
        check_table(env, TabularMDP.from_outcomes(changed(tilt), start), n_steps=20_000, rng=rng)
    paid = changed(lambda p, s, r, t, k: (p, s, r - 1, t))
    with pytest.raises(EnvironmentRuleError, match="excludes"):
        check_table(env, TabularMDP.from_outcomes(paid, start), n_steps=1000, rng=rng)
    with pytest.raises(EnvironmentRuleError, match="started in state 0"):
        check_table(env, TabularMDP.from_outcomes(base.P, np.eye(16)[1]), n_steps=1000, rng=rng)
