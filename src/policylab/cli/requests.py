"""``policylab run CONFIG --launcher sagemaker --dry-run``: the literal requests, their price and their errors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import emit

if TYPE_CHECKING:
    from policylab.experiments.schema import ExperimentConfig


def dry_run(arguments: argparse.Namespace, config: ExperimentConfig) -> int:
    """Print what would be sent; exit code 2 if it would be refused."""
    from policylab.errors import UserError
    from policylab.launchers.sagemaker.dry_run import dry_run as rehearse
    from policylab.launchers.sagemaker.settings import SageMakerSettings

    if not isinstance(config.launcher, SageMakerSettings):
        raise UserError(
            f"--dry-run shows requests, and launcher '{config.launcher.kind}' sends none; add --launcher sagemaker, or "
            "check the experiment with `policylab plan`"
        )
    specs = config.specs() if config.search is None else [config.spec("tune", 0)]
    document: dict[str, Any] = {"name": config.name, "is_search": config.search is not None}
    document |= rehearse(config.launcher, specs, out=Path(arguments.out))
    emit(arguments, document, text=lambda: _text(document))
    lines = [f"{kind}: {text}" for kind in ("error", "warning") for text in document[f"{kind}s"]]
    if document["unchecked"]:
        lines.append(f"warning: not checked against the service model: {document['unchecked']}")
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    return 2 if document["errors"] else 0


def _text(document: dict[str, Any]) -> str:
    parts = [json.dumps(document["requests"][0], indent=1), *_further(document["requests"])]
    names = " and ".join(document["added_when_sent"])
    parts.append(f"when they are sent, {names} join the environment, for they name the run directory")
    if document["last"] is None:
        parts.append("no request of this experiment was sent from here before")
    elif not document["last"]["difference"]:
        parts.append(f"nothing differs from the last one sent, {document['last']['path']}")
    else:
        head = f"differs from the last one sent, {document['last']['path']}, in"
        parts.append(_indented(head, document["last"]["difference"]))
    return "\n".join([*parts, _price_text(document)])


def _further(requests: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is told of all requests but the first: where all differ from it, once, and what each has besides."""
    from policylab.launchers.sagemaker.preflight import differing

    if len(requests) == 1:
        return []
    common, own = differing(requests)
    lines = []
    for request, fields in zip(requests[1:], own, strict=True):
        name = request["TrainingJobName"]
        besides = ", ".join(f"{path} = {json.dumps(value)}" for path, value in fields.items())
        lines.append(f"{name}, besides: {besides}" if besides else name)
    jobs = "1 further job, which differs" if len(lines) == 1 else f"{len(lines)} further jobs, which differ"
    return [_indented(f"and {jobs} in {', '.join(common)} (whole with --json)", lines)]


def _indented(head: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{head}:", *(f"  {line}" for line in lines)])


def _price_text(document: dict[str, Any]) -> str:
    price, n_jobs = document["price"], len(document["requests"])
    each = f"price: at most {price['most_per_job']:.2f} for each job"
    if document["is_search"]:
        total = ", as many jobs as the search makes (launcher.max_cost_usd limits them)"
    else:
        total = f", {price['most']:.2f} for {n_jobs} jobs"
    if price["expected"] is None:
        before = "no such job has ended before"
    else:
        before = f"such jobs were billed {price['expected_per_job']:.2f} before ({price['n_billed_before']} of them)"
    return f"{each}{total}; {before}; {price['basis']}"
