"""Spaces: scales, conditions, constraints, grids, and what a mistake in one is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policylab.config import parse, validate
from policylab.errors import ConfigError
from policylab.tuning import Categorical, Continuous, Integer, Space
from policylab.tuning.parameters import value_key

CONDITIONAL = """
parameters:
  agent.exploration.kind: {kind: categorical, values: [epsilon_greedy, softmax]}
  agent.exploration.epsilon:
    {kind: continuous, low: 0.01, high: 0.5, scaling: logarithmic, when: {agent.exploration.kind: epsilon_greedy}}
  agent.exploration.temperature:
    {kind: continuous, low: 0.1, high: 10, when: {agent.exploration.kind: [softmax]}}
  agent.batch: {kind: integer, low: 8, high: 256, scaling: logarithmic}
  agent.buffer: {kind: integer, low: 8, high: 1024}
  agent.discount: {kind: continuous, low: 0.9, high: 0.999, scaling: reverse_logarithmic}
constraints:
  - {left: agent.batch, op: "<=", right: agent.buffer}
  - {left: agent.buffer, op: "<", right: 1000}
"""


def space_of(text: str) -> Space:
    return validate(Space, parse(text, "search.yaml"))


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


@st.composite
def parameters(draw: st.DrawFn) -> Any:
    kind = draw(st.sampled_from(["linear", "logarithmic", "reverse_logarithmic", "integer", "stepped", "categorical"]))
    if kind == "categorical":
        values = draw(st.lists(st.integers() | st.text() | st.booleans() | st.none(), min_size=1, unique_by=value_key))
        return Categorical(values=tuple(values))
    if kind == "reverse_logarithmic":
        low = draw(numbers(0, 0.9))
        return Continuous(low=low, high=draw(numbers(low + 0.01, 0.99999)), scaling=kind)
    if kind == "logarithmic":
        low = draw(numbers(1e-8, 1e3))
        return Continuous(low=low, high=low * draw(numbers(1.01, 1e6)), scaling=kind)
    if kind == "integer":
        low_integer = draw(st.integers(1, 1000))
        high = low_integer + draw(st.integers(1, 10**6))
        return Integer(low=low_integer, high=high, scaling=draw(st.sampled_from(["auto", "linear", "logarithmic"])))
    low = draw(numbers(-1e3, 1e3))
    if kind == "stepped":
        step = draw(st.sampled_from([0.1, 0.25, 1.0, 3.0]))
        return Continuous(low=round(low), high=round(low) + step * draw(st.integers(1, 50)), step=step)
    return Continuous(low=low, high=low + draw(numbers(0.01, 1e3)), scaling="linear")


@given(parameters(), st.lists(numbers(0, 1), min_size=1, max_size=20))
def test_values_survive_the_unit_interval(parameter: Any, units: list[float]) -> None:
    for unit in units:
        value = parameter.from_unit(unit)
        assert parameter.fault(value) is None
        back = parameter.from_unit(parameter.to_unit(value))
        assert back == value if parameter.size else back == pytest.approx(value, rel=1e-9, abs=1e-9)
    snapped = parameter.snap(np.array(units))
    np.testing.assert_allclose(parameter.snap(snapped), snapped, atol=1e-9)
    if parameter.size:
        assert [parameter.from_unit(unit) for unit in snapped] == [parameter.from_unit(unit) for unit in units]


@given(parameters())
def test_a_finite_parameter_has_one_cell_for_every_value(parameter: Any) -> None:
    if parameter.size is None or parameter.size > 2000:
        return
    listed = parameter.listed()
    assert len(listed) == parameter.size == len({value_key(value) for value in listed})
    places = parameter.places(listed)
    assert [parameter.from_unit(unit) for unit in places] == list(listed)
    assert (np.diff(places) > 0).all()


@pytest.mark.parametrize(
    ("parameter", "middle"),
    [
        (Continuous(low=1e-4, high=1.0, scaling="logarithmic"), 1e-2),
        (Continuous(low=0.0, high=10.0, scaling="linear"), 5.0),
        (Continuous(low=0.9, high=0.999, scaling="reverse_logarithmic"), 0.99),
        (Continuous(low=0.5, high=1.0), 0.75),  # auto stays linear
        (Continuous(low=0.01, high=1.0), 0.1),  # two orders of magnitude: auto is logarithmic
        (Continuous(low=0.0, high=1.0), 0.5),  # zero has no logarithm
    ],
)
def test_the_middle_of_each_scale(parameter: Continuous, middle: float) -> None:
    assert parameter.from_unit(0.5) == pytest.approx(middle)


def test_integers_are_drawn_uniformly() -> None:
    draws = Integer(low=1, high=4, scaling="linear").at(np.random.default_rng(0).random(40_000))
    counts = np.bincount(draws.astype(int))[1:]
    assert counts.sum() == 40_000
    assert (np.abs(counts - 10_000) < 4 * math.sqrt(40_000 * 0.25 * 0.75)).all()


def test_types_are_plain() -> None:
    found = space_of(CONDITIONAL).sample(np.random.default_rng(0))
    assert {type(value) for value in found.values()} <= {int, float, str}
    assert type(found["agent.batch"]) is int


def test_samples_keep_conditions_and_constraints() -> None:
    space = space_of(CONDITIONAL)
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(200):
        found = space.sample(rng)
        kinds.add(found["agent.exploration.kind"])
        assert space.violations(found) == []
        assert ("agent.exploration.epsilon" in found) == (found["agent.exploration.kind"] == "epsilon_greedy")
        assert ("agent.exploration.temperature" in found) == (found["agent.exploration.kind"] == "softmax")
        assert found["agent.batch"] <= found["agent.buffer"] < 1000
        assert space.active(found) == tuple(found)
    assert len(kinds) == 2


def test_snapped_points_are_those_of_their_configurations() -> None:
    space = space_of(CONDITIONAL)
    points = np.random.default_rng(1).random((100, len(space.paths)))
    snapped = space.snap(points)
    configurations = [space.from_unit(point) for point in points]
    np.testing.assert_allclose(space.points(configurations), snapped, atol=1e-9)
    kept = [all(c.holds(found) for c in space.constraints) for found in configurations]
    assert space.feasible(points).tolist() == kept


def test_a_child_of_an_inactive_parent_is_inactive() -> None:
    space = space_of("""
