"""Every estimator and diagnostic by a number that is worked out beside it: two episodes, γ = 1/2.

| | ρ | c | γ^t r | γ^t Q | γ^t V |
|---|---|---|---|---|---|
| first episode | 2, 1/2 | 2, 1 | 1, 2 | 1, 1 | 2, 2 |
| second episode | 1/2 | 1/2 (rests) | 4 | 3 | 1 |
"""

from __future__ import annotations

import numpy as np
import pytest

from policylab.monitoring.ope import Choices, Log, Target, Trajectories, magic
from policylab.monitoring.ope import bandit as b
from policylab.monitoring.ope.estimators import ESTIMATORS, direct_method
from policylab.monitoring.ope.marginalised import marginalised
from policylab.monitoring.ope.overlap import overlap
from policylab.monitoring.ope.states import States

EVEN = np.array([[0.5, 0.5]])


def two_episodes() -> Trajectories:
    return Trajectories(
        weight=np.array([[2.0, 1.0], [0.5, 0.5]]), reward=np.array([[1.0, 2.0], [4.0, 0.0]]),
        action_value=np.array([[1.0, 1.0], [3.0, 0.0]]), value=np.array([[2.0, 2.0], [1.0, 0.0]]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("is", (1 * 3 + 0.5 * 4) / 2),
        ("pdis", ((2 * 1 + 1 * 2) + 0.5 * 4) / 2),
        ("wis", (1 * 3 + 0.5 * 4) / (1 + 0.5)),  # by trajectories
        ("pdwis", (2 * 1 + 0.5 * 4) / (2 + 0.5) + 1 * 2 / (1 + 0.5)),  # by decisions; the second keeps its weight
        ("dr", ((2 * (1 - 1) + 2 + 1 * (2 - 1) + 2 * 2) + (0.5 * (4 - 3) + 1)) / 2),
        ("wdr", (0.5 * (4 - 3)) / 2.5 + 1 * (2 - 1) / 1.5 + (2 + 1) / 2 + 2 * 2 / 2.5),
    ],
)
def test_estimators_of_episodes(name: str, expected: float) -> None:
    assert ESTIMATORS[name](two_episodes(), EVEN)[0] == pytest.approx(expected, abs=1e-12)


def test_the_direct_method_is_the_mean_value_of_the_starts() -> None:
    assert direct_method(two_episodes(), EVEN)[0] == (2 + 1) / 2


def test_j_step_returns_of_magic() -> None:
    # g(-1) = DM; g(0) = V + the correction of the first step + what the model says of the second; g(1) = WDR.
    expected = [1.5, 1.5 + 0.5 / 2.5 + 4 / 2.5, 1.5 + 0.5 / 2.5 + 4 / 2.5 + 1 / 1.5]
    found = magic.j_step_returns(two_episodes(), steps=np.array([-1, 0, 1])).sum(axis=0)
    assert found == pytest.approx(expected, abs=1e-12)


def test_magic_of_one_step() -> None:
    # c = (2, 1/2), r = (3, 4), Q = (1, 3), V = (2, 1). Terms of DM: 2/2, 1/2; of WDR: .8 * 2 + 1 = 2.6, .2 * 1 + .5 =
    # .7. So g = (1.5, 3.3), Ω = 2 Σ (term - mean)(term - mean)' = [[.25, .95], [.95, 3.61]], b = (1.5 - 3.3, 0) where
    # WDR's interval is a point; the least x'(Ω + bb')x is at x = (3.61 - .95) / (3.49 + 3.61 - 2 * .95) of DM.
    of = Trajectories(
        weight=np.array([[2.0], [0.5]]), reward=np.array([[3.0], [4.0]]),
        action_value=np.array([[1.0], [3.0]]), value=np.array([[2.0], [1.0]]),
    )  # fmt: skip
    value, _, blend = magic.magic(of, resampled=EVEN)
    share = 2.66 / 5.2
    assert blend == pytest.approx([share, 1 - share], abs=1e-9)
    assert value == pytest.approx(share * 1.5 + (1 - share) * 3.3, abs=1e-9)


