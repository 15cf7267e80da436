"""Bandit learners, vectorised over independent problems.

| symbol | array | shape | meaning |
|---|---|---|---|
| n, k | | | problems learned side by side; arms of each |
| t | time | () | pulls so far, the same for every problem |
| Q(a) | estimates | (n, k) | estimated mean reward |
| N(a) | counts | (n, k) | pulls of each arm |
| H(a) | preferences | (n, k) | numeric preference of the gradient bandit |
| R̄ | baseline | (n,) | mean of all rewards so far |

Every learner breaks ties at random. Source of all but Thompson sampling: Sutton & Barto (2018),
"Reinforcement Learning", 2nd edition, chapter 2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.bandit_settings import (
    BanditSettings,
    EpsilonGreedyBandit,
    GradientBandit,
    OptimisticBandit,
    ThompsonBandit,
    Ucb1Bandit,
)
from policylab.agents.value_policies import BanditPolicy

__all__ = [
    "ActionValueLearner",
    "BanditLearner",
    "BanditSettings",
    "EpsilonGreedyBandit",
    "GradientBandit",
    "GradientLearner",
    "OptimisticBandit",
    "ThompsonBandit",
    "ThompsonLearner",
    "Ucb1Bandit",
    "Ucb1Learner",
    "make_learner",
    "run_testbed",
]

Floats = NDArray[np.float64]
Arms = NDArray[np.int64]


class BanditLearner:
    """What every bandit learner offers; a subclass keeps all that it learns in `state`.

    Attributes:
        state: every array that learning changes, by name.
    """

    def __init__(self, n_problems: int, k: int) -> None:
        self.shape = (n_problems, k)
        self.state: dict[str, NDArray[Any]] = {}
        self._rows = np.arange(n_problems)
        self.reset()

    def reset(self) -> None:
        """Forget everything: a new problem begins."""
        raise NotImplementedError

    def select(self, rng: np.random.Generator) -> Arms:
        """Return the arm to pull in each problem, shape (n,)."""
        raise NotImplementedError

    def update(self, arms: Arms, rewards: Floats) -> None:
        """Learn from the rewards of the pulled arms, both of shape (n,)."""
        raise NotImplementedError

    def policy(self, problem: int = 0) -> BanditPolicy:
        """Return what was learned about one problem."""
        raise NotImplementedError


class ActionValueLearner(BanditLearner):
    """Estimates each arm's mean; epsilon-greedy on it."""

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        epsilon: float = 0.0,
        learning_rate: float | None = None,
        initial_value: float = 0.0,
    ) -> None:
        self._epsilon = epsilon
        self._learning_rate = learning_rate
        self._initial_value = initial_value
        super().__init__(*shape)

    def reset(self) -> None:
        """Forget every estimate and count."""
        self.state = {
            "estimates": np.full(self.shape, self._initial_value),
            "counts": np.zeros(self.shape, dtype=np.int64),
            "time": np.zeros((), dtype=np.int64),
        }

    def select(self, rng: np.random.Generator) -> Arms:
        """Return the arms with the best scores, or random ones with probability epsilon."""
        arms = _best(self._scores(rng), rng)
        if self._epsilon > 0.0:
            explore = rng.random(len(arms)) < self._epsilon
            random_arms = (rng.random(len(arms)) * self.shape[1]).astype(np.int64)  # 64-bit draws: no half word is left
            arms = np.where(explore, random_arms, arms)
        return arms

    def _scores(self, rng: np.random.Generator) -> Floats:
        return self.state["estimates"]

    def update(self, arms: Arms, rewards: Floats) -> None:
        """Move the pulled arms' estimates towards their rewards (equation 2.3 or 2.5)."""
        estimates, counts, chosen = self.state["estimates"], self.state["counts"], (self._rows, arms)
        self.state["time"] += 1
        counts[chosen] += 1
        rate = 1.0 / counts[chosen] if self._learning_rate is None else self._learning_rate
        estimates[chosen] += rate * (rewards - estimates[chosen])

    def policy(self, problem: int = 0) -> BanditPolicy:
        """Return the greedy policy on one problem's estimates."""
        return BanditPolicy(self.state["estimates"][problem])


class Ucb1Learner(ActionValueLearner):
    """Greedy on Q(a) + c sqrt(ln t / N(a)); an arm never pulled comes first."""

    def __init__(self, shape: tuple[int, int], *, c: float) -> None:
        self._c = c
        super().__init__(shape)

    def _scores(self, rng: np.random.Generator) -> Floats:
        counts = self.state["counts"]
        radius = np.sqrt(math.log(int(self.state["time"]) + 1) / np.maximum(counts, 1))
        scores: Floats = np.where(counts > 0, self.state["estimates"] + self._c * radius, np.inf)
        return scores


