"""Search and listing as the service answers them: filters, order, pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_PAGE = 100


def matches(record: Mapping[str, Any], expression: Mapping[str, Any]) -> bool:
    """Return whether a job's record, with its Tags, satisfies a SearchExpression.

    >>> expression = {"Filters": [{"Name": "Tags.study", "Operator": "Equals", "Value": "a"}]}
    >>> matches({"Tags": [{"Key": "study", "Value": "a"}]}, expression)
    True
    """
    found = [_filter_holds(record, one) for one in expression.get("Filters", [])]
    found += [matches(record, one) for one in expression.get("SubExpressions", [])]
    return any(found) if expression.get("Operator") == "Or" else all(found)


def _filter_holds(record: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    value, wanted = _field(record, one["Name"]), str(one.get("Value", ""))
    operator = str(one.get("Operator", "Equals"))
    if operator in ("Exists", "NotExists"):
        return (value is not None) == (operator == "Exists")
    if operator == "NotEquals":
        return value != wanted
    if value is None:
        return False
    if operator == "In":
        return value in wanted.split(",")
    return wanted in value if operator == "Contains" else value == wanted


def _field(record: Mapping[str, Any], name: str) -> str | None:
    """Return a tag or a field by its dotted path, as text."""
    if name.startswith("Tags."):
        return next((tag["Value"] for tag in record["Tags"] if tag["Key"] == name.removeprefix("Tags.")), None)
    value: Any = record
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else str(value)


def page(found: Sequence[dict[str, Any]], query: Mapping[str, Any], *, key: str, sort_by: str) -> dict[str, Any]:
    """Return one page of results, the newest first unless SortOrder is Ascending; NextToken leads to the next."""
    field = {"Name": "TrainingJobName", "Status": "TrainingJobStatus"}.get(query.get("SortBy", ""), query.get("SortBy"))
    ordered = sorted(
        found,
        key=lambda one: str(one.get("TrainingJob", one).get(field or sort_by, "")),
        reverse=query.get("SortOrder", "Descending") == "Descending",
    )
    start, size = int(query.get("NextToken") or 0), query.get("MaxResults") or _PAGE
    answer: dict[str, Any] = {key: ordered[start : start + size]}
    if start + size < len(ordered):
        answer["NextToken"] = str(start + size)
    return answer
