"""Warm start: what parents measured becomes evidence of the child, as far as the two agree.

1. A parent's configurations are expressed in the child's space: see `parent_mapping`.
2. ``identical_data_and_algorithm``: the values are pooled with the child's as they are. ``transfer_learning``: their
   ranks are put on the child's scale and weighted by agreement: see `parent_evidence`.
3. The parents' best configurations in range are tried first; values out of range inform, but are not suggested.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from pydantic import Field

from policylab.config import Settings
from policylab.findings import Finding, raise_errors
from policylab.seeding import stream
from policylab.tuning.decisions import Configuration
from policylab.tuning.history import History
from policylab.tuning.parent_evidence import ParentEvidence, Standing
from policylab.tuning.searcher import Searcher
from policylab.tuning.searchers.design import MAX_REDRAWS, first_new, opening, tried
from policylab.tuning.searchers.observations import Observation, gather
from policylab.tuning.service_limits import ServiceLimits
from policylab.tuning.space import Space, configuration_key
from policylab.tuning.study_facts import Parent, StudyFacts
from policylab.tuning.warm_start_rules import WarmStartKind, warm_start_findings


class WarmStartSettings(Settings):
    """The parents of a study."""

    kind: WarmStartKind = "identical_data_and_algorithm"
    parents: tuple[str, ...] = Field(
        min_length=1, max_length=5, description="study names, run directories or records of SageMaker tuning jobs"
    )
    static: dict[str, Any] = Field(
        default_factory=dict, description="values that parents used for parameters they did not record"
    )
    first: int = Field(default=3, ge=0, description="best configurations of the parents that are tried first")


class WarmStart:
    """The parents of one study.

    Attributes:
        warnings: what may disappoint, such as parents that SageMaker would not take.
        sources: the parents in the child's space.
    """

    def __init__(self, settings: WarmStartSettings, child: StudyFacts, *, sources: list[ParentEvidence]) -> None:
        self._settings = settings
        self._child = child
        self.sources = sources
        self.warnings: list[Finding] = []

    @classmethod
    def make(
        cls,
        settings: WarmStartSettings,
        child: StudyFacts,
        *,
        parents: Sequence[Parent],
        limits: ServiceLimits | None = None,
    ) -> Self:
        """Return the warm start of ``child``.

        Raises:
            ConfigError: a restriction is broken; every one is told, one per line.
        """
        known = [_with_static(parent, settings.static) for parent in parents]
        found = warm_start_findings(child, known, kind=settings.kind, limits=limits or ServiceLimits())
        warnings = raise_errors(found, about=child.name)
        sources = [ParentEvidence(parent, child=child) for parent in known]
        made = cls(settings, child, sources=sources)
        made.warnings = warnings
        return made

    def prior(self, history: History) -> tuple[Observation, ...]:
        """Return what the parents know, on the scale of the child's observations so far."""
        n_parameters = len(self._child.space.paths)
        observed = gather(history, n_parameters=n_parameters).observed
        full = _in_full(observed, history, n_enough=n_parameters + 2)
        if self.comparable and full:
            known = (source.pooled or source.transferred(observed) for source in self.sources)
            return tuple(item for items in known for item in items)
        return tuple(item for source in self.sources for item in source.transferred(observed))

    def standings(self, history: History) -> list[Standing]:
        """Return how each parent stands with what the child has observed; pooled ones count in full."""
        observed = gather(history, n_parameters=len(self._child.space.paths)).observed
        found = [source.standing(observed) for source in self.sources]
        return [dataclasses.replace(standing, weight=1.0) for standing in found] if self.comparable else found

    @functools.cached_property
    def first(self) -> list[Configuration]:
        """The best configurations of the parents, in turn, none close to another."""
        space, chosen = self._child.space, list[Configuration]()
        queues = [source.best() for source in self.sources]
        while any(queues) and len(chosen) < self._settings.first:
            for queue in queues:
                while queue and len(chosen) < self._settings.first:
                    configuration = queue.pop(0)
                    if all(_apart(space, (configuration, other)) for other in chosen):
                        chosen.append(configuration)
                        break
        return chosen

    @property
    def comparable(self) -> bool:
        """Whether values of the parents and of the child are of the same data and algorithm."""
        return self._settings.kind == "identical_data_and_algorithm"

    def bests(self, own: Observation | None) -> list[tuple[str | None, Observation]]:
        """Return the best observation of the child (named None) and of each parent by name.

        The best comes first where they are `comparable`; else the child's, then the parents' in the order given.
        """
        found: list[tuple[str | None, Observation]] = [(None, own)] if own is not None else []
        found += [
            (source.name, max(source.pooled, key=lambda item: item.mean)) for source in self.sources if source.pooled
        ]
        return sorted(found, key=lambda pair: -pair[1].mean) if self.comparable else found


