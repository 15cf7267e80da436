"""Nested settings and reports as the flat names and values that trackers store."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_NAME = 250
MAX_PARAM = 6000
_REFUSED = re.compile(r"[^/\w.\- :]")


def flatten(value: Any, *, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, leaf) of a nested document; an empty container is a leaf.

    >>> dict(flatten({"agent": {"kind": "sarsa", "sizes": [3, 4]}, "seeds": {}}))
    {'agent.kind': 'sarsa', 'agent.sizes.0': 3, 'agent.sizes.1': 4, 'seeds': {}}
    """
    items: Iterator[tuple[Any, Any]] | None = None
    if isinstance(value, Mapping) and value:
        items = iter(value.items())
    elif isinstance(value, list) and value:
        items = iter(enumerate(value))
    if items is None:
        yield prefix, value
        return
    for key, child in items:
        yield from flatten(child, prefix=f"{prefix}.{key}" if prefix else str(key))


def numbers(document: Mapping[str, Any], *, prefix: str = "") -> dict[str, float]:
    """Return the numbers of ``document`` by slash-separated name; an interval has a low and a high.

    Other lists are samples, not figures, and left out, as is the format's version.

    >>> numbers({"selected": {"value": 0.5, "ci": [0.4, 0.6], "note": "x"}, "returns": [1, 2, 3]})
    {'selected/value': 0.5, 'selected/ci_low': 0.4, 'selected/ci_high': 0.6}
    """
    found: dict[str, float] = {}
    for key, value in document.items():
        if key == "schema_version":
            continue
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            found.update(numbers(value, prefix=name))
            continue
        parts = zip((f"{name}_low", f"{name}_high"), value, strict=False) if key == "ci" and value else [(name, value)]
        found.update({part: number for part, leaf in parts if (number := as_number(leaf)) is not None})
    return found


def as_number(value: Any) -> float | None:
    """Return ``value`` as a float (NaN and infinities kept), or None when it is not a number."""
    if not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def safe_name(name: str) -> str:
    """Return ``name`` as MLflow accepts it; a changed name ends in a hash of the original, so none collide.

    >>> safe_name("env_runners/episode_return_mean")
    'env_runners/episode_return_mean'
    >>> safe_name("reward[m/s]@2")
    'reward_m/s__2-2bcbea'
    """
    clean = posixpath.normpath(_REFUSED.sub("_", name).replace("..", "__")).strip("/")
    clean = "_" if clean in {"", "."} else clean
    if clean == name and len(name) <= MAX_NAME:
        return name
    return f"{clean[: MAX_NAME - 7]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def param_text(value: Any) -> str:
    """Return a parameter's text: strings as they are, all else as JSON, cut at MLflow's 6000 characters."""
    text = _full_text(value)
    return text if len(text) <= MAX_PARAM else text[: MAX_PARAM - 3] + "..."


def is_cut(value: Any) -> bool:
    """Return whether `param_text` shows less than all of ``value``."""
    return len(_full_text(value)) > MAX_PARAM


def _full_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
