"""The return that an optimised policy loses: exact where the environment has a table, else on paired episodes."""

from __future__ import annotations

import dataclasses

import numpy as np

from policylab.agents.policy import Policy
from policylab.envs.settings import EnvSettings
from policylab.experiments.evaluation import ExactEvaluator, RolloutEvaluator, exact_table, greedy_actions
from policylab.experiments.statistics import paired_difference
from policylab.seeding import generator, stream


@dataclasses.dataclass(frozen=True, slots=True)
class Loss:
    """Undiscounted returns per episode of deterministic actions, and their difference.

    Attributes:
        source: mean return of the policy that was optimised.
        optimized: mean return of the result.
        low: lower end of the interval of ``source - optimized``; equal to ``high`` where that is exact.
        high: its upper end.
        episodes: paired episodes behind it; 0 where it is exact.
    """

    source: float
    optimized: float
    low: float
    high: float
    episodes: int

    @property
    def value(self) -> float:
        """Return lost per episode; negative where the result is better."""
        return self.source - self.optimized

    @property
    def exact(self) -> bool:
        """Whether the environment's table says so, without chance."""
        return self.episodes == 0


def return_lost(
    env: EnvSettings, source: Policy, *, optimized: Policy, episodes: int, confidence: float, seed: int
) -> Loss:
    """Return what ``optimized`` loses against ``source``.

    Both play the same episodes, whose streams no training and no distillation has used; the interval is a paired
    bootstrap over episodes.

    Raises:
        EnvironmentRuleError, MissingExtraError: the environment cannot be made.
    """
    mdp = exact_table(env)
    if mdp is not None and all(greedy_actions(policy, mdp) is not None for policy in (source, optimized)):
        evaluate = ExactEvaluator(mdp)
        before, after = (evaluate(policy, episodes=0).value for policy in (source, optimized))
        return Loss(before, after, before - after, before - after, episodes=0)
    fresh = int(stream(seed, "optimize", "compared").generate_state(1, np.uint64)[0] >> np.uint64(1))
    play = RolloutEvaluator(env, seed=fresh)
    returns = [play(policy, episodes=episodes).episode_returns for policy in (source, optimized)]
    difference = paired_difference(*returns, rng=generator(seed, "optimize", "bootstrap"), level=confidence)
    low = difference.value if difference.low is None else difference.low
    high = difference.value if difference.high is None else difference.high
    return Loss(float(np.mean(returns[0])), float(np.mean(returns[1])), low, high, episodes=episodes)
