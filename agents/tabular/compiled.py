"""The compiled execution: environment, exploration and update fused into one loop over a `TabularMDP`.

It draws the numbers that Gymnasium's own toy-text environments draw, in their order: one per reset and one
per step from the environment's stream, compared with cumulative probabilities
(``gymnasium.envs.toy_text.utils.categorical_sample``). With equal streams it therefore leaves the Q-table
that the plain execution leaves, to the last bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

from policylab.agents.exploration import choose
from policylab.agents.rule import draw
from policylab.agents.schedules import FOREVER
from policylab.agents.tabular.cache import cache_folder
from policylab.agents.tabular.compiled_rules import INLINE, RememberedValues, refresh, register_rules
from policylab.agents.tabular.core import Algorithm, Step, looks_ahead, update
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
)
from policylab.envs.table import TabularMDP
from policylab.seeding import generator_state, set_generator_state

GUIDE = 1024
"""Entries of the guide table; a power of two, so that scaling by it does not round."""


class SampledTable(NamedTuple):
    """A `TabularMDP` ready for sampling.

    | field | shape | meaning |
    |---|---|---|
    | cumulative | (S, A, K) | cumulative outcome probabilities |
    | next_state, reward, terminated | (S, A, K) | as in the model |
    | initial | (S,) | cumulative initial distribution |
    | guide | (GUIDE,) | first state whose cumulative probability exceeds i / GUIDE |
    | limit | | steps after which an episode is truncated |

    Source of the guide table: Chen & Asau (1974), "On generating random variates from an empirical
    distribution"; it finds the state a linear search would find.
    """

    cumulative: NDArray[np.float64]
    next_state: NDArray[np.int32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    initial: NDArray[np.float64]
    guide: NDArray[np.int64]
    limit: int


class Records(NamedTuple):
    """What is kept of each episode, as long as there is room: three arrays of equal length."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    first_actions: NDArray[np.int64]


def sampled_table(mdp: TabularMDP) -> SampledTable:
    """Return ``mdp`` ready for sampling."""
    initial = np.cumsum(mdp.initial_distribution)
    return SampledTable(
        cumulative=np.cumsum(mdp.probability, axis=2),
        next_state=np.array(mdp.next_state),
        reward=np.array(mdp.reward),
        terminated=np.array(mdp.terminated),
        initial=initial,
        guide=np.searchsorted(initial, np.arange(GUIDE) / GUIDE, side="right"),
        limit=mdp.max_episode_steps or FOREVER,
    )


def no_records(n_episodes: int = 0) -> Records:
    """Return records with room for ``n_episodes``; a return of NaN marks an episode that did not end."""
    lengths = np.zeros(n_episodes, dtype=np.int64)
    return Records(np.full(n_episodes, np.nan), lengths, np.full(n_episodes, -1, dtype=np.int64))


