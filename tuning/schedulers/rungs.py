"""Successive halving in integers: rungs, brackets, and how many brackets a budget pays for.

| symbol | meaning |
|---|---|
| R | resource of a full training |
| r | resource of the lowest rung of the widest bracket |
| η | one in η goes on to the next rung, which has η times the resource |
| s | index of a bracket: it has s + 1 rungs; s_max = ⌊log_η(R / r)⌋ |
| n(s) | configurations that enter bracket s |
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

BracketRule = Literal["formula", "table"]
"""How n(s) follows from s.

The paper (Li et al. 2018, JMLR 18-185) contradicts itself. ``formula`` is its algorithm 1,
⌈(s_max + 1) η^s / (s + 1)⌉: 81, 34, 15, 8, 5 for R = 81, η = 3. ``table`` is what its example (table 1) shows and
HpBandSter does, ⌊(s_max + 1) / (s + 1)⌋ η^s: 81, 27, 9, 6, 5.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Bracket:
    """One run of successive halving: ``counts[i]`` configurations are trained up to ``levels[i]``."""

    levels: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def cost(self) -> int:
        """Resource it uses when promotion resumes from checkpoints.

        >>> Bracket(levels=(10, 30, 100), counts=(9, 3, 1)).cost
        220
        """
        pieces = (above - below for below, above in itertools.pairwise((0, *self.levels)))
        return sum(n * piece for n, piece in zip(self.counts, pieces, strict=True))

    @property
    def cost_of_retraining(self) -> int:
        """Resource it would use if each promotion began again.

        >>> Bracket(levels=(10, 30, 100), counts=(9, 3, 1)).cost_of_retraining
        280
        """
        return sum(n * level for n, level in zip(self.counts, self.levels, strict=True))

    def narrowed(self, n: int, *, eta: int) -> Bracket:
        """Return the bracket that only ``n`` >= 1 configurations enter; one at least reaches every rung."""
        counts = tuple(min(count, max(1, n // eta**i)) for i, count in enumerate(self.counts))
        return dataclasses.replace(self, counts=counts)


def largest_exponent(ratio: int, *, base: int) -> int:
    """Return ⌊log_base(ratio)⌋, exactly; ``ratio`` >= 1, ``base`` >= 2.

    >>> largest_exponent(243, base=3)  # math.log(243, 3) is 4.999...
    5
    """
    exponent = 0
    while base ** (exponent + 1) <= ratio:
        exponent += 1
    return exponent


def levels(*, max_resource: int, min_resource: int, eta: int) -> tuple[int, ...]:
    """Return the rungs ⌊R η^-i⌋ from the lowest, at least ``min_resource``, up to R.

    >>> levels(max_resource=100, min_resource=10, eta=3)
    (11, 33, 100)
    """
    s_max = largest_exponent(max_resource // min_resource, base=eta)
    return tuple(max_resource // eta**i for i in range(s_max, -1, -1))


def hyperband_brackets(*, max_resource: int, min_resource: int, eta: int, rule: BracketRule) -> list[Bracket]:
    """Return one round of Hyperband, from the widest bracket (s_max) to the one that trains all in full (0).

    >>> [b.counts[0] for b in hyperband_brackets(max_resource=81, min_resource=1, eta=3, rule="table")]
    [81, 27, 9, 6, 5]
    """
    rungs = levels(max_resource=max_resource, min_resource=min_resource, eta=eta)
    widths = {
        "formula": [-(-len(rungs) * eta**s // (s + 1)) for s in range(len(rungs))],
        "table": [len(rungs) // (s + 1) * eta**s for s in range(len(rungs))],
    }[rule]
    return [
        Bracket(rungs[-s - 1 :], tuple(widths[s] // eta**i for i in range(s + 1))) for s in reversed(range(len(rungs)))
    ]


def plan(brackets: list[Bracket], *, budget: int | None, eta: int) -> Iterator[Bracket]:
    """Yield ``brackets`` round after round as far as ``budget`` pays for them, the last one narrowed to what is left.

    >>> widths = [b.counts for b in plan([Bracket((1, 3), (9, 3)), Bracket((3,), (2,))], budget=30, eta=3)]
    >>> widths
    [(9, 3), (2,), (5, 1)]
    """
    left = budget
    for bracket in itertools.cycle(brackets):
        fitting = bracket
        if left is not None:
            n = bracket.counts[0]
            while n and fitting.cost > left:
                n -= 1
                fitting = bracket.narrowed(n, eta=eta) if n else fitting
            if not n:
                return
            left -= fitting.cost
        yield fitting


@dataclasses.dataclass(frozen=True, slots=True)
class Ladder:
    """Successive halving of an open number of configurations: one in ``eta``, rounded up, goes on at each rung.

    A ladder may be entered at a higher rung, ``base``; ``levels`` rise to the full resource.
    """

    levels: tuple[int, ...]
    eta: int

    def quota(self, entered: int, *, rung: int, base: int = 0) -> int:
        """Return how many of those that entered at ``base`` are to be sent to ``rung``."""
        one_in: int = self.eta ** (rung - base)
        return -(-entered // one_in)

    def price(self, entered: int, *, base: int = 0, sent: Sequence[int] | None = None) -> int:
        """Return what is still to be spent until ``entered`` have entered and each rung has its quota.

        Args:
            entered: how many, the future ones included.
            base: rung they enter at.
            sent: how many have been sent to each rung so far; default: none.

        >>> Ladder(levels=(2, 5, 10), eta=2).price(4)
        19
        """
        below, price = 0, 0
        for rung, level in enumerate(self.levels[base:], start=base):
            missing = self.quota(entered, rung=rung, base=base) - (sent[rung] if sent else 0)
            price += (level - below) * max(0, missing)
            below = level
        return price

    def width(self, budget: int, *, base: int = 0) -> float:
        """Return how many may enter at ``base`` when ``budget`` is to bring them to the end."""
        many: int = self.eta ** len(self.levels)
        return many * budget / self.price(many, base=base)
