"""The Ray launcher on a real local cluster: runs equal to the local launcher's, whoever is killed meanwhile."""

import json
import time

import numpy as np
import psutil
import pytest

from policylab.errors import UserError
from policylab.experiments.execute import execute
from policylab.experiments.rundir import create_run
from policylab.experiments.schema import ExperimentConfig
from policylab.files import read_lines, write_atomic
from policylab.launchers import State
from policylab.launchers.ray_launcher import RayLauncher
from policylab.launchers.ray_settings import RaySettings
from policylab.ray_session import ray_session

pytest.importorskip("ray")
pytest.importorskip("fsspec")

STEPS = 32_000
MARKS = 32
CONFIG = {
    "name": "rayed",
    "env": {"id": "FrozenLake-v1"},
    "agent": {"kind": "q_learning", "learning_rate": 0.1, "discount": 0.99, "execution": "plain"},
    "budget": {"steps": STEPS},
    "seeds": {"tune": 2, "confirm": 0},
    "evaluation": {"marks": MARKS},
    "tracking": {"kind": "none"},
}


@pytest.fixture(scope="module")
def ray():
    """A cluster that every launcher of this module finds and uses."""
    with ray_session(num_cpus=2) as started:
        yield started


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What each run leaves when it is executed in one go in this process."""
    run = create_run(ExperimentConfig.model_validate(CONFIG), parent=tmp_path_factory.mktemp("expected"))
    found = []
    for spec in run.config.specs():
        execute(run.folder(spec))
        found.append(outcome(run.folder(spec)))
    return found


@pytest.fixture
def folders(tmp_path):
    """A run directory's run folders; runs save at every mark, so that little is lost."""
    run = create_run(ExperimentConfig.model_validate(CONFIG), parent=tmp_path)
    found = [run.folder(spec) for spec in run.config.specs()]
    for folder in found:
        spec = json.loads((folder / "spec.json").read_text())
        write_atomic(folder / "spec.json", json.dumps({**spec, "checkpoint_every_s": 0.0}))
    return found


def launcher(folders, **settings):
    settings = RaySettings(workers=2, **settings)
    return RayLauncher(settings, n_workers=2, folder=folders[0].parents[2])


