"""The algorithms of RLlib that policylab offers: where each is, what it takes, where our defaults differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

ActionKind = Literal["discrete", "multi_discrete", "box"]


@dataclasses.dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm.

    Attributes:
        config: ``module:class`` of its configuration in RLlib.
        actions: the action spaces it learns over.
        hidden: default units of the hidden layers.
        activation: default activation of the hidden layers.
        batch_size: default transitions per update.
        n_envs: default environments per runner.
        replays: whether it learns from a replay buffer.
        epochs: whether it passes over a batch several times, in minibatches.
        offline: whether it learns from recorded transitions.
        defaults: attributes of the configuration that differ from RLlib's own defaults.
    """

    config: str
    actions: tuple[ActionKind, ...]
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    batch_size: int = 512
    n_envs: int = 8
    replays: bool = False
    epochs: bool = False
    offline: bool = False
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_ANY_ACTIONS: tuple[ActionKind, ...] = ("discrete", "multi_discrete", "box")
_REPLAY = {
    "min_time_s_per_iteration": None,  # an iteration counted by the clock is another one on every machine
    "min_sample_timesteps_per_iteration": 250,
}
_ASYNCHRONOUS = {"min_time_s_per_iteration": None, "min_sample_timesteps_per_iteration": 512}

_RECORDED = {
    "dataset_num_iters_per_learner": 1,  # RLlib asks for it; batches are drawn by policylab
    "_is_online": True,  # with an environment, which nobody steps: without one RLlib cannot restore a checkpoint
}

ALGORITHMS: Mapping[str, Algorithm] = {
    "PPO": Algorithm(
        "ray.rllib.algorithms.ppo:PPOConfig",
        _ANY_ACTIONS,
        batch_size=1024,
        epochs=True,
        # RLlib's 10 clips squared value errors, so that returns above ~3 are never learned (its documentation of
        # `vf_clip_param` warns of it). The rest is Schulman et al. 2017, table 3, and Andrychowicz et al. 2021.
        defaults={
            "vf_clip_param": math.inf,
            "vf_loss_coeff": 0.5,
            "clip_param": 0.2,
            "lambda_": 0.95,
            "grad_clip": 0.5,
            "use_kl_loss": False,
            "num_epochs": 10,
        },
    ),
    "APPO": Algorithm("ray.rllib.algorithms.appo:APPOConfig", _ANY_ACTIONS, defaults=_ASYNCHRONOUS),
    "IMPALA": Algorithm("ray.rllib.algorithms.impala:IMPALAConfig", _ANY_ACTIONS, defaults=_ASYNCHRONOUS),
    "DQN": Algorithm(
        "ray.rllib.algorithms.dqn:DQNConfig",
        ("discrete",),
        hidden=(256, 256),
        activation="relu",
        batch_size=64,
        n_envs=1,
        replays=True,
        defaults=_REPLAY,
    ),
    "SAC": Algorithm(
        "ray.rllib.algorithms.sac:SACConfig",
        ("box",),
        hidden=(256, 256),
        activation="relu",
        batch_size=256,
        n_envs=1,
        replays=True,
        defaults=_REPLAY,
    ),
    "BC": Algorithm(
        "ray.rllib.algorithms.bc:BCConfig", _ANY_ACTIONS, batch_size=256, n_envs=1, offline=True, defaults=_RECORDED
    ),
    "MARWIL": Algorithm(
        "ray.rllib.algorithms.marwil:MARWILConfig",
        _ANY_ACTIONS,
        batch_size=1024,
        n_envs=1,
        offline=True,
        # Its own start and rate of the advantages' scale, 100 and 1e-8, are for millions of updates: with fewer, the
        # scale stays 10 whatever the rewards.
        defaults={**_RECORDED, "moving_average_sqd_adv_norm_update_rate": 1e-2},
    ),
    "CQL": Algorithm(
        "ray.rllib.algorithms.cql:CQLConfig",
        ("box",),
        hidden=(256, 256),
        activation="relu",
        batch_size=256,
        n_envs=1,
        replays=True,
        offline=True,
        # RLlib's learner would clone the first 20,000 updates, and for ever: it forgets their number at each report.
        defaults={
            **_RECORDED,
            "lr": None,
            "bc_iters": 0,
            "replay_buffer_config": {"type": "EpisodeReplayBuffer", "capacity": 1},  # never filled; SAC asks for one
        },
    ),
}
