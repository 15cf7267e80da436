"""Schedules: what the settings accept, and the values they resolve to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from policylab.agents.exploration import EpsilonGreedy, Softmax
from policylab.agents.schedules import (
    Constant,
    Exponential,
    InverseVisits,
    Linear,
    ScheduleSettings,
    resolve,
    value_at,
)
from policylab.agents.tabular.q_learning import QLearningSettings

SCHEDULE = TypeAdapter(ScheduleSettings)


def test_a_number_is_short_for_a_constant():
    assert SCHEDULE.validate_python(0.1) == SCHEDULE.validate_python({"kind": "constant", "value": 0.1})
    assert value_at(resolve(Constant(value=0.25), 100), 77, 0) == 0.25


def test_linear_goes_from_start_to_end_over_its_fraction_and_stays():
    schedule = resolve(Linear(start=1.0, end=0.05, fraction=0.5), 1000)
    assert [value_at(schedule, time, 0) for time in (0, 250, 500, 999, 10**9)] == pytest.approx(
        [1.0, 0.525, 0.05, 0.05, 0.05]
    )


def test_exponential_halves_in_equal_times():
    schedule = resolve(Exponential(start=0.8, end=0.1, fraction=1.0), 300)
    assert [value_at(schedule, time, 0) for time in (0, 100, 200, 300)] == pytest.approx([0.8, 0.4, 0.2, 0.1])
    forever = resolve(Exponential(start=1.0, decay=0.5), 10)
    assert value_at(forever, 20, 0) == pytest.approx(2.0**-20)


def test_inverse_visits_is_one_over_n():
    schedule = resolve(InverseVisits(), 10)
    assert [value_at(schedule, 5, visits) for visits in (0, 1, 2, 4)] == [1.0, 1.0, 0.5, 0.25]


@given(
    start=st.floats(1e-3, 1.0),
    end=st.floats(1e-3, 1.0),
    fraction=st.floats(0.01, 1.0),
    budget=st.integers(1, 10**9),
    time=st.integers(0, 2 * 10**9),
    kind=st.sampled_from([Linear, Exponential]),
)
def test_values_stay_between_start_and_end(start, end, fraction, budget, time, kind):
    value = value_at(resolve(kind(start=start, end=end, fraction=fraction), budget), time, 0)
    slack = 1e-9 * max(start, end)
    assert min(start, end) - slack <= value <= max(start, end) + slack
    if time >= math.ceil(fraction * budget):
        assert value == end


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"kind": "linear", "start": 1.0}, "end"),
        ({"kind": "linear", "start": 1.0, "end": 0.1, "fraction": 0.0}, "greater than 0"),
        ({"kind": "exponential", "start": 1.0}, "exactly one of `end` and `decay`"),
        ({"kind": "exponential", "start": 1.0, "end": 0.1, "decay": 0.9}, "exactly one of `end` and `decay`"),
        ({"kind": "exponential", "start": 0.0, "end": 0.1}, "greater than 0"),
        ({"kind": "cosine"}, "does not match any of the expected tags"),
        ({"kind": "linear", "start": 1.0, "end": 0.1, "frction": 0.5}, "Extra inputs"),
        (float("nan"), "finite"),
        (True, "expected a number, or a schedule"),
        ("0.1", "expected a number, or a schedule"),
    ],
)
def test_wrong_schedules_are_refused(given_, message):
    with pytest.raises(ValidationError, match=message):
        SCHEDULE.validate_python(given_)


def test_the_ranges_of_each_use_are_checked():
    with pytest.raises(ValidationError, match=r"end must be at least 0 and at most 1, got 1\.5"):
        EpsilonGreedy(epsilon={"kind": "linear", "start": 1.0, "end": 1.5})
    with pytest.raises(ValidationError, match="value must be greater than 0, got 0"):
        Softmax(temperature=0.0)
    with pytest.raises(ValidationError, match=r"value must be greater than 0, got -0\.1"):
        QLearningSettings(learning_rate=-0.1)
    with pytest.raises(ValidationError, match="end must be greater than 0, got 0"):
        Softmax(temperature={"kind": "linear", "start": 1.0, "end": 0.0})
    QLearningSettings(learning_rate={"kind": "linear", "start": 1.0, "end": 0.0})


def test_the_experiment_file_of_the_manual_is_valid():
    settings = QLearningSettings.model_validate(
        {
            "kind": "q_learning",
            "learning_rate": 0.1,
            "discount": 0.99,
            "exploration": {
                "kind": "epsilon_greedy",
                "epsilon": {"kind": "linear", "start": 1.0, "end": 0.05, "fraction": 0.5},
            },
        }
    )
    assert QLearningSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_an_editor_s_schema_accepts_a_bare_number():
    schema = SCHEDULE.json_schema(mode="validation")
    assert {"type": "number"} in [{key: branch[key] for key in branch if key == "type"} for branch in schema["anyOf"]]
