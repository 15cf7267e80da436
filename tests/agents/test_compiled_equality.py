"""Plain and compiled execution of one agent: the same numbers, to the last bit."""

import numpy as np
import pytest

from policylab.agents.build import make_agent
from policylab.agents.registry import AGENTS
from policylab.agents.tabular.agent import TabularAgent
from policylab.envs.settings import EnvSettings
from policylab.errors import RunError

COMPILED = [
    kind for kind in AGENTS.names() if issubclass(AGENTS.load(kind), TabularAgent) and AGENTS.load(kind).compiled
]
EXPLORATIONS = {
    "greedy": {"kind": "greedy"},
    "epsilon": {"kind": "epsilon_greedy", "epsilon": {"kind": "linear", "start": 1.0, "end": 0.05, "fraction": 0.5}},
    "epsilon_by_visits": {"kind": "epsilon_greedy", "epsilon": {"kind": "inverse_visits"}},
    "softmax": {"kind": "softmax", "temperature": {"kind": "exponential", "start": 2.0, "end": 0.2}},
    "ucb": {"kind": "ucb", "c": 1.5},
}
ENVIRONMENTS = {
    "slippery": EnvSettings(id="FrozenLake-v1"),
    "deterministic": EnvSettings(id="CliffWalking-v1", max_episode_steps=40),
    "many_starts": EnvSettings(id="Taxi-v4", max_episode_steps=60),
    "own": EnvSettings(id="policylab/WindyGridworldStochastic-v0", max_episode_steps=50),
}
VARIED = {
    "q_learning": {"learning_rate": {"kind": "inverse_visits"}, "initial_value": 0.7},
    "sarsa": {"learning_rate": {"kind": "linear", "start": 0.5, "end": 0.01}, "discount": 1.0},
    "expected_sarsa": {"learning_rate": {"kind": "exponential", "start": 0.9, "decay": 0.999}},
    "double_q_learning": {"learning_rate": {"kind": "inverse_visits", "start": 0.8}, "discount": 0.0},
    "n_step_sarsa": {"n": 7},
    "sarsa_lambda": {"traces": "dutch", "trace_decay": 0.8},
    "q_lambda": {"traces": "accumulating", "trace_decay": 1.0, "learning_rate": 0.01},
    "dyna_q": {"planning_steps": 3},
    "dyna_q_plus": {"planning_steps": 3, "bonus": 0.01, "initial_value": -0.3},
    "monte_carlo": {"learning_rate": 0.05},
    "off_policy_monte_carlo": {"initial_value": -1.0},
}
STEPS = 400


def train(kind, environment, *, execution, seed, chunks, **settings):
    given = {"kind": kind, "execution": execution, **settings}
    agent = make_agent(given, environment, seed=seed, budget_steps=STEPS)
    assert agent.execution_report["kind"] == execution
    return agent, [agent.learn(steps) for steps in chunks]


def chunks_of(seed):
    """Uneven pieces of STEPS, zero and one among them."""
    cuts = np.sort(np.random.default_rng(seed).integers(0, STEPS, size=4))
    return [0, 1, *np.diff(np.concatenate([[1], np.maximum(cuts, 1), [STEPS]])).tolist()]


def assert_equal(kind, environment, *, seed, **settings):
    chunks = chunks_of(seed)
    plain, plain_reports = train(kind, environment, execution="plain", seed=seed, chunks=chunks, **settings)
    compiled, compiled_reports = train(kind, environment, execution="compiled", seed=seed, chunks=chunks, **settings)
    assert np.array_equal(plain.q, compiled.q)
    assert plain_reports == compiled_reports
    assert compiled_reports[-1].steps == STEPS
    for name, array in plain._arrays().items():
        assert np.array_equal(array, compiled._arrays()[name]), name
    at_once, _ = train(kind, environment, execution="compiled", seed=seed, chunks=[], **settings)
    assert [report for report, _ in at_once.learn_each(chunks)] == plain_reports
    assert np.array_equal(plain.q, at_once.q)


