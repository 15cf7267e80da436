"""Verdicts in Prometheus' text format.

| metric | type | labels besides monitor and endpoint |
|---|---|---|
| policylab_monitor_value | gauge | name of the measurement |
| policylab_monitor_violated | gauge: 1 where a check calls it a violation | name |
| policylab_monitor_alarm | gauge: 1 for alarms of the latest window, 0 for the others | alarm |
| policylab_monitor_window_end_seconds | gauge: seconds since 1970 | |

Source: prometheus.io/docs/instrumenting/exposition_formats (version 0.0.4).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from policylab.monitoring.alarms.alarm import Verdict

Sample = tuple[Mapping[str, str], float]
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


def exposition(verdicts: Sequence[Verdict], *, alarms: Iterable[str] = ()) -> str:
    """Return verdicts of one monitor in Prometheus' text format.

    Args:
        verdicts: at least one; of measurements that several have, the last one's.
        alarms: names of all alarms there are, those of the verdicts among them or not.
    """
    latest = verdicts[-1]
    common = {"monitor": latest.monitor, "endpoint": latest.endpoint or ""}
    measured = {one.name: one for verdict in verdicts for one in verdict.measurements}
    raised = {alarm.name for verdict in verdicts for alarm in verdict.alarms}
    end = max(datetime.fromisoformat(verdict.end_utc).timestamp() for verdict in verdicts)
    values = [({**common, "name": name}, one.value) for name, one in measured.items()]
    violated = [({**common, "name": name}, one.violated) for name, one in measured.items()]
    alarmed = [({**common, "alarm": name}, name in raised) for name in sorted({*alarms, *raised})]
    lines = metric("value", values, text="what a check measured in the latest window")
    lines += metric("violated", violated, text="1 where a check calls it a violation")
    lines += metric("alarm", alarmed, text="1 for every alarm of the latest window")
    lines += metric("window_end_seconds", [(common, end)], text="end of the latest window, in seconds since 1970")
    return "\n".join(lines) + "\n"


def metric(name: str, samples: Sequence[Sample], *, text: str) -> list[str]:
    """Return the lines of one metric, none without samples; a name that ends in ``_total`` only ever grows.

    >>> metric("alarm", [({"alarm": "worse"}, True)], text="1 for every alarm")[2]
    'policylab_monitor_alarm{alarm="worse"} 1'
    """
    full = f"policylab_monitor_{name}"
    lines = [f"# HELP {full} {text}", f"# TYPE {full} {'counter' if name.endswith('_total') else 'gauge'}"]
    return lines + [f"{full}{_labels(labels)} {_number(value)}" for labels, value in samples] if samples else []


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return repr(int(value)) if value in (0, 1) else repr(value).replace("inf", "Inf")


def _labels(labels: Mapping[str, str]) -> str:
    """Return labels; names of columns may hold anything."""
    shown = {name: "".join(_ESCAPES.get(letter, letter) for letter in value) for name, value in labels.items()}
    return "{" + ",".join(f'{name}="{value}"' for name, value in shown.items()) + "}"
