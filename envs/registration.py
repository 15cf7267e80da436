"""The environments of policylab and their registration with Gymnasium.

Gymnasium (>= 1.0) loads no entry points of other packages, so ``import policylab`` registers these ids
itself (see ``policylab._gymnasium_hook``). ``gym.make("policylab:policylab/CatMouse-v0")`` imports policylab
first and therefore works alone.

Every environment has a time limit. No reward threshold is declared: the exact optimum says what "solved" is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Registration(NamedTuple):
    """One registered environment.

    Attributes:
        id: Gymnasium id, ``"policylab/Name-vN"``; N grows when dynamics or rewards change.
        entry_point: ``"module:Class"``, imported when the environment is first made.
        kwargs: arguments of the constructor, JSON-able.
        max_episode_steps: the time limit, steps.
        reward_threshold: None throughout; see the module's text.
    """

    id: str
    entry_point: str
    kwargs: Mapping[str, Any]
    max_episode_steps: int
    reward_threshold: float | None = None


def _own(name: str, entry_point: str, *, limit: int, **kwargs: Any) -> Registration:
    return Registration(f"policylab/{name}", f"policylab.envs.{entry_point}", kwargs, limit)


REGISTRATIONS: tuple[Registration, ...] = (
    _own("Bandit-v0", "textbook.bandit:BanditEnv", limit=1000),
    _own("DriftingBandit-v0", "textbook.bandit:BanditEnv", limit=10_000, drift=0.01),
    _own("GridWorld-v0", "grids.gridworld:GridWorldEnv", limit=200),
    _own("WindyGridworld-v0", "grids.windy:WindyGridworldEnv", limit=1000),
    _own("WindyGridworldKings-v0", "grids.windy:WindyGridworldEnv", limit=1000, n_moves=8),
    _own("WindyGridworldStochastic-v0", "grids.windy:WindyGridworldEnv", limit=1000, n_moves=8, stochastic=True),
    _own("DynaMaze-v0", "grids.dyna_maze:DynaMazeEnv", limit=5000),
    _own("BlockingMaze-v0", "grids.dyna_maze:ChangingMazeEnv", limit=5000, variant="blocking", change_at=1000),
    _own("ShortcutMaze-v0", "grids.dyna_maze:ChangingMazeEnv", limit=5000, variant="shortcut", change_at=3000),
    _own("CatMouse-v0", "grids.cat_mouse:CatMouseEnv", limit=100),
    _own("CatMouseCat-v0", "grids.cat_mouse:CatMouseCatEnv", limit=100),
    _own("CatMouseLarge-v0", "grids.cat_mouse_grid:CatMouseGridEnv", limit=100),
    _own("CatMouseLargeImage-v0", "grids.cat_mouse_grid:CatMouseGridEnv", limit=100, image=True),
    _own("PacManTiny-v0", "grids.pacman:PacManTableEnv", limit=100, layout="tiny", frightened_steps=3),
    _own("PacMan-v0", "grids.pacman:PacManEnv", limit=200, layout="small"),
    _own("PacManMedium-v0", "grids.pacman:PacManEnv", limit=500, layout="medium"),
    _own("PacManLarge-v0", "grids.pacman:PacManEnv", limit=1000, layout="large"),
    _own("PacManLargeImage-v0", "grids.pacman:PacManEnv", limit=1000, layout="large", image=True),
    _own("Gambler-v0", "textbook.gambler:GamblerEnv", limit=1000),
    _own("JacksCarRental-v0", "textbook.jacks_car_rental:JacksCarRentalEnv", limit=100),
    _own("RandomWalk-v0", "textbook.random_walk:RandomWalkEnv", limit=1000),
    _own("ShortCorridor-v0", "textbook.short_corridor:ShortCorridorEnv", limit=1000),
    _own("MaximizationBias-v0", "textbook.maximization_bias:MaximizationBiasEnv", limit=100),
    _own("Inventory-v0", "supply.inventory:InventoryEnv", limit=3),
    _own(
        "InventoryYear-v0",
        "supply.inventory:InventoryEnv",
        limit=12,
        months=12,
        capacity=20,
        initial_stock=10,
        demand=[0.05, 0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.05],
        price=8.0,
        fixed_cost=12.0,
        unit_cost=3.0,
        holding_cost=0.5,
    ),
    _own("Newsvendor-v0", "supply.newsvendor:NewsvendorEnv", limit=40),
    _own("NewsvendorDiscrete-v0", "supply.newsvendor:NewsvendorEnv", limit=40, n_levels=41),
    _own("MultiEchelon-v0", "supply.multi_echelon:MultiEchelonEnv", limit=30),
    _own("MultiEchelonLostSales-v0", "supply.multi_echelon:MultiEchelonEnv", limit=30, backlog=False),
    _own("Hvac-v0", "buildings.hvac:HvacEnv", limit=192),
    _own("HvacDiscrete-v0", "buildings.hvac:HvacEnv", limit=192, levels=5),
    _own("HvacDay-v0", "buildings.hvac_table:HvacTableEnv", limit=24),
    _own("Dialog-v0", "dialogs.dialog:DialogEnv", limit=100),
    _own("SlotFilling-v0", "dialogs.tabular_dialog:TabularSlotFillingEnv", limit=100),
    _own("Voicemail-v0", "dialogs.voicemail:VoicemailEnv", limit=100),
)
"""Every environment of policylab that needs nothing more, in the order of the documentation."""

OPTIONAL_REGISTRATIONS: tuple[Registration, ...] = (
    _own("EnergyPlusOffice-v0", "buildings.energyplus:EnergyPlusEnv", limit=671),
    _own("EnergyPlusOfficeYear-v0", "buildings.energyplus:EnergyPlusEnv", limit=35_039, days=365),
    _own("MiniGridDoorKey-v0", "grids.minigrid_view:MiniGridEnv", limit=250, task="MiniGrid-DoorKey-5x5-v0"),
)
"""Environments of policylab that need an extra: see `policylab.envs.optional`."""


def register_all() -> None:
    """Register both tables with Gymnasium; ids that are there already are left alone."""
    # Imported here, so that the table can be listed without loading Gymnasium.
    from gymnasium.envs.registration import register, registry

    for entry in (*REGISTRATIONS, *OPTIONAL_REGISTRATIONS):
        if entry.id not in registry:
            register(
                entry.id,
                entry.entry_point,
                max_episode_steps=entry.max_episode_steps,
                reward_threshold=entry.reward_threshold,
                kwargs=dict(entry.kwargs),
            )
