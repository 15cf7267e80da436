"""Exported policies against RLlib's own inference pipeline: connectors, module and action handling as it runs them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import Space, spaces

from policylab.agents.bundle import Lineage, pack, write_bundle
from policylab.agents.rllib.export import PolicyExporter, export_policy
from policylab.errors import UserError
from policylab.seeding import generator

pytest.importorskip("ray")

N = 1_000
TOLERANCE = 1e-5


@dataclasses.dataclass
class Rllib:
    """A module between its pipelines, as an env runner holds them."""

    module: Any
    env_to_module: Any
    module_to_env: Any
    observation_space: Space[Any]
    action_space: Space[Any]

    @property
    def pipelines(self) -> dict[str, Any]:
        """The arguments of an export."""
        return {"env_to_module": self.env_to_module, "module_to_env": self.module_to_env}

    def episodes(self, observations: Sequence[Any]) -> list[Any]:
        """Return an episode that begins with each raw observation."""
        from ray.rllib.env.single_agent_episode import SingleAgentEpisode

        spaces = {"observation_space": self.observation_space, "action_space": self.action_space}
        return [SingleAgentEpisode(observations=[one], **spaces) for one in observations]

    def run(self, observations: Sequence[Any], *, explore: bool = False) -> dict[str, Any]:
        """Return what RLlib's pipelines make of a batch of raw observations, as `SingleAgentEnvRunner` calls them."""
        shared: dict[str, Any] = {}
        arguments: dict[str, Any] = {
            "episodes": self.episodes(observations),
            "rl_module": self.module,
            "explore": explore,
        }
        batch = self.env_to_module(batch={}, shared_data=shared, **arguments)
        forward = self.module.forward_exploration if explore else self.module.forward_inference
        outputs = forward(batch, t=0) if explore else forward(batch)
        found: dict[str, Any] = self.module_to_env(batch=outputs, shared_data=shared, **arguments)
        return found

    def actions(self, observations: Sequence[Any]) -> Any:
        """Return the deterministic actions that RLlib sends to the environment."""
        found = self.run(observations)
        return np.array(found.get("actions_for_env", found["actions"]))


def rllib(
    algorithm: str,
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    connectors: Sequence[str] = (),
    settings: dict[str, Any] | None = None,
    **model: Any,
) -> Rllib:
    """Return an untrained module of ``algorithm`` with weights of the size that training gives them.

    Args:
        algorithm: RLlib's name, ``"PPO"``.
        observation_space: of the environment.
        action_space: of the environment.
        connectors: ``"flatten"`` and ``"filter"``, in the order of the pipeline.
        settings: attributes of the algorithm's configuration.
        model: fields of RLlib's `DefaultModelConfig`.
    """
    import torch
    from ray.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    home = importlib.import_module(f"ray.rllib.algorithms.{algorithm.lower()}")
    config = getattr(home, f"{algorithm}Config")()
    for name, value in (settings or {}).items():
        setattr(config, name, value)
    pieces = {"flatten": FlattenObservations, "filter": MeanStdFilter}
    config.env_runners(env_to_module_connector=lambda env, spaces, device: [pieces[name]() for name in connectors])
    if model:
        config.rl_module(model_config=DefaultModelConfig(**model))
    known = {"__env_single__": (observation_space, action_space), "__env__": (observation_space, action_space)}
    env_to_module = config.build_env_to_module_connector(spaces=known)
    module_to_env = config.build_module_to_env_connector(spaces=known)
    spec = config.get_default_rl_module_spec()
    spec.observation_space, spec.action_space = env_to_module.observation_space, action_space
    spec.model_config = config.model_config
    spec.inference_only = True
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RLlib warns of its own RLModule(config=...)
        module = spec.build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return Rllib(module, env_to_module, module_to_env, observation_space, action_space)


