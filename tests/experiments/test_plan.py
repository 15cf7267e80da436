"""`plan` says how policies will be valued, and is right about it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from policylab.agents.build import make_agent
from policylab.errors import EnvironmentRuleError, MissingExtraError
from policylab.experiments.evaluation import ExactEvaluator, make_evaluator
from policylab.experiments.plan import plan
from policylab.experiments.schema import ExperimentConfig, load_experiment, shipped_configs

TILES = {"kind": "sarsa", "features": {"kind": "tiles", "n_tilings": 2, "n_tiles": 2}}
BINS = {"kind": "sarsa", "features": {"kind": "bins", "n_bins": [2] * 10 + [1] * 152}}
PPO = {"kind": "rllib", "algorithm": "PPO", "network": {"hidden": [4]}}
needs_rllib = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs the extra rllib")


def experiment(agent: dict[str, Any], env_id: str, *, kind: str = "auto", **env: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "name": "planned",
            "env": {"id": env_id, **env},
            "agent": agent,
            "budget": {"steps": 100},
            "seeds": {"tune": 1, "confirm": 1},
            "evaluation": {"kind": kind},
        }
    )


CASES = [
    pytest.param({"kind": "q_learning"}, "FrozenLake-v1", "exact"),
    pytest.param({"kind": "q_learning"}, "Blackjack-v1", "exact"),
    pytest.param(TILES, "MountainCar-v0", "rollout"),
    # The environment has a table, but a tabular agent that sees planes says nothing of its states.
    pytest.param(BINS, "policylab/CatMouseLarge-v0", "rollout", id="bins over planes"),
    pytest.param({"kind": "bandit_ucb1"}, "policylab/Bandit-v0", "online"),
    pytest.param(PPO, "policylab/CatMouseLarge-v0", "exact", id="network over planes", marks=needs_rllib),
    pytest.param(PPO, "Blackjack-v1", "rollout", id="network over tuples", marks=needs_rllib),
]


@pytest.mark.parametrize(("agent", "env_id", "evaluation"), CASES)
def test_it_says_exact_where_a_run_will_be_valued_exactly(agent: dict[str, Any], env_id: str, evaluation: str) -> None:
    config = experiment(agent, env_id)
    assert plan(config)["evaluation"] == evaluation
    if evaluation == "online":
        return
    spec = config.specs()[0]
    trained = make_agent(spec.agent, config.env, seed=0, budget_steps=100)
    evaluator = make_evaluator(config.env, trained.policy(), kind="auto", seed=0)
    assert isinstance(evaluator, ExactEvaluator) == (evaluation == "exact")
    trained.close()


def test_episodes_can_be_asked_for_where_there_is_a_table() -> None:
    assert plan(experiment({"kind": "q_learning"}, "FrozenLake-v1", kind="rollout"))["evaluation"] == "rollout"


def test_exact_values_that_nobody_can_compute_are_refused_before_training() -> None:
    with pytest.raises(
        EnvironmentRuleError, match=r"evaluation.kind 'exact': policylab/CatMouseLarge-v0 or the policy"
    ):
        plan(experiment(BINS, "policylab/CatMouseLarge-v0", kind="exact"))


ONE_SEED = "1 tuning seed decides"
KNOWN = {
    "blackjack": ("Blackjack-v1 is registered without a time limit",),
    "taxi": ("the registered reward threshold of Taxi-v3, 8, is above its true optimum",),
    "taxi_tune": ("the registered reward threshold of Taxi-v3, 8, is above its true optimum",),
    "frozenlake_hyperband": (ONE_SEED,),
    "frozenlake8x8_warmstart": ("warm_start.parents[0] frozenlake_hyperband: SageMaker documents parents of",),
    "cartpole_ppo_tune": ("4 hyperparameters are too many for 14 configurations", "2 trainings at a time", ONE_SEED),
}
"""What is true of an environment whoever uses it, or meant in an example that must not take hours."""


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_can_be_planned_and_needs_no_other_advice(name: str, tmp_path: Path) -> None:
    """But for the number of seeds: fewer than ten make a shorter example, and the interval says so."""
    config = load_experiment(name)
    if config.agent.kind == "rllib":
        pytest.importorskip("torch")
    try:
        document = plan(config, root=tmp_path)
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert document["total_steps"] > 0
    allowed = ("seeds.", *KNOWN.get(name, ()))
    assert [warning for warning in document["warnings"] if not warning.startswith(allowed)] == []


def test_how_often_runs_save_is_said_by_the_file_and_changes_no_result() -> None:
    config = experiment({"kind": "q_learning"}, "FrozenLake-v1")
    said = ExperimentConfig.model_validate({**config.model_dump(), "checkpoint_every_s": 0})
    assert [plan(one)["checkpoint_every_s"] for one in (config, said)] == [5.0, 0.0]
    assert [one.spec("tune", 0).checkpoint_every_s for one in (config, said)] == [5.0, 0.0]
    assert said.config_hash == config.config_hash
    with pytest.raises(ValidationError, match=r"checkpoint_every_s\n.*greater than or equal to 0"):
        ExperimentConfig.model_validate({**config.model_dump(), "checkpoint_every_s": -1})
