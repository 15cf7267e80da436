"""`verify`: every published number comes out, and a wrong one is noticed."""

from collections.abc import Iterator

import gymnasium as gym
import pytest

from policylab.envs.textbook import jacks_car_rental
from policylab.errors import UnknownNameError
from policylab.experiments.verify import CHECKS, Check, Estimate, Row, checks, temporal_difference, textbook, verify
from policylab.experiments.verify.rows import half_digit


def _check(measured: float | Estimate, **kwargs: object) -> Check:
    settings = {"name": "n", "published": "2.50", "source": "a table", **kwargs}
    return Check(measure=lambda: measured, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def everything() -> list[Row]:
    return verify()


QUICK = [check.name for check in CHECKS if not check.slow]
SLOW = [check.name for check in CHECKS if check.slow]


@pytest.mark.parametrize("name", QUICK)
def test_published_number_comes_out(name: str, everything: list[Row]) -> None:
    row = next(row for row in everything if row.name == name)
    assert row.passed, f"measured {row.measured}, published {row.published} ± {row.tolerance} ({row.source})"


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_published_number_that_takes_long_comes_out(name: str) -> None:
    (row,) = (check.run() for check in CHECKS if check.name == name)
    assert row.passed, f"measured {row.measured}, published {row.published} ± {row.tolerance} ({row.source})"


def test_slow_rows_come_on_request_only() -> None:
    assert [check.name for check in checks()] == QUICK
    assert [check.name for check in checks(slow=True)] == [check.name for check in CHECKS]
    with pytest.raises(UnknownNameError, match="take minutes; add --slow"):
        checks(SLOW[0])


def test_there_are_enough_rows_with_unique_names() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names)) >= 30


@pytest.mark.parametrize(
    "topic",
    ["FrozenLake 4x4", "FrozenLake 8x8", "Taxi", "CliffWalking", "Blackjack", "Gambler", "car rental", "windy", "dyna",
     "ten-armed", "SARSA", "Q-learning", "maximization bias", "random walk", "short corridor", "CatMouse",
     "inventory", "newsvendor", "serial chain", "building", "voicemail", "slot filling"],
)  # fmt: skip
def test_topic_is_covered(topic: str) -> None:
    assert checks(topic)


def test_only_selects_by_part_of_the_name_in_any_case() -> None:
    seen: list[Row] = []
    rows = verify("BLACKJACK: optimal", seen.append)
    assert [row.name.partition(",")[0] for row in rows] == ["Blackjack: optimal return"] * 2
    assert seen == rows


def test_unknown_name_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="no row of verify has 'chess' in its name"):
        verify("chess")


def test_measurements_are_deterministic(everything: list[Row]) -> None:
    again = verify("expected mean reward of the best arm")
    assert again[0] in everything


@pytest.fixture
def fickle_frozen_lake() -> Iterator[None]:
    kwargs = gym.spec("FrozenLake-v1").kwargs
    original = dict(kwargs)
    kwargs["success_rate"] = 0.34
    yield
    kwargs.clear()
    kwargs.update(original)


@pytest.mark.usefixtures("fickle_frozen_lake")
def test_other_dynamics_fail() -> None:
    assert [row.passed for row in verify("FrozenLake 4x4: optimal success in 100 steps, exactly")] == [False]


def test_other_rewards_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    textbook.car_rental.cache_clear()
    monkeypatch.setattr(jacks_car_rental, "MOVE_COST", 2.1)
    try:
        rows = verify("car rental: optimal value")
    finally:
        textbook.car_rental.cache_clear()
    assert not any(row.passed for row in rows)


def test_a_learner_that_explores_more_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporal_difference, "EPSILON", 0.15)
    assert [row.passed for row in verify("Cliff, asymptotic: SARSA, α 0.1")] == [False]


@pytest.mark.parametrize(
    ("measured", "passed"), [(2.5, True), (2.505, True), (2.506, False), (2.494, False), (float("nan"), False)]
)
def test_exact_number_must_agree_to_the_last_digit(measured: float, passed: bool) -> None:
    row = _check(measured).run()
    assert row.passed is passed
    assert row.tolerance == pytest.approx(0.005)
    assert row.source == "a table [last digit]"


def test_sampling_error_widens_the_tolerance_by_four_standard_errors() -> None:
    assert _check(Estimate(2.9, 0.1)).run().tolerance == pytest.approx(0.405)
    assert _check(Estimate(2.9, 0.3), published_error=0.4).run().tolerance == pytest.approx(0.005 + 4 * 0.5)
    assert "4 standard errors 0.4" in _check(Estimate(2.9, 0.1)).run().source


def test_slack_states_its_reason() -> None:
    row = _check(2.55, slack=0.1, reason="read off a figure").run()
    assert row.passed
    assert row.source == "a table [last digit + 0.1: read off a figure]"


def test_every_slack_has_a_reason() -> None:
    assert [check.name for check in CHECKS if (check.slack > 0) != bool(check.reason) or check.slack < 0] == []


@pytest.mark.parametrize(("published", "half"), [("-13", 0.5), ("0.74", 0.005), ("0.010", 0.0005), ("1e-3", 0.0005)])
def test_half_digit(published: str, half: float) -> None:
    assert half_digit(published) == pytest.approx(half)


def test_standard_error_of_a_mean() -> None:
    estimate = Estimate.of([1.0, 3.0, 5.0, 7.0])
    assert estimate.value == 4.0
    assert estimate.standard_error == pytest.approx((20 / 3) ** 0.5 / 2)
