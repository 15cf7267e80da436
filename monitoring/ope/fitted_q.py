"""Fitted-Q evaluation: a model of what the target policy earns from each state and action, learned from the log.

Backwards over the steps left, h = 1 .. H: q_h(s, a) is the regression of r + γ v_{h-1}(s') on the logged steps, with
v_h(s) = Σ_a π_e(a|s) q_h(s, a), v_0 = 0, and v = 0 after a termination. A step t of an episode that may last H steps is
valued with h = H - t. Without a limit the iteration goes on until it rests.

Two regressions: a **table** of means where observations repeat (then fitted-Q is the exact value in the most likely
model of the log, the certainty equivalence), and ridge regression on random Fourier **features** elsewhere. A pair
that the table has never seen is worth 0.

Source: Le, Voloshin and Yue, "Batch policy learning under constraints", ICML 2019, algorithm 3; Rahimi and Recht,
"Random features for large-scale kernel machines", NeurIPS 2007.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from policylab.errors import UserError
from policylab.monitoring.ope.log import Log
from policylab.monitoring.ope.states import States
from policylab.monitoring.ope.target import Choices

Floats = NDArray[np.float64]
N_FEATURES = 100
RIDGE = 1e-3
"""Of the mean squared feature: enough to keep the system solvable, too little to bias it."""
AT_REST = 1e-10
"""Largest relative change of a value at which the iteration has come to rest."""
MAX_SWEEPS = 10_000
N_FOLDS = 5


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Guesses:
    """What the model says of every step: Q(s_t, a_t) and V(s_t), each of shape (N,)."""

    action_value: Floats
    value: Floats


class _Backup(Protocol):
    """The values with h steps left; `sweep` goes on to h + 1."""

    def sweep(self) -> float:
        """Fit once more; return the largest change of a value that the next fit would see, relative to the values."""
        ...

    def at(self, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return q(s, a) and v(s) of some steps of the log."""
        ...


class FittedQ:
    """Fitted-Q on one log, for any weighting of its episodes.

    Args:
        log: N steps in E episodes.
        choices: the target policy on it.
        states: of the log; None where observations do not repeat.
        discount: γ, in [0, 1].
        horizon: H, most steps of an episode; None without a limit.
        seed: of the random features.
    """

    def __init__(
        self,
        log: Log,
        choices: Choices,
        *,
        states: States | None,
        discount: float,
        horizon: int | None,
        seed: int = 0,
    ) -> None:
        self._log = log
        self._horizon = horizon
        self._regression = (
            _Features(log, choices, discount=discount, rng=np.random.default_rng(seed))
            if states is None
            else _Table(log, choices, states=states, discount=discount)
        )

    def guesses(self, share: Floats | None = None) -> Guesses:
        """Return the guesses for every step of the log.

        Args:
            share: how much each episode counts in the fit, shape (E,); 0 leaves it out and still values it.

        Raises:
            UserError: values that grow without end (discount 1 and no limit).
        """
        log, horizon = self._log, self._horizon
        counts = np.ones(log.n_episodes) if share is None else share
        backup = self._regression.weighted(counts[log.episode].astype(np.float64))
        action_value, value = np.zeros((2, len(log)))
        n_left = np.full(len(log), MAX_SWEEPS) if horizon is None else horizon - log.step
        order = np.argsort(n_left, kind="stable")
        bounds = np.searchsorted(n_left[order], np.arange(1, (horizon or MAX_SWEEPS) + 2))
        for left in range(1, len(bounds)):
            change = backup.sweep()
            rest = change <= AT_REST
            due = order[bounds[left - 1] :] if rest else order[bounds[left - 1] : bounds[left]]
            if due.size:
                action_value[due], value[due] = backup.at(due)
            if rest:
                return Guesses(action_value, value)
        if horizon is None:
            raise UserError(
                f"the fitted values still change after {MAX_SWEEPS} sweeps; "
                "give a discount below 1, or the --horizon of an episode"
            )
        return Guesses(action_value, value)

    def cross_fitted(self) -> Guesses:
        """Return guesses for each episode from a model of the other folds' episodes alone.

        The doubly robust estimators are unbiased only with a model that has not seen the episode it corrects.
        """
        log = self._log
        fold = np.arange(log.n_episodes) % min(N_FOLDS, log.n_episodes)
        action_value, value = np.zeros((2, len(log)))
        for held_out in np.unique(fold):
            found = self.guesses((fold != held_out).astype(np.float64))
            of_fold = fold[log.episode] == held_out
            action_value[of_fold], value[of_fold] = found.action_value[of_fold], found.value[of_fold]
        return Guesses(action_value, value)


