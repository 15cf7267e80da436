"""The structure of requests to SageMaker and its neighbours, read from the service model that comes with botocore.

botocore's own validator checks types, required and unknown fields and minima only: a wrong enumeration value, a sixth
parent or a name that is too long pass it. This walk checks those as well and says where.
"""

from __future__ import annotations

import datetime
import functools
import math
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from policylab.aws.request_view import View
from policylab.errors import did_you_mean
from policylab.extras import require
from policylab.findings import Finding

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "list": (list, tuple),
    "map": (Mapping,),
    "structure": (Mapping,),
    "timestamp": (str, int, float, datetime.datetime),
    "blob": (str, bytes, bytearray),
}
_MANY = 12
"""Enumerations longer than this are not listed in a message."""


def structure_findings(operation: str, request: Mapping[str, Any], *, service: str = "sagemaker") -> list[Finding]:
    """Check ``request`` against the input shape of an ``operation`` of a service, by botocore's name for it.

    Raises:
        MissingExtraError: botocore is not installed.
    """
    botocore_session = require("botocore.session", extra="sagemaker")
    return list(_walk(_input_shape(botocore_session, service=service, operation=operation), View(request)))


@functools.cache
def _input_shape(botocore_session: ModuleType, *, service: str, operation: str) -> Any:
    model = botocore_session.get_session().get_service_model(service)
    return model.operation_model(operation).input_shape


def _walk(shape: Any, view: View) -> Iterator[Finding]:
    wrong = _type_finding(shape, view)
    if wrong is not None:
        yield wrong
        return
    yield from _metadata_findings(shape, view)
    if shape.type_name == "structure":
        yield from _structure_findings(shape, view)
    elif shape.type_name == "list":
        for member in view.items():
            yield from _walk(shape.member, member)
    elif shape.type_name == "map":
        for key, member in view.entries():
            yield from _walk(shape.key, View(key, f"{member.path} (key)"))
            yield from _walk(shape.value, member)


def _type_finding(shape: Any, view: View) -> Finding | None:
    value, allowed = view.value, _TYPES.get(shape.type_name, (object,))
    is_bool_for_number = isinstance(value, bool) and bool not in allowed and shape.type_name != "structure"
    if isinstance(value, allowed) and not is_bool_for_number:
        if isinstance(value, float) and not math.isfinite(value):
            return view.found("must be a finite number", "give a number")
        return None
    if shape.type_name == "string" and isinstance(value, int | float):
        return view.found("must be a string", f"write {str(value)!r}")
    return view.found(f"must be a {shape.type_name}, not {type(value).__name__}", "see the API reference")


def _structure_findings(shape: Any, view: View) -> Iterator[Finding]:
    for name in shape.required_members:
        if name not in view.value:
            yield view[name].found("required, but missing", "add it")
    for name in view.value:
        if name not in shape.members:
            hint = did_you_mean(str(name), shape.members).removeprefix("; ") or "remove it"
            yield Finding(f"{view.path}.{name}".lstrip("."), "unknown field", view.value[name], hint)
            continue
        if not shape.members[name].metadata.get("idempotencyToken"):
            yield from _walk(shape.members[name], view[name])


def _metadata_findings(shape: Any, view: View) -> Iterator[Finding]:
    rules, value = shape.metadata, view.value
    extent = value if isinstance(value, int | float) else view.size
    unit = "" if isinstance(value, int | float) else " characters" if isinstance(value, str) else " entries"
    if "min" in rules and extent < rules["min"]:
        yield view.found(f"at least {rules['min']}{unit}", "raise or extend it")
    if "max" in rules and extent > rules["max"]:
        yield view.found(f"at most {rules['max']}{unit}", "lower or shorten it")
    if "enum" in rules and value not in rules["enum"]:
        known = rules["enum"] if len(rules["enum"]) <= _MANY else ()
        hint = did_you_mean(value, rules["enum"]).removeprefix("; ") or "see the API reference"
        listed = f": {', '.join(known)}" if known else f" of {len(rules['enum'])}"
        yield view.found(f"must be a known value{listed}", hint)
    pattern = _compiled(rules.get("pattern"))
    if pattern is not None and isinstance(value, str) and not pattern.fullmatch(value):
        yield view.found(f"must match {rules['pattern']}", "use the allowed characters only")


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    """Return the pattern, or None for one in a dialect that Python lacks (Unicode classes)."""
    try:
        return re.compile(pattern) if pattern else None
    except re.error:
        return None
