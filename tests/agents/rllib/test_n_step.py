"""Several-step returns in RLlib's replay: the trap that overrides keep users out of."""

import numpy as np
import pytest

from policylab.agents.rllib.overrides import apply_overrides
from policylab.agents.rllib.settings import RllibSettings
from policylab.errors import ConfigError

pytest.importorskip("ray")


@pytest.mark.parametrize(("n_step", "replayed"), [(1, {1, 2, 5}), (3, {5})])
def test_rllib_replays_no_episode_shorter_than_n_steps(n_step: int, replayed: set[int]) -> None:
    """While this holds, `n_step` is refused; if a newer RLlib fails it, the refusal may go."""
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode
    from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer

    buffer = PrioritizedEpisodeReplayBuffer(capacity=1000)
    for length in (1, 2, 5):
        buffer.add(
            SingleAgentEpisode(
                observations=[np.float32(length)] * (length + 1),
                actions=[0] * length,
                rewards=[-1.0] * length,
                terminated=True,
                len_lookback_buffer=0,
            )
        )
    sampled = buffer.sample(num_items=300, n_step=n_step, gamma=1.0, beta=0.4)
    assert {int(part.get_observations(0)) for part in sampled} == replayed


@pytest.mark.parametrize("algorithm", ["DQN", "SAC"])
def test_several_steps_are_refused(algorithm: str) -> None:
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.algorithms.sac import SACConfig

    config = {"DQN": DQNConfig, "SAC": SACConfig}[algorithm]()
    settings = RllibSettings(algorithm=algorithm, overrides={"n_step": 3})
    with pytest.raises(ConfigError, match=r"agent\.overrides\.n_step: must be 1: with n steps RLlib"):
        apply_overrides(config, settings)
