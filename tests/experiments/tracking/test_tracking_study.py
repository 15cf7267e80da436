"""A search in MLflow: study, configurations, seeds; as it grows, and as often as it is uploaded."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policylab.errors import RunDirectoryError
from policylab.experiments.tracking.mlflow_adapter import MlflowTracker
from policylab.experiments.tracking.settings import MlflowTracking
from policylab.experiments.tracking.tracker import Projection

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about MLflow's own type hints
    import mlflow

# Deprecations inside MLflow and its dependencies are not this project's to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

METRIC = "eval/return_mean"


@pytest.fixture(autouse=True)
def in_the_stores_folder(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.parent)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def client(store: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{store}")


def tracker_of(store: Path) -> MlflowTracker:
    settings = MlflowTracking(uri=f"sqlite:///{store}").resolved(experiment="lake", folder=store.parent)
    return MlflowTracker(settings)


def push(run: Any, store: Path) -> tuple[MlflowTracker, Projection]:
    tracker = tracker_of(store)
    projection = Projection(run.folder, tracker)
    projection.open()
    projection.push()
    return tracker, projection


def below(client: mlflow.MlflowClient, tracker: MlflowTracker) -> dict[str, Any]:
    """Path -> run, of everything below the parent run."""
    found = client.search_runs([str(tracker.experiment_id)], f"tags.`policylab.study` = '{tracker.run_id}'")
    runs = {run.data.tags["policylab.path"]: run for run in found}
    assert len(runs) == len(found)
    return runs


def curve(client: mlflow.MlflowClient, run: Any, name: str) -> list[tuple[int, float]]:
    points = client.get_metric_history(run.info.run_id, name)
    return [(point.step, point.value) for point in sorted(points, key=lambda point: point.timestamp)]


def everything(client: mlflow.MlflowClient, tracker: MlflowTracker) -> Any:
    """All that MLflow knows of the runs, without the ids that it makes up."""
    found = {}
    for path, run in {"": client.get_run(str(tracker.run_id)), **below(client, tracker)}.items():
        tags = {k: v for k, v in run.data.tags.items() if k not in ("mlflow.parentRunId", "policylab.study")}
        history = {
            name: sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }
        info = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time if "-" in path else 0)
        found[path] = (info, tags, run.data.params, history)
    return found


def started(run: Any, trial: int, *, until: int, rate: float) -> None:
    run.event("start", trial=trial, configuration={"agent.learning_rate": rate}, seed=0, until=until, reason="new")


def searched(run: Any, *, mode: str = "max") -> Any:
    """Three configurations: one promoted and given a second seed, one dropped, one that fails; then confirmation."""
    sign = 1.0 if mode == "max" else -1.0
    run.search(mode=mode)
    run.event("study", schema_version=1, seed=0, settings={})
    started(run, 0, until=100, rate=0.1)
    run.piece(0, 0, until=100, values={100: sign * 0.2})
    started(run, 1, until=100, rate=0.5)
    run.piece(1, 0, until=100, values={100: sign * 0.1})
    started(run, 2, until=100, rate=0.9)
    run.piece(2, 0, until=100, values={}, error="it diverged")
    run.event("stop", trial=1, seed=None, reason="no chance to beat trial 0")
    run.event("resume", trial=0, seed=0, until=300, reason="promoted")
    run.piece(0, 0, until=300, values={200: sign * 0.4, 300: sign * 0.6})
    run.event("add_seed", trial=0, seed=1, until=300, reason="second seed")
    run.piece(0, 1, until=300, values={100: sign * 0.4, 200: sign * 0.6, 300: sign * 0.8})
    return run


def finished(run: Any) -> Any:
    run.event("complete", reason="limits.trials: 3 configurations tried")
    (run.folder / "study" / "outcome.json").write_text(json.dumps({"winner": 0}))
    for name in ("0000/confirm-000", "0003/confirm-000"):  # 0003: a default that was not tried
        run.trial(name)
        run.report(name, 2, metrics={METRIC: 0.5, "train/loss": 1.0})
        run.result(name)
    run.finish(bundle=False)
    result = json.loads((run.folder / "result.json").read_text())
    result["search"] = {"winner": 0, "configuration": {"agent.learning_rate": 0.1}, "optimism_gap": 0.05}
    (run.folder / "result.json").write_text(json.dumps(result))
    return run


def test_a_search_is_a_study_over_configurations_over_seeds(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    tracker, projection = push(finished(searched(make_run())), store)
    assert projection.complete
    found = below(client, tracker)
    assert sorted(found) == [
        "trials/0000", "trials/0000/confirm-000", "trials/0000/tune-000", "trials/0000/tune-001",
        "trials/0001", "trials/0001/tune-000",
        "trials/0002", "trials/0002/tune-000",
        "trials/0003", "trials/0003/confirm-000",
    ]  # fmt: skip
    for path, run in found.items():
        above = tracker.run_id if path.count("/") == 1 else found[path.rpartition("/")[0]].info.run_id
        assert run.data.tags["mlflow.parentRunId"] == above
    best = found["trials/0000"]
    assert best.data.params == {"agent.learning_rate": "0.1"}
    assert curve(client, best, METRIC) == [(100, pytest.approx(0.3)), (200, 0.5), (300, pytest.approx(0.7))]
    assert curve(client, best, "final/value") == [(100, 0.2), (300, 0.6), (300, pytest.approx(0.7))]
    assert (best.data.metrics["final/value"], best.data.metrics["final/seeds"]) == (pytest.approx(0.7), 2)
    wanted = {"rl.role": "trial", "policylab.state": "full", "policylab.selected": "true", "rl.algo": "q_learning"}
    assert wanted.items() <= best.data.tags.items()
    statuses = {path: run.info.status for path, run in found.items()}
    assert [statuses[f"trials/{i:04d}"] for i in range(4)] == ["FINISHED", "KILLED", "FAILED", "FINISHED"]
    assert statuses["trials/0002/tune-000"] == "FAILED"
    assert found["trials/0001"].data.tags["policylab.reason"] == "no chance to beat trial 0"
    assert found["trials/0002"].data.tags["policylab.reason"] == "it diverged"
    assert found["trials/0002/tune-000"].data.tags["policylab.reason"] == "it diverged"
    assert found["trials/0003"].data.tags["policylab.state"] == "confirmed only"
    parent = client.get_run(str(tracker.run_id))
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["best.agent.learning_rate"] == "0.1"
    assert parent.data.metrics["search/optimism_gap"] == 0.05


def test_a_tuning_seed_has_the_metric_searched_on_and_a_confirmation_all(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    found = below(client, push(finished(searched(make_run())), store)[0])
    tuned, confirmed = found["trials/0000/tune-000"], found["trials/0000/confirm-000"]
    assert curve(client, tuned, METRIC) == [(100, 0.2), (200, 0.4), (300, 0.6)]
    assert set(tuned.data.metrics) == {METRIC, "final/value", "final/steps"}
    assert {METRIC, "train/loss", "train/episodes", "final/value"} <= set(confirmed.data.metrics)
    assert (tuned.data.tags["rl.role"], tuned.data.tags["rl.seed"]) == ("tune", "100")
    assert confirmed.data.tags["rl.role"] == "confirm"


def test_a_metric_to_be_minimised_keeps_its_own_direction(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    found = below(client, push(finished(searched(make_run(), mode="min")), store)[0])
    assert found["trials/0000"].data.metrics["final/value"] == pytest.approx(0.7)


def test_a_second_sync_of_a_search_changes_nothing(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    run = finished(searched(make_run()))
    tracker, projection = push(run, store)
    before = everything(client, tracker)
    assert projection.uploaded.runs == 10
    tracker, projection = push(run, store)
    assert everything(client, tracker) == before
    assert (projection.uploaded.runs, projection.uploaded.reports) == (0, 0)


def test_a_search_uploaded_as_it_grew_equals_one_uploaded_at_the_end(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    run = make_run()
    tracker = tracker_of(store)
    projection: Projection | None = None
    event = run.event

    def watched(kind: str, **fields: Any) -> None:
        nonlocal projection
        event(kind, **fields)
        if projection is None:
            projection = Projection(run.folder, tracker)
            projection.open()
        projection.push()

    run.event = watched
    searched(run)
    assert projection is not None
    statuses = {path: one.info.status for path, one in below(client, tracker).items()}
    assert statuses["trials/0000"] == "RUNNING"  # may still be given seeds
    assert statuses["trials/0001"] == "KILLED"
    assert client.get_run(str(tracker.run_id)).info.status == "RUNNING"
    run.event = event
    finished(run)
    projection.push()
    grown = everything(client, tracker)

    client._tracking_client.store.engine.dispose()
    other = make_run("lake-2")
    shutil.rmtree(other.folder)
    shutil.copytree(run.folder, other.folder, copy_function=shutil.copy2)
    document = json.loads((other.folder / "run.json").read_text())
    (other.folder / "run.json").write_text(json.dumps({**document, "run_id": "lake-2"}))
    at_once = everything(client, push(other, store)[0])
    for path in grown:
        if path:  # the parents differ in the name of the run directory
            assert plain(grown[path]) == plain(at_once[path]), path
    assert sorted(grown) == sorted(at_once)


def plain(one: Any) -> Any:
    """Without the clocks of files, and of a seed's outcomes the last: each piece of training has its own."""
    (name, status, *_), tags, params, history = one
    if name.startswith("tune-"):
        history = {k: [v[-1][::2]] if k.startswith("final/") else v for k, v in history.items()}
    if name.startswith("confirm-"):
        history = {k: [point[::2] for point in v] for k, v in history.items()}
    return name, status, tags, params, history


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
def test_a_failure_at_any_call_of_a_search_is_repaired_by_the_next_sync(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient, after: bool, tmp_path: Path
) -> None:
    run = finished(searched(make_run()))
    pristine = Path(shutil.copy(store, tmp_path / "pristine.db"))
    whole = everything(client, push(run, store)[0])
    for calls in range(5 if after else 3, 40, 9):
        client._tracking_client.store.engine.dispose()
        shutil.rmtree(store.parent / "mlruns", ignore_errors=True)
        shutil.copy(pristine, store)
        tracker = tracker_of(store)
        tracker._client = Failing(tracker._client, calls, after=after)  # type: ignore[assignment]
        projection = Projection(run.folder, tracker)
        with contextlib.suppress(ConnectionError):
            projection.open()
            projection.push()
        assert everything(client, push(run, store)[0]) == whole


