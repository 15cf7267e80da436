"""A window of captured traffic as a capture folder of its own, of the lines as they were written.

Lines are chosen by the time of their decision, whatever file they are in; folders of other hours are not opened.
Rewards are those of these decisions, whenever they arrived.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from policylab.deployment.capture_format import (
    CAPTURED,
    GROUND_TRUTH,
    complete_lines,
    hour_folder,
    parse_captured,
    parse_reward,
)
from policylab.errors import UserError
from policylab.monitoring.outcomes.period import Period

HOUR = timedelta(hours=1)


def cut(folder: Path, into: Path, *, endpoint: str, variant: str | None, period: Period) -> int:
    """Copy what belongs to a window; return how many decisions that are.

    Args:
        folder: with ``captured`` and ``ground-truth`` in it.
        into: receives the same.
        endpoint: whose traffic.
        variant: None takes all.
        period: with both ends.

    Raises:
        UserError: a line is damaged; the message names file and line.
    """
    assert period.start is not None
    assert period.end is not None
    wanted: set[str] = set()
    n = 0
    hours = _hours(period.start - HOUR, period.end + HOUR)  # clocks may differ by a little
    for file in sorted((folder / CAPTURED / endpoint).glob(f"{variant or '*'}/*/*/*/*/*.jsonl")):
        if "/".join(file.parts[-5:-1]) not in hours:
            continue
        kept = []
        for number, line in enumerate(complete_lines(file), start=1):
            try:
                decision = parse_captured(line)
            except UserError as error:
                raise UserError(f"{file}:{number}: {error}") from error
            if period.place(decision.time_utc) is None:
                kept.append(line)
                wanted.add(decision.reward_id)
        if kept:
            _write(into / file.relative_to(folder), kept)
            n += len(kept)
    first = hour_folder((period.start - HOUR).timestamp())
    for file in sorted((folder / GROUND_TRUTH / endpoint).glob("*/*/*/*/*.jsonl")):
        if "/".join(file.parts[-5:-1]) >= first:
            rewards = [line for line in complete_lines(file) if parse_reward(line).decision_id in wanted]
            if rewards:
                _write(into / file.relative_to(folder), rewards)
    return n


def _hours(start: datetime, end: datetime) -> set[str]:
    moment, found = start.astimezone(UTC), set()
    while moment <= end + HOUR:
        found.add(hour_folder(moment.timestamp()))
        moment += HOUR
    return found


def _write(path: Path, lines: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
