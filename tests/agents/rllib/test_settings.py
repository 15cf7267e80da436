"""What the experiment file may say of an RLlib agent, and what it answers to mistakes."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from policylab.agents.rllib.settings import RllibSettings
from policylab.envs.settings import EnvSettings
from policylab.errors import ConfigError, EnvironmentRuleError, UserError


def test_describing_agents_needs_neither_ray_nor_torch():
    probe = (
        "import sys; sys.modules['ray'] = sys.modules['torch'] = None;"
        "from policylab.agents.registry import AGENTS; from policylab.experiments.schema import ExperimentConfig;"
        "AGENTS.load('rllib').Settings(algorithm='PPO', overrides={'a': 1}); ExperimentConfig.model_json_schema()"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False).stderr == ""


def test_without_the_extra_the_error_names_the_command():
    probe = (
        "import sys; sys.modules['ray'] = None;"
        "from policylab.agents.build import make_agent; from policylab.envs.settings import EnvSettings;"
        "from policylab.errors import MissingExtraError\n"
        "given = {'kind': 'rllib', 'algorithm': 'PPO'}\n"
        "try: make_agent(given, EnvSettings(id='CartPole-v1'), seed=0, budget_steps=1)\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert "pip install 'policylab[rllib]'" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"algorithm": "DQN", "n_epochs": 3}, "`n_epochs` belongs to PPO, DQN learns from a batch once"),
        ({"algorithm": "PPO", "batch_size": 64, "minibatch_size": 128}, "128 is larger than the batch of 64"),
        ({"algorithm": "SAC", "network": {"shared": True}}, "`network.shared` is for PPO and IMPALA"),
        ({"algorithm": "PPO", "learning_rate": 0.0}, "value must be greater than 0"),
        (
            {"algorithm": "PPO", "learning_rate": {"kind": "linear", "start": 1e-3, "end": -1.0}},
            "end must be at least 0",
        ),
        ({"algorithm": "A2C"}, "'PPO', 'APPO', 'IMPALA'"),
    ],
)
def test_mistakes_within_the_settings(given, message):
    with pytest.raises(ValidationError, match=message):
        RllibSettings.model_validate(given)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lamda": 0.9}, r"agent.overrides.lamda: PPOConfig has no such attribute; did you mean 'lambda_'\?"),
        ({"lr": 0.1}, "agent.overrides.lr: is set by agent.learning_rate"),
        ({"enable_rl_module_and_learner": False}, "only the new API stack is used"),
        ({"clip_param": "wide"}, "agent.overrides.clip_param: expected float such as 0.2, got 'wide'"),
        ({"use_gae": 1}, "expected bool such as True, got 1"),
        (
            {"model_config": {"fcnet_hidens": [1]}},
            r"no setting of RLlib's default networks; did you mean 'fcnet_hiddens'",
        ),
        ({"model_config": 3}, "expected a mapping, got 3"),
        ({"_model_config": {}}, "no such attribute"),
        ({"entropy_coeff": -1.0}, "PPO does not take these settings: .*entropy_coeff"),
    ],
)
def test_overrides_are_checked_against_the_algorithms_own_configuration(make, overrides, message):
    with pytest.raises(ConfigError, match=message):
        make(overrides=overrides)


def test_every_wrong_override_is_found_at_once(make):
    with pytest.raises(ConfigError, match=r"(?s)overrides.gama: .*'gamma'.*overrides.lr: is set by"):
        make(overrides={"gama": 1, "lr": 1})


def test_overrides_and_fields_reach_rllibs_configuration(make):
    settings = {
        "learning_rate": {"kind": "linear", "start": 1e-3, "end": 1e-4, "fraction": 0.5},
        "discount": 0.9,
        "network": {"hidden": [8, 4], "activation": "silu", "shared": True},
        "overrides": {"lambda": 0.5, "model_config": {"head_fcnet_hiddens": [3]}, "entropy_coeff": 0.01},
    }
    config = make(**settings, budget_steps=500)._config
    assert config.lr == [[0, 1e-3], [250, 1e-4]]
    assert (config.gamma, config.lambda_, config.entropy_coeff) == (0.9, 0.5, 0.01)
    assert (config.train_batch_size_per_learner, config.minibatch_size, config.num_epochs) == (128, 64, 2)
    model = config.model_config
    assert (model["fcnet_hiddens"], model["fcnet_activation"], model["vf_share_layers"]) == ([8, 4], "silu", True)
    assert model["head_fcnet_hiddens"] == [3]


def test_sac_has_its_learning_rate_for_all_three_optimisers(make):
    config = make("SAC", EnvSettings(id="Pendulum-v1"), learning_rate=2e-3)._config
    assert (config.actor_lr, config.critic_lr, config.alpha_lr, config.lr) == (2e-3, 2e-3, 2e-3, None)


def test_mappings_are_merged_not_replaced(make):
    config = make("DQN", overrides={"replay_buffer_config": {"capacity": 77}})._config
    assert config.replay_buffer_config["capacity"] == 77
    assert config.replay_buffer_config["type"] == "PrioritizedEpisodeReplayBuffer"


@pytest.mark.parametrize(
    ("algorithm", "env_id", "message"),
    [
        ("DQN", "Pendulum-v1", "DQN learns over discrete actions, but Pendulum-v1 has Box.*choose algorithm PPO"),
        ("SAC", "CartPole-v1", "SAC learns over box actions, but CartPole-v1 has Discrete"),
    ],
)
def test_actions_the_algorithm_cannot_take(make, algorithm, env_id, message):
    with pytest.raises(EnvironmentRuleError, match=message):
        make(algorithm, EnvSettings(id=env_id))


def test_a_gpu_is_demanded_only_where_there_is_one(make):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="torch sees no GPU; use `device: auto`"):
        make(device="cuda")
    assert make(device="auto").execution_report["reason"].endswith("on cpu")


def test_machines_differ_in_where_they_sample():
    assert RllibSettings(algorithm="PPO").effective_env_runners == 0
    assert RllibSettings(algorithm="PPO", machine="cluster").effective_env_runners == 2
    assert RllibSettings(algorithm="PPO", machine="cluster", n_env_runners=5).effective_env_runners == 5


def test_a_cluster_that_is_not_there_is_named_by_the_variable_that_names_it(make, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UserError, match=r"^RAY_ADDRESS=127\.0\.0\.1:1: cannot be reached"):
        make(n_env_runners=1).learn(1)
