"""Record, learn from the record, and act as well: BC, MARWIL and CQL from Parquet files."""

import itertools
import json

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents.bundle import Lineage, load_bundle, write_bundle
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.rllib.dataset import read_dataset
from policylab.agents.rllib.spaces import observations
from policylab.agents.transitions import read_transitions
from policylab.cli.experiment import summary
from policylab.cli.main import main
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import CheckpointError, UserError
from policylab.experiments.evaluation import RolloutEvaluator
from policylab.experiments.recording import record
from policylab.experiments.rundir import create_run
from policylab.experiments.runner import drive
from policylab.experiments.schema import ExperimentConfig

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
onnx = pytest.importorskip("onnx")

CARTPOLE = EnvSettings(id="CartPole-v1", max_episode_steps=200)
PENDULUM = EnvSettings(id="Pendulum-v1", max_episode_steps=50)


def linear_bundle(folder, settings, weights, distribution):
    """Return the bundle of a policy whose network is one matrix."""
    matrix = np.array(weights, np.float32)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["observation", "w"], ["outputs"])],
        "linear",
        [onnx.helper.make_tensor_value_info("observation", onnx.TensorProto.FLOAT, ["n", matrix.shape[0]])],
        [onnx.helper.make_tensor_value_info("outputs", onnx.TensorProto.FLOAT, ["n", matrix.shape[1]])],
        [onnx.numpy_helper.from_array(matrix, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    stated = OnnxSettings.model_validate({"inputs": {"observation": []}, "distribution": distribution})
    policy = OnnxPolicy(model.SerializeToString(), stated)
    env = make_env(settings)
    return write_bundle(folder, policy, env=env, lineage=Lineage(config_hash="a" * 64), metrics={})


@pytest.fixture(scope="module")
def balancing(tmp_path_factory):
    """A record of a scripted policy that balances the pole: it pushes to where the pole falls."""
    folder = tmp_path_factory.mktemp("balancing")
    weights = [[0.0, 1.0], [0.0, 2.0], [0.0, 20.0], [0.0, 20.0]]
    linear_bundle(folder / "bundle", CARTPOLE, weights, {"kind": "categorical", "n_actions": 2})
    bundle = load_bundle(folder / "bundle")
    return record(bundle, folder / "cartpole.parquet", episodes=15, seed=3), bundle


@pytest.fixture(scope="module")
def swinging(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swinging")
    weights = [[0.0, 0.0], [0.5, 0.0], [0.3, 0.0]]
    distribution = {"kind": "gaussian", "n_components": 1, "dtype": "float32", "low": [-2.0], "high": [2.0]}
    bundle = linear_bundle(folder / "bundle", PENDULUM, weights, distribution)
    return record(bundle, folder / "pendulum.parquet", episodes=6).path


def test_a_record_is_a_flat_compressed_table_that_says_what_it_is(balancing):
    recording, bundle = balancing
    file = parquet.ParquetFile(recording.path)
    table = file.read()
    assert recording.transitions == table.num_rows == file.metadata.num_rows
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert table.schema.field("obs").type == pa.list_(pa.float32(), 4)
    footer = json.loads(table.schema.metadata[b"policylab"])
    assert (footer["environment"]["id"], footer["seed"], footer["episodes"]) == ("CartPole-v1", 3, 15)
    rows = table.to_pylist()
    ends = [row for row in rows if row["terminated"] or row["truncated"]]
    assert [row["episode_id"] for row in ends] == list(range(15))
    for row, following in itertools.pairwise(rows):
        same = row["episode_id"] == following["episode_id"]
        assert not same or (row["next_obs"] == following["obs"] and row["t"] + 1 == following["t"])
    for row in rows[::97]:
        chances = bundle.policy.probabilities(np.array(row["obs"], np.float32))
        assert row["propensity"] == pytest.approx(chances[row["action"]])
        assert np.exp(row["log_propensity"]) == pytest.approx(row["propensity"])
    assert {row["policy_id"] for row in rows} == {bundle.digest}
    assert {(row["env_id"], row["spec_hash"], row["seed"]) for row in rows} == {("CartPole-v1", "a" * 64, 3)}


def test_a_record_is_the_same_again_but_for_its_times(balancing, tmp_path):
    recording, bundle = balancing
    again = record(bundle, tmp_path / "again.parquet", episodes=15, seed=3)
    assert again.return_mean == recording.return_mean
    one, other = (parquet.read_table(path).drop_columns("timestamp") for path in (again.path, recording.path))
    assert one.equals(other)


def test_a_deterministic_record_has_no_density_for_continuous_actions(swinging, tmp_path):
    bundle = load_bundle(swinging.parent / "bundle")
    path = record(bundle, tmp_path / "mode.parquet", episodes=1, deterministic=True).path
    assert parquet.read_table(path).column("propensity").null_count == 50
    assert parquet.read_table(swinging).column("propensity").null_count == 0


def test_bc_learns_to_act_as_well_as_the_record(make, balancing):
    recording, _ = balancing
    agent = make("BC", CARTPOLE, dataset=str(recording.path), learning_rate=3e-3, network={"hidden": [32]})
    evaluator = RolloutEvaluator(CARTPOLE, seed=0)
    before = evaluator(agent.policy(), episodes=10).value
    report = agent.learn(60_000)
    after = evaluator(agent.policy(), episodes=10).value
    assert report.steps >= 60_000
    assert report.episodes == 0
    assert "train/return_mean" not in report.metrics
    assert report.metrics["train/policy_loss"] < 0.4 < np.log(2)
    assert recording.return_mean > 150
    assert before < 100 < 150 < after
    assert "none is taken in the environment" in agent.execution_report["steps"]


@pytest.mark.parametrize("algorithm", ["MARWIL", "CQL", "BC"])
def test_continuous_actions_are_learned_exported_and_resumed(make, swinging, tmp_path, algorithm):
    given = {"dataset": str(swinging), "network": {"hidden": [16]}, "batch_size": 64}
    agent = make(algorithm, PENDULUM, **given)
    first = agent.policy().outputs([np.zeros(3, np.float32)]).copy()
    agent.learn(1)
    policy = agent.policy()
    assert agent.steps == 8 * 64
    assert not np.array_equal(policy.outputs([np.zeros(3, np.float32)]), first)
    drawn = policy.act_batch(np.zeros((50, 3), np.float32), rng=np.random.default_rng(0))
    assert np.abs(drawn).max() <= 2.0
    agent.save(tmp_path / "saved")
    other = make(algorithm, PENDULUM, **given, learning_rate=1e-5)
    other.restore(tmp_path / "saved")
    assert other.steps == agent.steps
    assert np.array_equal(other.policy().outputs([np.ones(3, np.float32)]), policy.outputs([np.ones(3, np.float32)]))
    assert other.learn(1).steps == 2 * 8 * 64
    assert set(other._learner.learning_rates().values()) == {1e-5}


def test_a_schedule_stretches_over_the_transitions_learned_from(make, swinging):
    rate = {"kind": "linear", "start": 1e-3, "end": 0.0}
    agent = make("CQL", PENDULUM, dataset=str(swinging), batch_size=64, budget_steps=2048, learning_rate=rate)
    agent.learn(1024)
    assert list(agent._learner.learning_rates().values()) == pytest.approx([5e-4] * 4)


def test_actions_are_learned_in_the_units_networks_give_them(swinging):
    env = make_env(PENDULUM)
    held = read_transitions(swinging)
    view = observations(env.observation_space, env_id="x")
    dataset = read_dataset(str(swinging), env=env, view=view, env_id=PENDULUM.id)
    assert np.allclose(2.0 * dataset.actions, np.clip(held.columns["action"], -2, 2))
    assert (dataset.n_episodes, len(dataset)) == (6, 300)
    episodes = dataset.stretches(120, np.random.default_rng(0))
    assert sum(len(episode) for episode in episodes) == 120


def test_another_record_is_another_run(make, swinging, balancing, tmp_path):
    given = {"network": {"hidden": [16]}, "batch_size": 64}
    agent = make("BC", PENDULUM, dataset=str(swinging), **given)
    agent.save(tmp_path / "saved")
    bundle = load_bundle(swinging.parent / "bundle")
    other = record(bundle, tmp_path / "other.parquet", episodes=2, seed=9)
    with pytest.raises(CheckpointError, match="saved by another agent"):
        make("BC", PENDULUM, dataset=str(other.path), **given).restore(tmp_path / "saved")
    with pytest.raises(UserError, match="was recorded in CartPole-v1, but the experiment's environment is Pendulum-v1"):
        make("BC", PENDULUM, dataset=str(balancing[0].path), **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["reward", "t"]), r"has no column 't', 'reward'"),
        (lambda table: table.slice(0, 0), "holds no transitions"),
        (lambda table: table.slice(0, 5).take([0, 1, 3, 4]), "steps missing or out of order"),
        (lambda table: table.set_column(3, "action", pa.array([7] * table.num_rows)), r"actions that are not of Discr"),
        (lambda table: table.set_column(2, "obs", pa.array(["x"] * table.num_rows)), "column 'obs' must hold finite"),
        (lambda table: table.set_column(2, "obs", table.column("action")), "observations of shape"),
    ],
)
def test_a_foreign_file_is_one_clear_error(make, balancing, tmp_path, change, message):
    path = tmp_path / "foreign.parquet"
    parquet.write_table(change(parquet.read_table(balancing[0].path)), path)
    with pytest.raises(UserError, match=message):
        make("BC", CARTPOLE, dataset=str(path))


