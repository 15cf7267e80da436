"""Networks as ONNX policies, written by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from policylab.agents.action_distributions import Distribution
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.recurrent_policy import RecurrentPolicy, RecurrentSettings
from policylab.seeding import generator


def one_hot_network(logits: Any, distribution: Distribution) -> OnnxPolicy:
    """Return the network over whole numbers whose outputs are the rows of ``logits``, by a dense layer of 32 units."""
    rng, n_states = generator(0, "one-hot"), len(logits)
    inner = rng.normal(size=(n_states, 32)).astype(np.float32)
    outer = np.linalg.lstsq(np.tanh(inner.astype(np.float64)), np.asarray(logits, np.float64), rcond=None)[0]
    numbers = {
        "depth": np.array(n_states), "levels": np.array([0, 1], np.float32), "inner": inner,
        "inner_bias": np.zeros(32, np.float32), "outer": outer.astype(np.float32),
        "outer_bias": np.zeros(outer.shape[1], np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("OneHot", ["observation", "depth", "levels"], ["state"]),
        helper.make_node("Gemm", ["state", "inner", "inner_bias"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "outer", "outer_bias"], ["outputs"]),
    ]
    entry = helper.make_tensor_value_info("observation", TensorProto.INT64, ["n"])
    return _policy(nodes, entry, numbers=numbers, distribution=distribution)


def dense_network(sizes: tuple[int, ...], distribution: Distribution, *, seed: int = 0) -> OnnxPolicy:
    """Return a network of dense layers with tanh and random numbers, over a vector."""
    rng, nodes, numbers, entered = generator(seed, "dense"), [], {}, "observation"
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        numbers[f"w{i}"] = rng.normal(scale=n_in**-0.5, size=(n_out, n_in)).astype(np.float32)
        numbers[f"b{i}"] = rng.normal(scale=0.1, size=n_out).astype(np.float32)
        last = i == len(sizes) - 2
        summed = "outputs" if last else f"s{i}"
        nodes.append(helper.make_node("Gemm", [entered, f"w{i}", f"b{i}"], [summed], transB=1))
        if not last:
            nodes.append(helper.make_node("Tanh", [summed], [f"h{i}"]))
            entered = f"h{i}"
    entry = helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", sizes[0]])
    return _policy(nodes, entry, numbers=numbers, distribution=distribution)


def summing_network(n_inputs: int, distribution: Distribution) -> RecurrentPolicy:
    """Return the network whose outputs are weights times the sum of the observations of the episode so far."""
    weights = generator(0, "summing").normal(size=(n_inputs, distribution.n_outputs)).astype(np.float32)

    def port(name: str, size: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])

    graph = helper.make_graph(
        [
            helper.make_node("Add", ["observation", "sum"], ["sum_next"]),
            helper.make_node("MatMul", ["sum_next", "weights"], ["outputs"]),
        ],
        "policy",
        [port("observation", n_inputs), port("sum", n_inputs)],
        [port("outputs", distribution.n_outputs), port("sum_next", n_inputs)],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    settings = RecurrentSettings(inputs={"observation": ()}, distribution=distribution, memory={"sum": (n_inputs,)})
    return RecurrentPolicy(model.SerializeToString(), settings)


def _policy(nodes: list[Any], entry: Any, *, numbers: dict[str, Any], distribution: Distribution) -> OnnxPolicy:
    output = helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", distribution.n_outputs])
    initializers = [numpy_helper.from_array(array, name) for name, array in numbers.items()]
    graph = helper.make_graph(nodes, "policy", [entry], [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return OnnxPolicy(model.SerializeToString(), OnnxSettings(inputs={"observation": ()}, distribution=distribution))
