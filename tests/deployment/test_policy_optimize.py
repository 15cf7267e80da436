"""Optimised policies: equal where that is promised, within their bound elsewhere, refused beyond it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.deployment.conftest import LINEAGE, lake_bundle
from tests.deployment.networks import dense_network, one_hot_network

from policylab.agents.action_distributions import Categorical, Gaussian, QValues
from policylab.agents.bundle import Bundle, load_bundle, write_bundle
from policylab.agents.features import AutoFeatures, TilesFeatures, make_encoder
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.tree_policy import TreePolicy, TreeSettings
from policylab.agents.value_policies import TabularPolicy
from policylab.cli.main import main
from policylab.deployment.optimization import OptimizeSettings, optimize
from policylab.deployment.optimization.graphs import folded, pruned, quantized
from policylab.deployment.optimization.regression_tree import grow
from policylab.deployment.optimization.small_network import SmallNetwork
from policylab.deployment.optimization.tables import every
from policylab.deployment.served_policy import Draw, ServedPolicy
from policylab.envs.enumeration import table_for
from policylab.envs.planners import value_iteration
from policylab.envs.settings import EnvSettings
from policylab.errors import RunError, UserError
from policylab.seeding import generator

VECTORS = generator(1, "observations").normal(size=(500, 4)).astype(np.float32)


def lake_values() -> Any:
    mdp = table_for(EnvSettings(id="FrozenLake-v1"), mean_rewards=True)
    assert mdp is not None
    return value_iteration(mdp, discount=0.99).action_values


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A network that acts optimally on FrozenLake."""
    network = one_hot_network(10.0 * lake_values(), Categorical(n_actions=4))
    folder = tmp_path_factory.mktemp("lake")
    return write_bundle(folder, network, env=gym.make("FrozenLake-v1"), lineage=LINEAGE, metrics={})


