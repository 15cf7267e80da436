"""The event log of a study: append-only JSON lines, the only state a study has.

| event | fields |
|---|---|
| study | schema_version, seed, settings, space: first line, once |
| start | trial, configuration, seed, until, reason |
| resume | trial, seed, until, reason, promotion |
| add_seed | trial, seed, until, reason |
| fork | trial, configuration, seed, until, parent, origin, reason |
| stop | trial, seed (null: the whole trial), reason |
| report | trial, seed, resource, value (larger is better) |
| retry | trial, seed, error, traceback (if there is one): an attempt failed, and another follows |
| end | trial, seed, error (null unless it failed), traceback (if there is one) |
| pace | steps: what limits.wall_clock_s pays for in all, at the pace so far |
| complete | reason: last line |

Whatever a study decides is a function of these lines and of its seed, and, warm-started, of what it kept of its
parents (`policylab.tuning.kept_parents`), so a killed study continues, and a finished one can be replayed and checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.errors import RunDirectoryError
from policylab.files import append_lines, content_hash, drop_torn_tail, read_lines, storage_errors
from policylab.tuning.decisions import Decision
from policylab.tuning.history import DECISIONS, History

_NAMES = {kind: name for name, kind in DECISIONS.items()}


class EventLog:
    """A study's log file, or a log in memory when ``path`` is None.

    Attributes:
        path: of the file.
        events: its lines.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        if path is not None:
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            drop_torn_tail(path)
            self.events = read_lines(path)

    def append(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Add an event, flushed to disk before it takes effect."""
        return self.extend([event])[0]

    def extend(self, events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Add events in one write: killed, the log holds all of them or none."""
        lines = [dict(event) for event in events]
        if self.path is not None and lines:
            append_lines(self.path, lines)
        self.events += lines
        return lines

    def open(self, facts: Mapping[str, Any]) -> None:
        """Write the first line, or check that the log belongs to the same study.

        Raises:
            RunDirectoryError: the log was written with other settings.
        """
        first = {"event": "study", "schema_version": 1, **facts}
        if not self.events:
            self.append(first)
        elif content_hash(self.events[0]) != content_hash(first):
            raise RunDirectoryError(
                f"{self.path}: this log belongs to a study with other settings; tune into another "
                "folder, with this one as a parent (warm_start) to learn from what it holds"
            )

    @property
    def completed(self) -> str | None:
        """Why the study ended, or None while it has not."""
        last = self.events[-1] if self.events else {}
        return last["reason"] if last.get("event") == "complete" else None

    def replay(self, history: History) -> Iterator[dict[str, Any]]:
        """Apply every event to ``history``, yielding each after it was applied.

        Raises:
            RunDirectoryError: an event cannot be applied: a line of the file was changed or is missing.
        """
        for number, event in enumerate(self.events, start=1):
            try:
                history.apply(event)
            except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
                where = f"{self.path}:{number}"
                raise RunDirectoryError(f"{where}: damaged ({error!r}); restore it from a copy") from None
            yield event


def decision_event(decision: Decision) -> dict[str, Any]:
    """Return the log line of a decision.

    >>> from policylab.tuning.decisions import Stop
    >>> decision_event(Stop(trial=3, seed=None, reason="dropped"))
    {'event': 'stop', 'trial': 3, 'seed': None, 'reason': 'dropped'}
    """
    return {
        "event": _NAMES[type(decision)],
        **{field.name: getattr(decision, field.name) for field in dataclasses.fields(decision)},
    }
