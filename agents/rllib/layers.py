"""The layers of an RLlib module by name: what diagnostics, dropout and the gradient check speak of.

A layer is named after its place in the module, such as ``pi_encoder.0``: the first of the policy's encoder. Target
networks, which are copies and learn nothing, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BORING = (".net.mlp.", ".net.cnn.", ".mlp.", ".cnn.")
TARGETS = ("_target", "target_")


def layer_name(parameter: str) -> str:
    """Return the name of the layer a parameter belongs to.

    >>> layer_name("encoder.actor_encoder.net.mlp.0.weight")
    'encoder.actor_encoder.0'
    >>> layer_name("pi.log_std")
    'pi'
    """
    return _short(parameter.rpartition(".")[0] or parameter)


def _short(name: str) -> str:
    for part in BORING:
        name = name.replace(part, ".")
    return name.lstrip("_")


def learned_layers(module: Any) -> dict[str, list[Any]]:
    """Return the parameters of each layer that learns, in the order of the module: from input to output."""
    found: dict[str, list[Any]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and not name.startswith(TARGETS):
            found.setdefault(layer_name(name), []).append(parameter)
    return found


def weights(module: Any) -> list[Any]:
    """Return the weight matrices and kernels that learn; biases and deviations are none."""
    return [one for layer in learned_layers(module).values() for one in layer if one.dim() > 1]


def hidden_activations(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and activation of each fully connected hidden layer that learns."""
    import torch
    from ray.rllib.core.models.torch.primitives import TorchMLP

    for name, part in module.named_modules():
        if isinstance(part, TorchMLP) and not name.startswith(TARGETS):
            for number, layer in enumerate(part.mlp):
                if not isinstance(layer, torch.nn.Linear | torch.nn.LayerNorm):
                    yield f"{_short(f'{name}.mlp.')}{number}", layer


def chain(layer: str) -> str:
    """Return which chain of layers, from an observation to one output, a layer lies on.

    Policy and value function, and each of several Q-functions, have losses of their own, so that their gradients are
    of different sizes; only within a chain can they be compared.

    >>> [chain(name) for name in ("encoder.actor_encoder.0", "pi.0", "encoder.critic_encoder.0", "qf_twin_encoder.0")]
    ['policy', 'policy', 'value', 'qf_twin']
    """
    if "qf_twin" in layer:
        return "qf_twin"
    if layer.startswith("qf"):
        return "qf"
    return "value" if "critic_encoder" in layer or layer.startswith("vf") else "policy"
