"""From consolidated labels to a reward model, how well it predicts labels it has not seen, and labels of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from policylab.envs.reward_model import RewardModel
from policylab.errors import UserError
from policylab.monitoring.labels.preference_model import PreferenceSettings, differences, fit, preference
from policylab.monitoring.labels.segments import Segments, parts_of
from policylab.monitoring.labels.store import LabelFolder, Selection, joined

Floats = NDArray[np.float64]
HELD_OUT_SHARE = 0.2
LEVEL = 0.95
"""Confidence of the bound on the accuracy of automatic labels."""
DECIDED = 0.05
"""A preference closer than this to ½ is none: it says nothing about whether a prediction is right."""
SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of the held-out pairs, the most confident ones: the confidences that may be validated."""


@dataclasses.dataclass(frozen=True, slots=True)
class Validation:
    """How well a model predicts the labels of pairs that it was not trained on.

    Attributes:
        n: decided held-out pairs.
        accuracy: share of them it predicts; None without any.
        threshold: least confidence whose predictions are validated; None if there is none.
        n_above: held-out pairs of at least that confidence.
        lower_bound: of their accuracy.
    """

    n: int
    accuracy: float | None
    threshold: float | None
    n_above: int
    lower_bound: float | None


def is_held_out(pair: str) -> bool:
    """Return whether a pair is kept from training, which follows from its id."""
    return int(pair[:8], 16) < HELD_OUT_SHARE * 2**32


def train(folder: LabelFolder, *, parts: tuple[str, ...], settings: PreferenceSettings) -> RewardModel:
    """Return a reward model of a folder's consolidated labels but the held-out ones.

    Args:
        folder: of labels.
        parts: of a step that it sees, from `policylab.monitoring.labels.segments.STEP_PARTS`.
        settings: how it is fitted.

    Raises:
        UserError: there are no consolidated labels, or selections are of different tasks.
    """
    mu = folder.preferences()
    segments, pairs, ids = together(folder.selections(), [pair for pair in mu if not is_held_out(pair)])
    values = np.array([mu[pair] for pair in ids])
    model = fit(segments, pairs, mu=values, parts=parts_of(segments.about, parts), settings=settings)
    model.lineage = {
        "labels": folder.digest(),
        "n_pairs": len(ids),
        "environment": segments.about.get("environment", {}),
        "settings": dataclasses.asdict(settings),
    }
    return model


def together(selections: Sequence[Selection], wanted: Sequence[str]) -> tuple[Segments, NDArray[np.int64], list[str]]:
    """Return the segments of some pairs, their positions, and their ids in that order.

    Raises:
        UserError: selections differ in spaces or in the length of segments.
    """
    asked = set(wanted)
    found = [(pair, selection, row) for pair, selection, row in joined(list(selections)) if pair in asked]
    first = selections[0].segments
    offsets, total = {}, 0
    for selection in selections:
        about = selection.segments.about
        if any(about[name] != first.about[name] for name in ("observation_space", "action_space")):
            raise UserError("the folder holds pairs of different tasks; use a folder for each")
        if selection.segments.length != first.length:
            raise UserError(
                f"the folder holds segments of {first.length} and of {selection.segments.length} steps, whose rewards "
                "cannot be compared; use a folder for each"
            )
        offsets[id(selection)], total = total, total + len(selection.segments)
    names = ("observation", "action", "next_observation", "reward", "episode", "start")
    arrays = {name: np.concatenate([getattr(one.segments, name) for one in selections]) for name in names}
    segments = Segments(**arrays, about=first.about)
    pairs = np.array([selection.pairs[row] + offsets[id(selection)] for _, selection, row in found], dtype=np.int64)
    return segments, pairs.reshape(-1, 2), [pair for pair, _, _ in found]


def predicted(model: RewardModel, segments: Segments, *, pairs: NDArray[np.int64]) -> Floats:
    """Return the chance that the first segment is preferred, the mean over the ensemble, shape (K,)."""
    found: Floats = preference(differences(model, segments, pairs=pairs)).mean(axis=0)
    return found


