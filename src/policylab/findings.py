"""What a check found: the rule, the value that breaks it, where it stands and what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal

from policylab.errors import ConfigError

Severity = Literal["error", "warning"]

_SHOWN_CHARACTERS = 80


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule.

    Attributes:
        path: where, as ``Section.Field[2].Name``.
        rule: what must hold.
        value: what is there.
        remedy: what to do, in the imperative.
        severity: an ``error`` is refused by the service or by the study; a ``warning`` may work, but not as hoped.

    >>> print(Finding("RandomSeed", "must be at least 0", -1, "leave it out or count from 0"))
    RandomSeed: must be at least 0, got -1; leave it out or count from 0
    """

    path: str
    rule: str
    value: Any
    remedy: str
    severity: Severity = "error"

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = f"{shown[:_SHOWN_CHARACTERS]}... ({len(shown)} characters)"
        return f"{self.path}: {self.rule}, got {shown}; {self.remedy}"


def raise_errors(findings: Iterable[Finding], *, about: str) -> list[Finding]:
    """Return the warnings among ``findings``, or refuse ``about`` with every error, one per line.

    Raises:
        ConfigError: at least one finding is an error.
    """
    found = list(findings)
    errors = [f"{about}: {finding}" for finding in found if finding.severity == "error"]
    if errors:
        raise ConfigError("\n".join(errors))
    return found
