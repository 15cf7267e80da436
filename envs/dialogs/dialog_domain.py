"""What the dialogs are about: restaurants, the slots that describe them, and the acts that user and system exchange."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import IntEnum

CONSTRAINTS: Mapping[str, tuple[str, ...]] = {
    "food": ("Italian", "Thai", "Indian", "French", "Greek", "Mexican"),
    "area": ("centre", "north", "east", "south", "west"),
    "price": ("cheap", "moderate", "expensive"),
    "stars": ("three", "four", "five"),
    "terrace": ("with", "without"),
}
"""Slots by which a restaurant is sought, with their values."""
REQUESTS: tuple[str, ...] = ("phone", "address", "hours")
"""What may be asked about a restaurant."""
SLOTS: tuple[str, ...] = tuple(CONSTRAINTS)
N_VALUES: tuple[int, ...] = tuple(len(values) for values in CONSTRAINTS.values())
ANY = -1
"""The value of a slot about which the user does not care."""

Values = tuple[int, ...]
"""The value of each of `SLOTS`, as its place in `CONSTRAINTS`."""


class Act(IntEnum):
    """What a user may do in an utterance."""

    INFORM = 0
    REQUEST = 1
    AFFIRM = 2
    NEGATE = 3
    THANKS = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Speech:
    """One act of the user.

    Attributes:
        act: what is done.
        slot: place in `SLOTS` (inform) or in `REQUESTS` (request); None where there is none or it was not understood.
        value: place in the slot's values, `ANY`, or None.
    """

    act: Act
    slot: int | None = None
    value: int | None = None

    def __str__(self) -> str:
        if self.act is Act.REQUEST:
            return f"what is the {REQUESTS[self.slot]}?" if self.slot is not None else "what is ...?"
        if self.act is Act.INFORM:
            return "..." if self.slot is None else f"{SLOTS[self.slot]}: {value_name(self.slot, self.value)}"
        return {Act.AFFIRM: "yes", Act.NEGATE: "no", Act.THANKS: "thank you"}[self.act]


@dataclasses.dataclass(frozen=True, slots=True)
class Restaurant:
    """An entry of the knowledge base: its name and the value of each slot."""

    name: str
    values: Values

    def fits(self, wanted: Sequence[int | None]) -> bool:
        """Whether it has every wanted value; None and `ANY` fit everything."""
        return all(want is None or want in (ANY, have) for want, have in zip(wanted, self.values, strict=True))


def value_name(slot: int, value: int | None) -> str:
    """Return how a value reads.

    >>> value_name(0, 1), value_name(0, ANY), value_name(0, None)
    ('Thai', 'any', '?')
    """
    if value is None:
        return "?"
    return "any" if value == ANY else CONSTRAINTS[SLOTS[slot]][value]


def restaurants(n: int) -> tuple[Restaurant, ...]:
    """Return the knowledge base: the first ``n`` restaurants of a fixed sequence.

    The values come from the linear congruential generator of the C standard's example (ISO C, 7.22.2), so that they
    are the same everywhere and for ever.

    >>> [place.values for place in restaurants(2)]
    [(2, 3, 0, 1, 1), (5, 0, 0, 0, 0)]
    """
    entries, state = [], 1
    for i in range(n):
        values = []
        for size in N_VALUES:
            state = (1103515245 * state + 12345) % 2**31
            values.append((state >> 16) % size)
        entries.append(Restaurant(f"No. {i + 1}", tuple(values)))
    return tuple(entries)
