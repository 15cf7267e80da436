"""The ten-armed testbed of Sutton & Barto, chapter 2."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from policylab.agents.bandit_learners import run_testbed
from policylab.agents.bandit_settings import (
    BanditSettings,
    EpsilonGreedyBandit,
    GradientBandit,
    OptimisticBandit,
    Ucb1Bandit,
)
from policylab.envs.textbook.bandit import BanditEnv
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
SECOND = "pulls 901 to 1,000 in a second implementation, 40,000 problems"


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


UCB = Ucb1Bandit(c=2.0)
NARROW_UCB = Ucb1Bandit(c=1.0)


def _reward(name: str, settings: BanditSettings, *, published: str, figure: str) -> Check:
    """Return the check of a mean reward."""
    return Check(
        name=f"Ten-armed testbed: reward, {name}",
        published=published,
        published_error=0.0032,
        source=f"{BOOK}, {figure}; {SECOND}",
        measure=lambda: late(settings).reward,
    )


def _best(name: str, settings: BanditSettings, *, published: str, figure: str, mean: float = 0.0) -> Check:
    """Return the check of a fraction of best arms."""
    return Check(
        name=f"Ten-armed testbed: best arm, {name}",
        published=published,
        published_error=0.0025,
        source=f"{BOOK}, {figure}; {SECOND}",
        measure=lambda: late(settings, mean).best,
    )


def _gradient(learning_rate: float, published: str, *, baseline: bool) -> Check:
    name = f"gradient {'with' if baseline else 'without'} baseline, α {learning_rate}"
    settings = GradientBandit(learning_rate=learning_rate, baseline=baseline)
    return _best(name, settings, published=published, figure="Figure 2.5, p. 38", mean=4.0)


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
        slack=0.03,
        reason="'approximately'",
    ),
    _reward("ε 0.01", CAREFUL, published="1.309", figure="Figure 2.2, p. 29"),
    _reward("ε 0.1", EXPLORING, published="1.375", figure="Figure 2.2, p. 29"),
    _best("ε 0.1", EXPLORING, published="0.800", figure="Figure 2.2, p. 29"),
    _best("optimistic, Q1 = 5", OPTIMISTIC, published="0.858", figure="Figure 2.3, p. 34"),
    _best("realistic, ε 0.1, α 0.1", REALISTIC, published="0.756", figure="Figure 2.3, p. 34"),
    _reward("UCB c = 2", UCB, published="1.485", figure="Figure 2.4, p. 36"),
    _best("UCB c = 2", UCB, published="0.853", figure="Figure 2.4, p. 36"),
    _best("UCB c = 1", NARROW_UCB, published="0.924", figure="Figure 2.4, p. 36, with c = 1"),
    _gradient(0.1, "0.846", baseline=True),
    _gradient(0.1, "0.490", baseline=False),
    _gradient(0.4, "0.712", baseline=True),
    _gradient(0.4, "0.281", baseline=False),
)
"""Figures 2.2 to 2.5."""