PAIRINGS = [
    (kind, exploration)
    for kind in COMPILED
    for exploration in EXPLORATIONS
    if kind != "off_policy_monte_carlo" or exploration in ("epsilon", "softmax")  # its behaviour must be known
]


@pytest.mark.parametrize(("kind", "exploration"), PAIRINGS)
def test_executions_agree_for_every_algorithm_and_exploration(kind, exploration):
    seed = sum(map(ord, kind + exploration))
    for environment in (ENVIRONMENTS["slippery"], ENVIRONMENTS["many_starts"]):
        assert_equal(kind, environment, seed=seed, exploration=EXPLORATIONS[exploration])


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("kind", COMPILED)
def test_executions_agree_for_other_settings_and_environments(kind, environment):
    for seed in (1, 2):
        settings = {"exploration": EXPLORATIONS["epsilon"], **VARIED[kind]}
        assert_equal(kind, ENVIRONMENTS[environment], seed=seed, **settings)


@pytest.mark.parametrize("kind", ["sarsa_lambda", "q_lambda"])
@pytest.mark.parametrize("traces", ["accumulating", "replacing", "dutch"])
def test_executions_agree_for_every_kind_of_trace(kind, traces):
    settings = {"traces": traces, "exploration": EXPLORATIONS["epsilon"], "learning_rate": 0.05}
    assert_equal(kind, ENVIRONMENTS["deterministic"], seed=3, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", COMPILED)
def test_executions_agree_over_a_long_run(kind):
    environment, given = EnvSettings(id="Taxi-v4"), {"kind": kind, "discount": 0.95}
    agents = []
    for execution in ("plain", "compiled"):
        agent = make_agent({**given, "execution": execution}, environment, seed=5, budget_steps=100_000)
        agent.learn(100_000)
        agents.append(agent)
    assert np.array_equal(agents[0].q, agents[1].q)


@pytest.mark.parametrize("execution", ["plain", "compiled"])
def test_several_marks_at_once_are_those_of_one_call_each(execution):
    chunks, settings = chunks_of(4), {"execution": execution, "seed": 4, "chunks": [], "initial_value": 0.5}
    stepped, at_once = (train("sarsa", ENVIRONMENTS["slippery"], **settings)[0] for _ in range(2))
    expected = [(stepped.learn(steps), stepped.policy().weights) for steps in chunks]
    found = [(report, policy.weights) for report, policy in at_once.learn_each(chunks)]
    assert [report for report, _ in found] == [report for report, _ in expected]
    assert [weights.tolist() for _, weights in found] == [weights.tolist() for _, weights in expected]
    assert found[1][1].tolist() != found[-1][1].tolist(), "policies are of their marks, not of the end"
    assert stepped.learn(10) == at_once.learn(10)


@pytest.mark.parametrize("execution", ["plain", "compiled"])
def test_what_came_before_a_divergence_is_told(execution):
    settings = {"execution": execution, "learning_rate": 60.0, "discount": 1.0}
    agent, _ = train("sarsa", EnvSettings(id="CliffWalking-v1"), seed=0, chunks=[], **settings)
    told = []

    def learn():
        for report, policy in agent.learn_each([50] * 200):
            assert np.isfinite(policy.weights).all()
            told.append(report.steps)

    with pytest.raises(RunError, match="sarsa diverged"):
        learn()
    assert told
    assert told == list(range(50, 50 * len(told) + 1, 50))


def test_a_run_does_not_depend_on_how_it_is_cut():
    whole, _ = train("q_learning", ENVIRONMENTS["slippery"], execution="compiled", seed=9, chunks=[STEPS])
    parts, _ = train("q_learning", ENVIRONMENTS["slippery"], execution="compiled", seed=9, chunks=[1] * STEPS)
    assert np.array_equal(whole.q, parts.q)
