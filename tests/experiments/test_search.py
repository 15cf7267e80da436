"""The search section: what it accepts, where it puts its mistakes, what a configuration makes of an experiment."""

import re

import numpy as np
import pytest
import yaml

from policylab.errors import ConfigError, RunDirectoryError
from policylab.experiments.plan import plan
from policylab.experiments.schema import (
    ExperimentConfig,
    load_experiment,
    parse_experiment,
    read_experiment,
    shipped_configs,
)
from policylab.experiments.search import configured, own_configuration, with_default
from policylab.tuning.space import Space

EXPERIMENT = {
    "name": "lake",
    "env": {"id": "FrozenLake-v1"},
    "agent": {
        "kind": "q_learning",
        "learning_rate": 0.1,
        "exploration": {"kind": "epsilon_greedy", "epsilon": {"kind": "linear", "start": 1.0, "end": 0.1}},
    },
    "budget": {"steps": 1000},
    "search": {
        "space": {"parameters": {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}}},
        "limits": {"trials": 4},
    },
}


def load(tmp_path, parameters=None, **search):
    document = {**EXPERIMENT, "search": {**EXPERIMENT["search"], **search}}
    if parameters is not None:
        document["search"]["space"] = {"parameters": parameters}
    path = tmp_path / "lake.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return load_experiment(str(path))


def test_a_configuration_replaces_values_of_the_agent(tmp_path):
    config = load(tmp_path)
    trial = configured(config, {"agent.learning_rate": 0.5, "agent.exploration.epsilon.end": 0.2})
    assert trial.agent.learning_rate.value == 0.5
    assert (trial.agent.exploration.epsilon.start, trial.agent.exploration.epsilon.end) == (1.0, 0.2)
    assert trial.search is None
    assert config.agent.learning_rate.value == 0.1


def test_a_searched_kind_takes_its_own_settings_and_drops_those_of_the_other(tmp_path):
    parameters = {
        "agent.exploration.kind": {"kind": "categorical", "values": ["epsilon_greedy", "softmax"]},
        "agent.exploration.temperature": {
            "kind": "continuous", "low": 0.1, "high": 2.0, "when": {"agent.exploration.kind": "softmax"},
        },
    }  # fmt: skip
    config = load(tmp_path, parameters)
    softmax = configured(config, {"agent.exploration.kind": "softmax", "agent.exploration.temperature": 0.5})
    assert softmax.agent.exploration.temperature.value == 0.5
    same = configured(config, {"agent.exploration.kind": "epsilon_greedy"})
    assert same.agent.exploration == config.agent.exploration


def test_the_files_own_values_are_the_default_where_they_lie_in_the_space(tmp_path):
    config = load(tmp_path)
    assert own_configuration(config, config.search.space) == {"agent.learning_rate": 0.1}
    assert with_default(config).default == {"agent.learning_rate": 0.1}
    null = {"kind": "categorical", "values": [None, 1]}
    searched = {"agent.learning_rate": {"kind": "continuous", "low": 0.01, "high": 1.0}, "budget.early_stopping": null}
    own = own_configuration(config, Space.model_validate({"parameters": searched}))
    assert own == {"agent.learning_rate": 0.1, "budget.early_stopping": None}, "null is a value"
    absent = Space.model_validate({"parameters": {"agent.nothing": null}})
    assert own_configuration(config, absent) is None, "and not what is absent"
    outside = load(tmp_path, {"agent.learning_rate": {"kind": "continuous", "low": 0.5, "high": 1.0}})
    assert with_default(outside).default is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"agent.learning_rat": {"kind": "continuous", "low": 0.1, "high": 1.0}},
         r"lake.yaml:\d+:\d+: agent.learning_rat: unknown key; did you mean 'learning_rate'\?"),
        ({"agent.learning_rate": {"kind": "continuous", "low": 0.1, "high": 3.0, "scaling": "logarithmc"}},
         r"lake.yaml:\d+:\d+: search.space.parameters.*scaling"),
        ({"agent.discount": {"kind": "continuous", "low": 0.9, "high": 1.5}},
         r"lake.yaml:\d+:\d+: agent.discount: Input should be less than or equal to 1, got 1.5"),
        ({"agent.kind": {"kind": "categorical", "values": ["q_learning", "sarsaa"]}},
         r"lake.yaml:\d+:\d+: agent.kind: unknown kind 'sarsaa'; did you mean 'sarsa'\?"),
        ({"budget.steps": {"kind": "integer", "low": 1, "high": 9}},
         r"only settings of the agent can be searched"),
    ],
)  # fmt: skip
def test_a_bad_space_is_an_error_at_its_place(tmp_path, parameters, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, parameters)


