"""The ten-armed testbed of Sutton & Barto, chapter 2."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from policylab.agents.bandit_learners import (
    BanditSettings,
    EpsilonGreedyBandit,
    GradientBandit,
    OptimisticBandit,
    Ucb1Bandit,
    run_testbed,
)
from policylab.envs.bandit import BanditEnv
from policylab.experiments.verify.exact import BOOK
from policylab.experiments.verify.rows import Check, Estimate
from policylab.seeding import generator

N_BATCHES = 16
PROBLEMS_PER_BATCH = 125
"""Batches, whose spread gives the standard error, of problems; 2,000 problems as in the book."""
N_STEPS = 1000
LATE = slice(900, 1000)
"""The pulls that are averaged."""
N_RESETS = 20_000
AGAIN = "its last hundred steps in a second implementation"


class Late(NamedTuple):
    """Reward per pull and fraction of best arms over the last pulls."""

    reward: Estimate
    best: Estimate


@functools.cache  # two rows read one run
def late(settings: BanditSettings, mean: float = 0.0) -> Late:
    """Run one learner on the testbed whose arms' means are drawn round ``mean``."""
    rewards, best = np.empty(N_BATCHES), np.empty(N_BATCHES)
    for batch in range(N_BATCHES):
        rng = generator(0, "verify", "testbed", batch)
        reward_curve, best_curve = run_testbed(
            settings, n_problems=PROBLEMS_PER_BATCH, n_steps=N_STEPS, rng=rng, mean=mean
        )
        rewards[batch], best[batch] = reward_curve[LATE].mean(), best_curve[LATE].mean()
    return Late(Estimate.of(rewards), Estimate.of(best))


def _best_mean() -> Estimate:
    """Return the mean of the best arm's mean reward over dealt problems."""
    env = BanditEnv()
    env.reset(seed=0)
    means = []
    for _ in range(N_RESETS):
        env.reset()
        means.append(env.q.max())
    return Estimate.of(means)


GREEDY = EpsilonGreedyBandit(epsilon=0.0)
CAREFUL = EpsilonGreedyBandit(epsilon=0.01)
EXPLORING = EpsilonGreedyBandit(epsilon=0.1)
REALISTIC = EpsilonGreedyBandit(epsilon=0.1, learning_rate=0.1)
OPTIMISTIC = OptimisticBandit(initial_value=5.0, learning_rate=0.1)


def _simulated(name: str, published: str, *, where: str, reading: BanditSettings, mean: float = 0.0) -> Check:
    """Return the check of a fraction of best arms."""
    return Check(
        name=f"Ten-armed testbed: best arm, {name}",
        published=published,
        source=f"{BOOK}, {where}; {AGAIN}",
        measure=lambda: late(reading, mean).best,
        simulated=True,
    )


def _gradient(learning_rate: float, published: str, *, baseline: bool) -> Check:
    name = f"gradient {'with' if baseline else 'without'} baseline, α {learning_rate}"
    settings = GradientBandit(learning_rate=learning_rate, baseline=baseline)
    return _simulated(name, published, where="Figure 2.5, p. 38", reading=settings, mean=4.0)


CHECKS: tuple[Check, ...] = (
    Check(
        name="Ten-armed testbed: expected mean reward of the best arm",
        published="1.5388",
        source=f"order statistics of ten normal draws; {BOOK}, p. 29: about 1.54",
        measure=_best_mean,
    ),
    Check(
        name="Ten-armed testbed: reward, greedy",
        published="1.0",
        source=f"{BOOK}, Figure 2.2, p. 29: about 1",
        measure=lambda: late(GREEDY).reward,
        slack=0.05,
        reason="'about'",
    ),
    Check(
        name="Ten-armed testbed: best arm, greedy",
        published="0.333",
        source=f"{BOOK}, Figure 2.2, p. 29: approximately a third of the tasks",
        measure=lambda: late(GREEDY).best,
        slack=0.02,
        reason="'approximately'",
    ),
    Check(
        name="Ten-armed testbed: reward, ε 0.01",
        published="1.31",
        source=f"{BOOK}, Figure 2.2, p. 29; {AGAIN}: 1.30 to 1.33",
        measure=lambda: late(CAREFUL).reward,
        slack=0.015,
        reason="given as a range",
        simulated=True,
    ),
    Check(
        name="Ten-armed testbed: reward, ε 0.1",
        published="1.36",
        source=f"{BOOK}, Figure 2.2, p. 29; {AGAIN}: 1.36 to 1.37",
        measure=lambda: late(EXPLORING).reward,
        slack=0.01,
        reason="given as a range",
        simulated=True,
    ),
    _simulated("ε 0.1", "0.805", where="Figure 2.2, p. 29", reading=EXPLORING),
    _simulated("optimistic, Q1 = 5", "0.868", where="Figure 2.3, p. 34", reading=OPTIMISTIC),
    _simulated("realistic, ε 0.1, α 0.1", "0.767", where="Figure 2.3, p. 34", reading=REALISTIC),
    Check(
        name="Ten-armed testbed: reward, UCB c = 2",
        published="1.484",
        source=f"{BOOK}, Figure 2.4, p. 36; {AGAIN}",
        measure=lambda: late(Ucb1Bandit(c=2.0)).reward,
        simulated=True,
    ),
    _simulated("UCB c = 2", "0.854", where="Figure 2.4, p. 36", reading=Ucb1Bandit(c=2.0)),
    _simulated("UCB c = 1", "0.929", where="Figure 2.4, p. 36, with c = 1", reading=Ucb1Bandit(c=1.0)),
    _gradient(0.1, "0.844", baseline=True),
    _gradient(0.1, "0.485", baseline=False),
    _gradient(0.4, "0.729", baseline=True),
    _gradient(0.4, "0.284", baseline=False),
)
"""Figures 2.2 to 2.5."""
