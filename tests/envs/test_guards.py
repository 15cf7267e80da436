"""What planning an experiment says about its environment."""

import gymnasium as gym
import pytest

from policylab.envs.guards import findings, observation_kind
from policylab.envs.settings import EnvSettings
from policylab.errors import EnvironmentRuleError


def rules(env_id, *, accepted=None, **kwargs):
    return {found.rule: found.message for found in findings(EnvSettings(id=env_id, kwargs=kwargs), accepted=accepted)}


@pytest.mark.parametrize("env_id", ["FrozenLake-v1", "FrozenLake8x8-v1", "CartPole-v1", "policylab/CatMouse-v0"])
def test_a_sound_environment_has_no_findings(env_id):
    assert rules(env_id) == {}


def test_taxi_threshold_is_above_its_optimum():
    message = rules("Taxi-v3")["reward_threshold"]
    assert "8, is above its true optimum 7.9300 within 200 steps" in message


def test_a_short_limit_makes_a_threshold_unreachable():
    settings = EnvSettings(id="FrozenLake-v1", max_episode_steps=20)
    assert [found.rule for found in findings(settings)] == ["reward_threshold"]


def test_a_missing_time_limit_is_reported_unless_the_config_sets_one():
    assert "1000 steps are imposed" in rules("CliffWalking-v1")["no_time_limit"]
    assert findings(EnvSettings(id="CliffWalking-v1", max_episode_steps=200)) == []


def test_an_alias_and_a_superseded_version_are_reported():
    gym.register("Ladder-v1", "gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv", max_episode_steps=9)
    gym.register("Ladder-v2", "gymnasium.envs.toy_text.frozen_lake:FrozenLakeEnv", max_episode_steps=9)
    assert "Ladder-v1 is superseded; use Ladder-v2" in rules("Ladder-v1")["retired_id"]
    assert "retired_id" not in rules("Ladder-v2")
    for env_id in ("Ladder-v1", "Ladder-v2"):
        gym.registry.pop(env_id)
    absent = "Taxi-v4" if "Taxi-v3" in gym.registry else "Taxi-v3"
    assert "the same environment, is used" in rules(absent)["alias"]


def test_known_false_dynamics_are_reported():
    taxi = "Taxi-v3" if "Taxi-v3" in gym.registry else "Taxi-v4"
    assert "no exact optimum" in rules(taxi, fickle_passenger=True)["false_table"]
    if taxi == "Taxi-v3":
        assert "corrected as Taxi-v4" in rules("Taxi-v3", is_rainy=True)["known_defect"]
    with pytest.raises(EnvironmentRuleError, match=r"map_name: null makes FrozenLake-v1 draw another map each time"):
        rules("FrozenLake-v1", map_name=None)


def test_an_observation_the_agent_cannot_take_is_reported():
    assert (
        "which the agent cannot take; it takes discrete" in rules("CartPole-v1", accepted={"discrete"})["observation"]
    )
    assert "observation" not in rules("Blackjack-v1", accepted={"discrete", "tuple"})


def test_an_unknown_environment_is_an_error_not_a_finding():
    with pytest.raises(EnvironmentRuleError, match="unknown environment"):
        findings(EnvSettings(id="FrozenLaek-v1"))


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (gym.spaces.Discrete(3), "discrete"),
        (gym.spaces.Discrete(3, start=1), "other"),
        (gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.Discrete(2)]), "tuple"),
        (gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.Box(0, 1)]), "other"),
        (gym.spaces.Box(0, 1, (2, 2)), "box"),
        (gym.spaces.Dict(a=gym.spaces.Discrete(2)), "other"),
    ],
)
def test_observation_kinds(space, kind):
    assert observation_kind(space) == kind
