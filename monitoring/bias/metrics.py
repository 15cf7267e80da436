"""Bias metrics of Amazon SageMaker Clarify, over tables of counts.

q = n(1) / n is a facet's rate of positive outcomes; ' stands for predictions; TPR = TP / (TP + FN), and so on. 0 / 0 is
0, x / 0 is infinite with the sign of x, infinity minus infinity is 0. Every function takes `Counts` with any leading
axes and returns one value for each of them. `Metric` tells a metric's value where there is no bias (its neutral value),
and which facet is subtracted from which.

Source: SageMaker Developer Guide, "Measure pre-training bias" and "Measure post-training data and model bias"; where
the guide and aws/amazon-sagemaker-clarify differ, see `cdd` and `policylab.monitoring.bias.flip_test`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from policylab.monitoring.bias.counts import Counts

Floats = NDArray[np.float64]
Support = Literal["union", "common"]


def ratio(x: Any, y: Any) -> Floats:
    """Return x / y with 0 / 0 = 0 and x / 0 = ±infinity.

    >>> ratio([0.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 2.0]).tolist()
    [0.0, inf, -inf, 0.5]
    """
    x, y = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((x == 0) & (y == 0), 0.0, x / y)


def minus(x: Floats, y: Floats) -> Floats:
    """Return x - y with infinity - infinity = 0.

    >>> minus(np.array([np.inf, 1.0]), np.array([np.inf, 3.0])).tolist()
    [0.0, -2.0]
    """
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(x) & (x == y), 0.0, x - y)


# ------------------------------------------------------------------ of facets and labels


def class_imbalance(counts: Counts) -> Floats:
    """Return CI = (na - nd) / (na + nd)."""
    n = counts.of_facet()
    return ratio(n[..., 0] - n[..., 1], n[..., 0] + n[..., 1])


def difference_in_proportions_of_labels(counts: Counts) -> Floats:
    """Return DPL = qa - qd."""
    q = ratio(counts.of_label()[..., counts.positive].sum(axis=-1), counts.of_facet())
    return q[..., 0] - q[..., 1]


def _label_shares(counts: Counts, support: Support) -> tuple[Floats, Floats]:
    """Return Pa and Pd over the label values, shapes (..., L).

    ``common`` drops what only one facet has without renormalising, as smclarify does: its KL can be negative.
    """
    labels = counts.of_label()
    shares = ratio(labels, labels.sum(axis=-1, keepdims=True))
    if support == "common":
        shares = np.where((labels > 0).all(axis=-2, keepdims=True), shares, 0.0)
    return shares[..., 0, :], shares[..., 1, :]


def _kl(p: Floats, q: Floats) -> Floats:
    """Return Σ p ln(p / q), with 0 ln 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(p > 0, p * np.log(p / q), 0.0).sum(axis=-1))


def kl_divergence(counts: Counts, *, support: Support = "union") -> Floats:
    """Return KL = Σ Pa ln(Pa / Pd), in nats; infinite if d lacks a label value that a has."""
    return _kl(*_label_shares(counts, support))


def jensen_shannon(counts: Counts, *, support: Support = "union") -> Floats:
    """Return JS = ½ (KL(Pa, P) + KL(Pd, P)), P = ½ (Pa + Pd), in nats: 0 to ln 2."""
    p, q = _label_shares(counts, support)
    return (_kl(p, (p + q) / 2) + _kl(q, (p + q) / 2)) / 2


def lp_norm(counts: Counts, *, support: Support = "union", p: float = 2.0) -> Floats:
    """Return LP = (Σ abs(Pa - Pd)^p)^(1/p); Clarify's p is 2."""
    first, second = _label_shares(counts, support)
    found: Floats = (np.abs(first - second) ** p).sum(axis=-1) ** (1.0 / p)
    return found


def total_variation(counts: Counts, *, support: Support = "union") -> Floats:
    """Return TVD = ½ Σ abs(Pa - Pd)."""
    first, second = _label_shares(counts, support)
    return np.asarray(np.abs(first - second).sum(axis=-1) / 2)


