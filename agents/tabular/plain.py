"""The plain execution: steps a Gymnasium environment and calls the rules as Python functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from policylab.agents.exploration import choose
from policylab.agents.features import Encoder
from policylab.agents.tabular.core import Algorithm, Step
from policylab.agents.tabular.progress import (
    ENDED,
    EPISODES,
    ERROR_SUM,
    LENGTH,
    LENGTH_SUM,
    PENDING,
    RETURN,
    RETURN_SUM,
    STATE,
    STEPS,
    Progress,
    forget,
)
from policylab.agents.tabular.values import State, Values, features
from policylab.envs.cursor import EpisodeCursor


class PlainExecution:
    """Trains ``algorithm`` on the environment under ``cursor``, one step after the other."""

    def __init__(self, algorithm: Algorithm, cursor: EpisodeCursor, *, encoder: Encoder, first_action: int) -> None:
        self._algorithm = algorithm
        self._cursor = cursor
        self._encoder = encoder
        self._first_action = first_action

    def run(self, progress: Progress, steps: Sequence[int]) -> Iterator[tuple[Progress, Values]]:
        """Take each number of ``steps`` in turn and learn from each step; yield what is measured and known then."""
        for number in steps:
            self._train(progress, number)
            yield progress, self._algorithm.core.q
            forget(progress)

    def _train(self, progress: Progress, steps: int) -> None:
        if steps and progress.clock[STATE] >= 0:
            state = self._encode(self._cursor.observation)
        for _ in range(steps):
            if progress.clock[STATE] < 0:
                state = self._begin_episode(progress)
            state = self._step(progress, state)
        if steps and progress.clock[STATE] >= 0:
            progress.clock[STATE] = features(state)[0]

    def _encode(self, observation: Any) -> State:
        active = self._encoder.encode(observation)
        return int(active[0]) if self._encoder.n_active == 1 else active

    def _begin_episode(self, progress: Progress) -> State:
        clock, tally, _ = progress
        clock[STATE], clock[PENDING], clock[LENGTH], tally[RETURN] = 0, -1, 0, 0.0
        return self._encode(self._cursor.reset())

    def _step(self, progress: Progress, state: State) -> State:
        """Act, learn and count; return the next state."""
        clock, tally, seen = progress
        algorithm, core = self._algorithm, self._algorithm.core
        time, action = clock.item(STEPS), clock.item(PENDING)
        if action < 0:
            action = choose(core, state, time)
        seen[state] = True
        observation, reward, terminated, truncated, _ = self._cursor.step(action + self._first_action)
        next_state, reward = self._encode(observation), float(reward)
        next_action = choose(core, next_state, time + 1) if algorithm.looks_ahead() and not terminated else -1
        step = Step(time, state, action, reward, next_state, next_action, terminated, truncated)
        tally[ERROR_SUM] += algorithm.update(step)
        tally[RETURN] += reward
        clock[STEPS] += 1
        clock[LENGTH] += 1
        clock[PENDING] = next_action
        if terminated or truncated:
            clock[EPISODES] += 1
            clock[ENDED] += 1
            clock[LENGTH_SUM] += clock[LENGTH]
            tally[RETURN_SUM] += tally[RETURN]
            clock[STATE] = -1
        return next_state

    def position(self) -> dict[str, Any]:
        """Return where the environment is, for a checkpoint."""
        return dict(self._cursor.state())

    def restore(self, position: dict[str, Any]) -> None:
        """Put the environment back to a `position`."""
        self._cursor.restore(position)
