"""Captured decisions as Parquet, a folder for each policy version and hour, in the layout that Hive and pyarrow read.

    FOLDER/captured-parquet/ENDPOINT/policy_version=DIGEST/date=yyyy-mm-dd/hour=hh/*.parquet

A row has the fields of `DecisionFacts` beside decision id, inference id, time, observation and action
(both as JSON). Files are written whole and renamed into place, every ``write_s`` seconds or `MAX_ROWS` rows and at the
end; what a kill or a full disk takes are the rows of those that were not.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policylab.deployment.capture.format import CAPTURED_PARQUET, CapturedDecision, DecisionFacts
from policylab.errors import UserError
from policylab.extras import require

WRITE_S = 10.0
MAX_ROWS = 10_000
logger = logging.getLogger(__name__)


def _schema() -> Any:
    pa = require("pyarrow", extra="monitor")
    kinds = {"n_dropped": pa.int64(), "step": pa.int64(), "format_version": pa.int64(), "exploration": pa.bool_(),
             "mask": pa.list_(pa.bool_())}  # fmt: skip
    kinds |= dict.fromkeys(("variant_probability", "propensity", "log_propensity", "sampling_probability"),
                           pa.float64())  # fmt: skip
    own = [("decision_id", pa.string()), ("inference_id", pa.string()), ("time_utc", pa.timestamp("us", tz="UTC")),
           ("observation", pa.string()), ("action", pa.string())]  # fmt: skip
    return pa.schema([*own, *((name, kinds.get(name, pa.string())) for name in DecisionFacts.model_fields)])


class ParquetFiles:
    """Decisions that are collected and written to files of one endpoint.

    Args:
        folder: of the endpoint.
        write_s: seconds after which what was collected becomes a file.

    Raises:
        MissingExtraError: pyarrow is absent.
    """

    def __init__(self, folder: Path, *, write_s: float = WRITE_S) -> None:
        self.folder = folder
        self.write_s = write_s
        self.n_waiting_bytes = 0  # rows are not bytes yet: they are no reason to write lines earlier
        self._schema = _schema()
        self._rows: dict[Path, list[dict[str, Any]]] = {}
        self._written = time.monotonic()

    def add(self, line: Mapping[str, Any], *, time_s: float) -> None:
        """Collect the decision of a captured line."""
        facts, metadata, moment = line["policylab"], line["eventMetadata"], datetime.fromtimestamp(time_s, UTC)
        row = {
            "format_version": 1,
            **facts,
            "shadows": json.dumps(facts["shadows"]),
            "decision_id": metadata["eventId"],
            "inference_id": metadata.get("inferenceId"),
            "time_utc": moment,
            "observation": line["captureData"]["endpointInput"]["data"],
            "action": line["captureData"]["endpointOutput"]["data"],
        }
        place = self.folder / f"policy_version={facts['policy_version']}" / f"date={moment:%Y-%m-%d}"
        self._rows.setdefault(place / f"hour={moment:%H}", []).append(row)

    def flush(self, *, last: bool = False) -> tuple[int, int]:
        """Write what was collected, if it is time; return how many rows were written, and how many are lost."""
        due = time.monotonic() - self._written >= self.write_s or sum(map(len, self._rows.values())) >= MAX_ROWS
        if not (due or last):
            return 0, 0
        collected, self._rows, self._written = self._rows, {}, time.monotonic()
        n_written, n_lost = 0, 0
        for folder, rows in collected.items():
            try:
                self._write(folder, rows)
                n_written += len(rows)
            except OSError as error:
                n_lost += len(rows)
                logger.warning("%d rows for %s are lost: %s", len(rows), folder, error.strerror or error)
        return n_written, n_lost

    def _write(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder.mkdir(parents=True, exist_ok=True)
        name = f"{datetime.now(UTC):%M-%S-%f}-{uuid.uuid4()}.parquet"
        temporary = folder / f".{name}"  # readers pass over hidden files
        try:
            pq.write_table(pa.Table.from_pylist(rows, schema=self._schema), temporary)
            os.replace(temporary, folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_parquet(
    folder: Path, *, endpoint: str, variant: str | None = None, hours: Collection[str] | None = None
) -> Iterator[CapturedDecision]:
    """Yield the decisions of an endpoint, or one variant of it, hour by hour.

    Args:
        folder: with ``captured-parquet`` in it.
        endpoint: its name.
        variant: None takes all.
        hours: open files of these alone, as `hour_folder` names them; None takes all.

    Raises:
        UserError: a file is damaged.
    """
    place = folder / CAPTURED_PARQUET / endpoint
    for file in sorted(place.glob("policy_version=*/date=*/hour=*/[!.]*.parquet"), key=lambda path: path.parts[-3:]):
        date, hour = (part.partition("=")[2] for part in file.parts[-3:-1])
        if hours is None or f"{date.replace('-', '/')}/{hour}" in hours:
            yield from (one for one in decisions_of(file) if variant in (None, one.facts.variant))


def decisions_of(file: Path) -> list[CapturedDecision]:
    """Return the decisions in one file.

    Raises:
        UserError: it is damaged.
    """
    pa = require("pyarrow", extra="monitor")
    import pyarrow.parquet as pq

    try:
        rows = pq.ParquetFile(file).read().to_pylist()  # not read_table, which would take columns from the path
        return [_decision(row) for row in rows]
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: no captured decisions: {str(error)[:200]}; remove or restore it") from error


def _decision(row: dict[str, Any]) -> CapturedDecision:
    facts = {name: row[name] for name in DecisionFacts.model_fields}
    return CapturedDecision(
        decision_id=row["decision_id"],
        inference_id=row["inference_id"],
        time_utc=row["time_utc"],
        observation=json.loads(row["observation"]),
        action=json.loads(row["action"]),
        facts=DecisionFacts.model_validate({**facts, "shadows": json.loads(facts["shadows"])}),
    )
