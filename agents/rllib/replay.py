"""The replay buffer of DQN and SAC as plain arrays in a checkpoint.

On its new API stack RLlib saves no replay buffer: ``store_buffer_in_checkpoints`` is read by the old stack alone, and a
resumed agent would learn from an empty memory. What is kept are the transitions; priorities start anew at the maximum.

| array | shape | of |
|---|---|---|
| length | (episodes,) | transitions |
| observation | (transitions + episodes, ...) | each episode has one more observation than transitions |
| action, reward, extra.NAME | (transitions, ...) | |
| terminated, truncated | (episodes,) | |
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXTRA = "extra."


def save_buffer(buffer: Any, path: Path) -> None:
    """Write the episodes in ``buffer`` to ``path``."""
    episodes = [episode for episode in buffer.episodes if len(episode)]
    if not episodes:
        np.savez(path, allow_pickle=False, length=np.zeros(0, np.int64))
        return
    arrays: dict[str, NDArray[Any]] = {
        "length": np.array([len(one) for one in episodes]),
        "terminated": np.array([one.is_terminated for one in episodes]),
        "truncated": np.array([one.is_truncated for one in episodes]),
        "observation": np.concatenate([np.stack(list(one.get_observations())) for one in episodes]),
        "action": np.concatenate([np.stack(list(one.get_actions())) for one in episodes]),
        "reward": np.concatenate([np.asarray(one.get_rewards()) for one in episodes]),
    }
    for name in episodes[0].extra_model_outputs:
        found = [np.stack(list(one.get_extra_model_outputs(name))) for one in episodes]
        arrays[EXTRA + name] = np.concatenate(found)
    np.savez(path, allow_pickle=False, **arrays)


def load_buffer(buffer: Any, path: Path) -> None:
    """Add the episodes in ``path`` to ``buffer``."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for episode in _episodes(arrays):
        buffer.add(episode)


def _episodes(arrays: dict[str, NDArray[Any]]) -> Iterator[Any]:
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    extras = [name for name in arrays if name.startswith(EXTRA)]
    place = 0
    for number, length in enumerate(arrays["length"].tolist()):
        seen, taken = slice(place + number, place + number + length + 1), slice(place, place + length)
        episode = SingleAgentEpisode(
            observations=list(arrays["observation"][seen]),
            actions=list(arrays["action"][taken]),
            rewards=arrays["reward"][taken].tolist(),
            extra_model_outputs={name.removeprefix(EXTRA): list(arrays[name][taken]) for name in extras},
            terminated=bool(arrays["terminated"][number]),
            truncated=bool(arrays["truncated"][number]),
            len_lookback_buffer=0,
        )
        yield episode.to_numpy()
        place += length
