"""Numbers, intervals and tables as escaped HTML text."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from policylab.experiments.report.data import Estimate

NOTHING = "–"


def escaped(value: object) -> str:
    """Return ``value`` as text that no browser reads as markup."""
    return html.escape(str(value), quote=True)


def sentence(text: str) -> str:
    """Return ``text`` with a capital first letter.

    >>> sentence("mean of 10 seeds")
    'Mean of 10 seeds'
    """
    return text[:1].upper() + text[1:]


def number(value: float | None, *, decimals: int | None = None) -> str:
    """Return a number for readers: a true minus sign, thousands separated, four significant digits by default.

    >>> number(-13.0), number(4_000_000), number(0.7442831), number(float("nan"))
    ('−13', '4,000,000', '0.7443', '–')
    """
    if value is None or not math.isfinite(value):
        return NOTHING
    if decimals is not None:
        text = f"{value:,.{decimals}f}"
    elif float(value).is_integer() and abs(value) < 1e15:
        text = f"{value:,.0f}"
    else:
        text = f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return text.replace("-", "−")


def counted(count: int, plural: str) -> str:
    """Return a count with its noun.

    >>> counted(1, "tuning seeds"), counted(2000, "trials")
    ('1 tuning seed', '2,000 trials')
    """
    return f"{number(count)} {plural.removesuffix('s') if count == 1 else plural}"


def interval(estimate: Estimate) -> tuple[str, str]:
    """Return the value and its interval, rounded to two significant digits of the interval's width.

    >>> interval(Estimate(value=0.74428, low=0.7391, high=0.7494, n_seeds=10))
    ('0.744', '[0.739, 0.749]')
    """
    width = estimate.high - estimate.low
    if not math.isfinite(width):
        return number(estimate.value), "no interval"
    decimals = min(6, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else None
    value, low, high = (number(part, decimals=decimals) for part in (estimate.value, estimate.low, estimate.high))
    return value, f"[{low}, {high}]"


def verdict(low: float | None, high: float | None) -> str:
    """Return what the interval of its improvement says of the winner and the default.

    >>> verdict(0.02, 0.3), verdict(-0.1, 0.3)
    ('better than the default', 'indistinguishable from the default')
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "too few seeds to tell it from the default"
    if low > 0:
        return "better than the default"
    return "worse than the default" if high < 0 else "indistinguishable from the default"


def chance_text(chance: float) -> str:
    """Return a probability of being better, never as certain.

    >>> chance_text(0.5), chance_text(0.9812), chance_text(0.99999), chance_text(0.0)
    ('50 %', '98.1 %', '> 99.9 %', '< 0.1 %')
    """
    if chance > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if chance < 0.001 else f"{100 * chance:.3g} %"


def duration(seconds: float) -> str:
    """Return seconds as people say them.

    >>> duration(2.34), duration(200), duration(7300)
    ('2.3 s', '3 min 20 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_min = divmod(minutes, 60)
    return f"{hours} h {rest_min} min" if hours else f"{minutes} min {rest_s} s"


def minute(time_utc: str) -> str:
    """Return an ISO 8601 time of the zone UTC to the minute.

    >>> minute("2026-11-23T02:20:41+00:00")
    '2026-11-23 02:20 UTC'
    """
    return f"{time_utc[:16].replace('T', ' ')} UTC" if time_utc else ""


def flattened(config: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, value as JSON) of every leaf of a nested configuration.

    >>> dict(flattened({"agent": {"kind": "sarsa", "discount": 0.99}, "seeds": [1, 2]}))
    {'agent.kind': 'sarsa', 'agent.discount': '0.99', 'seeds': '[1, 2]'}
    """
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flattened(value, prefix=f"{path}.")
        else:
            yield path, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """Return a two-column table of names and values."""
    body = "".join(f"<tr><th scope='row'>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in rows)
    return f"<div class='scroll'><table class='pairs'>{body}</table></div>" if body else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a header row."""
    top = "".join(f"<th scope='col'>{escaped(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
