"""Action distributions: from what a policy network computes to actions, probabilities and densities.

| distribution | action space | outputs of the network for one observation |
|---|---|---|
| `Categorical` | Discrete | a logit per action |
| `QValues` | Discrete | a value per action |
| `MultiCategorical` | MultiDiscrete | the logits of each component, side by side |
| `Gaussian` | Box of one dimension | the means, then the logarithms of the standard deviations |

All work on batches: outputs have shape (n, `n_outputs`). Random numbers are drawn row by row, so that a batch
draws what its rows would draw one after the other.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from policylab.config import Settings

MAX_ACTIONS = 1_000_000
MAX_COMPONENTS = 4096
MARGIN = 1e-6
"""A squashed action is taken back no closer to its bound than this, as RLlib does (`SMALL_NUMBER`)."""

Floats = NDArray[np.float64]
_Count = Annotated[int, Field(ge=1, le=MAX_ACTIONS)]
_First = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_Bounds = Annotated[tuple[float, ...], Field(min_length=1, max_length=MAX_COMPONENTS)]


def log_softmax(logits: NDArray[Any]) -> Floats:
    """Return the logarithms of the probabilities, along the last axis."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def drawn(probabilities: Floats, uniform: Floats) -> NDArray[np.int64]:
    """Return an index per row: the first whose cumulative probability exceeds the row's number in [0, 1).

    >>> drawn(np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([0.25, 0.9])).tolist()
    [1, 0]
    """
    index: NDArray[np.int64] = (probabilities.cumsum(axis=1) <= uniform[:, None]).sum(axis=1)
    return index.clip(max=probabilities.shape[1] - 1)  # the sum may fall short of 1 by rounding


