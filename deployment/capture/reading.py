"""Reading what was captured: every decision once, every reward, hour by hour."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from policylab.deployment.capture.format import (
    CAPTURED,
    CAPTURED_PARQUET,
    GROUND_TRUTH,
    CapturedDecision,
    Reward,
    parse_captured,
    parse_reward,
)
from policylab.errors import UserError


class Copies:
    """Tells the first line of a decision from copies of it, in files that were copied or sent twice."""

    def __init__(self) -> None:
        self._content: dict[str, int] = {}

    def is_new(self, decision_id: str, content: str) -> bool:
        """Return whether the decision was not there before.

        Raises:
            UserError: it was, with another content.
        """
        digest = hash(content)
        known = self._content.get(decision_id)
        self._content[decision_id] = digest
        if known not in (None, digest):
            raise UserError(
                f"decision {decision_id[:60]!r} was captured twice with different contents; every decision needs an id "
                "of its own, so remove one of the files"
            )
        return known is None


def each_once(decisions: Iterable[CapturedDecision]) -> Iterator[CapturedDecision]:
    """Yield every decision once, however often its line is there.

    Raises:
        UserError: two lines of one decision say different things.
    """
    copies = Copies()
    yield from (one for one in decisions if copies.is_new(one.decision_id, one.content))


def read_captured(folder: Path, *, endpoint: str, variant: str | None = None) -> Iterator[CapturedDecision]:
    """Yield the decisions captured in ``folder`` for an endpoint, or one variant of it, hour by hour.

    Lines come first, then Parquet. The last line of a file may be incomplete, since the endpoint may be writing it; it
    is left out.

    Raises:
        UserError: a line is damaged; the message names file and line.
    """
    place = folder / CAPTURED / endpoint
    for file in sorted(place.glob(f"{variant or '*'}/*/*/*/*/*.jsonl"), key=lambda path: path.parts[-5:]):
        for number, line in enumerate(complete_lines(file), start=1):
            try:
                yield parse_captured(line)
            except UserError as error:
                raise UserError(f"{file}:{number}: {error}") from error
    if (folder / CAPTURED_PARQUET / endpoint).is_dir():
        from policylab.deployment.capture.parquet import read_parquet

        yield from read_parquet(folder, endpoint=endpoint, variant=variant)


def read_rewards(folder: Path, *, endpoint: str) -> Iterator[Reward]:
    """Yield the rewards reported to an endpoint, in the order of their arrival.

    Raises:
        UserError: a line is damaged, the message names file and line; or a file is a copy of another.
    """
    for file in reward_files(folder, endpoint=endpoint):
        for number, line in enumerate(complete_lines(file), start=1):
            try:
                yield parse_reward(line)
            except UserError as error:
                raise UserError(f"{file}:{number}: {error}") from error


def reward_files(folder: Path, *, endpoint: str, since: str = "") -> list[Path]:
    """Return the files of an endpoint's rewards, hour by hour.

    Args:
        folder: with ``ground-truth`` in it.
        endpoint: its name.
        since: name of the first hour, as `hour_folder` writes it.

    Raises:
        UserError: one is a copy of another, whose rewards would be added up twice.
    """
    found = sorted((folder / GROUND_TRUTH / endpoint).glob("*/*/*/*/*.jsonl"))
    found = [file for file in found if "/".join(file.parts[-5:-1]) >= since]
    alike: dict[tuple[Path, int], list[Path]] = {}
    for file in found:
        if size := file.stat().st_size:
            alike.setdefault((file.parent, size), []).append(file)
    for files in alike.values():
        contents: dict[bytes, Path] = {}
        for file in files if len(files) > 1 else []:
            other = contents.setdefault(hashlib.sha256(file.read_bytes()).digest(), file)
            if other is not file:
                raise UserError(f"{file} is a copy of {other.name}, so that its rewards would count twice; remove it")
    return found


def complete_lines(file: Path) -> Iterator[bytes]:
    """Yield the lines of a file that are written to their end."""
    with file.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line
