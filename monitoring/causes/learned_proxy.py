"""A learned reward as the proxy of the reported one: pairs of returns, episode by episode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from policylab.agents.bundle import Bundle
from policylab.envs.learned_reward import part_of
from policylab.envs.reward_model import RewardModel
from policylab.errors import UserError
from policylab.monitoring.outcomes.joined import OutcomeQuery, read_outcomes

Floats = NDArray[np.float64]


def return_pairs(
    path: Path, model: RewardModel, *, bundle: Bundle, missing_reward: float | None = None
) -> tuple[Floats, Floats]:
    """Return the learned and the reported return of each episode whose rewards are all there, shapes (E,).

    Args:
        path: a folder of captured traffic, or a recording.
        model: of the reward, the proxy.
        bundle: a policy of the task.
        missing_reward: what a captured decision earned for which no reward was reported; None leaves its episode out.

    Raises:
        UserError: the model is of another task, or reads observations after the ends of episodes and nobody told them.
    """
    for part in model.parts:
        space = bundle.action_space if part.name == "action" else bundle.observation_space
        if part_of(space, name=part.name) != part:
            raise UserError(f"the reward model is of other {part.name}s than the policy's {str(space)[:60]}")
    query = OutcomeQuery(missing_reward=missing_reward) if path.is_dir() else None
    outcomes = read_outcomes(path, bundle=bundle, query=query)
    if not len(outcomes):
        return np.zeros(0), np.zeros(0)
    if outcomes.ends != "whole" and any(part.name == "next_observation" for part in model.parts):
        raise UserError(
            f"{path}: the reward model reads next observations, and those after the ends of episodes are not told; let "
            "clients report `next_observation` with the last reward, or train the model on observation,action"
        )
    assert outcomes.observation is not None
    assert outcomes.action is not None
    assert outcomes.next_observation is not None
    step = {
        "observation": outcomes.observation,
        "action": outcomes.action,
        "next_observation": outcomes.next_observation,
    }
    learned, reported = outcomes.totals(model.rewards(model.features(step))), outcomes.returns()
    known = np.isfinite(reported)
    return learned[known], reported[known]
