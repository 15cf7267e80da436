"""Reward models from preferences, agreement and consolidation, against known rewards and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from scipy.optimize import check_grad
from scipy.special import expit

from policylab.agents.space_json import space_to_json
from policylab.errors import UserError
from policylab.monitoring.labels.agreement import cohen_kappa, fleiss_kappa
from policylab.monitoring.labels.consolidation import consolidate
from policylab.monitoring.labels.preference_model import (
    PreferenceSettings,
    _Problem,
    differences,
    fit,
    preference,
    without_labels,
)
from policylab.monitoring.labels.reward_training import validated
from policylab.monitoring.labels.segments import Segments, parts_of
from policylab.monitoring.labels.selection import MAX_USES, choose, disagreement

WEIGHTS = np.array([1.0, -2.0, 0.5, 0.25])  # of three numbers observed and one done


def segments(n: int = 60, length: int = 5, seed: int = 0) -> Segments:
    rng = np.random.default_rng(seed)
    seen, done = rng.normal(size=(n, length, 3)), rng.normal(size=(n, length, 1))
    about = {
        "observation_space": space_to_json(spaces.Box(-9, 9, (3,), np.float64)),
        "action_space": space_to_json(spaces.Box(-9, 9, (1,), np.float64)),
    }
    reward = np.concatenate([seen, done], axis=2) @ WEIGHTS
    return Segments(seen, done, seen, reward, np.arange(n), np.zeros(n, dtype=np.int64), about)


def pairs_of(rng: np.random.Generator, n_segments: int, n: int) -> NDArray[np.int64]:
    return np.array([rng.choice(n_segments, 2, replace=False) for _ in range(n)])


def test_a_linear_reward_is_recovered_from_its_own_preferences_up_to_scale() -> None:
    held = segments()
    pairs = pairs_of(np.random.default_rng(1), len(held), 200)
    returns = held.reward.sum(axis=1)
    mu = expit(returns[pairs[:, 0]] - returns[pairs[:, 1]])  # Bradley and Terry's own probabilities
    settings = PreferenceSettings(n_members=1, hidden=0, noise=0.0, ridge=0.0)
    model = fit(held, pairs, mu=mu, parts=parts_of(held.about, ("observation", "action")), settings=settings)
    # Before members are scaled it is the reward itself, since a logistic regression has one minimum.
    assert model.arrays["first"][0] / model.arrays["scale"] == pytest.approx(WEIGHTS, abs=1e-4)
    learned = model.rewards(model.features(held.flat()))
    assert (learned.mean(), learned.std()) == pytest.approx((0.0, 1.0), abs=1e-9)
    assert np.corrcoef(learned, held.reward.ravel())[0, 1] > 1 - 1e-8


def test_hidden_units_learn_a_reward_that_is_not_linear() -> None:
    held = segments(n=120)
    returns = (held.observation[:, :, 0] ** 2).sum(axis=1)
    pairs = pairs_of(np.random.default_rng(2), len(held), 500)
    mu = (returns[pairs[:, 0]] > returns[pairs[:, 1]]).astype(float)
    found = {}
    for hidden in (0, 8):
        settings = PreferenceSettings(n_members=2, hidden=hidden)
        model = fit(held, pairs, mu=mu, parts=parts_of(held.about, ("observation", "action")), settings=settings)
        fresh = segments(n=200, seed=9)
        learned = model.rewards(model.features(fresh.flat()))
        found[hidden] = np.corrcoef(learned, fresh.observation[:, :, 0].ravel() ** 2)[0, 1]
    assert found[8] > 0.8
    assert found[0] < 0.3


@pytest.mark.parametrize("hidden", [0, 3])
def test_the_gradient_is_that_of_the_loss(hidden: int) -> None:
    held, rng = segments(n=12), np.random.default_rng(3)
    x = np.concatenate([held.observation, held.action], axis=2)
    problem = _Problem(x[:6], x[6:], rng.random(6), 0.1, 0.5, hidden)
    flat = rng.normal(size=4 * hidden + 2 * hidden if hidden else 4) * 0.3
    weights = rng.integers(0, 3, 6).astype(float)
    error = check_grad(lambda w: problem.loss(w, weights)[0], lambda w: problem.loss(w, weights)[1], flat)
    assert error < 1e-6


def test_preferences_are_clipped_and_never_surer_than_the_noise() -> None:
    # Christiano et al. (2017): a person errs in 10 % of cases at random, so P stays within [0.05, 0.95].
    assert preference(np.array([-1e9, 0.0, 1e9]), noise=0.1) == pytest.approx([0.05, 0.5, 0.95])
    assert preference(np.array([1.0])) == pytest.approx(np.e / (1 + np.e))
    assert preference(np.array([50.0, 60.0]))[0] == preference(np.array([60.0]))[0]


def test_pairs_are_those_the_ensemble_disagrees_about() -> None:
    held = segments(n=40)
    parts = parts_of(held.about, ("observation", "action"))
    model = without_labels(held, parts=parts, settings=PreferenceSettings())
    chosen = choose(model, held, n_pairs=20, rng=np.random.default_rng(0))
    drawn = pairs_of(np.random.default_rng(1), len(held), 500)
    assert disagreement(model, held, pairs=chosen).min() > np.median(disagreement(model, held, pairs=drawn))
    assert np.bincount(chosen.ravel()).max() <= MAX_USES
    assert len({tuple(sorted(pair)) for pair in chosen.tolist()}) == len(chosen)
    assert (differences(model, held, pairs=chosen) == -differences(model, held, pairs=chosen[:, ::-1])).all()


def test_too_few_segments_are_refused() -> None:
    held = segments(n=3).take(np.array([1, 1, 1]))
    model = without_labels(held, parts=parts_of(held.about, ("observation",)), settings=PreferenceSettings())
    with pytest.raises(UserError, match="two different segments, got 1"):
        choose(model, held, n_pairs=1, rng=np.random.default_rng(0))
    with pytest.raises(UserError, match="noise in"):
        PreferenceSettings(noise=1.0)


def test_cohens_kappa() -> None:
    # Sim and Wright, Physical Therapy 85 (2005), table 1: 22, 2, 4, 11 of 39 patients, kappa 0.67.
    first = ["relevant"] * 24 + ["not"] * 15
    second = ["relevant"] * 22 + ["not"] * 2 + ["relevant"] * 4 + ["not"] * 11
    assert cohen_kappa(first, second) == pytest.approx(0.67, abs=0.005)
    assert cohen_kappa(["a", "b"], ["b", "a"]) == -1.0
    assert np.isnan(cohen_kappa(["a"], ["a"]))


def test_fleiss_kappa() -> None:
    # The worked example of Fleiss' kappa on Wikipedia: 14 raters, 10 subjects, 5 categories, kappa 0.210.
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=0.0005)
    assert np.isnan(fleiss_kappa([[1, 0], [0, 2]]))


# Dawid and Skene (1979), table 1: classes that five anaesthetists gave to 45 patients, the first of them three times.
PATIENTS = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3|222 2 2 2 3
232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1|111 1 1 1 1|111 1 1 1 1
222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2|111 1 1 1 1|111 1 1 1 1|232 2 2 2 2
111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3|111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3
221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1|111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""


def test_consolidation_is_dawid_and_skenes() -> None:
    patients = PATIENTS.replace("|", "\n").split("\n")
    counts = np.zeros((5, 45, 4), dtype=np.int64)
    for i, labels in enumerate(line.split() for line in patients if line.strip()):
        for k, given in enumerate(labels):
            for label in given:
                counts[k, i, int(label) - 1] += 1
    found = consolidate(counts, smoothing=0.0)
    # Their table 2: shares of the classes, and what the first observer says of patients of class 1.
    assert found.shares == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.006)
    assert found.confusion[0, 0] == pytest.approx([0.89, 0.11, 0.0, 0.0], abs=0.006)
    assert found.chances.sum(axis=1) == pytest.approx(1.0)
    assert found.chances[0].argmax() == 0
    assert found.chances[10].argmax() == 3


def test_who_answers_at_random_counts_less() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    said = [np.where(rng.random(200) < right, truth, 1 - truth) for right in (0.95, 0.95, 0.5, 0.5, 0.5)]
    counts = np.eye(3, dtype=np.int64)[np.array(said)]
    found = consolidate(counts)
    majority = counts.sum(axis=0).argmax(axis=1)
    assert (found.chances.argmax(axis=1) == truth).mean() > (majority == truth).mean()
    assert (found.chances.argmax(axis=1) == truth).mean() > 0.93


def test_a_confidence_is_validated_only_by_enough_right_predictions() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 400)
    sure = validated(confidence, confidence > 0.75, accuracy=0.95)
    assert sure.threshold == pytest.approx(np.median(confidence))
    assert sure.accuracy == pytest.approx(0.5, abs=0.06)
    # Clopper and Pearson (1934) of 200 right of 200 at 1 - 0.05 / 4: (0.0125)^(1/200) = 0.9783.
    assert sure.lower_bound == pytest.approx(0.0125 ** (1 / sure.n_above))
    few = validated(confidence[:80], np.ones(80, dtype=bool), accuracy=0.95)
    assert (few.threshold, few.accuracy) == (None, 1.0)  # 86 would do


def test_automatic_labels_are_as_right_as_promised() -> None:
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(300):
        confidence = rng.uniform(0.5, 1.0, 300)
        found = validated(confidence, rng.random(300) < 0.94, accuracy=0.95)
        wrong += found.threshold is not None  # an accuracy of 0.94 may pass for 0.95 in at most 5 % of cases
    assert wrong <= 0.05 * 300 + 3 * np.sqrt(0.05 * 0.95 * 300)
