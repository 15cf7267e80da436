"""A/B tests: what is told of variants by their rewards, when, and from one start to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.deployment.conftest import endpoint

from policylab.cli.endpoint import _status_text
from policylab.deployment.decision import DecisionRequest
from policylab.deployment.guardrails.comparison import VariantRewards, welch_interval
from policylab.deployment.running import RunningEndpoint, start_endpoint

RULES = {"reward_low": 0.0, "reward_high": 1.0, "min_decisions": 50}


def started(bundles: dict[str, Path], folder: Path | None = None, **rules: Any) -> RunningEndpoint:
    variants = [{"name": "a", "bundle": bundles["left"]}, {"name": "b", "bundle": bundles["right"]}]
    return start_endpoint(endpoint(*variants, comparison={**RULES, **rules}), state_folder=folder)


def play(running: RunningEndpoint, n: int, means: dict[str, float], rng: np.random.Generator) -> None:
    for _ in range(n):
        one = running.server.decide(DecisionRequest((3,))).decisions[0]
        running.server.rewards.take(one.decision_id, reward=float(rng.random() < means[one.variant]))


def found(running: RunningEndpoint) -> dict[str, Any]:
    document: dict[str, Any] = running.admin.status()["comparison"]
    return document


@pytest.mark.parametrize(("means", "verdict"), [((0.3, 0.7), "better"), ((0.7, 0.3), "worse")])
@pytest.mark.parametrize("rules", [{}, {"sample_size": 200}])
def test_a_difference_is_found(
    bundles: dict[str, Path], rules: dict[str, Any], means: tuple[float, float], verdict: str
) -> None:
    running = started(bundles, **rules)
    play(running, 800, {"a": means[0], "b": means[1]}, np.random.default_rng(0))
    (one,) = found(running)["against_baseline"]
    assert (one["name"], one["verdict"]) == ("b", verdict)
    low, high = one["interval"]
    assert low < one["difference"] < high
    assert (low > 0, high < 0) == (verdict == "better", verdict == "worse")
    # Which variant answers is drawn anew in every run, and one interval in twenty may miss: so five standard errors.
    assert abs(one["difference"] - (means[1] - means[0])) < 5 * (high - low) / (2 * 1.96)
    assert f"b minus a: {one['difference']:+.4g} [" in _status_text(running.admin.status())
    running.server.close()


def test_equal_variants_are_seldom_told_apart_however_often_one_looks(bundles: dict[str, Path]) -> None:
    n_verdicts = 0
    for seed in range(10):
        running, rng = started(bundles), np.random.default_rng(seed)
        verdicts = set()
        for _ in range(10):
            play(running, 50, {"a": 0.5, "b": 0.5}, rng)
            verdicts.add(found(running)["against_baseline"][0]["verdict"])
        n_verdicts += verdicts != {"inconclusive"}
        running.server.close()
    assert n_verdicts <= 2


def test_a_fixed_size_is_judged_once_on_its_first_rewards(bundles: dict[str, Path]) -> None:
    running, rng = started(bundles, sample_size=100), np.random.default_rng(0)
    play(running, 100, {"a": 0.1, "b": 0.9}, rng)  # about 50 each, clear already
    assert found(running)["against_baseline"] == [
        {"name": "b", "difference": None, "interval": None, "verdict": "inconclusive"}
    ]
    assert "not yet, inconclusive" in _status_text(running.admin.status())
    play(running, 300, {"a": 0.1, "b": 0.9}, rng)
    judged = found(running)["against_baseline"]
    assert judged[0]["verdict"] == "better"
    play(running, 300, {"a": 0.9, "b": 0.1}, rng)
    assert found(running)["against_baseline"] == judged
    running.server.close()


def test_the_fixed_interval_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.normal(loc=0.5, scale=2.0, size=50)
    expected = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    states = [VariantRewards(total=float(x.sum()), squares=float((x**2).sum())) for x in (a, b)]
    assert welch_interval(*states, n=50, alpha=0.05) == pytest.approx((expected.low, expected.high))


def test_it_goes_on_after_a_start_and_begins_anew_with_other_weights(bundles: dict[str, Path], tmp_path: Path) -> None:
    running = started(bundles, tmp_path)
    play(running, 60, {"a": 0.5, "b": 0.5}, np.random.default_rng(0))
    assert running.server.comparison is not None
    running.server.comparison._saved = -1e9
    running.tick()
    before = found(running)
    assert sum(one["n"] for one in before["variants"]) == 60
    running.server.close()
    again = started(bundles, tmp_path)
    assert found(again) == before
    again.rollout.set_weights({"a": 3.0})
    play(again, 8, {"a": 0.5, "b": 0.5}, np.random.default_rng(0))
    document = found(again)
    assert sum(one["n"] for one in document["variants"]) == 8
    assert document["variants"][0]["share"] == 0.75
    again.server.close()


def test_what_a_client_aimed_at_does_not_count(bundles: dict[str, Path]) -> None:
    running = started(bundles)
    one = running.server.decide(DecisionRequest((3,), target_variant="b")).decisions[0]
    running.server.rewards.take(one.decision_id, reward=1.0)
    assert [each["n"] for each in found(running)["variants"]] == [0, 0]
    running.server.close()


@pytest.mark.parametrize(
    ("names", "rules", "message"),
    [(["a"], {}, "at least two variants"), (["a", "b"], {"baseline": "c"}, "must be a variant: a, b")],
)
def test_comparisons_that_make_no_sense_are_refused(names: list[str], rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        endpoint(*({"name": name, "bundle": "x"} for name in names), comparison={**RULES, **rules})
