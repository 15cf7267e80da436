"""From settings to an environment: ids, aliases, limits, and what a user may get wrong."""

import gymnasium as gym
import pytest
from pydantic import ValidationError

from policylab.envs.aliases import alias_of
from policylab.envs.make import DEFAULT_MAX_EPISODE_STEPS, make_env, resolve
from policylab.envs.settings import EnvSettings
from policylab.errors import EnvironmentRuleError, MissingExtraError


@pytest.mark.parametrize(
    ("given", "limit", "source"),
    [
        ({"id": "FrozenLake-v1"}, 100, "registry"),
        ({"id": "FrozenLake-v1", "max_episode_steps": 7}, 7, "config"),
        ({"id": "CliffWalking-v1"}, DEFAULT_MAX_EPISODE_STEPS, "default"),
        ({"id": "Blackjack-v1"}, DEFAULT_MAX_EPISODE_STEPS, "default"),
        ({"id": "CliffWalking-v1", "max_episode_steps": 50}, 50, "config"),
    ],
)
def test_a_time_limit_is_always_imposed_and_recorded(given, limit, source):
    settings = EnvSettings(**given)
    resolved = resolve(settings)
    assert (resolved.max_episode_steps, resolved.limit_source) == (limit, source)
    assert resolved.gymnasium_version == gym.__version__
    if given["id"] == "Blackjack-v1":
        return
    env = make_env(settings)
    env.reset(seed=0)
    steps, truncated, terminated = 0, False, False
    while not (truncated or terminated):
        _, _, terminated, truncated, _ = env.step(0)
        steps += 1
    assert (terminated, steps) == (False, limit) if "Cliff" in given["id"] else steps <= limit


def test_kwargs_and_render_mode_reach_the_environment():
    env = make_env(EnvSettings(id="FrozenLake-v1", kwargs={"map_name": "8x8"}), render_mode="ansi")
    env.reset(seed=0)
    assert env.observation_space.n == 64
    assert "FFF" in env.render().replace("\x1b[41mS\x1b[0m", "S")


@pytest.mark.parametrize("requested", ["Taxi-v3", "Taxi-v4", "CliffWalking-v0", "CliffWalking-v1"])
def test_an_id_of_another_gymnasium_version_means_the_same_environment(requested):
    resolved = resolve(EnvSettings(id=requested))
    assert resolved.requested_id == requested
    assert resolved.id in gym.registry
    assert resolved.id.startswith(requested.rpartition("-")[0])
    assert bool(resolved.notes) == (resolved.id != requested)
    make_env(EnvSettings(id=requested)).reset(seed=0)


def test_an_alias_is_refused_where_the_versions_differ():
    assert alias_of("Taxi-v3", {}, known={"Taxi-v4"}) == "Taxi-v4"
    assert alias_of("Taxi-v3", {"is_rainy": True}, known={"Taxi-v4"}) is None
    assert alias_of("CliffWalking-v1", {"is_slippery": False}, known={"CliffWalking-v0"}) == "CliffWalking-v0"
    assert alias_of("Nothing-v1", {}, known=gym.registry) is None


