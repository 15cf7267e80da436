"""What every registered tabular agent must do: learn, save, restore exactly, repeat itself, refuse damage."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylab.agents.build import make_agent
from policylab.agents.registry import AGENTS
from policylab.agents.tabular.agent import TabularAgent
from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError, ConfigError, EnvironmentRuleError, RunError, UnknownNameError, UserError
from policylab.files import content_hash
from policylab.seeding import generator

KINDS = [kind for kind in AGENTS.names() if issubclass(AGENTS.load(kind), TabularAgent)]
RUNS = [
    (kind, execution)
    for kind in KINDS
    for execution in ("plain", "compiled")
    if execution == "plain" or AGENTS.load(kind).compiled
]
LAKE = EnvSettings(id="FrozenLake-v1")
EXPLORING = {"kind": "epsilon_greedy", "epsilon": {"kind": "linear", "start": 1.0, "end": 0.1}}
BUDGET = 300


def fresh(kind, execution="auto", *, environment=LAKE, seed=7, **given_):
    given_ = {"exploration": EXPLORING, **given_}
    return make_agent({"kind": kind, "execution": execution, **given_}, environment, seed=seed, budget_steps=BUDGET)


@pytest.mark.parametrize("kind", KINDS)
def test_the_registry_names_each_agent_by_its_kind(kind):
    agent = AGENTS.load(kind)
    assert agent.Settings().kind == kind
    assert agent.__doc__.splitlines()[0].endswith(".")
    for name, field in agent.Settings.model_fields.items():
        assert name == "kind" or field.description, f"{kind}.{name} has no description"


@pytest.mark.parametrize(("kind", "execution"), RUNS)
def test_it_learns_reports_and_leaves_a_policy(kind, execution):
    agent = fresh(kind, execution)
    report = agent.learn(BUDGET)
    assert report.steps == BUDGET
    assert report.episodes > 0
    assert {"train/return_mean", "train/length_mean", "train/td_error", "train/states_visited", "train/epsilon"} <= set(
        report.metrics
    )
    assert all(np.isfinite(list(report.metrics.values())))
    assert 0 < report.metrics["train/states_visited"] <= 11 / 16  # the goal and four holes end the episode
    policy = agent.policy()
    before = policy.weights.copy()
    agent.learn(BUDGET)
    assert np.array_equal(policy.weights, before), "a policy is independent of later learning"
    assert policy.act(0) in range(4)


@pytest.mark.parametrize(("kind", "execution"), RUNS)
def test_saving_and_restoring_changes_nothing(kind, execution, tmp_path):
    rng = generator(sum(map(ord, kind)), "cut")
    for k in (0, int(rng.integers(1, BUDGET)), BUDGET):
        whole, first, second = fresh(kind, execution), fresh(kind, execution), fresh(kind, execution, seed=99)
        whole.learn(k)
        first.learn(k)
        first.save(tmp_path / str(k))
        second.restore(tmp_path / str(k))
        assert whole.learn(BUDGET - k) == second.learn(BUDGET - k)
        assert_same_state(whole, second)
        first.learn(1)  # saving does not end the first agent's life


def assert_same_state(one, other):
    assert one._arrays().keys() == other._arrays().keys()
    for name, array in one._arrays().items():
        assert np.array_equal(array, other._arrays()[name]), name


@given(k=st.integers(0, BUDGET), seed=st.integers(0, 2**63 - 1), discount=st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_restoring_is_exact_at_any_step(k, seed, discount, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    whole, first, second = (fresh("q_lambda", seed=seed, discount=discount) for _ in range(3))
    whole.learn(BUDGET)
    first.learn(k)
    first.save(folder)
    second.restore(folder)
    second.learn(BUDGET - k)
    assert_same_state(whole, second)


PROBE = """
import hashlib, json, sys
from policylab.agents.build import make_agent
from policylab.envs.settings import EnvSettings
found = {}
for kind, execution in json.loads(sys.argv[1]):
    settings = {"kind": kind, "execution": execution}
    agent = make_agent(settings, EnvSettings(id="FrozenLake-v1"), seed=3, budget_steps=200)
    report = agent.learn(200)
    found[kind + execution] = [hashlib.sha256(agent.q.tobytes()).hexdigest(), sorted(report.metrics.items())]
