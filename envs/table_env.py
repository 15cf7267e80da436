"""`TableEnv`: a Gymnasium environment defined by its own exact transition table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.utils import categorical_sample
from numpy.typing import NDArray

from policylab.envs.table import Outcome
from policylab.errors import EnvironmentRuleError


def merged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Add up the probabilities of equal outcomes, in order of first appearance.

    >>> merged([(0.25, 3, -1.0, False), (0.5, 4, -1.0, False), (0.25, 3, -1.0, False)])
    [(0.5, 3, -1.0, False), (0.5, 4, -1.0, False)]
    """
    total: dict[tuple[int, float, bool], float] = {}
    for probability, next_state, reward, terminated in outcomes:
        key = (next_state, reward, terminated)
        total[key] = total.get(key, 0.0) + probability
    return [(probability, *key) for key, probability in total.items() if probability > 0.0]


def no_such_action(action: Any, *, n_actions: int) -> EnvironmentRuleError:
    """Return the error for an action outside 0 .. n_actions - 1."""
    return EnvironmentRuleError(f"an action must be a whole number from 0 to {n_actions - 1}, got {action!r}")


class TableEnv(gym.Env[Any, int]):
    """Steps through ``P`` exactly as Gymnasium's toy-text environments do.

    A subclass computes ``P`` and ``initial_state_distrib`` in its constructor and passes them on; it may
    override `observe` (and then ``observation_space``), `render_ansi` and `render_rgb`. One uniform number is drawn
    per reset and per step.

    Attributes:
        P: ``P[s][a]`` is a list of (probability, next state, reward, terminated).
        initial_state_distrib: shape (S,).
        s: the current state; assign it to put the environment into a state.
        stationary: False if ``P`` changes while the environment lives, so that no one table is its model.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # type: ignore[misc]
    stationary: ClassVar[bool] = True

    def __init__(
        self,
        P: Mapping[int, Mapping[int, list[Outcome]]],
        initial_state_distrib: NDArray[np.float64],
        *,
        render_mode: str | None = None,
    ) -> None:
        self.P = P
        self.initial_state_distrib = initial_state_distrib
        self.observation_space = gym.spaces.Discrete(len(P))
        self.action_space = gym.spaces.Discrete(len(P[0]))
        self.render_mode = render_mode
        self.s = 0
        self.last_action: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in a state drawn from ``initial_state_distrib``."""
        super().reset(seed=seed)
        self.s = int(categorical_sample(self.initial_state_distrib, self.np_random))
        self.last_action = None
        return self.observe(self.s), {"prob": float(self.initial_state_distrib[self.s])}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take ``action`` and draw one outcome of ``P[s][action]``.

        Raises:
            EnvironmentRuleError: the environment has no such action.
        """
        try:
            outcomes = self.P[self.s][int(action)]
        except KeyError:
            raise no_such_action(action, n_actions=len(self.P[0])) from None
        chosen = categorical_sample([outcome[0] for outcome in outcomes], self.np_random)
        probability, self.s, reward, terminated = outcomes[chosen]
        self.last_action = int(action)
        return self.observe(self.s), float(reward), bool(terminated), False, {"prob": probability}

    def observe(self, state: int) -> Any:
        """Return what an agent sees of ``state``: the state itself, unless a subclass shows it otherwise."""
        return state

    def snapshot(self) -> dict[str, int | None]:
        """What a checkpoint keeps of the environment besides its random stream: JSON-able."""
        return {"s": self.s, "last_action": self.last_action}

    def restore(self, snapshot: Mapping[str, int | None]) -> None:
        """Continue from what `snapshot` returned."""
        for name, value in snapshot.items():
            setattr(self, name, value)

    def render(self) -> Any:
        """Return the picture of the current state: text for ``ansi``, an image for ``rgb_array``."""
        if self.render_mode == "ansi":
            return self.render_ansi()
        if self.render_mode == "rgb_array":
            return self.render_rgb()
        return None

    def render_ansi(self) -> str:
        """Return the current state as text."""
        return f"state {self.s}\n"

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the current state as an image, shape (height, width, 3)."""
        raise NotImplementedError(f"{type(self).__name__} draws no image")
