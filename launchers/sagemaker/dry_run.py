"""What would be sent, what it would cost and what is wrong with it; nothing is written and nobody is asked."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from policylab.errors import RunDirectoryError
from policylab.files import read_lines
from policylab.findings import Finding, Severity
from policylab.launchers.sagemaker.connection import EMULATED
from policylab.launchers.sagemaker.dispatcher import REQUESTS
from policylab.launchers.sagemaker.ledger import FILE
from policylab.launchers.sagemaker.outgoing import Outgoing, source_bundle
from policylab.launchers.sagemaker.preflight import difference, preflight
from policylab.launchers.sagemaker.prices import PriceTable, estimate, price_table
from policylab.launchers.sagemaker.sender import RESUME, TRACKING, without_sender
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.training_rules import is_secret
from policylab.runspec import RunSpec

HIDDEN = "(hidden)"


def dry_run(settings: SageMakerSettings, specs: Sequence[RunSpec], *, out: Path) -> dict[str, Any]:
    """Return the requests that the runs ``specs`` would be sent as.

    Args:
        settings: of the launcher.
        specs: at least one.
        out: folder with the run directories of earlier experiments, where the last request is looked for.

    Returns:
        A JSON document: requests, added_when_sent (variables that name the run directory, which there is none of yet),
        last (path and difference of the first request, or None), price, errors, warnings, unchecked (why the structure
        was not checked, or None).
    """
    prices = price_table(Path(settings.price_table)) if settings.price_table else price_table()
    bundle = source_bundle(settings, specs[0])
    requests = [Outgoing.of(settings, spec, bundle=bundle).request for spec in specs]
    checks = [preflight(request, prices=prices, cap=settings.max_cost_usd) for request in requests]
    findings = [finding for check in checks for finding in check.findings]
    price = _price(requests, prices, out=out)
    if settings.max_cost_usd is not None and price["most"] > settings.max_cost_usd >= price["most_per_job"]:
        rule = f"the jobs may cost up to {price['most']:.2f}; when it is reached no further one is sent"
        findings.append(Finding("launcher.max_cost_usd", rule, settings.max_cost_usd, "raise it, or resume", "warning"))
    if settings.region not in (None, prices.region):
        rule = f"its prices are those of {prices.region}, and the jobs run in {settings.region}"
        remedy = "give a table of your own"
        findings.append(Finding("launcher.price_table", rule, settings.price_table, remedy, "warning"))
    return {
        "requests": [shown(request) for request in requests],
        "added_when_sent": [RESUME, TRACKING],
        "last": _last(requests[0], out=out),
        "price": price,
        "errors": _texts(findings, "error"),
        "warnings": _texts(findings, "warning"),
        "unchecked": checks[0].unchecked,
    }


def shown(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the request in which values that look like secrets are hidden."""
    copied = copy.deepcopy(dict(request))
    environment = copied.get("Environment", {})
    for name in filter(is_secret, environment):
        environment[name] = HIDDEN
    return copied


def _texts(findings: Iterable[Finding], severity: Severity) -> list[str]:
    """Return what was found, each finding once: the requests of an experiment break the same rules."""
    return list(dict.fromkeys(str(finding) for finding in findings if finding.severity == severity))


def _last(request: Mapping[str, Any], *, out: Path) -> dict[str, Any] | None:
    """Return where the last request of this experiment lies, if possible of the same run, and what differs."""
    own = _tags(request)
    found = []
    for path, sent in _sent(out):
        tags = _tags(sent)
        if tags.get("policylab:experiment") == own["policylab:experiment"]:
            same = tags.get("policylab:run") == own["policylab:run"]
            found.append((same, path.stat().st_mtime, path, sent))
    if not found:
        return None
    _, _, path, sent = max(found, key=lambda one: one[:2])
    return {"path": str(path), "difference": difference(shown(request), shown(without_sender(sent)))}


def _sent(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in out.glob(f"*/{REQUESTS}/*.json"):
        if _was_emulated(path.parents[1]):
            continue
        try:
            sent = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # of a file that is damaged nothing can be said
        if isinstance(sent, dict):
            yield path, sent


def _was_emulated(run_dir: Path) -> bool:
    """Whether the requests of a run directory were executed here instead of being sent."""
    return (run_dir / EMULATED).exists()


def _tags(request: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}


def _price(requests: Sequence[Mapping[str, Any]], prices: PriceTable, *, out: Path) -> dict[str, Any]:
    """Return what the jobs cost: at most, and by what such jobs were billed before."""
    each = estimate(requests[0], prices)
    billed = list(_billed_s(requests[0], out=out))
    expected = None if not billed else each.per_hour * sum(billed) / len(billed) / 3600
    return {
        "currency": prices.currency,
        "basis": each.basis,
        "per_hour": each.per_hour,
        "most_per_job": each.most,
        "most": each.most * len(requests),
        "expected_per_job": expected,
        "expected": None if expected is None else expected * len(requests),
        "n_billed_before": len(billed),
    }


def _billed_s(request: Mapping[str, Any], *, out: Path) -> Iterator[float]:
    """Yield the seconds that completed jobs of this experiment, to the same step, were billed for each machine."""
    own = _tags(request)
    for path in out.glob(f"*/{FILE}"):
        if _was_emulated(path.parent):
            continue
        try:
            lines = read_lines(path)
            sent = {line["job"]: line for line in lines if line["event"] == "sent"}
            ended = [line for line in lines if line["event"] == "ended" and line["status"] == "Completed"]
            alike = [
                line for line in ended if sent[line["job"]]["stop_at_steps"] == int(own["policylab:stop-at-steps"])
            ]
        except (RunDirectoryError, KeyError, TypeError):
            continue
        if path.parent.name.startswith(f"{own['policylab:experiment']}-"):
            yield from (float(line["billable_s"]) for line in alike if line["billable_s"] is not None)
