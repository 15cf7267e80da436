"""RLlib's networks with an LSTM, as what the export traces: memory in, memory out."""

from __future__ import annotations

from typing import Any

from policylab.errors import UserError


def memory_shapes(module: Any) -> dict[str, tuple[int, ...]]:
    """Return name and shape of each part of the memory that the policy's actions depend on; none without an LSTM.

    Where policy and value function share no layers, RLlib remembers for each; the value's part is left behind.

    Raises:
        UserError: a memory other than that of RLlib's default network for PPO.
    """
    if not module.is_stateful():
        return {}
    from ray.rllib.core.models.torch.encoder import TorchLSTMEncoder

    encoder = _encoder(module)
    if not isinstance(encoder, TorchLSTMEncoder):
        raise UserError(
            f"the memory of the network {type(module).__name__} cannot be exported; use `network.lstm` with PPO"
        )
    return {name: tuple(part.shape) for name, part in encoder.get_initial_state().items()}


def _encoder(module: Any) -> Any:
    held = getattr(module, "encoder", None)
    return getattr(held, "actor_encoder", None) or getattr(held, "encoder", None)


def memory_examples(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return the memory of two episodes, to trace with beside two observations."""
    import torch

    return {name: torch.zeros(2, *shape) for name, shape in shapes.items()}


def recurrent_network(module: Any, steps: list[Any]) -> Any:
    """Return the torch module from observation and memory to the policy's output and the next memory.

    Args:
        module: the `RLModule`; see `memory_shapes`.
        steps: from the parts of a raw observation to the network's input.
    """
    import torch
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.models.base import ENCODER_OUT

    n_memory = len(memory_shapes(module))

    class RecurrentNetwork(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = torch.nn.ModuleList(steps)
            self.module = module

        def forward(self, *given: Any) -> Any:
            parts, memory = given[:-n_memory], dict(zip(memory_shapes(self.module), given[-n_memory:], strict=True))
            for step in self.steps:
                parts = step(parts)
            batch = {Columns.OBS: parts[0].float()[:, None], Columns.STATE_IN: memory}  # one step of time
            found = _encoder(self.module)(batch)
            outputs = self.module.pi(found[ENCODER_OUT][:, 0])
            return outputs, *(found[Columns.STATE_OUT][name] for name in memory)

    return RecurrentNetwork().to(next(module.parameters()).device).train(module.training)
