"""What every registered agent says of itself, and what follows from it."""

import inspect

import pytest

from policylab.agents.agent import Agent
from policylab.agents.bandits import BanditAgent
from policylab.agents.registry import AGENTS
from policylab.agents.tabular.agent import TabularAgent

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


def test_agents_of_this_process_have_nothing_to_end(tmp_path):
    from policylab.agents.build import make_agent
    from policylab.envs.settings import EnvSettings

    agent = make_agent({"kind": "q_learning"}, EnvSettings(id="FrozenLake-v1"), seed=0, budget_steps=10)
    agent.learn(5)
    assert agent.steps == 5
    agent.close()
    agent.save(tmp_path)
