"""ONNX policies and their bundles: acting, golden vectors, and refusal of models that could do more than compute."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from policylab.agents import onnx_graph, onnx_policy
from policylab.agents.action_distributions import Categorical, Gaussian, MultiCategorical, QValues
from policylab.agents.bundle import Lineage, load_bundle, pack, write_bundle
from policylab.agents.features import AutoFeatures, make_encoder
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.policy import policy_from
from policylab.agents.value_policies import TabularPolicy
from policylab.errors import BundleError, MissingExtraError, UserError
from policylab.files import content_hash
from policylab.seeding import generator

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

LINEAGE = Lineage(created_utc="2026-01-01T00:00:00+00:00")
FLOAT = TensorProto.FLOAT


def graph(
    n_inputs: int, n_outputs: int, *, nodes: list[Any] | None = None, numbers: dict[str, Any] | None = None
) -> Any:
    """Return the model outputs = tanh(observation W + b), or one of other nodes and numbers."""
    draw = np.random.default_rng(0)
    numbers = numbers or {
        "W": draw.normal(size=(n_inputs, n_outputs)).astype(np.float32),
        "b": draw.normal(size=n_outputs).astype(np.float32),
    }
    nodes = nodes or [helper.make_node("Gemm", ["observation", "W", "b"], ["hidden"])]
    return helper.make_model(
        helper.make_graph(
            [*nodes, helper.make_node("Tanh", ["hidden"], ["outputs"])],
            "policy",
            [helper.make_tensor_value_info("observation", FLOAT, ["n", n_inputs])],
            [helper.make_tensor_value_info("outputs", FLOAT, ["n", n_outputs])],
            [numpy_helper.from_array(array, name) for name, array in numbers.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def policy(distribution: Any, *, n_inputs: int = 4) -> OnnxPolicy:
    model = graph(n_inputs, distribution.n_outputs)
    return OnnxPolicy(model.SerializeToString(), OnnxSettings(inputs={"observation": ()}, distribution=distribution))


DISTRIBUTIONS = {
    "categorical": Categorical(n_actions=2),
    "q-values": QValues(n_actions=2, epsilon=0.2),
    "multi": MultiCategorical(sizes=(2, 3), first_actions=(0, 1)),
    "gaussian": Gaussian(n_components=2, low=(-1.0, 0.0), high=(1.0, 5.0), rescale=True),
    "squashed": Gaussian(n_components=2, low=(-1.0, 0.0), high=(1.0, 5.0), rescale=True, squash=True),
}
BATCH = np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32)


# ------------------------------------------------------------------ acting


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_a_batch_acts_as_its_observations_do_one_by_one(distribution: Any) -> None:
    one = policy(distribution)
    for seed in (None, 5):
        batch = one.act_batch(BATCH, rng=None if seed is None else generator(seed, "act"))
        rng = None if seed is None else generator(seed, "act")
        single = np.array([one.act(observation, rng=rng) for observation in BATCH])
        assert batch.shape == single.shape
        assert batch == pytest.approx(single, abs=1e-5)
    assert one.act_batch(list(BATCH)) == pytest.approx(one.act_batch(BATCH))
    assert len(one.act_batch([])) == 0


@pytest.mark.parametrize("distribution", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_sample_acts_and_tells_the_log_probability_that_can_be_asked_for_later(distribution: Any) -> None:
    one = policy(distribution)
    for observation in BATCH[:20]:
        action, log_probability = one.sample(observation, generator(3, "act"))
        assert np.array_equal(action, one.act(observation, rng=generator(3, "act")))
        assert log_probability == pytest.approx(one.log_probability(observation, action), abs=1e-5)
        assert np.isfinite(log_probability)


def test_a_large_batch_is_computed_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    one = policy(DISTRIBUTIONS["gaussian"])
    whole = one.outputs(BATCH)
    monkeypatch.setattr(onnx_policy, "MAX_INPUT_BYTES", 7 * 16)
    assert one.outputs(BATCH) == pytest.approx(whole, abs=1e-6)


def test_listed_actions_have_probabilities_and_others_refuse() -> None:
    one = policy(DISTRIBUTIONS["q-values"])
    assert sorted(one.probabilities(BATCH[0]).tolist()) == pytest.approx([0.1, 0.9])
    assert one.log_probability(BATCH[0], one.act(BATCH[0])) == pytest.approx(np.log(0.9))
    assert type(one.act(BATCH[0])) is int
    with pytest.raises(UserError, match="'gaussian' policy has no list of action probabilities; use `log_probability`"):
        policy(DISTRIBUTIONS["gaussian"]).probabilities(BATCH[0])
    with pytest.raises(UserError, match="is not an action of this policy"):
        policy(DISTRIBUTIONS["gaussian"]).log_probability(BATCH[0], [0.0, 0.0, 0.0])


@pytest.mark.parametrize("observation", [[1.0, 2.0], [[1.0] * 4], 3, "abcd", None, {"a": 1}, [1, [2], 3, 4]])
def test_an_observation_of_another_shape_is_refused(observation: Any) -> None:
    with pytest.raises(UserError, match=r"an observation must be float32 of shape \(4,\)|batch is ragged"):
        policy(DISTRIBUTIONS["categorical"]).act(observation)


def test_parts_of_nested_observations_reach_their_inputs() -> None:
    inputs = [
        helper.make_tensor_value_info("cell", TensorProto.INT64, ["n"]),
        helper.make_tensor_value_info("speed", FLOAT, ["n", 2]),
    ]
    constants = {"depth": np.array(3), "values": np.array([0, 1], np.float32)}
    nodes = [
        helper.make_node("OneHot", ["cell", "depth", "values"], ["seen"]),
        helper.make_node("Concat", ["seen", "speed"], ["outputs"], axis=1),
    ]
    output = helper.make_tensor_value_info("outputs", FLOAT, ["n", 5])
    numbers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    made = helper.make_graph(nodes, "policy", inputs, [output], numbers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    settings = OnnxSettings(inputs={"cell": ("where", 0), "speed": ("speed",)}, distribution=Categorical(n_actions=5))
    one = OnnxPolicy(model, settings)
    observation = {"where": (2, "ignored"), "speed": np.array([7.0, 8.0], np.float32)}
    assert one.outputs([observation]).tolist() == [[0, 0, 1, 7, 8]]
    with pytest.raises(UserError, match=r"an observation at \['where', 0\] must be int64 of shape \(\), got float64"):
        one.act({**observation, "where": (0.5,)})
    with pytest.raises(UserError, match=r"no part \['speed'\]"):
        one.act({"where": (1,)})


def test_a_policy_rebuilt_from_its_parts_is_the_same() -> None:
    one = policy(DISTRIBUTIONS["squashed"])
    config = json.loads(json.dumps(one.config(), allow_nan=False))
    again = policy_from("onnx", config, arrays=one.arrays(), files=one.files())
    assert np.array_equal(again.act_batch(BATCH), one.act_batch(BATCH))


def test_a_policy_travels_to_another_process_of_a_cluster() -> None:
    one = policy(DISTRIBUTIONS["squashed"])
    assert np.array_equal(copy.deepcopy(one).act_batch(BATCH), one.act_batch(BATCH))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"distribution": Categorical(n_actions=3)},
            r"one float output of shape \(n, 3\) .* 'categorical', got .*\('n', 2\)",
        ),
        ({"inputs": {"other": ()}}, r"has the inputs \['observation'\], its settings name \['other'\]"),
    ],
)
def test_settings_that_do_not_fit_the_graph_are_refused(change: dict[str, Any], message: str) -> None:
    settings = {"inputs": {"observation": ()}, "distribution": Categorical(n_actions=2), **change}
    with pytest.raises(UserError, match=message):
        OnnxPolicy(graph(4, 2).SerializeToString(), OnnxSettings(**settings))


def test_without_onnxruntime_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_policy._capped_runtime.cache_clear()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"onnxruntime cannot be imported .* pip install 'policylab\[serve\]'"):
        policy(DISTRIBUTIONS["categorical"])


# ------------------------------------------------------------------ bundles


class World(gym.Wrapper[Any, Any, Any, Any]):
    """Random observations of any space, and actions of any."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 0.0, False, False, {}


