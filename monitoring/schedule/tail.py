"""`Tail`: what is appended to a capture folder, as it is appended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from policylab.deployment.capture_format import (
    CAPTURED,
    GROUND_TRUTH,
    CapturedDecision,
    Reward,
    parse_captured,
    parse_reward,
)
from policylab.errors import UserError


class Tail:
    """Reads the lines of an endpoint's decisions and rewards that were not read before.

    Args:
        folder: with ``captured`` and ``ground-truth`` in it.
        endpoint: whose traffic.
        from_end: leave out what is there already.
    """

    def __init__(self, folder: Path, *, endpoint: str, from_end: bool = True) -> None:
        self._places = {
            CAPTURED: (folder / CAPTURED / endpoint, "*/*/*/*/*/*.jsonl"),
            GROUND_TRUTH: (folder / GROUND_TRUTH / endpoint, "*/*/*/*/*.jsonl"),
        }
        self._read: dict[Path, int] = {}
        if from_end:
            for place, pattern in self._places.values():
                self._read.update({file: file.stat().st_size for file in place.glob(pattern)})

    def decisions(self) -> Iterator[CapturedDecision]:
        """Yield the new decisions.

        Raises:
            UserError: a line is damaged; the message names the file. It is not read again.
        """
        for file, line in self._lines(CAPTURED):
            try:
                yield parse_captured(line)
            except UserError as error:
                raise UserError(f"{file}: {error}") from error

    def rewards(self) -> Iterator[Reward]:
        """Yield the new rewards.

        Raises:
            UserError: as for `decisions`.
        """
        for file, line in self._lines(GROUND_TRUTH):
            try:
                yield parse_reward(line)
            except UserError as error:
                raise UserError(f"{file}: {error}") from error

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
