"""The pieces of the model-based searchers against exact or independent results."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from policylab.tuning import Continuous, History, Space
from policylab.tuning.decisions import AddSeed, Resume, Start, Stop
from policylab.tuning.searchers.acquisition import best_point, log_expected_improvement
from policylab.tuning.searchers.bayesian import MAX_OBSERVATIONS, _relevant
from policylab.tuning.searchers.design import sobol_points
from policylab.tuning.searchers.gaussian_process import GaussianProcess, NoisePrior, _LogPosterior
from policylab.tuning.searchers.normalise import normalise, yeo_johnson
from policylab.tuning.searchers.observations import Observation, gather

NO_PRIOR = NoisePrior()


def trial(history: History, number: int, *, curve: dict[int, float], seed: int = 0, error: str | None = None) -> None:
    """Add a trial with one run, or one more run to a trial."""
    until = max(curve, default=history.max_resource)
    if number in history.trials:
        history.decide(AddSeed(number, seed, until, "again"))
    else:
        history.decide(Start(number, {"x": float(number)}, seed, until, "new"))
    for resource, value in curve.items():
        history.report(number, seed, resource=resource, value=value)
    history.end(number, seed, error=error)


def test_an_observation_is_the_mean_over_seeds() -> None:
    history = History(max_resource=10)
    for seed, value in enumerate([1.0, 2.0, 6.0]):
        trial(history, 0, curve={10: value}, seed=seed)
    evidence = gather(history, n_parameters=1)
    assert [(o.mean, o.values, o.trial) for o in evidence.observed] == [(3.0, (1.0, 2.0, 6.0), 0)]


def test_failed_runs_and_values_that_are_no_numbers_count_as_the_worst() -> None:
    history = History(max_resource=1)
    for number, value in enumerate([5.0, 3.0, math.nan, math.inf, -math.inf, 1e200]):
        trial(history, number, curve={1: value})
    trial(history, 6, curve={}, error="RuntimeError: died")
    trial(history, 7, curve={1: 100.0}, error="RuntimeError: died after its report")
    observed = gather(history, n_parameters=1).observed
    assert {o.trial: o.mean for o in observed} == {0: 5.0, 1: 3.0, **dict.fromkeys(range(2, 8), 3.0)}


def test_trials_without_a_value_are_pending() -> None:
    history = History(max_resource=1)
    trial(history, 0, curve={1: 1.0})
    history.decide(Start(1, {"x": 9.0}, 0, 1, "new"))
    evidence = gather(history, n_parameters=1)
    assert [o.trial for o in evidence.observed] == [0]
    assert evidence.pending == ({"x": 9.0},)


def test_the_level_is_the_highest_resource_with_enough_trials() -> None:
    """With one parameter three trials are enough (BOHB: d + 2)."""
    history = History(max_resource=9)
    for number in range(6):
        trial(history, number, curve={1: float(number)})
    for number in (3, 4, 5):
        if len([t for t in history.trials.values() if 9 in next(iter(t.runs.values())).curve]) == 2:
            at_one = gather(history, n_parameters=1).observed
            assert {o.trial: o.mean for o in at_one} == {n: float(n) for n in range(6)}
        history.decide(Resume(number, 0, 9, "promoted"))
        history.report(number, 0, resource=9, value=10.0 * number)
        history.end(number, 0)
    observed = {o.trial: o.mean for o in gather(history, n_parameters=1).observed}
    # 0, 1 and 2 were worse at 1 than everything that went on: they take the worst final value.
    assert observed == {3: 30.0, 4: 40.0, 5: 50.0, 0: 30.0, 1: 30.0, 2: 30.0}


def test_a_stopped_trial_takes_the_final_values_of_those_no_better() -> None:
    history = History(max_resource=4)
    for number, (early, final) in enumerate([(1.0, 10.0), (2.0, 20.0), (3.0, 30.0), (9.0, 90.0)]):
        trial(history, number, curve={1: early, 4: final})
    trial(history, 4, curve={1: 3.5})
    history.decide(Stop(4, None, "median rule"))
    trial(history, 5, curve={1: 0.5})
    observed = {o.trial: o.mean for o in gather(history, n_parameters=1).observed}
    assert observed[4] == 20.0  # the median of 10, 20 and 30
    assert observed[5] == 10.0


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.floats(-1, 3))
def test_yeo_johnson_is_that_of_scipy(values: list[float], power: float) -> None:
    x = np.array(values)
    np.testing.assert_allclose(yeo_johnson(x, power), stats.yeojohnson(x, lmbda=power), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("transform", ["power", "rank", "none"])
def test_normalised_values_keep_the_order_and_are_standard(transform: str) -> None:
    rng = np.random.default_rng(0)
    values = -np.exp(rng.normal(size=60))  # a heavy tail of bad values
    result = normalise([Observation({}, (value,)) for value in values], transform)  # type: ignore[arg-type]
    assert (np.diff(result.mean[np.argsort(values)]) >= 0).all()
    assert result.mean.mean() == pytest.approx(0, abs=1e-9)
    assert result.mean.std() == pytest.approx(1)
    if transform == "power":
        power = stats.yeojohnson((values - values.mean()) / values.std())[0]
        np.testing.assert_allclose(result.mean, (power - power.mean()) / power.std(), atol=0.01)
    if transform == "rank":
        assert abs(stats.skew(result.mean)) < 1e-6


def test_one_disaster_does_not_squeeze_the_others() -> None:
    values = [*np.linspace(0, 1, 20), -1e30]
    result = normalise([Observation({}, (float(value),)) for value in values], "power")
    assert np.ptp(result.mean[:20]) > 1


def test_groups_are_normalised_by_themselves() -> None:
    own = [Observation({}, (float(value),)) for value in range(5)]
    foreign = [Observation({}, (1e6 + 1000.0 * value,), group=1, weight=0.5) for value in range(5)]
    result = normalise([*own, *foreign], "power")
    np.testing.assert_allclose(result.mean[:5], result.mean[5:], atol=1e-6)
    assert (result.noise[5:] == 2 * result.noise[:5]).all()


def test_a_parent_on_a_larger_scale_does_not_push_out_the_best() -> None:
    own = [Observation({"x": 0.0}, (float(-n),), trial=n) for n in range(300)]
    theirs = [Observation({"x": 0.0}, (1000.0 - n,), group=1) for n in range(300)]
    kept = _relevant([*own, *theirs])
    assert len(kept) == MAX_OBSERVATIONS
    for group in (own, theirs):
        assert all(one in kept for one in group[:100]), "the best third of each"


def test_seeds_reveal_the_noise() -> None:
    rng = np.random.default_rng(0)
    level = rng.normal(size=40)
    observed = [Observation({}, tuple(mean + 0.5 * rng.normal(size=5))) for mean in level]
    result = normalise(observed, "none")
    assert result.degrees_of_freedom == 160
    spread = np.std([o.mean for o in observed])
    assert result.seed_variance == pytest.approx((0.5 / spread) ** 2, rel=0.25)
    assert result.noise.mean() == pytest.approx(1 / 5, rel=0.2)
    prior = NoisePrior.from_seeds(result.seed_variance, degrees_of_freedom=160)
    assert math.exp(prior.mean) == pytest.approx(result.seed_variance, rel=0.1)
    assert prior.spread < 0.12


def data(n: int = 25, d: int = 3, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, d))
    x[:, -1] = (np.floor(x[:, -1] * 3) + 0.5) / 3
    y = np.sin(5 * x[:, 0]) + x[:, 1] ** 2
    return x, (y - y.mean()) / y.std(), np.array([False] * (d - 1) + [True])


def test_the_gradient_of_the_posterior_density_is_exact() -> None:
    x, y, unordered = data()
    rng = np.random.default_rng(1)
    noise = rng.uniform(0.2, 1, len(y))
    posterior = _LogPosterior(x, y, noise=noise, unordered=unordered, centre=np.zeros(5), spread=np.ones(5))
    for _ in range(5):
        theta = rng.normal(size=5) * 0.5
        numeric = optimize.approx_fprime(theta, lambda t: posterior.negative(t)[0], 1e-6)
        np.testing.assert_allclose(posterior.negative(theta)[1], numeric, rtol=1e-3, atol=1e-4)


def test_the_process_predicts_a_smooth_function() -> None:
    x, y, unordered = data(60)
    process = GaussianProcess.fit(x=x[:50], y=y[:50], noise=np.ones(50), unordered=unordered, noise_prior=NO_PRIOR)
    mean, sd = process.predict(x[50:])
    assert np.abs(mean - y[50:]).max() < 0.1
    assert (np.abs(mean - y[50:]) < 4 * sd + 1e-3).all()
    # the third axis has no influence, and its length scale says so
    assert process.theta[2] > process.theta[0]


def test_the_prediction_is_the_conditional_normal_distribution() -> None:
    """Rasmussen and Williams, equations 2.23 and 2.24, by plain inversion."""
    x, y, _ = data(12, 2)
    theta, noise = np.array([-0.5, 0.3, 0.1, -3.0]), np.linspace(0.5, 1.5, 12)
    process = GaussianProcess(x=x, y=y, noise=noise, theta=theta, unordered=np.array([False, False]))

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        r = np.sqrt((((a[:, None] - b[None]) / np.exp(theta[:2])) ** 2).sum(axis=2))
        k = (1 + math.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-math.sqrt(5) * r)
        return np.asarray(math.exp(theta[2]) * k)

    points = np.random.default_rng(0).random((7, 2))
    inverse = np.linalg.inv(kernel(x, x) + np.diag(math.exp(theta[3]) * noise))
    cross = kernel(points, x)
    mean, sd = process.predict(points)
    np.testing.assert_allclose(mean, cross @ inverse @ y, rtol=1e-5)
    np.testing.assert_allclose(sd**2, math.exp(theta[2]) - np.diag(cross @ inverse @ cross.T), rtol=1e-4)


def test_believing_keeps_the_mean_and_shrinks_the_doubt() -> None:
    x, y, unordered = data()
    process = GaussianProcess.fit(x=x, y=y, noise=np.ones(25), unordered=unordered, noise_prior=NO_PRIOR)
    point = np.array([[0.99, 0.01, 0.5]])
    before, after = process.predict(point), process.believing(point).predict(point)
    assert after[0] == pytest.approx(before[0], abs=1e-3)
    assert after[1] < before[1]


@pytest.mark.parametrize(("mean", "sd"), [(0.5, 1.0), (0.0, 1.0), (-2.0, 1.0), (-8.0, 2.0), (3.0, 0.1)])
def test_expected_improvement_is_the_integral(mean: float, sd: float) -> None:
    exact, _ = integrate.quad(lambda f: f * stats.norm.pdf(f, mean, sd), 0, max(mean, 0) + 12 * sd, epsabs=1e-14)
    found = log_expected_improvement(np.array([mean]), np.array([sd]), incumbent=0.0)
    assert found[0] == pytest.approx(math.log(exact), rel=1e-5)


def test_expected_improvement_stays_ordered_far_below() -> None:
    means = -np.logspace(0, 8, 200)
    found = log_expected_improvement(means, np.ones(200), incumbent=0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


def test_the_best_point_is_found_on_a_mixed_space() -> None:
    space = Space(
        parameters={
            "x": Continuous(low=0, high=1),
            "y": Continuous(low=0, high=1, step=0.25),
            "z": Continuous(low=0, high=1),
        }
    )

    def score(points: np.ndarray) -> np.ndarray:
        return np.asarray(-((points[:, 0] - 0.37) ** 2) - (points[:, 1] - 0.9) ** 2 - (points[:, 2] - 0.11) ** 2)

    found = best_point(score, space, near=np.full((1, 3), 0.5), rng=np.random.default_rng(0))
    assert found is not None
    assert space.from_unit(found) == pytest.approx({"x": 0.37, "y": 1.0, "z": 0.11}, abs=0.02)
    nowhere = best_point(
        lambda points: np.full(len(points), -math.inf), space, near=np.full((1, 3), 0.5), rng=np.random.default_rng(0)
    )
    assert nowhere is None


def test_longer_sobol_sequences_begin_alike() -> None:
    short, long = (sobol_points(3, exponent=exponent, entropy=7) for exponent in (4, 6))
    np.testing.assert_array_equal(short, long[:16])
    assert (long != sobol_points(3, exponent=6, entropy=8)).all()
