"""Jack's car rental: moving cars between two locations overnight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, gammaln

from policylab.envs.drawing import draw_grid
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv
from policylab.errors import EnvironmentRuleError

MEAN_REQUESTS = (3.0, 4.0)  # cars asked for per day, first and second location (Example 4.2)
MEAN_RETURNS = (3.0, 2.0)  # cars brought back per day
RENTAL_REWARD = 10.0  # dollars per car rented
MOVE_COST = 2.0  # dollars per car moved


class JacksCarRentalEnv(TableEnv):
    """Move cars between two rental locations each night, at a price, to meet random demand.

    - States: ``cars_1 * (max_cars + 1) + cars_2``, the cars at each location in the evening.
    - Actions: 0 to ``2 * max_moves``; action a moves ``a - max_moves`` cars from the first location to the second
      (negative: from the second to the first), cut down to the cars that are there.
    - Rewards: $10 per car rented the next day, minus $2 per car moved.
    - Dynamics: cars beyond ``max_cars`` at a location vanish, after the move and after the returns. The next day each
      location is asked for Poisson(3) and Poisson(4) cars and rents what it has; then Poisson(3) and Poisson(2)
      cars come back, which can be rented from the day after.
    - First state: both locations half full (the book fixes none).
    - Continuing: no state is terminal; the book's discount is 0.9.

    The reward of a transition is the *expected* rental income given the state, the action and the next state; `step`
    pays exactly that, as ``P`` says. The demand behind a transition is averaged out, so values, optimal policies and
    the law of the states are the book's, while single rewards scatter less. Nothing is truncated: a Poisson tail that
    changes nothing further is one outcome.

    ``P[s][a]`` has ``(max_cars + 1) ** 2`` outcomes, outcome i leading to state i; the lists are made when asked for,
    since all of them together take some 200 MB. `arrays` returns the same numbers at once.

    Args:
        max_cars: most cars at one location, 1 to 100.
        max_moves: most cars moved in one night, 1 to 100.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: Sutton & Barto, 2nd edition, Example 4.2 and Figure 4.2 (20 cars, 5 moves).

    >>> env = JacksCarRentalEnv()
    >>> len(env.P), len(env.P[0]), len(env.P[0][5])
    (441, 11, 441)
    """

    def __init__(self, *, max_cars: int = 20, max_moves: int = 5, render_mode: str | None = None) -> None:
        for name, value in (("max_cars", max_cars), ("max_moves", max_moves)):
            if not 1 <= value <= 100:
                raise EnvironmentRuleError(f"{name} must be from 1 to 100, got {value} (JacksCarRentalEnv)")
        self.max_cars = max_cars
        self.max_moves = max_moves
        self._days = [
            location_day(requests, returns, max_cars=max_cars)
            for requests, returns in zip(MEAN_REQUESTS, MEAN_RETURNS, strict=True)
        ]
        n_states = (max_cars + 1) ** 2
        rows = {state: _Row(self, state) for state in range(n_states)}
        start = np.zeros(n_states)
        start[self.state(max_cars // 2, max_cars // 2)] = 1.0
        super().__init__(rows, start, render_mode=render_mode)

    def state(self, cars_1: int, cars_2: int) -> int:
        """Return the state with ``cars_1`` cars at the first and ``cars_2`` at the second location."""
        return cars_1 * (self.max_cars + 1) + cars_2

    def cars(self, state: int) -> tuple[int, int]:
        """Return the cars at the first and the second location in ``state``."""
        return divmod(state, self.max_cars + 1)

    def after_move(self, state: int, action: int) -> tuple[int, int, int]:
        """Return the cars at each location in the morning, and how many were moved (without sign)."""
        first, second = self.cars(state)
        moved = min(max(action - self.max_moves, -second), first)
        return min(first - moved, self.max_cars), min(second + moved, self.max_cars), abs(moved)

    def outcome_arrays(self, state: int, action: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return probability and expected reward of each next state, both of shape (n_states,)."""
        first, second, n_moved = self.after_move(state, action)
        (p_1, income_1), (p_2, income_2) = self._days
        probability = np.multiply.outer(p_1[first], p_2[second])
        reward = np.add.outer(income_1[first], income_2[second]) - MOVE_COST * n_moved
        return probability.ravel(), reward.ravel()

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return probability and expected reward, both of shape (n_states, n_actions, n_states)."""
        n_states, n_actions = len(self.P), len(self.P[0])
        probability = np.empty((n_states, n_actions, n_states))
        reward = np.empty_like(probability)
        for state, action in np.ndindex(n_states, n_actions):
            probability[state, action], reward[state, action] = self.outcome_arrays(state, action)
        return probability, reward

    def render_ansi(self) -> str:
        """Return the cars at each location, one ``#`` per car."""
        bars = (f"{n_cars:3d} {'#' * n_cars:.<{self.max_cars}}" for n_cars in self.cars(self.s))
        return "".join(f"location {number}: {bar}\n" for number, bar in enumerate(bars, start=1))

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return one row of cells per location, one coloured cell per car, shape (49, 24 * max_cars + 1, 3)."""
        rows = [["goal"] * n_cars + ["free"] * (self.max_cars - n_cars) for n_cars in self.cars(self.s)]
        return draw_grid(rows, cell_px=24)


def location_day(
    mean_requests: float, mean_returns: float, *, max_cars: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the exact model of one day at one location.

    Args:
        mean_requests: Poisson mean of the cars asked for.
        mean_returns: Poisson mean of the cars brought back.
        max_cars: most cars that fit.

    Returns:
        ``probability[n, m]`` of having m cars in the evening after n in the morning, and ``income[n, m]``, the
        expected dollars earned on the way; both of shape (max_cars + 1, max_cars + 1).
    """
    size = max_cars + 1
    probability, income = np.zeros((size, size)), np.zeros((size, size))
    for morning in range(size):
        rented = _capped_poisson(mean_requests, morning)
        for n_rented, p_rented in enumerate(rented):
            left = morning - n_rented
            joint = p_rented * _capped_poisson(mean_returns, max_cars - left)
            probability[morning, left:] += joint
            income[morning, left:] += RENTAL_REWARD * n_rented * joint
    return probability, income / probability


def _capped_poisson(mean: float, cap: int) -> NDArray[np.float64]:
    """Return the distribution of min(X, cap) for X ~ Poisson(mean), shape (cap + 1,)."""
    counts = np.arange(cap + 1)
    pmf: NDArray[np.float64] = np.exp(counts * np.log(mean) - mean - gammaln(counts + 1))
    pmf[cap] = gammainc(cap, mean)  # P(X >= cap), the lower regularised incomplete gamma function
    return pmf


class _Row(Mapping[int, list[Outcome]]):
    """``P[state]``: the outcomes of each action, made when asked for."""

    def __init__(self, env: JacksCarRentalEnv, state: int) -> None:
        self._env = env
        self._state = state

    def __getitem__(self, action: int) -> list[Outcome]:
        if action not in range(len(self)):
            raise KeyError(action)
        probability, reward = self._env.outcome_arrays(self._state, action)
        n_states = probability.size
        return list(zip(probability.tolist(), range(n_states), reward.tolist(), [False] * n_states, strict=True))

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self)))

    def __len__(self) -> int:
        return 2 * self._env.max_moves + 1
