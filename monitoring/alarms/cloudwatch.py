"""CloudWatch: every measurement as a metric, each alarm as one that is 0 or 1, with a CloudWatch alarm if wanted.

Drift of a column is named ``feature_baseline_drift_COLUMN``, as Amazon SageMaker's data-quality monitor names it, with
its dimensions ``Endpoint`` and ``MonitoringSchedule``; all others keep their name.

Source: CloudWatch API Reference, PutMetricData (at most 1,000 metrics a call) and PutMetricAlarm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from policylab.config import Settings
from policylab.errors import RunError
from policylab.extras import require
from policylab.monitoring.alarms.alarm import Verdict
from policylab.monitoring.alarms.measurement import Measurement

PER_CALL = 500
MAX_NAME = 255
LARGEST = 2.0**360
"""CloudWatch refuses greater numbers."""


class CloudWatch(Settings):
    """Sends measurements and alarms to CloudWatch."""

    kind: Literal["cloudwatch"]
    namespace: str = Field(default="policylab/monitor", min_length=1, max_length=255, pattern=r"^[^:][\x20-\x7e]*$")
    region: str | None = Field(default=None, description="default: that of the AWS configuration")
    alarm_actions: tuple[str, ...] | None = Field(
        default=None, description="make a CloudWatch alarm of each alarm, with these actions (ARNs, may be none)"
    )
    period_s: int = Field(default=3600, ge=60, multiple_of=60, description="of those alarms; the time between windows")

    def tell(self, verdict: Verdict, *, names: Sequence[str] = ()) -> None:
        """Tell of a window; ``names`` are those of all alarms, which are 0 unless they are among the window's.

        Raises:
            RunError: CloudWatch refuses, or cannot be reached.
        """
        boto3, exceptions = require("boto3", extra="sagemaker"), require("botocore.exceptions", extra="sagemaker")
        try:
            client = boto3.client("cloudwatch", region_name=self.region)
            data = metric_data(verdict, names=names)
            for i in range(0, len(data), PER_CALL):
                client.put_metric_data(Namespace=self.namespace, MetricData=data[i : i + PER_CALL])
            for name in names if self.alarm_actions is not None else ():
                client.put_metric_alarm(**self._alarm(name, verdict))
        except (exceptions.ClientError, exceptions.BotoCoreError) as error:
            raise RunError(f"CloudWatch did not take the metrics: {error}") from error

    def _alarm(self, name: str, verdict: Verdict) -> dict[str, Any]:
        return {
            "AlarmName": f"{verdict.monitor}-{name}"[:MAX_NAME],
            "AlarmDescription": f"alarm {name} of the policylab monitor {verdict.monitor}",
            "AlarmActions": list(self.alarm_actions or ()),
            "Namespace": self.namespace,
            "MetricName": f"alarm.{name}",
            "Dimensions": _dimensions(verdict),
            "Statistic": "Maximum",
            "Period": self.period_s,
            "EvaluationPeriods": 1,
            "Threshold": 0.5,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "missing",
        }


def metric_data(verdict: Verdict, *, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a window as the entries of PutMetricData; numbers that CloudWatch does not take are left out."""
    common = {"Timestamp": datetime.fromisoformat(verdict.end_utc), "Dimensions": _dimensions(verdict), "Unit": "None"}
    fired = {alarm.name for alarm in verdict.alarms}
    found = [
        {"MetricName": _name(one), "Value": one.value, **common}
        for one in verdict.measurements
        if math.isfinite(one.value) and abs(one.value) <= LARGEST
    ]
    return found + [{"MetricName": f"alarm.{name}", "Value": float(name in fired), **common} for name in names]


def _name(one: Measurement) -> str:
    check, _, rest = one.name.partition(".")
    name = f"feature_baseline_drift_{rest}" if check == "data" and one.p_value is not None else one.name
    return re.sub(r"[^\x20-\x7e]", "?", name)[:MAX_NAME]


def _dimensions(verdict: Verdict) -> list[dict[str, str]]:
    found = [{"Name": "MonitoringSchedule", "Value": verdict.monitor}]
    return [{"Name": "Endpoint", "Value": verdict.endpoint}, *found] if verdict.endpoint else found
