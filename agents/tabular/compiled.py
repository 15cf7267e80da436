"""The compiled execution: environment, exploration and update fused into one loop over a `TabularMDP`.

It draws the numbers that Gymnasium's own toy-text environments draw, in their order: one per reset and one
per step from the environment's stream, compared with cumulative probabilities
(``gymnasium.envs.toy_text.utils.categorical_sample``). With equal streams it therefore leaves the Q-table
that the plain execution leaves, to the last bit.
"""
# ruff: noqa: PLR0917 - compiled functions take positional arguments

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from policylab.agents.exploration import choose
from policylab.agents.registry import AGENTS
from policylab.agents.rule import rule
from policylab.agents.schedules import FOREVER
from policylab.agents.settings import TabularSettings
from policylab.agents.tabular.cache import cache_folder
from policylab.agents.tabular.compiled_rules import RememberedValues, at, refresh, register_rules
from policylab.agents.tabular.compiled_table import first_state, sample_outcome, sampled_table
from policylab.agents.tabular.core import Algorithm, Size, Step, looks_ahead, make_core, update
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
    begin,
    forget,
)
from policylab.envs.table import TabularMDP
from policylab.errors import UserError
from policylab.seeding import generator, generator_state, set_generator_state


class Records(NamedTuple):
    """What is kept of each episode, as long as there is room: three arrays of equal length."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    first_actions: NDArray[np.int64]


def no_records(*shape: int) -> Records:
    """Return records with nothing in them; a return of NaN marks an episode that did not end."""
    return Records(np.full(shape, np.nan), np.zeros(shape, dtype=np.int64), np.full(shape, -1, dtype=np.int64))


class Marks(NamedTuple):
    """Where training stops for a moment, and what is kept there, as long as there is room.

    | field | shape | meaning |
    |---|---|---|
    | steps | (n_marks,) | steps to take at most up to each mark |
    | progress | (n_kept, ...) | the agent's `Progress` there |
    | q | (n_kept, n_states, n_actions) | its action values there |
    """

    steps: NDArray[np.int64]
    progress: Progress
    q: NDArray[np.float64]


def marks_after(steps: Sequence[int], size: tuple[int, int], *, keep: bool = False) -> Marks:
    """Return marks that are ``steps`` apart, with room to keep what is there if it is to be."""
    n = len(steps) if keep else 0
    start = begin(size[0])
    kept = Progress(*(np.zeros((n, *part.shape), dtype=part.dtype) for part in start))
    return Marks(np.array(steps, dtype=np.int64), kept, np.zeros((n, *size)))


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Let Numba keep what is decorated inside the block in `cache_folder`."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        yield
    finally:
        config.CACHE_DIR = before


@rule
def keep(marks: Marks, mark: int, progress: Progress, values: NDArray[np.float64]) -> None:
    """Keep the progress and the action values of a mark."""
    for i in range(len(progress.clock)):
        marks.progress.clock[mark, i] = progress.clock[i]
    for i in range(len(progress.tally)):
        marks.progress.tally[mark, i] = progress.tally[i]
    for s in range(values.shape[0]):
        marks.progress.seen[mark, s] = progress.seen[s]
        for a in range(values.shape[1]):
            marks.q[mark, s, a] = values[s, a]


with cached():

    @numba.njit(cache=True, nogil=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload, untyped-decorator, unused-ignore]
    def train(table, algorithm, environment, progress, records, marks, episodes):  # type: ignore[no-untyped-def]
        """Take steps from mark to mark and end up to ``episodes`` episodes, learning from each step.

        Args:
            table: `SampledTable`.
            algorithm: an algorithm's tuple over a core with `RememberedValues` and the words of its stream.
            environment: the four words of the environment's stream.
            progress: `Progress`.
            records: `Records`.
            marks: `Marks`; what is measured begins anew after each that is kept.
            episodes: episodes to end at most.
        """
        core, clock, tally = algorithm.core, progress.clock, progress.tally
        time, episode, length = clock[STEPS], clock[EPISODES], clock[LENGTH]
        state, pending = clock[STATE], clock[PENDING]
        episode_return, return_sum, error_sum = tally[RETURN], tally[RETURN_SUM], tally[ERROR_SUM]
        last_episode = episode + episodes
        for s in range(core.q.best.shape[0]):
            refresh(core.q, s)
        for mark in range(marks.steps.shape[0]):
            last_time = time + marks.steps[mark]
            while time < last_time and episode < last_episode:
                if state < 0:
                    state = first_state(table, environment)
                    pending, length, episode_return = -1, 0, 0.0
                action = pending
                if not looks_ahead(algorithm) or action < 0:
                    action = choose(core, state, time)
                if length == 0 and episode < len(records.first_actions):
                    records.first_actions[episode] = action
                progress.seen[at(state)] = True
                place = at(sample_outcome(table, state, action, environment))
                next_state = int(table.next_state[place])
                reward = table.reward[place]
                terminated = table.terminated[place]
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
            clock[STEPS], clock[EPISODES], clock[LENGTH] = time, episode, length
            clock[STATE], clock[PENDING] = state, pending
            tally[RETURN], tally[RETURN_SUM], tally[ERROR_SUM] = episode_return, return_sum, error_sum
            if mark < marks.q.shape[0]:
                keep(marks, mark, progress, core.q.weights)
                forget(progress)
                return_sum, error_sum = tally[RETURN_SUM], tally[ERROR_SUM]


def compiled_form(algorithm: Any) -> Any:
    """Return ``algorithm`` over the same arrays, as `train` takes it.

    Its random stream is a copy: put ``core.rng`` of the result back into the original after training.
    """
    register_rules()
    core = algorithm.core
    n_states = core.q.shape[0]
    q = RememberedValues(core.q, np.zeros(n_states), np.zeros(n_states, dtype=np.int64), np.zeros(n_states))
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
        self._environment = generator_state(rng)
        self._records = no_records(0)
        self._size = (mdp.n_states, mdp.n_actions)
        self._form: Any = None

    def run(self, progress: Progress, steps: Sequence[int]) -> Iterator[tuple[Progress, NDArray[np.float64]]]:
        """Take each number of ``steps`` in turn, in one call; then yield what was measured and known after each."""
        self._form = self._form or compiled_form(self._algorithm)
        marks = marks_after(steps, self._size, keep=True)
        train(self._table, self._form, self._environment, progress, self._records, marks, FOREVER)
        for mark, q in enumerate(marks.q):
            yield Progress(*(kept[mark] for kept in marks.progress)), q

    def position(self) -> dict[str, Any]:
        """Return the environment's random stream, the rest is in `Progress`; put the algorithm's stream back."""
        if self._form is not None:
            set_generator_state(self._algorithm.core.rng, self._form.core.rng)
        return {"environment": self._environment.copy()}

    def restore(self, position: dict[str, Any]) -> None:
        """Put the environment's stream back."""
        self._environment = np.array(position["environment"], dtype=np.uint64)
        self._form = None


