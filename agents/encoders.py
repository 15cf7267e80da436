"""Encoders: from a raw observation to the indices of its active features.

| symbol | meaning |
|---|---|
| n_features | rows of the weight table |
| n_active | rows active at a time: 1 for `index` and `bins`, the number of tilings for `tiles` |
| x | an observation as a flat float vector, shape (n_dims,) |

Encoders hold no random state and rebuild from their own JSON (`policylab.agents.features.encoder_from_json`),
so that a served policy needs no environment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from policylab.errors import UserError

MAX_FEATURES = 50_000_000
UNBOUNDED = 1e30  # some environments declare the largest float32 where they mean "no bound"


class Encoder(Protocol):
    """Maps one raw observation to the indices of its active features."""

    n_features: int
    n_active: int

    def encode(self, observation: Any) -> NDArray[np.int64]:
        """Return the active features, shape (n_active,), each in [0, n_features).

        Raises:
            UserError: the observation does not belong to the space the encoder was made for.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """Return the JSON from which `encoder_from_json` makes an equal encoder."""
        ...


class IndexEncoder:
    """Row-major index of an observation of one or more discrete components.

    Args:
        sizes: number of values of each component.
        starts: first value of each component.

    >>> IndexEncoder((32, 11, 2), (0, 0, 0)).encode((14, 2, 1))
    array([313])
    """

    n_active = 1

    def __init__(self, sizes: Sequence[int], starts: Sequence[int]) -> None:
        if len(sizes) != len(starts):
            raise UserError(f"index features need one start for each size, got sizes {sizes} and starts {starts}")
        self._sizes = tuple(int(size) for size in sizes)
        self._starts = tuple(int(start) for start in starts)
        self.n_features = _checked_size(self._sizes)
        strides = [math.prod(self._sizes[place + 1 :]) for place in range(len(self._sizes))]
        self._parts = tuple(zip(self._sizes, self._starts, strides, strict=True))
        self._single = len(self._parts) == 1

    def encode(self, observation: Any) -> NDArray[np.int64]:
        """Return the index of the observation, shape (1,)."""
        try:
            return np.array([self._index(observation)], dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"observation {str(observation)[:80]} does not fit discrete components of sizes {self._sizes} "
                f"starting at {self._starts}; give what the environment of this policy returns"
            ) from error

    def _index(self, observation: Any) -> int:
        if self._single and not isinstance(observation, (tuple, list, np.ndarray)):
            index = _whole(observation) - self._starts[0]
            if not 0 <= index < self.n_features:
                raise ValueError(observation)
            return index
        values = observation.ravel().tolist() if isinstance(observation, np.ndarray) else observation
        index = 0
        for (size, start, stride), value in zip(self._parts, values, strict=True):
            place = _whole(value) - start
            if not 0 <= place < size:
                raise ValueError(value)
            index += place * stride
        return index

    def settings(self) -> dict[str, Any]:
        """Return sizes and starts as JSON."""
        return {"kind": "index", "sizes": list(self._sizes), "starts": list(self._starts)}


def _whole(value: Any) -> int:
    number = int(value)
    if number != value:
        raise ValueError(value)
    return number


class _GridEncoder:
    """What `BinsEncoder` and `TilesEncoder` share: bounds, and positions in units of one cell."""

    def __init__(self, low: Sequence[float], high: Sequence[float], *, cells: Sequence[int]) -> None:
        if not len(low) == len(high) == len(cells) > 0:
            raise UserError(f"one low, high and count per dimension are needed, got {low}, {high} and {cells}")
        if not all(lower < upper for lower, upper in zip(low, high, strict=True)):
            raise UserError(f"every low must be below its high, got low {list(low)} and high {list(high)}")
        if max(map(abs, [*low, *high])) >= UNBOUNDED:
            raise UserError(f"every bound must be finite, got low {list(low)} and high {list(high)}")
        self._low = np.array(low, dtype=np.float64)
        self._high = np.array(high, dtype=np.float64)
        self._counts = np.array(cells, dtype=np.int64)
        self._per_unit = self._counts / (self._high - self._low)

    def _position(self, observation: Any) -> NDArray[np.float64]:
        """Return the clipped position in cells, shape (n_dims,), each in [0, count]."""
        try:
            x = np.asarray(observation, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError) as error:
            raise UserError(f"observation {str(observation)[:80]} is not a vector of numbers") from error
        if x.shape != self._low.shape:
            raise UserError(f"an observation of {self._low.size} numbers is expected, got {x.size}")
        inside = np.minimum(np.maximum(x, self._low), self._high)
        position: NDArray[np.float64] = (inside - self._low) * self._per_unit
        length = position.dot(position)
        if length != length:
            raise UserError(f"observation {str(observation)[:80]} holds NaN; every number must be known")
        return position

    def _grid_settings(self) -> dict[str, Any]:
        return {"low": self._low.tolist(), "high": self._high.tolist()}


