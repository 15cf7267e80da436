"""Statistics of runs: point estimates, their intervals, comparisons and curves.

| symbol | meaning |
|---|---|
| scores | one number per run, shape (n_runs,), or per run and task, shape (n_runs, n_tasks) |
| curves | one number per run and evaluation, shape (n_runs, n_points); NaN where a run was not evaluated |
| level | confidence level of an interval, in (0, 1); 0.95 unless told otherwise |
| rng | the generator that resamples; the same state gives the same interval, in any process |

Bootstrap intervals are percentile intervals over runs resampled within each task (strata), as recommended by
Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021
(arXiv 2108.13264). They are adequate from about ten runs on and too narrow below five.
"""

from policylab.experiments.statistics.comparison import (
    independent_difference,
    paired_difference,
    paired_improvement,
    probability_of_improvement,
)
from policylab.experiments.statistics.curves import (
    Band,
    area_under_curve,
    learning_curve,
    performance_profile,
    steps_to_threshold,
)
from policylab.experiments.statistics.estimates import (
    bootstrap,
    iqm,
    is_binary,
    mean,
    mean_interval,
    median,
    optimality_gap,
    tolerance_interval,
    wilson,
)
from policylab.experiments.statistics.interval import Interval, seed_warning

__all__ = [
    "Band",
    "Interval",
    "area_under_curve",
    "bootstrap",
    "independent_difference",
    "iqm",
    "is_binary",
    "learning_curve",
    "mean",
    "mean_interval",
    "median",
    "optimality_gap",
    "paired_difference",
    "paired_improvement",
    "performance_profile",
    "probability_of_improvement",
    "seed_warning",
    "steps_to_threshold",
    "tolerance_interval",
    "wilson",
]
