"""The k-armed bandit testbed, stationary and drifting."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.envs.drawing import draw_grid, value_colours
from policylab.errors import EnvironmentRuleError


class BanditEnv(gym.Env[int, int]):
    """Pull one of k arms of unknown mean reward; every reset deals a new problem.

    - State: one, observed as 0.
    - Actions: the arms, 0 to ``k - 1``.
    - Rewards: drawn from N(q(a), ``reward_std``), where q(a) is the arm's mean at that moment.
    - Dynamics: at reset each q(a) is drawn from N(``mean``, 1). After every pull each q(a) moves by its own
      draw from N(0, ``drift``); with drift 0 the problem is stationary and nothing more is drawn.
    - Episodes never terminate: the time limit is the number of pulls.

    ``info`` carries what an experimenter plots and a learner must not use: ``optimal_action`` (the best arm,
    of this pull in `step`, of the first pull in `reset`), and in `step` also ``optimal`` (whether it was pulled)
    and ``mean_reward`` (q of the pulled arm).

    There is no table ``P``: the rewards are not finite and the problem changes with each reset.

    Args:
        k: number of arms, >= 1.
        mean: mean of the arms' means; 4 in the experiment of Figure 2.5.
        drift: standard deviation of each arm's step per pull, >= 0; 0.01 in Exercise 2.5.
        reward_std: standard deviation of a reward round its arm's mean, >= 0.
        render_mode: None, ``"ansi"`` or ``"rgb_array"``.

    Raises:
        EnvironmentRuleError: an argument is out of its range.

    Source: Sutton & Barto, 2nd edition, section 2.3 (the ten-armed testbed).

    >>> env = BanditEnv(k=3, reward_std=0.0)
    >>> _, info = env.reset(seed=1)
    >>> _, reward, terminated, _, info = env.step(info["optimal_action"])
    >>> reward == float(env.q.max()), terminated, info["optimal"]
    (True, False, True)
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # type: ignore[misc]

    def __init__(
        self,
        *,
        k: int = 10,
        mean: float = 0.0,
        drift: float = 0.0,
        reward_std: float = 1.0,
        render_mode: str | None = None,
    ) -> None:
        if k < 1:
            raise EnvironmentRuleError(f"k must be >= 1, got {k} (BanditEnv)")
        for name, value in (("drift", drift), ("reward_std", reward_std)):
            if not value >= 0.0:
                raise EnvironmentRuleError(f"{name} must be >= 0, got {value} (BanditEnv)")
        self.k = k
        self.mean = mean
        self.drift = drift
        self.reward_std = reward_std
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Discrete(1)
        self.action_space = gym.spaces.Discrete(k)
        self.q: NDArray[np.float64] = np.full(k, mean)
        self.last_action: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Deal a new problem: draw the mean reward of every arm."""
        super().reset(seed=seed)
        self.q = self.np_random.normal(self.mean, 1.0, self.k)
        self.last_action = None
        return 0, {"optimal_action": int(self.q.argmax())}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Pull arm ``action``.

        Raises:
            EnvironmentRuleError: there is no such arm.
        """
        if not self.action_space.contains(action):
            raise EnvironmentRuleError(f"action must be an arm 0 to {self.k - 1}, got {action!r} (BanditEnv)")
        best = int(self.q.argmax())
        info = {"optimal": int(action) == best, "optimal_action": best, "mean_reward": float(self.q[action])}
        reward = float(self.np_random.normal(self.q[action], self.reward_std))
        if self.drift > 0.0:
            self.q = self.q + self.np_random.normal(0.0, self.drift, self.k)
        self.last_action = int(action)
        return 0, reward, False, False, info

    def render(self) -> Any:
        """Return the arms: text for ``ansi``, an image for ``rgb_array``."""
        if self.render_mode == "ansi":
            return self.render_ansi()
        if self.render_mode == "rgb_array":
            return self.render_rgb()
        return None

    def render_ansi(self) -> str:
        """Return one line per arm: its mean reward, ``*`` the best arm, ``<`` the arm pulled last."""
        best = int(self.q.argmax())
        return "".join(
            f"arm {arm}: {mean:+.3f}{' *' if arm == best else ''}{' <' if arm == self.last_action else ''}\n"
            for arm, mean in enumerate(self.q)
        )

    def render_rgb(self) -> NDArray[np.uint8]:
        """Return the arms as a row of cells coloured by their means, shape (97, 48 * k + 1, 3).

        In the row below, a flag marks the best arm and the disc the arm pulled last.
        """
        figures = [("flag", (1, int(self.q.argmax())))]
        if self.last_action is not None:
            figures.append(("agent", (1, self.last_action)))
        labels = {(0, arm): f"{mean:+.1f}" for arm, mean in enumerate(self.q)}
        blank = np.full((1, self.k, 3), (205, 214, 226), dtype=np.uint8)
        cells = np.concatenate([value_colours(self.q[None, :]), blank])
        return draw_grid(cells, figures=figures, labels=labels)