def outcome(folder):
    """Everything a run leaves but its clocks."""
    found = {name: (folder / name).read_bytes() for name in ("reports.jsonl", "result.json")}
    for path in sorted(folder.glob("checkpoints/**/*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            found[str(path.relative_to(folder))] = {key: arrays[key].tobytes() for key in sorted(arrays)}
    return found


def finish(launcher, handles):
    deadline = time.monotonic() + 120
    while not all(launcher.poll(handle).state.ended for handle in handles):
        assert time.monotonic() < deadline, [launcher.poll(handle) for handle in handles]
        launcher.wait(timeout_s=0.05)
    return [launcher.poll(handle) for handle in handles]


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def title(process):
    """Return what a process calls itself; Ray's workers say what they do."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def kill_workers():
    """Kill every worker that executes a run, as a machine that fails does: without a word."""
    busy = [process for process in psutil.Process().children(recursive=True) if "RayWorker.run" in title(process)]
    for process in busy:
        process.kill()
    psutil.wait_procs(busy, timeout=30)
    return len(busy)


def test_runs_equal_those_executed_in_one_go(ray, folders, expected):
    with launcher(folders) as pool:
        progress = finish(pool, [pool.submit(folder) for folder in folders])
    assert [(one.state, one.steps, one.error) for one in progress] == [(State.FINISHED, STEPS, None)] * 2
    assert [outcome(folder) for folder in folders] == expected


def test_many_small_runs_share_few_workers(ray, tmp_path):
    small = {**CONFIG, "budget": {"steps": 100}, "evaluation": {"marks": 2}, "seeds": {"tune": 40, "confirm": 0}}
    run = create_run(ExperimentConfig.model_validate(small), parent=tmp_path)
    folders = [run.folder(spec) for spec in run.config.specs()]
    with launcher(folders) as pool:
        progress = finish(pool, [pool.submit(folder) for folder in folders])
    assert {(one.state, one.steps) for one in progress} == {(State.FINISHED, 100)}
    assert all((folder / "result.json").exists() for folder in folders)


def test_a_killed_worker_loses_a_slice_and_nothing_else(ray, folders, expected, capfd):
    with launcher(folders) as pool:
        handles = [pool.submit(folder) for folder in folders]
        wait_until(lambda: any(pool.poll(handle).steps > STEPS // 10 for handle in handles))
        assert kill_workers() > 0
        progress = finish(pool, handles)
    assert {one.state for one in progress} == {State.FINISHED}
    assert [outcome(folder) for folder in folders] == expected
    assert capfd.readouterr() == ("", "")  # Ray has its own words for it, but standard output is for documents
    assert "lost its worker" in (folders[0].parents[2] / "workers.log").read_text()
    for folder in folders:
        trained = sum(row["steps"] for row in read_lines(folder / "cost.jsonl"))
        assert trained <= STEPS + STEPS // MARKS


def test_a_run_that_kills_its_workers_ends_after_the_retries(ray, folders):
    with launcher(folders, retries=1) as pool:
        handle = pool.submit(folders[0])
        for attempt in range(2):
            wait_until(lambda attempt=attempt: pool.poll(handle).steps > (attempt + 1) * STEPS // 10)
            assert kill_workers() == 1
        (progress,) = finish(pool, [handle])
        (other,) = finish(pool, [pool.submit(folders[1])])
    assert progress.state is State.FAILED
    assert "failed 2 times" in progress.error
    assert other.state is State.FINISHED


def test_a_run_that_takes_too_long_is_killed_with_its_actor_and_goes_on(ray, folders, expected):
    with launcher(folders, retries=0, max_runtime_s=0.2) as pool:
        (progress,) = finish(pool, [pool.submit(folders[0])])
    assert (progress.state, progress.error) == (State.FAILED, "ran longer than 0.2 s")
    assert "experiments/worker.py" in progress.traceback, "where it was"
    with launcher(folders) as pool:
        (progress,) = finish(pool, [pool.submit(folders[0])])
    assert progress.state is State.FINISHED
    assert outcome(folders[0]) == expected[0]


def test_a_run_that_fails_by_itself_is_not_repeated_and_its_trace_is_kept(ray, folders):
    spec = json.loads((folders[0] / "spec.json").read_text())
    write_atomic(folders[0] / "spec.json", json.dumps({**spec, "agent": {"kind": "q_learning", "discount": 2.0}}))
    with launcher(folders) as pool:
        (progress,) = finish(pool, [pool.submit(folders[0])])
    assert (progress.state, progress.user_error) == (State.FAILED, True)
    assert "agent.discount" in progress.error


def test_stop_saves_and_a_new_submission_goes_on(ray, folders, expected):
    with launcher(folders) as pool:
        handle = pool.submit(folders[0])
        wait_until(lambda: pool.poll(handle).steps > 0)
        pool.stop(handle)
        (progress,) = finish(pool, [handle])
        assert progress.state is State.STOPPED
        assert progress.steps < STEPS
        assert pool.attach(folders[0]) == handle
        finish(pool, [pool.submit(folders[0])])
    assert outcome(folders[0]) == expected[0]


def test_leaving_lets_a_run_save(ray, folders):
    with launcher(folders) as pool:
        handle = pool.submit(folders[0])
        wait_until(lambda: pool.poll(handle).steps > 0)
    assert pool.poll(handle).state is State.STOPPED
    assert list(folders[0].glob("checkpoints/0*"))
    execute(folders[0])  # nobody holds its lock


def test_run_folders_travel_through_storage(ray, folders, expected, tmp_path):
    storage = f"file://{tmp_path}/store"
    with launcher(folders, storage=storage, sync_every_s=0.1) as pool:
        handles = [pool.submit(folder) for folder in folders]
        wait_until(lambda: list(folders[0].glob("checkpoints/0*")))  # it came through the storage
        assert kill_workers() > 0
        progress = finish(pool, handles)
    assert {one.state for one in progress} == {State.FINISHED}
    assert [outcome(folder) for folder in folders] == expected
    assert not any((folder / "run.lock").exists() for folder in folders)  # they were executed elsewhere
    trained = [sum(row["steps"] for row in read_lines(folder / "cost.jsonl")) for folder in folders]
    assert max(trained) < 2 * STEPS


def test_a_folder_that_a_node_does_not_see_is_a_mistake_with_its_remedy(ray, folders):
    with launcher(folders) as pool:
        missing = folders[0].with_name("tune-999")
        (progress,) = finish(pool, [pool.submit(missing)])
    assert (progress.state, progress.user_error) == (State.FAILED, True)
    assert "does not see" in progress.error
    assert "launcher.storage" in progress.error


@pytest.mark.parametrize("settings", [{"cpus_per_run": 64}, {"gpus_per_run": 8}, {"resources_per_run": {"highmem": 1}}])
def test_a_run_too_large_for_every_node_is_refused(ray, folders, settings):
    with pytest.raises(UserError, match=r"none of the cluster's 1 nodes has that"):
        launcher(folders, **settings)


@pytest.mark.slow
def test_what_an_agent_starts_in_turn_runs_within_the_resources_of_its_run(ray, tmp_path):
    pytest.importorskip("ray.rllib")
    agent = {"kind": "rllib", "algorithm": "PPO", "n_env_runners": 1}
    deep = {
        **CONFIG,
        "env": {"id": "CartPole-v1"},
        "agent": agent,
        "budget": {"steps": 2_000},
        "evaluation": {"marks": 2},
    }
    run = create_run(ExperimentConfig.model_validate(deep), parent=tmp_path)
    folder = run.folder(run.config.specs()[0])
    settings = RaySettings(workers=1, cpus_per_run=2)  # the whole cluster: a runner elsewhere would wait for ever
    with RayLauncher(settings, n_workers=1, folder=run.path) as pool:
        (progress,) = finish(pool, [pool.submit(folder)])
    assert (progress.state, progress.error) == (State.FINISHED, None)
