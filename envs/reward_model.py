"""`RewardModel`: a reward learned from preferences, as plain arrays that any environment's steps can be valued by.

An ensemble of M models. Each maps the features x of a step to a number: w · x if ``hidden`` is 0, else
v · tanh(x W + b). The reward of a step is the mean over the ensemble; each member is scaled to mean 0 and standard
deviation 1 over the steps it was fitted to.

A model is a folder of two files: ``manifest.json`` (format version, what the features are made of, type and shape of
every array, sha256 of the other file, where the model came from) and ``arrays.npz``. Nothing in it is code.

Source: Christiano et al., "Deep reinforcement learning from human preferences", NeurIPS 2017, section 2.2.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from policylab.config import Settings
from policylab.errors import UserError
from policylab.files import canonical_json, write_atomic

Floats = NDArray[np.float64]
MANIFEST, ARRAYS = "manifest.json", "arrays.npz"
MAX_BYTES = 64 * 2**20
SLACK_BYTES = 4_096


class Part(Settings):
    """One part of a step's features.

    Attributes:
        name: what of the step.
        size: how many numbers: components of a vector, or values of a whole number, which become one-hot.
        first: the smallest value of a whole number; None for a vector.
    """

    name: Literal["observation", "action", "next_observation"]
    size: PositiveInt
    first: int | None = None

    def features(self, values: NDArray[Any]) -> Floats:
        """Return features of shape (n, size) for values of shape (n,) or (n, size).

        Raises:
            UserError: the values are of another space.
        """
        values = np.asarray(values)
        if self.first is None:
            if values.ndim != 2 or values.shape[1] != self.size:
                raise UserError(f"the reward model needs {self.name}s of {self.size} numbers, got shape {values.shape}")
            return values.astype(np.float64)
        index = values.astype(np.int64) - self.first
        if values.ndim != 1 or ((index < 0) | (index >= self.size)).any():
            raise UserError(
                f"the reward model needs {self.name}s from {self.first} to {self.first + self.size - 1}, "
                f"got {str(values)[:60]}"
            )
        return np.eye(self.size)[index]


class ArrayFacts(Settings):
    """Type and shape of one array."""

    dtype: Literal["<f8"]
    shape: Annotated[tuple[NonNegativeInt, ...], Field(max_length=3)]


class Manifest(Settings):
    """What ``manifest.json`` holds."""

    format_version: Literal[1] = 1
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=3)]
    hidden: Annotated[int, Field(ge=0, le=4_096)]
    arrays: dict[str, ArrayFacts]
    arrays_sha256: str
    lineage: dict[str, Any] = Field(default_factory=dict, description="environment, labels, and how well it was tested")

    @property
    def n_features(self) -> int:
        """Numbers that describe a step."""
        return sum(part.size for part in self.parts)


class RewardModel:
    """See the module.

    Args:
        parts: what a step's features are made of.
        arrays: ``mean`` and ``scale`` of the features, shape (F,), which are standardised; ``first`` (M, F) of linear
            members, or ``first`` (M, F, H), ``bias`` (M, H) and ``second`` (M, H); ``offset`` and ``unit`` (M,), taken
            off a member's number and dividing it.
        lineage: JSON values.
    """

    def __init__(self, parts: tuple[Part, ...], arrays: Mapping[str, Floats], *, lineage: Mapping[str, Any]) -> None:
        self.parts = parts
        self.arrays = dict(arrays)
        self.lineage = dict(lineage)
        self.hidden = arrays["first"].shape[2] if "second" in arrays else 0

    def features(self, step: Mapping[str, NDArray[Any]]) -> Floats:
        """Return the features of n steps, shape (n, F), from arrays named as the parts."""
        return np.concatenate([part.features(step[part.name]) for part in self.parts], axis=1)

    def members(self, features: Floats) -> Floats:
        """Return what each member gives for steps, shape (M, n)."""
        held = self.arrays
        x = (features - held["mean"]) / held["scale"]
        found = raw_rewards(held, x)
        return np.asarray((found - held["offset"][:, None]) / held["unit"][:, None])

    def rewards(self, features: Floats) -> Floats:
        """Return the reward of steps, shape (n,)."""
        found: Floats = self.members(features).mean(axis=0)
        return found

    def save(self, folder: Path) -> str:
        """Write the model; return its digest, the sha256 of its manifest.

        Raises:
            StorageError: a write failed.
        """
        buffer = io.BytesIO()
        ordered: dict[str, Any] = {name: self.arrays[name] for name in sorted(self.arrays)}
        np.savez(buffer, **ordered)
        content = buffer.getvalue()
        facts = {name: ArrayFacts(dtype="<f8", shape=array.shape) for name, array in self.arrays.items()}
        manifest = Manifest(
            parts=self.parts, hidden=self.hidden, arrays=facts, lineage=self.lineage,
            arrays_sha256=hashlib.sha256(content).hexdigest(),
        )  # fmt: skip
        text = canonical_json(manifest.model_dump(mode="json")) + "\n"
        write_atomic(folder / ARRAYS, content)
        write_atomic(folder / MANIFEST, text)
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def load(cls, folder: Path, *, sha256: str | None = None) -> Self:
        """Return the model in a folder.

        Args:
            folder: with the two files.
            sha256: the digest it must have; None takes any.

        Raises:
            UserError: it is missing, altered, hostile or another one.
        """
        try:
            sizes = [(folder / name).stat().st_size for name in (MANIFEST, ARRAYS)]
            if max(sizes) > MAX_BYTES:
                raise UserError(
                    f"{folder}: a reward model has at most {MAX_BYTES // 2**20} MiB, got {max(sizes):,} bytes"
                )
            text, content = (folder / MANIFEST).read_bytes(), (folder / ARRAYS).read_bytes()
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"{folder} holds no reward model ({reason}); make one with `policylab labels train`"
            ) from None
        digest = hashlib.sha256(text).hexdigest()
        if sha256 is not None and digest != sha256:
            raise UserError(f"{folder} is another reward model: its sha256 is {digest}, {sha256[:64]} was asked for")
        try:
            manifest = Manifest.model_validate_json(text)
            if hashlib.sha256(content).hexdigest() != manifest.arrays_sha256:
                raise ValueError(f"{ARRAYS} is not what {MANIFEST} describes")
            return cls(manifest.parts, _arrays(content, manifest), lineage=manifest.lineage)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"{folder / MANIFEST}: {place}: {first['msg']}; make the model again") from None
        except Exception as error:  # the parsers of hostile bytes may fail in any way; all mean the same
            raise UserError(f"{folder} is a damaged reward model ({str(error)[:80]}); copy it again") from error


def raw_rewards(arrays: Mapping[str, Floats], x: Floats) -> Floats:
    """Return what members give for standardised features (n, F), before they are scaled, shape (M, n)."""
    if "second" not in arrays:
        found: Floats = arrays["first"] @ x.T
        return found
    return np.stack([
        np.tanh(x @ first + bias) @ second
        for first, bias, second in zip(arrays["first"], arrays["bias"], arrays["second"], strict=True)
    ])  # fmt: skip


def _arrays(content: bytes, manifest: Manifest) -> dict[str, Floats]:
    """Return the arrays of a model's file, which must be those that its manifest declares and fit each other."""
    n_members = manifest.arrays["first"].shape[0]
    f, h = manifest.n_features, manifest.hidden
    expected: dict[str, tuple[int, ...]] = {"mean": (f,), "scale": (f,), "offset": (n_members,), "unit": (n_members,)}
    layers = {"first": (n_members, f, h), "bias": (n_members, h), "second": (n_members, h)}
    expected |= layers if h else {"first": (n_members, f)}
    if {name: facts.shape for name, facts in manifest.arrays.items()} != expected or not n_members:
        raise ValueError(f"its arrays do not fit {f} features and {h} hidden units")
    total = sum(8 * math.prod(shape) for shape in expected.values())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > total + SLACK_BYTES * len(expected):
            raise ValueError("its arrays are larger than declared")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        found = {name: np.asarray(file[name]) for name in expected}
    for name, array in found.items():
        if array.dtype.str != "<f8" or array.shape != expected[name] or not np.isfinite(array).all():
            raise ValueError(f"the array {name} is not what is declared, or not finite")
    if not ((found["scale"] > 0).all() and (found["unit"] > 0).all()):
        raise ValueError("scales must be above 0")
    return found