parameters:
  c: {kind: integer, low: 1, high: 3, when: {b: true}}
  b: {kind: categorical, values: [true, false], when: {a: x}}
  a: {kind: categorical, values: [x, y]}
""")
    assert space.resolution_order == ("a", "b", "c")
    assert list(space.listed()) == [
        {"c": 1, "b": True, "a": "x"},
        {"c": 2, "b": True, "a": "x"},
        {"c": 3, "b": True, "a": "x"},
        {"b": False, "a": "x"},
        {"a": "y"},
    ]
    assert space.violations({"a": "y", "c": 1}) == ["c: does not exist here; it needs b: True"]


def test_the_grid_is_the_product_in_order() -> None:
    space = space_of("""
parameters:
  b: {kind: categorical, values: [2, 1]}
  a: {kind: continuous, low: 0.1, high: 0.3, step: 0.1}
""")
    assert [tuple(found.values()) for found in space.grid()] == [
        (2, 0.1),
        (2, 0.2),
        (2, 0.3),
        (1, 0.1),
        (1, 0.2),
        (1, 0.3),
    ]


def test_every_mistake_is_told_at_once_where_it_stands() -> None:
    with pytest.raises(ConfigError, match="logarithmic scaling needs values above 0") as caught:
        space_of("""
parameters:
  a: {kind: continuous, low: 0, high: 1, scaling: logarithmic}
  b: {kind: integer, low: 5, high: 1}
  c: {kind: integer, low: 1, high: 9, scaling: reverse_logarithmic}
  d: {kind: categorical, values: [x, y, x]}
  e: {kind: continuous, low: 0, high: 1, step: 0.3}
  f: {kind: continuous, low: 0.5, high: 1.5, scaling: reverse_logarithmic, lo: 3}
  g: {kind: nominal, values: [1]}
