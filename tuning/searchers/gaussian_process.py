"""A Gaussian process for tens to hundreds of noisy observations, on NumPy and SciPy alone.

Optuna's own Gaussian-process sampler needs torch, which is not a dependency, and takes one number per trial; this
one takes the number of seeds behind each mean.

| symbol | meaning |
|---|---|
| X | points, shape (n, d), in the unit cube |
| r² | Σ_k δ_k² / ℓ_k², δ_k the distance along axis k; 0 or 1 along an axis without an order |
| k(r) | σ_f² (1 + √5 r + 5 r² / 3) exp(-√5 r), Matérn 5/2 with one length scale per axis |
| K | k(X, X) + σ_n² diag(w), w the known relative noise |
| θ | (log ℓ_1 ... log ℓ_d, log σ_f², log σ_n²) |

θ maximises the posterior density: the marginal likelihood with independent normal priors on its entries.

Source: Rasmussen and Williams (2006), equations 2.23, 2.24, 4.17 and 5.9; Hvarfner, Hellsten and Nardi (2024) for the
prior of the length scales, which widens with √d; Snoek, Larochelle and Adams (2012) for hyperparameters that are
drawn instead of fixed.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Self

import numpy as np
from scipy import linalg, optimize
from scipy.linalg import lapack

ROOT_5 = math.sqrt(5.0)
JITTER = 1e-8
LENGTH_MEAN = math.log(0.25)
"""Prior mean of log ℓ is this plus log √d."""

LENGTH_SPREAD = 0.7
"""Prior standard deviation of log ℓ."""


N_STEPS, STEP = 10, 0.7
"""Steps of a draw of θ, and their length."""

NOISE_MEAN, NOISE_SPREAD = math.log(0.03), 1.5
"""Prior of log σ_n² while no configuration has two seeds."""


@dataclasses.dataclass(frozen=True, slots=True)
class NoisePrior:
    """Normal prior of log σ_n²."""

    mean: float = NOISE_MEAN
    spread: float = NOISE_SPREAD

    @classmethod
    def from_seeds(cls, variance: float | None, *, degrees_of_freedom: int) -> Self:
        """Return the prior that a pooled variance between seeds justifies: the log of one has variance 2 / dof."""
        if not variance:
            return cls()
        evidence, own = degrees_of_freedom / 2, NOISE_SPREAD**-2
        mean = (own * NOISE_MEAN + evidence * math.log(min(max(variance, 1e-4), 10.0))) / (own + evidence)
        return cls(mean, (own + evidence) ** -0.5)


class GaussianProcess:
    """A posterior over functions on the unit cube, with mean zero before any observation.

    Args:
        x: points (n, d).
        y: values (n,), centred and of unit scale.
        noise: relative noise w of each value (n,).
        theta: (d + 2,) logarithms of the hyperparameters.
        unordered: which axes have no order, shape (d,).
    """

    def __init__(
        self, *, x: np.ndarray, y: np.ndarray, noise: np.ndarray, theta: np.ndarray, unordered: np.ndarray
    ) -> None:
        self._x, self._y, self._noise = x, y, noise
        self.theta = theta
        self._unordered = unordered
        covariance = _matern(_squares(x, x, unordered=unordered), theta)
        covariance[np.diag_indices_from(covariance)] += math.exp(theta[-1]) * noise + JITTER
        self._factor = linalg.cholesky(covariance, lower=True, check_finite=False)
        self._alpha = linalg.cho_solve((self._factor, True), y, check_finite=False)

    @classmethod
    def fit(
        cls,
        *,
        x: np.ndarray,
        y: np.ndarray,
        noise: np.ndarray,
        unordered: np.ndarray,
        noise_prior: NoisePrior,
        rng: np.random.Generator | None = None,
    ) -> Self:
        """Return the process with the most probable hyperparameters, or with ``rng`` with a draw of them around these.

        Few noisy values fit a flat, noisy function as well as a rough one. The most probable of both is the same again
        and again; draws let every explanation that holds propose something.
        """
        d = x.shape[1]
        centre = np.array([*[LENGTH_MEAN + 0.5 * math.log(d)] * d, 0.0, noise_prior.mean])
        spread = np.array([*[LENGTH_SPREAD] * d, 1.0, noise_prior.spread])
        posterior = _LogPosterior(_squares(x, x, unordered=unordered), y, noise, centre, spread)
        found = optimize.minimize(
            posterior.negative,
            centre,
            jac=True,
            method="L-BFGS-B",
            bounds=[*[(math.log(0.02), math.log(50.0))] * d, (-4.0, 4.0), (math.log(1e-6), math.log(20.0))],
            options={"maxiter": 40, "ftol": 1e-6},
        )
        theta = found.x if rng is None else posterior.draw(found.x, rng)
        return cls(x=x, y=y, noise=noise, theta=theta, unordered=unordered)

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the function, without noise, at points (m, d)."""
        cross = _matern(_squares(points, self._x, unordered=self._unordered), self.theta)
        solved = linalg.solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = math.exp(self.theta[-2]) - (solved**2).sum(axis=0)
        return cross @ self._alpha, np.sqrt(np.maximum(variance, 1e-12))

    def believing(self, points: np.ndarray) -> Self:
        """Return the process after values equal to its own mean at ``points``, shape (m, d).

        Source: Ginsbourger, Le Riche and Carraro (2010), "Kriging believer": the mean stays, the doubt shrinks.
        """
        return type(self)(
            x=np.vstack([self._x, points]),
            y=np.concatenate([self._y, self.predict(points)[0]]),
            noise=np.concatenate([self._noise, np.ones(len(points))]),
            theta=self.theta,
            unordered=self._unordered,
        )


