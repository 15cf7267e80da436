"""Smaller and faster policies: bundles made of bundles, each with what it saves and the return it loses.

| ``how`` | makes | of |
|---|---|---|
| ``table`` | a table of what the policy does in each state | a network or tree over a small discrete space |
| ``graph`` | an equal graph with fewer nodes | a network |
| ``int8`` | weights of 8 bits, one scale for each unit | a network |
| ``prune`` | layers without their weakest units | a network of dense layers |
| ``distill-network`` | a small network that imitates it | any policy over a vector |
| ``distill-tree`` | a decision tree that imitates it | any policy over numbers |
"""

from policylab.deployment.optimization.loss import Loss, return_lost
from policylab.deployment.optimization.optimize import Optimized, optimize
from policylab.deployment.optimization.settings import METHODS, OptimizeSettings

__all__ = ["METHODS", "Loss", "OptimizeSettings", "Optimized", "optimize", "return_lost"]
