"""Baselines for supply chains: order-up-to levels, echelon base-stock levels, and (s, S)."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

from policylab.envs.baselines import Rule
from policylab.envs.supply.inventory import order_levels
from policylab.envs.supply.newsvendor import Economics, sell
from policylab.envs.supply.serial_chain import SerialChain, base_stock_orders, base_stock_returns
from policylab.seeding import generator

N_EPISODES = 1000
"""Simulated episodes on which levels are chosen; the environment's own episodes play no part."""


def base_stock(env: gym.Env[Any, Any]) -> Rule:
    """Raise each stage's echelon inventory position to a level; levels are tuned by simulation."""
    game: Any = env.unwrapped
    levels = tuned_base_stock(game.chain, periods=game.periods, discount=game.profit_discount)

    def action(observation: NDArray[np.float32]) -> NDArray[np.float32]:
        orders = base_stock_orders(game.chain, game.state_of(observation), levels=levels)
        acting: NDArray[np.float32] = game.action_of(orders)
        return acting

    return Rule(action)


@functools.lru_cache(maxsize=16)
def tuned_base_stock(chain: SerialChain, *, periods: int, discount: float = 1.0) -> tuple[float, ...]:
    """Return the echelon base-stock levels of highest mean return, units, by Nelder-Mead on simulated demand.

    It starts from the mean demand over each echelon's lead time and a standard deviation more.
    """
    demand = generator(0, "base stock").poisson(chain.mean_demand, size=(N_EPISODES, periods))
    mean = chain.mean_demand * (np.cumsum(chain.lead_time) + 1)
    found = scipy.optimize.minimize(
        lambda levels: -float(base_stock_returns(chain, levels, demand=demand, discount=discount).mean()),
        mean + np.sqrt(mean),
        method="Nelder-Mead",
        options={"xatol": 0.5, "fatol": 0.01, "maxfev": 400},
    )
    return tuple(float(level) for level in found.x)


def order_up_to(env: gym.Env[Any, Any]) -> Rule:
    """Order what stock and pipeline lack of a level, and nothing that would come after the end.

    Where the economics are fixed the level is tuned by simulation; else it is the newsvendor's critical fractile of the
    demand until the order is sold.
    """
    game: Any = env.unwrapped
    lead = game.lead_time
    tuned = None if game.fixed is None else best_order_up_to(game.fixed, periods=game.periods, lead_time=lead)

    def action(observation: NDArray[np.float32]) -> Any:
        numbers = [float(number) for number in observation]
        economics, period = Economics(*numbers[lead:-1]), numbers[-1]
        level = critical_fractile(economics, lead_time=lead) if tuned is None else tuned
        too_late = period + lead >= game.periods
        return game.action_of(0.0 if too_late else max(0.0, level - sum(numbers[:lead])))

    return Rule(action)


def critical_fractile(economics: Economics, *, lead_time: int) -> float:
    """Return the level that covers the demand of ``lead_time + 1`` periods with probability u / (u + h).

    u is what a missing unit costs (its margin and the penalty) and h what a unit too many costs.

    Source: Arrow, Harris and Marschak, "Optimal inventory policy", Econometrica 19 (1951), in the form of Zipkin,
    Foundations of Inventory Management (2000), section 6.5.
    """
    missing = economics.price - economics.cost + economics.penalty
    if missing <= 0.0 or economics.mean_demand <= 0.0:
        return 0.0
    share = missing / (missing + economics.holding) if economics.holding else 1.0
    mean = economics.mean_demand * (lead_time + 1)
    counts = np.arange(int(mean + 12.0 * np.sqrt(mean) + 12.0))
    return float(np.searchsorted(scipy.special.gammaincc(counts + 1.0, mean), min(share, 1.0 - 1e-9)))


@functools.lru_cache(maxsize=64)
def best_order_up_to(economics: Economics, *, periods: int, lead_time: int) -> float:
    """Return the constant level of highest mean return, units, among whole levels around the critical fractile."""
    centre = critical_fractile(economics, lead_time=lead_time)
    width = 3.0 * np.sqrt(economics.mean_demand * (lead_time + 1)) + 3.0
    levels = np.arange(max(0.0, np.floor(centre - width)), np.ceil(centre + width))
    rng = generator(0, "order up to")
    demand = rng.poisson(economics.mean_demand, size=(N_EPISODES, periods))
    returns = [order_up_to_returns(economics, level, demand=demand, lead_time=lead_time).mean() for level in levels]
    return float(levels[int(np.argmax(returns))])


def order_up_to_returns(
    economics: Economics,
    level: float,
    *,
    demand: NDArray[np.int64],
    lead_time: int,
    unit_cost: float | None = None,
    to_the_end: bool = False,
) -> NDArray[np.float64]:
    """Return the undiscounted return of each episode that starts empty and orders up to ``level``, shape (n,).

    Args:
        economics: prices and mean demand.
        level: units on hand and on their way after each order.
        demand: of each episode and period, shape (n, periods).
        lead_time: periods, >= 1.
        unit_cost: money per unit ordered; None for the economics' own.
        to_the_end: order in the last ``lead_time`` periods too, for sales that will not be.
    """
    n_episodes, periods = demand.shape
    cost = economics.cost if unit_cost is None else unit_cost
    stock, total = np.zeros((n_episodes, lead_time)), np.zeros(n_episodes)
    for period in range(periods):
        ordering = to_the_end or period + lead_time < periods
        quantity = np.maximum(0.0, level - stock.sum(axis=-1)) * ordering
        stock, profit = sell(stock, quantity, demand=demand[:, period], economics=economics, unit_cost=cost)
        total += profit
    return total


def reorder_levels(env: gym.Env[Any, Any]) -> Rule:
    """Order up to S when less than s is in stock, with the best s and S of each month; see `order_levels`."""
    game: Any = env.unwrapped
    levels = order_levels(game)

    def action(state: int) -> int:
        month, stock = game.month_and_stock(state)
        if month == game.months:
            return 0
        s, up_to = levels[month]
        return up_to - stock if stock < s else 0

    return Rule(action)
