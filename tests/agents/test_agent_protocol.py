"""What every registered agent says of itself, and what follows from it."""

import inspect

import pytest

from policylab.agents.agent import Agent
from policylab.agents.bandits import BanditAgent
from policylab.agents.build import make_agent
from policylab.agents.registry import AGENTS
from policylab.agents.tabular.agent import TabularAgent
from policylab.envs.settings import EnvSettings

MEMBERS = [name for name in vars(Agent) if not name.startswith("_")]


@pytest.mark.parametrize("kind", AGENTS.names())
def test_it_has_every_member_of_the_protocol(kind):
    agent = AGENTS.load(kind)
    annotated = {name for base in agent.__mro__ for name in inspect.get_annotations(base)}
    assert {"online", "exact_resume", "stochastic"} <= annotated
    for name in MEMBERS:
        assert hasattr(agent, name) or name in ("execution_report",), f"{kind} has no {name}"
    assert list(inspect.signature(agent.learn).parameters) == ["self", "steps", "pause"]


def test_who_resumes_exactly_and_who_does_not():
    """`test_tabular_contract` and `test_bandits` hold those that do to the last bit; `rllib/test_checkpoint` those that
    do not to what they promise instead, and to saying so."""
    for kind in AGENTS.names():
        agent = AGENTS.load(kind)
        assert agent.exact_resume is (issubclass(agent, TabularAgent | BanditAgent)), kind


@pytest.mark.parametrize("kind", [kind for kind in AGENTS.names() if kind != "rllib"])
def test_every_metric_it_reports_is_among_those_it_tells(kind):
    bandit = issubclass(AGENTS.load(kind), BanditAgent)
    env = EnvSettings(id="policylab/Bandit-v0", max_episode_steps=100) if bandit else EnvSettings(id="FrozenLake-v1")
    changes = [{}, {"exploration": {"kind": "softmax"}}, {"exploration": {"kind": "ucb"}}, {"learning_rate": 0.1}]
    if kind == "off_policy_monte_carlo":
        changes = changes[:2]  # it needs the probabilities of its choices, and weighs its steps by them
    reported = set()
    for chosen in changes[:1] if bandit else changes:
        agent = make_agent({"kind": kind, **chosen}, env, seed=0, budget_steps=3000)
        reported |= agent.learn(3000).metrics.keys()
    told = AGENTS.load(kind).metrics
    assert reported <= told
    assert told - reported <= {"train/c", "train/learning_rate"}, "a metric that is never there cannot be searched by"


def test_agents_of_this_process_have_nothing_to_end(tmp_path):
    agent = make_agent({"kind": "q_learning"}, EnvSettings(id="FrozenLake-v1"), seed=0, budget_steps=10)
    agent.learn(5)
    assert agent.steps == 5
    agent.close()
    agent.save(tmp_path)
