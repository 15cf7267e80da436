"""A small dense network trained by imitation, with NumPy alone, and its ONNX graph."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policylab.extras import require

Floats = NDArray[np.float64]
OPSET = 17
EPOCHS = 40
BATCH = 128
LEARNING_RATE = 3e-3


class SmallNetwork:
    """Dense layers with tanh between them, over standardised inputs.

    Args:
        x: inputs that say how to standardise, shape (n, n_inputs).
        sizes: units of the hidden layers, then outputs.
        rng: draws the first weights.
    """

    def __init__(self, x: Floats, sizes: Sequence[int], *, rng: np.random.Generator) -> None:
        self._mean, deviation = x.mean(axis=0), x.std(axis=0)
        self._deviation = np.where(deviation > 0.0, deviation, 1.0)
        pairs = list(itertools.pairwise([x.shape[1], *sizes]))
        self._weights = [rng.normal(scale=n_in**-0.5, size=(n_in, n_out)) for n_in, n_out in pairs]
        self._biases = [np.zeros(n_out) for _, n_out in pairs]

    def fit(self, x: Floats, y: Floats, *, classes: bool, rng: np.random.Generator) -> None:
        """Learn by Adam (Kingma & Ba 2015, arXiv 1412.6980) with a step that falls to zero.

        Args:
            x: inputs, shape (n, n_inputs).
            y: targets, shape (n, n_outputs).
            classes: the targets are probabilities, and outputs their logits; else squared errors are minimised.
            rng: draws the batches.
        """
        parameters = [*self._weights, *self._biases]
        first, second = ([np.zeros_like(array) for array in parameters] for _ in range(2))
        total, step = EPOCHS * max(1, len(x) // BATCH), 0
        standard = (x - self._mean) / self._deviation
        while step < total:
            order = rng.permutation(len(x))
            for start in range(0, max(1, len(x) - BATCH + 1), BATCH):
                batch = order[start : start + BATCH]
                gradients = self._gradients(standard[batch], y[batch], classes=classes)
                step += 1
                rate = LEARNING_RATE * max(0.0, 1.0 - step / total)
                rate *= (1.0 - 0.999**step) ** 0.5 / (1.0 - 0.9**step)
                for array, gradient, m, v in zip(parameters, gradients, first, second, strict=True):
                    m += 0.1 * (gradient - m)
                    v += 0.001 * (gradient**2 - v)
                    array -= rate * m / (np.sqrt(v) + 1e-8)

    def _gradients(self, x: Floats, y: Floats, *, classes: bool) -> list[Floats]:
        layers = [x]
        for i, (weights, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            sums = layers[-1] @ weights + bias
            layers.append(np.tanh(sums) if i < len(self._weights) - 1 else sums)
        outputs = layers.pop()
        if classes:
            outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            outputs /= outputs.sum(axis=1, keepdims=True)
        error = (outputs - y) / len(x)
        of_weights, of_biases = [], []
        for i in reversed(range(len(layers))):
            of_weights.append(layers[i].T @ error)
            of_biases.append(error.sum(axis=0))
            error = (error @ self._weights[i].T) * (1.0 - layers[i] ** 2)
        return [*reversed(of_weights), *reversed(of_biases)]

    def model(self, name: str, *, scale: Floats | None = None, shift: Floats | None = None) -> bytes:
        """Return the network as an ONNX model from raw float32 inputs, with standardisation in its numbers.

        Args:
            name: of the input.
            scale: factor of each output.
            shift: added to each output afterwards.
        """
        onnx = require("onnx", extra="rllib")
        weights, biases = [*self._weights], [*self._biases]
        weights[0] = weights[0] / self._deviation[:, None]
        biases[0] = biases[0] - self._mean @ weights[0]
        if scale is not None:
            weights[-1], biases[-1] = weights[-1] * scale, biases[-1] * scale
        if shift is not None:
            biases[-1] = biases[-1] + shift
        nodes: list[Any] = []
        entered, last = name, len(weights) - 1
        for i in range(len(weights)):
            summed, passed = ("outputs" if i == last else f"sum{i}"), f"hidden{i}"
            nodes.append(onnx.helper.make_node("Gemm", [entered, f"weights{i}", f"bias{i}"], [summed]))
            if i != last:
                nodes.append(onnx.helper.make_node("Tanh", [summed], [passed]))
            entered = passed
        kind = onnx.TensorProto.FLOAT
        numbers = {f"weights{i}": array for i, array in enumerate(weights)}
        numbers |= {f"bias{i}": array for i, array in enumerate(biases)}
        graph = onnx.helper.make_graph(
            nodes,
            "policy",
            [onnx.helper.make_tensor_value_info(name, kind, ["n", len(self._mean)])],
            [onnx.helper.make_tensor_value_info("outputs", kind, ["n", len(biases[-1])])],
            [onnx.numpy_helper.from_array(array.astype(np.float32), key) for key, array in numbers.items()],
        )
        opset = onnx.helper.make_opsetid("", OPSET)
        model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
        exported: bytes = model.SerializeToString(deterministic=True)
        return exported
