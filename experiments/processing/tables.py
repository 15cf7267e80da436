"""Tables of a data set as plain columns: read from CSV, JSON lines or Parquet, written as Parquet."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from policylab.errors import StorageError, UserError
from policylab.extras import require
from policylab.files import storage_errors

Columns = dict[str, list[Any]]
"""Name -> values, None where one is missing; all of the same length."""

READERS = {".csv": "pyarrow.csv:read_csv", ".jsonl": "pyarrow.json:read_json", ".parquet": "pyarrow.parquet:read_table"}


def read_table(path: Path) -> Columns:
    """Return the table in a file; empty fields of a CSV file are missing values, also in columns of texts.

    Raises:
        UserError: there is no such file, or it is no table.
        MissingExtraError: pyarrow is not installed.
    """
    if path.suffix not in READERS:
        raise UserError(f"{path}: a table ends in {', '.join(READERS)}")
    module, _, function = READERS[path.suffix].partition(":")
    reader = getattr(require(module, extra="offline"), function)
    options = {}
    if path.suffix == ".csv":
        csv = importlib.import_module("pyarrow.csv")
        options["convert_options"] = csv.ConvertOptions(strings_can_be_null=True)
    invalid = require("pyarrow", extra="offline").ArrowInvalid
    try:
        table = reader(path, **options)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (invalid, OSError) as error:
        raise UserError(f"{path}: not a table: {str(error).splitlines()[0]}") from None
    found: Columns = table.to_pydict()
    if len(found) < table.num_columns:
        raise UserError(f"{path}: two columns have the same name; rename one")
    return found


def write_table(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns as a Parquet file, which appears when it is complete.

    Raises:
        StorageError: the write failed.
    """
    pyarrow = require("pyarrow", extra="offline")
    parquet = require("pyarrow.parquet", extra="offline")
    fresh = path.with_name(f".{path.name}.writing")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            parquet.write_table(pyarrow.table(dict(columns)), fresh)
            fresh.replace(path)
        except pyarrow.ArrowException as error:
            raise StorageError(f"{path}: the table cannot be written: {error}") from None
        finally:
            fresh.unlink(missing_ok=True)
