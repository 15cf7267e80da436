"""The contract every registered environment keeps, and the registration itself."""

import json
import math
import pickle
import re
import subprocess
import sys
import types
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import policylab.envs
from policylab.envs.drawing import CELL_COLOURS, GridLike
from policylab.envs.registration import OPTIONAL_REGISTRATIONS, REGISTRATIONS, Registration, register_all
from policylab.errors import EnvironmentRuleError

IDS = [entry.id for entry in REGISTRATIONS]
SAMPLED_STEPS = 2000
every_environment = pytest.mark.parametrize("env_id", IDS)


def actions(env: gym.Env, *, seed: int, steps: int) -> list[Any]:
    """Random actions of ``env``."""
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


def play(env: gym.Env, *, steps: int, seed: int) -> list[object]:
    """Everything ``env`` says while random actions are taken, as comparable values."""
    observation, _ = env.reset(seed=seed)
    record: list[object] = [np.asarray(observation).tolist()]
    for action in actions(env, seed=seed, steps=steps):
        observation, reward, terminated, truncated, _ = env.step(action)
        record.append((np.asarray(observation).tolist(), reward, terminated, truncated))
        if terminated or truncated:
            record.append(np.asarray(env.reset()[0]).tolist())
    return record


@every_environment
def test_gymnasiums_own_checker_is_content(env_id: str) -> None:
    check_env(gym.make(env_id).unwrapped, skip_render_check=True)


@every_environment
def test_the_same_seed_and_actions_give_the_same_episodes(env_id: str) -> None:
    env = gym.make(env_id)
    first = play(env, steps=200, seed=11)
    assert play(env, steps=200, seed=11) == first
    assert play(gym.make(env_id), steps=200, seed=11) == first


