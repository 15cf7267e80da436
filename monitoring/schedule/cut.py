"""A window of captured traffic as a capture folder of its own, of the lines as they were written.

Decisions are chosen by their time, whatever file they are in; folders of hours more than an hour away are not opened.
Rewards are those of these decisions, whenever they arrived. Where episodes matter they come whole: those that began in
the window, with all that followed, unless they still went on when the window was over: they made a decision later, or
have no end where clients tell ends.

A damaged line concerns the windows that it may belong to. Its time is what can still be read of it, else that of the
line before it in its file, else any of the hour of its file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from policylab.deployment.capture.format import (
    CAPTURED,
    CAPTURED_PARQUET,
    CapturedDecision,
    Reward,
    hour_folder,
    line_of,
    parse_captured,
    parse_reward,
)
from policylab.deployment.capture.reading import Copies, complete_lines, reward_files
from policylab.errors import UserError
from policylab.experiments.report.text import counted
from policylab.monitoring.ope.reported import Reported
from policylab.monitoring.outcomes.period import Period

HOUR = timedelta(hours=1)
"""By how much clocks may differ; and how long before a window an episode is looked for that began earlier."""
_TIME = re.compile(rb'"inferenceTime":\s*"([0-9T:.Z+-]{19,40})"')
_ID = re.compile(rb'"eventId":\s*"([^"\\]{1,200})"')


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Which traffic a window is of.

    Attributes:
        endpoint: whose.
        variant: None takes all.
        start: of the window.
        end: of the window.
        over: take whole episodes: those that began in the window and made no decision from this moment on; None takes
            the decisions of the window, of whatever episode.
    """

    endpoint: str
    variant: str | None
    start: datetime
    end: datetime
    over: datetime | None = None

    @property
    def last(self) -> datetime:
        """Until when something may belong to the window."""
        return self.over or self.end

    @property
    def hours(self) -> set[str]:
        """Names of the folders that are looked at."""
        moment, found = (self.start - HOUR).astimezone(UTC), set()
        while moment <= self.last + 2 * HOUR:
            found.add(hour_folder(moment.timestamp()))
            moment += HOUR
        return found


@dataclasses.dataclass(frozen=True, slots=True)
class Unfinished:
    """Episodes that began in a window and were left out, by why they are not known to be over."""

    went_on: int = 0
    untold: int = 0

    @property
    def text(self) -> str:
        """In words; empty if there are none."""
        reasons = {"that still went on": self.went_on, "whose end nobody has reported": self.untold}
        told = [f"{counted(n, 'episodes')} {reason}" for reason, n in reasons.items() if n]
        remedy = "raise `late` to the time that an episode and its reports take"
        return f"left out: {', '.join(told)}; {remedy}" if told else ""


def cut(folder: Path, into: Path, *, part: Part) -> tuple[int, Unfinished]:
    """Copy what belongs to a window; return how many decisions that are, and which episodes were left out.

    Args:
        folder: with ``captured`` or ``captured-parquet``, and ``ground-truth``, in it.
        into: receives ``captured`` and ``ground-truth``.
        part: which traffic.

    Raises:
        UserError: a line that may belong to the window is damaged, or a decision was captured twice with different
            contents, or a file of rewards is there twice.
    """
    whole, unfinished = (None, Unfinished()) if part.over is None else _whole_episodes(folder, part)
    window, copies = Period(part.start, part.end), Copies()
    wanted: set[str] = set()
    kept: dict[Path, list[bytes]] = {}
    n = 0
    for file, line, decision in _decisions(folder, part):
        inside = window.place(decision.time_utc) is None if whole is None else _episode(decision) in whole
        if inside and copies.is_new(decision.decision_id, decision.content):
            kept.setdefault(file.relative_to(folder), []).append(line)
            wanted.add(decision.reward_id)
            n += 1
    for place, lines in kept.items():
        _write(into / place, lines)
    for file, lines in _rewards(folder, part, wanted=wanted):
        _write(into / file.relative_to(folder), lines)
    return n, unfinished


