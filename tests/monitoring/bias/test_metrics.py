"""Every bias metric by a number of AWS's documentation, or by hand where it prints none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from policylab.errors import UserError
from policylab.monitoring.bias import metrics as m
from policylab.monitoring.bias.counts import Counts, tabulated
from policylab.monitoring.bias.flip_test import flip_test

Confusion = tuple[int, int, int, int]  # TP, FP, FN, TN


def predictions(a: Confusion, d: Confusion) -> Counts:
    """Return the counts of two confusion matrices."""
    table = np.array([[[tn, fp], [fn, tp]] for tp, fp, fn, tn in (a, d)], dtype=np.float64)
    return Counts(table[..., None], np.array([False, True]))


def labels(a: list[float], d: list[float], *, positive: int = -1) -> Counts:
    """Return the counts of label values of two facets."""
    table = np.array([a, d], dtype=np.float64)[:, :, None, None] * np.array([1.0, 0.0])[None, None, :, None]
    chosen = np.zeros(len(a), dtype=bool)
    chosen[positive] = True
    return Counts(table, chosen)


# ------------------------------------------------------------------ of labels


def test_class_imbalance_and_dpl_by_hand() -> None:
    counts = labels([20, 60], [15, 5])  # na = 80, nd = 20
    assert m.class_imbalance(counts) == pytest.approx(0.6)
    assert m.difference_in_proportions_of_labels(counts) == pytest.approx(0.75 - 0.25)


def test_kl_of_the_guide() -> None:
    # "Kullback-Leibler Divergence": Pa = (0.8, 0.2), Pd = (0.3, 0.7): 0.8 ln(0.8/0.3) + 0.2 ln(0.2/0.7) = 0.53
    assert m.kl_divergence(labels([0.8, 0.2], [0.3, 0.7])) == pytest.approx(0.53, abs=0.005)
    assert np.isinf(m.kl_divergence(labels([1, 1], [2, 0])))


def test_ks_of_the_guide() -> None:
    # "Kolmogorov-Smirnov": labels rejected, waitlisted, accepted: a (.4, .4, .2), d (.2, .1, .7): max(.2, .3, .5) = .5
    assert m.kolmogorov_smirnov(labels([0.4, 0.4, 0.2], [0.2, 0.1, 0.7])) == pytest.approx(0.5)


def test_js_lp_and_tvd_by_hand() -> None:
    counts = labels([0.4, 0.4, 0.2], [0.2, 0.1, 0.7])
    # M = (.3, .25, .45): ½ (.4 ln(4/3) + .4 ln 1.6 + .2 ln(4/9)) + ½ (.2 ln(2/3) + .1 ln .4 + .7 ln(14/9)) = .093337
    of_a = 0.4 * np.log(4 / 3) + 0.4 * np.log(1.6) + 0.2 * np.log(4 / 9)
    of_d = 0.2 * np.log(2 / 3) + 0.1 * np.log(0.4) + 0.7 * np.log(14 / 9)
    assert m.jensen_shannon(counts) == pytest.approx((of_a + of_d) / 2)
    assert m.jensen_shannon(counts) == pytest.approx(jensenshannon([0.4, 0.4, 0.2], [0.2, 0.1, 0.7]) ** 2)
    assert m.lp_norm(counts) == pytest.approx(np.sqrt(0.04 + 0.09 + 0.25))
    assert m.lp_norm(counts, p=1.0) == pytest.approx(1.0)
    assert m.total_variation(counts) == pytest.approx(0.5)
    assert m.jensen_shannon(labels([1, 0], [0, 1])) == pytest.approx(np.log(2))


def test_support_of_labels_that_one_facet_lacks() -> None:
    # {a, a, b} against {c, c, a}: smclarify compares on "a" alone, without renormalising.
    counts = labels([2, 1, 0], [1, 0, 2])
    assert m.total_variation(counts) == pytest.approx(0.6667, abs=5e-5)
    assert m.total_variation(counts, support="common") == pytest.approx(0.1667, abs=5e-5)
    assert m.kl_divergence(labels([1, 2], [2, 0]), support="common") < 0


def test_cdd_of_the_guide() -> None:
    # "Conditional Demographic Disparity": 46 % of the rejected and 32 % of the accepted are women: DD = 0.14.
    # One group is the unconditional disparity.
    table = np.zeros((2, 2, 2, 1))
    table[0, :, 0, 0], table[1, :, 0, 0] = (54, 68), (46, 32)
    counts = Counts(table, np.array([False, True]))
    assert m.cdd(counts, predicted=False) == pytest.approx(0.14)


def test_cdd_of_predictions_by_hand() -> None:
    # Group 0: predicted refusals 30 of a and 10 of d, acceptances 10 and 10: DD = 10/40 - 10/20 = -1/4; group 1:
    # refusals 5 and 15, acceptances 15 and 5: DD = 15/20 - 5/20 = 1/2; CDDPL = (60 * -1/4 + 40 * 1/2) / 100 = 1/20.
    # The labels are the opposite of the predictions, so that CDDL is (60 * 1/4 + 40 * -1/2) / 100.
    table = np.zeros((2, 2, 2, 2))
    for group, (refused, accepted) in enumerate([((30, 10), (10, 10)), ((5, 15), (15, 5))]):
        table[:, 1, 0, group], table[:, 0, 1, group] = refused, accepted
    counts = Counts(table, np.array([False, True]))
    assert m.cdd(counts, predicted=True) == pytest.approx(0.05)
    assert m.cdd(counts, predicted=False) == pytest.approx(-0.05)


def test_cdd_undoes_simpsons_paradox() -> None:
    # Two departments treat both facets alike, d applies to the harder one: DD > 0, CDD = 0.
    table = np.zeros((2, 2, 2, 2))
    table[0, :, 0, 0], table[1, :, 0, 0] = (20, 80), (5, 20)
    table[0, :, 0, 1], table[1, :, 0, 1] = (20, 5), (80, 20)
    counts = Counts(table, np.array([False, True]))
    merged = Counts(table.sum(axis=-1, keepdims=True), counts.positive)
    assert m.cdd(merged, predicted=False) == pytest.approx(85 / 125 - 40 / 125)
    assert m.cdd(counts, predicted=False) == pytest.approx(0.0)


# ------------------------------------------------------------------ of predictions


def test_disparate_impact_of_the_guide() -> None:
    # q'd / q'a = 0.5 / 0.6, printed as 0.8.
    counts = predictions((60, 0, 0, 40), (50, 0, 0, 50))
    assert m.disparate_impact(counts) == pytest.approx(0.8333, abs=5e-5)
    assert m.dppl(counts) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("a", "d", "expected"),
    # na(1) / n'a(1) - nd(1) / n'd(1): 70/60 - 20/30 = 1/2, and 50/60 - 40/30 = -1/2.
    [((60, 0, 10, 0), (20, 10, 0, 0), 0.5), ((50, 10, 0, 0), (30, 0, 10, 0), -0.5)],
)
def test_conditional_acceptance_of_the_guide(a: Confusion, d: Confusion, expected: float) -> None:
    assert m.difference_in_conditional_acceptance(predictions(a, d)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("a", "d", "expected"),
    # nd(0) / n'd(0) - na(0) / n'a(0): 40/30 - 50/60 = 1/2, and 20/30 - 70/60 = -1/2.
    [((0, 0, 10, 50), (0, 10, 0, 30), 0.5), ((0, 10, 0, 60), (0, 0, 10, 20), -0.5)],
)
def test_conditional_rejection_of_the_guide(a: Confusion, d: Confusion, expected: float) -> None:
    assert m.difference_in_conditional_rejection(predictions(a, d)) == pytest.approx(expected)


CITED: list[tuple[Callable[[Counts], NDArray[np.float64]], Confusion, Confusion, float, float]] = [
    # RD: 65/70 - 20/27 = 0.19; SD: 18/23 - 20/30 = 0.1159 (the same matrices).
    (m.recall_difference, (65, 10, 5, 20), (20, 5, 7, 18), 0.19, 0.005),
    (m.specificity_difference, (65, 10, 5, 20), (20, 5, 7, 18), 0.1159, 5e-5),
    # DAR: 35/70 - 40/100 = 0.10; DRR: 40/50 - 80/100 = 0.
    (m.difference_in_acceptance_rates, (35, 35, 0, 0), (40, 60, 0, 0), 0.10, 1e-9),
    (m.difference_in_rejection_rates, (0, 0, 20, 80), (0, 0, 10, 40), 0.0, 1e-9),
    # AD: (60 + 10) / 100 - (40 + 10) / 100 = 0.2.
    (m.accuracy_difference, (60, 10, 20, 10), (40, 10, 40, 10), 0.2, 1e-9),
    # TE: 5/2 - 8/6 = 1.167.
    (m.treatment_equality, (0, 6, 8, 0), (0, 2, 5, 0), 1.167, 5e-4),
]


@pytest.mark.parametrize(("metric", "a", "d", "expected", "tolerance"), CITED)
def test_numbers_of_the_guide(
    metric: Callable[[Counts], NDArray[np.float64]], a: Confusion, d: Confusion, expected: float, tolerance: float
) -> None:
    assert metric(predictions(a, d)) == pytest.approx(expected, abs=tolerance)
    assert metric(predictions(a, a)) == pytest.approx(0.0)  # equal facets have no bias


def test_generalized_entropy_by_hand() -> None:
    # b: one false negative (0), two right (1), one false positive (2); mean 1; Σ (b² - 1) / (4 * 2) = 2 / 8
    assert m.generalized_entropy(predictions((1, 1, 1, 1), (0, 0, 0, 0))) == pytest.approx(0.25)
    assert m.generalized_entropy(predictions((5, 0, 0, 5), (3, 0, 0, 1))) == pytest.approx(0.0)
    assert np.isnan(m.generalized_entropy(predictions((0, 0, 3, 0), (0, 0, 2, 0))))


def test_divisions_by_zero() -> None:
    nobody = predictions((0, 0, 5, 5), (0, 0, 5, 5))
    assert m.disparate_impact(nobody) == 0.0  # 0 / 0
    assert np.isposinf(m.disparate_impact(predictions((0, 0, 5, 5), (5, 0, 0, 5))))  # x / 0
    assert m.treatment_equality(predictions((0, 0, 5, 5), (0, 0, 5, 5))) == 0.0  # infinity - infinity
    assert np.isneginf(m.treatment_equality(predictions((0, 0, 5, 5), (0, 1, 5, 5))))


def test_every_metric_works_on_many_tables_at_once() -> None:
    rng = np.random.default_rng(0)
    tables = rng.integers(1, 50, (7, 2, 2, 2, 3)).astype(float)
    for metric in (*m.PRE_TRAINING.values(), *m.POST_TRAINING.values()):
        together = metric.function(Counts(tables, np.array([False, True])))
        one_by_one = [metric.function(Counts(table, np.array([False, True]))) for table in tables]
        assert together == pytest.approx(np.array(one_by_one)), metric.title


def test_tabulating_rows() -> None:
    counts = tabulated(
        np.array([True, False, True, False]), np.array([0, 2, 2, 1]), positive=np.array([False, False, True]),
        predicted=np.array([True, True, False, False]), group=np.array([0, 1, 1, 0]),
    )  # fmt: skip
    assert counts.of_facet().tolist() == [2, 2]
    assert counts.of_label().tolist() == [[0, 1, 1], [1, 0, 1]]
    assert counts.confusion().tolist() == [[[1, 0], [0, 1]], [[0, 1], [1, 0]]]


# ------------------------------------------------------------------ single rows


def test_the_flip_test_follows_the_guide_and_its_sign() -> None:
    # All of a (six rows, so one neighbour decides) are accepted, all of d refused: F+ = nd, FT = 1; smclarify gives -1.
    features = np.arange(10.0)[:, None]
    facet_d, predicted = np.arange(10) >= 6, np.arange(10) < 6
    assert flip_test(features, facet_d, predicted=predicted).value == 1.0
    assert flip_test(features, facet_d, predicted=predicted, as_smclarify=True).value == -1.0
    assert flip_test(features, facet_d, predicted=~predicted).value == -1.0


def test_five_neighbours_decide_by_majority() -> None:
    # a: eleven rows at 0 .. 10, accepted below 3; d at 2 sees 0 .. 4: accepted 0, 1, 2 of five; d at 9: none.
    features = np.r_[np.arange(11.0), 2.0, 9.0][:, None]
    facet_d = np.arange(13) >= 11
    predicted = np.r_[np.arange(11) < 3, [False, True]]
    found = flip_test(features, facet_d, predicted=predicted)
    assert (found.n_worse, found.n_better, found.value) == (1, 1, 0.0)


def test_the_flip_test_needs_both_facets() -> None:
    with pytest.raises(UserError, match="rows of both facets"):
        flip_test(np.ones((3, 1)), np.zeros(3, dtype=bool), predicted=np.ones(3, dtype=bool))