def test_an_interrupted_search_is_closed_and_opened_again(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    run = make_run()
    run.search()
    run.event("study", schema_version=1, seed=0, settings={})
    started(run, 0, until=100, rate=0.1)
    run.piece(0, 0, until=100, values={100: 0.2})
    run.event("resume", trial=0, seed=0, until=300, reason="promoted")
    (run.folder / "trials/0000/tune-000/result.json").unlink()
    (run.folder / "trials/0000/tune-001").mkdir()  # killed before anything was written there
    run.status("interrupted")
    found = below(client, push(run, store)[0])
    assert {path: one.info.status for path, one in found.items()} == {
        "trials/0000": "KILLED", "trials/0000/tune-000": "KILLED",
    }  # fmt: skip
    run.status("running")
    found = below(client, push(run, store)[0])
    assert found["trials/0000"].info.status == "RUNNING"
    run.piece(0, 0, until=300, values={200: 0.3, 300: 0.5})
    finished(run)
    found = below(client, push(run, store)[0])
    assert found["trials/0000"].info.status == "FINISHED"
    assert found["trials/0000/tune-000"].info.status == "FINISHED"
    assert curve(client, found["trials/0000/tune-000"], METRIC) == [(100, 0.2), (200, 0.3), (300, 0.5)]


def test_a_large_search_takes_few_calls(make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient) -> None:
    run = make_run()
    run.search()
    run.event("study", schema_version=1, seed=0, settings={})
    for trial in range(6):
        started(run, trial, until=300, rate=0.1)
        for seed in range(5):
            if seed:
                run.event("add_seed", trial=trial, seed=seed, until=300, reason="seed")
            run.piece(trial, seed, until=300, values={10 * step: 0.1 for step in range(1, 31)})
    run.event("complete", reason="nothing left to try")
    (run.folder / "study" / "outcome.json").write_text(json.dumps({"winner": 0}))
    tracker = tracker_of(store)
    counting = Counting(tracker._client)
    tracker._client = counting  # type: ignore[assignment]
    projection = Projection(run.folder, tracker)
    projection.open()
    opened = counting.calls
    projection.push()
    assert counting.calls - opened == 3 * (6 + 30)
    counting.calls = 0
    projection.push()
    assert counting.calls == 0
    (found,) = (one for path, one in below(client, tracker).items() if path == "trials/0005/tune-004")
    assert len(curve(client, found, METRIC)) == 30


class Counting(Failing):
    """A client that counts its calls."""

    def __init__(self, client: Any) -> None:
        super().__init__(client, 0, after=False)
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        self.calls += 1
        return getattr(self._client, name)


def test_an_event_log_that_is_being_written_is_read_to_its_last_whole_line(
    make_run: Callable[..., Any], store: Path, client: mlflow.MlflowClient
) -> None:
    run = searched(make_run())
    with (run.folder / "study" / "events.jsonl").open("a") as file:
        file.write('{"event": "star')
    assert len(below(client, push(run, store)[0])) == 3 + 4


def test_a_damaged_event_log_is_named(make_run: Callable[..., Any], store: Path) -> None:
    run = searched(make_run())
    run.event("report", trial=77, seed=0, resource=100, value=1.0)
    with pytest.raises(RunDirectoryError, match=r"events.jsonl:\d+: not an event \(KeyError\(77\)\); restore it"):
        push(run, store)
