"""Returns of single episodes, which RLlib itself only reports as means over the last hundred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

RETURNS, LENGTHS = "policylab_returns", "policylab_lengths"


def on_episode_end(*, episode: Any, metrics_logger: Any, prev_episode_chunks: Sequence[Any] = (), **_: Any) -> None:
    """Log return and length of the whole episode; RLlib cuts it into chunks at the ends of batches."""
    chunks = [*prev_episode_chunks, episode]
    metrics_logger.log_value(RETURNS, float(sum(chunk.get_return() for chunk in chunks)), reduce="item_series")
    metrics_logger.log_value(LENGTHS, episode.t, reduce="item_series")
