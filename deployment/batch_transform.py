"""Batch transform: decisions for whole files of observations, in their order, as SageMaker makes them.

| file | a record | its decision in ``NAME.out`` |
|---|---|---|
| ``*.jsonl`` | a line: an observation, or an object with ``observation`` and perhaps ``mask`` | a line of JSON |
| ``*.csv`` | a line: the numbers of an observation, without a header | a line of CSV |
| ``*.npy`` | a row of the array | an action of the array |

A file that holds a wrong record gets no output. The same files get the same decisions, drawn actions too: those are a
function of policy, file name and place in the file. Nothing is captured, and no shadow is asked.

Source: https://docs.aws.amazon.com/sagemaker/latest/dg/batch-transform.html
"""

from __future__ import annotations

import dataclasses
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from policylab.deployment.decision import Answer, DecisionRequest, Refusal
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.fleet import load_fleet
from policylab.deployment.http.answers import AnswerWriter
from policylab.deployment.http.bodies import CSV, JSON, JSON_LINES, NPY, Asked, BodyReader
from policylab.deployment.policy_server import PolicyServer
from policylab.errors import ConfigError, UserError, did_you_mean
from policylab.files import storage_errors

TYPES = {".jsonl": JSON, ".csv": CSV, ".npy": NPY}


@dataclasses.dataclass(frozen=True, slots=True)
class Transformed:
    """What became of one file: its output, or why there is none."""

    source: Path
    output: Path | None
    n_records: int
    error: str | None