def _squares(a: np.ndarray, b: np.ndarray, *, unordered: np.ndarray) -> np.ndarray:
    """Return δ_k² between points (n, d) and (m, d), shape (d, n, m)."""
    difference = a.T[:, :, None] - b.T[:, None, :]
    squares = difference**2
    if unordered.any():
        squares[unordered] = np.abs(difference[unordered]) > 1e-9
    return np.asarray(squares)


def _matern(squares: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Return k for squared distances (d, n, m), shape (n, m)."""
    scaled = ROOT_5 * np.sqrt(np.tensordot(np.exp(-2.0 * theta[:-2]), squares, axes=1))
    return np.asarray(math.exp(theta[-2]) * (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))


@dataclasses.dataclass(frozen=True, slots=True)
class _LogPosterior:
    """The density of θ given the data, and its normal priors: means ``centre`` and deviations ``spread``."""

    squares: np.ndarray
    y: np.ndarray
    noise: np.ndarray
    centre: np.ndarray
    spread: np.ndarray

    def negative(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return -log p(θ | y) up to a constant, and its gradient."""
        inverse_lengths = np.exp(-2.0 * theta[:-2])
        scaled = ROOT_5 * np.sqrt(np.tensordot(inverse_lengths, self.squares, axes=1))
        decay = math.exp(theta[-2]) * np.exp(-scaled)
        kernel = (1.0 + scaled + scaled**2 / 3.0) * decay
        added = math.exp(theta[-1]) * self.noise
        covariance = kernel.copy()
        covariance[np.diag_indices_from(covariance)] += added + JITTER
        # LAPACK itself: the checks around it take as long as the work, hundreds of times per suggestion.
        factor, failed = lapack.dpotrf(covariance, lower=1)
        if failed:
            return 1e25, np.zeros_like(theta)
        inverse = lapack.dpotri(factor, lower=1)[0]
        inverse += np.tril(inverse, -1).T
        alpha = inverse @ self.y
        residual = inverse - np.outer(alpha, alpha)
        # dK/dlog ℓ_k = (5/3) σ_f² (1 + √5 r) exp(-√5 r) δ_k² / ℓ_k²
        slope = residual * (5.0 / 3.0) * (1.0 + scaled) * decay
        lengths = np.tensordot(self.squares, slope, axes=2) * inverse_lengths
        gradient = 0.5 * np.array([*lengths, (residual * kernel).sum(), (residual.diagonal() * added).sum()])
        deviation = (theta - self.centre) / self.spread
        value = 0.5 * self.y @ alpha + np.log(factor.diagonal()).sum() + 0.5 * deviation @ deviation
        return float(value), gradient + deviation / self.spread

    def draw(self, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return θ after a few steps of random-walk Metropolis from ``theta``."""
        current = self.negative(theta)[0]
        for move in rng.normal(scale=STEP / math.sqrt(len(theta)), size=(N_STEPS, len(theta))):
            proposed = self.negative(theta + move)[0]
            if rng.random() < math.exp(min(0.0, current - proposed)):
                theta, current = theta + move, proposed
        return theta
