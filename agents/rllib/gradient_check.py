"""A numerical check of an agent's gradients: automatic differentiation against central differences, in 64 bits.

For a few parameters of each layer, (L(w + h) - L(w - h)) / 2h on one batch is compared with the gradient the learner
computes of the same loss, penalties included. In 64 bits with h = 1e-5 both agree to about 1e-8 where the loss is
smooth; a wrong backward pass, or a loss or layer cut off from its parameters, shows as a difference of order 1.

Where ReLU, Huber or a clipped loss has a kink between the two points, central differences are wrong, not the gradient:
a second, much smaller step decides. Losses that treat as constant what the parameters compute, as V-trace's targets in
IMPALA and APPO and the advantages in MARWIL, cannot be checked so.

Source: Goodfellow, Bengio and Courville 2016, Deep Learning, section 11.5.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from policylab.agents.rllib.extension import MODULE, penalty
from policylab.agents.rllib.layers import learned_layers
from policylab.agents.rllib.learner import Learner
from policylab.agents.rllib.offline import OfflineLearner
from policylab.errors import UserError

STEPS = (1e-5, 1e-7)
"""Relative to the larger of 1 and the parameter."""
TOLERANCE = 1e-4
"""Largest relative error of a layer that passes; the second step has but 7 digits."""
NOISE = 16 * float(np.finfo(np.float64).eps)
"""Relative rounding of a loss, summed over a batch."""
PER_LAYER = 6


@dataclasses.dataclass(frozen=True, slots=True)
class LayerCheck:
    """One layer's verdict.

    Attributes:
        layer: its name.
        n_checked: parameters compared.
        max_error: largest relative error among them.
        largest: largest gradient among them; 0 where nothing reaches the layer.
        passed: whether each error is at most `TOLERANCE`, beyond what rounding of the loss explains.
    """

    layer: str
    n_checked: int
    max_error: float
    largest: float
    passed: bool


def check_gradients(
    learner: Any, batch: Any, *, rng: np.random.Generator, per_layer: int = PER_LAYER
) -> list[LayerCheck]:
    """Return a verdict for each layer of the network that ``learner`` trains.

    Args:
        learner: RLlib's local `TorchLearner`; its network is in 64 bits afterwards and must not be trained further.
        batch: RLlib's batch of one module, such as a mapping of tensors.
        rng: chooses the parameters.
        per_layer: how many of each layer.
    """
    network = learner.module[MODULE].unwrapped()
    with _double_precision(network):
        loss = _Loss(learner, {name: _double(value) for name, value in batch.items()})
        gradients = loss.gradients()
        return [
            _check_layer(name, parameters, loss=loss, gradients=gradients, chosen=(rng, per_layer))
            for name, parameters in learned_layers(network).items()
        ]


class _Loss:
    """The loss on one batch as a function of the parameters, the same random numbers each time."""

    def __init__(self, learner: Any, batch: Any) -> None:
        import torch

        self._learner = learner
        self._batch = {MODULE: batch}
        self._random = torch.get_rng_state()

    def gradients(self) -> dict[Any, Any]:
        """Return the gradient of each parameter, as the learner would apply it but for clipping."""
        given = self._learner.compute_gradients(self._forward())
        return {parameter: None if gradient is None else gradient.clone() for parameter, gradient in given.items()}

    def value_for(self, parameter: Any) -> Any:
        """Return the part of the loss whose gradient ``parameter`` gets, with the penalties: a number in 64 bits."""
        import torch

        network = self._learner.module[MODULE].unwrapped()
        with torch.no_grad():
            total = sum(self._forward().values())
            added = penalty(network, penalties=getattr(self._learner, "penalties", (0.0, 0.0)))
        parts = dict(getattr(self._learner, "_temp_losses", {}))
        getattr(self._learner, "_temp_losses", {}).clear()
        if parts:  # SAC and CQL give each optimiser a loss of its own
            total = parts[MODULE, self._optimizer_of(parameter) + "_loss"]
        return float(total) + float(added)

    def _optimizer_of(self, parameter: Any) -> str:
        for name, optimizer in self._learner.get_optimizers_for_module(MODULE):
            if any(one is parameter for group in optimizer.param_groups for one in group["params"]):
                return str(name)
        raise AssertionError("every parameter that learns has an optimiser")

    def _forward(self) -> dict[str, Any]:
        import torch

        torch.set_rng_state(self._random)
        outputs = self._learner.module.forward_train(self._batch)
        losses: dict[str, Any] = self._learner.compute_losses(fwd_out=outputs, batch=self._batch)
        return losses


def _check_layer(
    name: str, parameters: list[Any], *, loss: _Loss, gradients: dict[Any, Any], chosen: tuple[Any, int]
) -> LayerCheck:
    rng, per_layer = chosen
    sizes = [parameter.numel() for parameter in parameters]
    places = rng.choice(sum(sizes), size=min(per_layer, sum(sizes)), replace=False)
    found, largest = [], 0.0
    for place in places.tolist():
        which = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
        parameter, index = parameters[which], place - sum(sizes[:which])
        gradient = gradients.get(parameter)
        computed = 0.0 if gradient is None else float(gradient.reshape(-1)[index])
        found.append(_compare(computed, loss, parameter=parameter, index=index))
        largest = max(largest, abs(computed))
    return LayerCheck(name, len(found), max(error for error, _ in found), largest, all(passed for _, passed in found))


def _compare(computed: float, loss: _Loss, *, parameter: Any, index: int) -> tuple[float, bool]:
    """Return the relative error of one gradient, and whether it is within `TOLERANCE` and rounding."""
    error, passed = 0.0, False
    for step in STEPS:
        numerical, noise = _difference(loss, parameter, index=index, step=step)
        scale = max(abs(computed), abs(numerical), 1e-12)
        if error and noise > 0.1 * scale:
            break  # the smaller step cannot tell
        error = abs(computed - numerical) / scale
        passed = error <= TOLERANCE + noise / scale
        if passed:
            break
    return error, passed


def _difference(loss: _Loss, parameter: Any, *, index: int, step: float) -> tuple[float, float]:
    """Return the central difference, and how far rounding may have moved it."""
    flat = parameter.data.reshape(-1)
    held = float(flat[index])
    step *= max(1.0, abs(held))
    values = []
    for moved in (held + step, held - step):
        flat[index] = moved
        values.append(loss.value_for(parameter))
    flat[index] = held
    return (values[0] - values[1]) / (2.0 * step), NOISE * max(abs(value) for value in values) / step


@contextlib.contextmanager
def _double_precision(network: Any) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    network.double()
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _double(value: Any) -> Any:
    import torch

    if isinstance(value, dict):  # the memory of a network with an LSTM
        return {name: _double(part) for name, part in value.items()}
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def sampled_batch(learner: Learner, *, size: int) -> Any:
    """Return a batch as the algorithm learns from: sampled from its environment, or drawn from its data set.

    Args:
        learner: an agent's algorithm, everything local.
        size: transitions, or somewhat more.

    Raises:
        UserError: the algorithm's loss cannot be checked numerically.
    """
    from ray.rllib.core.learner.training_data import TrainingData

    algorithm = learner.settings.algorithm
    if algorithm in UNCHECKED:
        raise UserError(
            f"{algorithm} takes {UNCHECKED[algorithm]}, which depend on its parameters, for constants: differences of "
            "its loss are not its gradient; check PPO or BC with the same network"
        )
    if learner.settings.n_learners:
        raise UserError("agent.n_learners: gradients are checked where the run's own process learns; set it to 0")
    with learner.streams.lent(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recorded = isinstance(learner, OfflineLearner)
        given = learner.batch() if recorded else {"episodes": _episodes(learner, size=size)}  # type: ignore[attr-defined]
        local = learner.algo.learner_group._learner
        return local._make_batch_if_necessary(training_data=TrainingData(**given)).policy_batches[MODULE]


def _episodes(learner: Learner, *, size: int) -> Any:
    algo, buffer = learner.algo, learner.algo.local_replay_buffer
    if buffer is None:
        return algo.env_runner.sample(num_timesteps=size)
    buffer.add(algo.env_runner.sample(num_timesteps=2 * size, random_actions=True))
    beta = {"beta": beta} if (beta := algo.config.replay_buffer_config.get("beta")) is not None else {}
    return buffer.sample(num_items=size, n_step=algo.config.n_step, batch_length_T=0, sample_episodes=True, **beta)


UNCHECKED = {"APPO": "V-trace targets", "IMPALA": "V-trace targets", "MARWIL": "advantages"}
"""Algorithms whose losses are no function to differentiate -> why."""
