"""An environment whose steps take a given time and do nothing else: trials of a known length for `ray_scaling`."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np


class Sleeping(gymnasium.Env[np.int64, np.int64]):
    """One state, one action; each step takes ``seconds``, asleep or, if ``busy``, of processor time; ends after one."""

    def __init__(self, *, seconds: float, busy: bool = False, render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Discrete(1)
        self.action_space = gymnasium.spaces.Discrete(1)
        self.render_mode = render_mode
        self._seconds = seconds
        self._busy = busy

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        super().reset(seed=seed)
        return np.int64(0), {}

    def step(self, action: np.int64) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        if self._busy:
            until = time.process_time() + self._seconds
            while time.process_time() < until:
                pass
        else:
            time.sleep(self._seconds)
        return np.int64(0), 1.0, True, False, {}


gymnasium.register("policylab-benchmarks/Sleeping-v0", Sleeping, disable_env_checker=True)
