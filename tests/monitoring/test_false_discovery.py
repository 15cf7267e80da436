"""False-discovery control: the example of the paper, an independent implementation, and what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from policylab.errors import UserError
from policylab.monitoring.false_discovery import adjusted_p_values, discoveries
from policylab.monitoring.profiles.distances import linf_factor, linf_p_value

# Benjamini and Hochberg (1995), section 3.2: thrombolysis of patients with myocardial infarction.
P_VALUES = [
    0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0,
]  # fmt: skip


def test_the_example_of_the_paper() -> None:
    # "The hypotheses that are rejected are four": Bonferroni's 0.05 / 15 leaves three.
    assert discoveries(P_VALUES, rate=0.05).tolist() == [True] * 4 + [False] * 11
    assert sum(p <= 0.05 / 15 for p in P_VALUES) == 3
    # Under any dependence the rate is divided by 1 + 1/2 + ... + 1/15 = 3.318: 0.0095 > 4/15 0.05/3.318 = 0.0040.
    assert discoveries(P_VALUES, rate=0.05, dependent=True).tolist() == [True] * 3 + [False] * 12


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), st.booleans())
def test_it_is_scipys(p_values: list[float], dependent: bool) -> None:
    expected = false_discovery_control(p_values, method="by" if dependent else "bh")
    assert adjusted_p_values(p_values, dependent=dependent) == pytest.approx(expected, abs=1e-12)


def test_the_share_of_false_discoveries_is_as_asked() -> None:
    # Theorem 1: of independent tests the rate is exactly rate * n_true / n = 0.1 * 15 / 20.
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(4_000):
        p_values = np.r_[rng.random(15), rng.random(5) * 1e-3]
        found = discoveries(p_values, rate=0.1)
        shares.append(found[:15].sum() / max(1, found.sum()))
    assert np.mean(shares) == pytest.approx(0.075, abs=4 * np.std(shares) / np.sqrt(len(shares)))


@pytest.mark.parametrize("wrong", [[0.5, float("nan")], [1.5], [-0.1], [[0.1]]])
def test_what_is_no_p_value_is_refused(wrong: list[float]) -> None:
    with pytest.raises(UserError, match=r"list of numbers in \[0, 1\]"):
        adjusted_p_values(wrong)
    with pytest.raises(UserError, match="between 0 and 1, got 1"):
        discoveries([0.5], rate=1.0)


def test_no_test_no_discovery() -> None:
    assert not len(discoveries([], rate=0.1))


def test_the_bound_of_a_distance_is_massarts() -> None:
    # Massart (1990): P(D > c sqrt(1/n + 1/m)) <= 2 exp(-2 c^2); the factor of a rate leads back to the rate.
    spread = 1 / 100 + 1 / 400
    assert linf_p_value(linf_factor(0.003) * np.sqrt(spread), spread=spread) == pytest.approx(0.003)
    assert linf_p_value(0.3, spread=spread, error=0.1) == pytest.approx(linf_p_value(0.2, spread=spread))
    assert linf_p_value(0.05, spread=spread, error=0.1) == 1.0