def test_a_module_prefix_imports_the_module(tmp_path, monkeypatch):
    (tmp_path / "my_worlds.py").write_text(
        "import gymnasium as gym\n"
        "if 'mine/Lake-v0' not in gym.registry:\n"
        "    gym.register('mine/Lake-v0', 'gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv', max_episode_steps=9)\n"
    )
    (tmp_path / "broken_worlds.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    resolved = resolve(EnvSettings(id="my_worlds:mine/Lake-v0"))
    assert (resolved.id, resolved.max_episode_steps) == ("mine/Lake-v0", 9)
    with pytest.raises(EnvironmentRuleError, match="the module 'my_worlds' was imported but does not register it"):
        resolve(EnvSettings(id="my_worlds:Quicksand-v0"))
    with pytest.raises(EnvironmentRuleError, match=r"importing 'broken_worlds' .* failed with ZeroDivisionError"):
        resolve(EnvSettings(id="broken_worlds:mine/Lake-v0"))
    gym.registry.pop("mine/Lake-v0")


def test_own_environments_are_reached_with_and_without_a_prefix():
    for env_id in ("policylab/CatMouse-v0", "policylab:policylab/CatMouse-v0"):
        assert resolve(EnvSettings(id=env_id)).id == "policylab/CatMouse-v0"


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("FrozenLake", "write e.g. 'FrozenLake-v1'"),
        ("Taxi-vx", "write e.g. 'Taxi-v"),
        ("Unheard", "write e.g. 'Unheard-v0'"),
        ("", "has the form"),
        ("Frozen Lake-v1", "has the form"),
        ("a:b:c-v0", "has the form"),
    ],
)
def test_an_id_without_a_version_is_refused_by_the_schema(env_id, message):
    with pytest.raises(ValidationError, match=message):
        EnvSettings(id=env_id)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_episode_steps": 0}, "greater than or equal to 1"),
        ({"kwargs": {"max_episode_steps": 5}}, "set it beside `kwargs`"),
        ({"kwargs": {"render_mode": "human"}}, "`render_mode` is no argument"),
        ({"kwarg": {}}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused_by_the_schema(given, message):
    with pytest.raises(ValidationError, match=message):
        EnvSettings(id="FrozenLake-v1", **given)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("Frozenlake-v1", "unknown environment 'Frozenlake-v1'; did you mean 'FrozenLake-v1'"),
        ("FrozenLake-v9", "has FrozenLake-v1"),
        ("policylab/CatMose-v0", "did you mean 'policylab/CatMouse-v0'"),
        ("GymInvMgmt/Qqq-v0", "pip install gym-invmgmt and write 'gym_invmgmt:GymInvMgmt/Qqq-v0'"),
        ("nowhere/Qqqqqqq-v0", "install the package that holds 'nowhere'"),
        ("Qqqqqqqqq-v0", "see `policylab list envs`"),
    ],
)
def test_an_unknown_id_gets_a_remedy(env_id, message):
    with pytest.raises(EnvironmentRuleError, match=message):
        resolve(EnvSettings(id=env_id))


def test_a_missing_module_is_named_with_its_package():
    with pytest.raises(MissingExtraError, match="needs the module 'no_such_worlds'"):
        resolve(EnvSettings(id="no_such_worlds:mine/Lake-v0"))


def test_a_missing_library_is_one_sentence(monkeypatch):
    def cannot(**kwargs):
        raise gym.error.DependencyNotInstalled('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`')

    gym.register("NeedsMujoco-v0", cannot)
    with pytest.raises(MissingExtraError, match=r"needs mujoco, .* pip install 'policylab\[mujoco\]'"):
        make_env(EnvSettings(id="NeedsMujoco-v0"))
    gym.registry.pop("NeedsMujoco-v0")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"map_nam": "4x4"}, "has no argument `map_nam`; did you mean 'map_name'"),
        ({"map_name": "5x5"}, "refused env.kwargs {'map_name': '5x5'}: KeyError: '5x5'"),
        ({"desc": 5}, "refused env.kwargs"),
    ],
)
def test_wrong_kwargs_are_one_sentence(kwargs, message):
    with pytest.raises(EnvironmentRuleError, match=message) as caught:
        make_env(EnvSettings(id="FrozenLake-v1", kwargs=kwargs))
    assert "\n" not in str(caught.value)


def test_an_unknown_render_mode_lists_the_known_ones():
    with pytest.raises(EnvironmentRuleError, match="render modes: human, ansi, rgb_array"):
        make_env(EnvSettings(id="FrozenLake-v1"), render_mode="hologram")


def test_no_checker_slows_the_steps_down():
    assert "PassiveEnvChecker" not in str(make_env(EnvSettings(id="FrozenLake-v1")))