def learn_filter(one: Rllib, observations: Sequence[Any]) -> None:
    """Let the observation filter see ``observations``, then hold it fixed."""
    one.run(observations)
    for piece in one.env_to_module.connectors:
        if type(piece).__name__ == "MeanStdFilter":
            piece._update_stats = False


def observations_of(space: Space[Any], n: int, *, seed: int = 0) -> list[Any]:
    """Return random observations; of unbounded Boxes standard normal ones, far from centred."""
    space.seed(seed)
    return [space.sample() for _ in range(n)]


IMAGE = spaces.Box(0.0, 1.0, (12, 12, 3), np.float32)
SMALL_CNN = {"conv_filters": [[8, 4, 2], [8, 3, 2]], "fcnet_hiddens": [32]}
STATE = spaces.Box(-np.inf, np.inf, (4,), np.float32)
STATE64 = spaces.Box(np.array([-1e3, -1.0, 5.0]), np.array([1e3, 1.0, 6.0]), dtype=np.float64)
CELL = spaces.Discrete(16)
NESTED = spaces.Dict(
    {
        "speed/it's": spaces.Box(-5.0, 5.0, (2, 2), np.float32),
        "cell": spaces.Discrete(5),
        "arm": spaces.Tuple([spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)]),
    }
)
PUSH = spaces.Discrete(3)
LEVERS = spaces.MultiDiscrete([2, 4, 3])
TORQUE = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 50.0], np.float32))
TORQUE64 = spaces.Box(-3.0, 1.0, (1,), np.float64)
FREE = spaces.Box(-np.inf, np.inf, (2,), np.float32)

CASES: dict[str, tuple[Any, ...]] = {
    "PPO": ("PPO", STATE, PUSH),
    "PPO filter": ("PPO", STATE, PUSH, {"connectors": ["filter"]}),
    "PPO cell": ("PPO", CELL, PUSH, {"connectors": ["flatten"]}),
    "PPO cell filter": ("PPO", CELL, PUSH, {"connectors": ["flatten", "filter"]}),
    "PPO nested": ("PPO", NESTED, PUSH, {"connectors": ["flatten"]}),
    "PPO nested filter": ("PPO", NESTED, TORQUE, {"connectors": ["flatten", "filter"]}),
    "PPO levers": ("PPO", STATE, LEVERS, {"connectors": ["filter"]}),
    "PPO torque": ("PPO", STATE, TORQUE),
    "PPO 64 bits": ("PPO", STATE64, TORQUE64, {"connectors": ["filter"]}),
    "PPO clipped": ("PPO", STATE, TORQUE, {"settings": {"normalize_actions": False, "clip_actions": True}}),
    "PPO unbounded": ("PPO", STATE, FREE),
    "PPO free deviation": ("PPO", STATE, TORQUE, {"free_log_std": True, "fcnet_hiddens": [16]}),
    "PPO image": ("PPO", IMAGE, PUSH, SMALL_CNN),
    "PPO image filter": ("PPO", IMAGE, TORQUE, {"connectors": ["filter"], **SMALL_CNN}),
    "PPO own critic, layer norm": (
        "PPO",
        STATE,
        PUSH,
        {"vf_share_layers": False, "fcnet_use_layernorm": True, "fcnet_activation": "silu"},
    ),
    "APPO": ("APPO", STATE, LEVERS),
    "APPO torque": ("APPO", STATE, TORQUE, {"connectors": ["filter"], "fcnet_activation": "elu"}),
    "IMPALA": ("IMPALA", STATE, PUSH, {"fcnet_activation": "relu", "head_fcnet_hiddens": [16]}),
    "DQN": ("DQN", STATE, PUSH, {"connectors": ["filter"]}),
    "DQN plain": ("DQN", CELL, PUSH, {"connectors": ["flatten"], "settings": {"dueling": False, "double_q": False}}),
    "DQN distributional": (
        "DQN",
        STATE,
        PUSH,
        {"settings": {"num_atoms": 11, "v_min": -5.0, "v_max": 5.0}},
    ),
    "DQN image": ("DQN", IMAGE, PUSH, SMALL_CNN),
    "DQN nested": ("DQN", NESTED, PUSH, {"connectors": ["flatten"]}),
    "SAC": ("SAC", STATE, TORQUE),
    "SAC filter": ("SAC", STATE64, TORQUE64, {"connectors": ["filter"]}),
    "SAC discrete": ("SAC", STATE, PUSH),
    "BC": ("BC", STATE, TORQUE),
    "MARWIL": ("MARWIL", NESTED, LEVERS, {"connectors": ["flatten"]}),
    "CQL": ("CQL", STATE, TORQUE),
}