@pytest.fixture(scope="module")
def pole(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A table of tiles that pushes the cart to where the pole leans, and so balances it for a while."""
    env = gym.make("CartPole-v1")
    settings = TilesFeatures(n_tilings=1, n_tiles=(1, 1, 24, 24), low=(-5, -5, -0.3, -3), high=(5, 5, 0.3, 3))
    encoder = make_encoder(settings, env.observation_space)
    weights = np.zeros((encoder.n_features, 2))
    for angle in np.linspace(-0.299, 0.299, 200):
        for speed in np.linspace(-2.99, 2.99, 200):
            cell = encoder.encode(np.array([0.0, 0.0, angle, speed]))[0]
            weights[cell, 1] = angle + 0.3 * speed
    folder = tmp_path_factory.mktemp("pole")
    policy = TabularPolicy(weights, encoder, epsilon=0.1)
    return write_bundle(folder, policy, env=env, lineage=LINEAGE, metrics={})


# ------------------------------------------------------------------ tables


@pytest.mark.parametrize("distribution", [Categorical(n_actions=4), QValues(n_actions=4, epsilon=0.2)])
def test_a_table_equals_its_network_on_every_state(distribution: Any, tmp_path: Path) -> None:
    network = one_hot_network(generator(2, "logits").normal(size=(16, 4)), distribution)
    env = gym.make("FrozenLake-v1")
    source = write_bundle(tmp_path / "net", network, env=env, lineage=LINEAGE, metrics={})
    found = optimize(source, tmp_path / "table", settings=OptimizeSettings(how="table", max_loss=0.0))
    table: Any = load_bundle(tmp_path / "table").policy
    assert isinstance(table, TabularPolicy)
    for state in range(16):
        assert table.act(state) == network.act(state)
        assert table.probabilities(state) == pytest.approx(network.probabilities(state), abs=1e-12)
    assert (found.loss.value, found.loss.exact) == (0.0, True)
    assert found.bundle.manifest.lineage.parent == source.digest


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        spaces.MultiDiscrete(np.array([[2, 3], [1, 2]])),
        spaces.MultiBinary(3),
        spaces.Tuple([spaces.Discrete(3), spaces.Discrete(2, start=4)]),
    ],
    ids=str,
)
def test_every_observation_comes_in_the_order_of_its_index(space: Any) -> None:
    encoder = make_encoder(AutoFeatures(), space)
    observations = list(every(space))
    assert [int(encoder.encode(one)[0]) for one in observations] == list(range(encoder.n_features))
    assert all(
        space.contains(one) for one in observations[:: max(1, len(observations) // 4)] if not isinstance(one, int)
    )


def test_a_table_of_a_table_or_of_vectors_is_refused(lake: Bundle, tmp_path: Path) -> None:
    settings = OptimizeSettings(how="table")
    with pytest.raises(UserError, match="of the kind 'tabular' is a table already"):
        optimize(load_bundle(lake_bundle(tmp_path / "t")), tmp_path / "out", settings=settings)
    network = dense_network((4, 8, 2), Categorical(n_actions=2))
    source = write_bundle(tmp_path / "n", network, env=gym.make("CartPole-v1"), lineage=LINEAGE, metrics={})
    with pytest.raises(UserError, match=r"observations that can be counted.*use distill-tree"):
        optimize(source, tmp_path / "out", settings=settings)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------ graphs


def test_a_folded_graph_computes_the_same(lake: Bundle) -> None:
    again = folded(lake)
    assert isinstance(lake.policy, OnnxPolicy)
    assert again.outputs(range(16)) == pytest.approx(lake.policy.outputs(range(16)), abs=1e-6)


def test_weights_of_8_bits_move_outputs_within_their_bound(tmp_path: Path) -> None:
    network = dense_network((4, 3), Categorical(n_actions=3))
    bundle = _of_vectors(network, tmp_path)
    small = quantized(bundle)
    from onnx import load_model_from_string, numpy_helper

    arrays = {one.name: numpy_helper.to_array(one) for one in load_model_from_string(network.model).graph.initializer}
    scale = np.abs(arrays["w0"]).max(axis=1) / 127
    bound = 0.5 * np.abs(VECTORS).sum(axis=1, keepdims=True) * scale
    moved = np.abs(small.outputs(VECTORS) - network.outputs(VECTORS))
    assert (moved <= bound * 1.0001 + 1e-6).all()
    assert moved.max() > 0.0
    kinds = {one.name: one.data_type for one in load_model_from_string(small.model).graph.initializer}
    assert kinds["w0.int8"] == 3  # TensorProto.INT8
    assert "w0" not in kinds


def test_a_quantised_policy_of_several_layers_is_a_quarter_of_the_size_and_acts_alike(tmp_path: Path) -> None:
    network = dense_network((4, 128, 128, 2), Categorical(n_actions=2))
    small = quantized(_of_vectors(network, tmp_path))
    assert len(small.model) < 0.33 * len(network.model)
    gap = network.outputs(VECTORS)[:, 0] - network.outputs(VECTORS)[:, 1]
    clear = np.abs(gap) > 0.05
    assert (small.act_batch(VECTORS) == network.act_batch(VECTORS))[clear].all()
    for row in VECTORS[:20]:  # what else is in a batch plays no part
        assert small.outputs([row]) == pytest.approx(small.outputs(VECTORS[[0, 1]] * 0 + row)[:1], abs=1e-6)


def test_pruning_units_that_say_nothing_changes_nothing(tmp_path: Path) -> None:
    network = dense_network((4, 16, 2), Categorical(n_actions=2))
    from onnx import load_model_from_string, numpy_helper

    model = load_model_from_string(network.model)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w0":
            array[[1, 4, 7, 12]] = 0.0  # these units give tanh of their bias, whatever they see
            tensor.CopyFrom(numpy_helper.from_array(array, "w0"))
    network = OnnxPolicy(model.SerializeToString(), network.settings)
    small = pruned(_of_vectors(network, tmp_path), share=0.25, observations=list(VECTORS))
    assert small.outputs(VECTORS) == pytest.approx(network.outputs(VECTORS), abs=1e-5)
    shapes = {one.name: tuple(one.dims) for one in load_model_from_string(small.model).graph.initializer}
    assert shapes["w0"] == (12, 4)
    assert shapes["w1"] == (2, 12)


def test_graphs_are_refused_for_tables_and_pruning_for_a_single_layer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is for networks, but the policy is of the kind 'tabular'"):
        folded(load_bundle(lake_bundle(tmp_path / "t")))
    single = _of_vectors(dense_network((4, 3), Categorical(n_actions=3)), tmp_path / "n")
    with pytest.raises(UserError, match="no hidden dense layer"):
        pruned(single, share=0.5, observations=list(VECTORS))


def _of_vectors(network: OnnxPolicy, folder: Path) -> Bundle:
    env: Any = gym.make("CartPole-v1")
    env.action_space = spaces.Discrete(network.settings.distribution.n_outputs)
    env.step = lambda action: (env.observation_space.sample(), 0.0, True, False, {})
    return write_bundle(folder / "source", network, env=env, lineage=LINEAGE, metrics={})


# ------------------------------------------------------------------ distillation


def test_a_grown_tree_finds_the_boxes_its_targets_are_made_of() -> None:
    x = generator(3, "rows").uniform(size=(2_000, 3))
    y = np.eye(2)[((x[:, 0] > 0.3) & (x[:, 2] <= 0.7)).astype(int)]
    arrays = grow(x, y, depth=2)
    tree = TreePolicy(arrays, TreeSettings(n_features=3, distribution=QValues(n_actions=2)))
    assert {0, 2} <= set(arrays["feature"].tolist())
    assert (tree.act_batch(x) == y.argmax(axis=1)).mean() > 0.995


def test_a_small_network_learns_probabilities_and_its_graph_computes_them() -> None:
    rng = generator(4, "fit")
    x = rng.normal(loc=50.0, scale=[1.0, 100.0], size=(3_000, 2))
    logits = np.stack([(x[:, 0] - 50.0), np.zeros(len(x))], axis=1)
    targets = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    network = SmallNetwork(x, [8, 2], rng=rng)
    network.fit(x, targets, classes=True, rng=rng)
    settings = OnnxSettings(inputs={"x": ()}, distribution=Categorical(n_actions=2))
    policy = OnnxPolicy(network.model("x"), settings)
    found = policy.probabilities_batch(list(x.astype(np.float32)))
    assert np.abs(found - targets).mean() < 0.04


@pytest.mark.parametrize("how", ["distill-tree", "distill-network"])
def test_what_is_distilled_plays_as_well_on_the_same_episodes(pole: Bundle, how: Any, tmp_path: Path) -> None:
    settings = OptimizeSettings(how=how, max_loss=100.0, episodes=50, observations=4_000, hidden=(16,))
    found = optimize(pole, tmp_path / "small", settings=settings)
    assert found.loss.source > 150.0
    assert found.loss.low <= found.loss.value <= found.loss.high <= 100.0
    assert (found.loss.exact, found.loss.episodes) == (False, 50)
    assert found.after.n_bytes < 20_000
    policy: Any = load_bundle(tmp_path / "small").policy
    assert policy.settings.distribution == QValues(n_actions=2, epsilon=0.1)
    assert max(policy.probabilities(VECTORS[0])) == pytest.approx(0.95)
    served = ServedPolicy(found.bundle, exploration=True)
    assert served.choose([VECTORS[0]], None, draw=Draw(b"s", "1"))[0].action in (0, 1)
    again = optimize(pole, tmp_path / "again", settings=settings)
    assert again.bundle.manifest.files == found.bundle.manifest.files  # the seed decides everything


def test_a_tree_of_a_lake_is_valued_exactly_and_refused_if_it_is_too_small(lake: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"distill-tree loses 0\.\d+ of the return 0\.74\d+, exactly, and 0\.01 is allowed"
    ):
        optimize(lake, tmp_path / "o", settings=_lake_tree(depth=1, max_loss=0.01))
    assert not (tmp_path / "o").exists()
    found = optimize(lake, tmp_path / "o", settings=_lake_tree(depth=8, max_loss=0.01))
    assert found.loss.exact
    assert isinstance(found.bundle.policy, TreePolicy)


def _lake_tree(*, depth: int, max_loss: float) -> OptimizeSettings:
    return OptimizeSettings(how="distill-tree", depth=depth, max_loss=max_loss, observations=2_000)


def test_continuous_actions_are_distilled(tmp_path: Path) -> None:
    distribution = Gaussian(n_components=1, low=(-2.0,), high=(2.0,))
    network = dense_network((3, 8, 2), distribution)
    source = write_bundle(tmp_path / "n", network, env=gym.make("Pendulum-v1"), lineage=LINEAGE, metrics={})
    for how in ("distill-tree", "distill-network"):
        settings = OptimizeSettings(how=how, max_loss=1e4, episodes=10, observations=2_000)  # type: ignore[arg-type]
        found = optimize(source, tmp_path / how, settings=settings)
        action = found.bundle.policy.act(np.array([1.0, 0.0, 0.0], np.float32))
        assert action == pytest.approx(network.act(np.array([1.0, 0.0, 0.0], np.float32)), abs=0.3)


def test_few_episodes_are_no_evidence(pole: Bundle, tmp_path: Path) -> None:
    settings = OptimizeSettings(how="distill-tree", depth=1, max_loss=0.0, episodes=10, observations=400)
    with pytest.raises(RunError, match=r"at 95% confidence over 10 paired episodes, and 0 is allowed; nothing"):
        optimize(pole, tmp_path / "o", settings=settings)
    assert not (tmp_path / "o").exists()


# ------------------------------------------------------------------ command line


def test_the_command_writes_a_bundle_and_tells_what_it_cost(
    lake: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path / "b", lake.policy, env=gym.make("FrozenLake-v1"), lineage=LINEAGE, metrics={})  # type: ignore[arg-type]
    out = str(tmp_path / "table")
    assert main(["policy", "optimize", str(tmp_path / "b"), "--how", "table", "--out", out, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["loss"] == {**document["loss"], "value": 0.0, "exact": True}
    assert document["kind"] == "tabular"
    assert document["digest"] == load_bundle(tmp_path / "table").digest

    tiny = ["policy", "optimize", str(tmp_path / "b"), "--how", "distill-tree", "--depth", "1", "--out", out + "2"]
    assert main([*tiny, "--json"]) == 1
    assert "nothing was written" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not Path(out + "2").exists()
    assert main([*tiny, "--confidence", "2"]) == 2
    assert "--confidence: Input should be less than 1, got 2.0" in capsys.readouterr().err
