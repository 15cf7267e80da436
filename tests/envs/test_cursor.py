"""A saved position continues exactly as if nothing had happened."""

import json

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.envs.cursor import EpisodeCursor
from policylab.errors import CheckpointError, EnvironmentRuleError
from policylab.seeding import generator, generator_state

TAXI = "Taxi-v4" if "Taxi-v4" in gym.registry else "Taxi-v3"
ENVS = [
    "FrozenLake-v1",
    TAXI,
    "CliffWalking-v1",
    "Blackjack-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "Pendulum-v1",
    "policylab/CatMouse-v0",
    "policylab/BlockingMaze-v0",
    "policylab/DriftingBandit-v0",
    "policylab/MaximizationBias-v0",
]


def make(env_id):
    kwargs = {"change_at": 30} if "Blocking" in env_id else {}
    return gym.make(env_id, disable_env_checker=True, max_episode_steps=40, **kwargs)


def actions_of(env, n, *, seed):
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(n)]


def play(cursor, actions):
    """Step through ``actions``, resetting where due; return everything seen."""
    seen = []
    for action in actions:
        if cursor.over:
            seen.append(cursor.reset())
        observation, reward, terminated, truncated, _ = cursor.step(action)
        seen.append((observation, reward, terminated, truncated))
    return seen


def flat(seen):
    return json.dumps(seen, default=lambda value: value.tolist())


def through_disk(state):
    """What a checkpoint does to a state: arrays keep, the rest becomes JSON."""
    arrays = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    rest = json.loads(json.dumps({key: value for key, value in state.items() if key not in arrays}))
    return {**arrays, **rest}


@pytest.mark.parametrize("env_id", ENVS)
@given(stop=st.integers(0, 120), seed=st.integers(0, 2**20))
@settings(max_examples=8, deadline=None)
def test_continuing_equals_never_having_stopped(env_id, stop, seed):
    actions = actions_of(make(env_id), 160, seed=seed)
    whole = EpisodeCursor(make(env_id), generator(seed, "environment"))
    play(whole, actions[:stop])
    state = through_disk(whole.state())
    expected = play(whole, actions[stop:])

    resumed = EpisodeCursor(make(env_id), generator(seed + 1, "elsewhere"))
    play(resumed, actions[:7])
    resumed.restore(state)
    assert resumed.over == bool(state["over"])
    assert flat(play(resumed, actions[stop:])) == flat(expected)
    assert flat(list(resumed.state().values())) == flat(list(whole.state().values()))


def test_saving_twice_in_a_row_gives_the_same_state():
    cursor = EpisodeCursor(make("Blackjack-v1"), generator(3, "environment"))
    play(cursor, [1, 0, 1])
    before = flat(list(cursor.state().values()))
    cursor.restore(cursor.state())
    assert flat(list(cursor.state().values())) == before


def test_the_position_before_the_first_episode_can_be_saved():
    cursor = EpisodeCursor(make("FrozenLake-v1"), generator(3, "environment"))
    state = cursor.state()
    expected = flat(play(cursor, [2] * 20))
    other = EpisodeCursor(make("FrozenLake-v1"), generator(9, "environment"))
    other.restore(state)
    assert flat(list(other.state().values())) == flat(list(state.values()))
    assert flat(play(other, [2] * 20)) == expected


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("FrozenLake-v1", {}),
        ("FrozenLake-v1", {"is_slippery": False}),
        (TAXI, {}),
        ("CliffWalking-v1", {}),
        ("CliffWalkingSlippery-v1", {}),
        ("policylab/CatMouse-v0", {}),
        ("policylab/GridWorld-v0", {}),
        ("policylab/Gambler-v0", {}),
    ],
)
def test_one_uniform_number_is_drawn_per_reset_and_per_step(env_id, kwargs):
    # The compiled loops over a table rely on it: they draw the same numbers from the same stream.
    env = gym.make(env_id, max_episode_steps=60, **kwargs)
    cursor = EpisodeCursor(env, rng := generator(11, "environment"))
    shadow = generator(11, "environment")
    assert (generator_state(rng) == generator_state(shadow)).all()
    for action in actions_of(env, 300, seed=1):
        if cursor.over:
            cursor.reset()
            shadow.random()
            assert (generator_state(rng) == generator_state(shadow)).all()
        cursor.step(action)
        shadow.random()
        assert (generator_state(rng) == generator_state(shadow)).all()


class Unfaithful(gym.Env):
    """Draws on randomness of its own."""

    observation_space = gym.spaces.Box(0, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        own = np.random.default_rng()
        return own.random(1, dtype=np.float32), 0.0, False, False, {}


def test_an_environment_that_is_not_reproducible_is_found_out():
    cursor = EpisodeCursor(Unfaithful(), generator(0, "environment"))
    play(cursor, [0, 1])
    with pytest.raises(CheckpointError, match="Unfaithful cannot be put back where it was: replaying 2 actions"):
        cursor.restore(cursor.state())


def test_the_state_of_another_environment_is_refused():
    cursor = EpisodeCursor(make(TAXI), generator(0, "environment"))
    play(cursor, [0, 1, 5, 4])
    with pytest.raises(CheckpointError, match="FrozenLake-v1 cannot be put back"):
        EpisodeCursor(make("FrozenLake-v1"), generator(0, "environment")).restore(cursor.state())


@pytest.mark.parametrize("key", ["seed", "stream", "reset_stream", "actions", "observation", "reset_snapshot"])
def test_a_damaged_state_is_refused(key):
    cursor = EpisodeCursor(make("FrozenLake-v1"), generator(0, "environment"))
    play(cursor, [1, 2])
    state = cursor.state()
    del state[key]
    with pytest.raises(CheckpointError, match=r"damaged .* use an older checkpoint"):
        cursor.restore(state)
    if "stream" in key:
        with pytest.raises(CheckpointError, match="six words"):
            cursor.restore({**state, key: np.zeros(4, dtype=np.uint64)})


def test_only_sfc64_and_plain_actions_can_be_saved():
    with pytest.raises(EnvironmentRuleError, match="needs an SFC64 generator, got PCG64"):
        EpisodeCursor(make("FrozenLake-v1"), np.random.default_rng(0))
    env = Unfaithful()
    env.action_space = gym.spaces.Dict(a=gym.spaces.Discrete(2))
    with pytest.raises(EnvironmentRuleError, match="flatten the action space"):
        EpisodeCursor(env, generator(0, "environment"))


def test_actions_kept_do_not_change_with_the_callers_array():
    cursor = EpisodeCursor(make("Pendulum-v1"), generator(0, "environment"))
    cursor.reset()
    action = np.array([1.0], dtype=np.float32)
    cursor.step(action)
    action[0] = -1.0
    assert cursor.state()["actions"].tolist() == [[1.0]]
