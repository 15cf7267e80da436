"""A network over the states of an exact table is valued exactly, like the table of weights it computes."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents.action_distributions import Categorical, QValues
from policylab.agents.features import AutoFeatures, make_encoder
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.value_policies import TabularPolicy
from policylab.envs.baselines import make_baseline
from policylab.envs.enumeration import table_for
from policylab.envs.planners import evaluate_policy, start_value
from policylab.envs.settings import EnvSettings
from policylab.experiments.evaluation import (
    ExactEvaluator,
    RolloutEvaluator,
    exact_table,
    greedy_actions,
    make_evaluator,
    rule_actions,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

LAKE = EnvSettings(id="FrozenLake-v1")
WEIGHTS = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)


def network(distribution: Categorical | QValues) -> OnnxPolicy:
    """Return a policy whose outputs in state s are row s of `WEIGHTS`."""
    numbers = {"depth": np.array(16), "values": np.array([0, 1], np.float32), "W": WEIGHTS}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("OneHot", ["observation", "depth", "values"], ["seen"]),
            onnx.helper.make_node("MatMul", ["seen", "W"], ["outputs"]),
        ],
        "policy",
        [onnx.helper.make_tensor_value_info("observation", onnx.TensorProto.INT64, ["n"])],
        [onnx.helper.make_tensor_value_info("outputs", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(array, name) for name, array in numbers.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    settings = OnnxSettings(inputs={"observation": ()}, distribution=distribution)
    return OnnxPolicy(model.SerializeToString(), settings)


def test_the_deterministic_policy_is_worth_what_the_table_is() -> None:
    mdp, space = exact_table(LAKE), gym.make("FrozenLake-v1").observation_space
    assert mdp is not None
    table = TabularPolicy(WEIGHTS.astype(np.float64), make_encoder(AutoFeatures(), space))
    deep = network(QValues(n_actions=4))
    assert np.array_equal(greedy_actions(deep, mdp), greedy_actions(table, mdp))  # type: ignore[arg-type]
    evaluator = make_evaluator(LAKE, deep, kind="auto", seed=0)
    assert isinstance(evaluator, ExactEvaluator)
    assert evaluator(deep, episodes=0) == evaluator(table, episodes=0)


def test_the_stochastic_policy_is_worth_the_mean_over_its_actions() -> None:
    mdp = exact_table(LAKE)
    assert mdp is not None
    scores = np.exp(WEIGHTS.astype(np.float64))
    softmax = scores / scores.sum(axis=1, keepdims=True)
    expected = start_value(mdp, evaluate_policy(mdp, softmax, discount=1.0, horizon=100))
    evaluator, deep = ExactEvaluator(mdp), network(Categorical(n_actions=4))
    assert evaluator(deep, episodes=0, stochastic=True).value == pytest.approx(expected, rel=1e-5)
    assert evaluator(deep, episodes=0).value != pytest.approx(expected, rel=1e-2)


def test_a_network_for_other_actions_has_no_exact_value() -> None:
    mdp = exact_table(EnvSettings(id="Taxi-v3"))
    assert mdp is not None
    assert greedy_actions(network(Categorical(n_actions=4)), mdp) is None


def test_a_network_that_sees_planes_is_valued_over_the_states_behind_them() -> None:
    """The network's action in a state is that for how the state looks; the exact value agrees with episodes."""
    settings = EnvSettings(id="policylab/CatMouseLarge-v0")
    mdp = exact_table(settings)
    assert mdp is not None
    assert mdp.looks is not None
    assert mdp.looks.shape == (3600, 162)
    weights = np.random.default_rng(1).normal(size=(162, 5)).astype(np.float32)
    deep = linear(weights)
    expected = (mdp.looks @ weights).argmax(axis=1)
    assert np.array_equal(greedy_actions(deep, mdp), expected)  # type: ignore[arg-type]
    evaluator = make_evaluator(settings, deep, kind="auto", seed=0)
    assert isinstance(evaluator, ExactEvaluator)
    exact = evaluator(deep, episodes=0).value
    played = RolloutEvaluator(settings, seed=3)(deep, episodes=200).episode_returns
    assert abs(np.mean(played) - exact) < 4.5 * np.std(played) / np.sqrt(200)
    assert exact < evaluator.optimum() == pytest.approx(42.08231646931843)


def test_rules_are_valued_over_the_states_behind_planes_too() -> None:
    settings = EnvSettings(id="policylab/CatMouseLarge-v0")
    env, mdp = gym.make(settings.id), exact_table(settings)
    assert mdp is not None
    straight, careful = (
        rule_actions(make_baseline(settings.id, name, env=env), mdp, space=env.observation_space)
        for name in ("shortest_path", "out_of_reach")
    )
    evaluator = ExactEvaluator(mdp)
    assert evaluator.of_actions(straight).value < 10 < 40 < evaluator.of_actions(careful).value < evaluator.optimum()


def test_a_tabular_agent_gets_no_table_that_it_cannot_index() -> None:
    assert table_for(EnvSettings(id="policylab/CatMouseLarge-v0")) is None


def linear(weights: np.ndarray) -> OnnxPolicy:
    """Return a policy whose outputs are linear in an array of numbers."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["observation", "W"], ["outputs"])],
        "policy",
        [onnx.helper.make_tensor_value_info("observation", onnx.TensorProto.FLOAT, ["n", weights.shape[0]])],
        [onnx.helper.make_tensor_value_info("outputs", onnx.TensorProto.FLOAT, ["n", weights.shape[1]])],
        [onnx.numpy_helper.from_array(weights, "W")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    settings = OnnxSettings(inputs={"observation": ()}, distribution=QValues(n_actions=5))
    return OnnxPolicy(model.SerializeToString(), settings)