""")
    assert [line.split(":")[1] + line.split(":")[3] for line in str(caught.value).splitlines()] == [
        "3 parameters.a.low",
        "4 parameters.b.high",
        "5 parameters.c.scaling",
        "6 parameters.d.values.2",
        "7 parameters.e.step",
        "8 parameters.f.lo",
        "9 parameters.g.kind",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {kind: integer, low: 1, high: 3, when: {b: 1}}", r"parameters.a.when.b: 'b' is not in the search space"),
        (
            "rate: {kind: integer, low: 1, high: 3}\n  b: {kind: integer, low: 1, high: 3, when: {rat: 1}}",
            "did you mean 'rate'",
        ),
        (
            "a: {kind: integer, low: 1, high: 3, when: {b: 1}}\n  b: {kind: integer, low: 1, high: 3, when: {a: 1}}",
            "'a' depends on 'b' itself; break the circle",
        ),
        ("a: {kind: integer, low: 1, high: 3, when: {a: 1}}", "'a' depends on 'a' itself"),
        (
            "a: {kind: continuous, low: 1, high: 3}\n  b: {kind: integer, low: 1, high: 3, when: {a: 1}}",
            "'a' is continuous; a condition needs",
        ),
        (
            "a: {kind: categorical, values: [x]}\n  b: {kind: integer, low: 1, high: 3, when: {a: [x, z]}}",
            "'a' must be one of 'x', got 'z'",
        ),
        (
            "a: {kind: categorical, values: [x]}\n  a.b: {kind: integer, low: 1, high: 3}",
            "parameters.a.b: lies inside 'a', which is searched too",
        ),
        (
            "a: {kind: categorical, values: [x]}\nconstraints: [{left: a, op: '<', right: 3}]",
            "constraints.0: 'a' has values that are not numbers",
        ),
        (
            "a: {kind: integer, low: 1, high: 3}\nconstraints: [{left: 1, op: '<', right: 3}]",
            "compares two numbers; name a parameter",
        ),
        (
            "a: {kind: integer, low: 1, high: 3}\nconstraints: [{left: a, op: '==', right: 3}]",
            r"constraints.0.op: Input should be .* got '=='",
        ),
        ("a: {kind: integer, low: 1, high: 3}\ndefault: {a: 4}", "default: a: must be within 1 and 3, got 4"),
        ("a: {kind: integer, low: 1, high: 3}\ndefault: {b: 4}", "default: a: required, but missing"),
        ("a: {kind: integer, low: 1, high: 5, step: 2}\ndefault: {a: 2}", "1 plus a multiple of 2, got 2"),
        ("a: {kind: categorical, values: [1, 2]}\ndefault: {a: true}", "must be one of 1, 2, got True"),
    ],
)
def test_what_a_mistake_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        space_of(f"parameters:\n  {text}")


@pytest.mark.parametrize("bounds", ["low: 1, high: 9007199254740993", "low: -9007199254740994, high: 0"])
def test_integers_that_no_real_number_tells_apart_are_refused(bounds: str) -> None:
    with pytest.raises(ConfigError, match="must be within 9007199254740992 of 0, up to which all whole"):
        space_of(f"parameters: {{a: {{kind: integer, {bounds}}}}}")
    edge = space_of("parameters: {a: {kind: integer, low: 9007199254740990, high: 9007199254740992}}")
    assert [one["a"] - 2**53 for one in edge.listed()] == [-2, -1, 0]


def test_a_default_that_is_all_but_a_steps_value_is_that() -> None:
    space = space_of("""
parameters: {a: {kind: continuous, low: 0, high: 1, step: 0.1}}
default: {a: 0.30000000000000004}
""")
    assert space.default == {"a": 0.3}
    assert space.default in list(space.grid())


def test_the_ends_of_a_stepped_range_are_as_given() -> None:
    low, high = 0.1234567890123456, 0.3234567890123456
    space = space_of(f"parameters: {{a: {{kind: continuous, low: {low}, high: {high}, step: 0.1}}}}")
    listed = list(space.grid())
    assert [listed[0]["a"], listed[-1]["a"]] == [low, high]
    assert all(space.contains(one) for one in listed)
    assert [space.from_unit([place]) for place in (0.0, 1.0)] == [listed[0], listed[-1]]


def test_a_condition_on_one_of_very_many_integers_is_met_by_that_one() -> None:
    space = space_of("""
