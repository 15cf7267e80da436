"""Environments that need an extra: which package brings them, and how they are had.

Nothing here imports such a package; `load_provider` does, when an experiment names one of its environments.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

from policylab.errors import MissingExtraError


class Provider(NamedTuple):
    """A package that brings environments.

    Attributes:
        extra: of policylab, which installs it.
        module: found if it is installed.
        registers: importing the module registers its environments with Gymnasium; others are registered already.
        prefixes: what the names of its environments begin with, namespace included.
        entry_points: what the entry points of its environments begin with.
    """

    extra: str
    module: str
    registers: bool
    prefixes: tuple[str, ...]
    entry_points: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether the module is there; it is not imported."""
        return find_spec(self.module) is not None

    @property
    def requirement(self) -> str:
        """What pip installs, quoted for a shell."""
        return f"'policylab[{self.extra}]'"

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install {self.requirement}"


_HIGHWAY = ("highway-", "merge-", "roundabout-", "intersection-", "racetrack-", "parking-", "exit-", "lane-keeping-")
_MINIGRID = ("minigrid", "policylab.envs.grids.minigrid_view")
_ROBOTICS = ("Fetch", "Hand", "PointMaze_", "AntMaze_", "AdroitHand", "FrankaKitchen-")

PROVIDERS: Mapping[str, Provider] = {
    provider.extra: provider
    for provider in (
        Provider("energyplus", "pyenergyplus", False, (), ("policylab.envs.buildings.energyplus",)),
        Provider("box2d", "Box2D", False, (), ("gymnasium.envs.box2d",)),
        Provider("mujoco", "mujoco", False, (), ("gymnasium.envs.mujoco",)),
        Provider("robotics", "gymnasium_robotics", True, _ROBOTICS, ("gymnasium_robotics",)),
        Provider("driving", "highway_env", True, (*_HIGHWAY, "two-way-", "u-turn-"), ("highway_env",)),
        Provider("atari", "ale_py", True, ("ALE/",), ("ale_py",)),
        Provider("minigrid", "minigrid", True, ("MiniGrid-", "BabyAI-"), _MINIGRID),
    )
}
"""Extra -> its provider."""

SHOWCASE: Mapping[str, tuple[str, str]] = {
    "policylab/EnergyPlusOffice-v0": ("energyplus", "setpoints of a small office for a week of real weather"),
    "policylab/EnergyPlusOfficeYear-v0": ("energyplus", "the same for a whole year"),
    "LunarLander-v3": ("box2d", "land between two flags"),
    "BipedalWalker-v3": ("box2d", "walk on two legs, continuous torques"),
    "CarRacing-v3": ("box2d", "drive a race track seen from above"),
    "Reacher-v5": ("mujoco", "reach a point with a two-joint arm"),
    "HalfCheetah-v5": ("mujoco", "run on two legs in the plane"),
    "FetchReach-v4": ("robotics", "move a gripper to a goal, Dict observation"),
    "FetchReachDense-v4": ("robotics", "the same, rewarded by nearness"),
    "PointMaze_UMaze-v3": ("robotics", "push a ball through a maze to a goal, Dict observation"),
    "highway-fast-v0": ("driving", "overtake on a motorway, quick version"),
    "parking-v0": ("driving", "park on a given spot, Dict observation"),
    "roundabout-v1": ("driving", "pass a roundabout"),
    "ALE/MsPacman-v5": ("atari", "Ms. Pac-Man from the screen; GPL-2.0"),
    "policylab/MiniGridDoorKey-v0": ("minigrid", "fetch a key, open a door, the whole grid seen as numbers"),
    "MiniGrid-Empty-5x5-v0": ("minigrid", "walk to the green square, seen from the agent, Dict observation"),
    "MiniGrid-DoorKey-5x5-v0": ("minigrid", "fetch a key, open a door"),
    "MiniGrid-FourRooms-v0": ("minigrid", "find the goal in four rooms"),
}
"""Environments to begin with: id -> (extra, what it is about). Everything else of these packages works too."""

JAX_ENTRY_POINTS = ("gymnasium.envs.phys2d", "gymnasium.envs.tabular")
"""What the entry points of Gymnasium's environments in JAX begin with; Gymnasium registers them with or without it."""
JAX_REQUIREMENT = "'gymnasium[jax]'"

MAX_MUJOCO_OF_ROBOTICS = (3, 12)
"""gymnasium-robotics 1.4.2 compares enums in a way that fails from this version of mujoco on."""


def provider_of(env_id: str, *, entry_point: object = None) -> Provider | None:
    """Return the provider of an environment, by its id or its entry point; None for all others.

    >>> provider_of("ALE/MsPacman-v5").extra, provider_of("FrozenLake-v1")
    ('atari', None)
    """
    if env_id in SHOWCASE:
        return PROVIDERS[SHOWCASE[env_id][0]]
    known = entry_point if isinstance(entry_point, str) else ""
    for provider in PROVIDERS.values():
        if env_id.startswith(provider.prefixes) or known.startswith(provider.entry_points):
            return provider
    return None


def install_command(env_id: str, *, entry_point: str) -> tuple[bool, str | None]:
    """Return whether what an environment needs is installed, and the command that installs it; None for all others."""
    provider = provider_of(env_id, entry_point=entry_point)
    if provider is not None:
        return provider.installed, provider.install
    if entry_point.startswith(JAX_ENTRY_POINTS):
        return find_spec("jax") is not None, f"pip install {JAX_REQUIREMENT}"
    return True, None


def load_provider(provider: Provider) -> None:
    """Import the provider's module, which registers its environments, without its advertising and its warnings.

    Box2D is imported here for a reason of its own: where warnings are errors, those of its import end the process.

    Raises:
        MissingExtraError: it is absent or broken.
    """
    try:
        # gymnasium-robotics prints about environments that nobody asked for
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            module = importlib.import_module(provider.module)
    except ImportError as error:
        raise MissingExtraError(
            f"the environments of {provider.module} need an extra ({error}); install it with: {provider.install}"
        ) from error
    if provider.extra == "atari":  # else it prints its name for each environment made
        module.ALEInterface.setLoggerMode(module.LoggerMode.Error)


def defect_of(provider: Provider) -> str | None:
    """Return what is known to be broken about the installed versions, with the remedy, or None."""
    if provider.extra != "robotics":
        return None
    try:
        found = version("mujoco")
    except PackageNotFoundError:
        return None
    if tuple(int(part) for part in found.split(".")[:2]) < MAX_MUJOCO_OF_ROBOTICS:
        return None
    return f"gymnasium-robotics does not work with mujoco {found}; pip install 'mujoco<3.12'"
