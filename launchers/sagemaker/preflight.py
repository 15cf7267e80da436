"""Everything that is wrong with a training job, all at once, before it costs anything; nothing is written or sent."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policylab.aws.request_view import View
from policylab.aws.service_model import structure_findings
from policylab.errors import MissingExtraError
from policylab.findings import Finding, raise_errors
from policylab.launchers.sagemaker.prices import Estimate, PriceTable, estimate
from policylab.launchers.sagemaker.training_rules import rule_findings

OPERATION = "CreateTrainingJob"


@dataclasses.dataclass(frozen=True, slots=True)
class Preflight:
    """What the check of a request found.

    Attributes:
        findings: errors, which the service would refuse or which would fail the job, and warnings.
        cost: an estimate.
        unchecked: why the structure was not checked against the service model, or None if it was.
    """

    findings: tuple[Finding, ...]
    cost: Estimate
    unchecked: str | None = None

    @property
    def errors(self) -> list[Finding]:
        """What must be mended before the request is sent."""
        return [finding for finding in self.findings if finding.severity == "error"]


def preflight(request: Mapping[str, Any], *, prices: PriceTable | None = None, cap: float | None = None) -> Preflight:
    """Check and price a CreateTrainingJob ``request``; ``cap`` is what all jobs together may cost."""
    cost = estimate(request, prices)
    findings = [*rule_findings(View(request)), *price_findings(cost, cap=cap)]
    explained = {finding.path for finding in findings if finding.severity == "error"}
    try:
        structure = structure_findings(OPERATION, request)
    except MissingExtraError as error:
        return Preflight(tuple(findings), cost, unchecked=str(error))
    return Preflight((*findings, *(finding for finding in structure if finding.path not in explained)), cost)


def price_findings(cost: Estimate, *, cap: float | None) -> Iterator[Finding]:
    """Check that a job is priced, and within the ``cap`` by itself."""
    for name in cost.unpriced:
        rule = f"the price table ({cost.basis}) lacks it, so the estimate does too"
        if cap is None:
            yield Finding("ResourceConfig", rule, name, "add it to your price table", "warning")
        else:
            yield Finding("ResourceConfig", f"{rule} and max_cost_usd cannot hold", name, "add it to your price table")
    if cap is not None and cost.most > cap:
        remedy = "raise launcher.max_cost_usd or lower launcher.max_runtime_s"
        yield Finding("launcher.max_cost_usd", f"a job may cost up to {cost.most:.2f}", cap, remedy)


def require_valid(request: Mapping[str, Any]) -> Preflight:
    """Check a request and refuse one with errors.

    Raises:
        ConfigError: every error, one per line.
    """
    found = preflight(request)
    raise_errors(found.findings, about=OPERATION)
    return found


def difference(request: Mapping[str, Any], last: Mapping[str, Any]) -> list[str]:
    """Return what differs from the ``last`` request, as the lines of a unified diff without context.

    >>> difference({"A": 1, "B": 2}, {"A": 1, "B": 3})
    ['- "B": 3', '+ "B": 2']
    """
    before, after = (json.dumps(one, indent=1, sort_keys=True).splitlines() for one in (last, request))
    lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
    return [line for line in lines if not line.startswith("@@")]


def differing(requests: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Return in which fields all further requests differ from the first, and what only some of them have of their own.

    Members of a list are named as they name themselves. The second part has an entry for each further request: field ->
    value, None where it has no such field.

    >>> differing([{"A": 1, "B": 2}, {"A": 3, "B": 2}, {"A": 4, "B": 5}])
    (['A'], [{}, {'B': 5}])
    """
    first, *others = (dict(_fields(request)) for request in requests)
    changed = [
        {path: one.get(path) for path in {**first, **one} if path not in first or one.get(path) != first[path]}
        for one in others
    ]
    common = [path for path in (changed[0] if changed else ()) if all(path in one for one in changed)]
    return common, [{path: value for path, value in one.items() if path not in common} for one in changed]


def _fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _fields(part, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            names = part if isinstance(part, Mapping) else {}
            name = names.get("ChannelName", names.get("Key", names.get("Name", index)))
            yield from _fields(part, f"{path}[{name}]")
    else:
        yield path, value