def test_a_damaged_file_is_one_clear_error(make, balancing, tmp_path):
    content = balancing[0].path.read_bytes()
    path = tmp_path / "damaged.parquet"
    middle = len(content) // 2
    for broken in (content[:middle], b"", b"no parquet", content[:middle] + b"\xff" * 4000 + content[middle + 4000 :]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"damaged\.parquet (cannot be read|is damaged)"):
            make("BC", CARTPOLE, dataset=str(path))
    with pytest.raises(UserError, match="No such file"):
        make("BC", CARTPOLE, dataset=str(tmp_path / "absent.parquet"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "BC"}, "BC learns from recorded transitions; name their Parquet file as `dataset`"),
        ({"algorithm": "PPO", "dataset": "x"}, "PPO samples what it learns from; remove `dataset`, or choose BC"),
        ({"algorithm": "CQL", "dataset": "x", "n_learners": 2}, "remove `n_learners`"),
        ({"algorithm": "BC", "dataset": "x", "observation_filter": "mean_std"}, "BC samples nothing"),
    ],
)
def test_what_does_not_go_together_is_refused(make, settings, message):
    with pytest.raises(UserError, match=message):
        make(**settings)


def test_gymnasium_observations_of_every_kind_come_back(tmp_path):
    """A Discrete observation is stored as it is, a Dict flattened."""
    from policylab.agents.features import AutoFeatures, make_encoder
    from policylab.agents.transitions import stored
    from policylab.agents.value_policies import TabularPolicy

    space = gym.spaces.Dict({"b": gym.spaces.Discrete(3), "a": gym.spaces.Box(-1, 1, (2,))})
    space.seed(0)
    sample = space.sample()
    assert gym.spaces.unflatten(space, stored(space, sample))["b"] == sample["b"]
    settings = EnvSettings(id="FrozenLake-v1")
    bundle = write_bundle(
        tmp_path / "bundle",
        TabularPolicy(np.zeros((16, 4)), make_encoder(AutoFeatures(), gym.spaces.Discrete(16))),
        env=make_env(settings),
        lineage=Lineage(),
        metrics={},
    )
    path = record(bundle, tmp_path / "lake.parquet", episodes=3).path
    assert parquet.read_table(path).schema.field("obs").type == pa.int64()
    env = make_env(settings)
    view = observations(env.observation_space, env_id="x")
    dataset = read_dataset(str(path), env=env, view=view, env_id="FrozenLake-v1")
    assert dataset.observations.shape[1:] == (16,)
    assert (dataset.observations.argmax(axis=1) == read_transitions(path).columns["obs"]).all()


