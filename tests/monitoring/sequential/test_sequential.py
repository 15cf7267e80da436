"""Detectors by tabulated run lengths, by their defining properties, and by false alarms on streams without drift."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from policylab.cli import main
from policylab.errors import UserError
from policylab.monitoring.sequential.cusum import first_alarm, limit_for, normal_limit, run_length, sums
from policylab.monitoring.sequential.mean_shift import boundary, log_mixture, mean_shift, tuned_rho
from policylab.monitoring.sequential.reference import Reference
from policylab.monitoring.sequential.watch import watch

Floats = NDArray[np.float64]


def ar1(seed: int, n: int, *, phi: float) -> Floats:
    noise = np.random.default_rng(seed).standard_normal(n + 500)
    return np.asarray(lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], noise)[500:])


# Montgomery, "Introduction to Statistical Quality Control", table 9.3: two-sided run lengths for k = 1/2.
TABLE = [(4.0, 0.0, 168.0), (4.0, 0.5, 26.6), (4.0, 1.0, 8.38), (5.0, 0.0, 465.0), (5.0, 1.0, 10.4), (5.0, 2.0, 4.01)]


@pytest.mark.parametrize(("limit", "shift", "expected"), TABLE)
def test_run_lengths_are_the_tabulated_ones(limit: float, shift: float, expected: float) -> None:
    assert run_length(limit, shift=shift) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("limit", "shift", "expected"), TABLE[:5])
def test_the_sums_have_the_tabulated_run_lengths(limit: float, shift: float, expected: float) -> None:
    z = np.random.default_rng(0).standard_normal((1_500, 3_000)).astype(np.float32) + np.float32(shift)
    over = np.maximum(sums(z), sums(-z)) >= limit
    lengths = np.where(over.any(axis=1), over.argmax(axis=1) + 1, z.shape[1])
    assert lengths.mean() == pytest.approx(expected, rel=0.09)


def test_normal_limits_invert_run_lengths() -> None:
    for wanted in (50.0, 465.0, 1e6):
        assert run_length(normal_limit(wanted)) == pytest.approx(wanted)


def test_the_alarm_tells_when_and_where_to() -> None:
    z = np.zeros(50)
    z[20:] = -2.0
    alarm = first_alarm(z, limit=4.0)
    assert alarm is not None
    assert (alarm.at, alarm.change, alarm.upwards) == (22, 20, False)  # 1.5, 3.0, 4.5
    assert first_alarm(z[:20], limit=4.0) is None


@pytest.mark.parametrize(("phi", "n_baseline", "wanted"), [(0.0, 20_000, 3_000), (0.9, 20_000, 6_000), (0.0, 400, 800)])
def test_false_alarms_come_after_the_run_length_asked_for(phi: float, n_baseline: int, wanted: int) -> None:
    # Within one run length a share 1 - 1/e = 0.63 of streams alarms; 30 baselines with 5 streams each: within 4 errors.
    alarms = 0
    for seed in range(30):
        reference = Reference.of(ar1(10 * seed, n_baseline, phi=phi))
        limit = limit_for(reference, wanted, rng=np.random.default_rng(seed))
        for i in range(1, 6):
            z = reference.standardised(ar1(10 * seed + i, wanted, phi=phi))
            alarms += first_alarm(z, limit=limit) is not None
    assert alarms / 150 == pytest.approx(0.63, abs=0.19)


@pytest.mark.parametrize("wanted", [465.0, 1e5, 1e7])
def test_limits_of_independent_normal_values_are_siegmunds(wanted: float) -> None:
    found = limit_for(Reference.of(ar1(0, 200_000, phi=0.0)), wanted, rng=np.random.default_rng(0))
    # Never much below; above for long run lengths, where the baseline's own uncertainty counts.
    assert normal_limit(wanted) - 0.6 < found < 1.3 * normal_limit(wanted) + 0.4


def test_a_shift_is_found_soon_in_autocorrelated_streams() -> None:
    baseline, stream = ar1(0, 20_000, phi=0.9), ar1(1, 6_000, phi=0.9)
    stream[3_000:] += 1.5
    found = watch({"x": baseline}, {"x": stream}, run_length=100_000)[0]
    assert found.alarm_at is not None
    assert 3_000 <= found.alarm_at < 4_200
    assert abs(found.change_at - 3_000) < 500
    assert found.upwards
    assert found.shift.alarm is not None
    before = watch({"x": baseline}, {"x": stream[:3_000]}, run_length=100_000)[0]
    assert (before.alarm_at, before.shift.alarm) == (None, None)


# ------------------------------------------------------------------ the always valid test


def test_the_mixture_is_a_martingale_of_mean_one() -> None:
    # E[M_n] for s ~ N(0, n), by Gauss-Hermite quadrature; beyond v = rho the integrand has no moments to integrate so.
    x, w = np.polynomial.hermite_e.hermegauss(80)
    for v in (0.1, 1.0, 5.0):
        mean = (w * np.exp(log_mixture(np.sqrt(v) * x, v, rho=10.0))).sum() / np.sqrt(2 * np.pi)
        assert mean == pytest.approx(1.0, abs=1e-9)


def test_the_mixture_by_hand() -> None:
    # ρ = 100 / (2 ln 20 + ln(1 + 2 ln 20)) = 100 / (5.991465 + 1.944690) = 12.600564; at v = 100 the boundary is
    # sqrt(112.600564 ln(112.600564 / (12.600564 * .0025))) = sqrt(112.600564 * 8.181572) = 30.351919.
    rho = tuned_rho(100.0, alpha=0.05)
    assert rho == pytest.approx(12.600564, abs=1e-5)
    assert float(boundary(100.0, alpha=0.05, rho=rho)) == pytest.approx(30.3519, abs=1e-3)
    # ρ = v = 1, s = 2: ½ ln ½ + 4 / 4.
    assert float(log_mixture(2.0, 1.0, rho=1.0)) == pytest.approx(1.0 - 0.5 * np.log(2))


def test_the_boundary_is_where_the_mixture_reaches_its_level_and_is_tightest_where_tuned() -> None:
    rho = tuned_rho(100.0, alpha=0.05)
    v = np.array([1.0, 100.0, 1e6])
    assert log_mixture(boundary(v, alpha=0.05, rho=rho), v, rho=rho) == pytest.approx(np.log(20))
    near = [float(boundary(100.0, alpha=0.05, rho=factor * rho)) for factor in (0.9, 1.0, 1.1)]
    assert near[1] == min(near)


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_looking_always_alarms_as_rarely_as_asked(phi: float) -> None:
    # 150 streams, looked at after every batch, at 10 %: more than 25 would happen less than once in a hundred times.
    alarms = 0
    for seed in range(150):
        reference = Reference.of(ar1(2 * seed, 20_000, phi=phi))
        stream = reference.standardised(ar1(2 * seed + 1, 20_000, phi=phi))
        alarms += mean_shift(stream, reference, alpha=0.1).alarm is not None
    assert alarms <= 25


def test_the_interval_holds_the_shift_in_the_streams_units() -> None:
    reference = Reference.of(3.0 * ar1(0, 20_000, phi=0.5) + 100.0)
    found = mean_shift(reference.standardised(3.0 * ar1(1, 20_000, phi=0.5) + 101.0), reference)
    assert found.low < 1.0 < found.high
    assert found.high - found.low < 1.5
    assert found.alarm is not None
    nothing = mean_shift(np.empty(0), reference)
    assert (nothing.alarm, nothing.n) == (None, 0)


# ------------------------------------------------------------------ wrong input and the command


def test_what_cannot_be_a_baseline_is_refused() -> None:
    with pytest.raises(UserError, match="at least 50 are needed"):
        Reference.of(np.arange(40.0))
    with pytest.raises(UserError, match="all values of the baseline are 2"):
        Reference.of(np.full(1_000, 2.0))
    with pytest.raises(UserError, match="less than ten batches"):
        limit_for(Reference.of(ar1(0, 20_000, phi=0.9)), 100.0, rng=np.random.default_rng(0))


def test_the_command_watches_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def write(name: str, shift: float) -> str:
        a, b = ar1(1, 4_000, phi=0.5) + shift, ar1(2, 4_000, phi=0.0)
        rows = "".join(f"{x},{y}\n" for x, y in zip(a, b, strict=True))
        (tmp_path / name).write_text("a,b\n" + rows)
        return str(tmp_path / name)

    base, moved = write("base.csv", 0.0), write("moved.csv", 1.0)
    asked = ("--columns", "a,b", "--run-length", "1e5")
    assert main(["monitor", "stream", base, base, *asked]) == 0
    assert "no alarm" in capsys.readouterr().out
    assert main(["monitor", "stream", base, moved, *asked, "--json"]) == 1
    alarms = {one["name"]: one["alarm_at"] for one in json.loads(capsys.readouterr().out)["columns"]}
    assert alarms["b"] is None
    assert 0 <= alarms["a"] < 400
    assert main(["monitor", "stream", base, moved, "--columns", "c"]) == 2
    assert "has no column 'c'" in capsys.readouterr().err
    assert main(["monitor", "stream", base, moved, "--columns", ""]) == 2
    assert "--columns must name columns, got ''" in capsys.readouterr().err
    assert main(["monitor", "stream", base, moved, "--columns", "a", "--run-length", "inf"]) == 2
    assert "--run-length must be a number above 0, got inf" in capsys.readouterr().err
    assert main(["monitor", "stream", base, moved, "--columns", "a", "--run-length", "0"]) == 2