def _check_compilable(settings: TabularSettings, agent: Any) -> None:
    if not getattr(agent, "compiled", False):
        raise UserError(f"train_many needs an algorithm with a compiled form; {settings.kind} has none, use make_agent")
    if settings.execution == "plain" or settings.features.kind not in ("auto", "index"):
        raise UserError(
            f"train_many trains compiled, on a table; execution `{settings.execution}` with features "
            f"`{settings.features.kind}` needs make_agent"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What `train_many` returns; the first axis is that of the pairs.

    Attributes:
        q: action values, shape (n_pairs, S, A).
        steps: environment steps taken, shape (n_pairs,).
        episodes: episodes ended, shape (n_pairs,).
        returns: undiscounted return of each recorded episode, shape (n_pairs, record_episodes), NaN where it did
            not end.
        lengths: its steps, 0 where it did not end.
        first_actions: its first action, -1 where it did not begin.
    """

    q: NDArray[np.float64]
    steps: NDArray[np.int64]
    episodes: NDArray[np.int64]
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    first_actions: NDArray[np.int64]


def train_many(
    mdp: TabularMDP,
    pairs: Sequence[tuple[TabularSettings, int]],
    *,
    steps: int,
    episodes: int | None = None,
    record_episodes: int = 0,
    n_threads: int | None = None,
) -> Trained:
    """Train many (settings, seed) pairs on one table, spread over the processor's cores.

    Each pair draws from the streams its agent would draw from, so its Q-table is that of
    ``make_agent(settings, ..., seed=seed, budget_steps=steps)`` after as many steps, whatever the threads.

    Args:
        mdp: the table.
        pairs: settings and seeds; the settings may differ in all, their kinds included.
        steps: environment steps of each pair, at most; schedules stretch over them.
        episodes: episodes each pair ends, at most; default: no bound.
        record_episodes: how many episodes of each pair to record, from the first.
        n_threads: default: as many as there are cores.

    Raises:
        UserError: a pair's algorithm has no compiled form, or its settings ask for features or `plain`.

    >>> from policylab.agents.tabular.q_learning import QLearningSettings
    >>> mdp = TabularMDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 0, 0.0, True)]}}, [1.0])
    >>> trained = train_many(mdp, [(QLearningSettings(discount=0.5), seed) for seed in range(3)], steps=5000)
    >>> trained.q[:, 0, 0].round(3).tolist()
    [2.0, 2.0, 2.0]
    """
    size = Size(mdp.n_states, mdp.n_actions, 1, mdp.max_episode_steps or steps)
    kinds = {settings.kind: AGENTS.load(settings.kind) for settings, _ in pairs}
    for settings, _ in pairs:
        _check_compilable(settings, kinds[settings.kind])
    records = no_records(len(pairs), record_episodes)
    progress = [begin(size.n_features) for _ in pairs]
    q = np.empty((len(pairs), size.n_features, size.n_actions))
    table, limit = sampled_table(mdp), FOREVER if episodes is None else episodes

    def train_one(place: int, steps_now: int = steps) -> None:
        marks = marks_after([steps_now], q.shape[1:])
        settings, seed = pairs[place]
        core = make_core(settings, size, budget_steps=steps, rng=generator(seed, "agent"))
        form = compiled_form(kinds[settings.kind].algorithm(settings, core, size=size))
        environment = generator_state(generator(seed, "environment"))
        train(table, form, environment, progress[place], Records(*(kept[place] for kept in records)), marks, limit)
        q[place] = core.q

    for place in {settings.kind: place for place, (settings, _) in enumerate(pairs)}.values():
        train_one(place, 0)  # compiles, if need be, before there are threads to wait for it
    with ThreadPoolExecutor(n_threads or os.cpu_count()) as threads:
        for _ in threads.map(train_one, range(len(pairs))):
            pass
    clocks = np.array([one.clock[[STEPS, EPISODES]] for one in progress], dtype=np.int64).reshape(-1, 2)
    return Trained(q, clocks[:, 0], clocks[:, 1], *records)
