"""A run's folder here and its snapshots in the store: the further one counts, and damage is noticed."""

import json

import pytest

from policylab.errors import StorageError
from policylab.experiments.execute import execute
from policylab.experiments.schema import load_experiment
from policylab.launchers.sagemaker.run_files import RunFiles
from policylab.launchers.sagemaker.run_snapshot import save_snapshot

PREFIX = "s3://bucket/checkpoints/study/run"


def run_to(folder, steps):
    """Train a run in ``folder`` up to ``steps`` of 2,000; return the folder."""
    config = load_experiment(
        "frozenlake", overrides=["budget.steps=2000", "evaluation.marks=4", "agent.execution=plain"]
    )
    folder.mkdir(exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)
    (folder / "spec.json").write_text(config.spec("tune", 0, stop_at_steps=steps).model_dump_json())
    execute(folder)
    return folder


def stored(folder, store, scratch):
    """Store a snapshot of a folder as the service does; return the name of the newest."""
    newest = save_snapshot(folder, into=scratch)
    store.upload_folder(scratch, PREFIX)
    return newest.name


def steps_in(folder):
    return [json.loads(line)["step"] for line in (folder / "reports.jsonl").read_text().splitlines()]


@pytest.fixture
def there(tmp_path):
    return run_to(tmp_path / "there", 1000)


@pytest.fixture
def here(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "spec.json").write_bytes((tmp_path / "there" / "spec.json").read_bytes())
    return folder


def test_everything_is_brought_and_a_second_time_nothing_is_read(there, here, store, tmp_path, monkeypatch):
    stored(there, store, tmp_path / "scratch")
    files = RunFiles(store, PREFIX, folder=here)
    assert files.pull()
    assert (here / "result.json").read_bytes() == (there / "result.json").read_bytes()
    assert [path.name for path in (here / "checkpoints").iterdir()] == ["000000000001000"]
    monkeypatch.setattr(store, "get_file", None)
    assert files.pull()


def test_a_damaged_snapshot_gives_way_to_the_one_before_it(there, here, store, tmp_path, caplog):
    stored(there, store, tmp_path / "scratch")
    newest = stored(run_to(there, 2000), store, tmp_path / "scratch")
    store.put_bytes(store.get_bytes(f"{PREFIX}/{newest}")[:-700], f"{PREFIX}/{newest}")
    assert RunFiles(store, PREFIX, folder=here).pull()
    assert steps_in(here) == [500, 1000]
    assert newest in caplog.text


def test_what_a_later_job_added_is_left_there(there, here, store, tmp_path):
    stored(run_to(there, 2000), store, tmp_path / "scratch")
    assert RunFiles(store, PREFIX, folder=here).pull()
    assert steps_in(here) == [500, 1000]
    assert not (here / "result.json").exists()
    assert not (here / "checkpoints").exists()


def test_reports_are_followed_up_to_the_mark_and_without_a_torn_line(there, here, store):
    files = RunFiles(store, PREFIX, folder=here)
    assert not files.follow()
    rows = [json.dumps({"step": step}) for step in (500, 1000, 1500)]
    store.put_bytes("\n".join(rows[:2]).encode(), f"{PREFIX}/reports.jsonl")
    assert files.follow()
    assert steps_in(here) == [500]
    assert not files.follow()
    store.put_bytes("".join(f"{row}\n" for row in rows).encode(), f"{PREFIX}/reports.jsonl")
    assert files.follow()
    assert steps_in(here) == [500, 1000]


@pytest.mark.parametrize("content", [b"not json\n", b"[]\n", b'{"step": "far"}\n'])
def test_damaged_reports_are_told(there, here, store, content):
    store.put_bytes(content, f"{PREFIX}/reports.jsonl")
    with pytest.raises(StorageError, match=r"reports.jsonl: damaged; delete the prefix"):
        RunFiles(store, PREFIX, folder=here).follow()


def test_the_further_one_goes_on(there, here, store, tmp_path):
    files = RunFiles(store, PREFIX, folder=here)
    files.prepare()
    assert store.list(f"{PREFIX}/") == []  # nothing was trained anywhere
    stored(there, store, tmp_path / "scratch")
    before = store.list(f"{PREFIX}/")
    files.prepare()
    assert store.list(f"{PREFIX}/") == before  # there is more there than here
    run_to(there, 2000)
    RunFiles(store, PREFIX, folder=there).prepare()  # now as if it had been trained on elsewhere
    (name,) = (one.uri for one in store.list(f"{PREFIX}/") if one.uri.endswith(".tar"))
    assert name.startswith(f"{PREFIX}/000002-")
    assert RunFiles(store, PREFIX, folder=run_spec(here, 2000)).pull()
    assert steps_in(here) == [500, 1000, 1500, 2000]


def run_spec(folder, steps):
    spec = json.loads((folder / "spec.json").read_text()) | {"stop_at_steps": steps}
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder
