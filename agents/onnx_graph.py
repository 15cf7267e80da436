"""Checks of a stranger's ONNX model, made on its bytes before any runtime reads them.

ONNX Runtime follows references to other files, loads custom operators and allocates what a graph asks for. Policies
need none of that: this reader walks the protocol buffer (https://protobuf.dev/programming-guides/encoding/) of a
`ModelProto` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) and refuses everything that is not known to be
harmless. It needs no library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from policylab.errors import UserError

MAX_MODEL_BYTES = 256 * 2**20
MAX_FIELDS = 200_000
MAX_NODES = 2_000
_ARITHMETIC = {"Abs", "Add", "Div", "Exp", "Log", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt", "Sub"}
_ACTIVATIONS = {"Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Selu"}
_ACTIVATIONS |= {"Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"}
_LAYERS = {"AveragePool", "BatchNormalization", "Conv", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "MatMul"}
_LAYERS |= {"LSTM", "LayerNormalization", "LogSoftmax", "MaxPool", "ReduceMax", "ReduceMean", "ReduceSum", "Softmax"}
_SHAPES = {"Cast", "Concat", "Constant", "Flatten", "Identity", "OneHot", "Pad", "Reshape", "Slice", "Split"}
_SHAPES |= {
    "ConstantOfShape",
    "DequantizeLinear",
    "Expand",
    "Gather",
    "Shape",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
}
OPERATORS = frozenset(_ARITHMETIC | _ACTIVATIONS | _LAYERS | _SHAPES | {"DequantizeLinear"})
"""What policies are made of, without control flow and randomness."""

_DTYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 11: "<f8"}  # TensorProto.DataType
_Field = tuple[int, int | memoryview]
_Visitor = Callable[[Any], None]


def check_model(model: bytes) -> None:
    """Refuse a model that is damaged, or that could do more than compute.

    Raises:
        UserError: it is too large, refers to other files, uses an operator or feature that policies do not need,
            or holds NaN or infinity.
    """
    if len(model) > MAX_MODEL_BYTES:
        raise UserError(f"the ONNX model has {len(model):.3g} bytes, a policy at most {MAX_MODEL_BYTES // 2**20} MiB")
    _Walk().model(memoryview(model))


class _Walk:
    """One pass over a model; the counters make it end."""

    def __init__(self) -> None:
        self._n_fields = 0
        self._n_nodes = 0

    def model(self, data: memoryview) -> None:
        """Visit a ModelProto: version, producer, documentation, graph, operator sets and notes."""
        self._visit(data, {7: self._graph, 8: self._operator_set}, what="file", plain={1, 2, 3, 4, 5, 6, 14})
        if not self._n_nodes:
            raise UserError("the ONNX model has no graph; copy it again from where it was made")

    def _graph(self, data: memoryview) -> None:
        parts = {1: self._node, 5: self._tensor}
        self._visit(data, parts, what="graph", plain={2, 10, 11, 12, 13, 16})

    def _operator_set(self, data: memoryview) -> None:
        self._visit(data, {1: _check_domain}, what="operator set", plain={2})

    def _node(self, data: memoryview) -> None:
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES:
            raise UserError(f"the ONNX model has more than {MAX_NODES} nodes; it is no policy")
        parts: dict[int, _Visitor] = {4: _check_operator, 5: self._attribute, 7: _check_domain}
        self._visit(data, parts, what="node", plain={1, 2, 3, 6, 9})

    def _attribute(self, data: memoryview) -> None:
        self._visit(data, {5: self._tensor}, what="attribute", plain={1, 2, 3, 4, 7, 8, 9, 13, 20})

    def _tensor(self, data: memoryview) -> None:
        """Visit a TensorProto, whose numbers must be its raw bytes."""
        found: dict[int, list[int | memoryview]] = {1: [], 2: [], 9: []}
        parts: dict[int, _Visitor] = {number: values.append for number, values in found.items()}
        self._visit(data, {**parts, 13: _refuse_file, 14: _check_location}, what="tensor", plain={8, 12, 16})
        kind = found[2][0] if len(found[2]) == 1 else None
        if not isinstance(kind, int) or kind not in _DTYPES or len(found[9]) > 1:
            raise UserError("the ONNX model has a tensor that is not an array of plain numbers; export it again")
        raw = found[9][0] if found[9] else memoryview(b"")
        dtype = np.dtype(_DTYPES[kind])
        shape = [size for value in found[1] for size in (_varints(value) if isinstance(value, memoryview) else [value])]
        if not isinstance(raw, memoryview) or len(raw) != math.prod(shape) * dtype.itemsize:
            raise UserError("the ONNX model has a tensor whose bytes do not fit its shape; export it again")
        if dtype.kind == "f" and not np.isfinite(np.frombuffer(raw, dtype=dtype)).all():
            raise UserError("the ONNX model holds NaN or infinity, as after diverged learning; lower the learning rate")

    def _visit(self, data: Any, parts: dict[int, Any], *, what: str, plain: set[int]) -> None:
        if not isinstance(data, memoryview):
            raise _damaged()
        for number, value in _fields(data):
            self._n_fields += 1
            if self._n_fields > MAX_FIELDS:
                raise UserError(f"the ONNX model has more than {MAX_FIELDS} entries; it is no policy")
            if number in parts:
                parts[number](value)
            elif number not in plain:
                raise UserError(f"the ONNX model uses a feature (field {number} of its {what}) that no policy needs")


def _fields(data: memoryview) -> Iterator[_Field]:
    """Yield number and value of each field of one message: an integer, or the bytes of whatever else."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, place = _varint(data, place)
            yield number, value
            continue
        if wire_type == 2:
            size, place = _varint(data, place)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise _damaged()
        if size > len(data) - place:
            raise _damaged()
        yield number, data[place : place + size]
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise _damaged()


def _varints(data: memoryview) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise _damaged()
    return bytes(value[:40]).decode(errors="replace")


def _check_domain(value: int | memoryview) -> None:
    if (domain := _text(value)) not in ("", "ai.onnx"):
        raise UserError(f"the ONNX model uses operators of the domain {domain!r}; only ONNX's own are allowed")


def _check_operator(value: int | memoryview) -> None:
    if (name := _text(value)) not in OPERATORS:
        raise UserError(f"the ONNX model uses the operator {name!r}, which no policy exported here needs")


def _refuse_file(value: int | memoryview) -> None:
    raise UserError("the ONNX model keeps tensors in another file; export it with all its data inside")


def _check_location(value: int | memoryview) -> None:
    if value != 0:
        _refuse_file(value)


def _damaged() -> UserError:
    return UserError("the ONNX model is truncated or damaged; copy it again from where it was made")