class WarmStartedSearcher:
    """A searcher that knows what the parents know.

    Args:
        warm_start: the parents.
        space: searched.
        build: makes the searcher for a prior, as ``SEARCHERS.load(kind).make(settings, space, prior=...)`` does.
        box: whether every second proposal is drawn from the box round the parents' best configurations (Perrone et
            al. 2019, "Learning search spaces for Bayesian optimization"); for searchers that take no prior.
    """

    def __init__(
        self,
        warm_start: WarmStart,
        space: Space,
        *,
        build: Callable[[tuple[Observation, ...]], Searcher],
        box: bool = False,
    ) -> None:
        self.warm_start = warm_start
        self._space = space
        self._build = build
        self._box = box

    def suggest(self, history: History, *, rng: np.random.Generator) -> Configuration | None:
        """Return the default, then the parents' best configurations, then what the searcher proposes."""
        if (first := opening(self._space, history)) is not None:
            return first
        known = tried(history)
        for configuration in self.warm_start.first:
            if configuration_key(configuration) not in known:
                return dict(configuration)
        rng = self._beside(rng)
        if self._box and history.proposed % 2:
            found = first_new(self._space, history, candidates=self._in_box(history, rng=rng))
            if found is not None:
                return found
        return self._build(self.warm_start.prior(history)).suggest(history, rng=rng)

    def _beside(self, rng: np.random.Generator) -> np.random.Generator:
        """Return the same place in a tree of streams of the child's own.

        A child often has its parents' seed; drawn from the same streams, its points would be theirs.
        """
        place = rng.bit_generator.seed_seq
        assert isinstance(place, np.random.SeedSequence)
        assert isinstance(place.entropy, int)
        names = [source.name for source in self.warm_start.sources]
        root = int(stream(place.entropy, "warm_start", *names).generate_state(1, np.uint64)[0])
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence(root, spawn_key=place.spawn_key)))

    def _in_box(self, history: History, *, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
        """Yield configurations of the box of a parent that agrees, drawn uniformly."""
        standings = self.warm_start.standings(history)
        boxes = [source.box for source, standing in zip(self.warm_start.sources, standings, strict=True)
                 if standing.weight and source.box is not None]  # fmt: skip
        for _ in range(MAX_REDRAWS if boxes else 0):
            low, high = boxes[int(rng.integers(len(boxes)))]
            configuration = self._space.from_unit(low + rng.random(len(low)) * (high - low))
            if self._space.contains(configuration):
                yield configuration


def _in_full(observed: Sequence[Observation], history: History, *, n_enough: int) -> bool:
    """Whether the child's values are those of the full resource, so that they compare with a parent's."""
    trials = [history.trials[item.trial] for item in observed if item.trial is not None]
    n_full = sum(bool(trial.values_at(history.max_resource)) for trial in trials)
    return n_full >= min(n_enough, sum(not trial.failed for trial in trials))


def _apart(space: Space, pair: tuple[Configuration, Configuration]) -> bool:
    """Whether two configurations differ by a tenth of a range, or in a category."""
    return float(np.abs(space.to_unit(pair[0]) - space.to_unit(pair[1])).max()) > 0.1


def _with_static(parent: Parent, static: Mapping[str, Any]) -> Parent:
    """Return a parent that also knows ``static``, where it neither searched nor recorded the parameter."""
    searched = parent.facts.space.parameters
    added = {path: value for path, value in static.items() if path not in searched}
    facts = parent.facts.model_copy(update={"static": {**added, **parent.facts.static}})
    return dataclasses.replace(parent, facts=facts)
