"""A fleet: the loaded variants and shadows of one version of an endpoint, with what is counted of them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from policylab.agents.bundle import Bundle, load_bundle
from policylab.agents.recurrent_policy import RecurrentPolicy
from policylab.agents.space_json import space_to_json, value_from_json
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.served_policy import ServedPolicy
from policylab.errors import UserError

LATENCY_BOUNDS_S = tuple(1e-5 * 1.25**i for i in range(71))
"""10 us to 61 s; a quantile is told to a quarter."""


@dataclasses.dataclass(slots=True)
class VariantCounts:
    """What one variant has done since it was loaded; only ever grows.

    Attributes:
        n_requests: that were answered.
        n_decisions: in them.
        n_fallbacks: of the requests, answered with the fallback action.
        n_failures: times that the policy failed.
        n_covered: of these, the times that the fallback action was answered instead.
        latency_s: time for all answers together.
        latency_buckets: answers by latency, one bucket for each of `LATENCY_BOUNDS_S` and one above.
    """

    n_requests: int = 0
    n_decisions: int = 0
    n_fallbacks: int = 0
    n_failures: int = 0
    n_covered: int = 0
    latency_s: float = 0.0
    latency_buckets: list[int] = dataclasses.field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))

    def count(self, *, n_decisions: int, latency_s: float, source: str) -> None:
        """Count one answered request."""
        self.n_requests += 1
        self.n_decisions += n_decisions
        self.latency_s += latency_s
        self.latency_buckets[bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
        if source == "fallback":
            self.n_fallbacks += 1

    def add(self, other: VariantCounts) -> None:
        """Add the counts of another variant."""
        self.n_requests += other.n_requests
        self.n_decisions += other.n_decisions
        self.n_fallbacks += other.n_fallbacks
        self.n_failures += other.n_failures
        self.n_covered += other.n_covered
        self.latency_s += other.latency_s
        self.latency_buckets = [a + b for a, b in zip(self.latency_buckets, other.latency_buckets, strict=True)]

    def latency_quantile_s(self, q: float) -> float | None:
        """Return the upper end of the bucket in which the quantile lies; None without requests, inf above the last."""
        cumulative = list(itertools.accumulate(self.latency_buckets))
        if cumulative[-1] == 0:
            return None
        index = bisect_left(cumulative, q * cumulative[-1])
        return LATENCY_BOUNDS_S[index] if index < len(LATENCY_BOUNDS_S) else math.inf


@dataclasses.dataclass(slots=True, eq=False)
class Variant:
    """A loaded variant; its weight changes while it serves."""

    name: str
    policy: ServedPolicy
    weight: float
    counts: VariantCounts = dataclasses.field(default_factory=VariantCounts)


@dataclasses.dataclass(slots=True, eq=False)
class Shadow:
    """A loaded shadow, and how its answers compare with those that were given."""

    name: str
    policy: ServedPolicy
    sampling: float
    n_decisions: int = 0
    n_agreeing: int = 0
    n_failures: int = 0
    n_dropped: int = 0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A version that is valued on the decisions of another, before it acts.

    Attributes:
        shadows: its variants.
        shares: of its traffic that each of them would have.
        weighed: is told of each decision how much more likely it is under this version.
    """

    shadows: tuple[Shadow, ...]
    shares: tuple[float, ...]
    weighed: Callable[[str, float], None]

    @classmethod
    def of(cls, fleet: Fleet, *, weighed: Callable[[str, float], None]) -> Self:
        """Return the candidate that a loaded version is."""
        variants = list(fleet.variants.values())
        total = sum(variant.weight for variant in variants)
        shadows = tuple(Shadow(variant.name, variant.policy, 1.0) for variant in variants)
        return cls(shadows, tuple(variant.weight / total for variant in variants), weighed)


@dataclasses.dataclass(slots=True, eq=False)
class Fleet:
    """All that one version of an endpoint file loads.

    Attributes:
        generation: counts the versions of the endpoint.
        fallback: the fallback action as the environment takes it; None without one.
    """

    generation: int
    config: EndpointConfig
    variants: dict[str, Variant]
    shadows: tuple[Shadow, ...]
    fallback: Any

    @property
    def bundle(self) -> Bundle:
        """The bundle of the first variant, whose spaces are those of all."""
        return next(iter(self.variants.values())).policy.bundle


def load_fleet(config: EndpointConfig, *, generation: int = 1, like: Fleet | None = None) -> Fleet:
    """Load and verify every bundle of an endpoint.

    Args:
        config: names them.
        generation: of this version.
        like: another version, which must have the same spaces.

    Raises:
        BundleError: a bundle is refused.
        UserError: the bundles do not have the same spaces, or fallback or bounds do not fit them.
    """
    paths = {path for _, path in config.bundles()}
    bundles: dict[Path, Bundle] = {path: load_bundle(path, memory=True) for path in paths}
    _check_memory(bundles.values(), config)
    first_name, first_path = next(config.bundles())
    first = bundles[first_path]
    for name, path in config.bundles():
        _check_spaces(bundles[path], first, names=(name, first_name))
    if like is not None:
        _check_spaces(first, like.bundle, names=(first_name, "the version that serves"))
    variants = {
        part.name: Variant(
            part.name,
            ServedPolicy(bundles[part.bundle], exploration=part.exploration, bounds=config.bounds),
            part.weight,
        )
        for part in config.variants
    }
    shadows = tuple(
        Shadow(
            part.name,
            ServedPolicy(bundles[part.bundle], exploration=part.exploration, bounds=config.bounds),
            part.sampling,
        )
        for part in config.shadows
    )
    fallback = None if config.fallback is None else _checked_fallback(first, config.fallback.action)
    return Fleet(generation, config, variants, shadows, fallback)


def _check_memory(bundles: Iterable[Bundle], config: EndpointConfig) -> None:
    """Refuse a policy with a memory where not all requests come through a session of this process."""
    given = [name for name in ("shadows", "asynchronous", "serverless", "ray_serve") if getattr(config, name)]
    if (promotion := config.guardrail.promotion) is not None and promotion.before_acting:
        given.append("guardrail.promotion.before_acting")
    if given and any(isinstance(bundle.policy, RecurrentPolicy) for bundle in bundles):
        raise UserError(
            f"a policy with a memory remembers the steps of a session, which `{given[0]}` does not follow; remove it, "
            "or train a network without `lstm`"
        )


def _check_spaces(bundle: Bundle, first: Bundle, *, names: tuple[str, str]) -> None:
    for what in ("observation_space", "action_space"):
        mine, others = space_to_json(getattr(bundle, what)), space_to_json(getattr(first, what))
        if mine != others:
            raise UserError(
                f"all policies of an endpoint need the same {what.replace('_', ' ')}: '{names[0]}' has "
                f"{str(getattr(bundle, what))[:60]}, '{names[1]}' {str(getattr(first, what))[:60]}; use two endpoints"
            )


def _checked_fallback(bundle: Bundle, action: Any) -> Any:
    try:
        return value_from_json(bundle.action_space, action)
    except UserError as error:
        raise UserError(f"fallback.action: {error}") from error
