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
    _own("Bandit-v0", "bandit:BanditEnv", limit=1000),
    _own("DriftingBandit-v0", "bandit:BanditEnv", limit=10_000, drift=0.01),
    _own("GridWorld-v0", "gridworld:GridWorldEnv", limit=200),
    _own("WindyGridworld-v0", "windy:WindyGridworldEnv", limit=1000),
    _own("WindyGridworldKings-v0", "windy:WindyGridworldEnv", limit=1000, n_moves=8),
    _own("WindyGridworldStochastic-v0", "windy:WindyGridworldEnv", limit=1000, n_moves=8, stochastic=True),
    _own("DynaMaze-v0", "dyna_maze:DynaMazeEnv", limit=5000),
    _own("BlockingMaze-v0", "dyna_maze:ChangingMazeEnv", limit=5000, variant="blocking", change_at=1000),
    _own("ShortcutMaze-v0", "dyna_maze:ChangingMazeEnv", limit=5000, variant="shortcut", change_at=3000),
    _own("CatMouse-v0", "cat_mouse:CatMouseEnv", limit=100),
    _own("CatMouseCat-v0", "cat_mouse:CatMouseCatEnv", limit=100),
    _own("PacManTiny-v0", "pacman:PacManTableEnv", limit=100, layout="tiny", frightened_steps=3),
    _own("PacMan-v0", "pacman:PacManEnv", limit=200, layout="small"),
    _own("PacManMedium-v0", "pacman:PacManEnv", limit=500, layout="medium"),
    _own("Gambler-v0", "gambler:GamblerEnv", limit=1000),
    _own("JacksCarRental-v0", "jacks_car_rental:JacksCarRentalEnv", limit=100),
    _own("RandomWalk-v0", "random_walk:RandomWalkEnv", limit=1000),
    _own("ShortCorridor-v0", "short_corridor:ShortCorridorEnv", limit=1000),
    _own("MaximizationBias-v0", "maximization_bias:MaximizationBiasEnv", limit=100),
)
"""Every environment of policylab, in the order of the documentation."""


def register_all() -> None:
    """Register `REGISTRATIONS` with Gymnasium; ids that are there already are left alone."""
    # Imported here, so that the table can be listed without loading Gymnasium.
    from gymnasium.envs.registration import register, registry

    for entry in REGISTRATIONS:
        if entry.id not in registry:
            register(
                entry.id,
                entry.entry_point,
                max_episode_steps=entry.max_episode_steps,
                reward_threshold=entry.reward_threshold,
                kwargs=dict(entry.kwargs),
            )
