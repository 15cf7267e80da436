"""Integrated gradients of functions with known ones and of a network, and explanations as a user asks for them."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from policylab.agents import Bundle, Lineage, write_bundle
from policylab.agents.action_distributions import Categorical
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.cli import main
from policylab.errors import UserError
from policylab.monitoring.attribution.explanation import explain
from policylab.monitoring.attribution.gradients import completeness_gap, integrated_gradients
from policylab.monitoring.attribution.policy_outputs import outputs_of

Floats = NDArray[np.float64]


def test_min_of_two_inputs() -> None:
    # Sundararajan et al. (2017), section 3: of min(x1, x2) on the way from 0 to (1, 3), all is due to x1.
    found = integrated_gradients(
        lambda x: x.min(axis=1, keepdims=True), np.array([[1.0, 3.0]]), background=np.zeros((1, 2))
    )
    assert found[0, :, 0] == pytest.approx([1.0, 0.0], abs=1e-6)


def test_a_product_is_shared_in_halves() -> None:
    # f = x1 x2 from 0: the integral of x2 a da times x1 is x1 x2 / 2 for either.
    found = integrated_gradients(lambda x: x[:, :1] * x[:, 1:], np.array([[2.0, 5.0]]), background=np.zeros((1, 2)))
    assert found[0, :, 0] == pytest.approx([5.0, 5.0], rel=1e-5)


def test_a_linear_function_is_explained_by_its_weights() -> None:
    rng = np.random.default_rng(0)
    weights, x, background = rng.normal(size=(4, 2)), rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
    found = integrated_gradients(lambda x: x @ weights, x, background=background)
    expected = (x - background.mean(axis=0))[:, :, None] * weights
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two layers of tanh units over CartPole's observations; the third number does not matter."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(1)
    first = rng.normal(size=(4, 16)).astype(np.float32)
    first[2] = 0.0
    numbers = {"W": first, "b": np.zeros(16, np.float32), "V": rng.normal(size=(16, 2)).astype(np.float32)}
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Gemm", ["observation", "W", "b"], ["inside"]),
        helper.make_node("Tanh", ["inside"], ["units"]),
        helper.make_node("MatMul", ["units", "V"], ["outputs"]),
    ]
    graph = helper.make_graph(
        nodes, "policy",
        [helper.make_tensor_value_info("observation", kind, ["n", 4])],
        [helper.make_tensor_value_info("outputs", kind, ["n", 2])],
        [onnx.numpy_helper.from_array(value, name) for name, value in numbers.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    settings = OnnxSettings(inputs={"observation": ()}, distribution=Categorical(n_actions=2))
    env = gym.make("CartPole-v1")
    folder = tmp_path_factory.mktemp("network") / "bundle"
    return write_bundle(folder, OnnxPolicy(model, settings), env=env, lineage=Lineage(), metrics={})


def test_a_networks_attributions_are_complete(network: Bundle) -> None:
    rng = np.random.default_rng(2)
    x, background = rng.normal(size=(10, 4)), rng.normal(size=(8, 4))
    function = outputs_of(network)
    gaps = []
    for n_points in (2, 32):
        values = integrated_gradients(function, x, background=background, n_points=n_points)
        gaps.append(completeness_gap(values, function, inputs=x, background=background))
        assert values[:, 2] == pytest.approx(0.0, abs=1e-4)  # sensitivity: what is not read explains nothing
    assert gaps[1] < 0.005 < gaps[0]


def test_either_method_sums_to_the_output(network: Bundle) -> None:
    observations = np.random.default_rng(3).normal(size=(60, 4)).astype(np.float32)
    for method in ("shapley", "gradients"):
        found = explain(network, observations, decisions=[7], method=method)  # type: ignore[arg-type]
        assert found.gap < 0.01
        assert found.observations[0] == pytest.approx(observations[7])
        assert found.values[0].sum(axis=0) + found.expected == pytest.approx(found.outputs[0], abs=0.05)
    with pytest.raises(UserError, match="no decision 60; there are 0 to 59"):
        explain(network, observations, decisions=[60])


def test_the_command(network: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                     monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr("signal.signal", lambda *_: None)
    env = gym.make("CartPole-v1")
    bundle = write_bundle(tmp_path / "policy", network.policy, env=env, lineage=Lineage(), metrics={})
    assert bundle.digest
    seen = np.random.default_rng(4).normal(size=(40, 4)).astype(np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(seen.ravel()), 4)
    columns = {"episode_id": np.arange(40), "t": np.zeros(40, int), "obs": flat, "action": np.zeros(40, int),
               "reward": np.zeros(40), "next_obs": flat, "terminated": np.ones(40, bool),
               "truncated": np.zeros(40, bool)}  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    command = ["monitor", "explain", str(tmp_path / "policy"), str(tmp_path / "log.parquet")]
    out = tmp_path / "out"
    assert main([*command, "--out", str(out), "--decision", "3", "--method", "gradients", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [Path(path).name for path in printed["figures"]] == ["overall.png", "decision-3.png"]
    assert (out / "overall.png").read_bytes()[:4] == b"\x89PNG"
    assert printed["decisions"][0]["row"] == 3
    assert np.argmin([scores[0] for scores in printed["overall"]]) == 2