def kolmogorov_smirnov(counts: Counts, *, support: Support = "union") -> Floats:
    """Return KS = max abs(Pa - Pd)."""
    first, second = _label_shares(counts, support)
    return np.asarray(np.abs(first - second).max(axis=-1))


def cdd(counts: Counts, *, predicted: bool) -> Floats:
    """Return CDDL, or CDDPL of predictions: Σ_i n_i DD_i / n over the groups i.

    DD_i = n_d,i(0) / n_i(0) - n_d,i(1) / n_i(1): the share of d among the refused minus its share among the accepted,
    as in smclarify's code. The guide's page states n_i(0) / n(0) - n_i(1) / n(1), in which no facet occurs.
    """
    rows = counts.outcomes_by_group(predicted=predicted)  # (..., facet, outcome, group)
    shares = ratio(rows[..., 1, :, :], rows.sum(axis=-3))
    disparity = shares[..., 0, :] - shares[..., 1, :]
    sizes = rows.sum(axis=(-3, -2))
    return ratio((sizes * disparity).sum(axis=-1), sizes.sum(axis=-1))


# ------------------------------------------------------------------ of labels and predictions


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Confusion:
    """TN, FP, FN and TP of both facets, shapes (..., 2), and what is made of them."""

    tn: Floats
    fp: Floats
    fn: Floats
    tp: Floats

    @classmethod
    def of(cls, counts: Counts) -> _Confusion:
        table = counts.confusion()
        return cls(table[..., 0, 0], table[..., 0, 1], table[..., 1, 0], table[..., 1, 1])

    @property
    def accepted(self) -> Floats:
        return self.tp + self.fp

    @property
    def refused(self) -> Floats:
        return self.tn + self.fn

    @property
    def positive(self) -> Floats:
        return self.tp + self.fn

    @property
    def negative(self) -> Floats:
        return self.tn + self.fp

    @property
    def n(self) -> Floats:
        return self.positive + self.negative


def _a_minus_d(values: Floats) -> Floats:
    return minus(values[..., 0], values[..., 1])


def _d_minus_a(values: Floats) -> Floats:
    return minus(values[..., 1], values[..., 0])


def dppl(counts: Counts) -> Floats:
    """Return DPPL = q'a - q'd."""
    of = _Confusion.of(counts)
    return _a_minus_d(ratio(of.accepted, of.n))


def disparate_impact(counts: Counts) -> Floats:
    """Return DI = q'd / q'a; 1 without bias."""
    of = _Confusion.of(counts)
    q = ratio(of.accepted, of.n)
    return ratio(q[..., 1], q[..., 0])


def difference_in_conditional_acceptance(counts: Counts) -> Floats:
    """Return DCA (DCAcc) = na(1) / n'a(1) - nd(1) / n'd(1)."""
    of = _Confusion.of(counts)
    return _a_minus_d(ratio(of.positive, of.accepted))


def difference_in_conditional_rejection(counts: Counts) -> Floats:
    """Return DCR = nd(0) / n'd(0) - na(0) / n'a(0)."""
    of = _Confusion.of(counts)
    return _d_minus_a(ratio(of.negative, of.refused))


def recall_difference(counts: Counts) -> Floats:
    """Return RD = TPRa - TPRd."""
    of = _Confusion.of(counts)
    return _a_minus_d(ratio(of.tp, of.positive))


def specificity_difference(counts: Counts) -> Floats:
    """Return SD = TNRd - TNRa."""
    of = _Confusion.of(counts)
    return _d_minus_a(ratio(of.tn, of.negative))


def difference_in_acceptance_rates(counts: Counts) -> Floats:
    """Return DAR = TPa / n'a(1) - TPd / n'd(1)."""
    of = _Confusion.of(counts)
    return _a_minus_d(ratio(of.tp, of.accepted))


def difference_in_rejection_rates(counts: Counts) -> Floats:
    """Return DRR = TNd / n'd(0) - TNa / n'a(0)."""
    of = _Confusion.of(counts)
    return _d_minus_a(ratio(of.tn, of.refused))


def accuracy_difference(counts: Counts) -> Floats:
    """Return AD = ACCa - ACCd."""
    of = _Confusion.of(counts)
    return _a_minus_d(ratio(of.tp + of.tn, of.n))


