"""From `EnvSettings` to a running environment, always with a time limit."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, load_env_creator
from pydantic import JsonValue

from policylab.envs.aliases import alias_of
from policylab.envs.optional import JAX_REQUIREMENT, PROVIDERS, defect_of, load_provider, provider_of
from policylab.envs.settings import ID_FORM, EnvSettings
from policylab.errors import EnvironmentRuleError, MissingExtraError, PolicylabError, did_you_mean

DEFAULT_MAX_EPISODE_STEPS = 1000
"""Time limit where the registry has none: an untrained agent may walk for ever in CliffWalking."""

PACKAGES: Mapping[str, tuple[str, str]] = {
    "GymInvMgmt": ("gym_invmgmt", "gym-invmgmt"),
}
"""Namespace -> the module that registers it and the package that holds the module."""

DEPENDENCIES: Mapping[str, str] = {
    "box2d": PROVIDERS["box2d"].requirement,
    "mujoco": PROVIDERS["mujoco"].requirement,
    "pygame": "pygame-ce",
    "jax": JAX_REQUIREMENT,
}
"""Modules that environments of Gymnasium need -> what to install (its own box2d extra does not build)."""


@dataclasses.dataclass(frozen=True, slots=True)
class ResolvedEnv:
    """What exactly will be made; recorded with every run.

    Attributes:
        requested_id: the id in the settings.
        id: the registered id, an alias replaced, without module prefix.
        kwargs: arguments of the constructor beyond the registered ones.
        max_episode_steps: the time limit imposed.
        limit_source: where the limit comes from: the experiment file, the registry, or neither.
        gymnasium_version: the version installed.
        notes: what the user should know, one sentence each.
    """

    requested_id: str
    id: str
    kwargs: dict[str, JsonValue]
    max_episode_steps: int
    limit_source: Literal["config", "registry", "default"]
    gymnasium_version: str
    notes: tuple[str, ...] = ()


def resolve(settings: EnvSettings) -> ResolvedEnv:
    """Return what `make_env` will make, without making it.

    The ``module:`` prefix of an id imports that module, as ``gymnasium.make`` does.

    Raises:
        EnvironmentRuleError: the id is not registered, or its module fails on import.
        MissingExtraError: its module is not installed.
    """
    requested = settings.id
    match = ID_FORM.fullmatch(requested)
    assert match is not None, "EnvSettings checks the form"
    if match["module"]:
        _import(match["module"], requested)
    env_id, notes = match["id"], []
    if env_id not in gym.registry and (provider := provider_of(env_id)) and provider.registers:
        load_provider(provider)
    if env_id not in gym.registry:
        alias = alias_of(env_id, settings.kwargs, known=gym.registry)
        if alias is None:
            raise _unknown(requested, env_id, module=match["module"])
        notes.append(f"{env_id} is not in Gymnasium {gym.__version__}; {alias}, the same environment, is used")
        env_id = alias
    spec = gym.registry[env_id]
    _refuse_random_map(env_id, {**spec.kwargs, **settings.kwargs})
    limit = settings.max_episode_steps or spec.max_episode_steps or DEFAULT_MAX_EPISODE_STEPS
    source: Literal["config", "registry", "default"] = (
        "config" if settings.max_episode_steps else "registry" if spec.max_episode_steps else "default"
    )
    return ResolvedEnv(
        requested_id=requested,
        id=env_id,
        kwargs=dict(settings.kwargs),
        max_episode_steps=limit,
        limit_source=source,
        gymnasium_version=gym.__version__,
        notes=tuple(notes),
    )


def _refuse_random_map(env_id: str, kwargs: Mapping[str, Any]) -> None:
    """FrozenLake draws its map outside of its random stream: training and evaluation would see different ones."""
    drawn = kwargs.get("desc") is None and "map_name" in kwargs and kwargs["map_name"] is None
    if env_id.startswith("FrozenLake") and drawn:
        raise EnvironmentRuleError(
            f"env.kwargs.map_name: null makes {env_id} draw another map each time it is made, so that what is trained "
            "and what is evaluated differ; name a map (4x4, 8x8) or give its rows as desc"
        )


def make_env(settings: EnvSettings, *, render_mode: str | None = None) -> gym.Env[Any, Any]:
    """Make the environment, with a time limit and without Gymnasium's per-step checker.

    Args:
        settings: which environment.
        render_mode: None, or one of the environment's own modes.

    Raises:
        EnvironmentRuleError: as `resolve`, or the constructor refuses its arguments, or there is no such
            render mode.
        MissingExtraError: a library the environment needs is missing.

    >>> make_env(EnvSettings(id="CliffWalking-v1"))
    <TimeLimit<OrderEnforcing<CliffWalkingEnv<CliffWalking-v1>>>>
    """
    resolved = resolve(settings)
    spec = gym.registry[resolved.id]
    provider = provider_of(resolved.id, entry_point=spec.entry_point)
    if provider is not None:
        load_provider(provider)
    creator = _creator(spec)
    if render_mode is not None:
        _draw_off_screen()
    drawing = {} if render_mode is None else {"render_mode": _supported(render_mode, creator, env_id=resolved.id)}
    try:
        return gym.make(
            spec,
            max_episode_steps=resolved.max_episode_steps,
            disable_env_checker=True,
            **resolved.kwargs,
            **drawing,
        )
    except PolicylabError:
        raise
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        raise _missing(resolved.id, error) from error
    except Exception as error:  # the constructor is foreign code: whatever it raises, its arguments are to blame
        if provider is not None and (defect := defect_of(provider)):
            raise MissingExtraError(f"{resolved.id}: {defect}") from error
        raise _refused(resolved, creator, error=error) from error


def _draw_off_screen() -> None:
    """Let pygame do without a window and a sound card, and MuJoCo without a screen."""
    for driver in ("SDL_AUDIODRIVER", "SDL_VIDEODRIVER"):
        os.environ.setdefault(driver, "dummy")
    if sys.platform.startswith("linux") and "DISPLAY" not in os.environ:
        os.environ.setdefault("MUJOCO_GL", "egl")


def _import(module: str, requested: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = next((f"pip install {name}" for known, name in PACKAGES.values() if known == module), None)
        raise MissingExtraError(
            f"'{requested}' needs the module '{module}', which cannot be imported ({error}); "
            f"{package or 'install the package that holds it'}, or correct the part before the colon"
        ) from error
    except Exception as error:  # foreign code
        raise EnvironmentRuleError(
            f"importing '{module}' for '{requested}' failed with {type(error).__name__}: {_one_line(error)}"
        ) from error


def _unknown(requested: str, env_id: str, *, module: str | None) -> EnvironmentRuleError:
    namespace, _, name = env_id.rpartition("/")
    versions = sorted(known for known in gym.registry if known.rpartition("-v")[0] == env_id.rpartition("-v")[0])
    namespaces = {spec.namespace for spec in gym.registry.values() if spec.namespace}
    if versions:
        hint = f"; Gymnasium {gym.__version__} has {', '.join(versions)}"
    elif namespace and namespace not in namespaces:
        hint = did_you_mean(env_id, gym.registry) or _install_hint(namespace, env_id)
    elif hint := did_you_mean(env_id, gym.registry) or did_you_mean(name, gym.registry):
        pass
    elif module:
        hint = f"; the module '{module}' was imported but does not register it"
    else:
        hint = "; see `policylab list envs`, or write 'module:id' to import the module that registers it"
    return EnvironmentRuleError(f"unknown environment '{requested}'{hint}")


def _install_hint(namespace: str, env_id: str) -> str:
    if namespace in PACKAGES:
        module, package = PACKAGES[namespace]
        return f"; pip install {package} and write '{module}:{env_id}'"
    return f"; install the package that holds '{namespace}' and write 'its_module:{env_id}'"


def _creator(spec: EnvSpec) -> Any:
    try:
        return load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        raise _missing(spec.id, error) from error


def _missing(env_id: str, error: Exception) -> MissingExtraError:
    cause = f"{error} {getattr(error.__cause__, 'name', '')}".lower()
    for module, package in DEPENDENCIES.items():
        if module in cause:
            return MissingExtraError(
                f"{env_id} needs {module}, which cannot be imported; install it with: pip install {package}"
            )
    return MissingExtraError(f"{env_id} cannot be made, a library is missing: {_one_line(error)}")


def _supported(render_mode: str, creator: Any, *, env_id: str) -> str:
    modes = list(getattr(creator, "metadata", {}).get("render_modes", []))
    if render_mode not in modes and render_mode.removesuffix("_list") not in modes:
        raise EnvironmentRuleError(
            f"{env_id} cannot be rendered as '{render_mode}'; its render modes: {', '.join(map(str, modes)) or 'none'}"
        )
    return render_mode


def _refused(resolved: ResolvedEnv, creator: Any, *, error: Exception) -> EnvironmentRuleError:
    try:
        accepted = [name for name in inspect.signature(creator).parameters if name not in ("render_mode", "kwargs")]
    except (TypeError, ValueError):
        accepted = []
    unknown = [name for name in resolved.kwargs if accepted and name not in accepted]
    if unknown and isinstance(error, TypeError):
        hint = did_you_mean(unknown[0], accepted)
        return EnvironmentRuleError(
            f"{resolved.id} has no argument `{unknown[0]}`{hint} (known: {', '.join(accepted)})"
        )
    return EnvironmentRuleError(
        f"{resolved.id} refused env.kwargs {resolved.kwargs}: {type(error).__name__}: {_one_line(error)}"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
