"""Maximization bias (Sutton & Barto, Example 6.7), many runs side by side.

The book's state A has two actions and B ten, so an agent must respect ``info["action_mask"]``; with runs side by
side in NumPy that is one comparison, and ten thousand of them take two seconds.

| symbol | array | shape | meaning |
|---|---|---|---|
| n | | | runs |
| K | | | action values learned side by side: 1, or 2 for Double Q-learning |
| Q | q | (K, n, 2, n_actions) | action values of A and B; -inf for an action that does not exist |
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policylab.envs.textbook.maximization_bias import LEFT, A, B, MaximizationBiasEnv
from policylab.experiments.verify.exact import BOOK
from policylab.experiments.verify.rows import Check, Estimate
from policylab.seeding import generator

N_RUNS = 10_000
N_EPISODES = 300
LEARNING_RATE = 0.1
EPSILON = 0.1
SECOND = "second implementation (benchmarks/second_implementation.py), 10,000 runs, 10 actions in B"
FIGURE = f"{BOOK}, Example 6.7, Figure 6.5, p. 135; {SECOND}"

Floats = NDArray[np.float64]


class Runs(NamedTuple):
    """What one batch of runs learned so far; see the module's symbol table."""

    q: Floats
    rng: np.random.Generator

    def choose(self, state: int, runs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return ε-greedy actions on the sum of the action values, ties at random."""
        values = self.q[:, runs, state].sum(axis=0)
        keys = self.rng.random(values.shape)
        explore = self.rng.random((len(runs), 1)) < EPSILON
        allowed = np.isfinite(values) & (explore | (values == values.max(axis=1, keepdims=True)))
        chosen: NDArray[np.int64] = np.where(allowed, keys, -1.0).argmax(axis=1)
        return chosen

    def update(self, state: int, runs: NDArray[np.int64], *, actions: NDArray[np.int64], rewards: Floats) -> None:
        """Move one of the action values; from A, ``rewards`` is 0 and the target that of B's best action."""
        learned = self.rng.integers(len(self.q), size=len(runs))
        rewards = rewards + (self._best_of_b(learned, runs) if state == A else 0.0)
        self.q[learned, runs, state, actions] += LEARNING_RATE * (rewards - self.q[learned, runs, state, actions])

    def _best_of_b(self, learned: NDArray[np.int64], runs: NDArray[np.int64]) -> Floats:
        """Return the other action values' estimate of the best action by the learned ones (equation 6.10)."""
        best = self.q[learned, runs, B].argmax(axis=1)
        other = len(self.q) - 1 - learned
        values: Floats = self.q[other, runs, B, best]
        return values


@functools.cache  # two rows read one curve
def went_left(*, double: bool) -> NDArray[np.bool_]:
    """Return whether each run went left from A in each episode, shape (N_EPISODES, N_RUNS)."""
    env = MaximizationBiasEnv()
    mean, n_actions = env.P[B][0][0][2], len(env.P[B])
    q = np.zeros((2 if double else 1, N_RUNS, 2, n_actions))
    q[:, :, A, env.action_mask(A) == 0] = -np.inf
    rng = generator(0, "verify", "maximization bias", "double" if double else "single")
    runs, everyone = Runs(q, rng), np.arange(N_RUNS)
    left = np.empty((N_EPISODES, N_RUNS), dtype=np.bool_)
    for episode in range(N_EPISODES):
        actions = runs.choose(A, everyone)
        left[episode] = actions == LEFT
        goers = np.flatnonzero(left[episode])  # right pays 0, as much as it is valued from the start
        runs.update(A, goers, actions=actions[goers], rewards=np.zeros(len(goers)))
        in_b = runs.choose(B, goers)
        runs.update(B, goers, actions=in_b, rewards=rng.normal(mean, env.reward_std, len(goers)))
    return left


def binomial_error(fraction: str) -> float:
    """Return the standard error of a fraction of `N_RUNS` runs."""
    p = float(fraction)
    return math.sqrt(p * (1.0 - p) / N_RUNS)


def _check(name: str, published: str, *, double: bool, episode: int) -> Check:
    return Check(
        name=f"Maximization bias: left in episode {episode}, {name}",
        published=published,
        source=FIGURE,
        measure=lambda: Estimate.of(went_left(double=double)[episode - 1]),
        published_error=binomial_error(published),
    )


def _peak(*, double: bool) -> Estimate:
    curve = went_left(double=double)
    return Estimate.of(curve[curve.mean(axis=1).argmax()])


CHECKS: tuple[Check, ...] = (
    _check("Q-learning", "0.94", double=False, episode=22),
    _check("Q-learning", "0.122", double=False, episode=300),
    Check(
        name="Maximization bias: highest fraction of left, Double Q-learning",
        published="0.505",
        source=FIGURE,
        measure=lambda: _peak(double=True),
        published_error=binomial_error("0.505"),
    ),
    _check("Double Q-learning", "0.066", double=True, episode=300),
)
"""Figure 6.5."""