class BatchTransform:
    """The decisions of one variant of an endpoint.

    Args:
        config: of an endpoint of variants, with absolute paths.
        variant: who decides; default: the first one.

    Raises:
        ConfigError: the endpoint is one of many models, or has no such variant.
        BundleError: a bundle is refused.
    """

    def __init__(self, config: EndpointConfig, *, variant: str | None = None) -> None:
        names = [one.name for one in config.variants]
        if not names:
            raise ConfigError("an endpoint of many models has no variant to transform with; name one of its bundles")
        if variant is not None and variant not in names:
            raise ConfigError(f"--variant: the endpoint has no variant {variant!r}{did_you_mean(variant, names)}")
        self._variant = variant or names[0]
        limits = config.limits.model_copy(update={"deadline_ms": None, "remembered_ids": 0})  # nobody waits or retries
        alone = config.model_copy(update={"limits": limits, "capture": None, "shadows": (), "comparison": None})
        fleet = load_fleet(alone)
        if fleet.variants[self._variant].policy.remembers:
            raise UserError(
                "a policy with a memory decides step after step of an episode, and the records of a file are none; "
                "ask an endpoint, in sessions"
            )
        secret = fleet.variants[self._variant].policy.version.encode()[:64]
        self._server = PolicyServer(fleet, secret=secret)
        self._reader = BodyReader(fleet.bundle, max_batch=config.limits.batch)
        self._writer = AnswerWriter(fleet.bundle)
        self._limits = config.limits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.close()

    def run(self, sources: Sequence[Path], out: Path) -> list[Transformed]:
        """Transform files into the folder ``out``; one that fails stops no other.

        Raises:
            UserError: two have the same name, or one is no file or of a type that is not read.
            StorageError: the outputs cannot be written.
        """
        by_name: dict[str, Path] = {}
        for source in sources:
            _checked(source)
            if other := by_name.get(source.name):
                raise UserError(
                    f"{other} and {source} would both become {source.name}.out; give them names of their own"
                )
            by_name[source.name] = source
        return [self._file(source, out / f"{source.name}.out") for source in sources]

    def _file(self, source: Path, output: Path) -> Transformed:
        records, kind = _Records(source, self._reader, max_bytes=self._limits.body_bytes), TYPES[source.suffix]
        with storage_errors(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                for piece in self._pieces(records, kind):
                    with storage_errors(output):
                        file.write(piece)
                with storage_errors(output):
                    file.flush()
            with storage_errors(output):
                os.chmod(name, 0o644)
                os.replace(name, output)
        except BaseException as error:
            Path(name).unlink(missing_ok=True)
            if isinstance(error, UserError):
                output.unlink(missing_ok=True)  # of an earlier, sound file of this name
                return Transformed(source, None, records.n_read, str(error))
            raise
        return Transformed(source, output, records.n_read, None)

    def _pieces(self, records: _Records, kind: str) -> Iterator[bytes]:
        """Yield the output of a file piece by piece; an array comes as a whole."""
        actions = []
        for answer in map(self._decided, records.requests(self._limits.batch, variant=self._variant)):
            if kind == NPY:
                actions += [decision.action for decision in answer.decisions]
            else:
                yield from self._writer.lines(answer, accept=CSV if kind == CSV else JSON_LINES)[0]
        if kind == NPY:
            file = io.BytesIO()
            np.save(file, np.array(actions), allow_pickle=False)
            yield file.getvalue()

    def _decided(self, request: DecisionRequest) -> Answer:
        try:
            return self._server.decide(request)
        except Refusal as error:
            name, _, number = str(request.retry_key).rpartition(":")
            raise UserError(f"{name}, record {number} and following: {error}") from error


class _Records:
    """The records of one file, which are counted as they are read."""

    def __init__(self, source: Path, reader: BodyReader, *, max_bytes: int) -> None:
        self._source = source
        self._reader = reader
        self._max_bytes = max_bytes
        self.n_read = 0

    def requests(self, n_most: int, *, variant: str) -> Iterator[DecisionRequest]:
        """Yield requests of at most ``n_most`` records; one that tells its episode comes alone."""
        waiting: list[Asked] = []
        for asked in self._asked():
            self.n_read += 1
            alone = asked.episode is not None or asked.step is not None
            if waiting and (alone or len(waiting) == n_most):
                yield self._request(waiting, first=self.n_read - len(waiting), variant=variant)
                waiting = []
            if alone:
                yield self._request([asked], first=self.n_read, variant=variant)
            else:
                waiting.append(asked)
        if waiting:
            yield self._request(waiting, first=self.n_read - len(waiting) + 1, variant=variant)

    def _request(self, records: Sequence[Asked], *, first: int, variant: str) -> DecisionRequest:
        masks = [record.masks[0] if record.masks else None for record in records]
        return DecisionRequest(
            observations=tuple(record.observations[0] for record in records),
            masks=tuple(masks) if any(mask is not None for mask in masks) else None,
            retry_key=f"{self._source.name}:{first}",
            target_variant=variant,
            episode=records[0].episode,
            step=records[0].step,
        )

    def _asked(self) -> Iterator[Asked]:
        kind = TYPES[self._source.suffix]
        bodies = self._rows() if kind == NPY else self._lines()
        for place, body in bodies:
            try:
                asked = self._reader.read(body, kind)
                if len(asked.observations) != 1:
                    raise UserError("a record is one observation, write one per line")
            except UserError as error:
                raise UserError(f"{self._source}:{place}: {error}") from error
            yield asked

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with self._source.open("rb") as lines:
            number = 0
            while line := lines.readline(self._max_bytes + 1):
                number += 1
                if len(line) > self._max_bytes:
                    raise UserError(f"{self._source}:{number}: more than {self._max_bytes} bytes (limits.body_bytes)")
                if line.strip():
                    yield number, line

    def _rows(self) -> Iterator[tuple[int, bytes]]:
        try:
            array = np.load(self._source, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{self._source} is no NPY array of numbers: {str(error)[:120]}") from error
        if array.ndim < 1:
            raise UserError(f"{self._source} holds one number; the first dimension of the array counts observations")
        for number, row in enumerate(array, start=1):
            file = io.BytesIO()
            np.save(file, row, allow_pickle=False)
            yield number, file.getvalue()


def _checked(source: Path) -> None:
    if not source.is_file():
        raise UserError(f"{source} is no file")
    if source.suffix not in TYPES:
        raise UserError(f"{source}: files of {', '.join(TYPES)} are transformed; write one observation per line or row")
