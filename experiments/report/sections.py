"""The sections of a report: each a function from the data and the drawn figures to HTML, or ``""``.

To add a section, write such a function and put it into `SECTIONS` where it belongs on the page.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from policylab.experiments.report.baseline_section import comparison
from policylab.experiments.report.data import ReportData
from policylab.experiments.report.parts import block, card, estimate_card, figure
from policylab.experiments.report.study_sections import STUDY_SECTIONS
from policylab.experiments.report.text import (
    counted,
    duration,
    escaped,
    flattened,
    minute,
    number,
    pairs,
    sentence,
    table,
)

Section = Callable[[ReportData, Mapping[str, str]], str]
"""(data, figure name -> ``<svg>``) -> HTML."""


def header(data: ReportData, figures: Mapping[str, str]) -> str:
    """The name, the state, and what was done in one line."""
    status = escaped(data.status)
    description = f"<p class='lead'>{escaped(data.description)}</p>" if data.description else ""
    agent = data.config.get("agent", {})
    kind = agent.get("kind", "") if isinstance(agent, Mapping) else ""
    what = " · ".join(str(part) for part in (kind, data.environment.id, minute(data.lineage.created_utc)) if part)
    return (
        f"<header><h1>{escaped(data.name)} <span class='status {status}'>{status}</span></h1>"
        f"<p class='what'>{escaped(what)}</p>{description}</header>"
    )


def warnings(data: ReportData, figures: Mapping[str, str]) -> str:
    """What a careful reader must know first."""
    items = "".join(f"<li>{escaped(warning)}</li>" for warning in data.warnings)
    return f"<aside class='warnings' aria-label='warnings'><ul>{items}</ul></aside>" if items else ""


def summary(data: ReportData, figures: Mapping[str, str]) -> str:
    """The headline numbers."""
    cards, what = [], ""
    if data.objective:
        cards = [
            estimate_card("Selected at", data.objective.selected, seeds="tuning", css="tune"),
            estimate_card("Confirmed at", data.objective.confirmed, seeds="confirmation", css="confirm"),
        ]
        what = "Return when "
    cards += [
        estimate_card(sentence(f"{what}selected at"), data.selected, seeds="tuning", css="tune"),
        estimate_card(sentence(f"{what}confirmed at"), data.confirmed, seeds="confirmation", css="confirm"),
    ]
    if data.exact:
        optimum, reached = number(data.exact.optimal_return), number(data.exact.policy_return)
        which = f" ({data.exact.policy_is})" if data.exact.policy_is else ""
        note = f"optimum {optimum}, this policy {reached}{which}"
        cards.append(card("Optimality gap", number(data.exact.optimality_gap), note=note, css="optimum"))
    cost = data.cost
    trials = counted(cost.trials, "trials")
    cards.append(card("Cost", duration(cost.wall_s), note=f"{number(cost.env_steps)} environment steps, {trials}"))
    note = (
        f"{sentence(data.metric)}, {data.statistic} over seeds; "
        f"brackets are {100 * data.confidence:g} % confidence intervals."
    )
    if data.objective:
        note = f"Selected by {data.objective.measure}. {note}"
    if data.confirmed:
        note += (
            " A configuration is selected on the tuning seeds and confirmed on fresh ones: "
            "the second number is the one to quote."
        )
    return f"<section class='cards'>{''.join(cards)}</section><p class='note'>{escaped(note)}</p>"


def learning(data: ReportData, figures: Mapping[str, str]) -> str:
    """Learning curves and the way to the optimum."""
    band = f"{data.statistic} with its {100 * data.confidence:g} % confidence band; each thin line is one seed"
    gap = "Distance from the exact optimum; 0 is optimal. The scale is logarithmic down to its lowest mark."
    return block(
        "Learning",
        figure(figures.get("learning_curves"), f"{sentence(data.metric)}: {band}."),
        figure(figures.get("optimality_gap"), gap),
    )


def policy(data: ReportData, figures: Mapping[str, str]) -> str:
    """What was learned: values, greedy actions, a rendered episode."""
    caption = "Value of each state and the greedy action there; several arrows are a tie."
    if data.grid and (0, 0) in data.grid.moves:
        caption += " A ring is an action that moves nowhere."
    if data.grid and data.grid.note:
        caption += f" The map shows one slice of the states: {data.grid.note}."
    film = ""
    if data.episode_gif:
        encoded = base64.b64encode(data.episode_gif).decode()
        film = f"<img class='episode' alt='a rendered episode' src='data:image/gif;base64,{encoded}'>"
    drawings = figure(figures.get("policy"), caption) + figure(film, data.episode_caption)
    return block("Policy", f"<div class='side'>{drawings}</div>" if drawings else "")


def seeds(data: ReportData, figures: Mapping[str, str]) -> str:
    """Every run's final value, drawn and listed."""
    rows = [
        (f"{curve.role} {i}", seed, number(float(value)))
        for curve in data.curves
        for i, (seed, value) in enumerate(zip(curve.seeds, curve.final, strict=True))
    ]
    listed = table(("run", "seed", "final value"), rows) if rows else ""
    details = f"<details><summary>All runs</summary>{listed}</details>" if listed else ""
    caption = "Final value of every run; the bar is the estimate with its confidence interval."
    return block("Seeds", figure(figures.get("seeds"), caption), details)


def hyperparameters(data: ReportData, figures: Mapping[str, str]) -> str:
    """The resolved configuration, flat."""
    return block("Configuration", pairs(flattened(data.config)))


def environment(data: ReportData, figures: Mapping[str, str]) -> str:
    """The environment as resolved."""
    facts = data.environment
    limit = "none" if facts.max_episode_steps is None else f"{number(facts.max_episode_steps)} steps"
    rows: list[tuple[str, object]] = [("id", facts.id), ("time limit", limit)]
    if facts.n_states is not None:
        rows.append(("states", number(facts.n_states)))
    if facts.n_actions is not None:
        rows.append(("actions", number(facts.n_actions)))
    rows += [("note", note) for note in facts.notes]
    return block("Environment", pairs(rows))


def lineage(data: ReportData, figures: Mapping[str, str]) -> str:
    """Where the numbers come from and where the artefacts are."""
    origin = data.lineage
    rows: list[tuple[str, object]] = [
        ("configuration hash", origin.config_hash),
        ("git commit", origin.git_commit or "not in a repository"),
        ("root seed", origin.root_seed),
        ("started", origin.created_utc),
        ("host", origin.host),
        *((f"version of {name}", version) for name, version in origin.versions.items()),
    ]
    return block("Lineage", pairs(rows)) + block("Artefacts", pairs([*data.files.items(), *data.tracking.items()]))


SECTIONS: tuple[Section, ...] = (
    header,
    warnings,
    summary,
    comparison,
    *STUDY_SECTIONS,
    learning,
    policy,
    seeds,
    hyperparameters,
    environment,
    lineage,
)
"""The page from top to bottom."""
