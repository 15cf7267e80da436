"""Supply chains: Puterman's inventory exactly, the newsvendor and the serial chain by simulation."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from policylab.envs.make import make_env
from policylab.envs.planners import finite_horizon
from policylab.envs.settings import EnvSettings
from policylab.envs.supply.inventory import InventoryEnv
from policylab.envs.supply.multi_echelon import MultiEchelonEnv
from policylab.envs.supply.newsvendor import Economics
from policylab.envs.supply.serial_chain import base_stock_orders, base_stock_returns
from policylab.envs.supply.stock_rules import critical_fractile, order_up_to_returns
from policylab.experiments.verify.exact import table
from policylab.experiments.verify.rows import Check, Estimate
from policylab.seeding import generator

PUTERMAN = "Puterman (1994), section 4.6.1: value of month 1"
NEWSVENDOR = "second implementation, 20,000 simulated episodes"
OR_GYM = "OR-Gym 0.5.0 itself with these levels, 1,000 episodes"

N_EPISODES = 20_000
LEAD_TIME, PERIODS = 5, 40
DISCOUNT = 0.99


def puterman_value(stock: int) -> float:
    """Return the optimal value of the first month with ``stock`` units."""
    env = InventoryEnv()
    values = finite_horizon(table("policylab/Inventory-v0"), horizon=env.months).values
    return float(values[0][env.state(0, stock)])


def newsvendor_returns(economics: Economics, level: float, *, discounted: bool, to_the_end: bool) -> Estimate:
    """Return the mean return of ordering up to ``level``; ``discounted`` payments as in the benchmark."""
    rng = generator(0, "verify", "newsvendor", *(str(number) for number in economics))
    demand = rng.poisson(economics.mean_demand, size=(N_EPISODES, PERIODS))
    cost = economics.cost * (DISCOUNT**LEAD_TIME if discounted else 1.0)
    returns = order_up_to_returns(
        economics, level, demand=demand, lead_time=LEAD_TIME, unit_cost=cost, to_the_end=to_the_end
    )
    return Estimate.of(returns)


def best_level(economics: Economics, *, discounted: bool, to_the_end: bool) -> float:
    """Return the level of highest mean return over the same demands."""
    centre = round(critical_fractile(economics, lead_time=LEAD_TIME))
    width = round(2 * (economics.mean_demand * (LEAD_TIME + 1)) ** 0.5)
    levels = range(centre - width, centre + width // 4)
    means = [
        newsvendor_returns(economics, level, discounted=discounted, to_the_end=to_the_end).value for level in levels
    ]
    return float(levels[int(np.argmax(means))])


@functools.cache  # the mean and its scatter come from one simulation
def chain_returns(backlog: bool, levels: tuple[float, ...], *, profit_discount: float) -> Estimate:
    """Return the mean return of an echelon base-stock policy on OR-Gym's chain."""
    env = MultiEchelonEnv(backlog=backlog)
    rng = generator(0, "verify", "chain", int(backlog))
    demand = rng.poisson(env.chain.mean_demand, size=(N_EPISODES, env.periods))
    return Estimate.of(base_stock_returns(env.chain, levels, demand=demand, discount=profit_discount))


def played_returns(backlog: bool, levels: tuple[float, ...], *, n_episodes: int) -> Estimate:
    """Return the same by stepping the environment itself, in-environment discount 0.97."""
    kwargs = {"backlog": backlog, "profit_discount": 0.97}
    env = make_env(EnvSettings(id="policylab/MultiEchelon-v0", kwargs=kwargs))
    game: MultiEchelonEnv = env.unwrapped  # type: ignore[assignment]
    returns, rng = [], generator(0, "verify", "played chain", int(backlog))
    for _ in range(n_episodes):
        observation, _ = env.reset(seed=int(rng.integers(2**31)))
        total, ended = 0.0, False
        while not ended:
            orders = base_stock_orders(game.chain, game.state_of(observation), levels=levels)
            observation, reward, terminated, truncated, _ = env.step(game.action_of(orders))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return Estimate.of(returns)


# economics, payment discounted as in the benchmark, orders to the end, level, mean return, its standard error
NEWSVENDOR_TABLE = (
    ((50, 25, 1, 5, 100), False, False, 624, "81086", 11),
    ((50, 25, 1, 5, 100), False, True, 621, "68688", 10),
    ((50, 25, 1, 5, 100), True, False, 625, "85382", 12),
    ((50, 25, 1, 5, 100), True, True, 623, "73586", 10),
    ((80, 20, 2, 5, 20), False, False, 133, "39104", 11),
    ((80, 20, 2, 5, 20), False, True, 133, "37130", 11),
    ((80, 20, 2, 5, 20), True, False, 134, "39799", 12),
    ((80, 20, 2, 5, 20), True, True, 133, "37919", 11),
)

# backlog, echelon base-stock levels, mean return, its standard deviation over 1,000 episodes
CHAIN_TABLE = (
    (True, (91.2, 212.0, 415.4), "410.1", 33.0),
    (False, (95.2, 214.9, 407.6), "406.7", 28.6),
)


def _newsvendor() -> Iterator[Check]:
    for numbers, discounted, to_the_end, level, published, error in NEWSVENDOR_TABLE:
        economics = Economics(*(float(number) for number in numbers))
        cost = "payment discounted" if discounted else "payment in full"
        ending = "orders to the end" if to_the_end else "no late orders"
        case = f"p {numbers[0]}, c {numbers[1]}, mean {numbers[4]}, {cost}, {ending}"
        options = {"discounted": discounted, "to_the_end": to_the_end}
        yield Check(
            name=f"newsvendor: return of order-up-to {level}, {case}",
            published=published,
            source=NEWSVENDOR,
            measure=functools.partial(newsvendor_returns, economics, level, **options),
            published_error=error,
        )
        yield Check(
            name=f"newsvendor: best level, {case}",
            published=str(level),
            source=NEWSVENDOR,
            measure=functools.partial(best_level, economics, **options),
            slack=2.0,
            reason="the return is flat around its maximum",
            slow=True,
        )


def _chain() -> Iterator[Check]:
    for backlog, levels, published, deviation in CHAIN_TABLE:
        rules = "backlog" if backlog else "lost sales"
        settings = {"published": published, "source": OR_GYM, "published_error": deviation / 1000**0.5}
        yield Check(
            name=f"serial chain: echelon base-stock, {rules}",
            measure=functools.partial(chain_returns, backlog, levels, profit_discount=0.97),
            **settings,
        )
        yield Check(
            name=f"serial chain: echelon base-stock, {rules}, step by step",
            measure=functools.partial(played_returns, backlog, levels, n_episodes=2000),
            slow=True,
            **settings,
        )


CHECKS: tuple[Check, ...] = (
    *(
        Check(
            name=f"inventory: optimal profit in three months, {stock} in stock",
            published=published,
            source=f"{PUTERMAN}, {sixteenths}/16",
            measure=functools.partial(puterman_value, stock),
        )
        for stock, published, sixteenths in (
            (0, "4.1875", 67),
            (1, "8.0625", 129),
            (2, "12.1250", 194),
            (3, "14.1875", 227),
        )
    ),
    *_newsvendor(),
    *_chain(),
)
"""Inventory, newsvendor and serial chain."""
