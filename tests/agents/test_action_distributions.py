"""Action distributions: probabilities and densities by their definitions, and draws that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from policylab.agents.action_distributions import Categorical, Gaussian, MultiCategorical, QValues
from policylab.seeding import generator

LOGITS = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, -30.0]], dtype=np.float32)
ONE = np.array([[0.3, -0.5]], dtype=np.float32)
"""Mean 0.3, standard deviation exp(-0.5)."""

SQUASHED = Gaussian(n_components=1, low=(-2.0,), high=(4.0,), rescale=True, squash=True)
CLIPPED = Gaussian(n_components=1, low=(-2.0,), high=(4.0,), rescale=True)
CUT = Gaussian(n_components=1, low=(-0.5,), high=(0.9,))
FREE = Gaussian(n_components=1)


def density(distribution: Gaussian, action: float) -> float:
    row = np.array([[action]], dtype=distribution.dtype)
    return float(np.exp(distribution.log_probabilities(ONE, row)[0]))


def test_a_categorical_is_the_softmax() -> None:
    found = Categorical(n_actions=3).probabilities(LOGITS)
    assert found == pytest.approx(np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True))


def test_q_values_take_the_first_best_and_explore_uniformly() -> None:
    assert QValues(n_actions=3).probabilities(LOGITS).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert QValues(n_actions=3, epsilon=0.3).probabilities(LOGITS) == pytest.approx(
        np.array([[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    )


def test_listed_actions_start_where_the_environment_starts_to_count() -> None:
    choice = Categorical(n_actions=3, first_action=5)
    assert choice.mode(LOGITS).tolist() == [7, 5]
    assert set(choice.sample(np.repeat(LOGITS, 50, axis=0), generator(0, "draw"))) == {5, 6, 7}
    assert choice.log_probabilities(LOGITS, np.array([7, 5])) == pytest.approx(
        np.log(choice.probabilities(LOGITS)[[0, 1], [2, 0]])
    )
    assert choice.log_probabilities(LOGITS, np.array([4, 8])).tolist() == [-np.inf, -np.inf]


def test_components_are_chosen_independently() -> None:
    choice = MultiCategorical(sizes=(2, 3), first_actions=(0, 10))
    outputs = np.array([[0.0, 1.0, *LOGITS[0]]], dtype=np.float32)
    assert choice.mode(outputs).tolist() == [[1, 12]]
    parts = Categorical(n_actions=2).probabilities(outputs[:, :2]), Categorical(n_actions=3).probabilities(LOGITS[:1])
    expected = {(a, 10 + b): float(parts[0][0, a] * parts[1][0, b]) for a in range(2) for b in range(3)}
    for action, probability in expected.items():
        assert np.exp(choice.log_probabilities(outputs, np.array([action]))) == pytest.approx(probability)
    n = 4_000
    drawn = choice.sample(np.repeat(outputs, n, axis=0), generator(0, "draw"))
    counts = [np.count_nonzero((drawn == action).all(axis=1)) for action in expected]
    assert stats.chisquare(counts, np.array(list(expected.values())) * n).pvalue > 1e-3
    assert choice.log_probabilities(outputs, np.array([[0, 9]])).tolist() == [-np.inf]


@pytest.mark.parametrize("distribution", [SQUASHED, CLIPPED, CUT, FREE], ids=["tanh", "box", "cut", "free"])
def test_density_and_mass_of_a_gaussian_add_up_to_one(distribution: Gaussian) -> None:
    low, high = (distribution.low or (-8.0,))[0], (distribution.high or (8.0,))[0]
    total = integrate.quad(lambda a: density(distribution, a), low + 1e-6, high - 1e-6, limit=200)[0]
    if distribution.low is not None and not distribution.squash:
        on_bounds = density(distribution, low) + density(distribution, high)
        assert on_bounds > 0.01
        total += on_bounds
    assert total == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("distribution", [SQUASHED, CLIPPED, CUT, FREE], ids=["tanh", "box", "cut", "free"])
def test_drawn_actions_follow_the_density(distribution: Gaussian) -> None:
    n = 4_000
    drawn = distribution.sample(np.repeat(ONE, n, axis=0), generator(0, "draw"))[:, 0].astype(np.float64)
    edges = np.quantile(drawn, [0.2, 0.4, 0.6, 0.8])
    low = (distribution.low or (-8.0,))[0]
    below = density(distribution, low) if distribution.low is not None and not distribution.squash else 0.0
    for edge in edges[edges > low]:
        cumulative = below + integrate.quad(lambda a: density(distribution, a), low + 1e-6, edge)[0]
        assert np.mean(drawn <= edge) == pytest.approx(cumulative, abs=4 * 0.5 / np.sqrt(n))


def test_the_censored_mass_is_the_tail_of_the_normal_distribution() -> None:
    deviation = float(np.exp(-0.5))
    assert density(CUT, -0.5) == pytest.approx(stats.norm.cdf(-0.5, 0.3, deviation), rel=1e-5)
    assert density(CUT, 0.9) == pytest.approx(stats.norm.sf(0.9, 0.3, deviation), rel=1e-5)
    assert density(CUT, 0.1) == pytest.approx(stats.norm.pdf(0.1, 0.3, deviation), rel=1e-5)
    assert density(CUT, 1.0) == density(SQUASHED, 4.5) == 0.0


def test_deterministic_actions_stretch_and_clip() -> None:
    assert CLIPPED.mode(ONE).tolist() == [[pytest.approx(-2 + 1.3 * 3)]]
    assert SQUASHED.mode(ONE) == CLIPPED.mode(ONE)
    squashed = SQUASHED.model_copy(update={"squash_mode": True})
    assert squashed.mode(ONE).tolist() == [[pytest.approx(-2 + (np.tanh(0.3) + 1) * 3)]]
    assert CLIPPED.mode(np.array([[7.0, 0.0]], np.float32)).tolist() == [[4.0]]
    assert FREE.mode(ONE).tolist() == [[pytest.approx(0.3)]]


@pytest.mark.parametrize(
    ("distribution", "outputs"),
    [
        (Categorical(n_actions=3), LOGITS),
        (QValues(n_actions=3, epsilon=0.5), LOGITS),
        (MultiCategorical(sizes=(1, 2), first_actions=(0, 0)), LOGITS),
        (Gaussian(n_components=2), np.array([[0.0, 1.0, 0.0, -1.0], [2.0, 3.0, 0.5, 0.1]], np.float32)),
    ],
    ids=["categorical", "q-values", "multi", "gaussian"],
)
def test_a_batch_draws_what_its_rows_draw_one_after_the_other(distribution: Any, outputs: Any) -> None:
    batch = np.repeat(outputs, 20, axis=0)
    one_by_one, rng = [], generator(3, "draw")
    for row in batch:
        one_by_one.append(distribution.sample(row[None], rng)[0].tolist())
    assert distribution.sample(batch, generator(3, "draw")).tolist() == one_by_one


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": (0.0,)}, "needs both bounds"),
        ({"rescale": True}, "needs both bounds"),
        ({"low": (0.0,), "high": (0.0,)}, "must be below"),
        ({"low": (0.0, 0.0), "high": (1.0, 1.0)}, "needs 1 bounds"),
    ],
)
def test_impossible_bounds_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gaussian(n_components=1, **settings)


MASKS = np.array([[True, True, False], [False, True, True]])


def test_masked_choices_are_made_among_the_rest() -> None:
    found = Categorical(n_actions=3).probabilities(LOGITS, MASKS)
    weights = np.exp(LOGITS.astype(np.float64)) * MASKS
    assert found == pytest.approx(weights / weights.sum(axis=1, keepdims=True))
    assert Categorical(n_actions=3).choices(LOGITS, MASKS).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert QValues(n_actions=3, epsilon=0.3).probabilities(LOGITS, MASKS) == pytest.approx(
        np.array([[0.85, 0.15, 0.0], [0.0, 0.85, 0.15]])
    )


@pytest.mark.parametrize("distribution", [SQUASHED, CLIPPED, CUT, FREE], ids=["squashed", "clipped", "cut", "free"])
def test_an_action_clipped_to_limits_has_the_probability_of_being_clipped(distribution: Gaussian) -> None:
    """Its distribution has the draws' own density inside and, on each limit, the share of draws beyond it."""
    limits = (np.array([-0.2], np.float32), np.array([0.6], np.float32))
    rows = np.repeat(ONE, 20_000, axis=0)
    drawn = distribution.sample(rows, generator(3))[:, 0]

    def log_probability(action: np.ndarray) -> float:
        return float(distribution.log_probabilities(ONE, action[None], limits=limits)[0])

    for limit, share in ((limits[0], (drawn <= limits[0]).mean()), (limits[1], (drawn >= limits[1]).mean())):
        assert np.exp(log_probability(limit)) == pytest.approx(share, abs=0.012)
    inside = np.array([0.25], np.float32)
    assert np.exp(log_probability(inside)) == pytest.approx(density(distribution, 0.25))
    assert log_probability(np.array([0.7], np.float32)) == -np.inf
