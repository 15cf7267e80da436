"""One tree of random streams per experiment, grown by name.

Every stochastic part owns a stream ``stream(root_seed, "confirm", 3, "environment")``: adding a part, a
trial or a seed never shifts the numbers of another. Streams are independent by construction
(``numpy.random.SeedSequence`` with distinct spawn keys; source: NumPy, "Parallel random number
generation").

Generators use SFC64 (C. Doty-Humphrey, PractRand): its state is four 64-bit words, so the compiled
loops carry exactly the stream that ``numpy.random.Generator`` would draw.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(root_seed: int, *path: str | int) -> np.random.SeedSequence:
    """Return the seed sequence at ``path`` below ``root_seed`` (a non-negative integer).

    >>> a, b = stream(0, "tune", 1), stream(0, "tune", 1)
    >>> bool((a.generate_state(4) == b.generate_state(4)).all())
    True
    >>> bool((a.generate_state(4) == stream(0, "confirm", 1).generate_state(4)).any())
    False
    """
    digest = hashlib.sha256("\x1f".join(f"{type(part).__name__}:{part}" for part in path).encode()).digest()
    return np.random.SeedSequence(root_seed, spawn_key=tuple(np.frombuffer(digest[:16], dtype="<u4").tolist()))


def run_seed(root_seed: int, *, role: str, index: int) -> int:
    """Return the 63-bit seed of one run: ``role`` is ``"tune"`` or ``"confirm"``, ``index`` >= 0.

    Two configurations with the same role and index share it (paired common random numbers).
    """
    return int(stream(root_seed, "run", role, index).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(root_seed: int, *path: str | int) -> np.random.Generator:
    """Return an SFC64 generator on the stream at ``path``.

    >>> float(generator(7, "environment").random()) == float(generator(7, "environment").random())
    True
    """
    return np.random.Generator(np.random.SFC64(stream(root_seed, *path)))


def generator_state(rng: np.random.Generator) -> np.ndarray:
    """Return the four uint64 words of an SFC64 generator, shape (4,)."""
    state: np.ndarray = rng.bit_generator.state["state"]["state"]
    return state.copy()


def set_generator_state(rng: np.random.Generator, words: np.ndarray) -> None:
    """Put an SFC64 generator at ``words``, the uint64 array that :func:`generator_state` returned."""
    state = dict(rng.bit_generator.state)
    state["state"] = {"state": np.asarray(words, dtype=np.uint64).copy()}
    rng.bit_generator.state = state
