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
from scipy.spatial import distance

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
        covariance = self._kernel(x, x)
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
        posterior = _LogPosterior(x, y, noise=noise, unordered=unordered, centre=centre, spread=spread)
        found = optimize.minimize(
            posterior.negative,
            centre,
            jac=True,
            method="L-BFGS-B",
            bounds=[*[(math.log(0.02), math.log(50.0))] * d, (-4.0, 4.0), (math.log(1e-6), math.log(20.0))],
            options={"maxiter": 40, "ftol": 1e-6 if rng is None else 1e-3},  # a draw only begins there
        )
        theta = found.x if rng is None else posterior.draw(found.x, rng)
        return cls(x=x, y=y, noise=noise, theta=theta, unordered=unordered)

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the function, without noise, at points (m, d)."""
        cross = self._kernel(points, self._x)
        solved = linalg.solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = math.exp(self.theta[-2]) - (solved**2).sum(axis=0)
        return cross @ self._alpha, np.sqrt(np.maximum(variance, 1e-12))

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return k between points (n, d) and (m, d), shape (n, m)."""
        inverse_lengths, unordered = np.exp(-self.theta[:-2]), self._unordered
        scale = np.where(unordered, 0.0, inverse_lengths)
        squares = distance.cdist(a * scale, b * scale, "sqeuclidean")
        for axis in np.flatnonzero(unordered):
            squares += inverse_lengths[axis] ** 2 * _differ(a[:, axis, None], b[:, axis])
        scaled = ROOT_5 * np.sqrt(squares)
        return np.asarray(math.exp(self.theta[-2]) * (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled))

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


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return where places along an axis without an order are not the same."""
    return np.asarray(np.abs(a - b) > 1e-9)


@dataclasses.dataclass(slots=True)
class _LogPosterior:
    """The density of θ given the data, and its normal priors: means ``centre`` and deviations ``spread``.

    It is computed hundreds of times per suggestion, so on the lower triangle of K alone, and by LAPACK itself: the
    checks around it take as long as the work.
    """

    x: np.ndarray
    y: np.ndarray
    noise: np.ndarray
    unordered: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    _squares: np.ndarray = dataclasses.field(init=False)
    _row: np.ndarray = dataclasses.field(init=False)
    _column: np.ndarray = dataclasses.field(init=False)
    _place: np.ndarray = dataclasses.field(init=False)
    _weight: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        n = len(self.y)
        self._row, self._column = np.tril_indices(n)
        self._place = self._column * n + self._row  # in a matrix stored by columns, as LAPACK wants it
        self._weight = np.where(self._row == self._column, 1.0, 2.0)
        a, b = self.x.T[:, self._row], self.x.T[:, self._column]
        self._squares = np.where(self.unordered[:, None], _differ(a, b), (a - b) ** 2)

    def value(self, theta: np.ndarray) -> float:
        """Return -log p(θ | y) up to a constant; 1e25 where K has no Cholesky factor."""
        return self._solve(theta, self._kernel(theta)[2])[0]

    def negative(self, theta: np.ndarray) -> tuple[float, np.ndarray]:
        """Return `value` and its gradient."""
        scaled, decay, kernel = self._kernel(theta)
        value, factor, alpha = self._solve(theta, kernel)
        if factor is None:
            return value, np.zeros_like(theta)
        inverse = lapack.dpotri(factor, lower=1, overwrite_c=1)[0]
        residual = self._weight * (inverse.T.ravel()[self._place] - alpha[self._row] * alpha[self._column])
        # dK/dlog ℓ_k = (5/3) σ_f² (1 + √5 r) exp(-√5 r) δ_k² / ℓ_k²
        slope = residual * (5.0 / 3.0) * (1.0 + scaled) * decay
        lengths = self._squares @ slope * np.exp(-2.0 * theta[:-2])
        added = (inverse.diagonal() - alpha**2) @ (math.exp(theta[-1]) * self.noise)
        gradient = 0.5 * np.array([*lengths, residual @ kernel, added])
        return value, gradient + (theta - self.centre) / self.spread**2

    def _kernel(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return √5 r, σ_f² exp(-√5 r) and k(r) of the lower triangle."""
        scaled = ROOT_5 * np.sqrt(np.exp(-2.0 * theta[:-2]) @ self._squares)
        decay = math.exp(theta[-2]) * np.exp(-scaled)
        return scaled, decay, (1.0 + scaled + scaled**2 / 3.0) * decay

    def _solve(self, theta: np.ndarray, kernel: np.ndarray) -> tuple[float, np.ndarray | None, np.ndarray]:
        """Return `value`, the factor of K (None where there is none) and K⁻¹ y."""
        n = len(self.y)
        entries = np.zeros(n * n)
        entries[self._place] = kernel
        entries[:: n + 1] += math.exp(theta[-1]) * self.noise + JITTER
        factor, failed = lapack.dpotrf(entries.reshape(n, n).T, lower=1, clean=0, overwrite_a=1)
        if failed:
            return 1e25, None, self.y
        alpha = lapack.dpotrs(factor, self.y, lower=1)[0]
        deviation = (theta - self.centre) / self.spread
        value = 0.5 * self.y @ alpha + np.log(factor.diagonal()).sum() + 0.5 * deviation @ deviation
        return float(value), factor, alpha

    def draw(self, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return θ after a few steps of random-walk Metropolis from ``theta``."""
        current = self.value(theta)
        for move in rng.normal(scale=STEP / math.sqrt(len(theta)), size=(N_STEPS, len(theta))):
            proposed = self.value(theta + move)
            if rng.random() < math.exp(min(0.0, current - proposed)):
                theta, current = theta + move, proposed
        return theta
