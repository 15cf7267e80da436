"""A proxy that no longer goes with the true reward is told from chance, in streams that resemble their past too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import spearmanr

from policylab.cli import main
from policylab.errors import UserError
from policylab.monitoring.causes.divergence import Correlation, divergence

Pair = tuple[NDArray[np.float64], NDArray[np.float64]]


def pairs(seed: int, n: int, *, share: float, phi: float = 0.0) -> Pair:
    """Return proxy and truth; the truth is ``share`` of the proxy and otherwise its own, both AR(1)."""
    noise = np.random.default_rng(seed).standard_normal((2, n + 200))
    x, own = lfilter([np.sqrt(1 - phi**2)], [1.0, -phi], noise, axis=1)[:, 200:]
    return x, share * x + np.sqrt(1 - share**2) * own


def correlation(pair: Pair) -> Correlation:
    return Correlation.of(*pair, side="data")


def test_the_correlation_is_spearmans_with_ties_too() -> None:
    for proxy, truth in (pairs(0, 500, share=0.5), tuple(np.round(part) for part in pairs(1, 500, share=0.5))):
        assert correlation((proxy, truth)).value == pytest.approx(spearmanr(proxy, truth).statistic)


def test_the_error_of_independent_pairs_is_fisher_s() -> None:
    # Fieller, Hartley and Pearson, Biometrika 44 (1957): the variance of artanh of Spearman's r is 1.06 / (n - 3).
    errors = [correlation(pairs(seed, 400, share=0.5)).error for seed in range(30)]
    assert np.mean(errors) == pytest.approx(np.sqrt(1.06 / 397), rel=0.1)


def test_two_correlations_of_the_textbook() -> None:
    # r = .5 and .3 of 103 pairs each, s = 1 / sqrt(100): (.549306 - .309520) / sqrt(.02) = 1.695546, one-sided
    # .04499 of a normal variable, .04651 of Student's t of 102 degrees of freedom.
    then, now = (Correlation(r, 0.1, 103, 1, (0.0, 0.0)) for r in (0.5, 0.3))
    found = divergence(then, now, false_alarm_rate=0.05)
    assert (found.z, found.p_value) == pytest.approx((1.695546, 0.046511), abs=1e-5)
    assert found.diverged
    assert not divergence(then, now, false_alarm_rate=0.04).diverged
    assert not divergence(now, then, false_alarm_rate=0.5).diverged  # a correlation that rose


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_chance_alarms_as_rarely_as_asked(phi: float) -> None:
    # 200 pairs of times at 10 %, without a smallest fall that matters: more than 37 would be four deviations off.
    sides = [correlation(pairs(seed, 4_000, share=0.6, phi=phi)) for seed in range(400)]
    p_values = [divergence(*pair, false_alarm_rate=0.1).p_value for pair in zip(sides[::2], sides[1::2], strict=True)]
    assert sum(p < 0.1 for p in p_values) <= 37


def test_hacking_is_named() -> None:
    proxy, truth = pairs(0, 2_000, share=0.8)
    later = pairs(1, 2_000, share=0.1)
    found = divergence(
        correlation((proxy, truth)), correlation((later[0] + 1.0, later[1] - 0.5)), false_alarm_rate=0.003
    )
    assert found.diverged
    assert "the proxy rose and the true reward did not" in found.verdict


def test_a_proxy_that_is_the_truth_never_diverges_from_itself() -> None:
    x = np.random.default_rng(0).standard_normal(500)
    same = correlation((x, 3.0 * x))
    found = divergence(same, correlation((x[:200], x[:200])), false_alarm_rate=0.003)
    assert (same.value, found.p_value, found.diverged) == (pytest.approx(1.0), pytest.approx(0.5), False)


def test_what_says_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="data: the true reward is always 1"):
        correlation((np.arange(50.0), np.ones(50)))
    with pytest.raises(UserError, match="12 pairs are worth 12 blocks of 1"):
        correlation(pairs(0, 12, share=0.5))
    with pytest.raises(UserError, match="0 pairs are worth 0 blocks"):
        correlation((np.empty(0), np.empty(0)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed, share in (("then", 0, 0.8), ("same", 1, 0.8), ("now", 2, 0.0)):
        proxy, truth = pairs(seed, 1_000, share=share)
        truth[3], proxy[5] = np.nan, np.inf
        pq.write_table(pa.table({"score": proxy, "reward": truth}), tmp_path / f"{name}.parquet")
    then, same, now = (str(tmp_path / f"{name}.parquet") for name in ("then", "same", "now"))
    options = ["--proxy", "score", "--true", "reward"]
    assert main(["monitor", "divergence", then, same, *options]) == 0
    assert "still goes with the true reward" in capsys.readouterr().out
    assert main(["monitor", "divergence", then, now, *options, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["diverged"], found["window"]["n"]) == (True, 998)
    assert main(["monitor", "divergence", then, now, "--proxy", "score", "--true", "earned"]) == 2
    assert "has no column 'earned'" in capsys.readouterr().err
