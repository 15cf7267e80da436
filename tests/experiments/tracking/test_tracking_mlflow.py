"""MLflow on SQLite: what a run directory looks like there, and that repeating a sync changes nothing."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents.action_distributions import Gaussian
from policylab.agents.bundle import Lineage, load_bundle, write_bundle
from policylab.agents.features import AutoFeatures, BinsFeatures, make_encoder
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.value_policies import TabularPolicy
from policylab.errors import RunDirectoryError, TrackingError, UserError
from policylab.experiments.tracking.mlflow_adapter import MlflowTracker
from policylab.experiments.tracking.mlflow_policy import save_policy, signature
from policylab.experiments.tracking.observation_rows import observations
from policylab.experiments.tracking.settings import MlflowTracking
from policylab.experiments.tracking.tracker import Projection

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about MLflow's own type hints
    import mlflow
    import mlflow.pyfunc

# Deprecations inside MLflow and its dependencies are not this project's to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def in_the_stores_folder(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.parent)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def client(store: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{store}")


def push(run: Any, store: Path, **fields: Any) -> MlflowTracker:
    settings = MlflowTracking(uri=f"sqlite:///{store}", **fields).resolved(experiment="lake", folder=store.parent)
    tracker = MlflowTracker(settings)
    projection = Projection(run.folder, tracker)
    projection.open()
    projection.push()
    return tracker


def trained(run: Any) -> Any:
    for name in ("0000/tune-000", "0000/tune-001", "0000/confirm-000"):
        run.trial(name)
        run.report(name, 3)
        run.result(name)
    run.finish()
    return run


def children(client: mlflow.MlflowClient, tracker: MlflowTracker) -> dict[str, Any]:
    found = client.search_runs([str(tracker.experiment_id)], f"tags.`mlflow.parentRunId` = '{tracker.run_id}'")
    return {run.data.tags["policylab.path"]: run for run in found}


def everything(client: mlflow.MlflowClient) -> Any:
    """All that MLflow knows, without the ids and clocks that it makes up."""
    found = []
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            tags = {k: v for k, v in run.data.tags.items() if k not in ("mlflow.parentRunId",)}
            history = {
                name: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
            inputs = [one.dataset.name for one in run.inputs.dataset_inputs]
            info = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
            facts = (info, tags, run.data.params, history, inputs, files(client, run.info.run_id))
            found.append((*facts, run.info.run_id))
    versions = [(v.name, v.version, v.aliases) for v in client.search_model_versions()]
    models = [
        (model.name, model.status, model.source_run_id in [run_id for *_, run_id in found])
        for model in client.search_logged_models([one.experiment_id for one in client.search_experiments()])
    ]
    return sorted((entry[:-1] for entry in found), key=lambda entry: entry[0][0]), versions, models


def files(client: mlflow.MlflowClient, run_id: str, folder: str | None = None) -> list[str]:
    found = []
    for entry in client.list_artifacts(run_id, folder):
        found += files(client, run_id, entry.path) if entry.is_dir else [entry.path]
    return found


def test_a_run_directory_becomes_a_parent_with_nested_runs(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    tracker = push(trained(make_run()), store)
    parent = client.get_run(str(tracker.run_id))
    assert client.get_experiment_by_name("lake").experiment_id == tracker.experiment_id
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "lake"
    assert parent.data.params["agent.learning_rate"] == "0.1"
    wanted = {
        "policylab.run_id": "lake-1",
        "policylab.config_hash": "c0ffee",
        "rl.env_id": "FrozenLake-v1",
        "rl.env_version": "1",
        "rl.algo": "q_learning",
        "rl.git_sha": "abc123",
        "rl.role": "sweep",
        "host": "here",
        "version.python": "3.11.9",
    }
    assert wanted.items() <= parent.data.tags.items()
    figures = {"selected/value": 0.7, "selected/ci_low": 0.6, "confirmed/value": 0.65, "exact/optimality_gap": 0.004}
    figures["baseline/always_down"] = 0.05
    assert figures.items() <= parent.data.metrics.items()

    nested = children(client, tracker)
    assert sorted(nested) == ["trials/0000/confirm-000", "trials/0000/tune-000", "trials/0000/tune-001"]
    child = nested["trials/0000/tune-001"]
    assert child.info.status == "FINISHED"
    assert child.data.params["seed"] == "101"
    wanted = {"rl.role": "tune", "rl.seed": "101", "rl.git_sha": "abc123", "policylab.trial": "0", "host": "here"}
    assert wanted.items() <= child.data.tags.items()
    assert child.data.metrics["final/value"] == 0.5
    curve = client.get_metric_history(child.info.run_id, "train/return_mean")
    assert [(point.step, point.value) for point in curve] == [(100, 0.0), (200, 0.1), (300, 0.2)]


def test_the_environment_is_the_dataset_of_every_run(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    tracker = push(trained(make_run()), store)
    for run in (client.get_run(str(tracker.run_id)), *children(client, tracker).values()):
        (entry,) = client.get_run(run.info.run_id).inputs.dataset_inputs
        assert entry.dataset.name == "FrozenLake-v1"
        assert json.loads(entry.dataset.source)["tags"]["max_episode_steps"] == "100"
        assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_artifacts_are_the_files_a_reader_wants(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    tracker = push(trained(make_run()), store)
    assert files(client, str(tracker.run_id)) == [
        "bundle/arrays.npz",
        "bundle/manifest.json",
        "config.yaml",
        "figures/curve.png",
        "report.html",
        "result.json",
        "run.json",
    ]
    assert (store.parent / "mlruns").is_dir()


@pytest.fixture
def tracking_uri(store: Path) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{store}")
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.usefixtures("tracking_uri")
def test_the_registered_model_acts_like_the_bundle(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    import pandas as pd

    run = trained(make_run())
    tracker = push(run, store)
    assert tracker.model_uri == "models:/lake/1"
    version = client.get_model_version_by_alias("lake", "candidate")
    assert (version.version, version.run_id) == (1, tracker.run_id)
    with warnings.catch_warnings(record=True) as shown:
        model = mlflow.pyfunc.load_model("models:/lake@candidate")
    assert [str(warning.message) for warning in shown if "policylab" in str(warning.message)] == []
    assert [str(warning.message) for warning in shown if "hint" in str(warning.message)] == []
    assert model.metadata.run_id == tracker.run_id
    acts = load_bundle(run.folder / "bundle").policy.act
    expected = [acts(state) for state in range(16)]
    states = list(range(16))
    for batch in (states, np.array(states), np.array(states, np.int32), pd.DataFrame({"observation": states})):
        assert model.predict(batch).tolist() == expected
    assert not list(Path(mlflow.artifacts.download_artifacts("models:/lake/1")).rglob("*.pkl"))
    with pytest.raises(UserError, match="not a value of the space"):
        model.predict([16])


@pytest.mark.parametrize(
    ("env_id", "features", "states"),
    [
        ("Blackjack-v1", AutoFeatures(), [(14, 10, 0), (20, 1, 1)]),
        ("MountainCar-v0", BinsFeatures(n_bins=4), [[-0.5, 0.01], [0.1, -0.02]]),
    ],
)
def test_composite_and_continuous_observations_are_rows(
    env_id: str, features: Any, states: list[Any], tmp_path: Path
) -> None:
    import pandas as pd

    env = gym.make(env_id)
    encoder = make_encoder(features, env.observation_space)
    weights = np.random.default_rng(0).random((encoder.n_features, int(env.action_space.n)))  # type: ignore[attr-defined]
    policy = TabularPolicy(weights, encoder)
    write_bundle(tmp_path / "bundle", policy, env=env, lineage=Lineage(), metrics={})
    save_policy(tmp_path / "model", tmp_path / "bundle")
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    expected = [policy.act(np.array(state, np.float32) if env_id[0] == "M" else state) for state in states]
    for batch in (states, np.array(states), pd.DataFrame(states)):
        assert model.predict(batch).tolist() == expected


def test_a_network_with_continuous_actions_is_a_model_too(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = np.array([[0.5], [0.0], [-0.1]], np.float32)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["observation", "weights"], ["mean"]),
            onnx.helper.make_node("Concat", ["mean", "mean"], ["outputs"], axis=1),
        ],
        "policy",
        [onnx.helper.make_tensor_value_info("observation", onnx.TensorProto.FLOAT, ["n", 3])],
        [onnx.helper.make_tensor_value_info("outputs", onnx.TensorProto.FLOAT, ["n", 2])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    distribution = Gaussian(n_components=1, low=(-2.0,), high=(2.0,), rescale=True)
    policy = OnnxPolicy(made.SerializeToString(), OnnxSettings(inputs={"observation": ()}, distribution=distribution))
    write_bundle(tmp_path / "bundle", policy, env=gym.make("Pendulum-v1"), lineage=Lineage(), metrics={})
    save_policy(tmp_path / "model", tmp_path / "bundle")
    assert "policylab[serve]==" in (tmp_path / "model" / "requirements.txt").read_text()
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    states = np.array([[1.0, 0.0, 3.0], [-0.5, 0.5, 0.0]], np.float32)
    found = model.predict(states)
    assert found.shape == (2, 1)
    assert found == pytest.approx(2 * states @ weights)
    assert model.metadata.signature.outputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 1)}


def test_arrays_of_two_dimensions_stay_arrays() -> None:
    space = gym.spaces.Box(0, 255, (2, 3), np.uint8)
    pictures = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert all((a == b).all() for a, b in zip(observations(space, pictures), pictures, strict=True))
    assert signature(space, gym.spaces.Discrete(2)).inputs.to_dict()[0]["tensor-spec"]["shape"] == (-1, 2, 3)


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(UserError, match="is 3 numbers, got 2"):
        observations(gym.make("Blackjack-v1").observation_space, [[1, 2]])


def test_a_second_sync_changes_nothing(make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient) -> None:
    run = trained(make_run())
    push(run, store)
    before = everything(client)
    push(run, store)
    assert everything(client) == before


def test_a_growing_run_is_tracked_piece_by_piece(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    run = make_run()
    settings = MlflowTracking(uri=f"sqlite:///{store}").resolved(experiment="lake", folder=tmp_path)
    tracker = MlflowTracker(settings)
    projection = Projection(run.folder, tracker)
    projection.open()
    projection.push()
    assert children(client, tracker) == {}
    run.trial("0000/tune-000")
    projection.push()
    run.report("0000/tune-000", 2)
    projection.push()
    (child,) = children(client, tracker).values()
    assert (child.info.status, child.data.metrics["train/return_mean"]) == ("RUNNING", 0.1)
    assert client.get_run(str(tracker.run_id)).info.status == "RUNNING"
    with (run.folder / "trials/0000/tune-000/reports.jsonl").open("a") as file:
        file.write('{"step": 300, "episodes": 2, "metr')  # a line being written
        file.flush()
        projection.push()
        file.write('ics": {"train/return_mean": 0.2}}\n')
    run.report("0000/tune-000", 1)
    push(run, store)  # by another process, which knows only what MLflow knows
    (child,) = children(client, tracker).values()
    curve = client.get_metric_history(child.info.run_id, "train/return_mean")
    assert [(point.step, point.value) for point in curve] == [(100, 0.0), (200, 0.1), (300, 0.2), (400, 0.3)]
    run.result("0000/tune-000")
    run.finish()
    projection.push()
    assert projection.complete
    assert len(client.get_metric_history(child.info.run_id, "train/return_mean")) == 4
    assert client.get_run(child.info.run_id).info.status == "FINISHED"


class Failing:
    """A client whose calls fail from the k-th on, before or after doing their work."""

    def __init__(self, client: Any, calls: int, *, after: bool) -> None:
        self._client, self._calls, self._after = client, calls, after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls -= 1
            if self._calls < 0 and not self._after:
                raise ConnectionError("no route to host")
            answer = method(*args, **kwargs)
            if self._calls < 0:
                raise ConnectionError("no route to host")
            return answer

        return call


@pytest.mark.parametrize("after", [False, True])
def test_a_failure_at_any_call_is_repaired_by_the_next_sync(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient, after: bool, tmp_path: Path
) -> None:
    run = trained(make_run())
    pristine = Path(shutil.copy(store, tmp_path / "pristine.db"))
    push(run, store)
    whole = everything(client)
    settings = MlflowTracking(uri=f"sqlite:///{store}").resolved(experiment="lake", folder=tmp_path)
    for calls in range(0, 60, 7 if after else 6):
        client._tracking_client.store.engine.dispose()
        shutil.rmtree(store.parent / "mlruns", ignore_errors=True)
        shutil.copy(pristine, store)
        tracker = MlflowTracker(settings)
        tracker._client = Failing(tracker._client, calls, after=after)  # type: ignore[assignment]
        projection = Projection(run.folder, tracker)
        with contextlib.suppress(ConnectionError):
            projection.open()
            projection.push()
        push(run, store)
        assert everything(client) == whole


def test_numbers_that_are_none_of_the_usual(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    run = make_run()
    run.trial("0000/tune-000")
    odd = {"nan": math.nan, "plus": math.inf, "reward[m/s]@2": 1.0, "größe/ä": 2.0, "../up//x": 3.0, "n" * 300: 4.0}
    run.report("0000/tune-000", 1, metrics=odd)
    run.report("0000/tune-000", 1, metrics={f"m{i}": float(i) for i in range(2500)})
    run.report("0000/tune-000", 1200, metrics={"train/return_mean": 1.0, "none": None, "text": "x"})  # type: ignore[dict-item]
    (child,) = children(client, push(run, store)).values()
    metrics = child.data.metrics
    assert math.isnan(metrics["nan"])
    assert metrics["plus"] > 1e308
    assert metrics["größe/ä"] == 2.0
    assert {1.0, 3.0, 4.0} <= set(metrics.values())
    assert metrics["m2499"] == 2499.0
    assert "none" not in metrics
    assert "text" not in metrics
    assert len(client.get_metric_history(child.info.run_id, "train/return_mean")) == 1200


def test_long_and_odd_parameters_do_not_stop_tracking(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    run = make_run()
    many = {f"key {i}@": i for i in range(250)}
    run.trial("0000/tune-000", environment={"map": "x" * 9000}, many=many)
    tracker = push(run, store)
    (child,) = children(client, tracker).values()
    assert len(child.data.params["environment.map"]) == 6000
    assert sum(name.startswith("many.key ") for name in child.data.params) == 250
    assert files(client, child.info.run_id) == ["spec.json"]


def test_an_interrupted_run_is_closed_and_opened_again_by_its_resumption(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    run = make_run()
    run.trial("0000/tune-000")
    run.report("0000/tune-000", 1)
    run.status("interrupted")
    tracker = push(run, store)
    (child,) = children(client, tracker).values()
    assert [client.get_run(str(tracker.run_id)).info.status, child.info.status] == ["KILLED", "KILLED"]
    run.status("running")
    push(run, store)
    (child,) = children(client, tracker).values()
    assert [client.get_run(str(tracker.run_id)).info.status, child.info.status] == ["RUNNING", "RUNNING"]
    run.report("0000/tune-000", 1)
    run.result("0000/tune-000")
    run.finish(bundle=False)
    push(run, store)
    (child,) = children(client, tracker).values()
    assert [client.get_run(str(tracker.run_id)).info.status, child.info.status] == ["FINISHED", "FINISHED"]
    assert client.search_model_versions() == []


def test_a_new_policy_is_a_new_version_and_the_alias_moves(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    push(trained(make_run("lake-1")), store, alias="champion", registered_model="ice")
    tracker = push(trained(make_run("lake-2")), store, alias="champion", registered_model="ice")
    assert tracker.model_uri == "models:/ice/2"
    assert client.get_model_version_by_alias("ice", "champion").version == 2


def test_a_password_in_the_settings_stays_at_home(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    run = make_run(uri="http://ann:s3cret@tracker:5000")
    tracker = push(trained(run), store)
    assert "s3cret" not in str(client.get_run(str(tracker.run_id)).to_dictionary())
    assert b"s3cret" not in b"".join(path.read_bytes() for path in (store.parent / "mlruns").rglob("*.yaml"))


def test_a_deleted_experiment_is_said_to_be_deleted(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    client.delete_experiment(client.create_experiment("lake"))
    with pytest.raises(TrackingError, match=r"'lake' is deleted; restore it .* or set tracking.experiment"):
        push(make_run(), store)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "run.json: cannot be read"),
        ("run.json", "{}", "no run_id and no name"),
        ("config.yaml", "a: [", "config.yaml: cannot be read"),
        ("trials/0000/tune-000/spec.json", "[]", "spec.json: not a JSON object"),
        ("trials/0000/tune-000/reports.jsonl", "{}\n", "reports.jsonl:1: not a report"),
        ("trials/0000/tune-000/reports.jsonl", "x\n{}\n", "reports.jsonl:1: not a JSON record"),
        ("trials/0000/tune-000/result.json", "\x00", "result.json: cannot be read"),
    ],
)
def test_a_damaged_run_directory_is_named(
    make_run: Callable[..., Any], store: Path, name: str, content: str, message: str
) -> None:
    run = make_run()
    run.trial("0000/tune-000")
    (run.folder / name).write_text(content)
    with pytest.raises(RunDirectoryError, match=message):
        push(run, store)
