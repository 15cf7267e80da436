"""What a parent and a child of a warm start must have in common, each rule with its finding.

Source: SageMaker developer guide, "Run a warm start hyperparameter tuning job", section "Warm start tuning
restrictions". The guide counts the move of a two-valued categorical parameter from tunable to static as two changes,
and says nothing of others; here a move or a changed static value counts as one for the error and as two for the
warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from policylab.findings import Finding
from policylab.tuning.parameters import value_key
from policylab.tuning.service_limits import ServiceLimits
from policylab.tuning.study_facts import Parent, StudyFacts, static_values

WarmStartKind: TypeAlias = Literal["identical_data_and_algorithm", "transfer_learning"]
PLACE = "warm_start.parents"


def warm_start_findings(
    child: StudyFacts, parents: Sequence[Parent], *, kind: WarmStartKind, limits: ServiceLimits
) -> Iterator[Finding]:
    """Check every restriction; nothing found means that the warm start is portable to SageMaker."""
    yield from _count_findings(child, parents, limits=limits)
    yield from _recursion_findings(parents)
    if child.searcher == "grid" or child.scheduler in ("hyperband", "asha"):
        yield Finding(
            "warm_start",
            "SageMaker documents it for Bayesian and random search only: not portable",
            child.scheduler if child.searcher != "grid" else child.searcher,
            "use these to stay portable",
            "warning",
        )
    for number, parent in enumerate(parents):
        place = f"{PLACE}[{number}] {parent.facts.name}"
        yield from _parent_findings(parent, place, limits=limits)
        yield from _objective_findings(child, parent.facts, place=place)
        yield from _name_findings(child, parent.facts, place=place)
        yield from _kind_findings(child, parent.facts, place=place)
        yield from _change_findings(child, parent.facts, place=place, limits=limits)
        if kind == "identical_data_and_algorithm":
            yield from _identity_findings(child, parent.facts, place=place)


def _count_findings(child: StudyFacts, parents: Sequence[Parent], *, limits: ServiceLimits) -> Iterator[Finding]:
    if not 1 <= len(parents) <= limits.parents:
        yield Finding(PLACE, f"1 to {limits.parents} parents", len(parents), "keep the most similar ones")
    names = [parent.facts.name for parent in parents]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Finding(PLACE, "parents must differ", name, "list it once")
    total = sum(parent.n_trials for parent in parents) + (child.n_trials or 0)
    rule = "trials of parents and child count together against the limit"
    if total > limits.jobs:
        yield Finding(PLACE, f"{rule} of {limits.jobs}", total, "leave a parent out or lower limits.trials")
    elif total > limits.parent_jobs:
        advice = f"stay within {limits.parent_jobs} to be portable: the guide's pages differ"
        yield Finding(PLACE, f"{rule} of {limits.jobs}", total, advice, "warning")


def _recursion_findings(parents: Sequence[Parent]) -> Iterator[Finding]:
    listed = {parent.facts.name for parent in parents}
    for number, parent in enumerate(parents):
        missing = [name for name in parent.facts.parents if name not in listed]
        if missing:
            rule = "a warm start is not recursive: what this parent learned from its own parents is not used"
            place = f"{PLACE}[{number}] {parent.facts.name}"
            yield Finding(place, rule, ", ".join(missing), "list them too where they matter", "warning")


def _parent_findings(parent: Parent, place: str, *, limits: ServiceLimits) -> Iterator[Finding]:
    if parent.status == "in_progress":
        yield Finding(place, "a parent must be completed, stopped or failed", parent.status, "wait for it or stop it")
    if parent.created is not None and parent.created < limits.oldest_parent:
        yield Finding(
            place, f"a parent must be created on {limits.oldest_parent} or later", parent.created, "tune it again"
        )
    if not parent.ranked:
        yield Finding(place, "a parent without results teaches nothing", 0, "leave it out", "warning")
    if parent.facts.searcher == "grid" or parent.facts.scheduler in ("hyperband", "asha"):
        value = parent.facts.searcher if parent.facts.searcher == "grid" else parent.facts.scheduler
        rule = "SageMaker documents parents of Bayesian and random search only: not portable"
        yield Finding(place, rule, value, "nothing, if the child stays here", "warning")


_IMPORT = " (of an experiment's own tuning job, `policylab study import RECORD CONFIG` makes a parent that knows)"


def _objective_findings(child: StudyFacts, parent: StudyFacts, *, place: str) -> Iterator[Finding]:
    if (child.metric, child.mode) != (parent.metric, parent.mode):
        yield Finding(
            place,
            f"the objective must be the child's, {child.metric} ({child.mode})",
            f"{parent.metric} ({parent.mode})",
            "search for the same metric",
        )


def _name_findings(child: StudyFacts, parent: StudyFacts, *, place: str) -> Iterator[Finding]:
    own, theirs = names(child, parent), names(parent, child)
    if own == theirs:
        return
    new, gone = sorted(own - theirs), sorted(theirs - own)
    parts = [f"{word} {', '.join(paths)}" for word, paths in (("new:", new), ("missing:", gone)) if paths]
    remedies = [
        *(["say in warm_start.static which value the parent used for what is new"] if new else []),
        *(["keep what is missing in the child, searched or with a fixed value"] if gone else []),
    ]
    remedy = f"{', and '.join(remedies)}{_IMPORT}"
    rule = f"searched and static parameters must together be those of the parent ({'; '.join(parts)})"
    yield Finding(place, rule, f"{len(new)} new, {len(gone)} missing", remedy)


def _kind_findings(child: StudyFacts, parent: StudyFacts, *, place: str) -> Iterator[Finding]:
    for path, parameter in child.space.parameters.items():
        before = parent.space.parameters.get(path)
        if before is not None and before.kind != parameter.kind:
            yield Finding(
                f"{place}: {path}",
                f"its kind must stay {before.kind}",
                parameter.kind,
                f"search it as {before.kind} again, or leave the parent out",
            )


def _change_findings(child: StudyFacts, parent: StudyFacts, *, place: str, limits: ServiceLimits) -> Iterator[Finding]:
    changed = changes(child, parent)
    rule = f"at most {limits.parent_changes} moves from searched to static and changed static values"
    if len(changed) > limits.parent_changes:
        yield Finding(place, rule, f"{len(changed)}: {', '.join(changed)}", "search or restore some of them")
    elif 2 * len(changed) > limits.parent_changes:
        remedy = "change fewer to be portable: SageMaker counts some of them twice"
        yield Finding(place, rule, f"{len(changed)}: {', '.join(changed)}", remedy, "warning")


def _identity_findings(child: StudyFacts, parent: StudyFacts, *, place: str) -> Iterator[Finding]:
    if child.identity is None or parent.identity is None:
        return
    for name in sorted(child.identity.keys() | parent.identity.keys()):
        own, theirs = child.identity.get(name), parent.identity.get(name)
        if own != theirs:
            yield Finding(
                f"{place}: {name}",
                f"data and algorithm must be identical, and the child has {own!r}",
                theirs,
                "make them alike, or use kind: transfer_learning",
            )


def names(facts: StudyFacts, other: StudyFacts) -> set[str]:
    """Return the names of all parameters; a mapping that ``other`` searches as a whole is one parameter."""
    return set(facts.space.parameters) | set(static_values(facts, other))


def changes(child: StudyFacts, parent: StudyFacts) -> list[str]:
    """Return the parameters that were searched and are static now, and the static ones with another value."""
    before: Mapping[str, Any] = static_values(parent, child)
    now = static_values(child, parent)
    return [
        path
        for path, value in now.items()
        if path in parent.space.parameters or (path in before and value_key(before[path]) != value_key(value))
    ]