def test_an_experiment_on_a_record_accounts_for_what_it_used_and_warns(balancing, tmp_path):
    """Too deep a network: its first layers learn nothing, the return stays flat, and the result says both."""
    network = {"hidden": [8] * 24, "activation": "tanh"}
    agent = {
        "kind": "rllib",
        "algorithm": "BC",
        "dataset": str(balancing[0].path),
        "batch_size": 64,
        "network": network,
    }
    given = {
        "name": "clone",
        "env": CARTPOLE.model_dump(mode="json"),
        "agent": {**agent, "network": network},
        "budget": {"steps": 40_960, "early_stopping": {"patience": 3, "min_delta": 1000.0}},
        "seeds": {"tune": 1, "confirm": 0},
        "evaluation": {"marks": 10, "episodes": 2, "final_episodes": 2},
        "tracking": {"kind": "none"},
    }
    run = create_run(ExperimentConfig.model_validate(given), parent=tmp_path)
    document = drive(run)
    (ended,) = document["ended_early"]
    assert (ended["steps"], ended["unused_steps"]) == (4 * 4096, 6 * 4096)
    assert (document["cost"]["env_steps"], document["cost"]["transitions"]) == (0, 4 * 4096)
    assert document["execution"]["dataset"].endswith(read_transitions(balancing[0].path).digest)
    vanishing = [text for text in document["warnings"] if "vanishing gradient in layer encoder." in text]
    assert vanishing
    assert all(text.startswith("trials/0000/tune-000: ") for text in vanishing)
    text = summary(document)
    assert "16,384 recorded transitions in 1 runs" in text
    assert "ended early" in text
    assert load_bundle(run.path / "bundle").policy.act(np.zeros(4, np.float32)) in (0, 1)


def test_the_command_records_a_bundle(balancing, tmp_path, capsys):
    bundle, out = balancing[0].path.parent / "bundle", tmp_path / "made" / "here.parquet"
    assert main(["record", str(bundle), "--out", str(out), "--episodes", "2", "--seed", "5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["transitions"] == len(read_transitions(out)) > 0
    assert [path.name for path in out.parent.iterdir()] == ["here.parquet"]
    assert main(["record", str(bundle), "--out", str(out), "--episodes", "0"]) == 2
    assert "episodes must be at least 1, got 0" in capsys.readouterr().err