def two_walks() -> Log:
    """Both start in state 0; the first goes to 1 (ρ = 2, 1), the second to 2 (ρ = 1/2, 3)."""
    ended = np.array([False, True, False, True])
    return Log(
        observation=np.array([0, 1, 0, 2]), action=np.array([0, 0, 1, 0]), reward=np.array([1.0, 2.0, 0.0, 4.0]),
        next_observation=np.array([1, 1, 2, 2]), terminated=ended, truncated=np.zeros(4, dtype=bool),
        log_propensity=np.log(np.full(4, 0.5)), starts=np.array([0, 2, 4]),
    )  # fmt: skip


RATIO = np.array([2.0, 1.0, 0.5, 3.0])


def test_the_marginalised_estimator() -> None:
    # d_1 = (2 * 1/2, 1/2 * 1/2) = (1, 1/4) on states 1 and 2: r_0 = 1 * 1, r_1 = 1 * 1 * 2 + 1/4 * 3 * 4 = 5.
    log = two_walks()
    states = States(np.array([0, 1, 0, 2]), np.array([1, 1, 2, 2]), 3)
    found = marginalised(log, np.log(RATIO), states=states, discount=0.5, share=EVEN)
    assert found[0] == pytest.approx(1 + 0.5 * 5, abs=1e-12)


def test_overlap() -> None:
    log, states = two_walks(), States(np.array([0, 1, 0, 2]), np.array([1, 1, 2, 2]), 3)
    here = np.array([[0.7, 0.3], [0.5, 0.5], [0.7, 0.3], [1.0, 0.0]])
    target = Target(log.log_propensity + np.log(RATIO), Choices(log.action, here=here, after=here))
    found = overlap(log, target, weight=np.array([2.0, 1.5]), states=states)
    # 1 - ρ: (-1 + 0) + (.5 - 2) over four steps; residuals -1 + 2 * .625 and -1.5 + 2 * .625.
    assert found.unsupported == pytest.approx(-2.5 / 4)
    assert found.unsupported_error == pytest.approx(np.sqrt(0.25**2 + 0.25**2) / 4)
    assert found.effective_episodes == pytest.approx(3.5**2 / (4 + 2.25))  # Kong
    assert (found.mean_weight, found.largest_ratio) == pytest.approx((1.75, 3.0))
    assert found.largest_weight == pytest.approx(2 / 3.5)
    assert found.unlogged == pytest.approx(0.5 / 4)  # the second action of state 1, in one of four steps


DECISIONS = b.Decisions(
    weight=np.array([2.0, 0.5]), reward=np.array([1.0, 4.0]), action_value=np.array([0.0, 3.0]),
    value=np.array([2.0, 1.0]),
)  # fmt: skip


def test_estimators_of_single_decisions() -> None:
    found = {
        "ips": b.ips(DECISIONS, EVEN),
        "snips": b.snips(DECISIONS, EVEN),
        "dr": b.doubly_robust(DECISIONS, EVEN),
        "sndr": b.self_normalised_doubly_robust(DECISIONS, EVEN),
        "switch_dr": b.switch_doubly_robust(DECISIONS, EVEN, threshold=1.0),
        "dr_os": b.shrunk_doubly_robust(DECISIONS, EVEN, shrinkage=1.0),
    }
    expected = {
        "ips": (2 * 1 + 0.5 * 4) / 2,
        "snips": (2 * 1 + 0.5 * 4) / 2.5,
        "dr": (2 + 2 * (1 - 0) + 1 + 0.5 * (4 - 3)) / 2,
        "sndr": (2 + 1) / 2 + (2 * 1 + 0.5 * 1) / 2.5,
        "switch_dr": (2 + 0 + 1 + 0.5 * 1) / 2,  # w = 2 is above τ = 1: the model alone
        "dr_os": (2 + 2 / (4 + 1) * 1 + 1 + 0.5 / (0.25 + 1) * 1) / 2,
    }
    assert {name: float(value[0]) for name, value in found.items()} == pytest.approx(expected, abs=1e-12)
