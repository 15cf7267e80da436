"""``policylab monitor quality``: what policies earn, with rewards that come late, against a baseline."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit

if TYPE_CHECKING:
    from policylab.monitoring.outcomes.constraints import MetricViolation
    from policylab.monitoring.outcomes.joined import OutcomeQuery
    from policylab.monitoring.outcomes.measures import Measured


def quality(arguments: argparse.Namespace) -> int:
    """Measure what policies earn; exit code 1 if it violates the constraints of a baseline."""
    from policylab.agents.bundle import load_bundle
    from policylab.config import Document, validate
    from policylab.files import write_atomic
    from policylab.monitoring.outcomes import constraints, report
    from policylab.monitoring.outcomes.joined import read_outcomes
    from policylab.monitoring.outcomes.measures import OutcomeSettings, measure

    given = {name: getattr(arguments, name) for name in ("level", "success_above", "discount")}
    settings = validate(OutcomeSettings, Document(given, {}, source="options"))
    bundle = load_bundle(Path(arguments.policy)) if arguments.policy else None
    limits, spreads = None, {}
    if arguments.baseline:
        limits = constraints.read_outcome_constraints(Path(arguments.baseline) / "constraints.json")
        spreads = constraints.read_spreads(Path(arguments.baseline) / "statistics.json")
    outcomes = read_outcomes(Path(arguments.data), bundle=bundle, query=_query(arguments))
    found = measure(outcomes, bundle=bundle, settings=settings)
    broken = () if limits is None else constraints.violations(found, limits, spreads=spreads)
    out, document = Path(arguments.out), report.as_document(found, broken)
    _write(out / "statistics.json", constraints.statistics_document(found))
    if limits is None:
        _write(out / "constraints.json", constraints.suggested(found).model_dump(mode="json"))
    else:
        _write(out / "constraint_violations.json", {"violations": document["violations"]})
    _write(out / "report.json", document)
    write_atomic(out / "report.html", report.html(found, broken))
    emit(arguments, {**document, "path": str(out)}, text=lambda: _text(found, broken, out=out))
    return 1 if broken else 0


def _query(arguments: argparse.Namespace) -> OutcomeQuery:
    from policylab.errors import UserError
    from policylab.monitoring.outcomes.joined import OutcomeQuery
    from policylab.monitoring.outcomes.period import period

    try:
        at = datetime.fromisoformat(arguments.at) if arguments.at else datetime.now(UTC)
    except ValueError:
        raise UserError(f"--at must be a time such as 2026-01-31T17:00:00Z, got {arguments.at[:40]!r}") from None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    asked = period(at, start_offset=arguments.start_offset, end_offset=arguments.end_offset)
    return OutcomeQuery(arguments.endpoint, arguments.variant, asked, arguments.missing_reward)


def _text(found: Measured, broken: tuple[MetricViolation, ...], *, out: Path) -> str:
    from policylab.monitoring.outcomes.report import HEAD, cells, status

    lines = [columns([list(HEAD), *(cells(metric) for metric in found.metrics.values())])] if found.metrics else []
    lines += [f"left out: {n:,} {reason}" for reason, n in found.left_out.items()]
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"violation: {violation.description}" for violation in broken]
    decisions = f"{found.n_decisions:,} decisions in {found.n_episodes:,} episodes"
    return "\n".join([*lines, f"{status(found, broken)}: {decisions}; report in {out}"])


def _write(path: Path, document: Any) -> None:
    from policylab.files import write_atomic

    write_atomic(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