@every_environment
def test_observations_and_rewards_are_what_the_spaces_say(env_id: str) -> None:
    env = gym.make(env_id)
    observation, _ = env.reset(seed=0)
    for action in actions(env, seed=0, steps=300):
        assert env.observation_space.contains(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        assert type(reward) is float
        assert math.isfinite(reward)
        assert type(terminated) is bool
        if terminated or truncated:
            observation, _ = env.reset()


@every_environment
def test_a_pickled_environment_goes_on_where_it_was(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    env.reset(seed=3)
    first, *others = actions(env, seed=0, steps=21)
    env.step(first)
    copy = pickle.loads(pickle.dumps(env))
    for action in others:
        here, there = env.step(action), copy.step(action)
        assert np.array_equal(here[0], there[0])
        assert here[1:4] == there[1:4]
        if here[2]:
            assert np.array_equal(env.reset()[0], copy.reset()[0])


@every_environment
def test_the_spec_survives_json(env_id: str) -> None:
    spec = gym.make(env_id).spec
    assert spec is not None
    again = EnvSpec.from_json(spec.to_json())
    assert again == spec
    assert play(gym.make(again), steps=20, seed=1) == play(gym.make(spec), steps=20, seed=1)


@every_environment
def test_the_time_limit_truncates(env_id: str) -> None:
    registered = next(entry for entry in REGISTRATIONS if entry.id == env_id)
    assert gym.spec(env_id).max_episode_steps == registered.max_episode_steps
    env = gym.make(env_id, max_episode_steps=1)
    env.reset(seed=0)
    assert env.step(*actions(env, seed=0, steps=1))[3] is True


def test_an_episode_lasts_as_long_as_registered() -> None:
    env = gym.make("policylab/WindyGridworld-v0")
    env.reset(seed=0)
    cut = [env.step(2)[3] for _ in range(1000)]
    assert cut == [False] * 999 + [True]


@every_environment
def test_the_table_says_what_the_environment_does(env_id: str) -> None:
    """Random functions of what follows a step have the mean the table gives: 4.5 standard errors."""
    env = gym.make(env_id).unwrapped
    if not hasattr(env, "P"):
        pytest.skip("has no table")
    rng = np.random.default_rng(5)
    weights = rng.random((8, len(env.P), 2))  # 8 functions of (next state, terminated)
    surprise, variance = np.zeros(8), np.zeros(8)
    env.reset(seed=5)
    for _ in range(SAMPLED_STEPS):
        action = int(rng.integers(env.action_space.n))
        outcomes = env.P[env.s][action]
        _, reward, terminated, _, _ = env.step(action)
        chances = np.array([outcome[0] for outcome in outcomes])
        scores = weights[:, [outcome[1] for outcome in outcomes], [int(outcome[3]) for outcome in outcomes]]
        mean = scores @ chances
        surprise += weights[:, env.s, int(terminated)] - mean
        variance += np.square(scores - mean[:, None]) @ chances
        if not getattr(env, "P_rewards_are_means", False):
            assert any(outcome[1:] == (env.s, reward, terminated) for outcome in outcomes)
        if terminated:
            env.reset()
    assert (np.abs(surprise) <= 4.5 * np.sqrt(variance) + 1e-9).all()


@every_environment
def test_the_table_is_a_probability_model(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    if not hasattr(env, "P"):
        pytest.skip("has no table")
    assert env.initial_state_distrib.shape == (len(env.P),)
    assert env.initial_state_distrib.sum() == pytest.approx(1.0, abs=1e-12)
    rng = np.random.default_rng(0)
    # Every state where it is cheap, a sample where rows are made when asked for.
    for state in rng.permutation(len(env.P))[:1000].tolist():
        for action in range(env.action_space.n):
            chances = [outcome[0] for outcome in env.P[state][action]]
            assert min(chances) >= 0.0
            assert math.fsum(chances) == pytest.approx(1.0, abs=1e-9)


@every_environment
def test_first_states_follow_their_distribution(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    if not hasattr(env, "P"):
        pytest.skip("has no table")
    env.reset(seed=2)
    counts = np.zeros(len(env.P))
    for _ in range(1000):
        env.reset()
        counts[env.s] += 1
    assert not counts[env.initial_state_distrib == 0.0].any()
    scores = np.random.default_rng(2).random((8, len(env.P)))  # 8 functions of the state, whose means are known
    mean = scores @ env.initial_state_distrib
    variance = np.square(scores - mean[:, None]) @ env.initial_state_distrib
    assert (np.abs(scores @ counts / 1000 - mean) <= 4.5 * np.sqrt(variance / 1000) + 1e-9).all()


@every_environment
def test_it_can_be_drawn_and_written(env_id: str) -> None:
    picture = gym.make(env_id, render_mode="rgb_array")
    picture.reset(seed=0)
    image = picture.render()
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    text = gym.make(env_id, render_mode="ansi")
    text.reset(seed=0)
    text.step(*actions(text, seed=0, steps=1))
    assert isinstance(text.render(), str)


@every_environment
def test_states_on_a_grid_have_their_own_cells(env_id: str) -> None:
    env = gym.make(env_id).unwrapped
    if not isinstance(env, GridLike):
        pytest.skip("does not lie on a grid")
    rows, columns = env.grid_shape
    kinds = env.cell_kinds()
    assert [len(row) for row in kinds] == [columns] * rows
    assert {kind for row in kinds for kind in row} <= set(CELL_COLOURS)
    assert len(env.moves) == env.action_space.n
    cells = [cell for state in range(len(env.P)) if (cell := env.cell_of(state)) is not None]
    assert len(set(cells)) == len(cells) > 3
    assert all(0 <= row < rows and 0 <= column < columns for row, column in cells)


@every_environment
@pytest.mark.parametrize("beyond", [-1, 0])
def test_an_action_that_does_not_exist_is_refused(env_id: str, beyond: int) -> None:
    env = gym.make(env_id).unwrapped
    if not isinstance(env.action_space, gym.spaces.Discrete):
        pytest.skip("its actions are not numbered")
    env.reset(seed=0)
    action = beyond or int(env.action_space.n)
    with pytest.raises(EnvironmentRuleError, match=rf"action must be .* 0 to {env.action_space.n - 1}, got {action}"):
        env.step(action)


@every_environment
def test_ids_carry_namespace_and_version(env_id: str) -> None:
    assert re.fullmatch(r"policylab/[A-Z]\w*-v\d+", env_id)


def test_arguments_of_the_registration_are_json() -> None:
    assert all(json.loads(json.dumps(entry.kwargs)) == entry.kwargs for entry in REGISTRATIONS)


def test_registering_again_changes_nothing() -> None:
    before = {env_id: gym.spec(env_id) for env_id in IDS}
    register_all()
    assert all(gym.spec(env_id) is before[env_id] for env_id in IDS)
    assert isinstance(REGISTRATIONS[0], Registration)


def python(code: str) -> str:
    """Run ``code`` in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_plain_import_loads_no_library() -> None:
    heavy = "gymnasium", "numpy", "ray", "torch", "mlflow", "boto3", "numba", "pydantic", "matplotlib"
    assert python(f"import sys, policylab; print([name for name in {heavy} if name in sys.modules])") == "[]"


@pytest.mark.parametrize("order", ["import policylab, gymnasium", "import gymnasium, policylab"])
def test_either_import_order_registers_every_environment(order: str) -> None:
    ids = python(f"{order}; print(*sorted(i for i in gymnasium.registry if i.startswith('policylab/')))")
    assert ids.split() == sorted([*IDS, *(entry.id for entry in OPTIONAL_REGISTRATIONS)])


def test_gymnasium_finds_the_environments_through_the_module_prefix() -> None:
    made = "gymnasium.make('policylab:policylab/CatMouse-v0').reset(seed=0)[0]"
    assert int(python(f"import gymnasium; print({made})")) >= 0


def test_the_import_hook_leaves_nothing_behind() -> None:
    code = "import sys, policylab, gymnasium.spaces; from policylab._gymnasium_hook import _GymnasiumFinder as F; "
    clean = "not any(isinstance(f, F) for f in sys.meta_path), vars(gymnasium.__loader__).keys()"
    assert python(code + f"print(*({clean}))") == "True dict_keys(['name', 'path'])"


def test_a_failed_import_of_gymnasium_may_be_tried_again() -> None:
    code = """
import sys, policylab
sys.modules["gymnasium.core"] = None
try:
    import gymnasium
except ImportError:
    del sys.modules["gymnasium.core"]
import gymnasium
print("policylab/CatMouse-v0" in gymnasium.registry)
"""
    assert python(code) == "True"


def test_every_public_name_of_the_room_is_there() -> None:
    listed = [name for names in policylab.envs._MODULES.values() for name in names]
    assert sorted(listed) == sorted(policylab.envs.__all__)
    assert all(not isinstance(getattr(policylab.envs, name), types.ModuleType) for name in policylab.envs.__all__)
    with pytest.raises(AttributeError, match="no attribute 'plan'"):
        policylab.envs.plan  # noqa: B018