def validate(
    folder: LabelFolder, model: RewardModel, *, accuracy: float = 0.95, within: Selection | None = None
) -> Validation:
    """Return from which confidence on a model's predictions are right often enough, with 95 % confidence.

    The confidence of a prediction p is max(p, 1 - p). Of the most confident quarter, half, three quarters and all of
    the held-out pairs, the largest group counts whose accuracy is at least ``accuracy`` by its Clopper-Pearson bound,
    for all groups together (Bonferroni).

    Args:
        folder: whose people labelled the held-out pairs; automatic labels do not count.
        model: trained on the others.
        accuracy: that automatic labels must have; Ground Truth's is 0.95.
        within: only the pairs of this selection; None takes all.
    """
    if not 0.5 <= accuracy < 1.0:
        raise UserError(f"accuracy must be in [0.5, 1), got {accuracy:g}")
    people = {pair for own in folder.given().values() for pair in own}
    of = None if within is None else set(within.ids)
    mu = {
        pair: value
        for pair, value in folder.preferences().items()
        if is_held_out(pair) and pair in people and (of is None or pair in of) and abs(value - 0.5) > DECIDED
    }
    if not mu:
        return Validation(0, None, None, 0, None)
    segments, pairs, ids = together(folder.selections(), list(mu))
    p = predicted(model, segments, pairs=pairs)
    right = (p > 0.5) == (np.array([mu[pair] for pair in ids]) > 0.5)
    return validated(np.maximum(p, 1 - p), right, accuracy=accuracy)


def validated(confidence: Floats, right: NDArray[np.bool_], *, accuracy: float) -> Validation:
    """Return the verdict of `validate` on predictions, shape (K,) each."""
    overall = float(right.mean())
    for share in SHARES:
        threshold = float(np.quantile(confidence, 1 - share))
        above = confidence >= threshold
        n, n_right = int(above.sum()), int(right[above].sum())
        bound = float(beta.ppf((1 - LEVEL) / len(SHARES), n_right, n - n_right + 1)) if n_right else 0.0
        if bound >= accuracy:
            return Validation(len(right), overall, threshold, n, bound)
    return Validation(len(right), overall, None, 0, None)


@dataclasses.dataclass(frozen=True, slots=True)
class Automatic:
    """What a model labels by itself.

    Attributes:
        preferences: of pairs, as sure as the validated accuracy, not as the model claims to be.
        n_people: pairs without a label that are left to people.
        validations: of each selection.
    """

    preferences: dict[str, float]
    n_people: int
    validations: tuple[Validation, ...]


def automatic_labels(folder: LabelFolder, model: RewardModel, *, accuracy: float = 0.95) -> Automatic:
    """Return labels for the pairs without a person's that a model is sure of.

    Each selection is validated by its own held-out labels: pairs are chosen because a model was unsure about them, so
    how right it is about one selection says nothing about another. Held-out pairs stay with people.
    """
    labelled = {pair for own in folder.given().values() for pair in own}
    selections = folder.selections()
    given: dict[str, float] = {}
    validations, n_waiting, seen = [], 0, set[str]()
    for selection in selections:
        validation = validate(folder, model, accuracy=accuracy, within=selection)
        validations.append(validation)
        waiting = [pair for pair in dict.fromkeys(selection.ids) if pair not in labelled | seen]
        seen.update(waiting)
        n_waiting += len(waiting)
        asked = [pair for pair in waiting if not is_held_out(pair)]
        if validation.threshold is not None and validation.lower_bound is not None and asked:
            segments, pairs, ids = together([selection], asked)
            p = predicted(model, segments, pairs=pairs)
            sure = np.maximum(p, 1 - p) >= validation.threshold
            mu = np.where(p > 0.5, validation.lower_bound, 1 - validation.lower_bound)
            given |= {pair: float(value) for pair, value, is_sure in zip(ids, mu, sure, strict=True) if is_sure}
    return Automatic(given, n_waiting - len(given), tuple(validations))


def reward_correlation(model: RewardModel, segments: Segments) -> float | None:
    """Return how learned and recorded returns of segments go together, -1 to 1; None where either never changes."""
    learned = model.rewards(model.features(segments.flat())).reshape(len(segments), -1).sum(axis=1)
    recorded = segments.reward.sum(axis=1)
    if learned.std() < 1e-12 or recorded.std() < 1e-12:
        return None
    return float(np.corrcoef(learned, recorded)[0, 1])


def summary(model: RewardModel, folder: LabelFolder, *, validation: Validation) -> dict[str, Any]:
    """Return what is known of a model: pairs, members, accuracy, and its agreement with the recorded rewards."""
    segments, _, _ = together(folder.selections(), [])
    return {
        "n_pairs": model.lineage["n_pairs"],
        "n_members": len(model.arrays["first"]),
        "validation": dataclasses.asdict(validation),
        "correlation_with_recorded_returns": reward_correlation(model, segments),
    }