def made(name: str) -> tuple[Rllib, list[Any]]:
    algorithm, observation_space, action_space, *rest = CASES[name]
    one = rllib(algorithm, observation_space, action_space, **(rest[0] if rest else {}))
    observations = observations_of(observation_space, N)
    learn_filter(one, observations[:50])
    return one, observations


@pytest.mark.parametrize("name", CASES)
def test_the_exported_policy_acts_as_rllib_does(name: str) -> None:
    one, observations = made(name)
    policy = export_policy(one.module, **one.pipelines)
    expected, found = one.actions(observations), policy.act_batch(observations)
    assert found.shape == expected.shape
    if np.issubdtype(expected.dtype, np.integer):
        assert (found == expected).mean() > 0.998  # two outputs may be equal up to rounding
        assert len(np.unique(found, axis=0)) > 1
    else:
        assert found.dtype == one.action_space.dtype
        assert np.abs(found - expected).max() <= TOLERANCE * np.maximum(1.0, np.abs(expected)).max()
        assert found.std() > 1e-3


@pytest.mark.parametrize("name", ["PPO", "APPO", "IMPALA", "DQN", "SAC", "BC", "MARWIL", "CQL", "PPO nested filter"])
def test_the_exported_network_gives_the_numbers_that_rllibs_gives(name: str) -> None:
    """Of listed actions, the largest output says little of the others: here all of them are compared."""
    import torch
    from ray.rllib.utils.numpy import MAX_LOG_NN_OUTPUT, MIN_LOG_NN_OUTPUT

    one, observations = made(name)
    policy = export_policy(one.module, **one.pipelines)
    given = {"episodes": one.episodes(observations), "rl_module": one.module, "explore": False}
    batch = one.env_to_module(batch={}, shared_data={}, **given)
    with torch.no_grad():
        if name == "DQN":
            expected = one.module.compute_q_values(batch)["qf_preds"].numpy()
        else:
            expected = one.module.forward_inference(batch)["action_dist_inputs"].numpy()
    if name in ("SAC", "CQL"):  # whose logarithms of deviations RLlib bounds where it makes the distribution
        expected[:, 2:] = expected[:, 2:].clip(MIN_LOG_NN_OUTPUT, MAX_LOG_NN_OUTPUT)
    found = policy.outputs(observations)
    assert found.shape == expected.shape
    assert len(found) == N
    assert np.abs(found - expected).max() <= TOLERANCE * np.maximum(1.0, np.abs(expected)).max()


def test_exporting_again_replaces_numbers_and_equals_tracing_again() -> None:
    import torch

    for name in ("PPO nested filter", "PPO free deviation", "PPO image filter", "DQN distributional", "SAC filter"):
        one, observations = made(name)
        exporter = PolicyExporter()
        before = exporter.export(one.module, **one.pipelines)
        learned = before.outputs(observations[:20])
        with torch.no_grad():
            for parameter in one.module.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        for piece in one.env_to_module.connectors:
            if type(piece).__name__ == "MeanStdFilter":
                piece._update_stats = True
        learn_filter(one, observations[50:200])
        again = exporter.export(one.module, **one.pipelines)
        assert again.model == export_policy(one.module, **one.pipelines).model
        assert np.array_equal(before.outputs(observations[:20]), learned)
        assert np.abs(again.outputs(observations[:20]) - learned).max() > 1e-2


