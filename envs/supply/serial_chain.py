"""A serial supply chain, one period at a time, for one episode or many at once.

Stage 0 is the retailer and stage m makes the raw material, of which there is no end; stages 0 .. m-1 hold stock.

| symbol | field | shape | meaning |
|---|---|---|---|
| I | on_hand | (..., m) | stock at each stage |
| T | pipeline | (..., m, L) | what arrives in 1, 2, ... periods; L is the longest lead time |
| B | backlog | (..., m+1) | unfilled at the retailer and of each stage's orders; 0 with lost sales |
| R | shipped | (..., m) | what a stage's supplier sends on its order |
| S | sales | (..., m+1) | the retailer's sales, then R |
| U | unfilled | (..., m+1) | demand and orders minus S |

Source: OR-Gym's inventory management, Hubbs et al., "OR-Gym: a reinforcement learning library for operations research
problems", arXiv 2008.06319, section 4.2, with upstream shortfalls backlogged as described there.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.envs.arguments import checked_count, checked_number
from policylab.errors import EnvironmentRuleError

Floats = NDArray[np.float64]


class ChainState(NamedTuple):
    """Everything that changes: see the module's symbol table."""

    on_hand: Floats
    pipeline: Floats
    backlog: Floats


class Period(NamedTuple):
    """What a period brought: see the module's symbol table; ``profit`` of each stage, shape (..., m+1)."""

    sales: Floats
    unfilled: Floats
    profit: Floats


@dataclasses.dataclass(frozen=True, slots=True)
class SerialChain:
    """The constants of a chain with m stages that hold stock.

    Attributes:
        price: money per unit sold by the retailer.
        unit_cost: money per unit bought by each stage from the next, then per unit of raw material, length m+1.
        shortage_cost: money per unit unfilled and period, at the retailer and of each stage's orders, length m+1.
        holding_cost: money per unit on hand at the end of a period, length m.
        capacity: most units a stage can order in a period, length m.
        lead_time: periods from order to arrival, >= 1, length m.
        initial_stock: units on hand at the start, length m.
        mean_demand: of the Poisson demand per period, units.
        backlog: unfilled demand and orders wait (True) or are lost (False).
    """

    price: float
    unit_cost: tuple[float, ...]
    shortage_cost: tuple[float, ...]
    holding_cost: tuple[float, ...]
    capacity: tuple[int, ...]
    lead_time: tuple[int, ...]
    initial_stock: tuple[int, ...]
    mean_demand: float
    backlog: bool

    def __post_init__(self) -> None:
        """Check the constants.

        Raises:
            EnvironmentRuleError: one is out of its range, or the lengths do not fit.
        """
        checked_number("price", self.price)
        if checked_number("mean_demand", self.mean_demand) < 0:
            raise EnvironmentRuleError(f"`mean_demand` must be >= 0, got {self.mean_demand}")
        m = self.n_stages
        for name, length in (
            ("unit_cost", m + 1),
            ("shortage_cost", m + 1),
            ("holding_cost", m),
            ("capacity", m),
            ("lead_time", m),
            ("initial_stock", m),
        ):
            values = getattr(self, name)
            if len(values) != length or length == 0:
                raise EnvironmentRuleError(
                    f"`{name}` must have {length} entries for the {m} lead times, got {len(values)}"
                )
            whole = name in ("capacity", "lead_time", "initial_stock")
            least = 1 if name in ("capacity", "lead_time") else 0
            for value in values:
                if (checked_count(name, value) if whole else checked_number(name, value)) < least:
                    raise EnvironmentRuleError(f"`{name}` must be >= {least}, got {value}")

    @property
    def n_stages(self) -> int:
        """Number m of stages that hold stock."""
        return len(self.lead_time)

    def start(self, *batch: int) -> ChainState:
        """Return the first state, with leading dimensions ``batch``."""
        m = self.n_stages
        return ChainState(
            on_hand=np.broadcast_to(np.array(self.initial_stock, dtype=np.float64), (*batch, m)).copy(),
            pipeline=np.zeros((*batch, m, max(self.lead_time))),
            backlog=np.zeros((*batch, m + 1)),
        )

    def advance(self, state: ChainState, orders: ArrayLike, *, demand: ArrayLike) -> tuple[ChainState, Period]:
        """Return the state one period later, and what the period brought.

        In this order: every stage orders, and orders left over come on top; suppliers ship what they held at the start
        of the period, up to the stage's capacity; what was shipped a lead time ago arrives; customers come.

        Args:
            state: the state before.
            orders: units ordered by each stage, shape (..., m).
            demand: units asked for by customers, shape (...).
        """
        wanted = np.asarray(orders, dtype=np.float64) + state.backlog[..., 1:]
        unlimited = np.full_like(state.on_hand[..., :1], np.inf)
        supply = np.concatenate([state.on_hand[..., 1:], unlimited], axis=-1)
        shipped = np.minimum(np.minimum(wanted, self.capacity), supply)
        stock = state.on_hand + state.pipeline[..., 0]
        due = np.asarray(demand, dtype=np.float64) + state.backlog[..., 0]
        sold = np.minimum(stock[..., 0], due)
        sales = np.concatenate([sold[..., None], shipped], axis=-1)
        stock = stock - sales[..., :-1]
        unfilled = np.concatenate([due[..., None], wanted], axis=-1) - sales
        after = ChainState(stock, self._shifted(state.pipeline, shipped), unfilled if self.backlog else 0.0 * unfilled)
        return after, Period(sales, unfilled, self._profit(sales, unfilled, stock=stock))

    def _shifted(self, pipeline: Floats, shipped: Floats) -> Floats:
        moved = np.concatenate([pipeline[..., 1:], np.zeros_like(pipeline[..., :1])], axis=-1)
        for stage, periods in enumerate(self.lead_time):
            moved[..., stage, periods - 1] = shipped[..., stage]
        return moved

    def _profit(self, sales: Floats, unfilled: Floats, *, stock: Floats) -> Floats:
        """Return each stage's income minus what it pays its supplier, its shortages and its stock."""
        income = np.array([self.price, *self.unit_cost[:-1]]) * sales
        bought = np.concatenate([sales[..., 1:], sales[..., -1:]], axis=-1)  # the last stage makes what it ships
        kept = np.concatenate([stock * self.holding_cost, np.zeros_like(stock[..., :1])], axis=-1)
        profit: Floats = income - self.unit_cost * bought - self.shortage_cost * unfilled - kept
        return profit


