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
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from policylab.errors import PolicylabError, did_you_mean
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
EXTRA = "*.extra_column_check"


def unknown_name(pattern: str, baselines: Mapping[str, Path]) -> str | None:
    """Return what is wrong with an alarm's ``of``, in words; None if a measurement may have such a name.

    Args:
        pattern: with ``*``, ``?`` and ``[...]`` as in file names.
        baselines: of the checks there are, by kind.
    """
    names, open_kinds = [f"{kind}.failed" for kind in baselines], [LIVE]
    for kind, baseline in baselines.items():
        known = _columns(baseline) if kind == "data" else KNOWN.get(kind)
        names += [f"{kind}.{name}" for name in known or ()]
        open_kinds += [kind] if known is None else []
    extra = "data" in baselines and fnmatch.fnmatchcase(pattern, f"data{EXTRA}")
    if extra or any(fnmatch.fnmatchcase(name, pattern) for name in names) or _may_begin(pattern, open_kinds):
        return None
    kinds = [f"{kind}.*" for kind in (*baselines, LIVE)]
    hint = did_you_mean(pattern, [*names, *kinds])
    return f"no measurement is called '{pattern}'{hint} (there are {', '.join(kinds)})"


def _columns(baseline: Path) -> tuple[str, ...] | None:
    """Return the names of a data check's measurements; None if the baseline cannot be read, as its check will say."""
    try:
        columns = [feature.name for feature in read_constraints(baseline / "constraints.json").features]
    except PolicylabError:
        return None
    return ("correlation", *columns, *(f"{column}.{kind}" for column in columns for kind in get_args(CheckType)))


def _may_begin(pattern: str, kinds: list[str]) -> bool:
    """Return whether a pattern may match a name that begins with one of the kinds and a dot."""
    literal = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    varies = literal != pattern
    return any(literal.startswith(f"{kind}.") or (varies and f"{kind}.".startswith(literal)) for kind in kinds)