@contextlib.contextmanager
def _cached() -> Iterator[None]:
    """Let Numba keep what is decorated inside in `cache_folder`."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder())
    try:
        yield
    finally:
        numba.config.CACHE_DIR = before


@register_jitable(**INLINE)
def _first_state(table: SampledTable, rng: Any) -> int:
    u = draw(rng)
    state = table.guide[int(u * GUIDE)]
    while state < len(table.initial) and table.initial[state] <= u:
        state += 1
    return state if state < len(table.initial) else 0


@register_jitable(**INLINE)
def _outcome(table: SampledTable, state: int, action: int, rng: Any) -> int:
    u = draw(rng)
    if table.cumulative.shape[2] > 1:
        for outcome in range(table.cumulative.shape[2]):
            if table.cumulative[state, action, outcome] > u:
                return outcome
    return 0


with _cached():

    @numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[untyped-decorator]
    def train(table, algorithm, environment, progress, records, steps, episodes):  # type: ignore[no-untyped-def]
        """Take up to ``steps`` steps and end up to ``episodes`` episodes, learning from each step.

        Args:
            table: `SampledTable`.
            algorithm: an algorithm's tuple over a core with `RememberedValues` and the words of its stream.
            environment: the four words of the environment's stream.
            progress: `Progress`.
            records: `Records`.
            steps: steps to take at most.
            episodes: episodes to end at most.
        """
        core, clock, tally = algorithm.core, progress.clock, progress.tally
        time, episode, state, pending, length = (
            clock[STEPS],
            clock[EPISODES],
            clock[STATE],
            clock[PENDING],
            clock[LENGTH],
        )
        episode_return, return_sum, error_sum = tally[RETURN], tally[RETURN_SUM], tally[ERROR_SUM]
        last_time, last_episode = time + steps, episode + episodes
        for s in range(table.next_state.shape[0]):
            refresh(core.q, s)
        while time < last_time and episode < last_episode:
            if state < 0:
                state = _first_state(table, environment)
                pending, length, episode_return = -1, 0, 0.0
            action = pending
            if action < 0:
                action = choose(core, state, time)
            if length == 0 and episode < len(records.first_actions):
                records.first_actions[episode] = action
            progress.seen[state] = True
            outcome = _outcome(table, state, action, environment)
            next_state = np.int64(table.next_state[state, action, outcome])
            reward = table.reward[state, action, outcome]
            terminated = table.terminated[state, action, outcome]
            length += 1
            truncated = length >= table.limit
            pending = -1
            if looks_ahead(algorithm) and not terminated:
                pending = choose(core, next_state, time + 1)
            step = Step(time, state, action, reward, next_state, pending, terminated, truncated)
            error_sum += update(algorithm, step)
            episode_return += reward
            time += 1
            state = next_state
            if terminated or truncated:
                if episode < len(records.returns):
                    records.returns[episode] = episode_return
                    records.lengths[episode] = length
                episode += 1
                return_sum += episode_return
                clock[LENGTH_SUM] += length
                state = -1
        clock[ENDED] += episode - clock[EPISODES]
        clock[STEPS], clock[EPISODES], clock[STATE], clock[PENDING], clock[LENGTH] = (
            time,
            episode,
            state,
            pending,
            length,
        )
        tally[RETURN], tally[RETURN_SUM], tally[ERROR_SUM] = episode_return, return_sum, error_sum


def compiled_form(algorithm: Any) -> Any:
    """Return ``algorithm`` over the same arrays, as `train` takes it.

    Its random stream is a copy: put ``core.rng`` of the result back into the original after training.
    """
    register_rules()
    core = algorithm.core
    n_states = core.q.shape[0]
    q = RememberedValues(core.q, np.zeros(n_states), np.zeros(n_states, dtype=np.int64))
    return algorithm._replace(core=core._replace(q=q, rng=generator_state(core.rng)))


class CompiledExecution:
    """Trains ``algorithm`` on the exact table ``mdp``.

    Args:
        algorithm: the algorithm's tuple; its arrays and generator are advanced in place.
        mdp: the environment's table.
        rng: the environment's random stream, an SFC64 generator.
    """

    def __init__(self, algorithm: Algorithm, mdp: TabularMDP, *, rng: np.random.Generator) -> None:
        self._algorithm = algorithm
        self._table = sampled_table(mdp)
        self._rng = rng

    def run(self, progress: Progress, steps: int) -> None:
        """Take ``steps`` environment steps and learn from each."""
        form = compiled_form(self._algorithm)
        environment = generator_state(self._rng)
        train(self._table, form, environment, progress, no_records(), steps, FOREVER)
        set_generator_state(self._rng, environment)
        set_generator_state(self._algorithm.core.rng, form.core.rng)

    def position(self) -> dict[str, Any]:
        """Return where the environment is besides `Progress`: its random stream."""
        return {"environment": generator_state(self._rng)}

    def restore(self, position: dict[str, Any]) -> None:
        """Put the environment's stream back."""
        set_generator_state(self._rng, position["environment"])
