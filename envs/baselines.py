"""Baselines: classical decision rules that what was learned is compared with, in the same table.

A registry entry maps ``ENVIRONMENT_ID:NAME`` to ``"module:factory"``. The factory takes the environment, made as the
experiment makes it, so that a rule can read its constants (it never steps it), and returns a `Baseline`. Third parties
register under the entry-point group ``policylab.baselines`` with the same form of name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from policylab.registry import Registry

_GRIDS = "policylab.envs.grids.maze_rules"
_CARDS = "policylab.envs.textbook.card_rules"
_CONTROL = "policylab.envs.textbook.control_rules"
_STOCK = "policylab.envs.supply.stock_rules"
_HVAC = "policylab.envs.buildings.hvac_rules"
_DIALOG = "policylab.envs.dialogs.dialog_rules"
_ENERGY = "policylab.envs.buildings.energyplus"
_ROBOTS = "policylab.envs.robot_rules"

BASELINES = Registry(
    "baseline",
    {
        "Blackjack-v1:stick_on_18": f"{_CARDS}:stick_on_18",
        "Blackjack-v1:basic_strategy": f"{_CARDS}:basic_strategy",
        "policylab/Gambler-v0:bold_play": f"{_CARDS}:bold_play",
        "policylab/CatMouse-v0:shortest_path": f"{_GRIDS}:shortest_path",
        "policylab/CatMouse-v0:out_of_reach": f"{_GRIDS}:out_of_reach",
        "policylab/CatMouseCat-v0:chase": f"{_GRIDS}:chase",
        "policylab/CatMouseLarge-v0:shortest_path": f"{_GRIDS}:shortest_path",
        "policylab/CatMouseLarge-v0:out_of_reach": f"{_GRIDS}:out_of_reach",
        "policylab/CatMouseLargeImage-v0:shortest_path": f"{_GRIDS}:shortest_path",
        "policylab/CatMouseLargeImage-v0:out_of_reach": f"{_GRIDS}:out_of_reach",
        "policylab/PacManTiny-v0:nearest_pellet": f"{_GRIDS}:nearest_pellet",
        "policylab/PacMan-v0:nearest_pellet": f"{_GRIDS}:nearest_pellet",
        "policylab/PacManMedium-v0:nearest_pellet": f"{_GRIDS}:nearest_pellet",
        "policylab/PacManLarge-v0:nearest_pellet": f"{_GRIDS}:nearest_pellet",
        "policylab/PacManLargeImage-v0:nearest_pellet": f"{_GRIDS}:nearest_pellet",
        "policylab/Inventory-v0:reorder_levels": f"{_STOCK}:reorder_levels",
        "policylab/InventoryYear-v0:reorder_levels": f"{_STOCK}:reorder_levels",
        "policylab/Newsvendor-v0:order_up_to": f"{_STOCK}:order_up_to",
        "policylab/NewsvendorDiscrete-v0:order_up_to": f"{_STOCK}:order_up_to",
        "policylab/MultiEchelon-v0:base_stock": f"{_STOCK}:base_stock",
        "policylab/MultiEchelonLostSales-v0:base_stock": f"{_STOCK}:base_stock",
        "policylab/Hvac-v0:thermostat": f"{_HVAC}:thermostat",
        "policylab/Hvac-v0:setback_thermostat": f"{_HVAC}:setback_thermostat",
        "policylab/Hvac-v0:proportional_integral": f"{_HVAC}:proportional_integral",
        "policylab/Hvac-v0:predictive": f"{_HVAC}:predictive",
        "policylab/HvacDiscrete-v0:thermostat": f"{_HVAC}:thermostat",
        "policylab/HvacDiscrete-v0:setback_thermostat": f"{_HVAC}:setback_thermostat",
        "policylab/HvacDiscrete-v0:proportional_integral": f"{_HVAC}:proportional_integral",
        "policylab/HvacDiscrete-v0:predictive": f"{_HVAC}:predictive",
        "policylab/HvacDay-v0:thermostat": f"{_HVAC}:day_thermostat",
        "policylab/Dialog-v0:confirm_all": f"{_DIALOG}:confirm_all",
        "policylab/Dialog-v0:trusting": f"{_DIALOG}:trusting",
        "policylab/SlotFilling-v0:ask_confirm_submit": f"{_DIALOG}:ask_confirm_submit",
        "policylab/SlotFilling-v0:ask_submit": f"{_DIALOG}:ask_submit",
        "policylab/Voicemail-v0:lead_of_two": f"{_DIALOG}:lead_of_two",
        "policylab/Voicemail-v0:lead_of_four": f"{_DIALOG}:lead_of_four",
        "policylab/EnergyPlusOffice-v0:always_comfortable": f"{_ENERGY}:always_comfortable",
        "policylab/EnergyPlusOffice-v0:night_setback": f"{_ENERGY}:night_setback",
        "policylab/EnergyPlusOfficeYear-v0:always_comfortable": f"{_ENERGY}:always_comfortable",
        "policylab/EnergyPlusOfficeYear-v0:night_setback": f"{_ENERGY}:night_setback",
        **{
            f"{road}:{rule}": f"policylab.envs.driving_rules:{rule}"
            for road in ("highway-fast-v0", "highway-v0", "roundabout-v1", "merge-v1")
            for rule in ("always_left", "always_idle", "always_right", "always_faster", "always_slower")
        },
        "highway-fast-v0:keep_distance": "policylab.envs.driving_rules:keep_distance",
        "highway-v0:keep_distance": "policylab.envs.driving_rules:keep_distance",
        "Reacher-v5:reach": f"{_ROBOTS}:reach",
        "HalfCheetah-v5:gait": f"{_ROBOTS}:gait",
        "FetchReach-v4:straight": f"{_ROBOTS}:straight",
        "FetchReachDense-v4:straight": f"{_ROBOTS}:straight",
        "ALE/MsPacman-v5:sweep_and_flee": "policylab.envs.arcade_rules:sweep_and_flee",
        "policylab/MiniGridDoorKey-v0:shortest_way": "policylab.envs.grids.minigrid_rules:shortest_way",
        "LunarLander-v3:descend": f"{_CONTROL}:descend",
        "CartPole-v0:lean": f"{_CONTROL}:lean",
        "CartPole-v1:lean": f"{_CONTROL}:lean",
        "MountainCar-v0:with_velocity": f"{_CONTROL}:with_velocity",
        "Pendulum-v1:swing_up": f"{_CONTROL}:swing_up",
    },
)
"""``ENVIRONMENT_ID:NAME`` -> the factory of the rule."""

RANDOM = "random"
"""Name of the baseline that every environment has: uniformly random actions."""


class Baseline(Protocol):
    """A decision rule. One that remembers (a PI controller) also has ``reset()``, called before each episode."""

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> Any:
        """Return the action for one raw observation; chance, if any, comes from ``rng``."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A rule whose action depends on what it saw earlier in the episode."""

    def reset(self) -> None:
        """Forget the last episode."""
        ...


