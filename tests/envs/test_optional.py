"""Environments of other packages: found, explained when absent, and used without falling into their traps."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from policylab.cli import doctor, main
from policylab.envs import optional
from policylab.envs.baselines import RANDOM, baseline_names, make_baseline
from policylab.envs.guards import findings
from policylab.envs.make import make_env, resolve
from policylab.envs.optional import PROVIDERS, SHOWCASE, defect_of, load_provider, provider_of
from policylab.envs.settings import EnvSettings
from policylab.errors import EnvironmentRuleError, MissingExtraError
from policylab.experiments.evaluation import RolloutEvaluator
from policylab.extras import EXTRAS

ROOT = Path(__file__).resolve().parents[2]
ONE_DAY = {"days": 1, "first_day": [7, 2]}


def settings(env_id: str, **changes: Any) -> EnvSettings:
    """The environment in a small form; the test is skipped where the package is absent."""
    provider = provider_of(env_id)
    assert provider is not None
    if not provider.installed:
        pytest.skip(f"needs {provider.install}")
    kwargs = ONE_DAY if provider.extra == "energyplus" else {}
    return EnvSettings(id=env_id, kwargs=kwargs, **changes)


def play(env: gym.Env[Any, Any], *, steps: int) -> list[Any]:
    """What ``env`` says while random actions of our own generator are taken."""
    rng = np.random.default_rng(0)
    rule = make_baseline(str(env.unwrapped.spec.id), RANDOM, env=env)
    observation, _ = env.reset(seed=7)
    record = [repr(observation)]
    for _ in range(steps):
        action = rule.act(observation, rng=rng)
        assert env.action_space.contains(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        record.append((repr(observation), reward, terminated, truncated))
        if terminated or truncated:
            observation, _ = env.reset()
    return record


@pytest.mark.parametrize("env_id", [name for name in SHOWCASE if "Year" not in name])
def test_a_seed_replays(env_id: str) -> None:
    chosen = settings(env_id)
    records = []
    for _ in range(2):
        env = make_env(chosen)
        records.append(play(env, steps=12))
        env.close()
    assert records[0] == records[1]


@pytest.mark.filterwarnings("ignore")  # unbounded observations and the like: the package's own matter
@pytest.mark.parametrize("env_id", ["LunarLander-v3", "MiniGrid-Empty-5x5-v0", "Reacher-v5", "ALE/MsPacman-v5"])
def test_gymnasiums_own_checker_is_content(env_id: str) -> None:
    chosen = settings(env_id)
    check_env(make_env(chosen).unwrapped, skip_render_check=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "env_id",
    ["policylab/EnergyPlusOffice-v0", "BipedalWalker-v3", "CarRacing-v3", "HalfCheetah-v5", "FetchReach-v4",
     "PointMaze_UMaze-v3", "highway-fast-v0", "parking-v0", "MiniGrid-FourRooms-v0"],
)  # fmt: skip
def test_gymnasiums_own_checker_is_content_with_the_slow_ones(env_id: str) -> None:
    check_env(make_env(settings(env_id)).unwrapped, skip_render_check=True)


def test_every_environment_names_its_extra() -> None:
    assert {extra for extra, _ in SHOWCASE.values()} == set(PROVIDERS)
    assert set(PROVIDERS) <= set(EXTRAS)
    entry = "gymnasium.envs.mujoco.ant_v5:AntEnv"
    assert provider_of("Ant-v5", entry_point=entry) is PROVIDERS["mujoco"]
    assert provider_of("MiniGrid-Unlock-v0") is PROVIDERS["minigrid"]
    assert provider_of("policylab/CatMouse-v0", entry_point="policylab.envs.grids.cat_mouse:CatMouseEnv") is None


def test_listing_loads_none_of_the_packages_and_absent_ones_are_one_sentence() -> None:
    """All packages hidden, in a process of its own."""
    modules = [provider.module for provider in PROVIDERS.values()]
    code = f"""
import contextlib, io, json, sys
import policylab
from policylab.cli import main
def said(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()):
        code = main([*arguments, "--json"])
    return [code, json.loads(out.getvalue())]
with_all = said("list", "envs")
loaded = [name for name in {modules!r} if name in sys.modules]
for name in {modules!r} + ["pyenergyplus.dataset", "jax"]:
    sys.modules[name] = None
