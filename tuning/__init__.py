"""Search: spaces, searchers, schedulers and the study that joins them. It knows no reinforcement learning.

| to | use |
|---|---|
| tune any callable | `tune` with a `Space` and `Limits` |
| propose configurations | a `Searcher`, named in `SEARCHERS` |
| decide what to spend on | a `Scheduler`, named in `SCHEDULERS` |
| drive both over a backend and a log | `Study`, `EventLog`, `History` |
"""

from policylab.tuning.backend import Objective, Task
from policylab.tuning.constraints import Constraint
from policylab.tuning.execution import Execution
from policylab.tuning.history import History
from policylab.tuning.limits import Convergence, Limits, NotImproving
from policylab.tuning.log import EventLog
from policylab.tuning.parameters import Categorical, Continuous, Integer
from policylab.tuning.result import StudyResult, TrialResult
from policylab.tuning.scheduler import SCHEDULERS, Horizon, Scheduler
from policylab.tuning.searcher import SEARCHERS, Searcher
from policylab.tuning.space import Space
from policylab.tuning.study import Study
from policylab.tuning.tune import tune

__all__ = [
    "SCHEDULERS",
    "SEARCHERS",
    "Categorical",
    "Constraint",
    "Continuous",
    "Convergence",
    "EventLog",
    "Execution",
    "History",
    "Horizon",
    "Integer",
    "Limits",
    "NotImproving",
    "Objective",
    "Scheduler",
    "Searcher",
    "Space",
    "Study",
    "StudyResult",
    "Task",
    "TrialResult",
    "tune",
]