def test_a_memory_of_another_kind_than_rllibs_is_refused() -> None:
    import torch

    one = rllib("PPO", STATE, PUSH, use_lstm=True)
    one.module.encoder.actor_encoder = torch.nn.GRU(4, 4)
    with pytest.raises(UserError, match="memory of the network DefaultPPOTorchRLModule cannot be exported"):
        export_policy(one.module, **one.pipelines)


@pytest.mark.parametrize(
    "name", ["PPO", "PPO levers", "PPO torque", "PPO unbounded", "PPO 64 bits", "SAC", "SAC discrete"]
)
def test_drawn_actions_have_the_log_probability_that_rllib_gives_them(name: str) -> None:
    one, observations = made(name)
    policy = export_policy(one.module, **one.pipelines)
    found = one.run(observations[:200], explore=True)
    actions = np.array(found.get("actions_for_env", found["actions"]))
    stretch = 0.0
    if isinstance(one.action_space, spaces.Box) and one.action_space.is_bounded():  # a density in units of the action
        stretch = np.log(2.0 / (one.action_space.high - one.action_space.low)).sum()
    compared = 0
    for observation, action, expected in zip(observations, actions, found["action_logp"], strict=False):
        if isinstance(one.action_space, spaces.Box):
            margin = 1e-3 * np.minimum(one.action_space.high - one.action_space.low, 1.0)
            if ((action < one.action_space.low + margin) | (action > one.action_space.high - margin)).any():
                continue  # on a bound it is a probability, and near it 32 bits say little of what was squashed
        assert policy.log_probability(observation, action) == pytest.approx(float(expected) + stretch, abs=1e-3)
        compared += 1
    assert compared > 50


@pytest.mark.parametrize("settings", [{"normalize_actions": False, "clip_actions": False}, {}], ids=["free", "half"])
def test_an_exported_policy_never_leaves_the_action_space(settings: dict[str, bool]) -> None:
    low = np.array([0.1, -np.inf], np.float32) if not settings else np.array([-0.1, -0.1], np.float32)
    space = spaces.Box(low, np.array([0.2, 0.2], np.float32))
    one = rllib("PPO", STATE, space, settings=settings)
    observations = observations_of(STATE, 200)
    assert not all(space.contains(action) for action in one.actions(observations))  # RLlib's own do
    policy = export_policy(one.module, **one.pipelines)
    expected = one.actions(observations).clip(space.low, space.high)
    assert policy.act_batch(observations) == pytest.approx(expected, abs=TOLERANCE)
    assert all(space.contains(action) for action in policy.act_batch(observations, rng=generator(0, "act")))


def test_epsilon_is_the_share_of_uniformly_random_actions() -> None:
    one, observations = made("DQN")
    policy = export_policy(one.module, **one.pipelines, epsilon=0.3)
    found = policy.probabilities(observations[0])
    assert sorted(found.tolist()) == pytest.approx([0.1, 0.1, 0.8])
    assert found.argmax() == one.actions(observations[:1])[0]


@pytest.mark.parametrize("name", ["nested", "image", "counted from 3"])
def test_wrappers_that_flatten_and_scale_are_undone(name: str) -> None:
    raw: Space[Any] = {
        "nested": NESTED,
        "image": spaces.Box(0, 255, (12, 12, 3), np.uint8),
        "counted from 3": spaces.MultiDiscrete([3, 2], start=[3, 0]),
    }[name]
    given = (
        IMAGE
        if name == "image"
        else spaces.flatten_space(spaces.Dict(sorted(raw.items())) if name == "nested" else raw)
    )
    given = given if name == "image" else spaces.Box(-np.inf, np.inf, given.shape, np.float32)

    def view(observation: Any) -> Any:
        if name == "image":
            return observation.astype(np.float32) / np.float32(255)
        space = spaces.Dict(sorted(raw.items())) if isinstance(raw, spaces.Dict) else raw
        return spaces.flatten(space, observation).astype(np.float32)

    one = rllib("PPO", given, PUSH, **(SMALL_CNN if name == "image" else {}))
    observations = observations_of(raw, 300)
    policy = export_policy(one.module, **one.pipelines, observation_space=raw, action_space=spaces.Discrete(3, start=1))
    expected = one.actions([view(observation) for observation in observations])
    assert (policy.act_batch(observations) == expected + 1).mean() > 0.99


