"""Settings of the bandit learners.

Source of all but Thompson sampling: Sutton & Barto (2018), "Reinforcement Learning", 2nd edition, chapter 2.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from policylab.config import Settings

Rate = Annotated[float, Field(gt=0.0, le=1.0)]


class EpsilonGreedyBandit(Settings):
    """Greedy on the estimates, uniformly random with probability epsilon (Sutton & Barto, section 2.2)."""

    kind: Literal["bandit_epsilon_greedy"] = "bandit_epsilon_greedy"
    epsilon: float = Field(0.1, ge=0.0, le=1.0, description="probability of a uniformly random arm (Figure 2.2)")
    learning_rate: Rate | Literal["sample_average"] = Field(
        "sample_average", description="step size of the estimates; sample_average is 1/N(a) (equation 2.3)"
    )
    initial_value: float = Field(0.0, description="estimate of every arm before its first pull, in units of reward")


class OptimisticBandit(Settings):
    """Greedy on estimates that start too high, so that every arm gets tried (Sutton & Barto, section 2.6)."""

    kind: Literal["bandit_optimistic"] = "bandit_optimistic"
    initial_value: float = Field(5.0, description="estimate of every arm before its first pull (Figure 2.3)")
    learning_rate: Rate = Field(0.1, description="constant step size of the estimates (Figure 2.3)")
    epsilon: float = Field(0.0, ge=0.0, le=1.0, description="probability of a uniformly random arm")


class Ucb1Bandit(Settings):
    """Greedy on an upper confidence bound of the estimates (Sutton & Barto, equation 2.10).

    ``c = sqrt(2)`` is UCB1 for rewards in [0, 1] (Auer, Cesa-Bianchi & Fischer 2002, "Finite-time Analysis
    of the Multiarmed Bandit Problem", figure 1); Figure 2.4 of Sutton & Barto has c = 2.
    """

    kind: Literal["bandit_ucb1"] = "bandit_ucb1"
    c: float = Field(math.sqrt(2.0), ge=0.0, description="degree of exploration, in units of reward")


class GradientBandit(Settings):
    """Softmax of preferences that follow the gradient of the reward (Sutton & Barto, equation 2.12)."""

    kind: Literal["bandit_gradient"] = "bandit_gradient"
    learning_rate: float = Field(0.1, gt=0.0, description="step size of the preferences (Figure 2.5)")
    baseline: bool = Field(True, description="compare each reward with the mean of the earlier ones")


class ThompsonBandit(Settings):
    """Greedy on a draw from the posterior of each arm's mean, for Gaussian rewards of known deviation.

    Source: Russo et al. (2018), "A Tutorial on Thompson Sampling"; conjugate normal update.
    """

    kind: Literal["bandit_thompson"] = "bandit_thompson"
    prior_mean: float = Field(0.0, description="mean of an arm's mean reward before any pull")
    prior_std: float = Field(1.0, gt=0.0, description="its standard deviation")
    reward_std: float = Field(1.0, gt=0.0, description="standard deviation of a reward round its arm's mean")


BanditSettings = EpsilonGreedyBandit | OptimisticBandit | Ucb1Bandit | GradientBandit | ThompsonBandit
