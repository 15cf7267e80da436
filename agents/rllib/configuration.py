"""From settings to RLlib's configuration of an algorithm."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import gymnasium as gym

from policylab.agents.rllib import engine
from policylab.agents.rllib.environment import NAME, register
from policylab.agents.rllib.episodes import on_episode_end
from policylab.agents.rllib.extension import SETTINGS, extended
from policylab.agents.rllib.overrides import apply_overrides
from policylab.agents.rllib.placement import place
from policylab.agents.rllib.settings import RllibSettings
from policylab.agents.rllib.spaces import Observations, check_actions, conv_filters
from policylab.agents.schedules import Linear
from policylab.envs.settings import EnvSettings
from policylab.errors import ConfigError


def algorithm_config(
    settings: RllibSettings, env_settings: EnvSettings, *, env: gym.Env[Any, Any], view: Observations, budget_steps: int
) -> Any:
    """Return RLlib's configuration, validated and not yet frozen.

    Args:
        settings: the agent's settings.
        env_settings: the environment.
        env: one instance of it.
        view: how its observations are seen.
        budget_steps: the full budget, over which schedules stretch.

    Raises:
        ConfigError: an override, or a combination of settings, that the algorithm does not take.
        EnvironmentRuleError: it does not learn over such actions.
        MissingExtraError: the extra `rllib` is not installed.
    """
    check_actions(env.action_space, settings.algorithm, env_id=env_settings.id)
    engine.load()
    config = _config_class(settings)()
    given = {"settings": env_settings.model_dump(mode="json"), "rescaled": settings.facts.offline}
    config.environment(NAME, env_config=given)
    register()
    for name, value in settings.facts.defaults.items():
        setattr(config, name, value)
    _set_execution(config, settings)
    _set_learning(config, settings, budget_steps=budget_steps)
    _set_learner(config, settings)
    if not isinstance(env.action_space, gym.spaces.Box):
        config.normalize_actions = False  # there is nothing to scale, which RLlib finds out anew for every action
    config.callbacks(on_episode_end=on_episode_end)
    config.debugging(log_sys_usage=False)
    config.rl_module(model_config=_model(settings, view))
    place(config)
    apply_overrides(config, settings)
    return _validated(config, settings)


def _config_class(settings: RllibSettings) -> Any:
    module, _, name = settings.facts.config.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(module), name)


def _set_execution(config: Any, settings: RllibSettings) -> None:
    """Where it samples and learns."""
    config.env_runners(
        num_env_runners=settings.effective_env_runners,
        num_envs_per_env_runner=settings.effective_envs_per_runner,
        gym_env_vectorize_mode="vector_entry_point",
    )
    if settings.observation_filter == "mean_std":
        config.env_runners(env_to_module_connector=mean_std_filter)
    gpus = 1 if uses_gpu(settings) else 0
    config.learners(num_learners=settings.n_learners or 0, num_gpus_per_learner=gpus)
    # Where a runner dies, the run goes on with a new one; evaluation is ours, so RLlib's own is never skipped unseen.
    config.fault_tolerance(restart_failed_env_runners=True, delay_between_env_runner_restarts_s=1.0)


def uses_gpu(settings: RllibSettings) -> bool:
    """Return whether the network is trained on a GPU.

    Raises:
        ConfigError: ``device: cuda`` was asked for and there is none.
    """
    import torch

    found = bool(torch.cuda.is_available())
    if settings.device == "cuda" and not found:
        raise ConfigError("agent.device: cuda was asked for, but torch sees no GPU; use `device: auto`")
    return found and settings.device != "cpu"


def mean_std_filter(env: Any = None, spaces: Any = None, device: Any = None) -> Any:  # noqa: PLR0917 - RLlib calls it
    """Return RLlib's connector that centres and scales observations."""
    from ray.rllib.connectors.env_to_module import MeanStdFilter

    return MeanStdFilter()


def _set_learning(config: Any, settings: RllibSettings, *, budget_steps: int) -> None:
    """What it learns from, and how fast."""
    config.gamma = settings.discount
    rate: Any = settings.learning_rate
    if isinstance(rate, Linear):
        rate = [[0, rate.start], [max(int(rate.fraction * budget_steps), 1), rate.end]]
    else:
        rate = rate.value
    if settings.algorithm in ("SAC", "CQL"):
        config.actor_lr = config.critic_lr = config.alpha_lr = rate  # `lr` must stay None
    else:
        config.lr = rate
    config.train_batch_size_per_learner = settings.effective_batch_size
    if settings.facts.epochs:
        config.minibatch_size = settings.minibatch_size or min(128, settings.effective_batch_size)
        if settings.n_epochs is not None:
            config.num_epochs = settings.n_epochs


def _set_learner(config: Any, settings: RllibSettings) -> None:
    """Clipping, and what RLlib's own learners cannot do."""
    if settings.gradient_clip is not None:
        config.grad_clip, config.grad_clip_by = settings.gradient_clip.limit, settings.gradient_clip.by
    dropout = settings.network.dropout
    if dropout or settings.l1 or settings.l2 or settings.diagnostics:
        asked = {"dropout": dropout, "l1": settings.l1, "l2": settings.l2, "diagnostics": settings.diagnostics}
        learner = extended(config.get_default_learner_class())
        config.learners(learner_class=learner, learner_config_dict={SETTINGS: asked})


def _model(settings: RllibSettings, view: Observations) -> Any:
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    hidden = list(settings.network.hidden or settings.facts.hidden)
    activation = settings.network.activation or settings.facts.activation
    shared: dict[str, Any] = {"vf_share_layers": settings.network.shared}
    if (lstm := settings.network.lstm) is not None:
        shared |= {"use_lstm": True, "lstm_cell_size": lstm.cell_size, "max_seq_len": lstm.sequence}
    if not view.image:
        return DefaultModelConfig(fcnet_hiddens=hidden, fcnet_activation=activation, **shared)
    # Behind convolutions RLlib has no other fully connected layers than those of the heads.
    filters = conv_filters(view.network_space.shape)
    return DefaultModelConfig(
        conv_filters=filters, head_fcnet_hiddens=hidden, head_fcnet_activation=activation, **shared
    )


def _validated(config: Any, settings: RllibSettings) -> Any:
    try:
        config.validate()
    except (ValueError, TypeError, AssertionError) as error:
        text = " ".join(str(error).split())[:300]
        raise ConfigError(f"agent: {settings.algorithm} does not take these settings: {text}") from error
    return config
