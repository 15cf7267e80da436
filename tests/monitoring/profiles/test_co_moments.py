"""Correlations of normal scores: exact merges, blind to margins, with missing cells, and with the error of streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from policylab.monitoring.profiles.cells import of_numbers, of_values
from policylab.monitoring.profiles.co_moments import CoMoments
from policylab.monitoring.profiles.profile import Profile

Floats = NDArray[np.float64]


def pair(n: int, r: float, *, seed: int, phi: float = 0.0) -> dict[str, Floats]:
    noise = np.random.default_rng(seed).standard_normal((2, n + 500))
    x, y = lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], noise, axis=1)[:, 500:]
    return {"x": x, "y": r * x + np.sqrt(1 - r * r) * y}


def moments(table: dict[str, Floats], like: CoMoments | None = None, *, pieces: int = 1) -> CoMoments:
    found = CoMoments() if like is None else like.alike()
    for part in np.array_split(np.arange(len(table["x"])), pieces):
        found.update({name: of_numbers(values[part]) for name, values in table.items()})
    found.settle()
    return found


def r_of(found: CoMoments) -> float:
    return float(found.correlation()[0, 1])


def test_pieces_and_merges_make_the_same_of_the_same_rows() -> None:
    baseline, table = moments(pair(5_000, 0.5, seed=0)), pair(12_000, 0.3, seed=1)
    whole, pieces = moments(table, baseline), moments(table, baseline, pieces=37)
    merged = moments({name: values[:5_000] for name, values in table.items()}, baseline)
    merged.merge(moments({name: values[5_000:] for name, values in table.items()}, baseline))
    for found in (pieces, merged):
        assert found.sums == pytest.approx(whole.sums, rel=1e-9, abs=1e-9)
        assert r_of(found) == pytest.approx(r_of(whole), abs=1e-9)
    assert whole.sums[0, 0, 1] == whole.worth[0, 1] == 12_000
    assert merged.variance[0, 1] == pytest.approx(whole.variance[0, 1], rel=0.2)
    assert merged.degrees[0, 1] > whole.degrees[0, 1]


def test_of_many_rows_some_count_for_the_rest() -> None:
    table = pair(200_000, 0.5, seed=2)
    found = moments(table)
    assert found.sums[0, 0, 1] == pytest.approx(200_000)
    assert 16_384 < found.worth[0, 1] < 40_000
    assert r_of(found) == pytest.approx(np.corrcoef(table["x"], table["y"])[0, 1], abs=0.02)


def changed(x: Floats, margin: str) -> Floats:
    changes = {"shift": x + 1.0, "scale": 3.0 * x, "outliers": np.where(np.arange(len(x)) % 500 == 0, 1e9, x)}
    return changes[margin]


@pytest.mark.parametrize("shape", [lambda x: x, np.exp, lambda x: np.sinh(3 * x)], ids=["normal", "lognormal", "heavy"])
def test_the_shape_of_a_margin_changes_no_correlation(shape: Any) -> None:
    plain = [pair(8_000, r, seed=seed) for seed, r in enumerate((0.5, 0.5))]
    shaped = [{"x": shape(table["x"]), "y": table["y"]} for table in plain]
    first, other = moments(plain[0]), moments(shaped[0])
    assert r_of(other) == pytest.approx(r_of(first), abs=0.01)
    assert r_of(moments(shaped[1], other)) == pytest.approx(r_of(moments(plain[1], first)), abs=0.01)


@pytest.mark.parametrize("margin", ["shift", "scale", "outliers"])
def test_a_drifted_margin_is_no_drifted_correlation(margin: str) -> None:
    baseline, table = moments(pair(8_000, 0.5, seed=0)), pair(8_000, 0.5, seed=1)
    window = {"x": changed(table["x"], margin), "y": table["y"]}
    assert r_of(moments(window, baseline)) == pytest.approx(r_of(moments(table, baseline)), abs=0.05)


def test_a_row_that_lacks_one_of_two_columns_says_nothing_of_them() -> None:
    table = pair(6_000, 0.7, seed=3)
    gaps = np.arange(6_000) % 3 == 0
    found = CoMoments()
    cells = of_values([None if gap else float(value) for gap, value in zip(gaps, table["x"], strict=True)])
    found.update({"x": cells, "y": of_numbers(np.where(np.arange(6_000) % 7 == 0, np.nan, table["y"]))})
    both = ~gaps & (np.arange(6_000) % 7 != 0)
    assert found.correlation()[0, 1] == pytest.approx(
        r_of(moments({name: values[both] for name, values in table.items()})), abs=0.01
    )
    assert found.sums[0, 0, 1] == both.sum()


@pytest.mark.parametrize("phi", [0.0, 0.9, -0.9])
def test_the_error_is_that_of_many_streams(phi: float) -> None:
    found = [moments(pair(4_000, 0.4, seed=seed, phi=phi)) for seed in range(80)]
    scatter = np.std([r_of(one) for one in found])
    stated = np.sqrt(np.mean([one.variance[0, 1] / one.worth[0, 1] for one in found]))
    assert stated == pytest.approx(scatter, rel=0.3)


def test_stored_moments_are_read_back_and_those_of_other_scores_are_not_mixed(tmp_path: Path) -> None:
    profiles = []
    for seed in range(2):
        one = Profile()
        one.update({name: of_numbers(values) for name, values in pair(2_000, 0.5, seed=seed).items()})
        one.save(tmp_path / f"{seed}.npz")
        profiles.append(Profile.load(tmp_path / f"{seed}.npz"))
        assert profiles[-1].pairs.scores == one.pairs.scores
        assert profiles[-1].pairs.correlation() == pytest.approx(one.pairs.correlation())
    again = Profile(like=profiles[0])
    again.merge(profiles[0])
    assert again.pairs.correlation() == pytest.approx(profiles[0].pairs.correlation())
    again.merge(profiles[1])
    assert again.pairs.correlation().shape == (0, 0)
