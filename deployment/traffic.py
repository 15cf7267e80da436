"""`Traffic`: how all requests are divided among variants."""

from __future__ import annotations

import dataclasses
import itertools
from bisect import bisect_right
from collections.abc import Sequence

from policylab.deployment.fleet import Fleet, Variant


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """A variant of a fleet with its share of the traffic."""

    fleet: Fleet
    variant: Variant
    share: float


class Traffic:
    """A division of all requests among variants; immutable, so that it is replaced between two requests.

    Args:
        fleets: pairs of a fleet and its share of the traffic; shares add up to 1.
    """

    def __init__(self, fleets: Sequence[tuple[Fleet, float]]) -> None:
        self.fleets = tuple(fleets)
        self.routes = tuple(
            Route(fleet, variant, part * variant.weight / sum(one.weight for one in fleet.variants.values()))
            for fleet, part in fleets
            for variant in fleet.variants.values()
        )
        self._cumulative = list(itertools.accumulate(route.share for route in self.routes))

    def drawn(self, uniform: float) -> Route:
        """Return the route of a number in [0, 1)."""
        index = bisect_right(self._cumulative, uniform * self._cumulative[-1])
        return self.routes[index]

    def named(self, name: str, *, uniform: float) -> Route | None:
        """Return the variant of that name: that of the fleet drawn by traffic, if both have one."""
        found = [route for route in self.routes if route.variant.name == name]
        if len(found) < 2:
            return found[0] if found else None
        drawn = self.drawn(uniform).fleet
        return next(route for route in found if route.fleet is drawn)

    def holds(self, variant: Variant) -> bool:
        """Return whether the variant is part of it, with whatever share."""
        return any(route.variant is variant for route in self.routes)
