"""Feature encoders: exact indices, tile-coding geometry, clear refusals, JSON round trip."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from policylab.agents.features import (
    AutoFeatures,
    BinsEncoder,
    BinsFeatures,
    FeaturesSettings,
    IndexFeatures,
    TilesEncoder,
    TilesFeatures,
    encoder_from_json,
    make_encoder,
)
from policylab.errors import EnvironmentRuleError, UserError

BLACKJACK = spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)])
MOUNTAIN_CAR = spaces.Box(np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32))
UNBOUNDED = spaces.Box(-np.inf, np.inf, (2,))


@pytest.mark.parametrize(
    ("space", "observation", "index"),
    [
        (spaces.Discrete(500), 314, 314),
        (spaces.Discrete(500), np.int64(314), 314),
        (spaces.Discrete(5, start=-2), -2, 0),
        (spaces.MultiDiscrete([3, 4]), np.array([2, 3]), 11),
        (spaces.MultiDiscrete([3, 4], start=[1, -1]), np.array([1, 2]), 3),
        (spaces.MultiDiscrete([7]), np.array([6]), 6),
        (spaces.MultiBinary(4), np.array([1, 0, 1, 1], np.int8), 11),
        (spaces.MultiBinary([2, 2]), np.array([[0, 1], [1, 0]], np.int8), 6),
        (BLACKJACK, (14, 2, True), 313),
    ],
)
def test_index_is_row_major_over_the_components(space: spaces.Space[Any], observation: Any, index: int) -> None:
    encoder = make_encoder(AutoFeatures(), space)
    active = encoder.encode(observation)
    assert active.tolist() == [index]
    assert active.dtype == np.int64
    assert encoder.n_active == 1


def test_blackjack_indices_equal_ravel_multi_index_and_cover_the_table() -> None:
    encoder = make_encoder(IndexFeatures(), BLACKJACK)
    found = [int(encoder.encode(o)[0]) for o in np.ndindex(32, 11, 2)]
    assert found == [int(np.ravel_multi_index(o, (32, 11, 2))) for o in np.ndindex(32, 11, 2)]
    assert sorted(found) == list(range(encoder.n_features))


@pytest.mark.parametrize("observation", [500, -1, 3.5, "left", None, [1, 2], float("nan"), float("inf"), (500,)])
def test_an_observation_outside_a_discrete_space_is_refused(observation: Any) -> None:
    with pytest.raises(UserError, match="does not fit discrete components of sizes"):
        make_encoder(AutoFeatures(), spaces.Discrete(500)).encode(observation)


@pytest.mark.parametrize("observation", [(1, 2), (1, 2, 2), (1, 2, 0, 0), 7, (1, -1, 0)])
def test_an_observation_outside_a_tuple_space_is_refused(observation: Any) -> None:
    with pytest.raises(UserError, match="does not fit discrete components of sizes"):
        make_encoder(AutoFeatures(), BLACKJACK).encode(observation)


@given(x=st.integers(-2001, 2001).map(lambda i: i / 1001), y=st.integers(-2001, 2001).map(lambda i: i / 1001))
def test_bins_equal_numpy_digitize(x: float, y: float) -> None:
    encoder = BinsEncoder([-1.0, 0.0], [1.0, 1.0], n_bins=[8, 4])
    cells = [
        int(np.clip(np.digitize(value, edges) - 1, 0, len(edges) - 2))
        for value, edges in ((x, np.linspace(-1, 1, 9)), (y, np.linspace(0, 1, 5)))
    ]
    assert encoder.encode([x, y]).tolist() == [cells[0] * 4 + cells[1]]


@given(
    point=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    n_tilings=st.sampled_from([1, 2, 8, 16, 7]),
    n_tiles=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_exactly_one_tile_of_every_tiling_is_active(
    point: tuple[float, float], n_tilings: int, n_tiles: tuple[int, int]
) -> None:
    encoder = TilesEncoder([-1.0, -1.0], [1.0, 1.0], n_tiles=n_tiles, n_tilings=n_tilings)
    active = encoder.encode(point)
    per_tiling = (n_tiles[0] + 1) * (n_tiles[1] + 1)
    assert encoder.n_features == n_tilings * per_tiling
    assert (active // per_tiling).tolist() == list(range(n_tilings))


def test_tiles_share_fewer_tiles_the_farther_apart_and_none_beyond_one_tile() -> None:
    """Generalisation of tile coding reaches exactly one tile width (Sutton & Barto 2018, section 9.5.4)."""
    encoder = TilesEncoder([0.0], [8.0], n_tiles=[8], n_tilings=8)
    shared = [len({*encoder.encode([4.0])} & {*encoder.encode([4.0 + distance / 8])}) for distance in range(10)]
    assert shared == [8, 7, 6, 5, 4, 3, 2, 1, 0, 0]


def test_asymmetric_displacement_moves_different_tilings_along_different_dimensions() -> None:
    """With displacement (1, 3) a diagonal step leaves two tiles, with (1, 1) it would leave one (section 9.5.4)."""
    encoder = TilesEncoder([0.0, 0.0], [8.0, 8.0], n_tiles=[8, 8], n_tilings=8)
    left = [
        len({*encoder.encode([4.05, 4.05])} - {*encoder.encode([4.05 + dx / 8, 4.05 + dy / 8])})
        for dx, dy in ((1, 0), (0, 1), (1, 1))
    ]
    assert left == [1, 1, 2]


def test_tile_coding_represents_a_smooth_function_to_its_resolution() -> None:
    encoder = TilesEncoder([0.0, 0.0], [1.0, 1.0], n_tiles=[8, 8], n_tilings=8)
    rng = np.random.default_rng(0)
    weights = np.zeros(encoder.n_features)
    target = lambda p: np.sin(3 * p[0]) * np.cos(2 * p[1])  # noqa: E731
    for point in rng.random((20_000, 2)):
        active = encoder.encode(point)
        weights[active] += 0.3 / 8 * (target(point) - weights[active].sum())
    errors = [abs(target(point) - weights[encoder.encode(point)].sum()) for point in rng.random((500, 2))]
    assert np.mean(errors) < 0.03


def test_one_bound_may_be_given_and_the_rest_taken_from_the_space() -> None:
    space = gym.make("CartPole-v1").observation_space
    encoder = make_encoder(TilesFeatures(low=(None, -3, None, -3.5), high=(None, 3, None, 3.5)), space)
    assert encoder.settings()["low"] == [*space.low[:1].tolist(), -3.0, *space.low[2:3].tolist(), -3.5]


def test_infinite_bounds_are_refused_with_numbers_to_start_from() -> None:
    space = gym.make("CartPole-v1").observation_space
    with pytest.raises(EnvironmentRuleError, match=r"finite bounds.*`low: \[-4.8, -3.0, -0.4189, -3.0\], high:"):
        make_encoder(TilesFeatures(), space)


@pytest.mark.parametrize(
    ("features", "space", "message"),
    [
        (AutoFeatures(), MOUNTAIN_CAR, r"add `features: \{kind: tiles\}`"),
        (AutoFeatures(), spaces.Box(0, 255, (84, 84, 3), np.uint8), "tabular agents take Discrete"),
        (AutoFeatures(), spaces.Box(-1, 1, (315,)), "tabular agents take Discrete"),
        (AutoFeatures(), spaces.Dict({"a": spaces.Discrete(2)}), "tabular agents take Discrete"),
        (AutoFeatures(), spaces.Tuple([spaces.Discrete(2), UNBOUNDED]), "every part of the Tuple must be Discrete"),
        (AutoFeatures(), spaces.MultiBinary(2000), "need more than 50,000,000 rows"),
        (TilesFeatures(), spaces.Discrete(4), r"need a Box observation space, got Discrete\(4\); use `features"),
        (BinsFeatures(), spaces.Box(0, 255, (84, 84), np.uint8), "images need a deep agent"),
        (BinsFeatures(n_bins=(3,)), MOUNTAIN_CAR, "n_bins must be one number or 2 of them, got 1"),
        (TilesFeatures(low=(0.0,)), MOUNTAIN_CAR, "low must have 2 numbers, one a dimension, got 1"),
        (TilesFeatures(low=(1.0, None)), MOUNTAIN_CAR, "every low must be below its high"),
        (TilesFeatures(n_tiles=100_000), MOUNTAIN_CAR, "rows; use fewer bins or tiles"),
    ],
)
def test_what_cannot_be_encoded_is_refused_with_a_remedy(
    features: FeaturesSettings, space: spaces.Space[Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_encoder(features, space)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ([0.1], "of 2 numbers is expected, got 1"),
        ([float("nan"), 0.0], "holds NaN"),
        ("left", "is not a vector of numbers"),
        ({"a": 1}, "is not a vector of numbers"),
    ],
)
@pytest.mark.parametrize("features", [BinsFeatures(), TilesFeatures()])
def test_a_malformed_box_observation_is_refused(features: FeaturesSettings, observation: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_encoder(features, MOUNTAIN_CAR).encode(observation)


def test_infinite_observations_fall_into_the_border_tiles() -> None:
    encoder = make_encoder(TilesFeatures(), MOUNTAIN_CAR)
    border = encoder.encode([MOUNTAIN_CAR.high[0], MOUNTAIN_CAR.low[1]]).tolist()
    assert encoder.encode([np.inf, -np.inf]).tolist() == border
    assert encoder.encode([1e308, -1e308]).tolist() == border


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize(
    ("features", "space"),
    [
        (AutoFeatures(), spaces.Discrete(48, start=3)),
        (AutoFeatures(), BLACKJACK),
        (AutoFeatures(), spaces.MultiDiscrete([[2, 3], [4, 5]])),
        (BinsFeatures(n_bins=(5, 7)), MOUNTAIN_CAR),
        (TilesFeatures(n_tilings=4), MOUNTAIN_CAR),
    ],
)
def test_an_encoder_rebuilt_from_its_json_is_equal(
    seed: int, features: FeaturesSettings, space: spaces.Space[Any]
) -> None:
    encoder = make_encoder(features, space)
    rebuilt = encoder_from_json(encoder.settings())
    space.seed(seed)
    observation = space.sample()
    assert rebuilt.encode(observation).tolist() == encoder.encode(observation).tolist()
    assert 0 <= encoder.encode(observation).min() <= encoder.encode(observation).max() < encoder.n_features
    assert (rebuilt.n_features, rebuilt.n_active) == (encoder.n_features, encoder.n_active)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"kind": "auto"},
        {"kind": "index", "sizes": [], "starts": []},
        {"kind": "index", "sizes": [2, 3], "starts": [0]},
        {"kind": "index", "sizes": [0], "starts": [0]},
        {"kind": "index", "sizes": [10**400], "starts": [0]},
        {"kind": "bins", "n_bins": [2], "low": [0.0], "high": [None]},
        {"kind": "bins", "n_bins": [2], "low": [0.0], "high": [1e308]},
        {"kind": "bins", "n_bins": [2]},
        {"kind": "tiles", "n_tilings": 10**9, "n_tiles": [2], "low": [0.0], "high": [1.0]},
        {"kind": "tiles", "n_tilings": 8, "n_tiles": [2], "low": [0.0], "high": [1.0], "extra": 1},
    ],
)
def test_json_of_no_encoder_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"features|rows|bound|size"):
        encoder_from_json(value)


def test_settings_are_chosen_by_kind() -> None:
    adapter: TypeAdapter[FeaturesSettings] = TypeAdapter(FeaturesSettings)
    assert adapter.validate_python({"kind": "tiles", "n_tilings": 4}) == TilesFeatures(n_tilings=4)
    with pytest.raises(ValidationError, match="'auto', 'index', 'bins', 'tiles'"):
        adapter.validate_python({"kind": "tile"})