class _Table:
    """Weighted means per state and action: mean rewards, and where each pair leads."""

    def __init__(self, log: Log, choices: Choices, *, states: States, discount: float) -> None:
        self.n_actions = choices.here.shape[1]
        self.shape = (states.n, self.n_actions)
        self.here, self.action = states.here, choices.action
        self.policy = np.zeros(self.shape)
        self.policy[states.after], self.policy[states.here] = choices.after, choices.here
        self._reward = log.reward
        self._discount = discount
        self._cell = states.here * self.n_actions + choices.action
        continuing = np.flatnonzero(~log.terminated)
        moves = self._cell[continuing] * states.n + states.after[continuing]
        self._moves, self._move_of = np.unique(moves, return_inverse=True)
        self._continuing = continuing

    def weighted(self, weight: Floats) -> _TableBackup:
        size = self.shape[0] * self.n_actions
        total = np.bincount(self._cell, weights=weight, minlength=size)
        per_unit = np.divide(1.0, total, out=np.zeros(size), where=total > 0)
        reward = np.bincount(self._cell, weights=weight * self._reward, minlength=size) * per_unit
        flow = np.bincount(self._move_of, weights=weight[self._continuing], minlength=len(self._moves))
        cell, after = np.divmod(self._moves, self.shape[0])
        moves = scipy.sparse.csr_array((self._discount * flow * per_unit[cell], (cell, after)), (size, self.shape[0]))
        return _TableBackup(self, reward=np.asarray(reward, dtype=np.float64), moves=moves)


class _TableBackup:
    def __init__(self, table: _Table, *, reward: Floats, moves: Any) -> None:
        self._table, self._reward, self._moves = table, reward, moves
        self._q, self._v = np.zeros(table.shape), np.zeros(table.shape[0])

    def sweep(self) -> float:
        last = self._v
        self._q = (self._reward + self._moves @ last).reshape(self._table.shape)
        self._v = (self._table.policy * self._q).sum(axis=1)
        return _change(self._v, last)

    def at(self, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        here = self._table.here[rows]
        return self._q[here, self._table.action[rows]], self._v[here]


class _Features:
    """Ridge regression per action on random Fourier features of standardised observations."""

    def __init__(self, log: Log, choices: Choices, *, discount: float, rng: np.random.Generator) -> None:
        here, after = _columns(log.observation), _columns(log.next_observation)
        centre, scale = here.mean(axis=0), here.std(axis=0)
        scale[scale == 0] = 1.0
        frequency = rng.standard_normal((here.shape[1], N_FEATURES)) / np.sqrt(here.shape[1])
        phase = rng.uniform(0, 2 * np.pi, N_FEATURES)
        self.here, self.after = (_mapped((x - centre) / scale, frequency, phase=phase) for x in (here, after))
        self.choices, self.reward = choices, log.reward
        self.continuing = discount * ~log.terminated

    def weighted(self, weight: Floats) -> _FeaturesBackup:
        return _FeaturesBackup(self, weight)


class _FeaturesBackup:
    def __init__(self, of: _Features, weight: Floats, /) -> None:
        self._of = of
        self._following = np.zeros(len(weight))
        n_actions = of.choices.here.shape[1]
        self._rows = [np.flatnonzero((of.choices.action == a) & (weight > 0)) for a in range(n_actions)]
        self._weighted = [of.here[rows] * weight[rows, None] for rows in self._rows]
        self._factors = [_factor(x, of.here[rows]) for x, rows in zip(self._weighted, self._rows, strict=True)]
        self._coefficients = np.zeros((of.here.shape[1], n_actions))

    def sweep(self) -> float:
        last, targets = self._following, self._of.reward + self._of.continuing * self._following
        for action, rows in enumerate(self._rows):
            moments = self._weighted[action].T @ targets[rows]
            self._coefficients[:, action] = scipy.linalg.cho_solve(self._factors[action], moments)
        self._following = (self._of.after @ self._coefficients * self._of.choices.after).sum(axis=1)
        return _change(self._following, last)

    def at(self, rows: NDArray[np.int64]) -> tuple[Floats, Floats]:
        q, choices = self._of.here[rows] @ self._coefficients, self._of.choices
        return q[np.arange(len(rows)), choices.action[rows]], (q * choices.here[rows]).sum(axis=1)


def _change(now: Floats, last: Floats) -> float:
    return float(np.abs(now - last).max() / max(1.0, np.abs(now).max()))


def _factor(weighted: Floats, phi: Floats) -> Any:
    gram = weighted.T @ phi
    ridge = RIDGE * max(1.0, float(np.trace(gram)) / len(gram))
    return scipy.linalg.cho_factor(gram + ridge * np.eye(len(gram)))


def _columns(observation: NDArray[Any]) -> Floats:
    return observation.reshape(len(observation), -1).astype(np.float64)


def _mapped(x: Floats, frequency: Floats, *, phase: Floats) -> Floats:
    cosines = np.sqrt(2.0 / frequency.shape[1]) * np.cos(x @ frequency + phase)
    return np.concatenate([np.ones((len(x), 1)), x, cosines], axis=1)
