"""Whether a table tells the truth about its environment, by simulation."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import gymnasium as gym
import numpy as np
import scipy.special
from numpy.typing import NDArray

from policylab.envs.enumeration import model_of, name_of
from policylab.envs.table import TabularMDP
from policylab.envs.textbook.blackjack import BlackjackModel
from policylab.errors import EnvironmentRuleError

SIGNIFICANCE = 1e-6
"""Chance that the frequencies of a true table are rejected."""
MIN_EXPECTED = 5.0
"""Smallest expected count for which Pearson's statistic is close to chi-square (Cochran 1954)."""
REWARD_TOLERANCE = 1e-9

Event = tuple[int, float, bool]
"""(next state, reward, terminated)."""


def check_table(env: gym.Env[Any, Any], mdp: TabularMDP, *, n_steps: int, rng: np.random.Generator) -> None:
    """Compare ``mdp`` with ``n_steps`` random steps of ``env``.

    Every sampled transition and first state must be one of the table's, and the frequencies must pass
    Pearson's chi-square test at `SIGNIFICANCE`.

    Args:
        env: the environment the table belongs to.
        mdp: its table.
        n_steps: steps to take with uniformly random actions.
        rng: draws the actions and the environment's seed.

    Raises:
        EnvironmentRuleError: the table is contradicted; the message names state, action and outcome.
    """
    expected = _ExpectedEvents(mdp)
    transitions, starts = _sample(env, mdp, expected=expected, n_steps=n_steps, rng=rng)
    chi_square = freedom = 0.0
    for (state, action), counts in transitions.items():
        statistic, extra = _pearson(expected.of(state, action), counts)
        chi_square, freedom = chi_square + statistic, freedom + extra
    first = {(int(s), 0.0, False): float(mdp.initial_distribution[s]) for s in np.flatnonzero(mdp.initial_distribution)}
    statistic, extra = _pearson(first, starts)
    chi_square, freedom = chi_square + statistic, freedom + extra
    if freedom and scipy.special.gammaincc(freedom / 2, chi_square / 2) < SIGNIFICANCE:
        raise EnvironmentRuleError(
            f"the table of {name_of(env)} is false: its probabilities do not fit {n_steps} simulated steps "
            f"(chi-square {chi_square:.0f} with {freedom:.0f} degrees of freedom); correct the environment's P"
        )


@dataclasses.dataclass(slots=True)
class _ExpectedEvents:
    """Outcomes of the table as events, equal ones added up; made when asked for."""

    mdp: TabularMDP
    known: dict[tuple[int, int], dict[Event, float]] = dataclasses.field(default_factory=dict)

    def of(self, state: int, action: int) -> dict[Event, float]:
        """Return event -> probability."""
        if (state, action) not in self.known:
            events: dict[Event, float] = {}
            for k in np.flatnonzero(self.mdp.probability[state, action]):
                cell = (state, action, k)
                event = (int(self.mdp.next_state[cell]), float(self.mdp.reward[cell]), bool(self.mdp.terminated[cell]))
                events[event] = events.get(event, 0.0) + float(self.mdp.probability[cell])
            self.known[state, action] = events
        return self.known[state, action]

    def match(self, state: int, action: int, *, seen: Event) -> Event | None:
        """Return the event of the table that equals ``seen`` up to rounding of the reward."""
        events = self.of(state, action)
        if seen in events:
            return seen
        for event in events:
            if event[0] == seen[0] and event[2] == seen[2] and abs(event[1] - seen[1]) <= REWARD_TOLERANCE:
                return event
        return None


def _sample(
    env: gym.Env[Any, Any], mdp: TabularMDP, *, expected: _ExpectedEvents, n_steps: int, rng: np.random.Generator
) -> tuple[dict[tuple[int, int], Counter[Event]], Counter[Event]]:
    transitions: dict[tuple[int, int], Counter[Event]] = {}
    starts: Counter[Event] = Counter()
    env.reset(seed=int(rng.integers(2**31)))
    state, ended = -1, True
    for action in rng.integers(mdp.n_actions, size=n_steps).tolist():
        if ended:
            state = _state(env, env.reset()[0])
            starts[(state, 0.0, False)] += 1
            if not mdp.initial_distribution[state] > 0:
                raise EnvironmentRuleError(
                    f"the table of {name_of(env)} is false: an episode started in state {state}, which its initial "
                    "distribution excludes; correct initial_state_distrib"
                )
        observation, reward, terminated, truncated, _ = env.step(action)
        seen = (_state(env, observation), float(reward), bool(terminated))
        event = expected.match(state, action, seen=seen)
        if event is None:
            raise EnvironmentRuleError(
                f"the table of {name_of(env)} is false: action {action} in state {state} led to (next state, reward, "
                f"terminated) = {seen}, which P[{state}][{action}] excludes; correct the environment's P"
            )
        transitions.setdefault((state, action), Counter())[event] += 1
        state, ended = seen[0], terminated or truncated
    return transitions, starts


def _state(env: gym.Env[Any, Any], observation: Any) -> int:
    """Return the table's number of the state the environment is in."""
    model = model_of(env)
    return model.state_index(env.unwrapped) if isinstance(model, BlackjackModel) else int(observation)


def _pearson(expected: dict[Event, float], counts: Counter[Event]) -> tuple[float, int]:
    """Return Pearson's statistic and its degrees of freedom, over the events expected often enough."""
    total = counts.total()
    often: NDArray[np.float64] = np.array([p * total for p in expected.values()])
    seen: NDArray[np.float64] = np.array([float(counts[event]) for event in expected])
    common = often >= MIN_EXPECTED
    if common.sum() == 0 or len(expected) < 2:
        return 0.0, 0
    if not common.all():  # the rare events count together, where that is often enough
        rest = often[~common].sum()
        often, seen = np.append(often[common], rest), np.append(seen[common], seen[~common].sum())
        if rest < MIN_EXPECTED:
            often, seen = often[:-1], seen[:-1]
            return float(((seen - often) ** 2 / often).sum()), len(often)
    return float(((seen - often) ** 2 / often).sum()), len(often) - 1
