"""The loader reports every mistake, at its place, with what was probably meant."""

import contextlib
import json
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from policylab.config import Settings, assign, load, parse, validate
from policylab.errors import ConfigError


class Linear(Settings):
    kind: Literal["linear"]
    start: float
    end: float


class Constant(Settings):
    kind: Literal["constant"]
    value: float


class QLearning(Settings):
    kind: Literal["q_learning"]
    discount: float = Field(ge=0, le=1)
    learning_rate: Annotated[Linear | Constant, Field(discriminator="kind")] = Constant(kind="constant", value=0.1)


class Sarsa(Settings):
    kind: Literal["sarsa"]
    discount: float = 1.0


class Experiment(Settings):
    name: str
    agent: Annotated[QLearning | Sarsa, Field(discriminator="kind")]
    layers: tuple[int, ...] = ()
    schedules: tuple[Linear, ...] = Field(default=(), min_length=1)


def findings(text, overrides=()):
    with pytest.raises(ConfigError, match=r"bad\.yaml|--set") as caught:
        validate(Experiment, assign(parse(text, "bad.yaml"), overrides))
    return str(caught.value).splitlines()


def test_every_mistake_is_reported_at_its_place_with_a_suggestion():
    text = """\
name: a
agent:
  kind: q_learning
  discount: 1.5
  learning_rat: 0.1
  learning_rate: {kind: linear, strt: 1, end: x}
layers: [1, a]
"""
    found = findings(text)
    assert sorted(line.split(": ")[0] for line in found) == [
        "bad.yaml:4:3", "bad.yaml:5:3", "bad.yaml:6:3", "bad.yaml:6:33", "bad.yaml:6:42", "bad.yaml:7:13",
    ]  # fmt: skip
    assert "bad.yaml:5:3: agent.learning_rat: unknown key; did you mean 'learning_rate'?" in found
    assert "bad.yaml:6:33: agent.learning_rate.strt: unknown key; did you mean 'start'?" in found
    assert "bad.yaml:4:3: agent.discount: Input should be less than or equal to 1, got 1.5" in found


def test_unknown_and_missing_kinds_name_the_choices():
    assert findings("name: a\nagent: {kind: qlearning}") == [
        "bad.yaml:2:9: agent.kind: unknown kind 'qlearning'; did you mean 'q_learning'? (known: q_learning, sarsa)"
    ]
    assert findings("name: a\nagent: {discount: 1}") == ["bad.yaml:2:1: agent.kind: required, but missing"]


def test_a_wrong_item_of_a_list_is_one_mistake_and_an_empty_list_is_another():
    text = "{name: a, agent: {kind: sarsa}, schedules: [{kind: linear, start: 0, end: 1}]}"
    assert findings(text, ["schedules.0=7"]) == [
        "--set schedules.0=7: schedules.0: expected a mapping of settings, got 7"
    ]
    (found,) = findings(text, ["schedules=[]"])
    assert "must have at least 1 entry, got 0" in found


def test_an_override_is_validated_and_named_as_the_place():
    found = findings("name: a\nagent: {kind: sarsa}", ["agent.discont=1", "agent.discount=x"])
    assert "--set agent.discont=1: agent.discont: unknown key; did you mean 'discount'?" in found
    assert any(
        line.startswith("--set agent.discount=x: agent.discount: Input should be a valid number") for line in found
    )


def test_overrides_reach_into_mappings_and_lists_in_order():
    document = assign(parse("a: {b: 1}\nc: [1, 2]", "x"), ["a.b=2", "a.b=3", "a.d.e=1e-3", "c.1=5", "f=[x, y]"])
    assert document.data == {"a": {"b": 3, "d": {"e": 0.001}}, "c": [1, 5], "f": ["x", "y"]}


def test_a_key_that_holds_dots_is_found_or_made():
    text = "space: {agent.rate: {low: 1, high: 2}, agent: {rate: {low: 3}}}"
    new = ["space[agent.size]={low: 5}", "space[agent.size].high=6"]
    document = assign(parse(text, "x"), ["space.agent.rate.low=0", *new])
    assert document.data["space"]["agent.rate"] == {"low": 0, "high": 2}
    assert document.data["space"]["agent"] == {"rate": {"low": 3}}
    assert document.data["space"]["agent.size"] == {"low": 5, "high": 6}
    assert document.place(("space", "agent.size", "high")) == "--set space[agent.size].high=6"


@pytest.mark.parametrize("assignment", ["agent.discount", "=3", "name.x=1", "c.9=1", "[]=1", "..=1"])
def test_an_override_that_cannot_be_put_in_is_refused(assignment):
    with pytest.raises(ConfigError, match="--set"):
        assign(parse("name: a\nc: [1]", "x"), [assignment])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("1.", 1.0), ("200_000", 200_000), ("010", 10), ("-3", -3),
        ("on", "on"), ("no", "no"), ("yes", "yes"), ("true", True), ("~", None), ("12:30:45", "12:30:45"),
        ("2026-01-01", "2026-01-01"), ("4x4", "4x4"), ("'1'", "1"), ("0x10", "0x10"), ("1_000.5", 1000.5),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    parsed = parse(f"a: {text}", "x").data["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", r"x:2:1: a: duplicate key"),
        ("a: {b: 1, b: 2}", r"x:1:11: a.b: duplicate key"),
        ("a: [1", r"x:1:6: not valid YAML"),
        ("", r"x:1:1: expected a mapping of settings, got empty"),
        ("- 1", r"expected a mapping of settings, got a list"),
        ("? [a, b]\n: 3", r"x:1:3: \(document\): a key must be a plain word"),
        ("a: &a [*a]", r"more than 20000 values|nested too deeply"),
        ("a: !!python/object/apply:os.system [ls]", r"x:1:4: not valid YAML: could not determine a constructor"),
        ("a: \x00", r"x: not valid YAML"),
    ],
)
def test_text_that_is_not_a_configuration_is_one_clear_error(text, message):
    with pytest.raises(ConfigError, match=message):
        parse(text, "x")


def test_an_alias_bomb_is_refused_quickly():
    rows = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    rows += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match="more than 20000 values"):
        parse("\n".join(rows), "bomb")


def test_a_file_that_cannot_be_read_names_itself(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.yaml: cannot be read: No such file"):
        load(Experiment, tmp_path / "absent.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(Experiment, binary)


@given(st.text(max_size=60))
def test_no_text_whatever_escapes_as_another_exception(text):
    with contextlib.suppress(ConfigError):
        validate(Experiment, parse(text, "x"))


@given(
    st.recursive(
        st.integers() | st.booleans() | st.none(),
        lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(st.sampled_from("abc"), leaf, max_size=3),
        max_leaves=8,
    )
)
def test_any_value_survives_an_override(value):
    assert assign(parse("a: 1", "x"), [f"a={json.dumps(value)}"]).data["a"] == value
