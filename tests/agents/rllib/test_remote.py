"""Agents with remote processes: Ray is started for them, used, and gone afterwards."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import yaml

from policylab.envs.settings import EnvSettings
from policylab.errors import UserError
from policylab.ray_session import ray_session

pytestmark = pytest.mark.slow
PENDULUM = EnvSettings(id="Pendulum-v1", max_episode_steps=20)
MODULE = """
import gymnasium

class Coin(gymnasium.Env):
    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return int(self.np_random.integers(2)), float(action), False, False, {}

gymnasium.register("Coin-v0", Coin, max_episode_steps=5)
"""


def test_remote_runners_sample_filter_and_resume(make, tmp_path):
    """With remote runners RLlib loses the observation filter on restoring (ray#54408)."""
    import ray

    given = {"machine": "cluster", "n_env_runners": 2, "observation_filter": "mean_std"}
    agent = make(env=PENDULUM, **given)
    report = agent.learn(600)
    assert report.episodes > 0
    assert "2 remote env runners" in agent.execution_report["reason"]
    agent.save(tmp_path)
    states = [np.array([0.5, 0.5, 1.0], np.float32)]
    expected = agent.policy().outputs(states)
    agent.close()
    assert not ray.is_initialized()

    restored = make(env=PENDULUM, **given)
    restored.restore(tmp_path)
    assert np.array_equal(restored.policy().outputs(states), expected)
    count = "running_stats"
    counts = restored._learner.algo.env_runner_group.foreach_env_runner(
        lambda runner: [
            state[count][0]["num_pushes"]
            for piece in runner._env_to_module.connectors
            if type(piece).__name__ == "MeanStdFilter"
            for state in piece.get_state().values()
        ],
        local_env_runner=True,
    )
    assert min(one[0] for one in counts) >= 500, "every runner has the filter of the checkpoint"
    before = restored.steps
    assert restored.learn(100).steps > before


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_a_remote_learner_learns_reports_resumes_and_exports(make, tmp_path, algorithm):
    import ray

    agent = make(algorithm, n_learners=1, learning_rate=1e-3)
    states = [np.array([0.1, -0.2, 0.03, 0.4], np.float32)]
    untrained = agent.policy().outputs(states)
    report = agent.learn(150)
    assert ray.cluster_resources()["CPU"] == 2.0
    assert "1 remote learners on" in agent.execution_report["reason"]
    assert {"train/return_mean", "train/learning_rate", "train/dead_units"} <= report.metrics.keys()
    expected = agent.policy().outputs(states)
    assert not np.array_equal(expected, untrained), "what the learner learned is what is exported"
    agent.save(tmp_path)
    agent.close()
    assert not ray.is_initialized()

    restored = make(algorithm, n_learners=1, learning_rate=7e-5)
    restored.restore(tmp_path)
    assert np.array_equal(restored.policy().outputs(states), expected)
    read = restored._learner.algo.learner_group.foreach_learner(
        lambda learner: [group["lr"] for one in learner._named_optimizers.values() for group in one.param_groups]
    )
    assert [one.get() for one in read] == [[pytest.approx(7e-5)]]
    before = restored.steps
    assert restored.learn(128).steps >= before + 128
    with pytest.raises(UserError, match=r"agent\.n_learners: gradients are checked where"):
        restored.check_gradients()


def test_ray_starts_with_the_processors_declared_no_dashboard_and_not_a_word(tmp_path):
    """``build_algo`` by itself would take all processors, start a dashboard and print a banner."""
    probe = """
import ray
from policylab.agents.build import make_agent
from policylab.envs.settings import EnvSettings
settings = {"kind": "rllib", "algorithm": "PPO", "n_env_runners": 1, "batch_size": 64, "network": {"hidden": [8]}}
agent = make_agent(settings, EnvSettings(id="CartPole-v1"), seed=0, budget_steps=100)
agent.learn(64)
assert ray.cluster_resources()["CPU"] == 2.0, ray.cluster_resources()
assert not ray._private.worker._global_node.webui_url
agent.close()
assert not ray.is_initialized()
"""
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == [], "neither results nor a token in the user's home"


def test_a_runner_that_dies_is_replaced(make):
    import ray

    agent = make(n_env_runners=2)
    agent.learn(128)
    group = agent._learner.algo.env_runner_group
    pids = group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    assert len(set(pids)) == 2
    os.kill(pids[0], signal.SIGKILL)
    before = agent.steps
    deadline = time.monotonic() + 120
    found = []
    while len(found) < 2 and time.monotonic() < deadline:
        agent.learn(128)
        found = [pid for pid in group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False) if pid]
    assert agent.steps > before
    assert len(found) == 2
    assert pids[0] not in found
    assert ray.is_initialized()


@pytest.mark.parametrize("algorithm", ["APPO", "IMPALA"])
def test_asynchronous_algorithms_learn(make, algorithm):
    agent = make(algorithm, batch_size=128, network={"hidden": [16]})
    report = agent.learn(600)
    assert report.steps >= 600
    assert report.metrics["train/return_mean"] > 0
    assert agent.policy().act(np.zeros(4, np.float32)) in (0, 1)


def test_a_cluster_in_use_is_used_and_left_running(make):
    with ray_session("local", num_cpus=2) as ray:
        agent = make(n_env_runners=1)
        agent.learn(128)
        agent.close()
        assert ray.is_initialized()


def test_environments_of_a_module_are_known_to_remote_runners(make, tmp_path, monkeypatch):
    """Ids registered in one process are unknown to the others: `module:id` imports the module there."""
    (tmp_path / "coin_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    agent = make(env=EnvSettings(id="coin_module:Coin-v0"), n_env_runners=1)
    assert agent.learn(128).metrics["train/length_mean"] == 5.0


def test_an_interrupt_saves_and_leaves_no_process(tmp_path):
    config = {
        "name": "interrupted",
        "env": {"id": "CartPole-v1"},
        "agent": {"kind": "rllib", "algorithm": "PPO", "n_env_runners": 1, "batch_size": 256},
        "budget": {"steps": 10**7},
        "seeds": {"tune": 1, "confirm": 0},
        "tracking": {"kind": "none"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "policylab", "run", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "runs")]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    family = psutil.Process(process.pid)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and not list(tmp_path.glob("runs/*/trials/*/*/checkpoints/[0-9]*")):
        time.sleep(0.2)
    children = family.children(recursive=True)
    assert any("raylet" in child.name() for child in children), "a cluster was started"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert list(tmp_path.glob("runs/*/trials/*/*/checkpoints/[0-9]*"))