print(json.dumps(found))
"""


def test_another_process_with_another_hash_seed_learns_the_same():
    def run(hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", PROBE, json.dumps(RUNS)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout

    assert run("1") == run("2")


def test_seeds_and_settings_matter():
    first, second = fresh("q_learning", seed=1), fresh("q_learning", seed=2)
    first.learn(BUDGET)
    second.learn(BUDGET)
    assert not np.array_equal(first._execution.position()["environment"], second._execution.position()["environment"])


def test_schedules_stretch_over_the_whole_budget_not_over_a_call():
    agent = fresh("q_learning")
    assert [agent.learn(100).metrics["train/epsilon"] for _ in range(4)] == pytest.approx([0.7, 0.4, 0.1, 0.1])


def test_no_step_is_allowed_and_a_negative_number_is_not():
    agent = fresh("sarsa", "plain")
    assert agent.learn(0).steps == 0
    with pytest.raises(UserError, match="at least 0, got -1"):
        agent.learn(-1)


def test_metrics_without_an_ended_episode_have_no_return():
    agent = make_agent({"kind": "q_learning"}, EnvSettings(id="Taxi-v4"), seed=0, budget_steps=10)
    assert "train/return_mean" not in agent.learn(3).metrics


def test_returns_and_lengths_are_of_the_episodes_since_the_last_report():
    agent = fresh("q_learning", environment=EnvSettings(id="CliffWalking-v1", max_episode_steps=10))
    for _ in range(5):
        report = agent.learn(20)
        assert report.metrics["train/length_mean"] == 10
        assert -1000 <= report.metrics["train/return_mean"] <= -10


def damaged_json(folder):
    (folder / "state.json").write_text("{")


def altered_fact(folder):
    path = folder / "state.json"
    path.write_text(path.read_text().replace('"steps":50', '"steps":51'))


def missing_arrays(folder):
    (folder / "state.npz").unlink()


def truncated_arrays(folder):
    path = folder / "state.npz"
    path.write_bytes(path.read_bytes()[:-40])


def foreign_json(folder):
    (folder / "state.json").write_text("[1, 2]")


def newer_version(folder):
    path = folder / "state.json"
    path.write_text(path.read_text().replace('"version":1', '"version":9'))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damaged_json, r"state\.json is damaged: it is not JSON"),
        (altered_fact, r"state\.json is damaged: its digest"),
        (missing_arrays, r"state\.npz cannot be read"),
        (truncated_arrays, r"state\.npz is damaged: its sha256"),
        (foreign_json, r"state\.json is not the checkpoint of a tabular agent"),
        (newer_version, r"has version 9, this policylab reads version 1"),
    ],
)
def test_a_damaged_checkpoint_is_refused_and_leaves_the_agent_alone(damage, message, tmp_path):
    agent = fresh("dyna_q")
    agent.learn(50)
    agent.save(tmp_path)
    damage(tmp_path)
    other = fresh("dyna_q")
    other.learn(10)
    before = other.q.copy()
    with pytest.raises(CheckpointError, match=message):
        other.restore(tmp_path)
    assert np.array_equal(other.q, before)


def test_arrays_of_objects_are_refused_before_they_are_unpickled(tmp_path):
    agent = fresh("sarsa")
    agent.save(tmp_path)
    facts = json.loads((tmp_path / "state.json").read_text())
    hostile = tmp_path / "state.npz"
    np.savez(hostile, **{"core.q": np.array([{"a": 1}], dtype=object)})
    digest = hashlib.sha256(hostile.read_bytes()).hexdigest()
    body = {**{key: value for key, value in facts.items() if key != "sha256"}, "arrays_sha256": digest}
    body["sha256"] = content_hash(body)
    (tmp_path / "state.json").write_text(json.dumps(body))
    with pytest.raises(CheckpointError, match="does not hold plain arrays"):
        fresh("sarsa").restore(tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"kind": "sarsa"}, r'by another agent: agent\.kind "q_learning" instead of "sarsa"; restore'),
        ({"kind": "q_learning", "discount": 0.5}, r"agent\.discount 0\.99 instead of 0\.5"),
        ({"kind": "q_learning", "execution": "plain"}, 'execution "compiled" instead of "plain"'),
        (
            {"kind": "q_learning", "environment": EnvSettings(id="CliffWalking-v1")},
            r'environment\.id "FrozenLake-v1" instead of',
        ),
    ],
)
def test_a_foreign_checkpoint_is_refused(other, message, tmp_path):
    agent = fresh("q_learning")
    agent.save(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        fresh(**other).restore(tmp_path)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is this a checkpoint folder"):
        fresh("q_learning").restore(tmp_path / "nowhere")


def test_execution_is_chosen_and_explained():
    assert fresh("q_learning").execution_report == {
        "kind": "compiled",
        "reason": "the environment has an exact table",
    }
    assert fresh("q_learning", "plain").execution_report["reason"] == "asked for by `execution: plain`"
    assert "no compiled form" in fresh("prioritized_sweeping").execution_report["reason"]
    cart_pole = EnvSettings(id="CartPole-v1")
    bins = {"kind": "bins", "n_bins": 4, "low": [-2.4, -3, -0.21, -3], "high": [2.4, 3, 0.21, 3]}
    agent = fresh("q_learning", environment=cart_pole, features=bins)
    assert agent.execution_report["kind"] == "plain"
    assert "computed from observations" in agent.execution_report["reason"]


@pytest.mark.parametrize(
    ("given_", "error", "message"),
    [
        ({"kind": "q_lerning"}, UnknownNameError, "did you mean 'q_learning'"),
        ({"kind": "q_learning", "discount": 1.5}, ConfigError, r"agent\.discount: .*less than or equal to 1"),
        ({"kind": "q_learning", "lerning_rate": 0.1}, ConfigError, r"agent\.lerning_rate: Extra inputs"),
        ({"kind": "off_policy_monte_carlo", "exploration": {"kind": "ucb"}}, ConfigError, "probabilities are known"),
        ({"kind": "off_policy_monte_carlo", "learning_rate": 0.5}, ConfigError, "leave learning_rate out"),
        (
            {"kind": "prioritized_sweeping", "execution": "compiled"},
            UserError,
            "has no compiled form; use `execution: auto`",
        ),
    ],
)
def test_mistakes_in_the_settings_are_named(given_, error, message):
    with pytest.raises(error, match=message):
        make_agent(given_, LAKE, seed=0, budget_steps=10)


def test_what_an_environment_cannot_give_is_named():
    with pytest.raises(EnvironmentRuleError, match=r"needs Discrete actions, but Pendulum-v1 has Box"):
        fresh("q_learning", environment=EnvSettings(id="Pendulum-v1"), features={"kind": "tiles"})
    with pytest.raises(EnvironmentRuleError, match="tiles"):
        fresh("q_learning", environment=EnvSettings(id="MountainCar-v0"))
    with pytest.raises(UserError, match="`execution: compiled` is impossible: features `tiles`"):
        fresh("q_learning", "compiled", environment=EnvSettings(id="MountainCar-v0"), features={"kind": "tiles"})


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not AGENTS.load(kind).linear])
def test_tables_only_algorithms_refuse_tiles(kind):
    with pytest.raises(UserError, match=f"`{kind}` learns tables only, but features `tiles` activate 8"):
        fresh(kind, environment=EnvSettings(id="MountainCar-v0"), features={"kind": "tiles"})


@pytest.mark.parametrize("given_", [{"learning_rate": {"kind": "inverse_visits"}}, {"exploration": {"kind": "ucb"}}])
def test_counts_of_visits_are_refused_for_tiles(given_):
    with pytest.raises(UserError, match="counts the visits of single features"):
        fresh("q_learning", environment=EnvSettings(id="MountainCar-v0"), features={"kind": "tiles"}, **given_)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if AGENTS.load(kind).linear])
def test_linear_algorithms_learn_and_resume_with_tiles(kind, tmp_path):
    mountain = EnvSettings(id="MountainCar-v0", max_episode_steps=60)
    given_ = {"environment": mountain, "features": {"kind": "tiles"}, "learning_rate": 0.3}
    whole, first, second = (fresh(kind, **given_) for _ in range(3))
    assert whole.execution_report["kind"] == "plain"
    whole.learn(150)
    first.learn(80)
    first.save(tmp_path)
    second.restore(tmp_path)
    second.learn(70)
    assert_same_state(whole, second)
    assert whole.q.any()


def test_divergence_is_an_error_and_not_a_result():
    agent = fresh("q_learning", learning_rate=5.0, environment=EnvSettings(id="CliffWalking-v1"), discount=1.0)
    with pytest.raises(RunError, match=r"q_learning diverged: .* after step 1000000; lower learning_rate"):
        agent.learn(1_000_000)


@pytest.mark.parametrize("execution", ["plain", "compiled"])
def test_divergence_is_noticed_in_either_execution(execution):
    agent = fresh("sarsa", execution, learning_rate=60.0, environment=EnvSettings(id="CliffWalking-v1"))
    with pytest.raises(RunError, match="sarsa diverged"):
        agent.learn(5000)


def test_checkpoints_hold_no_pickle(tmp_path):
    agent = fresh("n_step_sarsa", "plain")
    agent.learn(20)
    agent.save(tmp_path)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as stored:
        assert {"core.q", "rng", "ring", "progress.clock"} <= set(stored.files)
    assert sorted(Path(tmp_path).iterdir()) == [tmp_path / "state.json", tmp_path / "state.npz"]


CHANGES = {
    "learning_rate": (0.7, lambda agent: agent._algorithm.core.learning_rate.start),
    "discount": (0.5, lambda agent: agent._algorithm.core.discount),
    "exploration": (
        {"kind": "epsilon_greedy", "epsilon": 0.25},
        lambda agent: agent._algorithm.core.exploration.parameter.start,
    ),
    "trace_decay": (0.4, lambda agent: agent._algorithm.traces.decay / agent._algorithm.core.discount),
    "planning_steps": (3, lambda agent: agent._algorithm.planning_steps),
    "bonus": (0.125, lambda agent: agent._algorithm.bonus),
    "threshold": (0.5, lambda agent: agent._algorithm.threshold),
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in sorted(AGENTS.load(kind).Settings.mutable)]
)
def test_a_changed_setting_takes_effect_in_a_retuned_agent(kind, name, tmp_path):
    if (kind, name) == ("off_policy_monte_carlo", "learning_rate"):
        pytest.skip("it has none to change")
    value, read = CHANGES[name]
    expected = value["epsilon"] if isinstance(value, dict) else value
    if (kind, name) == ("monte_carlo", "learning_rate"):
        value = {"kind": "inverse_visits", "start": value}  # it counts visits, which a constant has none of
    agent = fresh(kind)
    agent.learn(50)
    agent.save(tmp_path)
    with pytest.raises(CheckpointError, match=rf"agent\.{name}"):
        fresh(kind, **{name: value}).restore(tmp_path)
    changed = fresh(kind, **{name: value})
    changed.restore(tmp_path, retuned=True)
    assert read(changed) == pytest.approx(expected)
    assert read(agent) != pytest.approx(expected)
    assert np.array_equal(changed.q, agent.q)
    assert_same_state(changed, agent)
    assert changed.learn(10).steps == 60


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"kind": "sarsa"}, r"agent\.kind"),
        ({"kind": "q_learning", "initial_value": 1.0}, r"agent\.initial_value"),
        ({"kind": "q_learning", "execution": "plain"}, "execution"),
        ({"kind": "q_learning", "learning_rate": {"kind": "inverse_visits"}}, r"array core\.updates must be"),
        ({"kind": "q_learning", "environment": EnvSettings(id="CliffWalking-v1")}, r"environment\.id"),
    ],
)
def test_retuning_keeps_the_structure(other, message, tmp_path):
    agent = fresh("q_learning")
    agent.save(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        fresh(**other).restore(tmp_path, retuned=True)
