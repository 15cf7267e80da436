"""Recorded transitions: the format of a Parquet file of decisions, and how one is read.

One file holds what one policy did in one environment: a row per step, compressed with zstd, readable by any Parquet
tool. Its footer (key ``policylab``) is JSON: schema version, environment, spaces, policy, seed, how it acted.

| column | type | |
|---|---|---|
| episode_id | int64 | counts from 0 |
| t | int32 | step in the episode, from 0 |
| obs, next_obs | int64, or a list of fixed size | a Discrete observation as it is, any other flattened by Gymnasium |
| action | int64, or a list of fixed size | as the environment was given it |
| reward | float64 | |
| terminated, truncated | bool | |
| propensity, log_propensity | float64 | probability (Box: density) the policy drew the action with; null for a \
deterministic one of a Box, which has no density |
| policy_id, env_id, spec_hash | string | digest of the policy's bundle, the environment, hash of its experiment |
| seed | int64 | of the recording |
| timestamp | timestamp, UTC | when the action was taken |
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from policylab.errors import UserError
from policylab.extras import require

SCHEMA_VERSION = 1
FOOTER = b"policylab"
LEARNED_FROM = ("episode_id", "t", "obs", "action", "reward", "next_obs", "terminated", "truncated")
"""Columns that learning needs; the others are for off-policy evaluation and audits."""


def arrow() -> Any:
    """Return pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("pyarrow", extra="offline")


def arrow_schema(observation_space: Space[Any], action_space: Space[Any]) -> Any:
    """Return the columns of a file for these spaces.

    Raises:
        UserError: observations cannot be flattened, or actions are neither numbers nor a list of numbers.
    """
    pa = arrow()
    seen, done = column_type(observation_space, what="observations"), column_type(action_space, what="actions")
    types = {
        "episode_id": pa.int64(),
        "t": pa.int32(),
        "obs": seen,
        "action": done,
        "reward": pa.float64(),
        "next_obs": seen,
        "terminated": pa.bool_(),
        "truncated": pa.bool_(),
        "propensity": pa.float64(),
        "log_propensity": pa.float64(),
        "policy_id": pa.string(),
        "env_id": pa.string(),
        "spec_hash": pa.string(),
        "seed": pa.int64(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
    return pa.schema(list(types.items()))


def column_type(space: Space[Any], *, what: str) -> Any:
    """Return the arrow type of one value of ``space``."""
    pa = arrow()
    if isinstance(space, spaces.Discrete):
        return pa.int64()
    flat = spaces.flatten_space(space) if space.is_np_flattenable and what == "observations" else space
    if isinstance(flat, spaces.MultiDiscrete) and flat.nvec.ndim == 1:
        return pa.list_(pa.int64(), len(flat.nvec))
    if isinstance(flat, spaces.Box) and len(flat.shape) == 1:
        return pa.list_(pa.from_numpy_dtype(flat.dtype), flat.shape[0])
    raise UserError(f"{what} of the space {str(space)[:80]} cannot be recorded as columns of fixed size")


def stored(space: Space[Any], value: Any) -> Any:
    """Return one observation as a column holds it: a number, or an array of one dimension."""
    return int(value) if isinstance(space, spaces.Discrete) else spaces.flatten(space, value)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Transitions:
    """A file's transitions, in its order; N of them.

    Attributes:
        columns: `LEARNED_FROM` and what else was asked for, each of shape (N,) or (N, size).
        footer: the file's own description; empty for a file of another program.
        digest: sha256 of the file.
    """

    columns: Mapping[str, NDArray[Any]]
    footer: Mapping[str, Any]
    digest: str

    def __len__(self) -> int:
        return len(self.columns["t"])


def read_transitions(path: Path, *, also: tuple[str, ...] = ()) -> Transitions:
    """Return the transitions in a Parquet file, all of them in memory, with further columns of numbers if asked for.

    Raises:
        UserError: it is missing, damaged, empty, or lacks a column; the message names it.
        MissingExtraError: pyarrow is not installed.
    """
    pa, parquet = arrow(), require("pyarrow.parquet", extra="offline")
    wanted = [*LEARNED_FROM, *also]
    try:
        content = Path(path).read_bytes()
        file = parquet.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        present = set(file.schema_arrow.names)
        if missing := [name for name in wanted if name not in present]:
            raise UserError(
                f"{path} has no column {', '.join(repr(name) for name in missing)}; record it with `policylab record`, "
                "or name its columns so"
            )
        table = file.read(columns=wanted)
        footer = json.loads((file.schema_arrow.metadata or {}).get(FOOTER, b"{}"))
    except OSError as error:  # arrow's own errors of damaged files are of this kind too
        reason = error.strerror or " ".join(str(error).split())[:120]
        raise UserError(f"{path} cannot be read as Parquet ({reason}); record it again") from error
    except (pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path} is damaged or no Parquet file ({reason}); record it again") from error
    if not table.num_rows:
        raise UserError(f"{path} holds no transitions; record some episodes")
    columns = {name: _numbers(table.column(name).combine_chunks(), name=name, path=path) for name in wanted}
    return Transitions(columns, footer, hashlib.sha256(content).hexdigest())


def _numbers(column: Any, *, name: str, path: Path) -> NDArray[Any]:
    """Return a column as an array of numbers, (N,) or (N, size)."""
    pa = arrow()
    size = 0
    if column.null_count == 0 and pa.types.is_fixed_size_list(column.type):
        size, column = column.type.list_size, column.flatten()
    found: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if column.null_count or found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise UserError(
            f"{path}: column {name!r} must hold finite numbers or lists of a fixed size of them, got {column.type}"
            f"{' with nulls' if column.null_count else ''}; record it again"
        )
    return found.reshape(-1, size) if size else found
