"""What ``policylab study show`` prints for a person: where a study stands, its leaders, and what failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policylab.cli.output import MAX_REASONS, bests_rows, columns, configuration_text, reason_text
from policylab.errors import plain


def show_text(document: Mapping[str, Any], *, top: int) -> str:
    """Return the state of a study as lines for a person; the table has ``top`` rows, all of them for 0."""
    budget, leaders = document["budget"], document["leaders"]
    spent, full = budget["spent_steps"], budget["full_training_steps"]
    limit = f" of {budget['limits']['steps']:,}" if budget["limits"].get("steps") else ""
    rows = [
        *_status(document),
        ["tried", f"{counted(document['trials'], 'configuration')} in {counted(document['runs'], 'run')}, "
                  f"{document['failed_runs']} failed, {document['retries']} tried again"],
        ["spent", f"{spent:,}{limit} steps = {spent / full:.1f} full trainings"],
        ["saved", f"{budget['saved_by_resuming_steps']:,} steps by resuming, "
                  f"{budget['saved_by_stopping_steps']:,} by stopping"],
        *_verdict(document),
        *schedule_rows(document["schedule"]),
        *bests_rows(document),
    ]  # fmt: skip
    shown = leaders[: top or None]
    keys = [key for key in _HEADINGS if key != "parent" or any(row["parent"] for row in leaders)]
    table = [[_HEADINGS[key] for key in keys], *([_cell(row, key) for key in keys] for row in shown)]
    more = [f"... {len(leaders) - len(shown)} more: --top 0"] if len(shown) < len(leaders) else []
    told = [*more, *_failures(document["failures"]), *_retried(document["retried"])]
    head = f"{document['name']}: {document['metric']}, {document['mode']}"
    return "\n".join([head, columns(rows), "", columns(table), *told])


def _status(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows that say how a study stands; one that failed tells why before it tells why its search ended."""
    if not document["error"]:
        yield ["study", f"{document['status']}; {document['reason'] or 'not over yet'}"]
        return
    first, *others = document["error"].splitlines()
    yield ["study", f"{document['status']}: {first}"]
    yield from (["", line] for line in others)
    if document["reason"]:
        yield ["search", f"over; {document['reason']}"]


def _failures(failures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines about what failed, with the traceback of the first run of each kind."""
    for one in failures[:MAX_REASONS]:
        yield f"\nfailed: {plain(reason_text(one))}"
        if one["traceback"]:
            yield from (f"    {plain(line)}" for line in one["traceback"].rstrip().splitlines())
    if len(failures) > MAX_REASONS:
        yield f"\n... {len(failures) - MAX_REASONS} other failures: --json"


def _retried(reasons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines about attempts that were followed by another; their tracebacks are in the document."""
    for number, one in enumerate(reasons[:MAX_REASONS]):
        begin = "" if number else "\n"
        yield f"{begin}tried again: {plain(reason_text(one, noun='attempt'))}"
    if len(reasons) > MAX_REASONS:
        yield f"... {len(reasons) - MAX_REASONS} other reasons: --json"


def schedule_rows(schedule: Sequence[Mapping[str, Any]] | None) -> list[list[str]]:
    """Return one row per stage of a winner that was trained with one configuration after the other."""
    return [
        ["schedule", f"to {stage['until_steps']:,}: {configuration_text(stage['configuration'])}"]
        for stage in schedule or ()
    ]


_HEADINGS = {
    "rank": "rank",
    "trial": "trial",
    "parent": "from",
    "value": "value",
    "n_seeds": "seeds",
    "resource": "steps",
    "configuration": "configuration",
    "state": "state",
}


def _cell(row: Mapping[str, Any], key: str) -> str:
    if key == "value":
        return "-" if row["value"] is None else f"{row['value']:.4g}{_ends(row['ci'])}"
    if key == "parent":
        return "" if row["parent"] is None else f"{row['parent']['trial']} at {row['parent']['steps']:,}"
    if key == "configuration":
        return configuration_text(row[key])
    if key == "state":
        return f"{row['state']}: {row['reason']}" if row["reason"] else str(row["state"])
    return f"{row[key]:,}" if key == "resource" else str(row[key])


def _ends(ci: Sequence[float] | None) -> str:
    return f" [{ci[0]:.4g}, {ci[1]:.4g}]" if ci else ""


def _verdict(document: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows about selection and confirmation."""
    rows, best = [], document["best"]
    if document["selected"]:
        rows.append(["selected", f"trial {best} at {estimate_text(document['selected'])}"])
    elif best is not None:
        rows.append(["leading", f"trial {best}"])
    if document["confirmed"]:
        rows.append(
            ["confirmed", f"{estimate_text(document['confirmed'])}; optimism gap {document['optimism_gap']:.4g}"]
        )
        default, gain = document["default_confirmed"], document["improvement"]
        # A result that was written before there was such a comparison has none.
        better = f"; the winner is better by {gain['value']:.4g}{_ends(gain['ci'])} seed by seed" if gain else ""
        rows.append(
            ["default", f"{estimate_text(default)}{better if document['default'] != best else '; it is the winner'}"]
        )
    elif document["confirmation"]:
        told = "{runs} of {planned} runs".format(**document["confirmation"])
        failed = document["confirmation"]["failed"]
        rows.append(["confirmation", f"{told}, {failed} failed" if failed else told])
    return rows


def estimate_text(interval: Mapping[str, Any]) -> str:
    """Return a value with its interval, and of how many seeds it is.

    >>> estimate_text({"value": 7.84, "ci": [7.2, 8.5], "n_seeds": 10})
    '7.84 [7.2, 8.5] on 10 seeds'
    """
    return f"{interval['value']:.5g}{_ends(interval['ci'])} on {counted(interval['n_seeds'], 'seed')}"


def counted(n: int, noun: str) -> str:
    """Return a count with its noun.

    >>> counted(1, "seed"), counted(1200, "run")
    ('1 seed', '1,200 runs')
    """
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