def _allowed(outputs: NDArray[np.float32], masks: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return the outputs with -inf for what a mask, shape (n, n_actions), does not allow."""
    return outputs if masks is None else np.where(masks, outputs, np.float32(-np.inf))


class _OneOfMany(Settings):
    """A choice among ``n_actions``; the environment counts them from ``first_action``."""

    n_actions: _Count
    first_action: _First = 0

    @property
    def n_outputs(self) -> int:
        """Outputs of the network per observation."""
        return self.n_actions

    def mode(self, outputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the action of the largest output, the first among ties, shape (n,)."""
        return np.asarray(self.first_action + outputs.argmax(axis=1), dtype=np.int64)

    def probabilities(self, outputs: NDArray[np.float32], masks: NDArray[np.bool_] | None = None) -> Floats:
        """Return the probability of each action, among those allowed if masks say which, shape (n, n_actions)."""
        raise NotImplementedError

    def choices(self, outputs: NDArray[np.float32], masks: NDArray[np.bool_] | None = None) -> Floats:
        """Return 1 for the action of the largest output among those allowed, else 0, shape (n, n_actions)."""
        found = np.zeros(outputs.shape)
        found[np.arange(len(outputs)), _allowed(outputs, masks).argmax(axis=1)] = 1.0
        return found

    def sample(self, outputs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return one drawn action per row, shape (n,)."""
        return self.first_action + drawn(self.probabilities(outputs), rng.random(len(outputs)))

    def log_probabilities(self, outputs: NDArray[np.float32], actions: NDArray[Any]) -> Floats:
        """Return the log-probability of each row's action, shape (n,)."""
        index = np.asarray(actions, dtype=np.int64) - self.first_action
        known = (index >= 0) & (index < self.n_actions)
        probability = self.probabilities(outputs)[np.arange(len(index)), np.where(known, index, 0)]
        with np.errstate(divide="ignore"):  # an action that is never taken has probability 0
            found: Floats = np.log(np.where(known, probability, 0.0))
        return found


class Categorical(_OneOfMany):
    """Each action with the probability that the softmax of the logits gives it."""

    kind: Literal["categorical"] = "categorical"

    def probabilities(self, outputs: NDArray[np.float32], masks: NDArray[np.bool_] | None = None) -> Floats:
        """Return the softmax, shape (n, n_actions)."""
        return np.exp(log_softmax(_allowed(outputs, masks)))


class QValues(_OneOfMany):
    """The action of the highest value, with probability ``epsilon`` a uniformly random one instead."""

    kind: Literal["q_values"] = "q_values"
    epsilon: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0

    def probabilities(self, outputs: NDArray[np.float32], masks: NDArray[np.bool_] | None = None) -> Floats:
        """Return 1 - epsilon on the first best action, mixed with the uniform, shape (n, n_actions)."""
        found: Floats = (1.0 - self.epsilon) * self.choices(outputs, masks)
        allowed = self.n_actions if masks is None else masks.sum(axis=1, keepdims=True)
        found += self.epsilon / allowed if masks is None else self.epsilon * masks / allowed
        return found


class MultiCategorical(Settings):
    """Independent choices, one per component of a MultiDiscrete space of one dimension."""

    kind: Literal["multi_categorical"] = "multi_categorical"
    sizes: Annotated[tuple[_Count, ...], Field(min_length=1, max_length=MAX_COMPONENTS)]
    first_actions: tuple[_First, ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.first_actions) != len(self.sizes) or sum(self.sizes) > MAX_ACTIONS:
            raise ValueError(f"needs a first action for each of the sizes, in total at most {MAX_ACTIONS}")
        return self

    @property
    def n_outputs(self) -> int:
        """Outputs of the network per observation."""
        return sum(self.sizes)

    def _parts(self, outputs: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return np.split(outputs, np.cumsum(self.sizes)[:-1], axis=1)

    def mode(self, outputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the most probable choices, shape (n, n_components)."""
        chosen = np.stack([part.argmax(axis=1) for part in self._parts(outputs)], axis=1)
        return np.asarray(chosen + np.array(self.first_actions), dtype=np.int64)

    def sample(self, outputs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return drawn choices, shape (n, n_components)."""
        uniform = rng.random((len(outputs), len(self.sizes)))
        parts = [np.exp(log_softmax(part)) for part in self._parts(outputs)]
        chosen = np.stack([drawn(part, uniform[:, i]) for i, part in enumerate(parts)], axis=1)
        return np.asarray(chosen + np.array(self.first_actions), dtype=np.int64)

    def log_probabilities(self, outputs: NDArray[np.float32], actions: NDArray[Any]) -> Floats:
        """Return the log-probability of each row's choices together, shape (n,)."""
        index = np.asarray(actions, dtype=np.int64) - np.array(self.first_actions)
        known = ((index >= 0) & (index < np.array(self.sizes))).all(axis=1)
        index = np.where(known[:, None], index, 0)
        rows = np.arange(len(index))
        found = sum(log_softmax(part)[rows, index[:, i]] for i, part in enumerate(self._parts(outputs)))
        return np.where(known, found, -np.inf)


class Gaussian(Settings):
    """Independent normal components, optionally squashed by tanh, rescaled, and cut off at bounds.

    A number x ~ N(mean, std²) becomes u = tanh(x) with ``squash``, else u = x; with ``rescale``, u in [-1, 1]
    becomes low + (u + 1)(high - low)/2; with bounds the action is clipped to them.

    The log-probability is a density in units of the action. Clipping without squashing puts positive probability on the
    bounds themselves: there a component counts with the logarithm of that probability (a censored normal
    distribution), so that the ratio of two policies with the same bounds is right everywhere.

    Attributes:
        low: lower bound of each component; None for an unbounded space.
        high: upper bounds.
        rescale: the network's action lies in [-1, 1] and is stretched to the bounds.
        squash: x passes through tanh (Haarnoja et al. 2018, arXiv 1801.01290, appendix C).
        squash_mode: so does the mean when it is taken as the deterministic action. RLlib 2.60 takes the mean as it is.
    """

    kind: Literal["gaussian"] = "gaussian"
    n_components: Annotated[int, Field(ge=1, le=MAX_COMPONENTS)]
    dtype: Literal["float32", "float64"] = "float32"
    low: _Bounds | None = None
    high: _Bounds | None = None
    rescale: bool = False
    squash: bool = False
    squash_mode: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.rescale and self.low is None):
            raise ValueError("needs both bounds, or neither and no rescaling")
        low, high = self.low or (), self.high or ()
        if self.low is not None and not len(low) == len(high) == self.n_components:
            raise ValueError(f"needs {self.n_components} bounds on each side")
        if not all(below < above for below, above in zip(low, high, strict=True)):
            raise ValueError("every lower bound must be below its upper bound")
        return self

    @property
    def n_outputs(self) -> int:
        """Outputs of the network per observation."""
        return 2 * self.n_components

    def mode(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        """Return the deterministic actions, shape (n, n_components)."""
        mean = outputs[:, : self.n_components]
        return self._action(np.tanh(mean) if self.squash_mode else mean)

    def sample(self, outputs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
        """Return drawn actions, shape (n, n_components)."""
        mean, log_std = self._parameters(outputs)
        x = mean + np.exp(log_std) * rng.standard_normal(mean.shape)
        return self._action(np.tanh(x) if self.squash else x)

    def log_probabilities(
        self,
        outputs: NDArray[np.float32],
        actions: NDArray[Any],
        *,
        limits: tuple[NDArray[Any], NDArray[Any]] | None = None,
    ) -> Floats:
        """Return the log-density of each row's action, shape (n,); -inf outside the bounds.

        With ``limits``, narrower bounds of shape (n_components,) each, of the action clipped to them afterwards: the
        limits then have a probability, as bounds have without squashing.
        """
        mean, log_std = self._parameters(outputs)
        actions = np.asarray(actions, dtype=self.dtype)
        u, log_slope = self._raw(actions)
        x = np.arctanh(np.clip(u, -1 + MARGIN, 1 - MARGIN)) if self.squash else u
        z = (x - mean) / np.exp(log_std)
        found = log_slope - log_std - 0.5 * (z**2 + math.log(2 * math.pi))
        if self.squash:
            found -= 2.0 * (math.log(2.0) - x - np.logaddexp(0.0, -2.0 * x))  # log(1 - tanh(x)²), stable
        if limits is not None or self.low is not None:
            low, high = self._bounds() if limits is None else limits
            if limits is not None or not self.squash:
                found = _censored(found, z, below=actions <= low, above=actions >= high)
            found = np.where((actions < low) | (actions > high), -np.inf, found)
        total: Floats = found.sum(axis=1)
        return total

    def _parameters(self, outputs: NDArray[np.float32]) -> tuple[Floats, Floats]:
        both = outputs.astype(np.float64)
        return both[:, : self.n_components], both[:, self.n_components :]

    def _bounds(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.array(self.low, dtype=self.dtype), np.array(self.high, dtype=self.dtype)

    def _action(self, u: NDArray[Any]) -> NDArray[Any]:
        """Return the actions of numbers in the network's units: the inverse of `_raw` inside the bounds."""
        u = u.astype(self.dtype)
        if self.low is None:
            return u
        low, high = self._bounds()
        stretched = low + (u + 1) * (high - low) / 2 if self.rescale else u
        return np.asarray(stretched).clip(low, high)

    def _raw(self, actions: NDArray[Any]) -> tuple[Floats, Floats | float]:
        """Return the actions in the network's units, and log |du/da| of each component."""
        if not self.rescale:
            return actions.astype(np.float64), 0.0
        low, high = (bound.astype(np.float64) for bound in self._bounds())
        return 2.0 * (actions - low) / (high - low) - 1.0, np.log(2.0 / (high - low))


def _censored(density: Floats, z: Floats, *, below: NDArray[np.bool_], above: NDArray[np.bool_]) -> Floats:
    """Return the log-density with the log-mass of the tail in place of the components that lie on a bound."""
    from scipy.special import log_ndtr

    return np.where(below, log_ndtr(z), np.where(above, log_ndtr(-z), density))


Distribution = Annotated[Categorical | QValues | MultiCategorical | Gaussian, Field(discriminator="kind")]
