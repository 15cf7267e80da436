"""Hyperparameters as SageMaker carries them: names and values are strings, and come back as what they were.

A dotted path is a hyperparameter name as it stands (names may hold any character but a newline). A string value is
written bare, unless bare it would read as something else; every other value is written as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_text(value: Any) -> str:
    """Return the string for a value.

    >>> to_text("softmax"), to_text(0.1), to_text(True), to_text("true"), to_text([64, 64])
    ('softmax', '0.1', 'true', '"true"', '[64, 64]')
    """
    if isinstance(value, str) and from_text(value) == value:
        return value
    return json.dumps(value)


def from_text(text: str) -> Any:
    """Return the value a string stands for; one that is no JSON stands for itself.

    >>> from_text("softmax"), from_text("1e-3"), from_text('"true"'), from_text("[64, 64]")
    ('softmax', 0.001, 'true', [64, 64])
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def to_hyperparameters(configuration: Mapping[str, Any]) -> dict[str, str]:
    """Return path -> value as name -> string."""
    return {path: to_text(value) for path, value in configuration.items()}


def from_hyperparameters(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return name -> string as path -> value, without the names that begin with ``_``, which are the service's own.

    >>> from_hyperparameters({"agent.epsilon": "0.1", "_tuning_objective_metric": "eval_return"})
    {'agent.epsilon': 0.1}
    """
    return {name: from_text(text) for name, text in hyperparameters.items() if not name.startswith("_")}
