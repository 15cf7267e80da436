"""`Tail`: what is appended to a capture folder, as it is appended; of Parquet, file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from policylab.deployment.capture.format import (
    CAPTURED,
    CAPTURED_PARQUET,
    GROUND_TRUTH,
    CapturedDecision,
    Reward,
    parse_captured,
    parse_reward,
)
from policylab.deployment.capture.parquet import decisions_of
from policylab.errors import UserError

Line = TypeVar("Line")


class Tail:
    """Reads the lines of an endpoint's decisions and rewards that were not read before.

    Args:
        folder: with ``captured`` and ``ground-truth`` in it.
        endpoint: whose traffic.
        from_end: leave out what is there already.

    Attributes:
        damage: what could not be read, with its file; a watch goes on without it.

    """

    def __init__(self, folder: Path, *, endpoint: str, from_end: bool = True) -> None:
        self.damage: list[str] = []
        self._places = {
            CAPTURED: (folder / CAPTURED / endpoint, "*/*/*/*/*/*.jsonl"),
            CAPTURED_PARQUET: (folder / CAPTURED_PARQUET / endpoint, "policy_version=*/date=*/hour=*/[!.]*.parquet"),
            GROUND_TRUTH: (folder / GROUND_TRUTH / endpoint, "*/*/*/*/*.jsonl"),
        }
        self._read: dict[Path, int] = {}
        if from_end:
            for place, pattern in self._places.values():
                self._read.update({file: file.stat().st_size for file in place.glob(pattern)})

    def decisions(self) -> Iterator[CapturedDecision]:
        """Yield the new decisions; what is damaged goes to `damage`."""
        yield from self._parsed(CAPTURED, parse_captured)
        yield from self._rows()

    def rewards(self) -> Iterator[Reward]:
        """Yield the new rewards; what is damaged goes to `damage`."""
        return self._parsed(GROUND_TRUTH, parse_reward)

    def _parsed(self, kind: str, parse: Callable[[bytes], Line]) -> Iterator[Line]:
        for file, line in self._lines(kind):
            try:
                found = parse(line)
            except UserError as error:
                self.damage.append(f"{file}: {error}")
            else:
                yield found

    def _rows(self) -> list[CapturedDecision]:
        """Return the decisions of new Parquet files, which appear whole, in the order of time."""
        place, pattern = self._places[CAPTURED_PARQUET]
        found: list[CapturedDecision] = []
        for file in place.glob(pattern):
            if file in self._read:
                continue
            self._read[file] = file.stat().st_size
            try:
                found += decisions_of(file)
            except UserError as error:
                self.damage.append(str(error))
        return sorted(found, key=lambda one: one.time_utc)

    def _lines(self, kind: str) -> Iterator[tuple[Path, bytes]]:
        place, pattern = self._places[kind]
        for file in sorted(place.glob(pattern)):
            start = self._read.get(file, 0)
            if file.stat().st_size <= start:
                continue
            with file.open("rb") as content:
                content.seek(start)
                for line in content:
                    if not line.endswith(b"\n"):
                        break  # it is being written
                    start += len(line)
                    self._read[file] = start
                    yield file, line