def test_a_search_without_an_end_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="limits must set trials, steps, wall_clock_s or cost"):
        load(tmp_path, limits={})
    assert load(tmp_path, limits={"wall_clock_s": 9.0}, scheduler={"kind": "fixed"}).search.limits.trials is None
    assert load(tmp_path, limits={"cost": 9.0, "cost_per_step": 0.01}).search.limits.budget == 900


def test_where_runs_execute_does_not_change_what_the_experiment_is(tmp_path):
    shipped = load_experiment("taxi_tune")
    elsewhere = load_experiment("taxi_tune", overrides=["launcher.workers=1", "tracking.kind=none", "description=x"])
    assert shipped.config_hash == elsewhere.config_hash
    assert shipped.config_hash != load_experiment("taxi_tune", overrides=["seeds.root=1"]).config_hash


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_loads_and_describes_itself(name):
    config = load_experiment(name)
    assert config.name == name
    assert config.description


def test_a_parent_that_is_nowhere_is_named(tmp_path):
    from policylab.experiments.study import make_searcher

    config = load(tmp_path, searcher={"kind": "bayesian"}, warm_start={"parents": ["frozenlake_hyperban"]})
    with pytest.raises(RunDirectoryError, match="no study, run directory or record 'frozenlake_hyperban'"):
        make_searcher(config, with_default(config), root=tmp_path)


def test_a_warm_start_tries_the_parents_best_first(tmp_path):
    from policylab.experiments.study import make_searcher
    from policylab.tuning.history import History

    config = load_experiment("frozenlake8x8_warmstart")
    space = with_default(config)
    first = make_searcher(config, space, root=tmp_path).suggest(History(max_resource=10), rng=np.random.default_rng(0))
    assert space.contains(first)


def test_a_parameter_of_another_kind_than_the_parents_is_refused(tmp_path):
    from policylab.experiments.study import make_searcher

    parameters = {"agent.learning_rate": {"kind": "categorical", "values": [0.1, 0.2]}}
    warm_start = {"kind": "transfer_learning", "parents": ["frozenlake_hyperband"]}
    config = load(tmp_path, parameters, warm_start=warm_start)
    with pytest.raises(ConfigError, match=r"agent\.learning_rate.*categorical"):
        make_searcher(config, with_default(config), root=tmp_path)


def test_a_plan_finds_and_checks_the_parents(tmp_path):
    """Before anything is trained and before there is a run directory."""
    from policylab.experiments.plan import plan

    missing = load(tmp_path, warm_start={"parents": ["frozenlake_hyperban"]})
    with pytest.raises(RunDirectoryError, match="no study, run directory or record 'frozenlake_hyperban'"):
        plan(missing, root=tmp_path)
    broken = load(tmp_path, warm_start={"parents": ["frozenlake_hyperband"]})
    with pytest.raises(ConfigError, match="data and algorithm must be identical"):
        plan(broken, root=tmp_path)
    hyperband = load_experiment("frozenlake8x8_warmstart", overrides=["search.scheduler={kind: hyperband}"])
    assert any("not portable" in warning for warning in plan(hyperband, root=tmp_path)["warnings"])


