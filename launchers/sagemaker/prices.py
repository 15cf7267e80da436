"""What a training job costs: a dated table of prices that a user replaces by their own, and estimates from it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from policylab.aws.request_view import View
from policylab.config import Settings, load

TABLE = Path(__file__).with_name("prices.yaml")


class PriceTable(Settings):
    """Prices per instance type."""

    as_of: str = Field(description="when they were collected")
    region: str
    currency: str = "USD"
    per_hour: dict[str, float] = Field(description="instance type -> price of one instance for one hour, on demand")


@functools.cache
def price_table(path: Path = TABLE) -> PriceTable:
    """Return the table in the file ``path``.

    Raises:
        ConfigError: it is missing or malformed.
    """
    return load(PriceTable, path)


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """What a job costs at most, in the table's currency.

    Attributes:
        most: if it runs for MaxRuntimeInSeconds on demand and its warm pool waits in vain; spot machines cost less.
        per_hour: of all its machines together.
        unpriced: instance types that the table lacks; they count as nothing.
        basis: the table's date and region.
    """

    most: float
    per_hour: float
    unpriced: tuple[str, ...]
    basis: str


def estimate(request: Mapping[str, Any], prices: PriceTable | None = None) -> Estimate:
    """Return what the job of a CreateTrainingJob ``request`` costs at most.

    >>> cluster = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2}
    >>> estimate({"ResourceConfig": cluster, "StoppingCondition": {"MaxRuntimeInSeconds": 1800}}).most
    0.23
    """
    prices = prices or price_table()
    resources = View(request)["ResourceConfig"]
    machines = resources["InstanceGroups"].items() or [resources]
    counts = [(machine["InstanceType"].text, machine["InstanceCount"].number or 0) for machine in machines]
    per_hour = sum(prices.per_hour.get(name, 0.0) * count for name, count in counts)
    runtime_s = View(request)["StoppingCondition"]["MaxRuntimeInSeconds"].number or 86_400
    hours = (runtime_s + (resources["KeepAlivePeriodInSeconds"].number or 0)) / 3600
    unpriced = tuple(sorted({name for name, _ in counts} - prices.per_hour.keys()))
    return Estimate(per_hour * hours, per_hour, unpriced, f"{prices.region} {prices.as_of}, {prices.currency}")


def study_most(request: Mapping[str, Any], prices: PriceTable | None = None) -> float | None:
    """Return what all jobs of a CreateHyperParameterTuningJob ``request`` cost at most, None if it sets no limit.

    Limits are the number of jobs, and the time of the whole with as many of them as may run at once.

    >>> limits = {"MaxNumberOfTrainingJobs": 10, "MaxParallelTrainingJobs": 2}
    >>> job = {"ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1},
    ...     "StoppingCondition": {"MaxRuntimeInSeconds": 3600}}
    >>> request = {"HyperParameterTuningJobConfig": {"ResourceLimits": limits}, "TrainingJobDefinition": job}
    >>> round(study_most(request), 2)
    2.3
    """
    limits = View(request)["HyperParameterTuningJobConfig"]["ResourceLimits"]
    each = estimate(request.get("TrainingJobDefinition", {}), prices)
    n_jobs, runtime_s = limits["MaxNumberOfTrainingJobs"].number, limits["MaxRuntimeInSeconds"].number
    most = [] if n_jobs is None else [n_jobs * each.most]
    if runtime_s is not None:
        most.append((limits["MaxParallelTrainingJobs"].number or 1) * runtime_s / 3600 * each.per_hour)
    return min(most, default=None)
