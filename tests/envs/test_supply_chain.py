"""Supply chains: bookkeeping that must balance, single periods by hand, and rules that are known to be best."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.envs.enumeration import table_of
from policylab.envs.planners import evaluate_policy, finite_horizon, start_value
from policylab.envs.supply.inventory import InventoryEnv, order_levels
from policylab.envs.supply.multi_echelon import MultiEchelonEnv
from policylab.envs.supply.newsvendor import MAX_STOCK, Economics, NewsvendorEnv
from policylab.envs.supply.serial_chain import SerialChain, base_stock_orders, base_stock_returns, echelon_position
from policylab.envs.supply.stock_rules import (
    base_stock,
    best_order_up_to,
    critical_fractile,
    order_up_to,
    order_up_to_returns,
    reorder_levels,
    tuned_base_stock,
)
from policylab.errors import EnvironmentRuleError


def random_periods(env: MultiEchelonEnv, *, n: int) -> list[tuple[Any, Any, Any, Any]]:
    """(state before, orders, demand, state after with what happened) of random steps."""
    rng, seen = np.random.default_rng(0), []
    state = env.chain.start()
    for _ in range(n):
        orders, demand = rng.integers(0, 110, env.chain.n_stages), int(rng.poisson(20))
        after, found = env.chain.advance(state, orders, demand=demand)
        seen.append((state, orders, demand, (after, found)))
        state = after
    return seen


@pytest.mark.parametrize("backlog", [True, False])
def test_prices_between_stages_cancel_out(backlog: bool) -> None:
    env = MultiEchelonEnv(backlog=backlog)
    chain = env.chain
    for _, _, _, (after, found) in random_periods(env, n=200):
        expected = (
            chain.price * found.sales[0]
            - chain.unit_cost[-1] * found.sales[-1]
            - np.dot(chain.shortage_cost, found.unfilled)
            - np.dot(chain.holding_cost, after.on_hand)
        )
        assert found.profit.sum() == pytest.approx(expected, rel=1e-13, abs=1e-11)


@pytest.mark.parametrize("backlog", [True, False])
def test_no_unit_appears_or_vanishes(backlog: bool) -> None:
    env = MultiEchelonEnv(backlog=backlog)
    for before, _, _, (after, found) in random_periods(env, n=200):
        held = [state.on_hand.sum() + state.pipeline.sum() for state in (before, after)]
        assert held[1] == held[0] + found.sales[-1] - found.sales[0]
        assert (after.on_hand >= 0).all()
        assert (found.unfilled >= 0).all()


def test_what_is_unfilled_waits_or_is_lost() -> None:
    for backlog in (True, False):
        for before, orders, demand, (after, found) in random_periods(MultiEchelonEnv(backlog=backlog), n=50):
            asked = np.array([demand, *orders]) + before.backlog
            assert found.unfilled == pytest.approx(asked - found.sales)
            assert after.backlog == pytest.approx(found.unfilled if backlog else np.zeros(4))


def two_stages(**changes: Any) -> SerialChain:
    constants = {
        "price": 10.0, "unit_cost": (4.0, 3.0, 1.0), "shortage_cost": (2.0, 0.5, 0.25), "holding_cost": (1.0, 0.5),
        "capacity": (8, 6), "lead_time": (1, 2), "initial_stock": (5, 7), "mean_demand": 4.0, "backlog": True,
    }  # fmt: skip
    return SerialChain(**{**constants, **changes})


def test_two_periods_by_hand() -> None:
    chain = two_stages()
    # The retailer orders 9: at most 8, and stage 1 holds 7. Stage 1 orders 9: at most 6. 6 customers, 5 units: 1 waits.
    first, found = chain.advance(chain.start(), [9, 9], demand=6)
    assert found.sales.tolist() == [5, 7, 6]
    assert found.unfilled.tolist() == [1, 2, 3]
    assert first.on_hand.tolist() == [0, 0]
    assert first.pipeline.tolist() == [[7, 0], [0, 6]]
    # retailer 5*10 - 7*4 - 1*2; stage 1: 7*4 - 6*3 - 2*0.5; raw material: 6*3 - 6*1 - 3*0.25
    assert found.profit.tolist() == [20.0, 9.0, 11.25]
    # 7 arrive, 1 + 2 are due; the order of 2 left over waits for stage 1, which still holds nothing.
    second, found = chain.advance(first, [0, 0], demand=2)
    assert found.sales.tolist() == [3, 0, 3]
    assert second.on_hand.tolist() == [4, 0]
    assert second.backlog.tolist() == [0, 2, 0]
    assert second.pipeline.tolist() == [[0, 0], [6, 3]]


def test_echelon_position_counts_everything_downstream() -> None:
    chain = two_stages()
    state, _ = chain.advance(chain.start(), [9, 9], demand=6)
    # retailer: 0 on hand + 7 coming - 1 owed; stage 1 adds 0 + 6 - 2
    assert echelon_position(state).tolist() == [6, 10]
    assert base_stock_orders(chain, state, levels=[9.9, 13.5]).tolist() == [0, 3]  # stage 1 has nothing to ship


@pytest.mark.parametrize("backlog", [True, False])
def test_the_environment_plays_the_chain(backlog: bool) -> None:
    env = MultiEchelonEnv(backlog=backlog)
    rule = base_stock(env)
    levels = tuned_base_stock(env.chain, periods=env.periods)
    observation, _ = env.reset(seed=1)
    demand, total, terminated = [], 0.0, False
    while not terminated:
        assert echelon_position(env.state_of(observation)) == pytest.approx(echelon_position(env.state))
        observation, reward, terminated, _, info = env.step(rule.act(observation))
        demand.append(info["demand"])
        total += reward
    assert len(demand) == env.periods == observation[-1]
    replayed = base_stock_returns(env.chain, levels, demand=np.array([demand]), discount=1.0)
    assert total == pytest.approx(float(replayed[0]), rel=1e-12)


def test_profit_is_discounted_inside_only_when_asked() -> None:
    plain, discounted = MultiEchelonEnv(), MultiEchelonEnv(profit_discount=0.9)
    rewards = []
    for env in (plain, discounted):
        env.reset(seed=3)
        rewards.append([env.step(np.zeros(3, dtype=np.float32))[1] for _ in range(4)])
    assert rewards[1] == pytest.approx([0.9**n * reward for n, reward in enumerate(rewards[0])])


@pytest.mark.parametrize("orders", [[0, 0, 0], [100, 90, 80], [1, 89, 37]])
def test_orders_survive_the_action_space(orders: list[int]) -> None:
    env = MultiEchelonEnv()
    action = env.action_of(np.array(orders, dtype=np.float64))
    assert env.action_space.contains(action)
    assert env.orders_of(action.astype(np.float64)).tolist() == orders


def test_tuned_levels_earn_what_published_ones_earn() -> None:
    env = MultiEchelonEnv()
    demand = np.random.default_rng(5).poisson(20, size=(4000, 30))
    mine = base_stock_returns(
        env.chain, tuned_base_stock(env.chain, periods=30, discount=0.97), demand=demand, discount=0.97
    )
    published = base_stock_returns(env.chain, (91.2, 212.0, 415.4), demand=demand, discount=0.97)
    assert (mine - published).mean() > -1.0


def test_an_order_sells_a_lead_time_later() -> None:
    env = NewsvendorEnv(economics=[10, 4, 1, 2, 0], lead_time=3, periods=5)
    env.reset(seed=0)
    rewards, observations = [], []
    for quantity in (7, 0, 0, 0, 0):
        observation, reward, terminated, _, _ = env.step(env.action_of(quantity))
        observations.append(observation[:3].round(3).tolist())
        rewards.append(reward)
    assert observations == [[0, 0, 7], [0, 7, 0], [7, 0, 0], [7, 0, 0], [7, 0, 0]]
    # No demand: 7 units paid for, then held for the last two periods.
    assert rewards == pytest.approx([-28, 0, 0, -7, -7], abs=1e-3)
    assert terminated


def test_money_of_a_period_with_demand() -> None:
    env = NewsvendorEnv(economics=[10, 4, 1, 2, 6], lead_time=1, payment_discount=0.5)
    env.reset(seed=0)
    env.step(env.action_of(8.0))
    _, reward, _, _, info = env.step(env.action_of(3.0))
    sold = min(8, info["demand"])
    expected = 10 * sold - 0.5 * 4 * 3 - 1 * (8 - sold) - 2 * (info["demand"] - sold)
    assert reward == pytest.approx(expected, abs=1e-3)


def test_economics_are_drawn_as_the_benchmark_draws_them() -> None:
    env = NewsvendorEnv()
    drawn = np.array([env.reset(seed=seed)[0][5:10] for seed in range(2000)])
    price, cost, holding, penalty, mean = drawn.T
    assert (cost <= price).all()
    assert (holding <= np.minimum(cost, 5)).all()
    for values, middle, width in ((price, 50, 100), (cost / price, 0.5, 1), (penalty, 5, 10), (mean, 100, 200)):
        assert values.mean() == pytest.approx(middle, abs=4.5 * width / np.sqrt(12 * 2000))
    fixed = NewsvendorEnv(economics=[80, 20, 2, 5, 20])
    assert [fixed.reset(seed=seed)[0][5:10].tolist() for seed in (0, 1)] == [[80, 20, 2, 5, 20]] * 2


def test_stock_has_a_limit_and_levels_have_sizes() -> None:
    env = NewsvendorEnv(economics=[10, 4, 1, 2, 0], n_levels=5)
    env.reset(seed=0)
    ordered = [env.step(4)[4]["ordered"] for _ in range(4)]
    assert ordered == [2000, 2000, 0, 0]
    assert env.stock.sum() == MAX_STOCK
    assert [env.quantity_of(action) for action in range(5)] == [0, 500, 1000, 1500, 2000]
    assert [env.action_of(quantity) for quantity in (0, 499, 500, 2000, 9999)] == [0, 0, 1, 4, 4]


def test_the_newsvendor_rule_orders_up_to_its_level_and_never_too_late() -> None:
    env = NewsvendorEnv(economics=[50, 25, 1, 5, 100])
    rule, level = order_up_to(env), best_order_up_to(Economics(50, 25, 1, 5, 100), periods=40, lead_time=5)
    assert level == pytest.approx(624, abs=3)  # the reference's best level, found with other demands
    observation, _ = env.reset(seed=2)
    for period in range(40):
        before = env.stock.sum()
        observation, _, _, _, info = env.step(rule.act(observation))
        position = before if period >= 35 else max(before, level)
        assert before + info["ordered"] == pytest.approx(position, abs=1e-3)


def test_the_critical_fractile_covers_demand_as_often_as_it_pays() -> None:
    economics = Economics(50, 25, 1, 5, 100)  # missing 30, too many 1
    level = critical_fractile(economics, lead_time=5)
    demand = np.random.default_rng(1).poisson(600, 400_000)
    assert np.mean(demand <= level) >= 30 / 31 - 0.002
    assert np.mean(demand <= level - 1) <= 30 / 31 + 0.002
    assert critical_fractile(Economics(5, 25, 1, 5, 100), lead_time=5) == 0.0  # a loss on every unit


def test_late_orders_cost_what_they_cost() -> None:
    economics = Economics(50.0, 25.0, 1.0, 5.0, 100.0)
    demand = np.random.default_rng(0).poisson(100, size=(50, 40))
    early, late = (
        order_up_to_returns(economics, 600, demand=demand, lead_time=5, to_the_end=to_the_end).mean()
        for to_the_end in (False, True)
    )
    assert late == pytest.approx(early - 25 * demand[:, 34:39].sum(axis=1).mean(), rel=0.01)


@pytest.mark.parametrize("env_id", ["policylab/Inventory-v0", "policylab/InventoryYear-v0"])
def test_ordering_by_s_and_S_is_optimal(env_id: str) -> None:  # Scarf 1960
    env = gym.make(env_id)
    mdp, rule = table_of(env), reorder_levels(env)
    actions = [rule.act(state) for state in range(mdp.n_states)]
    horizon = env.unwrapped.months
    mine = start_value(mdp, evaluate_policy(mdp, actions, discount=1.0, horizon=horizon))
    assert mine == pytest.approx(start_value(mdp, finite_horizon(mdp, horizon=horizon).values), abs=1e-12)


def test_the_inventory_of_the_book() -> None:
    """Puterman (1994), section 4.6.1: values of months 1, 2 and 3, and the optimal orders of the first."""
    env = InventoryEnv()
    solved = finite_horizon(table_of(gym.make("policylab/Inventory-v0")), horizon=3)
    assert (16 * solved.values[0][:4]).tolist() == pytest.approx([67, 129, 194, 227])
    assert solved.values[1][4:8].tolist() == pytest.approx([2, 6.25, 10, 10.5])
    assert solved.values[2][8:12].tolist() == pytest.approx([0, 5, 6, 5])
    assert order_levels(env) == [(1, 3), (1, 2), (0, 0)]


def test_what_is_left_is_worth_its_salvage_in_the_last_month_only() -> None:
    plain, salvaged = InventoryEnv(), InventoryEnv(salvage=1.5)
    assert salvaged.P[salvaged.state(0, 3)] == plain.P[plain.state(0, 3)]
    last = plain.state(2, 3)
    pairs = zip(plain.P[last][0], salvaged.P[last][0], strict=True)
    assert [after[2] - before[2] for before, after in pairs] == pytest.approx([4.5, 3.0, 1.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiEchelonEnv(lead_time=[3, 5]), "`unit_cost` must have 3 entries for the 2 lead times, got 4"),
        (lambda: MultiEchelonEnv(lead_time=[0, 5, 10]), "`lead_time` must be >= 1, got 0"),
        (lambda: MultiEchelonEnv(holding_cost=[-1, 0, 0]), "`holding_cost` must be >= 0, got -1"),
        (lambda: MultiEchelonEnv(periods=0), "`periods` must be >= 1, got 0"),
        (lambda: MultiEchelonEnv(profit_discount=1.1), "`profit_discount` must be above 0 and at most 1"),
        (
            lambda: NewsvendorEnv(economics=[1, 2]),
            r"`economics` must be \[price, cost, holding, penalty, mean_demand\]",
        ),
        (lambda: NewsvendorEnv(economics=[1, 2, 9, 0, 0]), "`economics`: holding must be from 0 to 5, got 9"),
        (lambda: NewsvendorEnv(n_levels=1), "`n_levels` must be >= 2, got 1"),
        (lambda: NewsvendorEnv(max_order=0), "`max_order` must be above 0 and at most 4000, got 0"),
        (lambda: InventoryEnv(demand=[0.5, 0.4]), "`demand` must sum to 1, got 0.9"),
        (lambda: InventoryEnv(initial_stock=4), "`initial_stock` must be at most the capacity 3, got 4"),
        (lambda: InventoryEnv(months=0), "`months` must be from 1 to 200, got 0"),
    ],
)
def test_an_argument_out_of_range_is_refused(make: Any, message: str) -> None:
    with pytest.raises(EnvironmentRuleError, match=message):
        make()


@pytest.mark.parametrize("action", [[0.0], [0.0, 0.0, 1.5], [0.0, 0.0, float("nan")]])
def test_an_action_outside_of_the_space_is_refused(action: list[float]) -> None:
    env = MultiEchelonEnv()
    env.reset(seed=0)
    with pytest.raises(EnvironmentRuleError, match=r"an action must be 3 number\(s\) from -1 to 1, got"):
        env.step(np.array(action, dtype=np.float32))