config = "experiment.yaml"
print(json.dumps({{
    "loaded": loaded,
    "list": said("list", "envs"),
    "show": said("show", "highway-fast-v0"),
    **{{name: said("show", name) for name in ("LunarLander-v3", "policylab/EnergyPlusOffice-v0")}},
}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["loaded"] == []
    rows = {row["name"]: row for row in found["list"][1]}
    for name, (extra, _) in SHOWCASE.items():
        assert (rows[name]["installed"], rows[name]["extra"]) == (False, extra)
        assert rows[name]["install"] == f"pip install 'policylab[{extra}]'"
    assert rows["FrozenLake-v1"]["installed"]
    assert rows["Ant-v5"]["extra"] == "mujoco"
    for name in ("phys2d/CartPole-v1", "tabular/Blackjack-v0"):  # Gymnasium registers them where JAX is absent too
        assert not rows[name]["installed"]
        assert rows[name]["install"] == "pip install 'gymnasium[jax]'"
    assert found["show"] == [0, {"name": "highway-fast-v0", "installed": False, "extra": "driving",
                                 "install": "pip install 'policylab[driving]'"}]  # fmt: skip
    assert not found["LunarLander-v3"][1]["installed"]


@pytest.mark.parametrize("extra", [extra for extra, provider in PROVIDERS.items() if provider.registers])
def test_an_absent_package_is_named_with_its_extra(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PROVIDERS[extra].module, None)
    with pytest.raises(MissingExtraError, match=rf"install it with: pip install 'policylab\[{extra}\]'") as caught:
        load_provider(PROVIDERS[extra])
    assert "\n" not in str(caught.value)


def test_the_building_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyenergyplus.dataset", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'policylab\[energyplus\]'"):
        make_env(EnvSettings(id="policylab/EnergyPlusOffice-v0"))


@pytest.mark.parametrize(("installed", "broken"), [("3.11.0", False), ("3.12.0", True), ("4.0.0", True)])
def test_robotics_names_the_mujoco_that_breaks_it(
    installed: str, broken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gymnasium_robotics")
    monkeypatch.setattr(optional, "version", lambda package: installed)
    assert bool(defect_of(PROVIDERS["robotics"])) is broken
    assert defect_of(PROVIDERS["mujoco"]) is None

    def fails(**kwargs: Any) -> None:
        raise AssertionError

    gym.register("FetchNothing-v0", fails)
    try:
        error = MissingExtraError if broken else EnvironmentRuleError
        message = r"FetchNothing-v0: .* pip install 'mujoco<3.12'" if broken else "refused env.kwargs"
        with pytest.raises(error, match=message):
            make_env(EnvSettings(id="FetchNothing-v0"))
    finally:
        gym.registry.pop("FetchNothing-v0")


def test_a_time_limit_is_imposed_where_the_package_has_none() -> None:
    chosen = settings("highway-fast-v0")
    assert resolve(chosen).max_episode_steps == 1000
    assert gym.spec("highway-fast-v0").max_episode_steps is None
    assert [found.rule for found in findings(chosen)] == ["no_time_limit"]


def test_random_driving_is_the_same_for_the_same_seed() -> None:
    """highway-env makes new spaces at each reset, so that seeding its own action space has no effect."""
    chosen = settings("highway-fast-v0", max_episode_steps=3)
    env = make_env(chosen)
    before = env.action_space
    env.reset(seed=0)
    assert env.action_space is not before
    rule = make_baseline("highway-fast-v0", RANDOM, env=env)
    values = [RolloutEvaluator(chosen, seed=seed)(rule, episodes=2).episode_returns for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_every_constant_action_is_a_baseline_of_the_motorway() -> None:
    chosen = settings("highway-fast-v0")
    names = ["always_faster", "always_idle", "always_left", "always_right", "always_slower"]
    assert baseline_names("highway-fast-v0") == [*names, "keep_distance"]
    env = make_env(chosen)
    meta = env.unwrapped.action_type.actions
    said = {name: meta[make_baseline("highway-fast-v0", name, env=env).act(None)] for name in names}
    assert said == {
        "always_faster": "FASTER", "always_idle": "IDLE", "always_left": "LANE_LEFT", "always_right": "LANE_RIGHT",
        "always_slower": "SLOWER",
    }  # fmt: skip


def test_the_landers_heuristic_lands() -> None:
    chosen = settings("LunarLander-v3")
    env = make_env(chosen)
    rule = make_baseline("LunarLander-v3", "descend", env=env)
    assert RolloutEvaluator(chosen, seed=0)(rule, episodes=5).value > 150  # random: -177


def test_the_game_does_not_advertise(capfd: pytest.CaptureFixture[str]) -> None:
    chosen = settings("ALE/MsPacman-v5")
    make_env(chosen).reset(seed=0)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_no_package_says_anything_when_it_is_imported() -> None:
    code = (
        "from policylab.envs.optional import PROVIDERS, load_provider\n"
        "for one in PROVIDERS.values():\n"
        "    if one.installed: load_provider(one)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_robot_can_be_drawn_without_a_screen() -> None:
    settings("Reacher-v5")
    code = (
        "from policylab.envs.make import make_env; from policylab.envs.settings import EnvSettings; "
        "env = make_env(EnvSettings(id='Reacher-v5'), render_mode='rgb_array'); env.reset(seed=0); "
        "print(env.render().shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if "EGL" in done.stderr and done.returncode:
        pytest.skip("the machine has no EGL library")
    assert done.stdout.strip() == "(480, 480, 3)", done.stderr


def test_no_extra_brings_pygame_or_another_gymnasium() -> None:
    """pygame overwrites the files of pygame-ce; gymnasium's own box2d extra does not build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    assert [one for one in wanted if re.match(r"pygame\b(?!-ce)|gymnasium\[", one)] == []
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert not any(pin.startswith("pygame==") for pin in pins)
    assert "gymnasium==1.2.2" in pins
    assert "box2d==2.3.10" in wanted


def test_both_pygames_are_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_version", lambda package: "2.6")
    main(["doctor", "--json"])
    (conflict,) = json.loads(capsys.readouterr().out)["conflicts"]
    assert conflict.startswith("pygame and pygame-ce overwrite each other: pip uninstall pygame")
