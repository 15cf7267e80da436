"""Features: how a raw observation becomes the active rows of a linear value function.

| symbol | meaning |
|---|---|
| n_features | rows of the weight table |
| n_active | rows active at a time: 1 for `index` and `bins`, the number of tilings for `tiles` |
| x | an observation as a flat float vector, shape (n_dims,) |

An action value is the sum of the active rows, ``weights[encoder.encode(x)].sum(axis=0)``: a plain
table when one row is active. Encoders hold no random state and rebuild from their own JSON, so that a
served policy needs no environment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, TypeAdapter, ValidationError

from policylab.config import Settings
from policylab.errors import EnvironmentRuleError, UserError

MAX_FEATURES = 50_000_000
UNBOUNDED = 1e30  # some environments declare the largest float32 where they mean "no bound"
Bounds = tuple[float | None, ...]


class AutoFeatures(Settings):
    """The natural features of the observation space: `index` for discrete ones, an error for others."""

    kind: Literal["auto"] = "auto"


class IndexFeatures(Settings):
    """One row for each value of a discrete observation."""

    kind: Literal["index"] = "index"


class BinsFeatures(Settings):
    """Equal bins along each dimension of a Box; one row for each cell of the grid."""

    kind: Literal["bins"] = "bins"
    n_bins: PositiveInt | tuple[PositiveInt, ...] = Field(10, description="bins, for all dimensions or for each")
    low: Bounds | None = Field(None, description="lower bounds, one a dimension; null takes the space's own")
    high: Bounds | None = Field(None, description="upper bounds, one a dimension; null takes the space's own")


class TilesFeatures(Settings):
    """Tile coding: overlapping grids, each displaced by a fraction of a tile.

    Source: Sutton & Barto (2018), section 9.5.4, with displacement vector (1, 3, 5, ..., 2k - 1). They
    advise a number of tilings that is a power of two of at least 4k for k dimensions.
    """

    kind: Literal["tiles"] = "tiles"
    n_tilings: PositiveInt = Field(8, le=1024, description="overlapping grids")
    n_tiles: PositiveInt | tuple[PositiveInt, ...] = Field(8, description="tiles, for all dimensions or for each")
    low: Bounds | None = Field(None, description="lower bounds, one a dimension; null takes the space's own")
    high: Bounds | None = Field(None, description="upper bounds, one a dimension; null takes the space's own")


FeaturesSettings = Annotated[
    AutoFeatures | IndexFeatures | BinsFeatures | TilesFeatures,
    Field(discriminator="kind"),
]


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


class _IndexSpec(Settings):
    """JSON of an `IndexEncoder`: size and first value of each component."""

    kind: Literal["index"] = "index"
    sizes: tuple[PositiveInt, ...] = Field(min_length=1)
    starts: tuple[int, ...]


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


def make_encoder(settings: FeaturesSettings, observation_space: Space[Any]) -> Encoder:
    """Return the encoder that ``settings`` ask for over ``observation_space``.

    Raises:
        EnvironmentRuleError: the space has no such features; the message names ones that it has.

    >>> make_encoder(AutoFeatures(), spaces.Discrete(5, start=1)).encode(3)
    array([2])
    """
    if isinstance(settings, (AutoFeatures, IndexFeatures)):
        return _index_encoder(settings.kind, observation_space)
    if not isinstance(observation_space, spaces.Box):
        raise EnvironmentRuleError(
            f"features '{settings.kind}' need a Box observation space, got {observation_space}; "
            "use `features: {kind: index}`"
        )
    low, high = _resolved_bounds(settings, observation_space)
    if isinstance(settings, BinsFeatures):
        return BinsEncoder(low, high, n_bins=_per_dimension(settings.n_bins, "n_bins", n_dims=len(low)))
    n_tiles = _per_dimension(settings.n_tiles, "n_tiles", n_dims=len(low))
    return TilesEncoder(low, high, n_tiles=n_tiles, n_tilings=settings.n_tilings)


def encoder_from_json(settings: Any) -> Encoder:
    """Return the encoder whose `Encoder.settings` gave this JSON.

    Raises:
        UserError: the JSON does not describe an encoder.
    """
    try:
        spec = _SPECS.validate_python(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"features do not describe an encoder: {place}: {first['msg']}") from error
    if isinstance(spec, _IndexSpec):
        return IndexEncoder(spec.sizes, spec.starts)
    low, high = _given_bounds(spec)
    if isinstance(spec, BinsFeatures):
        return BinsEncoder(low, high, n_bins=_per_dimension(spec.n_bins, "n_bins", n_dims=len(low)))
    n_tiles = _per_dimension(spec.n_tiles, "n_tiles", n_dims=len(low))
    return TilesEncoder(low, high, n_tiles=n_tiles, n_tilings=spec.n_tilings)


_SPECS: TypeAdapter[_IndexSpec | BinsFeatures | TilesFeatures] = TypeAdapter(
    Annotated[_IndexSpec | BinsFeatures | TilesFeatures, Field(discriminator="kind")]
)


def _index_encoder(kind: str, space: Space[Any]) -> Encoder:
    match space:
        case spaces.Discrete():
            return IndexEncoder([int(space.n)], [int(space.start)])
        case spaces.MultiDiscrete():
            return IndexEncoder(space.nvec.ravel().tolist(), space.start.ravel().tolist())
        case spaces.MultiBinary():
            n_bits = math.prod(space.shape)
            return IndexEncoder([2] * n_bits, [0] * n_bits)
        case spaces.Tuple() if parts := [part for part in space.spaces if isinstance(part, spaces.Discrete)]:
            if len(parts) == len(space.spaces):
                return IndexEncoder([int(part.n) for part in parts], [int(part.start) for part in parts])
            remedy = "every part of the Tuple must be Discrete; wrap the environment with an observation wrapper"
        case spaces.Box() if len(space.shape) == 1:
            remedy = "add `features: {kind: tiles}` (tile coding) or `features: {kind: bins}` to the agent"
        case _:
            remedy = "tabular agents take Discrete, MultiDiscrete, MultiBinary, Tuple of Discrete or flat Box spaces"
    raise EnvironmentRuleError(f"features '{kind}' cannot index the observation space {str(space)[:120]}; {remedy}")


def _resolved_bounds(settings: BinsFeatures | TilesFeatures, space: spaces.Box) -> tuple[list[float], list[float]]:
    """Return low and high with the space's own in place of what was not given, all finite."""
    if space.shape is None or len(space.shape) != 1:
        raise EnvironmentRuleError(
            f"features '{settings.kind}' need a flat Box, got shape {space.shape}; images need a deep agent"
        )
    low = _filled("low", settings.low, own=space.low.tolist())
    high = _filled("high", settings.high, own=space.high.tolist())
    if max(map(abs, low + high)) >= UNBOUNDED:
        suggested_low = [-3.0 if abs(bound) >= UNBOUNDED else round(bound, 4) for bound in low]
        suggested_high = [3.0 if abs(bound) >= UNBOUNDED else round(bound, 4) for bound in high]
        raise EnvironmentRuleError(
            f"features '{settings.kind}' need finite bounds, but the observation space has low "
            f"{space.low.tolist()} and high {space.high.tolist()}; give the range that matters, such as "
            f"`low: {suggested_low}, high: {suggested_high}`"
        )
    return low, high


def _filled(name: str, given: Bounds | None, *, own: list[float]) -> list[float]:
    if given is None:
        return own
    if len(given) != len(own):
        raise UserError(f"features {name} must have {len(own)} numbers, one a dimension, got {len(given)}")
    return [theirs if mine is None else mine for mine, theirs in zip(given, own, strict=True)]


def _given_bounds(spec: BinsFeatures | TilesFeatures) -> tuple[list[float], list[float]]:
    low = [bound for bound in spec.low or () if bound is not None]
    high = [bound for bound in spec.high or () if bound is not None]
    if not low or len(low) != len(spec.low or ()) or len(high) != len(spec.high or ()):
        raise UserError("features without an environment need every bound in `low` and `high`")
    return low, high


def _per_dimension(count: int | tuple[int, ...], name: str, *, n_dims: int) -> tuple[int, ...]:
    if isinstance(count, int):
        return (count,) * n_dims
    if len(count) != n_dims:
        raise UserError(f"features {name} must be one number or {n_dims} of them, got {len(count)}")
    return count
