"""Names that the measurements of a monitor have, and whether an alarm asks for one that no measurement has.

| names | known |
|---|---|
| `KIND.failed` | of every check |
| `quality.METRIC`, `causes.LAYER`, `bias.METRIC`, `divergence.correlation` | all |
| `data.COLUMN`, `data.COLUMN.CHECK`, `data.correlation` | where the baseline can be read; others are extra ones |
| `attribution.OUTPUT`, `live.COLUMN` | none: only the traffic tells |
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from policylab.errors import PolicylabError, did_you_mean
from policylab.monitoring.alarms.dispatch import AlarmSettings
from policylab.monitoring.alarms.thresholds import FalseDiscovery, RunLength
from policylab.monitoring.bias.metrics import POST_TRAINING, PRE_TRAINING
from policylab.monitoring.causes.analysis import LAYERS
from policylab.monitoring.outcomes.constraints import CONSTRAINED
from policylab.monitoring.quality.constraints import read_constraints
from policylab.monitoring.quality.content import CheckType

KNOWN = {
    "quality": CONSTRAINED,
    "causes": LAYERS,
    "bias": (*PRE_TRAINING, *POST_TRAINING, "FT"),
    "divergence": ("correlation",),
}
LIVE = "live"
Names = tuple[Sequence[str], str | None]
"""Names of measurements, and how others begin; None if there are no others."""


TESTED = ("data", "quality", "causes", "divergence")
"""Checks whose measurements have p-values; those of ``failed`` have none."""


def never_alarms(alarm: AlarmSettings, baselines: Mapping[str, Path]) -> str | None:
    """Return why an alarm can never be raised, in words with the setting; None if it can.

    Args:
        alarm: as set.
        baselines: of the checks there are, by kind.
    """
    wrong = unknown_name(alarm.of, baselines)
    if wrong is not None:
        return f"of: {wrong}"
    by_chance = isinstance(alarm.threshold, RunLength | FalseDiscovery)
    if not by_chance or any(_matches(alarm.of, _names(kind, baselines[kind])) for kind in TESTED if kind in baselines):
        return None
    return (
        f"threshold: {alarm.threshold.kind} needs to know how often chance does as much, and nothing called "
        f"'{alarm.of}' tells; use the threshold baseline or fixed"
    )


def unknown_name(pattern: str, baselines: Mapping[str, Path]) -> str | None:
    """Return what is wrong with an alarm's ``of``, in words; None if a measurement may have such a name.

    Args:
        pattern: with ``*``, ``?`` and ``[...]`` as in file names.
        baselines: of the checks there are, by kind.
    """
    failed = [f"{kind}.failed" for kind in baselines]
    of_kinds = [_names(kind, baseline) for kind, baseline in baselines.items()]
    if any(_matches(pattern, found) for found in (*of_kinds, (failed, None), ([], LIVE))):
        return None
    kinds = [f"{kind}.*" for kind in (*baselines, LIVE)]
    hint = did_you_mean(pattern, [*failed, *kinds, *(name for names, _ in of_kinds for name in names)])
    return f"no measurement is called '{pattern}'{hint} (there are {', '.join(kinds)})"


def _names(kind: str, baseline: Path) -> Names:
    """Return the names that a check's measurements have; and the kind if they may have others."""
    if kind != "data":
        return [f"{kind}.{name}" for name in KNOWN.get(kind, ())], None if kind in KNOWN else kind
    try:
        columns = [feature.name for feature in read_constraints(baseline / "constraints.json").features]
    except PolicylabError:  # as the check will say
        return [], kind
    parts = ["correlation", *columns, *(f"{column}.{one}" for column in columns for one in get_args(CheckType))]
    return [f"data.{part}" for part in parts], None


def _matches(pattern: str, of: Names) -> bool:
    """Return whether a pattern matches one of the names, or may match one that begins with a kind and a dot."""
    names, kind = of
    extra = fnmatch.fnmatchcase(pattern, "data.*.extra_column_check") and any(
        name.startswith("data.") for name in names
    )
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    begins = kind is not None and (
        literal.startswith(f"{kind}.") or (literal != pattern and f"{kind}.".startswith(literal))
    )
    return extra or begins or any(fnmatch.fnmatchcase(name, pattern) for name in names)
