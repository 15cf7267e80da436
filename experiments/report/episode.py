"""A rendered episode as an animated GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from policylab.errors import EnvironmentRuleError
from policylab.files import write_atomic

MAX_FRAMES = 200
MAX_SIDE_PX = 420
LAST_FRAME_MS = 1200


class Film(list[Any]):
    """The frames of an episode of any length, thinned as it grows so that memory stays bounded.

    Attributes:
        n_shots: frames offered so far.

    >>> film = Film()
    >>> for shot in range(1001):
    ...     film.append(shot)
    >>> film.n_shots, len(film) <= 2 * MAX_FRAMES, film[0], film[-1]
    (1001, True, 0, 1000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.n_shots = 0
        self._every = 1
        self._spare_last = False

    def append(self, frame: Any) -> None:
        """Keep the newest frame, and of the earlier ones every first, second, fourth ... one."""
        if self._spare_last:
            self.pop()
        super().append(frame)
        self._spare_last = self.n_shots % self._every != 0
        self.n_shots += 1
        if len(self) >= 2 * MAX_FRAMES and not self._spare_last:
            del self[1::2]
            self._every *= 2
            self._spare_last = (self.n_shots - 1) % self._every != 0
            if self._spare_last:
                super().append(frame)


def episode_gif(frames: Sequence[NDArray[np.uint8]], path: Path, *, fps: float = 4.0) -> Path:
    """Write what `gif_bytes` returns to ``path``, atomically, and return ``path``.

    Raises:
        EnvironmentRuleError: there is no frame, or one is not an RGB image.
        StorageError: the file cannot be written.
    """
    write_atomic(path, gif_bytes(frames, fps=fps))
    return path


def gif_bytes(frames: Sequence[NDArray[np.uint8]], *, fps: float = 4.0) -> bytes:
    """Return ``frames`` as an endlessly repeating GIF.

    Long episodes are thinned evenly to `MAX_FRAMES` (first and last frame stay), large frames are shrunk to
    `MAX_SIDE_PX`, and the last frame is held, so that the end of the episode can be seen.

    Args:
        frames: RGB images as ``render()`` returns them, each of shape (height, width, 3), dtype uint8.
        fps: frames per second; viewers show at most 50.

    Raises:
        EnvironmentRuleError: there is no frame, or one is not an RGB image.
    """
    images = [_image(frame) for frame in thinned(frames)]
    if not images:
        raise EnvironmentRuleError(
            "an episode needs at least one frame, got none; make the environment with render_mode='rgb_array'"
        )
    durations = [max(20, round(1000 / fps))] * (len(images) - 1) + [LAST_FRAME_MS]
    buffer = io.BytesIO()
    first, *rest = images
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)
    return buffer.getvalue()


def thinned(frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Return at most `MAX_FRAMES` of ``frames``, evenly spaced, the first and the last among them."""
    count = min(len(frames), MAX_FRAMES)
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)] if count else []


def _image(frame: NDArray[np.uint8]) -> Image.Image:
    array = np.asarray(frame)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise EnvironmentRuleError(
            "a frame must be an RGB image of dtype uint8 and shape (height, width, 3), "
            f"got {array.dtype} {array.shape}; make the environment with render_mode='rgb_array'"
        )
    image = Image.fromarray(array)
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    return image.quantize(colors=128, dither=Image.Dither.NONE)