def _whole_episodes(folder: Path, part: Part) -> tuple[set[str], Unfinished]:
    """Return the episodes that began in the window and ended, and how many began there and did not."""
    files = reward_files(folder, endpoint=part.endpoint, since=hour_folder((part.start - HOUR).timestamp()))
    reported = Reported.of(_rewards_in(files))
    spans: dict[str, tuple[datetime, datetime]] = {}
    told: set[str] = set()
    for _, _, decision in _decisions(folder, part):
        name, time = _episode(decision), decision.time_utc
        first, last = spans.get(name, (time, time))
        spans[name] = (min(first, time), max(last, time))
        if reported.ended(decision):
            told.add(name)
    began = {name: last for name, (first, last) in spans.items() if part.start <= first < part.end}
    over = {name for name, last in began.items() if last < part.last}
    ended = over & told if reported.end else over
    return ended, Unfinished(went_on=len(began) - len(over), untold=len(over) - len(ended))


def _rewards_in(files: Iterable[Path]) -> Iterator[Reward]:
    """Yield the rewards of files; damaged lines are judged where they are copied."""
    for file in files:
        for line in complete_lines(file):
            with contextlib.suppress(UserError):
                yield parse_reward(line)


def _episode(decision: CapturedDecision) -> str:
    named = decision.facts.episode
    return f"decision {decision.decision_id}" if named is None else f"episode {named}"


def _decisions(folder: Path, part: Part) -> Iterator[tuple[Path, bytes, CapturedDecision]]:
    """Yield the decisions of the hours around the window, with their lines and files."""
    files = (folder / CAPTURED / part.endpoint).glob(f"{part.variant or '*'}/*/*/*/*/*.jsonl")
    hours = part.hours
    for file in sorted(file for file in files if _hour(file) in hours):
        before: datetime | None = None
        for number, line in enumerate(complete_lines(file), start=1):
            try:
                decision = parse_captured(line)
            except UserError as error:
                if _concerns(part, line, before=before, file=file):
                    raise UserError(f"{file}:{number}: {error}") from error
                continue
            before = decision.time_utc
            yield file, line, decision
    if (folder / CAPTURED_PARQUET / part.endpoint).is_dir():
        from policylab.deployment.capture.parquet import read_parquet

        for one in read_parquet(folder, endpoint=part.endpoint, variant=part.variant, hours=hours):
            place = Path(CAPTURED, part.endpoint, one.facts.variant, hour_folder(one.time_utc.timestamp()))
            yield folder / place / "parquet.jsonl", line_of(one), one


def _concerns(part: Part, line: bytes, *, before: datetime | None, file: Path) -> bool:
    """Return whether a damaged line may be of the window."""
    found = _TIME.search(line)
    try:
        moment = before if found is None else datetime.fromisoformat(found[1].decode())
    except ValueError:
        moment = before
    if moment is not None:
        return Period(part.start, part.last).place(moment) is None
    began = datetime.strptime(_hour(file), "%Y/%m/%d/%H").replace(tzinfo=UTC)
    return began < part.last and part.start < began + HOUR


def _rewards(folder: Path, part: Part, *, wanted: set[str]) -> Iterator[tuple[Path, list[bytes]]]:
    """Yield the lines of the rewards of some decisions, file by file.

    A damaged line is an error where it names such a decision, or none and arrived when the window had begun.
    """
    skewed, first = (hour_folder(moment.timestamp()) for moment in (part.start - HOUR, part.start))
    for file in reward_files(folder, endpoint=part.endpoint, since=skewed):
        lines = []
        for number, line in enumerate(complete_lines(file), start=1):
            try:
                reward_id = parse_reward(line).decision_id
            except UserError as error:
                named = _ID.search(line)
                ours = _hour(file) >= first if named is None else named[1].decode(errors="replace") in wanted
                if ours:
                    raise UserError(f"{file}:{number}: {error}") from error
                continue
            if reward_id in wanted:
                lines.append(line)
        if lines:
            yield file, lines


def _hour(file: Path) -> str:
    return "/".join(file.parts[-5:-1])


def _write(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