parameters:
  n: {kind: integer, low: 1, high: 10000000000}
  x: {kind: continuous, low: 0, high: 1, when: {n: 5000000000}}
constraints: [{left: x, op: ">", right: 2}]
""")
    points = np.array([[space.parameters["n"].to_unit(n), 0.5] for n in (4_999_999_999, 5_000_000_000, 5_000_000_001)])
    assert [len(space.from_unit(point)) for point in points] == [1, 2, 1]
    assert space.feasible(points).tolist() == [True, False, True]


def test_a_number_between_two_integers_is_none_of_them() -> None:
    space = space_of("parameters: {a: {kind: integer, low: 1, high: 9}}")
    plain = space.parameters["a"].plain
    assert [plain(8.0), plain(7.9999999), plain(8.4)] == [8, 8, 8.4]
    assert not space.contains({"a": plain(8.4)})


def test_a_corner_that_hardly_any_draw_hits_is_drawn_from() -> None:
    space = space_of("""
parameters: {a: {kind: integer, low: 1, high: 300}, b: {kind: integer, low: 1, high: 300}}
constraints: [{left: a, op: ">", right: 299}, {left: b, op: ">", right: 298}]
""")
    rng = np.random.default_rng(0)
    assert {tuple(space.sample(rng).values()) for _ in range(20)} == {(300, 299), (300, 300)}
    assert len(space.sample_points(50, rng)) == 50
    continuous = space_of("""
parameters: {a: {kind: continuous, low: 0, high: 1}, b: {kind: continuous, low: 0, high: 1}}
constraints: [{left: a, op: ">", right: 0.995}, {left: b, op: ">", right: 0.995}]
""")
    for _ in range(100):  # each found nothing in 20,000 draws, with a probability of .6
        assert continuous.contains(continuous.sample(rng))


def test_constraints_that_admit_nothing_are_told() -> None:
    space = space_of("""
parameters: {a: {kind: integer, low: 1, high: 3}}
constraints: [{left: a, op: ">", right: 5}]
""")
    with pytest.raises(ConfigError, match=r"none of \d+ draws keeps a > 5.0; loosen"):
        space.sample(np.random.default_rng(0))


def test_a_grid_needs_steps() -> None:
    space = space_of("parameters: {a: {kind: integer, low: 1, high: 3}, b: {kind: continuous, low: 0, high: 1}}")
    with pytest.raises(ConfigError, match=r"a: a grid needs a step.*\nb: a grid needs a step"):
        space.grid()


def test_the_default_is_plain_and_can_be_exchanged() -> None:
    space = space_of("parameters: {a: {kind: continuous, low: 0, high: 3}}\ndefault: {a: 1}")
    assert space.default == {"a": 1.0}
    assert isinstance(space.default["a"], float)
    assert space.to_unit({})[0] == pytest.approx(1 / 3)
    other = space.with_default({"a": 3})
    assert other.to_unit({})[0] == pytest.approx(1.0)
    with pytest.raises(ValidationError, match="must be within 0 and 3, got 4"):
        space.with_default({"a": 4})


def test_a_schema_can_object_to_values() -> None:
    space = space_of("""
parameters:
  rate: {kind: continuous, low: 0, high: 2}
  kind: {kind: categorical, values: [sarsa, foo]}
  wrong: {kind: integer, low: 1, high: 2}
""")

    def fault(path: str, value: Any) -> str | None:
        rules: dict[str, Callable[[Any], bool]] = {"rate": lambda v: v <= 1, "kind": lambda v: v == "sarsa"}
        if path not in rules:
            return f"{path}: unknown key"
        return None if rules[path](value) else f"{path}: refused {value}"

    assert space.check(fault) == [
        (("parameters", "rate", "high"), "rate: refused 2.0"),
        (("parameters", "kind", "values", 1), "kind: refused foo"),
        (("parameters", "wrong", "high"), "wrong: unknown key"),
    ]


def test_large_integers_are_each_their_own() -> None:
    low = 10**13
    space = Space.model_validate({"parameters": {"n": {"kind": "integer", "low": low, "high": low + 10}}})
    drawn = {space.from_unit(point)["n"] for point in space.sample_points(500, np.random.default_rng(0))}
    assert drawn == set(range(low, low + 11))
