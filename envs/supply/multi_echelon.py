"""`MultiEchelonEnv`: ordering at every stage of a serial supply chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.arguments import checked_count, checked_number, checked_unit_action
from policylab.envs.supply.serial_chain import ChainState, SerialChain
from policylab.envs.supply.stock_picture import Bar, bars_picture, bars_text
from policylab.errors import EnvironmentRuleError

Observation = NDArray[np.float32]


class MultiEchelonEnv(gym.Env[Observation, NDArray[np.float32]]):
    """A chain of m stages that hold stock, from the retailer (stage 0) to the maker of raw material.

    - **State and observation**: float32, units, shape (2m + 1 + sum(lead_time) + 1,), or (m + sum(lead_time) + 1,) with
      lost sales: on hand at each stage; with ``backlog``, what is owed to customers and to each stage; what is on its
      way to stage 0, in 1, 2, ... periods, then to stage 1, ...; the number of periods gone. It is the whole state.
    - **Actions**: Box [-1, 1], shape (m,): stage i orders ``(action_i + 1) / 2 * capacity_i`` units, rounded.
    - **Dynamics**: `policylab.envs.supply.serial_chain.SerialChain.advance`, with Poisson demand.
    - **Reward**: profit of all stages, money. Prices between stages cancel out: it is the retailer's income minus raw
      material, shortage and holding costs.
    - **Start**: ``initial_stock`` on hand, nothing on its way.
    - **End**: terminates after ``periods``; stock left over is worth nothing.

    Args:
        periods: length of an episode, >= 1.
        backlog: unfilled demand and orders wait (True) or are lost (False).
        initial_stock: units, length m.
        price: see `SerialChain`, as are the following.
        unit_cost: money per unit, length m+1.
        shortage_cost: money per unit and period, length m+1.
        holding_cost: money per unit and period, length m.
        capacity: units per period, length m.
        lead_time: periods >= 1, length m.
        mean_demand: units per period.
        profit_discount: OR-Gym multiplies the profit of period n by 0.97^n inside the environment. The default 1 does
            not: the agent's own discount would count twice.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: OR-Gym, arXiv 2008.06319, with its constants as defaults.

    >>> env = MultiEchelonEnv()
    >>> env.observation_space.shape, env.action_space.shape
    ((26,), (3,))
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # type: ignore[misc]

    def __init__(  # noqa: PLR0913 - the constants of a published problem
        self,
        *,
        periods: int = 30,
        backlog: bool = True,
        initial_stock: Sequence[int] = (100, 100, 200),
        price: float = 2.0,
        unit_cost: Sequence[float] = (1.5, 1.0, 0.75, 0.5),
        shortage_cost: Sequence[float] = (0.10, 0.075, 0.05, 0.025),
        holding_cost: Sequence[float] = (0.15, 0.10, 0.05),
        capacity: Sequence[int] = (100, 90, 80),
        lead_time: Sequence[int] = (3, 5, 10),
        mean_demand: float = 20.0,
        profit_discount: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        self.chain = SerialChain(
            price=price,
            unit_cost=tuple(unit_cost),
            shortage_cost=tuple(shortage_cost),
            holding_cost=tuple(holding_cost),
            capacity=tuple(capacity),
            lead_time=tuple(lead_time),
            initial_stock=tuple(initial_stock),
            mean_demand=mean_demand,
            backlog=backlog,
        )
        if checked_count("periods", periods) < 1:
            raise EnvironmentRuleError(f"`periods` must be >= 1, got {periods}")
        self.periods = int(periods)
        if not 0.0 < checked_number("profit_discount", profit_discount) <= 1.0:
            raise EnvironmentRuleError(f"`profit_discount` must be above 0 and at most 1, got {profit_discount}")
        self.profit_discount = float(profit_discount)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self.chain.n_stages,), np.float32)
        high = np.array(self._largest(), dtype=np.float32)
        self.observation_space = gym.spaces.Box(np.zeros_like(high), high, dtype=np.float32)
        self.render_mode = render_mode
        self.state: ChainState = self.chain.start()
        self.period = 0

    def _largest(self) -> list[float]:
        """Return the largest value of each number of the observation; demand beyond is cut off in what is seen."""
        chain, periods = self.chain, self.periods
        made = [periods * most for most in chain.capacity]
        stock = [first + most for first, most in zip(chain.initial_stock, made, strict=True)]
        demand = periods * (chain.mean_demand + 10.0 * chain.mean_demand**0.5 + 10.0)
        owed = [demand, *made] if chain.backlog else []
        moving = [most for most, lead in zip(chain.capacity, chain.lead_time, strict=True) for _ in range(lead)]
        return [*stock, *owed, *moving, periods]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start with the initial stock."""
        super().reset(seed=seed)
        self.state, self.period = self.chain.start(), 0
        return self._observation(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Order, ship, receive and sell for one period.

        Raises:
            EnvironmentRuleError: the action lies outside of the action space.
        """
        orders = self.orders_of(checked_unit_action(action, size=self.chain.n_stages))
        demand = int(self.np_random.poisson(self.chain.mean_demand))
        self.state, found = self.chain.advance(self.state, orders, demand=demand)
        reward = self.profit_discount**self.period * float(found.profit.sum())
        self.period += 1
        info = {
            "demand": demand,
            "sales": float(found.sales[0]),
            "unfilled": found.unfilled.tolist(),
            "profit_by_stage": found.profit.tolist(),
        }
        return self._observation(), reward, self.period >= self.periods, False, info

    def orders_of(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the whole units that an action in [-1, 1] orders, shape (m,)."""
        return np.rint((action + 1.0) / 2.0 * self.chain.capacity)

    def action_of(self, orders: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the action that orders these units; the reverse of `orders_of`."""
        action: NDArray[np.float32] = (2.0 * orders / self.chain.capacity - 1.0).astype(np.float32)
        return action

    def state_of(self, observation: Observation) -> ChainState:
        """Return the state that an observation shows."""
        m, start = self.chain.n_stages, self.chain.start()
        seen = np.asarray(observation, dtype=np.float64)
        at = m
        if self.chain.backlog:
            start.backlog[:] = seen[at : at + m + 1]
            at += m + 1
        for stage, periods in enumerate(self.chain.lead_time):
            start.pipeline[stage, :periods] = seen[at : at + periods]
            at += periods
        return start._replace(on_hand=seen[:m])

    def _observation(self) -> Observation:
        state = self.state
        moving = [state.pipeline[stage, :periods] for stage, periods in enumerate(self.chain.lead_time)]
        owed = [state.backlog] if self.chain.backlog else []
        seen = np.concatenate([state.on_hand, *owed, *moving, [float(self.period)]]).astype(np.float32)
        return np.minimum(seen, self.observation_space.high)  # type: ignore[attr-defined]

    def _bars(self) -> list[Bar]:
        state, bars = self.state, []
        for stage in range(self.chain.n_stages):
            bars.append(Bar(f"stage {stage} on hand", float(state.on_hand[stage])))
            bars.append(Bar(f"stage {stage} on its way", float(state.pipeline[stage].sum())))
            bars.append(Bar(f"stage {stage} owes", -float(state.backlog[stage])))
        return bars

    def render(self) -> Any:
        """Return stock, pipeline and backlog of each stage: text for ``ansi``, an image for ``rgb_array``."""
        title = f"period {self.period} of {self.periods}"
        if self.render_mode == "ansi":
            return bars_text(title, self._bars())
        return bars_picture(self._bars()) if self.render_mode == "rgb_array" else None
