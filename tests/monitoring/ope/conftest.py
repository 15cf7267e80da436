"""Every trajectory of a small process, with its probability: the exact expectation of any estimator."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from policylab.envs import TabularMDP, evaluate_policy
from policylab.envs.planning_evaluation import start_value
from policylab.monitoring.ope import Choices, Log, Target

Floats = NDArray[np.float64]
Step = tuple[int, int, float, int, bool]  # state, action, reward, next state, terminated


def random_mdp(seed: int, *, n_states: int = 3, n_actions: int = 2, n_outcomes: int = 2) -> TabularMDP:
    rng = np.random.default_rng(seed)
    P = {
        s: {
            a: [
                (float(p), int(rng.integers(n_states)), float(rng.normal()), bool(rng.random() < 0.15))
                for p in rng.dirichlet(np.ones(n_outcomes))
            ]
            for a in range(n_actions)
        }
        for s in range(n_states)
    }
    return TabularMDP.from_outcomes(P, rng.dirichlet(np.ones(n_states)))


def random_policy(seed: int, *, n_states: int = 3, n_actions: int = 2) -> Floats:
    return np.random.default_rng(seed).dirichlet(np.ones(n_actions), size=n_states)


def trajectories(mdp: TabularMDP, policy: Floats, *, horizon: int) -> tuple[list[list[Step]], Floats]:
    """Return every episode of positive probability under ``policy``, and its probability."""
    found: list[list[Step]] = []
    probabilities: list[float] = []

    def extend(steps: list[Step], state: int, probability: float) -> None:
        if steps and (steps[-1][4] or len(steps) == horizon):
            found.append(steps)
            probabilities.append(probability)
            return
        for action in np.flatnonzero(policy[state]):
            for k in np.flatnonzero(mdp.probability[state, action]):
                cell = (state, action, k)
                after, over = int(mdp.next_state[cell]), bool(mdp.terminated[cell])
                step = (state, int(action), float(mdp.reward[cell]), after, over)
                p = probability * policy[state, action] * mdp.probability[cell]
                extend([*steps, step], after, float(p))

    for state in np.flatnonzero(mdp.initial_distribution):
        extend([], int(state), float(mdp.initial_distribution[state]))
    return found, np.array(probabilities)


def log_of(episodes: list[list[Step]], behaviour: Floats) -> Log:
    """Return the episodes as a log of the behaviour policy, shape (S, A)."""
    steps = [step for episode in episodes for step in episode]
    state, action, reward, after, terminated = (np.array(column) for column in zip(*steps, strict=True))
    starts = np.concatenate([[0], np.cumsum([len(episode) for episode in episodes])])
    last = np.zeros(len(steps), dtype=bool)
    last[starts[1:] - 1] = True
    return Log(
        observation=state, action=action, reward=reward, next_observation=after, terminated=terminated,
        truncated=last & ~terminated, log_propensity=np.log(behaviour[state, action]), starts=starts,
    )  # fmt: skip


def target_of(log: Log, policy: Floats) -> Target:
    """Return what a policy of shape (S, A) would do on the log."""
    return Target.of_choices(Choices(log.action, here=policy[log.observation], after=policy[log.next_observation]))


def true_value(mdp: TabularMDP, policy: Floats, *, discount: float, horizon: int) -> float:
    return start_value(mdp, evaluate_policy(mdp, policy, discount=discount, horizon=horizon))


@pytest.fixture(scope="session")
def exact() -> SimpleNamespace:
    """The functions of this module, for the tests beside it."""
    return SimpleNamespace(
        log_of=log_of, random_mdp=random_mdp, random_policy=random_policy, target_of=target_of,
        trajectories=trajectories, true_value=true_value,
    )  # fmt: skip