def echelon_position(state: ChainState) -> Floats:
    """Return the echelon inventory position of each stage, shape (..., m).

    It counts what is on hand, on its way and owed at the stage and at every stage nearer to the customer.

    Source: Clark and Scarf, "Optimal policies for a multi-echelon inventory problem", Management Science 6 (1960).
    """
    own = state.on_hand + state.pipeline.sum(axis=-1) - state.backlog[..., :-1]
    position: Floats = np.cumsum(own, axis=-1)
    return position


def base_stock_orders(chain: SerialChain, state: ChainState, *, levels: ArrayLike) -> Floats:
    """Return whole orders that raise each echelon inventory position to its level, as far as can be shipped."""
    wanted = np.maximum(0.0, np.asarray(levels) - echelon_position(state))
    supply = np.concatenate([state.on_hand[..., 1:], np.full_like(state.on_hand[..., :1], np.inf)], axis=-1)
    orders: Floats = np.floor(np.minimum(np.minimum(wanted, chain.capacity), supply))
    return orders


def base_stock_returns(chain: SerialChain, levels: ArrayLike, *, demand: NDArray[np.int64], discount: float) -> Floats:
    """Return the return of each episode under an echelon base-stock policy, shape (n,).

    Args:
        chain: the chain.
        levels: the echelon base-stock level of each stage, units, shape (m,).
        demand: demand of each episode and period, shape (n, periods).
        discount: per period.
    """
    state, total = chain.start(demand.shape[0]), np.zeros(demand.shape[0])
    for period, asked in enumerate(demand.T):
        state, found = chain.advance(state, base_stock_orders(chain, state, levels=levels), demand=asked)
        total += discount**period * found.profit.sum(axis=-1)
    return total
