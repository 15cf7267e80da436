"""Confidence sequences: the published boundary, and coverage for those who look after every observation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate

from policylab.deployment.guardrails.mean_sequence import MeanSequence, MeanState, boundary, log_mixture


@pytest.mark.parametrize(("s", "v"), [(0.0, 1.0), (5.0, 10.0), (30.0, 40.0), (3.0, 0.5)])
@pytest.mark.parametrize("c", [1.0, 0.3])
def test_the_mixture_is_the_integral_it_stands_for(s: float, v: float, c: float) -> None:
    """Howard et al. (2021), proposition 9: exp(lambda s - psi(lambda) v) over a truncated gamma distribution of lambda.

    psi(lambda) = (-ln(1 - c lambda) - c lambda)/c^2; with u = 1 - c lambda in (0, 1), u has a Gamma(k, k) law cut to
    [0, 1], k = rho/c^2.
    """
    rho = 7.0
    k = rho / c**2

    def gamma(u: float) -> float:
        return math.exp(k * math.log(k) - math.lgamma(k) + (k - 1) * math.log(u) - k * u)

    def integrand(u: float) -> float:
        lam = (1.0 - u) / c
        psi = (-math.log(u) - c * lam) / c**2
        return math.exp(lam * s - psi * v) * gamma(u)

    mass, _ = integrate.quad(gamma, 0.0, 1.0)
    mixed, _ = integrate.quad(integrand, 0.0, 1.0, epsabs=0.0, epsrel=1e-10)
    assert log_mixture(s, v, rho=rho, c=c) == pytest.approx(math.log(mixed / mass), rel=1e-6, abs=1e-9)


def test_the_boundary_is_where_the_mixture_reaches_one_over_alpha() -> None:
    level = 0.1  # twice alpha
    rho = 50.0 / (2 * math.log(1 / level) + math.log(1 + 2 * math.log(1 / level)))
    for v in (0.0, 1.0, 50.0, 5000.0):
        s = boundary(v, alpha=0.05, v_opt=50.0, c=1.0)
        assert log_mixture(s, v, rho=rho, c=1.0) == pytest.approx(math.log(20.0), abs=1e-6)


@pytest.mark.parametrize("probability", [0.5, 0.02])
def test_the_mean_is_covered_at_all_times_together(probability: float) -> None:
    """Look after every observation of 300 streams of 400: at most alpha of the streams may ever be missed.

    The bound is conservative; with alpha = 0.2 a test that looked once at 80 % would miss far more of these.
    """
    rng, alpha, n_streams = np.random.default_rng(7), 0.2, 300
    n_missed = 0
    for _ in range(n_streams):
        sequence = MeanSequence(0.0, 1.0, v_opt=10.0)
        for i, reward in enumerate((rng.random(400) < probability).astype(float).tolist(), start=1):
            sequence.observe(reward)
            if i in (5, 10, 20, 40, 80, 160, 300, 400):
                low, high = sequence.interval(alpha)
                if not low <= probability <= high:
                    n_missed += 1
                    break
    assert n_missed <= alpha * n_streams


def test_the_interval_shrinks_as_the_root_of_the_number() -> None:
    rng = np.random.default_rng(0)
    sequence, widths = MeanSequence(0.0, 1.0, v_opt=25.0), []
    for i, reward in enumerate(rng.random(40_000).tolist(), start=1):
        sequence.observe(reward)
        if i in (400, 4000, 40_000):
            low, high = sequence.interval(0.05)
            widths.append(high - low)
    assert widths[1] < widths[0] / 2.3
    assert widths[2] < widths[1] / 2.5
    # A fixed-sample interval at the end would be 2 x 1.96 sd/sqrt(n) = 0.0057 wide.
    assert 0.0057 < widths[2] < 0.013


def test_a_stored_sequence_goes_on_where_it_was() -> None:
    rewards = np.random.default_rng(1).random(50).tolist()
    whole, first = MeanSequence(0.0, 1.0, v_opt=5.0), MeanSequence(0.0, 1.0, v_opt=5.0)
    for reward in rewards:
        whole.observe(reward)
    for reward in rewards[:20]:
        first.observe(reward)
    stored = MeanState.model_validate_json(first.state.model_dump_json())
    second = MeanSequence(0.0, 1.0, v_opt=5.0, state=stored)
    for reward in rewards[20:]:
        second.observe(reward)
    assert second.interval(0.05) == whole.interval(0.05)


def test_without_observations_nothing_is_known() -> None:
    assert MeanSequence(-1.0, 2.0, v_opt=1.0).interval(0.05) == (-1.0, 2.0)
