"""Baselines: every registered rule plays its environment, and the known ones are worth what is known of them."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.baselines import BASELINES, RANDOM, Remembering, Uniform, baseline_names, make_baseline
from policylab.envs.make import make_env
from policylab.envs.optional import provider_of
from policylab.envs.settings import EnvSettings
from policylab.errors import MissingExtraError, UnknownNameError
from policylab.experiments.evaluation import ExactEvaluator, RolloutEvaluator, exact_table, rule_actions
from policylab.registry import Registry

SHOWN = {"ALE/MsPacman-v5": {"obs_type": "ram"}}
"""What a rule needs to see that the environment does not show by default."""
every_baseline = pytest.mark.parametrize("key", BASELINES.names())


def environment(env_id: str) -> gym.Env[Any, Any]:
    try:
        return make_env(EnvSettings(id=env_id, kwargs=SHOWN.get(env_id, {})))
    except MissingExtraError as error:
        pytest.skip(str(error))


def exact_value(name: str, env_id: str, **kwargs: Any) -> tuple[float, float]:
    """The value of a baseline and the optimum."""
    settings = EnvSettings(id=env_id, kwargs=kwargs)
    env, mdp = make_env(settings), exact_table(settings)
    assert mdp is not None
    actions = rule_actions(make_baseline(env_id, name, env=env), mdp, space=env.observation_space)
    assert actions is not None
    evaluator = ExactEvaluator(mdp)
    return evaluator.of_actions(actions).value, evaluator.optimum()


@every_baseline
def test_a_rule_plays_its_environment(key: str) -> None:
    env_id, _, name = key.rpartition(":")
    env = environment(env_id)
    rule = make_baseline(env_id, name, env=env)
    observation, _ = env.reset(seed=0)
    if isinstance(rule, Remembering):
        rule.reset()
    for _ in range(60 if provider_of(env_id) is None else 5):
        action = rule.act(observation)
        assert env.action_space.contains(action), f"{action!r} is no action of {env_id}"
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation, _ = env.reset()
    env.close()


@pytest.mark.parametrize("key", [key for key in BASELINES.names() if provider_of(key.rpartition(":")[0]) is None])
def test_a_rule_is_no_worse_than_chance(key: str) -> None:
    env_id, _, name = key.rpartition(":")
    with environment(env_id) as env:
        rules = [make_baseline(env_id, each, env=env) for each in (name, RANDOM)]
    evaluator = RolloutEvaluator(EnvSettings(id=env_id), seed=2)
    mine, chance = (evaluator(rule, episodes=10) for rule in rules)
    scatter = np.std([mine.episode_returns, chance.episode_returns], axis=1).max() / np.sqrt(10)
    assert mine.value > chance.value - 3 * scatter


@pytest.mark.parametrize(
    ("name", "value"), [("stick_on_18", -0.1119777146), (RANDOM, -0.3958959928), ("basic_strategy", -0.0465559771)]
)
def test_blackjack_rules_are_worth_what_dynamic_programming_says(name: str, value: float) -> None:
    assert exact_value(name, "Blackjack-v1", sab=False)[0] == pytest.approx(value, abs=5e-11)


def test_basic_strategy_is_optimal_by_the_rules_of_the_book() -> None:
    value, optimum = exact_value("basic_strategy", "Blackjack-v1", sab=True)
    assert value == pytest.approx(optimum, abs=1e-12)


def test_bold_play_is_optimal_against_an_unfair_coin() -> None:  # Dubins and Savage 1965
    value, optimum = exact_value("bold_play", "policylab/Gambler-v0", p_heads=0.4)
    assert value == pytest.approx(optimum, abs=1e-12)
    assert exact_value("bold_play", "policylab/Gambler-v0", p_heads=0.6)[0] < 0.9


def test_a_mouse_that_minds_the_cat_fares_better() -> None:
    careful, optimum = exact_value("out_of_reach", "policylab/CatMouse-v0")
    assert exact_value("shortest_path", "policylab/CatMouse-v0")[0] < -90 < 30 < careful < optimum


def test_exact_values_agree_with_episodes() -> None:
    settings = EnvSettings(id="policylab/PacManTiny-v0")
    rule = make_baseline(settings.id, "nearest_pellet", env=make_env(settings))
    played = RolloutEvaluator(settings, seed=3)(rule, episodes=300).episode_returns
    exact, _ = exact_value("nearest_pellet", settings.id)
    assert abs(np.mean(played) - exact) < 4.5 * np.std(played) / np.sqrt(300)


def test_random_actions_are_the_same_for_the_same_seed_and_leave_the_environment_alone() -> None:
    settings = EnvSettings(id="Pendulum-v1")
    env = make_env(settings)
    rule = make_baseline(settings.id, RANDOM, env=env)
    env.action_space.seed(4)
    expected = env.action_space.sample()
    env.action_space.seed(4)
    first, again, other = (RolloutEvaluator(settings, seed=seed)(rule, episodes=2).value for seed in (5, 5, 6))
    assert first == again != other
    assert env.action_space.sample() == expected


def test_random_actions_need_a_generator() -> None:
    with pytest.raises(ValueError, match="need a generator"):
        Uniform(gym.spaces.Discrete(2)).act(0)


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown baseline 'Blackjack-v1:basic_stratgy'; did you mean"):
        make_baseline("Blackjack-v1", "basic_stratgy", env=make_env(EnvSettings(id="Blackjack-v1")))
    assert baseline_names("FrozenLake-v1") == []


def test_a_package_of_somebody_else_can_bring_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lake_rules.py").write_text(
        "class Down:\n    act = lambda *a, **k: 1\ndef always_down(env):\n    return Down()\n"
    )
    information = tmp_path / "lake_rules-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: lake_rules\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[policylab.baselines]\nFrozenLake-v1:always_down = lake_rules:always_down\n"
        "Blackjack-v1:stick_on_18 = lake_rules:always_down\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("baseline", {"Blackjack-v1:stick_on_18": BASELINES.targets["Blackjack-v1:stick_on_18"]})
    assert registry.load("FrozenLake-v1:always_down")(None).act(0) == 1
    assert registry.load("Blackjack-v1:stick_on_18").__module__ == "policylab.envs.textbook.card_rules"  # not replaced
