"""Bodies: from the bytes of a request to observations, and from decisions to the bytes of an answer.

| content type | single | batch |
|---|---|---|
| application/json | an object of ``observation``, ``mask``, ``episode``, ``step`` | ``observations``, ``masks`` |
| | or the observation alone, unless it is an object or a tuple | a list of them, or ``instances``, ``inputs`` |
| application/jsonlines | | a line for each, as application/json of a single one |
| text/csv | one line: the numbers of the observation | a line for each observation |
| application/x-npy | an array of the observation's shape | with one more dimension in front |

Answers are JSON unless the client accepts only one of the others. Arrays are read without pickles.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.agents.policy import Mask
from policylab.agents.space_json import value_from_json
from policylab.deployment.decision import Refusal
from policylab.errors import UserError

JSON, JSON_LINES, CSV, NPY = "application/json", "application/jsonlines", "text/csv", "application/x-npy"
WORDS = {"observation", "observations", "instances", "inputs", "mask", "masks", "episode", "step"}
_BATCH_WORDS = ("observations", "instances", "inputs")


class Asked(msgspec.Struct, frozen=True):
    """What a body asks about."""

    observations: tuple[Any, ...]
    masks: tuple[Mask | None, ...] | None = None
    single: bool = True
    episode: str | None = None
    step: int | None = None


class BodyReader:
    """Reads the bodies of requests about one observation space.

    Args:
        bundle: whose spaces they are.
        max_batch: most observations of one body.
    """

    def __init__(self, bundle: Bundle, *, max_batch: int) -> None:
        self._space = bundle.observation_space
        self._max_batch = max_batch
        self._value = _reader(self._space)
        self._decode = msgspec.json.Decoder().decode

    def read(self, body: bytes, content_type: str) -> Asked:
        """Return what ``body`` asks about.

        Raises:
            Refusal: it is not of that type, or not about an observation of the space.
        """
        if content_type == JSON:  # most requests
            return self._json(body)
        kind = content_type.partition(";")[0].strip().lower() or JSON
        if kind == JSON:
            return self._json(body)
        if kind == JSON_LINES:
            return self._json_lines(body)
        if kind == CSV:
            return self._csv(body)
        if kind == NPY:
            return self._npy(body)
        raise Refusal(f"content type {kind[:60]!r} is not read; send {JSON}, {JSON_LINES}, {CSV} or {NPY}",
                      kind="unsupported")  # fmt: skip

    def _json(self, body: bytes) -> Asked:
        try:
            value = self._decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise Refusal(f"the body is no JSON: {str(error)[:120]}", kind="observation") from error
        if type(value) is dict and len(value) == 1 and "observation" in value:  # most requests
            value = value["observation"]
        elif isinstance(value, dict) and (not WORDS.isdisjoint(value) or not isinstance(self._space, spaces.Dict)):
            return self._object(value)
        elif isinstance(value, list) and not isinstance(self._space, spaces.Tuple):
            depth = _depth(self._space)
            if depth is not None and _nesting(value) > depth:
                return self._many(value)
        try:
            return Asked((self._value(value),))
        except UserError as error:
            raise Refusal(str(error), kind="observation") from None

    def _json_lines(self, body: bytes) -> Asked:
        lines = [line for line in body.split(b"\n") if line.strip()]
        self._check_count(len(lines))
        found = [self._json(line) for line in lines]
        if any(not one.single or one.episode is not None or one.step is not None for one in found):
            raise Refusal("a line is one observation, with its mask if there is one", kind="observation")
        masks = [one.masks[0] if one.masks else None for one in found]
        given = tuple(masks) if any(mask is not None for mask in masks) else None
        return Asked(tuple(one.observations[0] for one in found), given, single=False)

    def _object(self, value: dict[str, Any]) -> Asked:
        unknown = sorted(value.keys() - WORDS)
        batches = [word for word in _BATCH_WORDS if word in value]
        if unknown or len(batches) + ("observation" in value) != 1:
            known = "observation or observations, mask or masks, episode, step"
            found = f"got {unknown[0][:40]!r}" if unknown else "one of the first two is needed"
            raise Refusal(f"a JSON body has the keys {known}; {found}", kind="observation")
        episode, step = value.get("episode"), value.get("step")
        if not (episode is None or (isinstance(episode, str) and 0 < len(episode) <= 256)):
            raise Refusal("episode is a text of at most 256 characters", kind="observation")
        if not (step is None or (type(step) is int and 0 <= step < 2**53)):
            raise Refusal("step is a whole number of at least 0", kind="observation")
        if batches:
            if "mask" in value:
                raise Refusal("several observations take masks, one for each", kind="observation")
            many = self._many(value[batches[0]], value.get("masks"))
            return Asked(many.observations, many.masks, many.single, episode, step)
        if "masks" in value:
            raise Refusal("one observation takes a mask", kind="observation")
        masks = None if value.get("mask") is None else (_mask(value["mask"]),)
        return Asked((self._one(value["observation"]),), masks, episode=episode, step=step)

    def _many(self, values: Any, masks: Any = None) -> Asked:
        if not isinstance(values, list) or not isinstance(masks, list | None):
            raise Refusal("several observations, and their masks, are lists", kind="observation")
        self._check_count(len(values))
        if masks is not None and len(masks) != len(values):
            raise Refusal(f"{len(values)} observations need as many masks, got {len(masks)}", kind="observation")
        read = None if masks is None else tuple(None if mask is None else _mask(mask) for mask in masks)
        return Asked(tuple(self._one(value) for value in values), read, single=False)

    def _one(self, value: Any) -> Any:
        try:
            return self._value(value)
        except UserError as error:
            raise Refusal(str(error), kind="observation") from None

    def _check_count(self, n: int) -> None:
        if n > self._max_batch:
            raise Refusal(f"{n} observations are more than limits.batch, {self._max_batch}; split the request",
                          kind="too_large")  # fmt: skip

    def _csv(self, body: bytes) -> Asked:
        try:
            lines = [line for line in body.decode("utf-8").splitlines() if line.strip()]
            self._check_count(len(lines))
            rows = [[_number(cell) for cell in line.split(",")] for line in lines]
        except ValueError as error:
            message = f"the body is no CSV of numbers without a header: {str(error)[:80]}"
            raise Refusal(message, kind="observation") from None
        return Asked(tuple(self._one(_folded(self._space, row)) for row in rows), single=len(rows) == 1)

    def _npy(self, body: bytes) -> Asked:
        array, shape = _array(body), self._space.shape
        if not np.isfinite(array).all():
            raise Refusal("the array holds a number that is not finite", kind="observation")
        if shape is None:
            raise Refusal(f"observations of {str(self._space)[:60]} are no one array; send {JSON}", kind="observation")
        if array.shape == shape:
            return Asked((self._one(array.tolist()),))
        if array.shape[1:] != shape or array.ndim != len(shape) + 1:
            raise Refusal(f"the array must have shape {shape} or (n, *{shape}), got {array.shape}", kind="observation")
        self._check_count(len(array))
        return Asked(tuple(self._one(row) for row in array.tolist()), single=False)


def _array(body: bytes) -> NDArray[Any]:
    """Return the array of an NPY body, whose header must promise exactly what follows it."""
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](file)
        if dtype.kind in "iufb" and math.prod(shape) * dtype.itemsize == len(body) - file.tell():
            array: NDArray[Any] = np.load(io.BytesIO(body), allow_pickle=False)
            return array
    except Exception as error:  # the parser of headers raises whatever the tokenizer and the evaluator raise
        raise Refusal(f"the body is no NPY array: {str(error)[:120]}", kind="observation") from None
    raise Refusal("the body must be one NPY array of numbers, whole", kind="observation")


def _reader(space: spaces.Space[Any]) -> Callable[[Any], Any]:
    """Return what reads one JSON value of a space; raises a UserError for one that does not belong to it."""
    if isinstance(space, spaces.Discrete):
        low, high = int(space.start), int(space.start) + int(space.n)

        def whole(value: Any) -> int:
            if type(value) is int and low <= value < high:
                return value
            raise UserError(f"{str(value)[:80]} is not a whole number from {low} to {high - 1}")

        return whole
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "iuf":
        return _array_reader(space)
    return lambda value: value_from_json(space, value)


def _array_reader(space: spaces.Box) -> Callable[[Any], NDArray[Any]]:
    """Return what reads an array: the same as `value_from_json`, in half of its time."""
    dtype, shape, low, high, kinds = np.dtype(space.dtype), space.shape, space.low, space.high, "iu"
    if dtype.kind == "f":  # without the infinities
        kinds, largest = "iuf", np.finfo(dtype).max
        low, high = np.maximum(low, -largest), np.minimum(high, largest)

    def array(value: Any) -> NDArray[Any]:
        try:
            found = np.asarray(value)
        except ValueError:  # ragged
            found = np.empty(0, dtype=object)
        if found.shape == shape and found.dtype.kind in kinds and ((found >= low) & (found <= high)).all():
            return found.astype(dtype)
        raise UserError(f"{str(value)[:80]} is not a value of the space {str(space)[:80]}")

    return array


def _depth(space: spaces.Space[Any]) -> int | None:
    """Return how deep lists are nested in one observation as JSON; None if it is no array."""
    return None if space.shape is None else len(space.shape)


def _nesting(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _mask(value: Any) -> Mask:
    if isinstance(value, list) and all(type(item) is bool or item in (0, 1) for item in value):
        return np.array(value, dtype=np.bool_)
    raise Refusal("a mask is a list of true and false, or of 1 and 0, one for each action", kind="observation")


def _number(cell: str) -> int | float:
    text = cell.strip()
    if "_" in text:  # Python's own notation, not CSV
        raise ValueError(text)
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(text) from None
        return number


def _folded(space: spaces.Space[Any], row: list[int | float]) -> Any:
    """Return the numbers of one CSV line as the JSON value of an observation."""
    match space:
        case spaces.Discrete():
            return row[0] if len(row) == 1 else row
        case spaces.Tuple() if all(isinstance(part, spaces.Discrete) for part in space.spaces):
            return row
        case _ if space.shape is not None:
            if len(row) != math.prod(space.shape):
                raise Refusal(f"a line has {math.prod(space.shape)} numbers, got {len(row)}", kind="observation")
            return np.array(row, dtype=object).reshape(space.shape).tolist()
    raise Refusal(f"observations of {str(space)[:60]} have no CSV form; send {JSON}", kind="observation")


def decompressed(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Return a body without its content encoding.

    Raises:
        Refusal: an encoding that is not read, damaged data, or more than ``max_bytes``.
    """
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise Refusal(f"content encoding {encoding[:40]!r} is not read; send gzip or deflate", kind="unsupported")
    stream = zlib.decompressobj(wbits=31 if encoding == "gzip" else 15)
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Refusal(f"the body is no {encoding} data: {error}", kind="observation") from None
    if len(content) > max_bytes:
        raise Refusal(f"the body is larger than limits.body_bytes, {max_bytes}, once decompressed", kind="too_large")
    if not stream.eof or stream.unused_data:
        raise Refusal(f"the body is cut off or has more than one part of {encoding} data", kind="observation")
    return content
