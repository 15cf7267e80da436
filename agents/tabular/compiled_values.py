"""Exact values of many deterministic policies within a step limit, backed up by one compiled loop."""
# ruff: noqa: PLR0917 - compiled functions take positional arguments

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from policylab.agents.tabular.compiled import cached
from policylab.envs.planning_model import ExpectedModel
from policylab.envs.table import TabularMDP
from policylab.errors import EnvironmentRuleError

with cached():

    @numba.njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator, unused-ignore]
    def _back_up(pairs, reward, first, target, weight, horizon):  # type: ignore[no-untyped-def]
        """Return the values (P, S) of policies that take the state-action pairs (P, S).

        Pair i has the mean reward ``reward[i]`` and moves on to ``target[j]`` with probability ``weight[j]``, for j
        from ``first[i]`` up to ``first[i + 1]``.
        """
        values = np.zeros(pairs.shape)
        after = np.zeros(pairs.shape[1])
        for p in range(pairs.shape[0]):
            for _ in range(horizon):
                after[:] = values[p]
                for s in range(pairs.shape[1]):
                    pair = pairs[p, s]
                    onward = 0.0
                    for j in range(first[pair], first[pair + 1]):
                        onward += weight[j] * after[target[j]]
                    values[p, s] = reward[pair] + onward
        return values


def values_within(mdp: TabularMDP, policies: ArrayLike, *, horizon: int) -> NDArray[np.float64]:
    """Return the undiscounted value of every state under each policy within ``horizon`` steps, shape (P, S).

    A policy's values do not depend on the policies beside it. They are those of
    `policylab.envs.planners.evaluate_policy` up to rounding, at a hundredth of its time.

    Args:
        mdp: the table; its own time limit is not applied.
        policies: actions, shape (P, S), each in 0 .. A - 1.
        horizon: number of steps after which the episode is cut.

    Raises:
        EnvironmentRuleError: an action the table does not have.

    >>> mdp = TabularMDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 0, 5.0, True)]}}, [1.0])
    >>> values_within(mdp, [[0], [1]], horizon=7).tolist()
    [[7.0], [5.0]]
    """
    model = ExpectedModel.of(mdp)
    actions = np.asarray(policies, dtype=np.int64)
    if not ((actions >= 0) & (actions < mdp.n_actions)).all():
        raise EnvironmentRuleError(f"the actions of a policy must be integers in 0 .. {mdp.n_actions - 1}")
    pairs = np.arange(mdp.n_states) * mdp.n_actions + actions
    onward = model.continuing
    found: NDArray[np.float64] = _back_up(
        pairs, model.reward.ravel(), onward.indptr, onward.indices, onward.data, horizon
    )
    return found
