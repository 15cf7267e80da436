"""Warnings of vanishing and exploding gradients, from the norms that reports carry.

Adam's steps do not depend on the size of gradients, and losses differ by orders of magnitude between problems, so a
norm alone says nothing. What does is its size beside others:

- a layer's gradient **vanishes** when, several times in a row, it is less than a ten-thousandth of the largest among
  the layers between it and the output (Glorot and Bengio 2010, section 4.2, compare layers likewise);
- it **explodes** when it is no finite number, or a thousand times its own median so far (Pascanu et al. 2013).
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from policylab.agents.rllib.layers import chain

VANISHING = 1e-4
EXPLODING = 1e3
IN_A_ROW = 3
"""Measurements below `VANISHING` before it is said."""
REMEMBERED = 50
"""Measurements a median is taken over, at least `LEAST`."""
LEAST = 5


class GradientWatch:
    """Hears the norms of every layer's gradient and says, once for each layer and kind, what is wrong.

    >>> watch = GradientWatch()
    >>> norms = {"encoder.0": 1e-9, "pi.0": 1.0}
    >>> [watch.hear(norms) for _ in range(4)][2]
    ['vanishing gradient in layer encoder.0: 1e-09 of the gradient behind it arrives; use fewer layers, relu or silu']
    """

    def __init__(self) -> None:
        self._history: dict[str, deque[float]] = {}
        self._small: dict[str, int] = {}
        self._said: set[tuple[str, str]] = set()

    def hear(self, norms: Mapping[str, float]) -> list[str]:
        """Take in one measurement, layer -> norm in the order from input to output; return what is new to say."""
        found = []
        for layer, norm in norms.items():
            found += self._exploding(layer, norm)
            found += self._vanishing(layer, norm, behind=_behind(norms, layer))
        return found

    def _exploding(self, layer: str, norm: float) -> list[str]:
        past = self._history.setdefault(layer, deque(maxlen=REMEMBERED))
        usual = statistics.median(past) if len(past) >= LEAST else math.inf
        if math.isfinite(norm):
            past.append(norm)
            if norm <= EXPLODING * usual or not usual:
                return []
            size = f"its norm is {norm:.3g}, usually {usual:.3g}"
        else:
            size = "it is no finite number"
        return self._once("exploding", layer, text=f"{size}; lower learning_rate or set gradient_clip")

    def _vanishing(self, layer: str, norm: float, *, behind: float) -> list[str]:
        small = math.isfinite(norm) and math.isfinite(behind) and norm < VANISHING * behind
        self._small[layer] = self._small.get(layer, 0) + 1 if small else 0
        if self._small[layer] < IN_A_ROW:
            return []
        share = norm / behind
        text = f"{share:.3g} of the gradient behind it arrives; use fewer layers, relu or silu"
        return self._once("vanishing", layer, text=text)

    def _once(self, kind: str, layer: str, *, text: str) -> list[str]:
        if (kind, layer) in self._said:
            return []
        self._said.add((kind, layer))
        return [f"{kind} gradient in layer {layer}: {text}"]


def _behind(norms: Mapping[str, float], layer: str) -> float:
    """Return the largest norm among the layers of the same chain that come after ``layer``; 0 for the last."""
    names = [name for name in norms if chain(name) == chain(layer)]
    return max((norms[name] for name in names[names.index(layer) + 1 :]), default=0.0)


def gradient_norms(learner: Mapping[str, Any]) -> dict[str, float]:
    """Return layer -> gradient norm from the results of one module, as far as they were measured."""
    return {name.removeprefix(PREFIX): float(norm) for name, norm in learner.items() if name.startswith(PREFIX)}


PREFIX = "grad_norm/"
