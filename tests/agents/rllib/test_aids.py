"""Dropout, penalties, clipping and diagnostics really take effect, and nowhere else."""

import json
import logging

import numpy as np
import pytest

from policylab.agents.rllib.extension import MODULE
from policylab.agents.rllib.gradient_check import check_gradients, sampled_batch
from policylab.agents.rllib.gradient_watch import GradientWatch
from policylab.agents.rllib.layers import weights
from policylab.cli.main import main
from policylab.envs.settings import EnvSettings
from policylab.errors import UserError
from policylab.seeding import generator

CARTPOLE = EnvSettings(id="CartPole-v1")
PENDULUM = EnvSettings(id="Pendulum-v1", max_episode_steps=20)
NET = {"hidden": [16, 16]}


def local(agent):
    return agent._running().algo.learner_group._learner


def gradients_of(agent, batch):
    """Return the gradients the learner would apply for ``batch``, unclipped, by parameter name."""
    learner = local(agent)
    with agent._running().streams.lent(), learner.hidden:
        outputs = learner.module.forward_train({MODULE: batch})
        found = learner.compute_gradients(learner.compute_losses(fwd_out=outputs, batch={MODULE: batch}))
    names = {parameter: name for name, parameter in learner.module[MODULE].named_parameters()}
    return {names[one]: gradient.clone() for one, gradient in found.items() if one in names}


@pytest.mark.parametrize(("algorithm", "env"), [("PPO", CARTPOLE), ("DQN", CARTPOLE), ("SAC", PENDULUM)])
def test_diagnostics_are_reported_for_every_layer(make, algorithm, env):
    agent = make(algorithm, env, network=NET, **({"n_epochs": 24} if algorithm == "PPO" else {}))
    first = agent.learn(150).metrics
    metrics = agent.learn(150).metrics
    assert first["train/grad_norm/pi.0" if algorithm != "DQN" else "train/grad_norm/af.0"] > 0
    assert [name for name in metrics if "grad_norm" in name and metrics[name] != first[name]], "measured again"
    layers = [name for name in metrics if name.startswith("train/grad_norm/")]
    assert len(layers) >= {"PPO": 6, "DQN": 4, "SAC": 12}[algorithm]
    assert all(metrics[name] > 0 for name in layers)
    assert 0.0 <= metrics["train/dead_units"] < 1.0
    expected = {"PPO": {"kl", "entropy", "explained_variance"}, "DQN": set(), "SAC": {"entropy"}}[algorithm]
    assert {f"train/{name}" for name in expected} <= metrics.keys()
    assert metrics.get("train/kl", 0.0) >= 0.0


def test_diagnostics_change_nothing_and_can_be_left_out(make):
    with_them, without = (make(diagnostics=given) for given in (True, False))
    reports = with_them.learn(400), without.learn(400)
    names = [set(report.metrics) for report in reports]
    assert {"train/dead_units", "train/kl", "train/grad_norm/pi.0"} <= names[0] - names[1]
    state = np.full((5, 4), 0.1, np.float32)
    assert np.array_equal(*(agent.policy().outputs(state) for agent in (with_them, without)))


def test_norms_are_those_of_the_gradients_before_clipping(make):
    agent = make(network=NET, gradient_clip={"by": "global_norm", "limit": 1e-3}, l2=1.0)
    plain = make(network=NET)
    batch = sampled_batch(plain._running(), size=32)
    expected = gradients_of(plain, batch)
    gradients_of(agent, batch)
    for layer, name in (("pi.0", "pi.net.mlp.0"), ("encoder.critic_encoder.2", "encoder.critic_encoder.net.mlp.2")):
        norm = float(local(agent).measured[f"grad_norm/{layer}"])
        both = [expected[f"{name}.{part}"].numpy().ravel() for part in ("weight", "bias")]
        assert norm == pytest.approx(np.linalg.norm(np.concatenate(both)), rel=1e-5)
        assert norm > 1e-3


def test_dead_units_are_counted(make):
    import torch

    agent = make("PPO", network={"hidden": [8], "activation": "tanh"})
    network = local(agent).module[MODULE]
    with torch.no_grad():
        network.encoder.actor_encoder.net.mlp[0].bias[:4] = -1e3
    assert agent.learn(1).metrics["train/dead_units"] == pytest.approx(4 / 16)


