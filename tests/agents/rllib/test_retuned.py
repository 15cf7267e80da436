"""Hyperparameters that change while an RLlib agent trains, as a population changes them: read where they act.

RLlib has ignored changed values after a restore without a word (ray#62173).
"""

import json

import pytest
import yaml

from policylab.errors import ConfigError
from policylab.experiments.rundir import create_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import load_experiment
from policylab.experiments.study import read_history

OVERRIDES = {
    "lambda": 0.9,
    "clip_param": 0.3,
    "entropy_coeff": 0.0,
    "vf_loss_coeff": 1.0,
    "kl_coeff": 0.2,
    "grad_clip": 10.0,
}
CHANGED = {
    "lambda": 0.5,
    "clip_param": 0.11,
    "entropy_coeff": 0.07,
    "vf_loss_coeff": 0.25,
    "kl_coeff": 0.4,
    "grad_clip": 0.5,
}


def test_what_the_loss_is_computed_with_is_the_new(make, tmp_path):
    agent = make(learning_rate=1e-3, overrides=OVERRIDES)
    agent.learn(128)
    agent.save(tmp_path)
    other = make(learning_rate=3e-5, discount=0.7, minibatch_size=32, n_epochs=3, overrides=CHANGED)
    other.restore(tmp_path, retuned=True)
    learner = other._learner.algo.learner_group._learner
    (optimiser,) = learner._named_optimizers.values()
    for moment in ("restored", "trained on"):
        assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([3e-5]), moment
        config = learner.config.get_config_for_module("default_policy")
        assert (config.clip_param, config.vf_loss_coeff, config.grad_clip) == (0.11, 0.25, 0.5), moment
        assert (config.minibatch_size, config.num_epochs) == (32, 3), moment
        entropy = learner.entropy_coeff_schedulers_per_module["default_policy"].get_current_value()
        assert float(entropy) == pytest.approx(0.07), moment
        (gae,) = [c for c in learner._learner_connector.connectors if type(c).__name__.startswith("GeneralAdvantage")]
        assert (gae.lambda_, gae.gamma) == (0.5, 0.7), moment
        if moment == "restored":
            assert float(learner.curr_kl_coeffs_per_module["default_policy"]) == pytest.approx(0.4)
            assert other.learn(128).metrics["train/learning_rate"] == pytest.approx(3e-5)


EXPERIMENT = """
name: grown
env: {id: CartPole-v1}
agent:
  kind: rllib
  algorithm: PPO
  learning_rate: 1e-3
  batch_size: 128
  minibatch_size: 64
  n_epochs: 2
  n_envs_per_runner: 4
  network: {hidden: [16]}
budget: {steps: 600}
seeds: {tune: 1, confirm: 1}
evaluation: {marks: 3, episodes: 1, final_episodes: 1}
launcher: {workers: 1}
tracking: {kind: none}
search:
  space:
    parameters:
      agent.learning_rate: {kind: continuous, low: 1e-5, high: 1e-1, scaling: logarithmic}
      agent.overrides.entropy_coeff: {kind: continuous, low: 0.0, high: 0.1}
  searcher: {kind: random}
  scheduler: {kind: population, members: 3, every: 0.5, quantile: 0.34, resample: 0.0, factors: [0.1, 10]}
  limits: {steps: 1800}
  metric: train/return_mean
  storage: none
"""


def test_a_population_of_rllib_agents_trains_with_the_values_it_says(tmp_path):
    path = tmp_path / "grown.yaml"
    path.write_text(EXPERIMENT)
    run = create_run(load_experiment(str(path)), parent=tmp_path)
    drive(run)
    history = read_history(run)
    forks = [trial for trial in history.trials.values() if trial.parent is not None]
    assert forks, "no member was replaced"
    for trial in history.trials.values():
        rows = (run.path / f"trials/{trial.id:04d}/tune-000/reports.jsonl").read_text().splitlines()
        rates = {row["step"]: row["metrics"]["train/learning_rate"] for row in map(json.loads, rows)}
        for step, rate in rates.items():
            held = trial if step > trial.origin else history.trials[trial.parent]
            assert rate == pytest.approx(held.configuration["agent.learning_rate"]), (trial.id, step)
    assert history.spent == 1800


def test_what_shapes_the_network_is_not_explored(tmp_path):
    document = yaml.safe_load(EXPERIMENT)
    document["search"]["space"]["parameters"]["agent.n_envs_per_runner"] = {"kind": "integer", "low": 1, "high": 8}
    path = tmp_path / "grown.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"agent\.n_envs_per_runner: it cannot change while `rllib` trains"):
        load_experiment(str(path))