class Uniform:
    """Acts uniformly at random.

    >>> action = Uniform(gym.spaces.Discrete(4, start=1)).act(None, rng=np.random.default_rng(0))
    >>> action in range(1, 5)
    True
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self._space = copy.deepcopy(space)  # the environment's own keeps its stream
        self._rng: np.random.Generator | None = None

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> Any:
        """Return an action drawn from the space, whose stream starts anew from each generator it is given."""
        if rng is None:
            raise ValueError("random actions need a generator")
        if rng is not self._rng:
            self._rng = rng
            self._space.seed(int(rng.integers(2**31)))
        return self._space.sample()


class Rule:
    """A baseline made of a function of the observation alone."""

    def __init__(self, action_of: Callable[[Any], Any]) -> None:
        self._action_of = action_of

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> Any:
        """Return the action for one raw observation; no chance plays a part."""
        return self._action_of(observation)


def baseline_names(env_id: str) -> list[str]:
    """Return the names of the classical baselines of a registered id, sorted; `RANDOM` comes on top.

    >>> baseline_names("Blackjack-v1")
    ['basic_strategy', 'stick_on_18']
    """
    return [key.rpartition(":")[2] for key in BASELINES.names() if key.rpartition(":")[0] == env_id]


def make_baseline(env_id: str, name: str, *, env: gym.Env[Any, Any]) -> Baseline:
    """Return the baseline ``name`` of the environment.

    Args:
        env_id: the registered id.
        name: `RANDOM` or one of `baseline_names`.
        env: the environment as the experiment makes it, which the rule may read and never steps.

    Raises:
        UnknownNameError: no such baseline.
        MissingExtraError: it needs a package that is not installed.
    """
    if name == RANDOM:
        return Uniform(env.action_space)
    baseline: Baseline = BASELINES.load(f"{env_id}:{name}")(env)
    return baseline