def treatment_equality(counts: Counts) -> Floats:
    """Return TE = FNd / FPd - FNa / FPa."""
    of = _Confusion.of(counts)
    return _d_minus_a(ratio(of.fn, of.fp))


def generalized_entropy(counts: Counts, *, alpha: float = 2.0) -> Floats:
    """Return GE = Σ ((b / mean b)^α - 1) / (N α (α - 1)) of the benefits b = y' - y + 1, over both facets.

    NaN if all rows are false negatives: nobody has a benefit then.
    """
    table = counts.confusion().sum(axis=-3)  # (..., outcome, prediction)
    n = table.sum(axis=(-2, -1))
    rows = np.stack([table[..., 1, 0], table[..., 0, 0] + table[..., 1, 1], table[..., 0, 1]], axis=-1)
    benefit = np.array([0.0, 1.0, 2.0])
    mean = ratio((rows * benefit).sum(axis=-1), n)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = (benefit / mean[..., None]) ** alpha - 1.0
        total = (rows * relative).sum(axis=-1) / (n * alpha * (alpha - 1.0))
    return np.where(mean > 0, total, np.nan)


Direction = Literal["a - d", "d - a", "d / a", "both"]


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its function, and how to read it.

    Attributes:
        title: in words, as Clarify writes it.
        function: of counts.
        neutral: its value without bias.
        direction: which facet is compared with which; ``both`` for what has no sign.
    """

    title: str
    function: Callable[[Counts], Floats]
    direction: Direction
    neutral: float = 0.0


PRE_TRAINING: dict[str, Metric] = {
    "CI": Metric("Class Imbalance (CI)", class_imbalance, "a - d"),
    "DPL": Metric("Difference in Positive Proportions in Labels (DPL)", difference_in_proportions_of_labels, "a - d"),
    "KL": Metric("Kullback-Liebler Divergence (KL)", kl_divergence, "both"),
    "JS": Metric("Jensen-Shannon Divergence (JS)", jensen_shannon, "both"),
    "LP": Metric("L-p Norm (LP)", lp_norm, "both"),
    "TVD": Metric("Total Variation Distance (TVD)", total_variation, "both"),
    "KS": Metric("Kolmogorov-Smirnov Distance (KS)", kolmogorov_smirnov, "both"),
    "CDDL": Metric(
        "Conditional Demographic Disparity in Labels (CDDL)", functools.partial(cdd, predicted=False), "d - a"
    ),
}
"""Of facet and label; CDDL needs a group."""

POST_TRAINING: dict[str, Metric] = {
    "DPPL": Metric("Difference in Positive Proportions in Predicted Labels (DPPL)", dppl, "a - d"),
    "DI": Metric("Disparate Impact (DI)", disparate_impact, "d / a", neutral=1.0),
    "DCA": Metric("Difference in Conditional Acceptance (DCAcc)", difference_in_conditional_acceptance, "a - d"),
    "DCR": Metric("Difference in Conditional Rejection (DCR)", difference_in_conditional_rejection, "d - a"),
    "RD": Metric("Recall Difference (RD)", recall_difference, "a - d"),
    "SD": Metric("Specificity Difference (SD)", specificity_difference, "d - a"),
    "DAR": Metric("Difference in Acceptance Rates (DAR)", difference_in_acceptance_rates, "a - d"),
    "DRR": Metric("Difference in Rejection Rates (DRR)", difference_in_rejection_rates, "d - a"),
    "AD": Metric("Accuracy Difference (AD)", accuracy_difference, "a - d"),
    "TE": Metric("Treatment Equality (TE)", treatment_equality, "d - a"),
    "GE": Metric("Generalized Entropy (GE)", generalized_entropy, "both"),
    "CDDPL": Metric(
        "Conditional Demographic Disparity in Predicted Labels (CDDPL)",
        functools.partial(cdd, predicted=True),
        "d - a",
    ),
}
"""Of facet, label and prediction; CDDPL needs a group. FT, of single rows, is `policylab.monitoring.bias.flip_test`."""
