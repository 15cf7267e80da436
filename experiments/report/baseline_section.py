"""The section that sets what was learned beside the classical baselines and the optimum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policylab.experiments.report.data import Estimate, ReportData
from policylab.experiments.report.parts import block
from policylab.experiments.report.text import counted, escaped, interval, number, table

Line = tuple[str, str, str, str]
"""(what, value, interval, what it rests on)."""


def comparison(data: ReportData, figures: Mapping[str, str]) -> str:
    """One table of everything that has a value: what was learned, the default, the baselines, the optimum."""
    if not data.baselines:
        return ""
    rows = [*_learned(data), *_baselines(data)]
    if data.exact:
        rows.append(("optimum", number(data.exact.optimal_return), "exact", "the environment's table"))
    note = ""
    if data.score:
        confirmed = "" if data.score.confirmed is None else f"; an average fresh run scores {data.score.confirmed:.3f}"
        note = (
            f"<p class='note'>The packaged policy scores {data.score.policy:.3f}, where 0 is the best classical "
            f"baseline ({escaped(data.score.baseline)}) and 1 the optimum{escaped(confirmed)}.</p>"
        )
    return block("Beside the baselines", table(("policy", "value", "interval", "from"), rows), note)


def _learned(data: ReportData) -> Iterator[Line]:
    default = data.study.default_confirmed if data.study and not data.objective else None  # else no return
    for what, estimate, seeds in (
        ("selected", data.selected, "tuning seeds"),
        ("confirmed", data.confirmed, "confirmation seeds"),
        ("default, confirmed", default, "confirmation seeds"),
    ):
        if estimate is not None:
            value, brackets = interval(estimate)
            yield what, value, brackets, counted(estimate.n_seeds, seeds)


def _baselines(data: ReportData) -> Iterator[Line]:
    for found in data.baselines:
        if not found.n_episodes:
            yield f"baseline {found.name}", number(found.value), "exact", "the environment's table"
            continue
        value, brackets = interval(Estimate(found.value, found.low, found.high, found.n_episodes))
        yield f"baseline {found.name}", value, brackets, counted(found.n_episodes, "episodes")