class BinsEncoder(_GridEncoder):
    """Index of the grid cell an observation lies in; what lies outside the bounds counts to the border cell.

    >>> BinsEncoder([0.0, 0.0], [1.0, 1.0], n_bins=[10, 10]).encode([0.25, 1.0])
    array([29])
    """

    n_active = 1

    def __init__(self, low: Sequence[float], high: Sequence[float], *, n_bins: Sequence[int]) -> None:
        super().__init__(low, high, cells=n_bins)
        self.n_features = _checked_size(n_bins)
        self._strides = _strides(n_bins)

    def encode(self, observation: Any) -> NDArray[np.int64]:
        """Return the cell of the observation, shape (1,)."""
        cells = np.minimum(self._position(observation).astype(np.int64), self._counts - 1)
        return np.array([cells.dot(self._strides)], dtype=np.int64)

    def settings(self) -> dict[str, Any]:
        """Return bounds and counts as JSON."""
        return {"kind": "bins", "n_bins": self._counts.tolist(), **self._grid_settings()}


class TilesEncoder(_GridEncoder):
    """One active tile in each of several displaced grids (Sutton & Barto 2018, section 9.5.4).

    The grids are exact, without hashing: each has one tile more along a dimension than `n_tiles`, since a
    displaced grid needs it to cover the bounds. Tiling t is displaced along dimension i by
    ``t * (2i + 1) / n_tilings`` tiles, modulo one tile.

    >>> TilesEncoder([0.0], [1.0], n_tiles=[4], n_tilings=2).encode([0.2])
    array([0, 6])
    """

    def __init__(self, low: Sequence[float], high: Sequence[float], *, n_tiles: Sequence[int], n_tilings: int) -> None:
        super().__init__(low, high, cells=n_tiles)
        per_dimension = [int(count) + 1 for count in n_tiles]
        self.n_active = n_tilings
        self.n_features = _checked_size([n_tilings, *per_dimension])
        self._strides = _strides(per_dimension)
        self._first = np.arange(n_tilings, dtype=np.int64) * math.prod(per_dimension)
        steps = np.arange(n_tilings)[:, None] * (2 * np.arange(len(n_tiles))[None, :] + 1)
        self._offsets = (steps % n_tilings) / n_tilings

    def encode(self, observation: Any) -> NDArray[np.int64]:
        """Return the active tile of every tiling, shape (n_tilings,), ascending."""
        tiles: NDArray[np.int64] = (self._position(observation) + self._offsets).astype(np.int64)
        active: NDArray[np.int64] = tiles.dot(self._strides) + self._first
        return active

    def settings(self) -> dict[str, Any]:
        """Return bounds, counts and the number of tilings as JSON."""
        counts = self._counts.tolist()
        return {"kind": "tiles", "n_tilings": self.n_active, "n_tiles": counts, **self._grid_settings()}


def _strides(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.array([math.prod(sizes[place + 1 :]) for place in range(len(sizes))], dtype=np.int64)


def _checked_size(sizes: Sequence[int]) -> int:
    n_features = math.prod(int(size) for size in sizes)
    if n_features > MAX_FEATURES:
        shape = "x".join(map(str, sizes[:8])) + ("x..." if len(sizes) > 8 else "")
        raise UserError(
            f"features of sizes {shape} need more than {MAX_FEATURES:,} rows; use fewer bins or tiles, or another agent"
        )
    return n_features
