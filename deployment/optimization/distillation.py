"""Distillation: a small network or a decision tree learns to do what a policy does.

The policy labels the observations on its own way, then those on the way of what has learned from it so far: DAgger
(Ross, Gordon, Bagnell 2011, arXiv 1011.0686). That for trees is VIPER without weights (Bastani et al. 2018, arXiv
1805.08328); targets are the policy's probabilities (Rusu et al. 2016, arXiv 1511.06295).
"""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from policylab.agents.action_distributions import Categorical, Distribution, Gaussian, MultiCategorical, QValues
from policylab.agents.bundle import Bundle
from policylab.agents.distribution_policy import DistributionPolicy
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.policy import Policy, StoredPolicy
from policylab.agents.tree_policy import TreePolicy, TreeSettings
from policylab.agents.value_policies import TabularPolicy
from policylab.deployment.optimization.regression_tree import grow
from policylab.deployment.optimization.settings import OptimizeSettings
from policylab.deployment.optimization.small_network import SmallNetwork
from policylab.errors import UserError
from policylab.experiments.evaluation import begin_episode
from policylab.seeding import generator

ROUNDS = 4
LEAST_PROBABILITY = 1e-6
_INPUT = "observation"
Floats = NDArray[np.float64]


def distilled(bundle: Bundle, env: gym.Env[Any, Any], *, settings: OptimizeSettings) -> StoredPolicy:
    """Return the small policy that has learned from the bundle's in ``env``.

    Raises:
        UserError: the observations or actions have no such policy.
    """
    distribution = _distribution(bundle)
    _check_observations(bundle.observation_space, settings)
    seen: list[Any] = []
    student: Any = bundle.policy
    for i in range(ROUNDS):
        acting = generator(settings.seed, "distillation", "actions", i) if i == 0 else None
        rng = generator(settings.seed, "distillation", "episodes", i)
        seen += visited(env, student, n=settings.observations // ROUNDS, rng=rng, acting=acting)
        targets = _targets(bundle.policy, seen, distribution=distribution)
        x = np.asarray(seen, dtype=np.float64).reshape(len(seen), -1)
        if settings.how == "distill-tree":
            numbers = isinstance(bundle.observation_space, spaces.Discrete)
            student = _tree(x, targets, distribution=distribution, depth=settings.depth, numbers=numbers)
        else:
            learning = generator(settings.seed, "distillation", "learning", i)
            student = _small(x, targets, distribution=distribution, hidden=settings.hidden, rng=learning)
    return cast("StoredPolicy", student)


def visited(
    env: gym.Env[Any, Any],
    policy: Policy,
    *,
    n: int,
    rng: np.random.Generator,
    acting: np.random.Generator | None = None,
) -> list[Any]:
    """Return ``n`` raw observations on the way of ``policy``, which draws its actions with ``acting``, if given."""
    found: list[Any] = []
    while len(found) < n:
        observation, ended = begin_episode(env, rng), False
        while not ended and len(found) < n:
            found.append(observation)
            observation, _, terminated, truncated, _ = env.step(policy.act(observation, rng=acting))
            ended = terminated or truncated
    return found


def _distribution(bundle: Bundle) -> Distribution:
    """Return the distribution of what learns from the bundle's policy."""
    policy = bundle.policy
    if isinstance(policy, DistributionPolicy) and not isinstance(policy.settings.distribution, MultiCategorical):
        return policy.settings.distribution
    if isinstance(policy, TabularPolicy):
        if policy.temperature is None:
            return QValues(n_actions=policy.n_actions, first_action=policy.first_action, epsilon=policy.epsilon)
        return Categorical(n_actions=policy.n_actions, first_action=policy.first_action)
    raise UserError(
        f"a policy of the kind '{bundle.manifest.policy.kind}' with the actions {str(bundle.action_space)[:60]} "
        "cannot be distilled; Discrete and Box actions can"
    )


def _check_observations(space: Space[Any], settings: OptimizeSettings) -> None:
    vector = isinstance(space, spaces.Box) and space.dtype == np.float32 and len(space.shape) == 1
    if settings.how == "distill-network" and not vector:
        raise UserError(
            f"distill-network needs a vector of float32, observations are {str(space)[:60]}; use distill-tree"
        )
    numbers = isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box)
    if not numbers and not (
        isinstance(space, spaces.Tuple) and all(isinstance(part, spaces.Discrete) for part in space.spaces)
    ):
        raise UserError(f"a tree compares numbers, observations are {str(space)[:60]}; they cannot be distilled")


def _targets(policy: Any, observations: list[Any], *, distribution: Distribution) -> Floats:
    """Return what is to be learned: probabilities, the best action, or mean and deviation, shape (n, n_outputs)."""
    if isinstance(distribution, Gaussian):
        return np.asarray(policy.outputs(observations), dtype=np.float64)
    greedy = isinstance(distribution, QValues)
    return np.asarray(policy.probabilities_batch(observations, greedy=greedy), dtype=np.float64)


def _tree(x: Floats, targets: Floats, *, distribution: Distribution, depth: int, numbers: bool) -> TreePolicy:
    arrays = grow(x, targets, depth=depth)
    if isinstance(distribution, Categorical):
        arrays["outputs"] = np.log(np.maximum(arrays["outputs"], np.float32(LEAST_PROBABILITY)))
    return TreePolicy(arrays, TreeSettings(n_features=x.shape[1], reads_numbers=numbers, distribution=distribution))


def _small(
    x: Floats, targets: Floats, *, distribution: Distribution, hidden: tuple[int, ...], rng: np.random.Generator
) -> OnnxPolicy:
    network = SmallNetwork(x, [*hidden, targets.shape[1]], rng=rng)
    shift = scale = None
    if isinstance(distribution, Gaussian):
        shift, scale = targets.mean(axis=0), np.maximum(targets.std(axis=0), 1e-6)
        targets = (targets - shift) / scale
    network.fit(x, targets, classes=scale is None, rng=rng)
    model = network.model(_INPUT, scale=scale, shift=shift)
    return OnnxPolicy(model, OnnxSettings(inputs={_INPUT: ()}, distribution=distribution))