@pytest.mark.parametrize("by", ["global_norm", "norm", "value"])
def test_gradients_are_clipped(make, by):
    limit = 1e-3
    agent = make(gradient_clip={"by": by, "limit": limit}, n_epochs=1)
    agent.learn(1)
    applied = [parameter.grad for parameter in local(agent)._params.values()]
    size = {
        "global_norm": lambda: float(sum(one.square().sum() for one in applied)) ** 0.5,
        "norm": lambda: max(float(one.norm()) for one in applied),
        "value": lambda: max(float(one.abs().max()) for one in applied),
    }[by]()
    assert size == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize(("algorithm", "env"), [("PPO", CARTPOLE), ("SAC", PENDULUM)])
def test_penalties_add_their_gradient_to_weights_alone(make, algorithm, env):
    l1, l2 = 0.3, 0.7
    plain, penalised = make(algorithm, env), make(algorithm, env, l1=l1, l2=l2)
    batch = sampled_batch(plain._running(), size=32)
    before = {name: one.detach().clone() for name, one in local(plain).module[MODULE].named_parameters()}
    kept = {id(one) for one in weights(local(penalised).module[MODULE])}
    names = {name for name, one in local(penalised).module[MODULE].named_parameters() if id(one) in kept}
    random = plain._running().streams._states
    penalised._running().streams._states = random
    one, other = gradients_of(plain, batch), gradients_of(penalised, batch)
    assert names < one.keys()
    for name, gradient in one.items():
        added = l2 * before[name] + l1 * before[name].sign() if name in names else 0.0 * gradient
        assert np.allclose(other[name], gradient + added, atol=1e-5), name


def test_penalties_shrink_the_weights(make):
    sizes = []
    for given in ({}, {"l2": 10.0}, {"l1": 10.0}):
        agent = make(learning_rate=1e-2, **given)
        agent.learn(600)
        sizes.append(sum(float(one.detach().abs().sum()) for one in weights(local(agent).module[MODULE])))
    assert max(sizes[1:]) < 0.5 * sizes[0]


def test_dropout_is_in_the_loss_and_nowhere_else(make):
    """PPO's ratio between the learner's policy and the sampling one is 1 before the first step, unless units drop."""
    kl = {}
    for rate in (0.0, 0.5):
        agent = make(network={**NET, "dropout": rate}, batch_size=64, n_epochs=1)
        kl[rate] = agent.learn(1).metrics["train/kl"]
    assert kl[0.0] < 1e-10
    assert kl[0.5] > 1e-5


@pytest.mark.parametrize(("algorithm", "env"), [("PPO", CARTPOLE), ("DQN", CARTPOLE), ("SAC", PENDULUM)])
def test_an_export_of_a_network_with_dropout_is_exact(make, algorithm, env):
    import torch

    agent = make(algorithm, env, network={**NET, "dropout": 0.5})
    agent.learn(150)
    size = 4 if env is CARTPOLE else 3
    states = generator(0, "states").normal(size=(1000, size)).astype(np.float32)
    policy, module = agent.policy(), agent._running().module
    with torch.no_grad():
        if algorithm == "DQN":
            expected = module.compute_q_values({"obs": torch.from_numpy(states)})["qf_preds"]
        else:
            expected = module.forward_inference({"obs": torch.from_numpy(states)})["action_dist_inputs"]
    assert np.abs(policy.outputs(states) - expected.numpy()).max() < 1e-5
    assert np.array_equal(policy.outputs(states), policy.outputs(states))


def test_a_vanishing_gradient_is_named_in_log_and_report(make, caplog):
    deep = {"hidden": [8] * 24, "activation": "tanh"}
    agent = make(network=deep, n_epochs=24)
    with caplog.at_level(logging.WARNING):
        warnings = [text for _ in range(5) for text in agent.learn(128).warnings]
    named = [text for text in warnings if text.startswith("vanishing gradient in layer encoder.actor_encoder.0:")]
    assert len(named) == 1
    assert named[0] in caplog.text
    assert not any("pi.0" in text for text in warnings)


