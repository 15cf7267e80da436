"""What RLlib's connector pipelines do to observations and actions, read from the pipelines themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from policylab.agents.action_distributions import Categorical, Distribution, Gaussian, MultiCategorical, QValues
from policylab.agents.rllib.observation_graph import filter_step, flatten_step, leaves, wrapper_steps
from policylab.errors import UserError

_PLUMBING = {
    "AddObservationsFromEpisodesToBatch",
    "AddStatesFromEpisodesToBatch",
    "AddTimeDimToBatchAndZeroPad",
    "BatchIndividualItems",
    "NumpyToTensor",
    "WriteObservationsToEpisodes",
    "GetActions",
    "ListifyDataForVectorEnv",
    "RemoveSingleTsTimeRankFromBatch",
    "TensorToNumpy",
    "UnBatchToIndividualItems",
}
"""Pieces that carry data about and change no number."""


def observation_steps(raw: Space[Any], env_to_module: Any) -> list[Any]:
    """Return the steps from a raw observation to the network's input.

    Args:
        raw: the environment's own observation space.
        env_to_module: the `EnvToModulePipeline` of the env runner, whose observation filter is up to date.

    Raises:
        UserError: a piece of the pipeline cannot be exported.
    """
    from ray.rllib.connectors.common.flatten_observations import FlattenObservations
    from ray.rllib.connectors.env_to_module.mean_std_filter import MeanStdFilter

    steps = wrapper_steps(raw, env_to_module.input_observation_space)
    for piece in env_to_module.connectors:
        if isinstance(piece, FlattenObservations):
            steps.append(flatten_step([part for _, part in leaves(piece.input_observation_space)]))
        elif isinstance(piece, MeanStdFilter):
            steps += _filter_steps(piece)
        elif type(piece).__name__ not in _PLUMBING:
            raise UserError(f"the connector {type(piece).__name__} cannot be exported; do its work in an env wrapper")
    return steps


def _filter_steps(piece: Any) -> list[Any]:
    from ray.rllib.utils.filter import RunningStat
    from ray.rllib.utils.numpy import SMALL_NUMBER

    space = piece.input_observation_space
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return []  # RLlib leaves them alone
    if not isinstance(space, spaces.Box) or not np.issubdtype(space.dtype, np.floating):
        raise UserError(
            f"an observation filter needs observations of floats, got {str(space)[:80]}; flatten them first"
        )
    (state,) = piece.get_state().values()
    (statistics,) = (RunningStat.from_state(one) for one in state["running_stats"])
    mean = statistics.mean if state["de_mean_to_zero"] else np.zeros(space.shape)
    # The sum stays in the 32 bits of the deviation, as in RLlib.
    deviation = statistics.std + SMALL_NUMBER if state["de_std_to_one"] else np.ones(space.shape)
    return [filter_step(mean, deviation, clip=state["clip_by_value"] or None)]


def action_distribution(module: Any, space: Space[Any], *, module_to_env: Any, epsilon: float) -> Distribution:
    """Return what the network's output means for the environment's actions.

    Args:
        module: the `RLModule`.
        space: the environment's own action space.
        module_to_env: the `ModuleToEnvPipeline` of the env runner.
        epsilon: probability of a random action, for Q-values.

    Raises:
        UserError: the actions, or a piece of the pipeline, cannot be exported.
    """
    from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian, TorchSquashedGaussian

    match space:
        case spaces.Discrete():
            kind = QValues if is_q_network(module) else Categorical
            options = {"epsilon": epsilon} if is_q_network(module) else {}
            return kind(n_actions=int(space.n), first_action=int(space.start), **options)
        case spaces.MultiDiscrete() if space.nvec.ndim == 1:
            return MultiCategorical(sizes=tuple(space.nvec.tolist()), first_actions=tuple(space.start.tolist()))
        case spaces.Box() if len(space.shape) == 1 and str(space.dtype) in ("float32", "float64"):
            found = module.get_inference_action_dist_cls()
            squash = issubclass(found, TorchSquashedGaussian)
            if squash or issubclass(found, TorchDiagGaussian):
                options = _bounds(space, module_to_env)
                return Gaussian(
                    n_components=space.shape[0],
                    dtype=str(space.dtype),
                    squash=squash,
                    squash_mode=squash and _squashes_mode(found),
                    **options,
                )
    raise UserError(
        f"actions of the space {str(space)[:80]} cannot be exported; use Discrete, MultiDiscrete or a 1-D Box"
    )


def is_q_network(module: Any) -> bool:
    """Return whether the module computes a value per action (DQN) instead of an action distribution."""
    from ray.rllib.algorithms.dqn.default_dqn_rl_module import DefaultDQNRLModule

    return isinstance(module, DefaultDQNRLModule)


def _squashes_mode(distribution: Any) -> bool:
    """Return whether the distribution's deterministic action is tanh(mean), or the mean itself as in RLlib 2.60."""
    import torch

    mode = distribution.from_logits(torch.tensor([[0.5, 0.0]])).to_deterministic().sample()
    return abs(float(mode) - 0.5) > 1e-3


def _bounds(space: spaces.Box, module_to_env: Any) -> dict[str, Any]:
    """Return bounds and rescaling. Where RLlib would let actions leave the space, the export clips them to it."""
    from ray.rllib.connectors.module_to_env.normalize_and_clip_actions import NormalizeAndClipActions

    if not (space.low < space.high).all():
        raise UserError(f"actions of the space {str(space)[:80]} cannot be exported: a component has but one value")
    found: dict[str, Any] = {}
    if np.isfinite(space.low).any() or np.isfinite(space.high).any():
        largest = float(np.finfo(space.dtype).max)  # clips nothing
        low, high = (np.clip(bound.astype(np.float64), -largest, largest) for bound in (space.low, space.high))
        found = {"low": low.tolist(), "high": high.tolist()}
    for piece in module_to_env.connectors:
        if isinstance(piece, NormalizeAndClipActions):
            found |= {"rescale": True} if piece.normalize_actions and space.is_bounded() else {}
        elif type(piece).__name__ not in _PLUMBING:
            raise UserError(f"the connector {type(piece).__name__} cannot be exported; do its work in an env wrapper")
    return found
