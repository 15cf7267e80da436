"""The sections of a report that only a search has; each is ``""`` without one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from policylab.experiments.report.data import Estimate, ReportData
from policylab.experiments.report.parts import block, card, estimate_card, figure
from policylab.experiments.report.study_data import Improvement, StudyData, Tried
from policylab.experiments.report.study_style import MAX_DRAWN, steps
from policylab.experiments.report.text import (
    NOTHING,
    chance_text,
    counted,
    escaped,
    interval,
    number,
    sentence,
    table,
    verdict,
)

N_LEADERS = 10
MAX_REASONS = 3
MAX_COLUMNS = 5
"""More parameters than this share one column of a table."""


def search_cards(data: ReportData, figures: Mapping[str, str]) -> str:
    """The headline numbers of the search."""
    study = data.study
    if study is None:
        return ""
    cards = [
        _gap_card(study),
        _beats_card(study),
        estimate_card("Default confirmed at", study.default_confirmed, seeds="confirmation", css=""),
        _budget_card(study),
    ]
    return f"<section class='cards'>{''.join(cards)}</section><p class='note'>{escaped(_course(study))}</p>"


def _gap_card(study: StudyData) -> str:
    gap = study.optimism_gap
    if gap is None:
        return card("Optimism gap", NOTHING, note="no confirmation seeds")
    value, brackets = interval(gap)
    return card("Optimism gap", value, note=f"{brackets} · by how much selected is better than confirmed")


def _beats_card(study: StudyData) -> str:
    title, gain = "Better than the default by", study.improvement
    if study.default == study.winner:
        return card(title, NOTHING, note="the default itself was selected: nothing better was found")
    if gain is None:
        return card(title, NOTHING, note="no confirmation seeds")
    return card(title, number(gain.value), note=_gains(gain, study.beats_default))


def _gains(gain: Improvement, beats: Estimate | None) -> str:
    """Return the interval of the improvement, what it means, and how often one run beats another."""
    words = [] if math.isnan(gain.low) else [f"[{number(gain.low)}, {number(gain.high)}] seed by seed"]
    chance = "" if gain.chance is None else f", probability {chance_text(gain.chance)}"
    words.append(f"{verdict(gain.low, gain.high)}{chance}")
    if beats is not None:
        words.append(f"{100 * beats.value:.0f} % run against run")
    return " · ".join(words)


def _budget_card(study: StudyData) -> str:
    saved = study.saved_by_resuming + study.saved_by_stopping
    note = f"{number(study.spent)} environment steps" + ("" if study.failed else ", every configuration in full")
    if saved:
        share = 100 * saved / (study.spent + saved)
        parts = f"{steps(study.saved_by_stopping)} by stopping, {steps(study.saved_by_resuming)} by resuming"
        note = f"{number(study.spent)} environment steps; {share:.0f} % saved: {parts}"
    return card("Search budget", steps(study.spent), note=note)


def _course(study: StudyData) -> str:
    n_runs = sum(len(trial.runs) for trial in study.trials)
    failed = sum(n for _, n in study.failed)
    tried = f"{counted(len(study.trials), 'configurations')} in {counted(n_runs, 'runs')}"
    if failed:
        tried += f", {number(failed)} of them failed"
    text = f"{sentence(study.method)}: {tried}. End of the search: {study.reason}."
    if study.failed:
        text += f" Runs that failed, by their reasons: {_reasons(study.failed)}."
    if study.retried:
        text += f" Attempts that failed and were tried again, by their reasons: {_reasons(study.retried)}."
    if study.default_confirmed is not None:
        text += (
            " The winner and the default were then trained in full on the same fresh seeds; "
            "the optimism gap is what selection made look better than it is."
        )
    return text


def _reasons(found: Sequence[tuple[str, int]]) -> str:
    told = "; ".join(f"{reason} ({number(n)})" for reason, n in found[:MAX_REASONS])
    return told + (f"; and {number(len(found) - MAX_REASONS)} more" if len(found) > MAX_REASONS else "")


def best_configuration(data: ReportData, figures: Mapping[str, str]) -> str:
    """The selected configuration beside the default."""
    study = data.study
    if study is None:
        return ""
    if study.schedule:
        return _best_schedule(study)
    best, default = study.best.configuration, study.default_configuration
    rows = []
    for axis in study.axes:
        searched = ", ".join(axis.categories) if axis.categories else f"{number(axis.low)} to {number(axis.high)}"
        scale = f", {axis.scale.replace('_', ' ')}" if axis.scale not in ("linear", "categorical") else ""
        rows.append((axis.path, _shown(best, axis.path), _shown(default, axis.path), searched + scale))
    return block("Best configuration", table(("parameter", f"trial {study.winner}", "default", "searched"), rows))


def _best_schedule(study: StudyData) -> str:
    """Return the stages of the selected trial beside the default."""
    head = ("parameter", *(f"to {number(until)}" for until, _ in study.schedule), "default")
    rows = [
        (
            axis.path,
            *(_shown(configuration, axis.path) for _, configuration in study.schedule),
            _shown(study.default_configuration, axis.path),
        )
        for axis in study.axes
    ]
    note = (
        f"Trial {study.winner} was trained with one configuration after the other: each column holds until its step. "
        "Its last configuration alone gives another result. Confirmation trains through the whole schedule from the "
        "start, on fresh seeds."
    )
    shown = f"<div class='wide'>{table(head, rows)}</div><p class='note'>{escaped(note)}</p>"
    return block("Best schedule", shown)


def warm_start(data: ReportData, figures: Mapping[str, str]) -> str:
    """What this study found beside the best of its parents."""
    study = data.study
    if study is None or not study.bests:
        return ""
    head = ("study", "best value", "seeds", *(axis.path for axis in study.axes))
    rows = [
        (
            best["study"] or "this one",
            number(best["value"]),
            number(best["n_seeds"]),
            *(_shown(best["configuration"], axis.path) for axis in study.axes),
        )
        for best in study.bests
    ]
    note = (
        "Same data and algorithm: the best of all is first."
        if study.comparable
        else "Other data or settings: each value holds for its own study only."
    )
    return block("Warm start", f"<div class='wide'>{table(head, rows)}</div><p class='note'>{escaped(note)}</p>")


def _shown(configuration: Mapping[str, Any], path: str) -> str:
    """Return the value of a parameter for readers, NOTHING where it does not exist."""
    if path not in configuration:
        return NOTHING
    value = configuration[path]
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value)


def course(data: ReportData, figures: Mapping[str, str]) -> str:
    """How the search went."""
    study = data.study
    if study is None:
        return ""
    history = (
        "Mean over the seeds of each configuration when its last piece of training had ended; small dots are its "
        "seeds, pale dots where it stood before. The line is the configuration that would have been selected then: it "
        "can fall when more training or more seeds correct a lucky result. Values off the scale are drawn at its edge."
    )
    lanes = (
        "Each configuration is a line through the levels it reached, as wide as the seeds that went there, "
        "coloured by its value."
    )
    if len({trial.entered for trial in study.trials}) > 1:
        lanes += " A dotted line parts brackets, whose configurations entered at different levels."
    if any(trial.parent is not None for trial in study.trials):
        lanes += " An upright line leads from a run to the copy that goes on from its checkpoint with changed values."
    if len(study.trials) > MAX_DRAWN:
        lanes += f" The {MAX_DRAWN} strongest of {number(len(study.trials))} are shown."
    return block("Search", figure(figures.get("search_history"), history), figure(figures.get("search_rungs"), lanes))


def parameters(data: ReportData, figures: Mapping[str, str]) -> str:
    """What the parameters did to the value."""
    study = data.study
    if study is None:
        return ""
    lines = "Each configuration is a line to its value on the right; a line ends where a parameter does not exist."
    slices = "Value against each parameter. Configurations that were not trained in full show where they stopped."
    if found := study.importances:
        caption = (
            f"Share of the variance of the values that each parameter explains (fANOVA), over {found.n_trials} "
            f"configurations at {number(found.resource)} steps."
        )
        warned = (f" {sentence(one)}." for one in found.warnings)
        shares = figure(figures.get("search_importances"), caption + "".join(warned))
    else:
        shares = f"<p class='note'>{escaped(study.no_importances)}</p>" if study.no_importances else ""
    return block(
        "Parameters",
        figure(figures.get("search_parallel"), lines),
        shares,
        figure(figures.get("search_slices"), slices),
    )


def leaders(data: ReportData, figures: Mapping[str, str]) -> str:
    """The strongest configurations with the value on every seed, and all of them on demand."""
    study = data.study
    if study is None:
        return ""
    by_id = {trial.id: trial for trial in study.trials}
    ranked = [by_id[i] for i in study.ranking]
    head = ("trial", "mean", "interval", "steps", "seeds", *_columns(study))
    top = table(head, (_leader_row(study, trial) for trial in ranked[:N_LEADERS]))
    rest = ""
    if len(ranked) > N_LEADERS:
        head = ("trial", "mean", "seeds", "steps", "ended", *_columns(study))
        listed = table(head, (_trial_row(study, trial) for trial in ranked))
        rest = f"<details><summary>All {number(len(ranked))} configurations</summary>{listed}</details>"
    note = (
        "The selected configuration, then by training reached, number of seeds and mean. "
        "Seeds are paired: one number is the same randomness for every configuration."
    )
    explained = f"<p class='note'>{escaped(note)}</p>"
    return block("Leaders", f"<div class='wide'>{top}{_seeds_table(study, ranked[:N_LEADERS])}</div>", explained, rest)


def _seeds_table(study: StudyData, trials: Sequence[Tried]) -> str:
    """Return the value of every trial on every seed; ``""`` when no trial has more than one."""
    seeds = sorted({seed for trial in trials for seed in trial.values})
    if all(len(trial.values) < 2 for trial in trials):
        return ""
    rows = ([_name(study, trial), *(_rounded(trial.values.get(seed)) for seed in seeds)] for trial in trials)
    return table(("value on seed", *map(str, seeds)), rows)


def _rounded(value: float | None) -> str:
    return number(None if value is None or not math.isfinite(value) else float(f"{value:.3g}"))


def _columns(study: StudyData) -> list[str]:
    return [axis.name for axis in study.axes] if len(study.axes) <= MAX_COLUMNS else ["configuration"]


def _cells(study: StudyData, trial: Tried) -> list[str]:
    if len(study.axes) <= MAX_COLUMNS:
        return [_shown(trial.configuration, axis.path) for axis in study.axes]
    shown = (f"{axis.name}={_shown(trial.configuration, axis.path)}" for axis in study.axes)
    return [", ".join(text for text in shown if not text.endswith(f"={NOTHING}"))]


def _name(study: StudyData, trial: Tried) -> str:
    marks = [("selected", study.winner), ("default", study.default)]
    named = [name for name, trial_id in marks if trial_id == trial.id]
    return f"{trial.id} {', '.join(named)}" if named else str(trial.id)


def _leader_row(study: StudyData, trial: Tried) -> list[str]:
    value, brackets = interval(trial.estimate)
    bounds = NOTHING if math.isnan(trial.estimate.low) else brackets
    n_seeds = number(trial.estimate.n_seeds)
    return [_name(study, trial), value, bounds, number(trial.resource), n_seeds, *_cells(study, trial)]


ENDINGS = {
    "full": "trained in full",
    "paused": "not promoted",
    "stopped": "stopped",
    "failed": "failed",
    "running": "cut off",
}


def _trial_row(study: StudyData, trial: Tried) -> list[str]:
    ended = ENDINGS[trial.ending] + (f": {trial.reason}" if trial.reason else "")
    estimate = trial.estimate
    return [
        _name(study, trial),
        number(estimate.value),
        number(estimate.n_seeds),
        number(trial.resource),
        ended,
        *_cells(study, trial),
    ]


STUDY_SECTIONS = (search_cards, best_configuration, warm_start, course, parameters, leaders)
