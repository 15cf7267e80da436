"""`InventoryEnv`: a stock over a few months, small enough for an exact table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.envs.arguments import checked_count, checked_number, checked_probability
from policylab.envs.supply.stock_picture import Bar, bars_picture, bars_text
from policylab.envs.table import Outcome
from policylab.envs.table_env import TableEnv, merged
from policylab.errors import EnvironmentRuleError


class InventoryEnv(TableEnv):
    """Order at the start of each month, sell during it; demand beyond the stock is lost.

    - **States**: ``month * (capacity + 1) + stock``, for months 0 to ``months``; the last month's are terminal. Time is
      part of the state, because the best order depends on what is left of it.
    - **Actions**: units ordered, 0 to ``capacity``, cut down to what fits; they arrive at once.
    - **Dynamics**: demand of the month is d with probability ``demand[d]``, independently.
    - **Reward**: price x units sold - (fixed_cost + unit_cost x ordered, if any is ordered) - holding_cost x (stock
      after the delivery), money. Stock left at the end is worth ``salvage`` per unit, paid with the last month.
    - **Start**: month 0 with ``initial_stock``.

    Args:
        capacity: most units in stock, 1 to 200.
        months: number of decisions, 1 to 200.
        demand: probability of each demand 0, 1, 2, ...; sums to 1.
        price: money per unit sold.
        fixed_cost: money per order.
        unit_cost: money per unit ordered.
        holding_cost: money per unit in stock after the delivery.
        salvage: money per unit left at the end.
        initial_stock: units, 0 to ``capacity``.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: Puterman, Markov Decision Processes (1994), section 3.2, with the numbers of section 3.2.2 as defaults;
    section 4.6.1 solves them.

    >>> InventoryEnv().P[0][3]
    [(0.25, 7, -13.0, False), (0.5, 6, -5.0, False), (0.25, 5, 3.0, False)]
    """

    def __init__(  # noqa: PLR0913 - the constants of a published problem
        self,
        *,
        capacity: int = 3,
        months: int = 3,
        demand: Sequence[float] = (0.25, 0.5, 0.25),
        price: float = 8.0,
        fixed_cost: float = 4.0,
        unit_cost: float = 2.0,
        holding_cost: float = 1.0,
        salvage: float = 0.0,
        initial_stock: int = 0,
        render_mode: str | None = None,
    ) -> None:
        for name, value in (("capacity", capacity), ("months", months)):
            if not 1 <= checked_count(name, value) <= 200:
                raise EnvironmentRuleError(f"`{name}` must be from 1 to 200, got {value}")
        if checked_count("initial_stock", initial_stock) > capacity:
            raise EnvironmentRuleError(f"`initial_stock` must be at most the capacity {capacity}, got {initial_stock}")
        self.capacity, self.months = capacity, months
        self.demand = tuple(checked_probability("demand", chance) for chance in demand)
        if abs(sum(self.demand) - 1.0) > 1e-9:
            raise EnvironmentRuleError(f"`demand` must sum to 1, got {sum(self.demand)}")
        self.price, self.salvage = checked_number("price", price), checked_number("salvage", salvage)
        self.fixed_cost, self.unit_cost = (
            checked_number("fixed_cost", fixed_cost),
            checked_number("unit_cost", unit_cost),
        )
        self.holding_cost = checked_number("holding_cost", holding_cost)
        start = np.zeros((months + 1) * (capacity + 1))
        start[self.state(0, initial_stock)] = 1.0
        P = {
            state: {ordered: self._outcomes(state, ordered) for ordered in range(capacity + 1)}
            for state in range(start.size)
        }
        super().__init__(P, start, render_mode=render_mode)

    def state(self, month: int, stock: int) -> int:
        """Return the number of the state with ``stock`` units at the start of ``month``."""
        return month * (self.capacity + 1) + stock

    def month_and_stock(self, state: int) -> tuple[int, int]:
        """Return the month and the units in stock of a state."""
        return divmod(int(state), self.capacity + 1)

    def _outcomes(self, state: int, ordered: int) -> list[Outcome]:
        month, stock = self.month_and_stock(state)
        if month == self.months:
            return [(1.0, state, 0.0, True)]
        bought = min(ordered, self.capacity - stock)
        offered = stock + bought
        spent = (self.fixed_cost + self.unit_cost * bought if bought else 0.0) + self.holding_cost * offered
        last = month + 1 == self.months
        rows = []
        for asked, chance in enumerate(self.demand):
            left = max(0, offered - asked)
            reward = self.price * (offered - left) - spent + (self.salvage * left if last else 0.0)
            rows.append((chance, self.state(month + 1, left), reward, last))
        return merged(rows)

    def _bars(self) -> list[Bar]:
        return [Bar("in stock", 10.0 * self.month_and_stock(self.s)[1])]  # one cell per unit

    def render_ansi(self) -> str:
        """Return month and stock as text."""
        month, stock = self.month_and_stock(self.s)
        return bars_text(f"month {month} of {self.months}", [Bar("in stock", float(stock))])

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the stock as a row of cells, one coloured cell per unit, shape (17, 641, 3)."""
        return bars_picture(self._bars())


def order_levels(env: Any) -> list[tuple[int, int]]:
    """Return (s, S) of each month: with less than s in stock, order up to S; s is 0 where nothing is ever ordered.

    Backward induction among the policies of this form. With the costs of `InventoryEnv` they are optimal.

    Source: Scarf, "The optimality of (S, s) policies in the dynamic inventory problem" (1960).
    """
    values = np.zeros(env.capacity + 1)
    levels: list[tuple[int, int]] = []
    for month in reversed(range(env.months)):
        worth = np.array(
            [
                [
                    sum(
                        p * (reward + values[after % (env.capacity + 1)] * (not ended))
                        for p, after, reward, ended in row
                    )
                    for row in env.P[env.state(month, stock)].values()
                ]
                for stock in range(env.capacity + 1)
            ]
        )
        best = max(
            ((s, S) for S in range(env.capacity + 1) for s in range(S + 1)),
            key=lambda pair: float(_followed(worth, pair).sum()),
        )
        values = _followed(worth, best)
        levels.insert(0, best)
    return levels


def _followed(worth: NDArray[np.float64], levels: tuple[int, int]) -> NDArray[np.float64]:
    """Return the value of each stock when less than s is filled up to S."""
    s, S = levels
    stock = np.arange(len(worth))
    return worth[stock, np.where(stock < s, S - stock, 0)]