def test_an_exploding_gradient_is_named(make):
    import torch

    agent = make(n_epochs=24)
    for _ in range(6):
        assert agent.learn(128).warnings == ()
    with torch.no_grad():
        local(agent).module[MODULE].vf.net.mlp[0].weight.mul_(1e6)
    assert any("exploding gradient in layer encoder.critic_encoder.0" in text for text in agent.learn(128).warnings)


def test_the_watch_judges_layers_by_those_behind_them():
    watch = GradientWatch()
    healthy = {"encoder.0": 0.5, "pi.0": 1.0, "vf.0": 1e6}
    assert [watch.hear(healthy) for _ in range(20)] == [[]] * 20, "policy and value function are not compared"
    assert watch.hear({"encoder.0": float("inf"), "pi.0": 1.0})[0].startswith("exploding gradient in layer encoder.0")
    assert watch.hear({"encoder.0": float("inf"), "pi.0": 1.0}) == [], "said once"
    assert [len(watch.hear({"pi.0": 1e-9, "pi.1": 1.0})) for _ in range(4)] == [0, 0, 1, 0]


def test_settings_that_do_nothing_are_refused(make):
    with pytest.raises(UserError, match="dropout"):
        make(network={"hidden": [8], "activation": "linear", "dropout": 0.1})
    with pytest.raises(UserError, match="say the same"):
        make(gradient_clip={"limit": 1.0}, overrides={"grad_clip": 2.0})


@pytest.mark.parametrize(
    ("algorithm", "env", "given"),
    [
        ("PPO", CARTPOLE, {"network": {"hidden": [8], "dropout": 0.3, "shared": True}, "l1": 1e-2, "l2": 1e-2}),
        ("PPO", CARTPOLE, {"network": {"hidden": [8], "lstm": {"cell_size": 4, "sequence": 5}}, "l2": 1e-2}),
        ("DQN", CARTPOLE, {}),
        ("SAC", PENDULUM, {"l2": 1e-2}),
    ],
)
def test_gradients_agree_with_differences_of_the_loss(make, algorithm, env, given):
    checks = make(algorithm, env, **given).check_gradients()
    assert len(checks) >= 3
    for check in checks:
        assert check.passed, check
        assert check.n_checked > 0
        assert check.max_error < 1e-4 or check.largest < 1e-8
    assert sum(check.largest > 0 for check in checks) >= len(checks) - 1


def test_a_wrong_gradient_is_found_in_its_layer(make):
    agent = make(network=NET)
    learner = agent._running()
    batch = sampled_batch(learner, size=32)
    wrong = local(agent).module[MODULE].encoder.actor_encoder.net.mlp[0].weight
    wrong.register_hook(lambda gradient: 1.01 * gradient)
    checks = {check.layer: check for check in check_gradients(local(agent), batch, rng=generator(0, "check"))}
    assert [name for name, check in checks.items() if not check.passed] == ["encoder.actor_encoder.0"]
    assert checks["encoder.actor_encoder.0"].max_error == pytest.approx(0.01, rel=0.1)


def test_the_command_prints_a_verdict_for_each_layer(capsys, monkeypatch):
    small = ["--set", "agent.network.hidden=[8]", "--set", "agent.batch_size=64", "--set", "agent.minibatch_size=64"]
    assert main(["debug", "gradients", "cartpole_ppo", "--batch-size", "32", "--json", *small]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["passed"]
    assert {"encoder.actor_encoder.0", "pi.0", "vf.0"} <= {one["layer"] for one in document["layers"]}
    monkeypatch.setattr("policylab.agents.rllib.gradient_check.TOLERANCE", 0.0)
    monkeypatch.setattr("policylab.agents.rllib.gradient_check.NOISE", 0.0)
    assert main(["debug", "gradients", "cartpole_ppo", "--batch-size", "32", *small]) == 1
    assert "FAIL" in capsys.readouterr().out
    assert main(["debug", "gradients", "taxi"]) == 2
    assert "agent.kind 'q_learning' has no gradients to check" in capsys.readouterr().err


def test_a_loss_with_constants_that_are_none_cannot_be_checked(make):
    learner = make(network=NET)._running()
    learner.settings = learner.settings.model_copy(update={"algorithm": "IMPALA"})
    with pytest.raises(UserError, match="IMPALA takes V-trace targets"):
        sampled_batch(learner, size=32)
