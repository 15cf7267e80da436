"""From the labels of several people to one preference per pair: expectation maximisation over how reliable each is.

With T_ij the chance that pair i is of choice j, labeller k chooses l for a pair of choice j with probability π_jl(k),
and choices have the shares p_j:

    M: p_j = Σ_i T_ij / I,   π_jl(k) ∝ smoothing + Σ_i T_ij n_il(k)
    E: T_ij ∝ p_j Π_k Π_l π_jl(k)^n_il(k)

from T_ij = share of the labels of pair i that are j. Source: Dawid and Skene, Applied Statistics 28 (1979), section 3.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.errors import UserError
from policylab.files import write_atomic
from policylab.monitoring.labels.store import DECISIVE, LabelFolder, joined

Floats = NDArray[np.float64]
SMOOTHING = 1.0
"""Wrong labels, and half the right ones, that everybody is taken to have given: few labels make nobody infallible."""
TOLERANCE = 1e-10
MAX_ROUNDS = 1_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Consolidation:
    """The result.

    Attributes:
        chances: T, that each pair is of each choice, shape (I, J).
        shares: p, of the choices, shape (J,).
        confusion: π, what each labeller chooses for each true choice, shape (K, J, J).
    """

    chances: Floats
    shares: Floats
    confusion: Floats


def consolidate(counts: NDArray[np.int64], *, smoothing: float = SMOOTHING) -> Consolidation:
    """Return what labels say together.

    Args:
        counts: n_il(k), how often labeller k chose l for pair i, shape (K, I, J); each pair has a label.
        smoothing: added to the counts behind π; 0 is Dawid and Skene's.
    """
    total = counts.sum(axis=0)
    chances = total / total.sum(axis=1, keepdims=True)
    shares, confusion = _learned(counts, chances, smoothing=smoothing)
    for _ in range(MAX_ROUNDS):
        with np.errstate(divide="ignore"):
            logs = np.log(shares) + np.einsum("kil,kjl->ij", counts, np.maximum(np.log(confusion), -1e9))
        found = np.exp(logs - logs.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
        moved = float(np.abs(found - chances).max())
        chances = found
        shares, confusion = _learned(counts, chances, smoothing=smoothing)
        if moved < TOLERANCE:
            break
    return Consolidation(chances, shares, confusion)


def _learned(counts: NDArray[np.int64], chances: Floats, *, smoothing: float) -> tuple[Floats, Floats]:
    n_choices = chances.shape[1]
    # Somebody unknown is taken to be right twice as often as wrong: otherwise a single label would say nothing.
    right = np.eye(n_choices)
    prior = smoothing * (2.0 * right + (1.0 - right) / max(1, n_choices - 1))
    confusion = np.einsum("ij,kil->kjl", chances, counts) + prior
    sums = confusion.sum(axis=2, keepdims=True)
    confusion = np.divide(confusion, sums, out=np.full_like(confusion, 1.0 / n_choices), where=sums > 0)
    return chances.mean(axis=0), confusion


def consolidate_folder(folder: LabelFolder) -> dict[str, Any]:
    """Write the preferences of a folder's pairs; return how many, and how reliable each labeller is, as JSON.

    The preference of a pair is T(first) + T(equal) / 2. Where nobody has labelled a pair, an automatic label counts.

    Raises:
        UserError: there is no label.
        StorageError: the write failed.
    """
    known = {pair for pair, _, _ in joined(folder.selections())}
    given = {
        name: {pair: choice for pair, choice in own.items() if choice in DECISIVE and pair in known}
        for name, own in folder.given().items()
    }
    labellers = sorted(name for name, own in given.items() if own)
    if not labellers:
        raise UserError(f"{folder.path} holds no labels; give some with `policylab labels serve {folder.path}`")
    pairs = sorted({pair for name in labellers for pair in given[name]})
    counts = np.array(
        [[[given[name].get(pair) == choice for choice in DECISIVE] for pair in pairs] for name in labellers]
    )
    found = consolidate(counts.astype(np.int64))
    mu = found.chances[:, 0] + found.chances[:, 2] / 2
    automatic = {pair: value for pair, value in folder.automatic().items() if pair in known and pair not in set(pairs)}
    preferences = {**automatic, **dict(zip(pairs, mu.clip(0.0, 1.0).tolist(), strict=True))}
    write_atomic(folder.consolidated_file, json.dumps({"preferences": preferences}, indent=1) + "\n")
    right = np.einsum("j,kjj->k", found.shares, found.confusion)
    return {
        "n_people": len(pairs),
        "n_automatic": len(automatic),
        "reliability": dict(zip(labellers, right.tolist(), strict=True)),
    }
