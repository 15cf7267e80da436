"""How fast a study spends, and what its clock pays for in all at that pace."""

from __future__ import annotations

LOOK = 0.05
"""Share of the clock over which the pace is taken at least: before, it is that of chance."""

CHANGE = 0.1
"""Relative change of what the clock pays for that is worth telling."""


class Pace:
    """The pace of one session, from its first report on: starting workers takes time, and trains nothing.

    Args:
        wall_clock_s: seconds that the study may take in all; None: no limit.

    >>> pace = Pace(60.0)
    >>> [pace.paid(spent, elapsed_s=at) for at, spent in ((5.0, 0), (10.0, 100), (11.0, 140), (20.0, 400))]
    [None, None, None, 1600]
    """

    def __init__(self, wall_clock_s: float | None) -> None:
        self._wall_clock_s = wall_clock_s
        self._before: int | None = None
        self._first: tuple[float, int] | None = None

    def paid(self, spent: int, *, elapsed_s: float) -> int | None:
        """Return the resource that the clock pays for in all; None while that is not known.

        Args:
            spent: so far, by the sessions before as well; the same until something was reported.
            elapsed_s: seconds so far, of the sessions before as well.
        """
        if self._wall_clock_s is None:
            return None
        if self._before is None:
            self._before = spent
        if self._first is None:
            if spent == self._before:
                return None
            self._first = elapsed_s, spent
        took_s = elapsed_s - self._first[0]
        if took_s < LOOK * self._wall_clock_s:
            return None
        left_s = max(0.0, self._wall_clock_s - elapsed_s)
        return spent + round((spent - self._first[1]) / took_s * left_s)


def differs(paid: int, told: int | None) -> bool:
    """Return whether what the clock pays for is something else than what was told last."""
    return told is None or abs(paid - told) > CHANGE * told