def test_what_has_no_counterpart_is_refused() -> None:
    from ray.rllib.connectors.env_to_module.observation_preprocessor import SingleAgentObservationPreprocessor

    class Mirror(SingleAgentObservationPreprocessor):
        def preprocess(self, observation: Any, episode: Any) -> Any:
            return -observation

    one = rllib("PPO", STATE, PUSH)
    with pytest.raises(UserError, match=r"was given observations of Box.* the environment gives Dict"):
        export_policy(one.module, **one.pipelines, observation_space=NESTED)
    fixed = spaces.Box(np.array([0.0, 1.0], np.float32), np.array([1.0, 1.0], np.float32))
    with pytest.raises(UserError, match="cannot be exported: a component has but one value"):
        export_policy(rllib("PPO", STATE, fixed).module, **one.pipelines, action_space=fixed)
    one.env_to_module.prepend(Mirror())
    with pytest.raises(UserError, match=r"connector Mirror cannot be exported; do its work in an env wrapper"):
        export_policy(one.module, **one.pipelines)


def test_a_network_that_decides_in_python_is_refused() -> None:
    one = rllib("PPO", STATE, PUSH)
    forward = one.module._forward
    one.module._forward = lambda batch, **_: (
        forward(batch) if batch["obs"].abs().sum() == 0 else forward({"obs": -batch["obs"]})
    )
    with pytest.raises(UserError, match="computes something else once exported"):
        export_policy(one.module, **one.pipelines)


@pytest.mark.parametrize("training", [True, False])
def test_exporting_leaves_the_module_as_it_was(training: bool) -> None:
    one, observations = made("PPO free deviation")
    before = one.actions(observations[:20]).tolist()
    one.module.train(training)
    export_policy(one.module, **one.pipelines)
    assert all(part.training == training and not part._forward_hooks for part in one.module.modules())
    assert one.actions(observations[:20]).tolist() == before


def test_a_bundle_of_an_exported_policy_acts_where_ray_and_torch_are_absent(tmp_path: Path) -> None:
    one, observations = made("SAC filter")
    policy = export_policy(one.module, **one.pipelines)
    env = gym.make("Pendulum-v1")
    env.observation_space, env.action_space = one.observation_space, one.action_space
    env.step = lambda action: (observations[int(1e3 * abs(float(action[0]))) % N], 0.0, False, False, {})
    env.reset = lambda **_: (observations[0], {})
    write_bundle(tmp_path / "bundle", policy, env=env, lineage=Lineage(), metrics={})
    pack(tmp_path / "bundle", tmp_path / "model.tar.gz")
    code = f"""
import json, sys
for name in ("ray", "torch", "onnx"):
    sys.modules[name] = None
from pathlib import Path
from policylab.agents.bundle import load_bundle
bundle = load_bundle(Path({str(tmp_path / "model.tar.gz")!r}))
print(json.dumps(bundle.policy.act_batch(json.loads(sys.stdin.read())).tolist()))
"""
    batch = json.dumps([observation.tolist() for observation in observations[:50]])
    done = subprocess.run([sys.executable, "-c", code], input=batch, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.array(json.loads(done.stdout)) - one.actions(observations[:50])).max() <= TOLERANCE
