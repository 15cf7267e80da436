"""Smaller ONNX graphs: folded, with weights of 8 bits, or without the weakest units."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.agents.onnx_policy import OnnxPolicy
from policylab.errors import UserError
from policylab.extras import require

_LEVELS = 127
_ELEMENTWISE = {"Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Tanh"}


def folded(bundle: Bundle) -> OnnxPolicy:
    """Return the policy with constants folded and redundant nodes removed by ONNX Runtime.

    Only its basic level is used: what the others write runs on this kind of processor alone.

    Raises:
        UserError: the policy is no network.
    """
    policy = _network_of(bundle)
    return OnnxPolicy(_folded(policy.model).SerializeToString(deterministic=True), policy.settings)


def quantized(bundle: Bundle) -> OnnxPolicy:
    """Return the policy with dense and convolutional weights in 8 bits, a scale for each output unit.

    A weight moves by at most half a scale, which is 1/254 of the largest weight of its unit; biases and activations
    keep 32 bits, so that an answer does not depend on what else is in the batch.

    Raises:
        UserError: the policy is no network, or has no weights.
    """
    onnx = require("onnx", extra="rllib")
    policy = _network_of(bundle)
    model = _folded(policy.model)
    if model.opset_import[0].version < 13:
        raise UserError("int8 needs a model of opset 13 or later; export the policy again")
    weights, nodes = _arrays(model), []
    for name, axis in _unit_axes(model, weights).items():
        array = weights[name]
        others = tuple(i for i in range(array.ndim) if i != axis)
        scale = np.abs(array).max(axis=others, keepdims=True) / _LEVELS
        scale[scale == 0.0] = 1.0
        levels = np.rint(array / scale).astype(np.int8)
        _replace(model, name, by={f"{name}.int8": levels, f"{name}.scale": scale.ravel().astype(np.float32)})
        nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], axis=axis))
    if not nodes:
        raise UserError("the network has no weights that could be quantised")
    _prepend(model, nodes)
    return OnnxPolicy(model.SerializeToString(deterministic=True), policy.settings)


def pruned(bundle: Bundle, *, share: float, observations: list[Any]) -> OnnxPolicy:
    """Return the policy without ``share`` of the units of each hidden layer, those with the smallest weights.

    A removed unit's mean activation over ``observations`` goes into the biases behind it.

    Raises:
        UserError: the policy is no network with hidden dense layers.

    Source: the sum of absolute weights as the measure of a unit is that of Li et al., "Pruning filters for efficient
    ConvNets" (2017), arXiv 1608.08710.
    """
    policy = _network_of(bundle)
    model = _folded(policy.model)
    arrays = _arrays(model)
    layers = _hidden(model, arrays)
    if not layers:
        raise UserError("the network has no hidden dense layer whose units could be removed; use int8")
    means = _mean_activations(model, policy, names=[output for _, output, _ in layers], observations=observations)
    for first, output, following in layers:
        axis = _unit_axis(first)
        weights = arrays[first.input[1]]
        n_kept = max(1, math.ceil((1.0 - share) * weights.shape[axis]))
        strength = np.abs(weights).sum(axis=1 - axis)
        kept = np.sort(np.argsort(-strength, kind="stable")[:n_kept])
        gone = np.setdiff1d(np.arange(len(strength)), kept)
        arrays[first.input[1]] = weights.take(kept, axis=axis)
        arrays[first.input[2]] = arrays[first.input[2]].take(kept, axis=-1)
        for node in following:
            behind, input_axis = arrays[node.input[1]], 1 - _unit_axis(node)
            through = np.moveaxis(behind.take(gone, axis=input_axis), input_axis, 0)
            arrays[node.input[2]] = (arrays[node.input[2]] + means[output][gone] @ through).astype(np.float32)
            arrays[node.input[1]] = behind.take(kept, axis=input_axis)
    for name in [initializer.name for initializer in model.graph.initializer]:
        _replace(model, name, by={name: arrays[name]})
    return OnnxPolicy(model.SerializeToString(deterministic=True), policy.settings)


def _network_of(bundle: Bundle) -> OnnxPolicy:
    if not isinstance(bundle.policy, OnnxPolicy):
        raise UserError(
            f"this is for networks, but the policy is of the kind '{bundle.manifest.policy.kind}'; use distill-tree"
        )
    return bundle.policy


def _folded(model: bytes) -> Any:
    """Return the graph as ONNX Runtime's basic optimisations leave it, in ONNX's own operators."""
    runtime, onnx = require("onnxruntime", extra="serve"), require("onnx", extra="rllib")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        found = onnx.load_model(options.optimized_model_filepath)
    del found.graph.value_info[:]
    own = [entry for entry in found.opset_import if entry.domain in ("", "ai.onnx")]
    del found.opset_import[:]
    found.opset_import.extend(own)
    for name, array in _arrays(found).items():
        _replace(found, name, by={name: array})  # as raw bytes, whatever it was written as
    return found


def _arrays(model: Any) -> dict[str, NDArray[Any]]:
    onnx = require("onnx", extra="rllib")
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def _replace(model: Any, name: str, *, by: Mapping[str, NDArray[Any]]) -> None:
    """Put arrays in the place of the initializer ``name``."""
    onnx = require("onnx", extra="rllib")
    kept = [tensor for tensor in model.graph.initializer if tensor.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.ascontiguousarray(array), key) for key, array in by.items()
    )


def _prepend(model: Any, nodes: list[Any]) -> None:
    following = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *following])


def _unit_axes(model: Any, arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Return the axis of the output units of each weight that a layer of the graph multiplies with."""
    return {
        node.input[1]: _unit_axis(node)
        for node in model.graph.node
        if node.op_type in ("Gemm", "MatMul", "Conv")
        and (array := arrays.get(node.input[1])) is not None
        and array.dtype == np.float32
        and array.ndim >= 2
    }


def _unit_axis(node: Any) -> int:
    if node.op_type == "Gemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return 0 if node.op_type == "Conv" else 1


def _hidden(model: Any, arrays: Mapping[str, NDArray[Any]]) -> list[tuple[Any, str, list[Any]]]:
    """Return each dense layer that only dense layers follow, with the name of what it passes on to which of them."""
    consumers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)

    def dense(node: Any) -> bool:
        plain = not any(item.name in ("alpha", "beta") and item.f != 1.0 for item in node.attribute)
        own = all(name in arrays and len(consumers[name]) == 1 for name in node.input[1:])
        return node.op_type == "Gemm" and len(node.input) == 3 and plain and own

    found = []
    for node in model.graph.node:
        if not dense(node):
            continue
        output = node.output[0]
        while len(consumers.get(output, ())) == 1 and consumers[output][0].op_type in _ELEMENTWISE:
            output = consumers[output][0].output[0]
        following = consumers.get(output, [])
        if following and all(dense(other) and other.input[0] == output for other in following):
            found.append((node, output, following))
    return found


def _mean_activations(
    model: Any, policy: OnnxPolicy, *, names: list[str], observations: list[Any]
) -> dict[str, NDArray[np.float32]]:
    """Return the mean of some values inside the graph over observations, shape (n_units,) each."""
    runtime, onnx = require("onnxruntime", extra="serve"), require("onnx", extra="rllib")
    open_model = onnx.ModelProto()
    open_model.CopyFrom(model)
    open_model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = runtime.InferenceSession(open_model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(names, policy.inputs(observations))
    return {name: values.mean(axis=0) for name, values in zip(names, found, strict=True)}
