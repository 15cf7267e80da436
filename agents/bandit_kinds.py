"""The bandit learners as registered agents: one name and one settings model each."""

from __future__ import annotations

from policylab.agents.bandit_learners import (
    EpsilonGreedyBandit,
    GradientBandit,
    OptimisticBandit,
    ThompsonBandit,
    Ucb1Bandit,
)
from policylab.agents.bandits import BanditAgent


class BanditEpsilonGreedy(BanditAgent):
    """Epsilon-greedy bandit: the best estimate, or any arm with probability epsilon."""

    Settings = EpsilonGreedyBandit


class BanditOptimistic(BanditAgent):
    """Optimistic bandit: greedy on estimates that start too high."""

    Settings = OptimisticBandit


class BanditUcb1(BanditAgent):
    """UCB bandit: the arm of highest upper confidence bound."""

    Settings = Ucb1Bandit


class BanditGradient(BanditAgent):
    """Gradient bandit: softmax of preferences that follow the gradient of reward."""

    Settings = GradientBandit


class BanditThompson(BanditAgent):
    """Thompson sampling bandit: the best arm of a draw from the posterior."""

    Settings = ThompsonBandit
