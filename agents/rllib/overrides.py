"""``overrides``: attributes of RLlib's own configuration, checked by name and type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policylab.agents.rllib.settings import RllibSettings
from policylab.errors import ConfigError, did_you_mean

NOTHING = "nothing: "
OURS: Mapping[str, str] = {
    "lr": "agent.learning_rate",
    "actor_lr": "agent.learning_rate",
    "critic_lr": "agent.learning_rate",
    "alpha_lr": "agent.learning_rate",
    "gamma": "agent.discount",
    "train_batch_size": "agent.batch_size",
    "train_batch_size_per_learner": "agent.batch_size",
    "minibatch_size": "agent.minibatch_size",
    "num_epochs": "agent.n_epochs",
    "num_env_runners": "agent.n_env_runners",
    "num_envs_per_env_runner": "agent.n_envs_per_runner",
    "num_learners": "agent.n_learners",
    "num_gpus_per_learner": "agent.device",
    "num_gpus": "agent.device",
    "observation_filter": "agent.observation_filter",
    "model": "agent.network, or overrides.model_config",
    "env": "env.id",
    "env_config": "env.kwargs",
    "seed": "seeds.root",
    "observation_space": "env.id",
    "action_space": "env.id",
    "enable_rl_module_and_learner": "nothing: only the new API stack is used",
    "enable_env_runner_and_connector_v2": "nothing: only the new API stack is used",
    "framework_str": "nothing: only torch is used",
    "bc_iters": "nothing: RLlib's learner of CQL forgets their number at each report, and would only clone",
    "dataset_num_iters_per_learner": "nothing: batches are drawn by policylab",
}
"""Attributes that a field of the experiment file sets."""

_EVALUATION = "nothing: policylab evaluates by itself, see evaluation.marks and evaluation.episodes"
_ONE_POLICY = "nothing: there is but one policy"
_TORCH = "nothing: only torch is used"
UNUSED: Mapping[str, str] = {
    "evaluation_": _EVALUATION,
    "custom_evaluation_function": _EVALUATION,
    "offline_eval": _EVALUATION,
    "num_offline_eval": _EVALUATION,
    "max_num_offline_eval": _EVALUATION,
    "off_policy_estimation_methods": _EVALUATION,
    "input_": "agent.dataset",
    "output": "nothing: `policylab record` writes what a policy does",
    "policies": _ONE_POLICY,
    "policy_": _ONE_POLICY,
    "tf_": _TORCH,
    "local_tf_": _TORCH,
    "eager_": _TORCH,
    "enable_tf": _TORCH,
}
"""Beginnings of attributes that would be without effect here -> what to use."""

N_STEP = (
    "must be 1: with n steps RLlib 2.60 never replays the last n - 1 transitions of an episode, nor any of a shorter "
    "one, so that how episodes end is not learned"
)
ALIASES = {"lambda": "lambda_"}
MODEL = "model_config"
_NUMBERS = (int, float)


def apply_overrides(config: Any, settings: RllibSettings) -> None:
    """Set each override on ``config``.

    A mapping is merged into the attribute's own; ``model_config`` into the settings of RLlib's default networks.

    Raises:
        ConfigError: one finding per line: an unknown name, one that a field of ours sets, a value of another type.
    """
    findings = []
    for name, value in settings.overrides.items():
        try:
            if name == MODEL:
                _apply_model(config, value)
            else:
                _apply(config, ALIASES.get(name, name), value=value)
        except ConfigError as error:
            findings.append(f"agent.overrides.{name}: {error}")
    if findings:
        raise ConfigError("\n".join(findings))


def known_overrides(config: Any) -> list[str]:
    """Return the names that can be overridden."""
    from ray._common.deprecation import DEPRECATED_VALUE

    public = (name for name, value in vars(config).items() if not name.startswith("_") and value != DEPRECATED_VALUE)
    return sorted([*(name for name in public if _use_instead(name) is None), MODEL])


def _use_instead(name: str) -> str | None:
    """Return what to use instead of overriding an attribute, or None if it may be overridden."""
    return OURS.get(name) or next((use for beginning, use in UNUSED.items() if name.startswith(beginning)), None)


def _apply(config: Any, name: str, *, value: Any) -> None:
    if (use := _use_instead(name)) is not None:
        reason = use.removeprefix(NOTHING)
        raise ConfigError(f"is set by {use}" if reason == use else f"has no effect here: {reason}")
    known = known_overrides(config)
    if name not in known:
        hint = did_you_mean(name, [*known, *OURS]) or "; its names are in RLlib's documentation of AlgorithmConfig"
        raise ConfigError(f"{type(config).__name__} has no such attribute{hint}")
    if name == "n_step" and value != 1:
        raise ConfigError(N_STEP)
    setattr(config, name, _fitting(getattr(config, name), value))


def _apply_model(config: Any, value: Any) -> None:
    if not isinstance(value, dict):
        raise ConfigError(f"expected a mapping, got {value!r}")
    model = config.model_config
    for name, part in value.items():
        if name not in model:
            raise ConfigError(f"`{name}` is no setting of RLlib's default networks{did_you_mean(name, model)}")
        model[name] = _fitting(model[name], part)
    config.rl_module(model_config=model)


def _fitting(held: Any, given: Any) -> Any:
    """Return ``given`` if it is of the type of ``held``, merged with it if both are mappings.

    A number may become a list (a schedule), and None says nothing of the type.
    """
    if isinstance(held, dict) and isinstance(given, dict):
        return {**held, **given}
    both_flags = isinstance(held, bool) == isinstance(given, bool)
    alike = (
        held is None
        or given is None
        or (both_flags and isinstance(given, type(held)))
        or (both_flags and isinstance(held, _NUMBERS) and isinstance(given, (*_NUMBERS, list)))
        or (isinstance(held, str) and isinstance(given, _NUMBERS) and not isinstance(given, bool))  # "auto"
        or (isinstance(held, list | tuple) and isinstance(given, (*_NUMBERS, list)) and not isinstance(given, bool))
    )
    if not alike:
        raise ConfigError(f"expected {type(held).__name__} such as {held!r}, got {given!r}")
    return given
