"""Features: how the observations of an environment become rows of a linear value function.

An action value is the sum of the active rows, ``weights[encoder.encode(x)].sum(axis=0)``: a plain table
when one row is active. The settings say which features, `make_encoder` fits them to an observation space.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from gymnasium import Space, spaces
from pydantic import Field, PositiveInt, TypeAdapter, ValidationError

from policylab.agents.encoders import UNBOUNDED, BinsEncoder, Encoder, IndexEncoder, TilesEncoder
from policylab.config import Settings
from policylab.errors import EnvironmentRuleError, UserError

__all__ = [
    "AutoFeatures",
    "BinsEncoder",
    "BinsFeatures",
    "Encoder",
    "FeaturesSettings",
    "IndexEncoder",
    "IndexFeatures",
    "TilesEncoder",
    "TilesFeatures",
    "encoder_from_json",
    "make_encoder",
]

Bounds = tuple[float | None, ...]
MAX_DIMENSIONS = 8  # a grid over more than so many dimensions has too many cells to advise


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


class _IndexSpec(Settings):
    """JSON of an `IndexEncoder`: size and first value of each component."""

    kind: Literal["index"] = "index"
    sizes: tuple[PositiveInt, ...] = Field(min_length=1)
    starts: tuple[int, ...]


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
        case spaces.Box() if len(space.shape) == 1 and space.shape[0] <= MAX_DIMENSIONS:
            remedy = "add `features: {kind: tiles}` (tile coding) or `features: {kind: bins}` to the agent"
        case _:
            remedy = (
                "tabular agents take Discrete, MultiDiscrete, MultiBinary, Tuple of Discrete or small flat Box spaces"
            )
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
