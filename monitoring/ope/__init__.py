"""Off-policy evaluation: what a policy would earn, from a log of what another policy did.

log (Parquet, captured JSONL) + bundle -> Log, Target -> Trajectories -> estimators -> Evaluation, or a refusal
"""

from policylab.monitoring.ope.evaluation import Evaluation, evaluate, evaluate_target
from policylab.monitoring.ope.log import Log, read_log
from policylab.monitoring.ope.overlap import Overlap, OverlapSettings, effective_sample_size
from policylab.monitoring.ope.settings import OpeSettings
from policylab.monitoring.ope.target import Choices, Target, target_on
from policylab.monitoring.ope.trajectories import Trajectories

__all__ = [
    "Choices",
    "Evaluation",
    "Log",
    "OpeSettings",
    "Overlap",
    "OverlapSettings",
    "Target",
    "Trajectories",
    "effective_sample_size",
    "evaluate",
    "evaluate_target",
    "read_log",
    "target_on",
]
