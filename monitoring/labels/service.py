"""`LabelService`: what the page asks for: the next pair of a labeller, a label, the last label taken back."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from policylab.errors import UserError
from policylab.monitoring.labels.agreement import cohen_kappa, fleiss_kappa
from policylab.monitoring.labels.clips import Clip, Studio
from policylab.monitoring.labels.store import CHOICES, DECISIVE, LABELLER, WITHDRAWN, LabelFolder, joined

MIN_IN_COMMON = 2


class LabelService:
    """Serves one folder of pairs to any number of labellers, each of whom is shown every pair once.

    Args:
        folder: pairs that a reward model has labelled already are shown to nobody.

    Raises:
        UserError: it holds no pairs.
    """

    def __init__(self, folder: LabelFolder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._studio = Studio()
        automatic = folder.automatic()
        self._pairs = {
            pair: (selection, row) for pair, selection, row in joined(folder.selections()) if pair not in automatic
        }
        self._given = folder.given()

    def standing(self, labeller: str) -> dict[str, Any]:
        """Return the next pair of a labeller, None after the last one, and how many are done.

        Raises:
            UserError: the name is none.
        """
        if not LABELLER.fullmatch(labeller):
            raise UserError("a labeller's name has up to 32 letters, digits, '.', '_' and '-'")
        with self._lock:
            done = [pair for pair in self._given.get(labeller, {}) if pair in self._pairs]
        waiting = [pair for pair in self._pairs if pair not in set(done)]
        return {
            "pair": waiting[0] if waiting else None,
            "following": waiting[1] if len(waiting) > 1 else None,
            "n_done": len(done),
            "n_pairs": len(self._pairs),
            "can_undo": bool(done),
        }

    def give(self, pair: str, *, labeller: str, choice: str) -> None:
        """Take a label.

        Raises:
            UserError: there is no such pair or choice.
            StorageError: it could not be written, and was not given.
        """
        if pair not in self._pairs:
            raise UserError("there is no such pair; load the page again")
        if choice not in CHOICES:
            raise UserError(f"a label is one of {', '.join(CHOICES)}")
        with self._lock:
            self._folder.give(pair, labeller=labeller, choice=choice)
            own = self._given.setdefault(labeller, {})
            own.pop(pair, None)
            own[pair] = next(known for known in CHOICES if known == choice)

    def undo(self, labeller: str) -> str | None:
        """Take the last label of a labeller back; return its pair, or None without any.

        Raises:
            StorageError: that could not be written.
        """
        with self._lock:
            own = self._given.get(labeller, {})
            pair = next((pair for pair in reversed(own) if pair in self._pairs), None)
            if pair is not None:
                self._folder.give(pair, labeller=labeller, choice=WITHDRAWN)
                del own[pair]
            return pair

    def clip(self, pair: str, side: int) -> Clip:
        """Return the picture of the first (0) or second (1) segment of a pair.

        Raises:
            UserError: there is no such pair.
        """
        if pair not in self._pairs or side not in (0, 1):
            raise UserError("there is no such clip; load the page again")
        selection, row = self._pairs[pair]
        return self._studio.clip(selection.segments, int(selection.pairs[row, side]))


def agreement(given: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return how labellers agree, as JSON: Cohen's kappa of each two, Fleiss' of all on pairs that all have labelled.

    Args:
        given: labeller -> pair -> choice. Skipped pairs are no labels.
    """
    decided = {
        name: {pair: choice for pair, choice in own.items() if choice in DECISIVE} for name, own in given.items()
    }
    decided = {name: own for name, own in sorted(decided.items()) if own}
    both = []
    for one, other in combinations(decided, 2):
        common = [pair for pair in decided[one] if pair in decided[other]]
        kappa = cohen_kappa([decided[one][pair] for pair in common], [decided[other][pair] for pair in common])
        both.append({"labellers": [one, other], "n_pairs": len(common), "cohen_kappa": _usable(kappa, common)})
    everybody = sorted(set.intersection(*(set(own) for own in decided.values()))) if len(decided) > 1 else []
    counts = [[sum(own[pair] == choice for own in decided.values()) for choice in DECISIVE] for pair in everybody]
    kappa = fleiss_kappa(np.array(counts)) if counts else math.nan
    return {
        "n_labels": {name: len(own) for name, own in decided.items()},
        "two": both,
        "all": {"n_pairs": len(everybody), "fleiss_kappa": _usable(kappa, everybody)},
    }


def _usable(kappa: float, pairs: Sequence[str]) -> float | None:
    return kappa if math.isfinite(kappa) and len(pairs) >= MIN_IN_COMMON else None
