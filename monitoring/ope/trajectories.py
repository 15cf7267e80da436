"""`Trajectories`: logged episodes side by side, as every estimator reads them.

| symbol | field | shape | meaning |
|---|---|---|---|
| c_t | weight | (E, T) | product of the ratios π_e / π_b of the steps 0 .. t |
| γ^t r_t | reward | (E, T) | discounted reward |
| γ^t Q(s_t, a_t) | action_value | (E, T) | discounted guess of a model; 0 without one |
| γ^t V(s_t) | value | (E, T) | discounted guess of the target policy's value there; 0 without one |

T is the length of the longest episode. A finished episode rests in an absorbing state: its weight stays what it was at
its last step, everything else is 0 (Precup, Sutton and Singh 2000, section 2; Thomas and Brunskill 2016, section 2).
"""

from __future__ import annotations

import dataclasses
from typing import Self

import numpy as np
from numpy.typing import NDArray

from policylab.errors import UserError
from policylab.monitoring.ope.log import Log

Floats = NDArray[np.float64]
MAX_CELLS = 20_000_000
"""Of one array of episodes by steps: 160 MB."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Trajectories:
    """Arrays of shape (E, T); see the module's symbol table."""

    weight: Floats
    reward: Floats
    action_value: Floats
    value: Floats

    @property
    def n_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.weight)

    @property
    def previous_weight(self) -> Floats:
        """c_{t-1}, with c_{-1} = 1, shape (E, T)."""
        return np.concatenate([np.ones((self.n_episodes, 1)), self.weight[:, :-1]], axis=1)

    @classmethod
    def of(
        cls,
        log: Log,
        log_ratio: Floats,
        *,
        discount: float,
        action_value: Floats | None = None,
        value: Floats | None = None,
    ) -> Self:
        """Return the trajectories of a log.

        Args:
            log: N steps in E episodes.
            log_ratio: ln π_e(a|s) - ln π_b(a|s) of every step, shape (N,); -inf where π_e never does it.
            discount: γ, in [0, 1].
            action_value: Q(s, a) of every step, shape (N,).
            value: V(s) = Σ_a π_e(a|s) Q(s, a) of every step, shape (N,).

        Raises:
            UserError: the longest episode is too long for so many episodes.
        """
        n, horizon = log.n_episodes, int(log.lengths.max())
        if n * horizon > MAX_CELLS:
            raise UserError(
                f"{n} episodes of up to {horizon} steps exceed {MAX_CELLS:,} cells; give a part of the episodes"
            )
        place = (log.episode, log.step)
        factor = np.power(float(discount), log.step)

        def laid_out(of_rows: Floats | None) -> Floats:
            table = np.zeros((n, horizon))
            if of_rows is not None:
                table[place] = of_rows
            return table

        with np.errstate(over="ignore"):  # an infinite weight is refused with the other degenerate ones
            weight = np.exp(laid_out(log_ratio).cumsum(axis=1))
        return cls(
            weight,
            laid_out(factor * log.reward),
            action_value=laid_out(None if action_value is None else factor * action_value),
            value=laid_out(None if value is None else factor * value),
        )
