"""``policylab transform``: decisions for whole files of observations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policylab.deployment.batch_transform import Transformed


def add_transform(added: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab transform``."""
    added.add_argument("source", metavar="BUNDLE|ENDPOINT",
                       help="a policy bundle, a run directory that holds one, or an endpoint file (YAML)")  # fmt: skip
    added.add_argument("files", nargs="+", metavar="FILE", help="observations: .jsonl, .csv or .npy")
    added.add_argument("--out", default="transformed", metavar="DIR",
                       help="folder that receives FILE.out (default: transformed)")  # fmt: skip
    added.add_argument("--variant", metavar="NAME", help="who decides (default: the first variant of the endpoint)")
    added.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
        help="override one setting of the endpoint, such as limits.batch=64; repeatable",
    )  # fmt: skip


def transform(arguments: argparse.Namespace) -> int:
    """Transform files; exit code 1 if one of them got no output."""
    from policylab.cli.endpoint import required_modules, source_config
    from policylab.cli.output import emit

    required_modules()
    from policylab.deployment.batch_transform import BatchTransform

    config = source_config(Path(arguments.source), overrides=arguments.overrides)
    with BatchTransform(config, variant=arguments.variant) as batch:
        found = batch.run([Path(name) for name in arguments.files], Path(arguments.out))
    document = {"files": [_document(one) for one in found]}
    emit(arguments, document, text=lambda: "\n".join(_line(one) for one in found))
    return 1 if any(one.error for one in found) else 0


def _document(one: Transformed) -> dict[str, object]:
    output = None if one.output is None else str(one.output)
    return {"source": str(one.source), "output": output, "records": one.n_records, "error": one.error}


def _line(one: Transformed) -> str:
    return f"{one.output}: {one.n_records:,} decisions" if one.error is None else f"no output: {one.error}"
