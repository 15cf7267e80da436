"""What policylab adds to RLlib's learners: dropout, L1 and L2 penalties, and diagnostics.

RLlib's own networks know no dropout and its learners no penalties. `extended` derives from an algorithm's learner, so
the same lines serve all of them:

- **dropout** acts on the activations of the hidden layers, in the learner's copy of the network and only while a loss
  is computed; the copy that samples, and the policy that is exported from it, never have any;
- **penalties** l1·Σ|w| + l2/2·Σw² over the weights, not the biases, enter as their gradients, before clipping;
- **diagnostics** are taken from every `EVERY`-th gradient step, before penalties and clipping.

| metric | meaning |
|---|---|
| grad_norm/LAYER | Euclidean norm of the loss's gradient over the layer's parameters |
| dead_units | share of hidden units whose output is the same for all observations of the batch |
| kl | KL divergence from the policy that sampled the batch to the present one (PPO, APPO, IMPALA) |
| entropy | of the policy; for SAC and CQL estimated as -log π of drawn actions |
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from policylab.agents.rllib.gradient_watch import PREFIX
from policylab.agents.rllib.layers import hidden_activations, learned_layers, weights

EVERY = 32
"""Gradient steps per measurement, which takes about as long as a step of a small network."""
SETTINGS = "policylab"
"""Where the settings of the extension lie in RLlib's ``learner_config_dict``."""
MODULE = "default_policy"


@functools.cache
def extended(learner: type[Any]) -> type[Any]:
    """Return the learner of an algorithm with what its ``learner_config_dict`` asks for."""

    class Extended(learner):
        def build(self) -> None:
            self.measured: dict[str, Any] = {}
            super().build()
            asked = self.config.learner_config_dict[SETTINGS]
            self.penalties = asked["l1"], asked["l2"]
            self.hidden = Hidden(self.network(), dropout=asked["dropout"], measures=asked["diagnostics"])
            self.layers = learned_layers(self.network())

        def network(self) -> Any:
            return self.module[MODULE].unwrapped()

        def _update(self, batch: Any, **options: Any) -> Any:
            with self.hidden:
                return super()._update(batch, **options)

        def compute_loss_for_module(self, **given: Any) -> Any:
            loss = super().compute_loss_for_module(**given)
            if self.hidden.measuring:
                found = _distributions(self.network(), batch=given["batch"], outputs=given["fwd_out"])
                self._keep({**found, **self.hidden.dead_units()})
            return loss

        def compute_gradients(self, loss_per_module: Any, **options: Any) -> Any:
            gradients = super().compute_gradients(loss_per_module, **options)
            if self.hidden.measuring:
                self._keep(_norms(self.layers, gradients))
            add_penalties(self.network(), gradients, penalties=self.penalties)
            return gradients

        def _keep(self, found: dict[str, Any]) -> None:
            self.measured = {**self.measured, **found}

    return Extended


def take_measured(learner: Any) -> dict[str, float]:
    """Return what an extended learner measured since the last call; nothing of another one.

    RLlib's own logger keeps but the last update of an iteration, which is rarely a measured one.
    """
    found, learner.measured = getattr(learner, "measured", {}), {}
    return {name: float(value) for name, value in found.items()}


class Hidden:
    """Hooks on the activations of a network's hidden layers; a context in which they act.

    Attributes:
        measuring: whether this gradient step is one to measure.
    """

    def __init__(self, network: Any, *, dropout: float, measures: bool) -> None:
        self.measuring = False
        self._dropout = dropout
        self._measures = measures
        self._n_steps = 0
        self._dead: dict[str, tuple[Any, int]] = {}
        self._activations = list(hidden_activations(network))
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        self.measuring = self._measures and self._n_steps % EVERY == 0
        self._n_steps += 1
        self._dead = {}
        if self.measuring or self._dropout:  # hooks take time on every pass
            self._hooks = [
                activation.register_forward_hook(functools.partial(self._hook, name))
                for name, activation in self._activations
            ]

    def __exit__(self, *error: object) -> None:
        self.measuring = False
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _hook(self, name: str, module: Any, inputs: Any, output: Any) -> Any:  # noqa: PLR0917 - torch calls it
        import torch

        if self.measuring and name not in self._dead:
            with torch.no_grad():
                rows = output.detach().reshape(-1, output.shape[-1])
                self._dead[name] = ((rows.amax(0) - rows.amin(0)) <= 0).sum(), output.shape[-1]
        return torch.nn.functional.dropout(output, self._dropout) if self._dropout else None

    def dead_units(self) -> dict[str, Any]:
        """Return the share of dead units in the step measured; nothing for a network without hidden layers."""
        if not self._dead:
            return {}
        return {"dead_units": sum(dead for dead, _ in self._dead.values()) / sum(n for _, n in self._dead.values())}


def _norms(layers: Mapping[str, list[Any]], gradients: Any) -> dict[str, Any]:
    import torch

    found = {}
    for layer, parameters in layers.items():
        present = [gradient for one in parameters if (gradient := gradients.get(one)) is not None]
        if present:
            norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in present])
            found[PREFIX + layer] = torch.linalg.vector_norm(norms)
    return found


def _distributions(network: Any, *, batch: Any, outputs: Any) -> dict[str, Any]:
    """Return entropy and KL divergence, of the algorithms whose networks compute action distributions."""
    import torch

    with torch.no_grad():
        if "logp_resampled" in outputs:
            return {"entropy": -outputs["logp_resampled"].mean()}
        if "action_dist_inputs" not in outputs:
            return {}
        present = network.get_train_action_dist_cls().from_logits(outputs["action_dist_inputs"])
        found = {"entropy": present.entropy()}
        if "action_dist_inputs" in batch:
            sampling = network.get_exploration_action_dist_cls().from_logits(batch["action_dist_inputs"])
            found["kl"] = sampling.kl(present)
        mask = batch.get("loss_mask")
        return {name: (value if mask is None else value[mask]).mean() for name, value in found.items()}


def add_penalties(network: Any, gradients: Any, *, penalties: tuple[float, float]) -> None:
    """Add the gradients of the penalties to those of the loss, in place."""
    import torch

    l1, l2 = penalties
    if not l1 and not l2:
        return
    with torch.no_grad():
        for weight in weights(network):
            if (gradient := gradients.get(weight)) is not None:
                gradient.add_(weight, alpha=l2).add_(weight.sign(), alpha=l1)


def penalty(network: Any, *, penalties: tuple[float, float]) -> Any:
    """Return what the penalties add to the loss."""
    l1, l2 = penalties
    return sum(l1 * weight.abs().sum() + 0.5 * l2 * weight.square().sum() for weight in weights(network))
