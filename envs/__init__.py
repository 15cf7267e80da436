"""Worlds: Gymnasium environments with exact tables, planners over those tables, and pictures of grids.

The names below load the module behind them when they are first used, so that registering the environments
costs an ``import gymnasium`` nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from policylab.envs.drawing import GridLike, draw_grid, value_colours
    from policylab.envs.enumeration import has_table, table_of
    from policylab.envs.planners import (
        best_epsilon_soft,
        finite_horizon,
        modified_policy_iteration,
        policy_iteration,
        value_iteration,
    )
    from policylab.envs.planning_evaluation import epsilon_soft, evaluate_policy
    from policylab.envs.registration import REGISTRATIONS, register_all
    from policylab.envs.table import TabularMDP
    from policylab.envs.table_env import TableEnv

_MODULES = {
    "drawing": ("GridLike", "draw_grid", "value_colours"),
    "enumeration": ("has_table", "table_of"),
    "planners": (
        "best_epsilon_soft",
        "finite_horizon",
        "modified_policy_iteration",
        "policy_iteration",
        "value_iteration",
    ),
    "planning_evaluation": ("epsilon_soft", "evaluate_policy"),
    "registration": ("REGISTRATIONS", "register_all"),
    "table": ("TabularMDP",),
    "table_env": ("TableEnv",),
}

__all__ = [
    "REGISTRATIONS",
    "GridLike",
    "TableEnv",
    "TabularMDP",
    "best_epsilon_soft",
    "draw_grid",
    "epsilon_soft",
    "evaluate_policy",
    "finite_horizon",
    "has_table",
    "modified_policy_iteration",
    "policy_iteration",
    "register_all",
    "table_of",
    "value_colours",
    "value_iteration",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"policylab.envs.{module}"), name)
    raise AttributeError(f"module 'policylab.envs' has no attribute {name!r}")