@pytest.mark.parametrize(
    ("search", "launcher", "places", "capacity"),
    [
        ({}, {"kind": "local"}, 2, 8),
        ({}, {"kind": "inline"}, 256, 256),
        ({"parallel": 3}, {"kind": "local"}, 3, 3),
        ({"searcher": {"kind": "bayesian"}}, {"kind": "local"}, 2, 2),
        ({"scheduler": {"kind": "race"}}, {"kind": "inline"}, 2, 2),
        ({"limits": {"trials": 4, "target": 0.5}}, {"kind": "local"}, 2, 2),
    ],
)
def test_runs_are_handed_out_ahead_where_no_decision_waits_for_a_result(search, launcher, places, capacity):
    held = {**EXPERIMENT["search"], "searcher": {"kind": "random"}, "scheduler": {"kind": "fixed"}, **search}
    config = ExperimentConfig.model_validate({**EXPERIMENT, "search": held, "launcher": {**launcher, "workers": 2}})
    assert config.search.places(config) == places
    assert config.search.capacity(config) == capacity


# --- spaces of which values go together

PPO = {
    "name": "batches",
    "env": {"id": "CartPole-v1"},
    "agent": {"kind": "rllib", "algorithm": "PPO"},
    "budget": {"steps": 10_000},
    "search": {
        "space": {
            "parameters": {
                "agent.batch_size": {"kind": "integer", "low": 64, "high": 8192},
                "agent.minibatch_size": {"kind": "integer", "low": 32, "high": 8192},
            },
            "constraints": [{"left": "agent.minibatch_size", "op": "<=", "right": "agent.batch_size"}],
        },
        "limits": {"trials": 40},
    },
}


def ppo(tmp_path, *, agent=None, **space):
    settings = {**PPO["search"], "space": {**PPO["search"]["space"], **space}}
    path = tmp_path / "ppo.yaml"
    path.write_text(yaml.safe_dump({**PPO, "agent": {**PPO["agent"], **(agent or {})}, "search": settings}))
    return str(path)


def test_values_are_checked_beside_what_constraints_pair_them_with(tmp_path):
    """A minibatch of 8192 is more than the file's own batch, but never tried beside it."""
    assert load_experiment(ppo(tmp_path)).search.space.constraints
    wrong = [{"left": "agent.minibatch_size", "op": ">", "right": "agent.batch_size"}]
    with pytest.raises(ConfigError, match=r"ppo.yaml:\d+:\d+: agent: `minibatch_size` 8192 is larger than the batch"):
        load_experiment(ppo(tmp_path, constraints=wrong))


def test_a_plan_says_how_much_of_the_space_the_agent_refuses(tmp_path):
    pytest.importorskip("ray.rllib")
    config = load_experiment(ppo(tmp_path, constraints=[], agent={"batch_size": 8192}))
    (advice,) = [text for text in plan(config, root=tmp_path)["warnings"] if "does not take" in text]
    assert re.search(
        r"does not take \d+ of 64 configurations drawn .*`minibatch_size` \d+ is larger.*constraints", advice
    )
    kept = load_experiment(ppo(tmp_path))
    assert not [text for text in plan(kept, root=tmp_path)["warnings"] if "does not take" in text]


def test_what_only_the_algorithm_knows_is_refused_at_its_place_before_anything_trains(tmp_path):
    pytest.importorskip("ray.rllib")
    parameters = {"agent.overrides.lamda": {"kind": "continuous", "low": 0.8, "high": 1.0}}
    read = read_experiment(ppo(tmp_path, parameters=parameters, constraints=[]))
    with pytest.raises(ConfigError, match=r"ppo.yaml:\d+:\d+: agent.overrides.lamda: .* did you mean 'lambda_'\?"):
        plan(parse_experiment(read), document=read, root=tmp_path)
