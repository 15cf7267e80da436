"""Temporal-difference learning on the problems of Sutton & Barto, chapters 6 and 7, with policylab's own agents."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from policylab.agents.registry import AGENTS
from policylab.experiments.verify.exact import BOOK, DYNAMIC_PROGRAMMING, optimal_values, table
from policylab.experiments.verify.rows import Check, Estimate
from policylab.seeding import run_seed

if TYPE_CHECKING:
    from policylab.agents.tabular.compiled import Trained

CLIFF = "CliffWalking-v1"
WINDY = "policylab/WindyGridworld-v0"
RANDOM_WALK = "policylab/RandomWalk-v0"
EPSILON = 0.1
ENOUGH_STEPS = 100_000_000
"""More steps than any of these runs takes before its last episode ends."""
SECOND = "second implementation (benchmarks/second_implementation.py)"
FIGURE_6_3 = f"{BOOK}, Figure 6.3, p. 133"
NAMES = {"sarsa": "SARSA", "q_learning": "Q-learning", "expected_sarsa": "Expected SARSA"}


def train(env_id: str, agent: dict[str, Any], *, n_runs: int, steps: int = ENOUGH_STEPS, **bounds: int) -> Trained:
    """Train undiscounted ε-greedy agents on an environment without its time limit, which the book has not."""
    from policylab.agents.tabular.compiled import train_many  # Numba is slow to import

    exploration = {"kind": "epsilon_greedy", "epsilon": EPSILON}
    settings = AGENTS.load(agent["kind"]).Settings.model_validate(
        {"discount": 1.0, "exploration": exploration, **agent}
    )
    pairs = [(settings, run_seed(0, role="verify", index=run)) for run in range(n_runs)]
    mdp = dataclasses.replace(table(env_id), max_episode_steps=None)
    return train_many(mdp, pairs, steps=steps, **bounds)


def cliff_returns(kind: str, learning_rate: float, *, skip: int, n_episodes: int, n_runs: int) -> Estimate:
    """Return the mean return of ``n_episodes`` episodes of CliffWalking after the first ``skip``."""
    last = skip + n_episodes
    agent = {"kind": kind, "learning_rate": learning_rate}
    returns = train(CLIFF, agent, n_runs=n_runs, episodes=last, record_episodes=last).returns
    return Estimate.of(returns[:, skip:].mean(axis=1))


def walk_error(n: int, learning_rate: float) -> Estimate:
    """Return the root mean square error of n-step TD on the 19-state walk, mean over its first ten episodes."""
    true = optimal_values(table(RANDOM_WALK))[1:-1]  # with one action the optimal policy is the only one
    agent = {"kind": "n_step_sarsa", "n": n, "learning_rate": learning_rate}
    errors = []
    for episodes in range(1, 11):  # the same runs, each time one episode longer
        values = train(RANDOM_WALK, agent, n_runs=500, episodes=episodes).q[:, 1:-1, 0]
        errors.append(np.sqrt(np.mean((values - true) ** 2, axis=1)))
    return Estimate.of(np.mean(errors, axis=0))


def windy_episodes() -> Estimate:
    """Return the number of episodes SARSA ends within 8,000 steps of the windy gridworld."""
    return Estimate.of(train(WINDY, {"kind": "sarsa", "learning_rate": 0.5}, n_runs=500, steps=8000).episodes)


def _cliff_check(
    when: str, learner: tuple[str, float], *, published: tuple[str, float], source: str, **size: int
) -> Check:
    """Return the check of one learner, (kind, learning rate), against (number, standard error)."""
    kind, learning_rate = learner
    return Check(
        name=f"Cliff, {when}: {NAMES[kind]}, α {learning_rate}",
        published=published[0],
        published_error=published[1],
        source=source,
        measure=functools.partial(cliff_returns, kind, learning_rate, **size),
    )


def _figure_6_4() -> Iterator[Check]:
    for kind, published, figure in (
        ("sarsa", ("-26.95", 0.105), ", about -25 in the figure"),
        ("q_learning", ("-50.20", 0.11), ", about -50 in the figure"),
        ("expected_sarsa", ("-20.89", 0.032), ""),
    ):
        source = f"{BOOK}, Example 6.6, p. 132{figure}; {SECOND}, 4,000 runs"
        size = {"skip": 400, "n_episodes": 100, "n_runs": 500}
        yield _cliff_check("episodes 401 to 500", (kind, 0.5), published=published, source=source, **size)


def _figure_6_3() -> Iterator[Check]:
    source = f"{FIGURE_6_3}, interim; {SECOND}, 20,000 runs"
    size = {"skip": 0, "n_episodes": 100, "n_runs": 500}
    for learner, published in (
        (("sarsa", 0.5), ("-71.34", 0.046)),
        (("q_learning", 0.5), ("-80.56", 0.049)),
        (("expected_sarsa", 0.5), ("-56.22", 0.023)),
        (("sarsa", 0.9), ("-68.80", 0.066)),
        (("q_learning", 0.9), ("-73.24", 0.050)),
        (("expected_sarsa", 0.9), ("-45.47", 0.020)),
    ):
        yield _cliff_check("first 100 episodes", learner, published=published, source=source, **size)
    simulated = f"{FIGURE_6_3}, asymptotic; {SECOND}, 600 runs"
    exact = f"{DYNAMIC_PROGRAMMING}, the best ε-soft policy; {FIGURE_6_3}, asymptotic"
    size = {"skip": 2500, "n_episodes": 2500, "n_runs": 50}
    for learner, published, source in (
        (("sarsa", 0.1), ("-21.31", 0.021), simulated),
        (("q_learning", 0.1), ("-50.28", 0.058), simulated),
        (("expected_sarsa", 0.1), ("-20.708", 0.0), exact),
        (("sarsa", 0.9), ("-84.86", 0.25), simulated),
        (("q_learning", 0.9), ("-50.73", 0.057), simulated),
        (("expected_sarsa", 0.9), ("-20.708", 0.0), exact),
    ):
        yield _cliff_check("asymptotic", learner, published=published, source=source, **size)


CHECKS: tuple[Check, ...] = (
    *_figure_6_4(),
    *_figure_6_3(),
    Check(
        name="Windy gridworld: episodes of SARSA in 8,000 steps",
        published="160.54",
        published_error=0.07,
        source=f"{BOOK}, Example 6.5, p. 130; {SECOND}, 20,000 runs",
        measure=windy_episodes,
    ),
    *(
        Check(
            name=f"Random walk, 19 states: error of {n}-step TD, α {learning_rate}",
            published=published,
            published_error=error,
            source=f"{BOOK}, Example 7.1, Figure 7.2, p. 145; {SECOND}, 1,000 runs",
            measure=functools.partial(walk_error, n, learning_rate),
        )
        for n, learning_rate, published, error in ((1, 0.8, "0.3448", 0.0006), (4, 0.4, "0.2634", 0.0015))
    ),
)
"""Examples 6.5, 6.6 and 7.1; Figures 6.3, 6.4 and 7.2."""
