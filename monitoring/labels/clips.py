"""What people see of a segment: the environment's own pictures, played again, or else its numbers as curves."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.agents.bundle_manifest import EnvironmentEntry
from policylab.agents.transitions import read_transitions
from policylab.envs.learned_reward import column_value
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import PolicylabError, UserError
from policylab.experiments.evaluation import begin_episode
from policylab.experiments.report.episode import gif_bytes
from policylab.monitoring.causes.steps import Steps, steps_of
from policylab.monitoring.labels.segments import Segments, space_in
from policylab.seeding import generator

FPS = 8.0
N_KEPT = 256
MAX_CURVES = 8
WIDTH, ROW = 420, 64
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Clip:
    """A picture of one segment: its media type and bytes."""

    media_type: str
    content: bytes


class Studio:
    """Draws segments, one at a time, and keeps what it drew last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # drawing libraries are not made for threads
        self._kept: dict[str, Clip] = {}

    def clip(self, segments: Segments, row: int) -> Clip:
        """Return the picture of a segment."""
        name = segments.digest(row)
        with self._lock:
            if name not in self._kept:
                while len(self._kept) >= N_KEPT:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[name] = _drawn(segments, row)
            return self._kept[name]


def _drawn(segments: Segments, row: int) -> Clip:
    if "path" in segments.about:
        try:
            return Clip("image/gif", gif_bytes(played_again(segments, row), fps=FPS))
        except PolicylabError as error:
            logger.info("a segment is shown as curves: %s", error)
        except Exception:  # whatever a drawing library comes up with on a machine without graphics
            logger.info("a segment is shown as curves, since it cannot be drawn", exc_info=True)
    return Clip("image/svg+xml", curves(segments, row).encode())


def played_again(segments: Segments, row: int) -> list[NDArray[np.uint8]]:
    """Return the pictures of a segment's states: the episode is played again, from its seed, with its actions.

    Raises:
        UserError: the recording is gone or another one, or playing it again leads elsewhere.
        EnvironmentRuleError, MissingExtraError: the environment cannot be made or draws no pictures.
    """
    about, episode, start = segments.about, int(segments.episode[row]), int(segments.start[row])
    steps = _recorded(str(about["path"]), str(about["sha256"]))
    entry = EnvironmentEntry.model_validate(about["environment"])
    settings = EnvSettings(id=entry.id, kwargs=entry.kwargs, max_episode_steps=entry.max_episode_steps)
    env = make_env(settings, render_mode="rgb_array")
    try:
        first = int(steps.starts[episode])
        observation = begin_episode(env, generator(int(about["seed"]), "episode", episode))
        frames: list[NDArray[np.uint8]] = []
        for t in range(start + segments.length):
            if t >= start:
                frames.append(_picture(env))
            if not np.allclose(column_value(env.observation_space, observation)[0], steps.observation[first + t]):
                raise UserError(f"episode {episode} cannot be played again: it is elsewhere at step {t}")
            action = steps.action[first + t]
            observation, *_ = env.step(int(action) if isinstance(env.action_space, gym.spaces.Discrete) else action)
        return [*frames, _picture(env)]
    finally:
        env.close()


def _picture(env: gym.Env[Any, Any]) -> NDArray[np.uint8]:
    frame: Any = env.render()
    return np.asarray(frame)


@functools.lru_cache(maxsize=4)
def _recorded(path: str, sha256: str) -> Steps:
    recorded = read_transitions(Path(path))
    if recorded.digest != sha256:
        raise UserError(f"{path} is no longer the recording that segments were cut from")
    return steps_of(dict(recorded.columns))


def curves(segments: Segments, row: int) -> str:
    """Return observations and actions of a segment as an SVG drawing: one curve each, in the order of time."""
    named = {
        **_components("observation", segments.observation[row]),
        **_components("action", segments.action[row]),
    }
    spaces = {name: space_in(segments.about, f"{name}_space") for name in ("observation", "action")}
    height = ROW * len(named)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for i, (name, values) in enumerate(named.items()):
        whole = isinstance(spaces[name.split()[0]], gym.spaces.Discrete)
        parts.append(_curve(name, values, top=i * ROW, whole=whole))
    return "\n".join([*parts, "</svg>"])


def _components(name: str, values: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    if values.ndim == 1:
        return {name: values}
    return {f"{name} {i}": values[:, i] for i in range(min(MAX_CURVES, values.shape[1]))}


def _curve(name: str, values: NDArray[Any], *, top: int, whole: bool) -> str:
    """Return one curve; ``whole`` numbers are drawn as steps."""
    low, high = float(values.min()), float(values.max())
    span = high - low if high > low else 1.0
    x = 8 + (WIDTH - 16) * np.arange(len(values)) / max(1, len(values) - 1)
    y = top + ROW - 8 - (ROW - 30) * (values.astype(np.float64) - low) / span
    points = [(x[0], y[0])]
    for t in range(1, len(values)):
        points += [(x[t], y[t - 1])] if whole else []
        points.append((x[t], y[t]))
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    label = f"{name}: {low:.4g} to {high:.4g}" if high > low else f"{name}: {low:.4g}"
    return (
        f'<text x="8" y="{top + 14}" fill="#444">{label}</text>'
        f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="1.5"/>'
    )
