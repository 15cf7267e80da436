"""`NewsvendorEnv`: ordering one product whose deliveries take time, at prices that differ from episode to episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.envs.arguments import checked_count, checked_number, checked_unit_action
from policylab.envs.supply.stock_picture import Bar, bars_picture, bars_text
from policylab.envs.table_env import no_such_action
from policylab.errors import EnvironmentRuleError

Observation = NDArray[np.float32]

MAX_PRICE = 100.0  # money per unit
MAX_HOLDING = 5.0  # money per unit and period
MAX_PENALTY = 10.0  # money per unit of demand lost
MAX_MEAN_DEMAND = 200.0  # units per period
MAX_STOCK = 4000.0  # units on hand and on their way


class Economics(NamedTuple):
    """What an episode is about: money per unit (of the first four), and the Poisson mean of demand per period."""

    price: float
    cost: float
    holding: float
    penalty: float
    mean_demand: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Economics:
        """Return the economics of a random episode: p ~ U(0, 100), c ~ U(0, p), h ~ U(0, min(c, 5)), and so on."""
        price = rng.uniform(0.0, MAX_PRICE)
        cost = rng.uniform(0.0, price)
        holding = rng.uniform(0.0, min(cost, MAX_HOLDING))
        return cls(price, cost, holding, rng.uniform(0.0, MAX_PENALTY), rng.uniform(0.0, MAX_MEAN_DEMAND))

    @classmethod
    def given(cls, values: Sequence[float]) -> Economics:
        """Return the economics that an experiment fixes.

        Raises:
            EnvironmentRuleError: a number out of its range.
        """
        limits = (MAX_PRICE, MAX_PRICE, MAX_HOLDING, MAX_PENALTY, MAX_MEAN_DEMAND)
        if len(values) != len(limits):
            raise EnvironmentRuleError(
                f"`economics` must be [price, cost, holding, penalty, mean_demand], got {list(values)}"
            )
        for name, value, limit in zip(cls._fields, values, limits, strict=True):
            if not 0.0 <= checked_number(name, value) <= limit:
                raise EnvironmentRuleError(f"`economics`: {name} must be from 0 to {limit:g}, got {value}")
        return cls(*(float(value) for value in values))


def sell(stock: ArrayLike, quantity: ArrayLike, *, demand: ArrayLike, economics: Economics, unit_cost: float) -> Any:
    """Return (stock after the period, profit) of one period, for one episode or many.

    Args:
        stock: on hand, then arriving in 1, 2, ... periods, shape (..., lead time).
        quantity: units ordered, which arrive after the lead time, shape (...).
        demand: units asked for, shape (...).
        economics: prices.
        unit_cost: money per unit ordered, now.
    """
    held, asked = np.asarray(stock, dtype=np.float64), np.asarray(demand, dtype=np.float64)
    ordered = np.asarray(quantity, dtype=np.float64)
    sold = np.minimum(held[..., 0], asked)
    left, lost = held[..., 0] - sold, asked - sold
    after = np.concatenate([held[..., 1:], ordered[..., None]], axis=-1)
    after[..., 0] += left
    profit = economics.price * sold - unit_cost * ordered - economics.holding * left - economics.penalty * lost
    return after, profit


class NewsvendorEnv(gym.Env[Observation, Any]):
    """Order each period what will arrive ``lead_time`` periods later; demand that finds no stock is lost.

    - **State and observation**: float32, shape (lead_time + 6,): units on hand, units that arrive in 1, 2, ...,
      lead_time - 1 periods; price, cost, holding cost and penalty, money per unit; mean demand, units per period;
      periods gone. It is the whole state.
    - **Actions**: Box [-1, 1], shape (1,): order ``(action + 1) / 2 * max_order`` units. With ``n_levels``, Discrete:
      action i orders ``i * max_order / (n_levels - 1)``. Orders are cut so that stock and pipeline hold at most 4,000.
    - **Dynamics**: demand is Poisson. What is sold is the lesser of stock and demand; the rest of the stock is kept,
      and what was ordered a lead time ago arrives for the next period.
    - **Reward**: price x sold - cost x ordered - holding x left over - penalty x demand lost, money.
    - **Start**: no stock, nothing on its way. Prices and mean demand are ``economics``, or else drawn anew for each
      episode: p ~ U(0, 100), c ~ U(0, p), h ~ U(0, min(c, 5)), penalty ~ U(0, 10), mean ~ U(0, 200).
    - **End**: terminates after ``periods``; stock left over is worth nothing.

    Args:
        periods: length of an episode, >= 1.
        lead_time: periods from order to sale, >= 1.
        max_order: most units per order.
        economics: [price, cost, holding, penalty, mean demand], the same in every episode.
        n_levels: number of order sizes of the discrete form, >= 2; None for the continuous one.
        payment_discount: the benchmark multiplies the cost of an order by discount^lead_time, as if it were paid on
            delivery. 1 leaves discounting to the agent.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: awslabs/or-rl-benchmarks, News Vendor; Balaji et al., "ORL: reinforcement learning benchmarks for online
    stochastic optimization problems", arXiv 1911.10641, section 4. What its comments call the order-up-to level is an
    order quantity in its code, and here.

    >>> env = NewsvendorEnv(economics=[50, 25, 1, 5, 100])
    >>> env.reset(seed=0)[0].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 50.0, 25.0, 1.0, 5.0, 100.0, 0.0]
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # type: ignore[misc]

    def __init__(
        self,
        *,
        periods: int = 40,
        lead_time: int = 5,
        max_order: float = 2000.0,
        economics: Sequence[float] | None = None,
        n_levels: int | None = None,
        payment_discount: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        self.periods = _at_least("periods", periods, least=1)
        self.lead_time = _at_least("lead_time", lead_time, least=1)
        self.n_levels = None if n_levels is None else _at_least("n_levels", n_levels, least=2)
        self.max_order = _within("max_order", max_order, most=MAX_STOCK)
        self.payment_discount = _within("payment_discount", payment_discount, most=1.0)
        self.fixed = None if economics is None else Economics.given(economics)
        limits = [MAX_PRICE, MAX_PRICE, MAX_HOLDING, MAX_PENALTY, MAX_MEAN_DEMAND, self.periods]
        high = np.array([MAX_STOCK] * self.lead_time + limits, dtype=np.float32)
        self.observation_space = gym.spaces.Box(np.zeros_like(high), high, dtype=np.float32)
        self.action_space = (
            gym.spaces.Box(-1.0, 1.0, (1,), np.float32) if self.n_levels is None else gym.spaces.Discrete(self.n_levels)
        )
        self.render_mode = render_mode
        self.stock = np.zeros(self.lead_time)
        self.economics = self.fixed or Economics(0.0, 0.0, 0.0, 0.0, 0.0)
        self.period = 0

    @property
    def unit_cost(self) -> float:
        """Money per unit ordered, as the reward counts it."""
        return self.payment_discount**self.lead_time * self.economics.cost

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start without stock."""
        super().reset(seed=seed)
        self.economics = self.fixed or Economics.drawn(self.np_random)
        self.stock, self.period = np.zeros(self.lead_time), 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Order and sell for one period.

        Raises:
            EnvironmentRuleError: the action lies outside of the action space.
        """
        quantity = min(self.quantity_of(action), max(0.0, MAX_STOCK - float(self.stock.sum())))
        demand = int(self.np_random.poisson(self.economics.mean_demand))
        on_hand = float(self.stock[0])
        self.stock, profit = sell(
            self.stock, quantity, demand=demand, economics=self.economics, unit_cost=self.unit_cost
        )
        self.period += 1
        info = {
            "demand": demand,
            "ordered": quantity,
            "sales": min(on_hand, demand),
            "lost": max(0.0, demand - on_hand),
        }
        return self._observation(), float(profit), self.period >= self.periods, False, info

    def quantity_of(self, action: Any) -> float:
        """Return the units that an action orders, before the limit of the stock."""
        if self.n_levels is None:
            return float(checked_unit_action(action, size=1)[0] + 1.0) / 2.0 * self.max_order
        if action not in range(self.n_levels):
            raise no_such_action(action, n_actions=self.n_levels)
        return int(action) * self.max_order / (self.n_levels - 1)

    def action_of(self, quantity: float) -> Any:
        """Return the action that orders ``quantity`` units, or the next lower number that can be ordered."""
        share = min(1.0, quantity / self.max_order)
        if self.n_levels is None:
            return np.array([2.0 * share - 1.0], dtype=np.float32)
        return int(share * (self.n_levels - 1) + 1e-9)

    def _observation(self) -> Observation:
        return np.array([*self.stock, *self.economics, self.period], dtype=np.float32)

    def _bars(self) -> list[Bar]:
        moving = (Bar(f"in {i} periods", float(units)) for i, units in enumerate(self.stock[1:], start=1))
        return [Bar("on hand", float(self.stock[0])), *moving]

    def render(self) -> Any:
        """Return the stock and what is on its way: text for ``ansi``, an image for ``rgb_array``."""
        if self.render_mode == "ansi":
            return bars_text(f"period {self.period} of {self.periods}", self._bars())
        return bars_picture(self._bars()) if self.render_mode == "rgb_array" else None


def _at_least(name: str, value: Any, *, least: int) -> int:
    if checked_count(name, value) < least:
        raise EnvironmentRuleError(f"`{name}` must be >= {least}, got {value}")
    return int(value)


def _within(name: str, value: Any, *, most: float) -> float:
    if not 0.0 < checked_number(name, value) <= most:
        raise EnvironmentRuleError(f"`{name}` must be above 0 and at most {most:g}, got {value}")
    return float(value)
