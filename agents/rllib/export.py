"""From an RLlib module to a policy that needs neither RLlib nor torch: `OnnxPolicy`.

RLlib has no ONNX export on its new API stack (ray #45526), and a module alone is not the policy: connectors transform
observations before it and actions after it. Both are folded into the export, which is then equal to RLlib's own
inference pipeline up to rounding. The module's type decides:

| module | algorithms | output |
|---|---|---|
| `DefaultDQNTorchRLModule` | DQN: double, dueling, distributional | Q-values |
| any other feed-forward one | PPO, APPO, IMPALA, BC, MARWIL, SAC, CQL | inputs of the action distribution |
| `DefaultPPOTorchRLModule` with an LSTM | PPO | inputs of the action distribution, and the next memory |
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Space

from policylab.agents.onnx_policy import OnnxPolicy
from policylab.agents.recurrent_policy import NEXT, RecurrentPolicy
from policylab.agents.rllib.connectors import action_distribution, is_q_network, observation_steps
from policylab.agents.rllib.observation_graph import example, leaves
from policylab.agents.rllib.recurrent import memory_examples, memory_shapes, recurrent_network
from policylab.errors import UserError
from policylab.extras import require

OPSET = 17
"""Of 2022; has LayerNormalization."""


def export_policy(
    module: Any,
    *,
    env_to_module: Any,
    module_to_env: Any,
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    epsilon: float = 0.0,
) -> OnnxPolicy:
    """Return the policy that ``module`` and its connectors are now, independent of later training.

    To export again and again as training goes on, keep a `PolicyExporter`.

    Args:
        module: a single-agent `TorchRLModule`, such as ``algo.get_module()``.
        env_to_module: the env runner's `EnvToModulePipeline`.
        module_to_env: the env runner's `ModuleToEnvPipeline`.
        observation_space: of the environment itself; by default the pipeline's input, which a wrapper may have changed.
        action_space: of the environment itself; by default the pipeline's.
        epsilon: probability of a uniformly random action when actions are drawn from Q-values, in [0, 1].

    Raises:
        UserError: something in it has no counterpart in the export; the message says what.
    """
    exporter = PolicyExporter(observation_space=observation_space, action_space=action_space, epsilon=epsilon)
    return exporter.export(module, env_to_module=env_to_module, module_to_env=module_to_env)


class PolicyExporter:
    """Exports one module as it learns: the first time its graph is traced, then only the numbers in it are replaced.

    The result is the same, byte by byte, as that of tracing again.

    Args:
        observation_space: see `export_policy`.
        action_space: see `export_policy`.
        epsilon: see `export_policy`.
    """

    def __init__(
        self,
        *,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
        epsilon: float = 0.0,
    ) -> None:
        self._observation_space = observation_space
        self._action_space = action_space
        self._epsilon = epsilon
        self._traced: tuple[Any, Any] | None = None

    def export(self, module: Any, *, env_to_module: Any, module_to_env: Any) -> OnnxPolicy:
        """Return the policy as it is now; see `export_policy`."""
        module = module.unwrapped()
        memory = memory_shapes(module)
        raw = self._observation_space or env_to_module.input_observation_space
        acted = self._action_space or module_to_env.input_action_space
        parts = {f"observation{''.join(f'[{key!r}]' for key in path)}": (path, part) for path, part in leaves(raw)}
        kind = RecurrentPolicy if memory else OnnxPolicy
        settings = kind.Settings(
            inputs={name: path for name, (path, _) in parts.items()},
            distribution=action_distribution(module, acted, module_to_env=module_to_env, epsilon=self._epsilon),
            **({"memory": memory} if memory else {}),
        )
        steps = observation_steps(raw, env_to_module)
        network = recurrent_network(module, steps) if memory else _network(module, steps)
        numbers = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
        shapes = {name: (array.dtype, array.shape) for name, array in numbers.items()}
        if self._traced is not None and self._traced[0] == shapes:
            return kind(_with_numbers(self._traced[1], numbers), settings)
        examples = {name: example(part) for name, (_, part) in parts.items()} | memory_examples(memory)
        model = _trace(network, examples, outputs=["outputs", *(name + NEXT for name in memory)])
        # The exporter does not always know the sizes of what comes out.
        _state_sizes(model, [(settings.distribution.n_outputs,), *memory.values()])
        policy = kind(_with_numbers(model, numbers), settings)
        _check(policy, network, parts=examples)
        self._traced = (shapes, model)
        return policy


def _with_numbers(model: Any, numbers: Mapping[str, Any]) -> bytes:
    """Return the model with these parameters in place of its own."""
    for initializer in model.graph.initializer:
        if initializer.name in numbers:
            initializer.raw_data = numbers[initializer.name].tobytes()
    exported: bytes = model.SerializeToString(deterministic=True)
    return exported


def _check(policy: OnnxPolicy, network: Any, *, parts: Mapping[str, Any]) -> None:
    """Refuse an export that computes something else than the network, as where a custom one decides in Python."""
    import torch

    rng, device, trained = np.random.default_rng(0), next(network.parameters()).device, network.training
    rows = {name: part[[0, 0, 0]].numpy() for name, part in parts.items()}  # of another number than were traced
    probe = {
        name: rng.normal(size=row.shape).astype(row.dtype) if row.dtype.kind == "f" else row
        for name, row in rows.items()
    }
    network.eval()
    with torch.no_grad():
        expected = network(*(torch.from_numpy(part).to(device) for part in probe.values()))
    network.train(trained)
    wanted = [part.cpu().numpy() for part in (expected if isinstance(expected, tuple) else [expected])]
    found = policy.all_outputs(probe)
    if not all(
        ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
        for ours, theirs in zip(found, wanted, strict=True)
    ):
        raise UserError(
            f"the network {type(network.module).__name__} computes something else once exported; "
            "write its forward pass without conditions on the numbers or on the size of the batch"
        )


def _network(module: Any, steps: list[Any]) -> Any:
    """Return the torch module from the parts of raw observations to the output of the policy."""
    import torch
    from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.distribution.torch.torch_distribution import TorchSquashedGaussian
    from ray.rllib.core.models.base import ENCODER_OUT
    from ray.rllib.utils.numpy import MAX_LOG_NN_OUTPUT, MIN_LOG_NN_OUTPUT

    values = is_q_network(module)
    squashed = not values and issubclass(module.get_inference_action_dist_cls(), TorchSquashedGaussian)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = torch.nn.ModuleList(steps)
            self.module = module

        def forward(self, *parts: Any) -> Any:
            for step in self.steps:
                parts = step(parts)
            batch = {Columns.OBS: parts[0].float()}
            if values and module.uses_dueling and module.num_atoms == 1:
                # RLlib's mean leaves out -inf, which ONNX cannot say and its own modules do not compute.
                latent = self.module.encoder(batch)[ENCODER_OUT]
                advantages = self.module.af(latent)
                return advantages - advantages.mean(dim=-1, keepdim=True) + self.module.vf(latent)
            if values:
                return self.module.compute_q_values(batch)[QF_PREDS]
            outputs = self.module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS]
            if not squashed:
                return outputs
            mean, log_std = outputs.chunk(2, dim=-1)  # RLlib bounds the deviation when it makes the distribution
            return torch.cat([mean, log_std.clamp(MIN_LOG_NN_OUTPUT, MAX_LOG_NN_OUTPUT)], dim=-1)

    # The module is the agent's own: what it is exported in must be the mode it is left in.
    return Network().to(next(module.parameters()).device).train(module.training)


def _trace(network: Any, examples: Mapping[str, Any], *, outputs: Sequence[str]) -> Any:
    """Return the network as an ONNX `ModelProto`, with its parameters as initializers under their own names."""
    import torch
    from ray.rllib.core.models.torch.heads import TorchFreeLogStdMLPHead

    onnx = require("onnx", extra="rllib")
    buffer = io.BytesIO()
    heads = [head for head in network.modules() if isinstance(head, TorchFreeLogStdMLPHead)]
    hooks = [head.register_forward_hook(_free_deviation) for head in heads]
    try:
        with warnings.catch_warnings():
            # The exporter for TorchScript is on its way out, but its successor takes seconds; the tracer warns of every
            # Python condition, of which RLlib's on shapes and settings are meant to be fixed.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                tuple(part.to(next(network.parameters()).device) for part in examples.values()),
                buffer,
                input_names=[*examples],
                output_names=[*outputs],
                dynamic_axes={name: {0: "n"} for name in [*examples, *outputs]},
                opset_version=OPSET,
                dynamo=False,
                do_constant_folding=False,  # would merge parameters under names of their own
            )
    finally:
        for hook in hooks:
            hook.remove()
    return onnx.load_model_from_string(buffer.getvalue())


def _state_sizes(model: Any, shapes: Sequence[tuple[int, ...]]) -> None:
    for port, shape in zip(model.graph.output, shapes, strict=True):
        dims = port.type.tensor_type.shape.dim
        del dims[1:]
        for size in shape:
            dims.add().dim_value = size


def _free_deviation(head: Any, inputs: tuple[Any, ...], *_: Any) -> Any:
    """Return what RLlib's head of free deviations does, but for any size of batch; its own is traced with one size."""
    import torch

    mean, log_std = head.net(inputs[0]), head.log_std
    if head.clip_log_std:
        log_std = log_std.clamp(-head.log_std_clip_param_const, head.log_std_clip_param_const)
    return torch.cat([mean, torch.zeros_like(mean) + log_std], dim=1)