class ThompsonLearner(ActionValueLearner):
    """Greedy on one draw from each arm's normal posterior."""

    def __init__(self, shape: tuple[int, int], settings: ThompsonBandit) -> None:
        self._prior_mean = settings.prior_mean
        self._prior_pulls = (settings.reward_std / settings.prior_std) ** 2  # the prior counts as so many pulls
        self._reward_std = settings.reward_std
        super().__init__(shape)

    def _posterior(self) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of each arm's mean reward, both of shape (n, k)."""
        counts = self.state["counts"]
        pulls = self._prior_pulls + counts
        mean = (self._prior_pulls * self._prior_mean + counts * self.state["estimates"]) / pulls
        return mean, self._reward_std / np.sqrt(pulls)

    def _scores(self, rng: np.random.Generator) -> Floats:
        mean, std = self._posterior()
        return rng.normal(mean, std)

    def policy(self, problem: int = 0) -> BanditPolicy:
        """Return the greedy policy on one problem's posterior means."""
        return BanditPolicy(self._posterior()[0][problem])


class GradientLearner(BanditLearner):
    """Draws arms by the softmax of preferences and raises those that pay above the baseline."""

    def __init__(self, shape: tuple[int, int], *, learning_rate: float, baseline: bool) -> None:
        self._learning_rate = learning_rate
        self._with_baseline = baseline
        super().__init__(*shape)

    def reset(self) -> None:
        """Forget every preference and the baseline."""
        self.state = {
            "preferences": np.zeros(self.shape),
            "baseline": np.zeros(self.shape[0]),
            "time": np.zeros((), dtype=np.int64),
        }

    def _probabilities(self) -> Floats:
        preferences = self.state["preferences"]
        weights = np.exp(preferences - preferences.max(axis=1, keepdims=True))
        probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
        return probabilities

    def select(self, rng: np.random.Generator) -> Arms:
        """Return arms drawn by their probabilities."""
        cumulative = self._probabilities().cumsum(axis=1)
        arms: Arms = (cumulative <= rng.random((self.shape[0], 1))).sum(axis=1)
        return np.minimum(arms, self.shape[1] - 1)  # the sum may fall short of 1 by rounding

    def update(self, arms: Arms, rewards: Floats) -> None:
        """Move the preferences (equation 2.12); the baseline excludes this reward, and at first equals it."""
        baseline = self.state["baseline"]
        if self._with_baseline and self.state["time"] == 0:
            baseline[:] = rewards
        advantage = self._learning_rate * (rewards - baseline if self._with_baseline else rewards)
        self.state["preferences"] -= advantage[:, None] * self._probabilities()
        self.state["preferences"][self._rows, arms] += advantage
        self.state["time"] += 1
        if self._with_baseline:
            baseline += (rewards - baseline) / self.state["time"]

    def policy(self, problem: int = 0) -> BanditPolicy:
        """Return the softmax policy on one problem's preferences."""
        return BanditPolicy(self.state["preferences"][problem], temperature=1.0)


def _best(scores: Floats, rng: np.random.Generator) -> Arms:
    """Return the column of the largest score of each row, ties broken uniformly."""
    best = scores == scores.max(axis=1, keepdims=True)
    arms: Arms = np.where(best, rng.random(scores.shape), -1.0).argmax(axis=1)
    return arms


def make_learner(settings: BanditSettings, *, n_problems: int, k: int) -> BanditLearner:
    """Return the learner of ``settings`` for ``n_problems`` problems of ``k`` arms."""
    shape = (n_problems, k)
    match settings:
        case EpsilonGreedyBandit() | OptimisticBandit():
            rate = None if settings.learning_rate == "sample_average" else settings.learning_rate
            return ActionValueLearner(
                shape, epsilon=settings.epsilon, learning_rate=rate, initial_value=settings.initial_value
            )
        case Ucb1Bandit():
            return Ucb1Learner(shape, c=settings.c)
        case GradientBandit():
            return GradientLearner(shape, learning_rate=settings.learning_rate, baseline=settings.baseline)
        case ThompsonBandit():
            return ThompsonLearner(shape, settings)


def run_testbed(
    settings: BanditSettings,
    *,
    n_problems: int,
    n_steps: int,
    rng: np.random.Generator,
    k: int = 10,
    drift: float = 0.0,
    mean: float = 0.0,
) -> tuple[Floats, Floats]:
    """Run the k-armed testbed on ``n_problems`` problems at once (Sutton & Barto, section 2.3).

    Each arm's mean is drawn from N(``mean``, 1), each reward from N(the arm's mean, 1).

    Args:
        settings: the learner.
        n_problems: independent problems, 2,000 in the book.
        n_steps: pulls in each problem.
        rng: source of problems, rewards and choices.
        k: arms.
        drift: standard deviation of each arm's random walk per step; 0.01 in exercise 2.5.
        mean: mean of the arms' means; 4 in Figure 2.5.

    Returns:
        The mean reward and the fraction of best arms pulled, over the problems, both of shape (n_steps,).
    """
    learner = make_learner(settings, n_problems=n_problems, k=k)
    q = rng.normal(mean, 1.0, (n_problems, k))
    best = q.argmax(axis=1)
    rows = np.arange(n_problems)
    mean_rewards, optimal = np.empty(n_steps), np.empty(n_steps)
    for step in range(n_steps):
        arms = learner.select(rng)
        rewards = q[rows, arms] + rng.standard_normal(n_problems)
        learner.update(arms, rewards)
        mean_rewards[step] = rewards.mean()
        optimal[step] = (arms == best).mean()
        if drift > 0.0:
            q += rng.normal(0.0, drift, q.shape)
            best = q.argmax(axis=1)
    return mean_rewards, optimal
