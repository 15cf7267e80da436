"""`EpisodeCursor`: where an environment is, saved and restored exactly without pickling it.

An episode is a function of the random stream at its reset and of the actions since. So those are what is
saved; restoring resets from the same stream and replays. Every restore verifies that it arrived at the saved
observation and at the saved point of the stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.enumeration import name_of
from policylab.errors import CheckpointError, EnvironmentRuleError
from policylab.seeding import generator_state, set_generator_state

SAVED_ACTIONS = (gym.spaces.Discrete, gym.spaces.Box, gym.spaces.MultiDiscrete, gym.spaces.MultiBinary)
StepResult = tuple[Any, float, bool, bool, dict[str, Any]]


@runtime_checkable
class Snapshotting(Protocol):
    """An environment that keeps something across episodes besides its random stream, such as a clock."""

    def snapshot(self) -> Mapping[str, Any]:
        """Return what it keeps: JSON-able."""
        ...

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continue from what `snapshot` returned."""
        ...


class EpisodeCursor:
    """Steps an environment on one random stream and can say exactly where it is.

    The stream replaces ``env.unwrapped.np_random`` after one seeded reset. Toy-text environments and
    `policylab.envs.table_env.TableEnv` then draw one ``rng.random()`` per reset and per step.

    Args:
        env: all its randomness comes from ``np_random``.
        rng: an SFC64 generator of which nobody else draws while the cursor lives.

    Attributes:
        env: the environment.
        observation: the latest observation, None before the first reset.
        over: whether the episode has ended (or none has begun), so that `reset` is due.

    >>> from policylab.seeding import generator
    >>> cursor = EpisodeCursor(gym.make("FrozenLake-v1"), generator(0, "environment"))
    >>> cursor.reset(), cursor.step(2)[0] in (0, 1, 4)
    (0, True)
    """

    def __init__(self, env: gym.Env[Any, Any], rng: np.random.Generator) -> None:
        if not isinstance(rng.bit_generator, np.random.SFC64):
            raise EnvironmentRuleError(
                f"EpisodeCursor needs an SFC64 generator, got {type(rng.bit_generator).__name__}; "
                "make it with policylab.seeding.generator"
            )
        if not isinstance(env.action_space, SAVED_ACTIONS):
            raise EnvironmentRuleError(
                f"EpisodeCursor cannot save actions of {env.action_space} ({name_of(env)}); flatten the action space"
            )
        self.env = env
        self.observation: Any = None
        self.over = True
        self._rng = rng
        # Read off, not drawn: the stream stays what a compiled loop over the table sees.
        self._seed = int(generator_state(rng)[0] >> np.uint64(33))
        self._actions: list[Any] = []
        self._keep_action = _as_is if isinstance(env.action_space, gym.spaces.Discrete) else np.array
        self._begin()

    def reset(self) -> Any:
        """Begin an episode; return its first observation."""
        self._reset_stream = _stream(self._rng)
        self._reset_snapshot = self._snapshot()
        self._actions.clear()
        self.over = False
        self.observation, _ = self.env.reset()
        return self.observation

    def step(self, action: Any) -> StepResult:
        """Take ``action``; return what ``env.step`` returns."""
        self._actions.append(self._keep_action(action))
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.observation = observation
        self.over = terminated or truncated
        return observation, float(reward), terminated, truncated, info

    def state(self) -> dict[str, Any]:
        """Return where the environment is: arrays and JSON values.

        Keys: ``seed``; ``reset_stream`` and ``stream``, the generator at the last reset and now, uint64 arrays
        (6,); ``reset_snapshot``, a JSON value or None; ``actions`` since that reset, an array, one row each;
        ``begun``; ``over``; ``observation``, a digest.
        """
        return {
            "seed": self._seed,
            "reset_stream": self._reset_stream.copy(),
            "stream": _stream(self._rng),
            "reset_snapshot": self._reset_snapshot,
            "actions": np.array(self._actions, dtype=self._action_type()),
            "begun": self.observation is not None,
            "over": self.over,
            "observation": _digest(self.observation),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where `state` was taken, by a reset and a replay of the actions since.

        Raises:
            CheckpointError: the state is damaged, or the replay arrives elsewhere because the environment is
                another one or draws on randomness besides ``np_random``.
        """
        try:
            self._seed = int(state["seed"])
            reset_stream, stream = _words(state["reset_stream"]), _words(state["stream"])
            actions, digest = np.asarray(state["actions"]), str(state["observation"])
            begun, over, snapshot = bool(state["begun"]), bool(state["over"]), state["reset_snapshot"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the saved position in {name_of(self.env)} is damaged ({error!r}); use an older checkpoint"
            ) from error
        self._begin()
        _set_stream(self._rng, reset_stream)
        self._reset_stream = reset_stream
        self._set_snapshot(snapshot)
        if begun:
            self.reset()
            self._replay(actions)
        self.over = over
        if not (np.array_equal(_stream(self._rng), stream) and _digest(self.observation) == digest):
            raise self._lost(len(actions))

    def _begin(self) -> None:
        """Seed whatever the environment keeps besides its generator, then give it the stream."""
        self.env.reset(seed=self._seed)
        self.env.unwrapped.np_random = self._rng
        self.observation = None
        self._actions.clear()
        self._reset_stream = _stream(self._rng)
        self._reset_snapshot = self._snapshot()

    def _replay(self, actions: NDArray[Any]) -> None:
        discrete = isinstance(self.env.action_space, gym.spaces.Discrete)
        try:
            for action in actions.tolist() if discrete else actions:
                self.step(action)
        except Exception as error:  # foreign code, on actions that may not be its own
            raise self._lost(len(actions)) from error

    def _lost(self, n_actions: int) -> CheckpointError:
        return CheckpointError(
            f"{name_of(self.env)} cannot be put back where it was: replaying {n_actions} actions does not lead to the "
            "saved observation; it is not reproducible or not the saved one, start the run anew"
        )

    def _snapshot(self) -> dict[str, Any] | None:
        base = self.env.unwrapped
        return dict(base.snapshot()) if isinstance(base, Snapshotting) else None

    def _set_snapshot(self, snapshot: Any) -> None:
        base = self.env.unwrapped
        if snapshot is not None and isinstance(base, Snapshotting):
            base.restore(snapshot)

    def _action_type(self) -> Any:
        return np.int64 if isinstance(self.env.action_space, gym.spaces.Discrete) else self.env.action_space.dtype


def _as_is(action: Any) -> Any:
    return action


def _stream(rng: np.random.Generator) -> NDArray[np.uint64]:
    """Return all six words of an SFC64 generator: its state, and the half word that 32-bit draws leave over."""
    state = rng.bit_generator.state
    rest = np.array([state["has_uint32"], state["uinteger"]], dtype=np.uint64)
    return np.concatenate([generator_state(rng), rest])


def _set_stream(rng: np.random.Generator, words: NDArray[np.uint64]) -> None:
    set_generator_state(rng, words[:4])
    rng.bit_generator.state = {**rng.bit_generator.state, "has_uint32": int(words[4]), "uinteger": int(words[5])}


def _words(value: Any) -> NDArray[np.uint64]:
    words = np.asarray(value, dtype=np.uint64)
    if words.shape != (6,):
        raise ValueError(f"a stream has six words, got shape {words.shape}")
    return words


def _digest(observation: Any) -> str:
    """Return the SHA-256 of an observation's numbers, whatever its nesting."""
    digest = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Mapping):
            for key in sorted(part):
                digest.update(str(key).encode())
                add(part[key])
        elif isinstance(part, tuple | list):
            digest.update(b"(")
            for item in part:
                add(item)
            digest.update(b")")
        elif isinstance(part, str) or part is None:
            digest.update(repr(part).encode())
        else:
            array = np.asarray(part)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())

    add(observation)
    return digest.hexdigest()
