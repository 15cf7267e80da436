"""What failed in an experiment and what was tried again, each reason once: for a study's log, and for other runs.

A study's log holds what became of its runs. Runs outside of it, such as those that confirm, leave ``failures.jsonl`` in
the run directory: {run, error, traceback, again} for each attempt that failed; ``again``: another one followed at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from policylab.attempts import Failure
from policylab.files import append_lines, drop_torn_tail, read_lines
from policylab.launchers import Progress
from policylab.tuning.history import History

FILE = "failures.jsonl"
Reason: TypeAlias = dict[str, Any]
"""{role, trial, seed, error, traceback, runs}: why, where it was met first, and how often in all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Failures:
    """The reasons of runs that failed and of attempts that were followed by another, the most frequent first."""

    failed: Sequence[Reason]
    retried: Sequence[Reason]


def record_failures(folder: Path, runs: Mapping[str, Progress]) -> None:
    """Add the attempts that failed to the run directory ``folder``.

    Args:
        folder: the run directory.
        runs: path of a run in it -> where it stands in the end.
    """
    lines = []
    for run, progress in runs.items():
        last = [] if progress.failure is None else [progress.failure]
        for number, why in enumerate([*progress.failures, *last]):
            lines.append({"run": run, **dataclasses.asdict(why), "again": number < len(progress.failures)})
    if lines:
        drop_torn_tail(folder / FILE)
        append_lines(folder / FILE, lines)


def study_failures(history: History) -> Failures:
    """Return what a study's log tells."""
    runs = [(("tune", trial.id, run.seed), run) for trial, run in history.runs()]
    failed = [(place, Failure(run.error, run.traceback)) for place, run in runs if run.error is not None]
    return Failures(_reasons(failed), _reasons((place, why) for place, run in runs for why in run.retries))


def other_failures(folder: Path) -> Failures:
    """Return what is known of the runs outside the study of the run directory ``folder``.

    A run that failed and was finished later, by ``resume``, has been tried again.
    """
    failed, retried = {}, []
    for line in read_lines(folder / FILE):
        _, trial, name = line["run"].split("/")
        role, _, seed = name.rpartition("-")
        one = (role, int(trial), int(seed)), Failure(line["error"], line["traceback"])
        if line["again"] or (folder / line["run"] / "result.json").exists():
            retried.append(one)
        else:
            failed[line["run"]] = one
    return Failures(_reasons(failed.values()), _reasons(retried))


def all_failures(history: History, folder: Path) -> Failures:
    """Return what is known of all runs of the run directory ``folder``, those of its study first."""
    first, second = study_failures(history), other_failures(folder)
    return Failures([*first.failed, *second.failed], [*first.retried, *second.retried])


def _reasons(found: Iterable[tuple[tuple[str, int, int], Failure]]) -> list[Reason]:
    reasons: dict[str, Reason] = {}
    for (role, trial, seed), why in found:
        first = {"role": role, "trial": trial, "seed": seed, **dataclasses.asdict(why), "runs": 0}
        reasons.setdefault(why.error, first)["runs"] += 1
    return sorted(reasons.values(), key=lambda one: -int(one["runs"]))


def without_tracebacks(reasons: Iterable[Reason]) -> list[Reason]:
    """Return the reasons alone, for a document in which tracebacks would be in the way."""
    return [{name: value for name, value in one.items() if name != "traceback"} for one in reasons]
