"""`OnnxPolicy`: a trained network as an ONNX graph, run by ONNX Runtime alone."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.agents.distribution_policy import DistributionPolicy, DistributionSettings
from policylab.agents.onnx_graph import check_model
from policylab.agents.policy import validated
from policylab.errors import UserError
from policylab.extras import require

MODEL = "model.onnx"
MAX_WORKING_BYTES = 2 * 2**30
"""What all models of a process may allocate together; a hostile graph asks for more."""
MAX_ROWS = 1024
MAX_INPUT_BYTES = 32 * 2**20
"""Larger batches are computed piece by piece, since layers take more room than their input."""

_NUMPY: dict[str, np.dtype[Any]] = {
    "tensor(float16)": np.dtype(np.float16),
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(bool)": np.dtype(np.bool_),
    **{f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


class OnnxSettings(DistributionSettings):
    """What an ONNX policy is beside its graph.

    Attributes:
        inputs: the graph's inputs by name, each with the keys that lead to its part of a raw observation: none for an
            observation that is one array or number, names and positions for Dict and Tuple spaces.
    """

    inputs: Annotated[dict[str, tuple[str | int, ...]], Field(min_length=1, max_length=256)]


class OnnxPolicy(DistributionPolicy):
    """Acts on what a network computes from raw observations.

    The graph maps a batch of raw observations, one input per part of the observation space, to one output of shape
    (n, n_outputs), float32. One-hot encodings, observation filters and the scaling of images are nodes of the graph.
    ONNX Runtime computes it on the CPU with one thread.

    Args:
        model: an ONNX `ModelProto` without references to other files.
        settings: how observations enter and what the output means.

    Raises:
        UserError: the model is damaged or hostile, or does not fit the settings.
        MissingExtraError: onnxruntime is not installed.
    """

    Settings: ClassVar[type[OnnxSettings]] = OnnxSettings
    settings: OnnxSettings
    kind: str = "onnx"
    tolerance: float = 1e-4
    """Processors may add up 32-bit numbers in another order."""

    def __init__(self, model: bytes, settings: OnnxSettings) -> None:
        check_model(model)
        self.model = model
        self.settings = settings
        self._session, inputs, outputs = _opened(model)
        inputs, outputs = self._without_memory(inputs, outputs)
        self._inputs = _checked_inputs(inputs, settings)
        n_outputs = settings.distribution.n_outputs
        if [(kind, shape[1:]) for kind, shape in outputs] != [("tensor(float)", (n_outputs,))]:
            raise UserError(
                f"the ONNX model must have one float output of shape (n, {n_outputs}) for its distribution "
                f"'{settings.distribution.kind}', got {str(outputs)[:60]}"
            )

    def _without_memory(self, inputs: dict[str, Port], outputs: list[Port]) -> tuple[dict[str, Port], list[Port]]:
        """Return the graph's inputs and outputs that are not memory: all of them."""
        return inputs, outputs

    def __reduce__(self) -> tuple[type[Self], tuple[bytes, OnnxSettings]]:
        """Travel to another process of a cluster as the model, which is opened there again."""
        return type(self), (self.model, self.settings)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """For each input of the graph: the keys that lead to its part of an observation, its type and its shape."""
        return self._inputs

    @property
    def reads_numbers(self) -> bool:
        """Whether an observation is one whole number, as of a Discrete space."""
        return [(path, dtype.kind, shape) for path, dtype, shape in self._inputs.values()] == [((), "i", ())]

    def outputs(self, observations: Iterable[Any]) -> NDArray[np.float32]:
        """Return what the network computes for raw observations, shape (n, n_outputs).

        Raises:
            UserError: an observation does not fit the network's inputs.
        """
        batch = observations if isinstance(observations, list | np.ndarray) else list(observations)
        if len(batch) == 1:
            return self._run(batch)
        row_bytes = sum(dtype.itemsize * math.prod(shape) for _, dtype, shape in self._inputs.values())
        n_rows = max(1, min(MAX_ROWS, MAX_INPUT_BYTES // max(1, row_bytes)))
        empty = np.zeros((0, self.settings.distribution.n_outputs), dtype=np.float32)
        return np.concatenate([empty, *(self._run(batch[i : i + n_rows]) for i in range(0, len(batch), n_rows))])

    def _run(self, batch: Any) -> NDArray[np.float32]:
        found = self.compute(self.inputs(batch))
        if found.shape != (len(batch), self.settings.distribution.n_outputs):
            raise UserError(
                f"the ONNX model gives {found.shape} numbers for {len(batch)} observations; export it again"
            )
        return found

    def inputs(self, batch: Any) -> dict[str, NDArray[Any]]:
        """Return the graph's inputs for a list or array of raw observations, each of shape (n, ...).

        Raises:
            UserError: an observation does not fit the network's inputs.
        """
        return {name: _stacked(batch, entry=entry) for name, entry in self._inputs.items()}

    def compute(self, parts: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the graph's output for its inputs, each an array of shape (n, ...).

        Raises:
            UserError: the graph cannot be computed, as when it asks for more memory than `MAX_WORKING_BYTES`.
        """
        (outputs,) = self.all_outputs(parts)
        return outputs

    def all_outputs(self, parts: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return everything the graph gives for its inputs, all of them, each an array of shape (n, ...).

        Raises:
            UserError: as `compute`.
        """
        try:
            return list(self._session.run(None, dict(parts)))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise UserError(f"the ONNX model cannot be computed: {_first_line(error)}") from error

    def config(self) -> dict[str, Any]:
        """Return inputs and distribution as JSON."""
        return self.settings.model_dump(mode="json")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return nothing: the numbers are in the model."""
        return {}

    def files(self) -> dict[str, bytes]:
        """Return the ONNX model."""
        return {MODEL: self.model}

    @classmethod
    def from_parts(
        cls, config: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], *, files: Mapping[str, bytes]
    ) -> Self:
        """Return the policy that `config` and `files` came from."""
        if arrays or set(files) != {MODEL}:
            held = ", ".join([*arrays, *files]) or "nothing"
            raise UserError(f"an ONNX policy needs {MODEL} and no arrays, got {held[:80]}")
        return cls(files[MODEL], validated(cls.Settings, config))


Port = tuple[str, tuple[Any, ...]]
"""Type and shape of one input or output of a graph."""
Entry = tuple[tuple[str | int, ...], np.dtype[Any], tuple[int, ...]]


def _opened(model: bytes) -> tuple[Any, dict[str, Port], list[Port]]:
    """Return a session of the model, its inputs by name, and its outputs."""
    runtime = _capped_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        # Its way of falling back to another device prints to the standard output.
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        inputs = {port.name: (port.type, tuple(port.shape)) for port in session.get_inputs()}
        return session, inputs, [(port.type, tuple(port.shape)) for port in session.get_outputs()]
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise UserError(f"ONNX Runtime refuses the model: {_first_line(error)}") from error


@functools.cache
def _capped_runtime() -> ModuleType:
    """Return onnxruntime with an allocator for all sessions of the process that stops at `MAX_WORKING_BYTES`."""
    runtime = require("onnxruntime", extra="serve")
    runtime.set_default_logger_severity(4)  # what is wrong is raised
    place = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(place, runtime.OrtArenaCfg({"max_mem": MAX_WORKING_BYTES}))
    return runtime


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:160]


def _checked_inputs(inputs: dict[str, Port], settings: OnnxSettings) -> dict[str, Entry]:
    """Return path, type and shape of one observation's part for each input of the graph."""
    if set(inputs) != set(settings.inputs):
        raise UserError(f"the ONNX model has the inputs {sorted(inputs)}, its settings name {sorted(settings.inputs)}")
    for name, (kind, shape) in inputs.items():
        if kind not in _NUMPY or not shape or not all(isinstance(size, int) for size in shape[1:]):
            raise UserError(f"input {name!r} of the ONNX model must be numbers of a fixed shape, got {kind} of {shape}")
    return {name: (path, _NUMPY[inputs[name][0]], inputs[name][1][1:]) for name, path in settings.inputs.items()}


def _stacked(batch: Any, *, entry: Entry) -> NDArray[Any]:
    """Return the part of every observation in ``batch`` that one input takes, shape (n, ...)."""
    path, dtype, shape = entry
    try:
        parts = np.asarray([_part(observation, path) for observation in batch] if path else batch)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the observation has no part {list(path)}, or the batch is ragged") from error
    if parts.shape == (len(batch), *shape) and parts.dtype.kind in "iufb":
        exact = np.ascontiguousarray(parts, dtype=dtype)
        if dtype.kind == "f" or np.array_equal(exact, parts):
            return exact
    raise UserError(
        f"an observation{f' at {list(path)}' if path else ''} must be {dtype} of shape {shape}, "
        f"got {parts.dtype} of shape {parts.shape[1:]}"
    )


def _part(observation: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        observation = observation[key]
    return observation
