"""Monte Carlo control (Sutton & Barto 2018, sections 5.4 and 5.7)."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from policylab.agents.exploration import EpsilonGreedy, ExplorationSettings, choice_probability, counts_choices
from policylab.agents.schedules import Constant, InverseVisits
from policylab.agents.settings import LearningRate, TabularSettings
from policylab.agents.tabular.agent import TabularAgent
from policylab.agents.tabular.core import Core, Size, Step
from policylab.agents.tabular.episode import Episode, extend, make_episode
from policylab.agents.tabular.rules import move
from policylab.agents.tabular.values import Values, action_values, assign, maximum, value


class MonteCarloSettings(TabularSettings):
    """Settings of `MonteCarlo`."""

    kind: Literal["monte_carlo"] = "monte_carlo"
    learning_rate: LearningRate = Field(
        default=InverseVisits(), description="step size α; inverse_visits averages the returns, as in S&B, section 5.4"
    )


class MonteCarloAlgorithm(NamedTuple):
    """Q(s, a) moves towards the return that followed the first visit of (s, a) in each episode.

    `first`, shape (n_states, n_actions), is the place of that visit in the episode under way, -1 before it. A
    truncated episode's return continues with Q of the state and action it was cut off at.
    """

    core: Core
    episode: Episode
    first: NDArray[np.int64]

    def looks_ahead(self) -> bool:
        """The target needs the action taken next."""
        return True

    def update(self, step: Step) -> float:
        """Store one step; after the last, learn from all. Return the sum of |δ|."""
        core, episode, first = self.core, self.episode, self.first
        place = extend(episode, step)
        if first[step.state, step.action] < 0:
            first[step.state, step.action] = place
        if not (step.terminated or step.truncated):
            return 0.0
        outcome, error = 0.0, 0.0
        if not step.terminated:
            outcome = value(core.q, step.next_state, step.next_action)
        for back in range(place + 1):
            t = place - back
            state, action = int(episode.states[t]), int(episode.actions[t])
            outcome = episode.rewards[t] + core.discount * outcome
            if first[state, action] == t:
                first[state, action] = -1
                error += move(core, state, action, outcome, step.time)
        episode.length[0] = 0
        return error


class MonteCarlo(TabularAgent):
    """On-policy first-visit Monte Carlo control for soft policies."""

    Settings = MonteCarloSettings
    linear = False

    @staticmethod
    def algorithm(settings: MonteCarloSettings, core: Core, *, size: Size) -> MonteCarloAlgorithm:
        """Return the algorithm over ``core``."""
        return MonteCarloAlgorithm(core, make_episode(size), size.table(-1, np.int64))


class OffPolicyMonteCarloSettings(TabularSettings):
    """Settings of `OffPolicyMonteCarlo`; the weights set the step size, `learning_rate` is not used."""

    kind: Literal["off_policy_monte_carlo"] = "off_policy_monte_carlo"
    learning_rate: LearningRate = Field(default=Constant(value=1.0), description="not used: leave it out")
    exploration: ExplorationSettings = Field(
        default=EpsilonGreedy(), description="the behaviour policy: epsilon_greedy or softmax, not by visits"
    )

    @model_validator(mode="after")
    def _behaviour_is_known(self) -> Self:
        if self.exploration.kind == "greedy" or counts_choices(self.exploration):
            raise ValueError(
                "off_policy_monte_carlo needs an exploration whose probabilities are known and not 0; "
                "use epsilon_greedy or softmax with a constant, linear or exponential parameter"
            )
        if self.learning_rate != Constant(value=1.0):
            raise ValueError(
                "off_policy_monte_carlo takes its step size from importance weights; leave learning_rate out"
            )
        return self


class OffPolicyMonteCarloAlgorithm(NamedTuple):
    """Weighted importance sampling towards the greedy policy, first index among ties.

    `weights`, shape (n_states, n_actions), is C(s, a), the sum of the weights of its returns; `probabilities`
    holds b(A_t given S_t) of the episode under way. A truncated return continues with max Q of its last state.
    """

    core: Core
    episode: Episode
    probabilities: NDArray[np.float64]
    weights: Values

    def looks_ahead(self) -> bool:
        """The target does not need the action taken next."""
        return False

    def update(self, step: Step) -> float:
        """Store one step; after the last, learn from the greedy tail. Return the sum of |δ|."""
        core, episode = self.core, self.episode
        place = extend(episode, step)
        self.probabilities[place] = choice_probability(core, step.state, step.action, step.time)
        if not (step.terminated or step.truncated):
            return 0.0
        outcome, weight, error, t = 0.0, 1.0, 0.0, place
        if not step.terminated:
            outcome = maximum(core.q, step.next_state)
        while t >= 0:
            state, action = int(episode.states[t]), int(episode.actions[t])
            outcome = episode.rewards[t] + core.discount * outcome
            self.weights[state, action] += weight
            delta = outcome - value(core.q, state, action)
            assign(core.q, state, action, value(core.q, state, action) + weight / self.weights[state, action] * delta)
            error += abs(delta)
            row, greedy_action = action_values(core.q, state), 0
            while row[greedy_action] != maximum(core.q, state):
                greedy_action += 1
            weight /= self.probabilities[t]
            t = t - 1 if action == greedy_action else -1
        episode.length[0] = 0
        return error


class OffPolicyMonteCarlo(TabularAgent):
    """Off-policy Monte Carlo control by weighted importance sampling."""

    Settings = OffPolicyMonteCarloSettings
    linear = False

    @staticmethod
    def algorithm(settings: OffPolicyMonteCarloSettings, core: Core, *, size: Size) -> OffPolicyMonteCarloAlgorithm:
        """Return the algorithm over ``core``."""
        return OffPolicyMonteCarloAlgorithm(core, make_episode(size), np.zeros(size.max_episode_steps), size.table(0.0))
