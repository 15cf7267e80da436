"""The one exception tree of policylab.

    PolicylabError
    ├── UserError                what the user gave is wrong: exit code 2
    │   ├── ConfigError          an experiment file or an override
    │   ├── UnknownNameError     a name that is not registered
    │   ├── MissingExtraError    an optional dependency is absent or broken
    │   ├── EnvironmentRuleError an environment that cannot be used as asked
    │   ├── BundleError          a policy bundle that must not be loaded
    │   ├── RunDirectoryError    a path that is not a usable run directory
    │   ├── CheckpointError      a damaged or foreign checkpoint
    │   └── ComparisonError      runs that must not be compared
    └── RunError                 the work itself failed: exit code 1
        ├── StorageError         a write failed (full disk, permissions)
        └── TrackingError        the tracker refused or is unreachable

A message gives rule, value, place and remedy in one sentence or one line per finding.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PolicylabError(Exception):
    """Root of every error policylab raises on purpose."""

    exit_code = 1


class UserError(PolicylabError):
    """The input is wrong; the message says what to change."""

    exit_code = 2


class ConfigError(UserError):
    """One or more findings about a configuration, one per line."""


class UnknownNameError(UserError):
    """A name that no registry entry carries."""


class MissingExtraError(UserError):
    """An optional dependency that is absent or cannot be imported."""


class EnvironmentRuleError(UserError):
    """An environment that breaks a rule of the part that wants to use it."""


class BundleError(UserError):
    """A policy bundle that is truncated, altered, foreign or hostile."""


class RunDirectoryError(UserError):
    """A path that is not a run directory, or one in use by another process."""


class CheckpointError(UserError):
    """A checkpoint that is damaged or belongs to something else."""


class ComparisonError(UserError):
    """Runs whose numbers do not measure the same thing."""


class RunError(PolicylabError):
    """The work failed although the input was right."""


class StorageError(RunError):
    """A write to disk failed; what had been written before is intact."""


class TrackingError(RunError):
    """The experiment tracker refused a call or cannot be reached."""


def plain(text: str) -> str:
    r"""Return one line without control characters, which a terminal would obey; what others wrote may hold any.

    >>> plain("red: \x1b[31m")
    'red: ?[31m'
    """
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or ``""``.

    >>> did_you_mean("q_lerning", ["sarsa", "q_learning"])
    "; did you mean 'q_learning'?"
    >>> did_you_mean("retries", ["attempts", "extras"])
    ''
    """
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.65)
    return f"; did you mean '{close[0]}'?" if close else ""