STATE = spaces.Box(-2.0, 2.0, (4,), np.float32)
TORQUE = spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32))
ACTIONS = {
    "categorical": spaces.Discrete(2),
    "q-values": spaces.Discrete(2),
    "multi": spaces.MultiDiscrete([2, 3], start=[0, 1]),
    "gaussian": TORQUE,
    "squashed": TORQUE,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bundled(tmp_path / "bundle", "gaussian")


def bundled(folder: Path, name: str) -> Path:
    write_bundle(folder, policy(DISTRIBUTIONS[name]), env=World(STATE, ACTIONS[name]), lineage=LINEAGE, metrics={})
    return folder


def reseal(folder: Path, model: bytes | None = None, change: Callable[[dict[str, Any]], Any] = dict) -> None:
    """Replace the model, change the manifest and make all hashes right again, as an attacker would."""
    facts = json.loads((folder / "manifest.json").read_text())
    if model is not None:
        (folder / "model.onnx").write_bytes(model)
        facts["files"]["model.onnx"] = {"size": len(model), "sha256": hashlib.sha256(model).hexdigest()}
    change(facts)
    facts.pop("digest")
    facts["digest"] = content_hash(facts)
    (folder / "manifest.json").write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")


def refused(folder: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_bundle_gives_back_the_policy(tmp_path: Path, name: str) -> None:
    one = policy(DISTRIBUTIONS[name])
    pack(bundled(tmp_path / "bundle", name), tmp_path / "model.tar.gz")
    for bundle in (load_bundle(tmp_path / "bundle"), load_bundle(tmp_path / "model.tar.gz")):
        assert sorted(bundle.manifest.files) == ["model.onnx"]
        assert len(bundle.manifest.golden) == 16
        assert bundle.action_space == ACTIONS[name]
        assert np.array_equal(bundle.policy.act_batch(BATCH), one.act_batch(BATCH))
        action, log_probability = bundle.policy.sample(BATCH[0], generator(1, "act"))
        assert bundle.action_space.contains(action)
        assert log_probability == one.log_probability(BATCH[0], action)


def test_large_observations_have_few_golden_vectors(tmp_path: Path) -> None:
    image = spaces.Box(0.0, 1.0, (100, 100, 4), np.float32)
    flatten = [
        helper.make_node("Flatten", ["observation"], ["flat"]),
        helper.make_node("Gemm", ["flat", "W"], ["hidden"]),
    ]
    weights = np.random.default_rng(0).normal(size=(40_000, 2)).astype(np.float32) / 200
    model = graph(1, 2, nodes=flatten, numbers={"W": weights})
    shape = model.graph.input[0].type.tensor_type.shape
    del shape.dim[1:]
    for size in image.shape:
        shape.dim.add().dim_value = size
    one = OnnxPolicy(
        model.SerializeToString(), OnnxSettings(inputs={"observation": ()}, distribution=Categorical(n_actions=2))
    )
    bundle = write_bundle(tmp_path / "b", one, env=World(image, spaces.Discrete(2)), lineage=LINEAGE, metrics={})
    assert len(bundle.manifest.golden) == 2
    assert (tmp_path / "b" / "manifest.json").stat().st_size < 4e6


def test_a_bundle_of_another_kind_leaves_no_file_behind(folder: Path) -> None:
    bundled(folder, "categorical")
    env = gym.make("FrozenLake-v1")
    table = TabularPolicy(np.zeros((16, 4)), make_encoder(AutoFeatures(), env.observation_space))
    write_bundle(folder, table, env=env, lineage=LINEAGE, metrics={})
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "manifest.json"]
    bundled(folder, "categorical")
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"]


def test_the_bundle_runs_where_ray_torch_and_onnx_are_absent(folder: Path) -> None:
    code = f"""
import sys
for name in ("ray", "torch", "onnx", "mlflow", "pandas"):
    sys.modules[name] = None
from pathlib import Path
from policylab.agents.bundle import load_bundle
print(load_bundle(Path({str(folder)!r})).policy.act([0.5, -0.5, 1.0, 0.0]).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(
        policy(DISTRIBUTIONS["gaussian"]).act([0.5, -0.5, 1.0, 0.0]), abs=1e-6
    )


# ------------------------------------------------------------------ golden vectors


def test_a_model_with_other_weights_does_not_pass_its_golden_vectors(folder: Path) -> None:
    model = onnx.load_model_from_string((folder / "model.onnx").read_bytes())
    weights = np.frombuffer(model.graph.initializer[0].raw_data, np.float32)
    model.graph.initializer[0].raw_data = (weights + np.float32(1e-6)).tobytes()
    reseal(folder, model.SerializeToString())
    load_bundle(folder)  # as another processor may round
    model.graph.initializer[0].raw_data = (weights + np.float32(1e-2)).tobytes()
    reseal(folder, model.SerializeToString())
    refused(folder, "golden vector 0 is not reproduced: action")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(tolerance=1.0), "tolerance: Input should be less than or equal to 0.001"),
        (lambda f: f["golden"][0].update(action=[0.0, 0.0]), "golden vector 0 is not reproduced"),
        (lambda f: f["golden"][0].update(action=[0.0, 9.0]), "is not a value of the space"),
        (lambda f: f["golden"][0].update(log_probability=0.0), "golden vector 0 is not reproduced"),
        (lambda f: f["golden"][0].pop("log_probability"), "needs either probabilities or a log_probability"),
        (lambda f: f["golden"][0].update(probabilities=[1.0]), "needs either probabilities or a log_probability"),
        (
            lambda f: f["files"].update({"other.bin": f["files"]["model.onnx"]}),
            "'other.bin' is listed in manifest.json",
        ),
        (lambda f: f["policy"]["config"]["inputs"].update(observation=["x"]), r"the observation has no part \['x'\]"),
        (lambda f: f["policy"]["config"]["distribution"].update(kind="code"), "policy config: distribution: Input tag"),
        (lambda f: f["policy"]["config"]["distribution"].update(n_components=10**9), "distribution.gaussian.n_comp"),
        (lambda f: f["policy"].update(kind="tabular"), "policy config|needs no further files"),
        (lambda f: f.update(arrays={"W": {"dtype": "<f4", "shape": [2]}}), "manifest.json does not list arrays.npz"),
        (lambda f: f["environment"].update(id="x") or f["files"].clear(), "file 'model.onnx' is not listed"),
    ],
)
def test_a_manifest_that_lies_is_refused(folder: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    reseal(folder, change=change)
    refused(folder, message)


# ------------------------------------------------------------------ hostile models


def nodes_of(operator: str, **attributes: Any) -> list[Any]:
    return [helper.make_node(operator, ["observation"], ["hidden"], **attributes)]


def subgraph() -> list[Any]:
    branch = helper.make_graph([], "branch", [], [helper.make_tensor_value_info("outputs", FLOAT, [1])])
    return [helper.make_node("Identity", ["observation"], ["hidden"], body=branch)]


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    tensor.ClearField("raw_data")


def listed_numbers(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([0.0] * 16)


def not_a_number(model: Any) -> None:
    model.graph.initializer[1].raw_data = np.full(4, np.nan, np.float32).tobytes()


def crowd(model: Any) -> None:
    for i in range(onnx_graph.MAX_NODES):
        model.graph.node.append(helper.make_node("Neg", ["observation"], [f"n{i}"]))


HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "file": (external, "keeps tensors in another file"),
    "domain of a node": (
        lambda m: setattr(m.graph.node[0], "domain", "evil"),
        "uses operators of the domain 'evil'; only ONNX's own",
    ),
    "operator sets": (
        lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
        "uses operators of the domain 'com.microsoft'",
    ),
    "randomness": (lambda m: setattr(m.graph.node[0], "op_type", "RandomNormal"), "uses the operator 'RandomNormal'"),
    "control flow": (lambda m: setattr(m.graph.node[0], "op_type", "Loop"), "uses the operator 'Loop'"),
    "escape": (lambda m: setattr(m.graph.node[0], "op_type", "\x1b[31m\n"), "uses the operator"),
    "subgraph": (lambda m: m.graph.node.extend(subgraph()), r"uses a feature \(field 6 of its attribute\)"),
    "function": (
        lambda m: m.functions.add(name="f", domain="local"),
        r"uses a feature \(field 25 of its file\) that no policy needs",
    ),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), r"uses a feature \(field 15 of its graph\)"),
    "numbers as a list": (listed_numbers, r"uses a feature \(field 4 of its tensor\)"),
    "strings": (lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.STRING), "not an array of plain"),
    "shape": (lambda m: m.graph.initializer[0].dims.append(1000), "whose bytes do not fit its shape"),
    "negative shape": (lambda m: m.graph.initializer[0].dims.__setitem__(0, -4), "whose bytes do not fit its shape"),
    "nan": (not_a_number, "holds NaN or infinity, as after diverged learning"),
    "crowd": (crowd, "has more than 2000 nodes"),
    "no graph": (lambda m: m.ClearField("graph"), "has no graph"),
    "no output": (lambda m: m.graph.ClearField("output"), "must have one float output"),
    "dangling": (lambda m: m.graph.node[0].input.append("nothing"), "ONNX Runtime refuses the model"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused_in_one_sentence(folder: Path, name: str) -> None:
    change, message = HOSTILE[name]
    model = onnx.load_model_from_string((folder / "model.onnx").read_bytes())
    change(model)
    reseal(folder, model.SerializeToString())
    refused(folder, message)


def test_a_model_that_asks_for_all_memory_is_refused_before_it_gets_any(folder: Path) -> None:
    import resource

    numbers = {
        "column": np.ones((100_000, 1), np.float32),
        "row": np.ones((1, 100_000), np.float32),
        "axes": np.array([0, 1]),
        "ends": np.zeros((2, 4), np.float32),
    }
    nodes = [
        helper.make_node("ReduceSum", ["observation"], ["one"], keepdims=0),
        helper.make_node("Mul", ["column", "one"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "row"], ["forty_gigabytes"]),
        helper.make_node("ReduceSum", ["forty_gigabytes"], ["sum"], keepdims=0),
        helper.make_node("Add", ["sum", "ends"], ["hidden"]),
    ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reseal(folder, graph(4, 4, nodes=nodes, numbers=numbers).SerializeToString())
    refused(folder, "the ONNX model cannot be computed")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_a_model_beyond_the_cap_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "MAX_MODEL_BYTES", 100)
    refused(folder, "the ONNX model has .* bytes, a policy at most")


def test_a_damaged_file_is_refused(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[:-1])
    refused(folder, r"model.onnx has \d+ bytes, manifest.json says \d+; copy it again")
    (folder / "model.onnx").write_bytes(content[:-1] + b"x")
    refused(folder, "model.onnx was altered")
    (folder / "model.onnx").unlink()
    refused(folder, "'model.onnx' is listed in manifest.json but missing")


def test_a_truncated_model_is_refused_wherever_it_ends(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    for end in range(len(content)):
        reseal(folder, content[:end])
        with pytest.raises(BundleError, match=r"damaged|no graph|has a tensor|refuses the model|must have one"):
            load_bundle(folder)


def test_random_damage_is_refused_or_harmless(folder: Path) -> None:
    content, draw = (folder / "model.onnx").read_bytes(), random.Random(1)
    survived = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(draw.choice((1, 1, 3))):
            damaged[draw.randrange(len(content))] = draw.randrange(256)
        reseal(folder, bytes(damaged))
        try:
            load_bundle(folder)
            survived += 1
        except BundleError as error:
            assert str(error).isprintable()  # noqa: PT017 - names and notes may change without harm
    assert survived < 150


def test_an_archive_of_a_truncated_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "model.tar.gz")
    content = gzip.decompress((tmp_path / "model.tar.gz").read_bytes())
    (tmp_path / "model.tar.gz").write_bytes(gzip.compress(content[: len(content) // 2]))
    refused(tmp_path / "model.tar.gz", "is refused as a policy bundle")
