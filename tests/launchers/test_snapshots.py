"""Snapshots of run folders: consistent whoever dies, complete when they appear, sent once."""

import json
import uuid

import boto3
import fsspec
import pytest

from policylab.errors import MissingExtraError, StorageError, UserError
from policylab.launchers.snapshots import SnapshotStore


@pytest.fixture(params=["file", "memory", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        request.getfixturevalue("aws")
        return f"s3://bucket/{uuid.uuid4().hex}"
    return f"file://{tmp_path}/store" if request.param == "file" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def folder(tmp_path):
    return write(
        tmp_path / "run",
        {
            "spec.json": "{}",
            "reports.jsonl": "one\n",
            "checkpoints/0001/state.json": "1",
            "checkpoints/0001/deep/array.npz": "2",
        },
    )


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def read(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def objects(url, key):
    if url.startswith("s3://"):
        listed = boto3.client("s3").list_objects_v2(Bucket="bucket", Prefix=f"{url[12:]}/{key}/objects/")
        return {found["Key"].rpartition("/")[2] for found in listed["Contents"]} - {""}
    storage, root = fsspec.core.url_to_fs(url)
    return {path.rpartition("/")[2] for path in storage.ls(f"{root}/{key}/objects", detail=False)}


def test_a_folder_comes_back_as_it_was_pushed(url, folder, tmp_path):
    SnapshotStore(url).push(folder, "study/run")
    assert SnapshotStore(url).pull("study/run", into=tmp_path / "other")
    assert read(tmp_path / "other") == read(folder)


def test_what_was_never_pushed_is_told_and_leaves_no_folder(url, tmp_path):
    assert not SnapshotStore(url).pull("study/run", into=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_locks_and_hidden_files_stay_on_their_machine(url, folder, tmp_path):
    travels = read(folder)
    write(folder, {"run.lock": "", ".spec.json.x": "half", "checkpoints/.saving-x/state.json": "half"})
    store = SnapshotStore(url)
    store.push(folder, "run")
    store.pull("run", into=tmp_path / "other")
    assert read(tmp_path / "other") == travels


def test_a_later_snapshot_replaces_the_folder_and_drops_what_is_gone(url, folder, tmp_path):
    store, other = SnapshotStore(url), tmp_path / "other"
    store.push(folder, "run")
    store.pull("run", into=other)
    (folder / "checkpoints/0001/state.json").unlink()
    (folder / "checkpoints/0001/deep/array.npz").unlink()
    write(folder, {"reports.jsonl": "one\ntwo\n", "checkpoints/0002/state.json": "3"})
    store.push(folder, "run")
    store.pull("run", into=other)
    assert read(other) == read(folder)
    assert not (other / "checkpoints/0001").exists()
    assert len(objects(url, "run")) == 3


def test_only_what_changed_is_written(url, folder, monkeypatch):
    store, written = SnapshotStore(url), []
    store.push(folder, "run")
    genuine = store._storage.pipe_file
    monkeypatch.setattr(
        store._storage, "pipe_file", lambda path, *rest: (written.append(path), genuine(path, *rest))[1]
    )
    write(folder, {"reports.jsonl": "one\ntwo\n"})
    store.push(folder, "run")
    assert len([path for path in written if "/objects/" in path]) == 1


@pytest.mark.parametrize("survived", range(4))
def test_a_writer_that_dies_anywhere_leaves_the_earlier_snapshot(url, folder, tmp_path, monkeypatch, survived):
    store = SnapshotStore(url)
    store.push(folder, "run")
    earlier = read(folder)
    write(folder, {"reports.jsonl": "two\n", "checkpoints/0002/state.json": "new", "checkpoints/0002/other": "new too"})
    genuine, left = store._storage.pipe_file, [survived]

    def dies(path, content):
        if not left[0]:
            genuine(path, content[: len(content) // 2])
            raise OSError("the machine is gone")
        left[0] -= 1
        genuine(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(store._storage, "pipe_file", dies)
        with pytest.raises(StorageError, match="the machine is gone"):
            store.push(folder, "run")
    SnapshotStore(url).pull("run", into=tmp_path / "other")
    assert read(tmp_path / "other") == earlier
    SnapshotStore(url).push(folder, "run")
    SnapshotStore(url).pull("run", into=tmp_path / "other")
    assert read(tmp_path / "other") == read(folder)


def test_a_reader_that_dies_leaves_no_half_checkpoint(url, folder, tmp_path, monkeypatch):
    store, other = SnapshotStore(url), tmp_path / "other"
    store.push(folder, "run")
    genuine, left = store._storage.cat_file, [4]  # the snapshot and three of four files

    def dies(path):
        if not left[0]:
            raise OSError("the machine is gone")
        left[0] -= 1
        return genuine(path)

    with monkeypatch.context() as patch:
        patch.setattr(store._storage, "cat_file", dies)
        with pytest.raises(StorageError, match="the machine is gone"):
            store.pull("run", into=other)
    assert not list(other.glob("checkpoints/[0-9]*"))
    store.pull("run", into=other)
    assert read(other) == read(folder)
    assert not list(other.rglob(".pulling*"))


def test_the_store_is_right_while_the_spec_is_the_same_and_the_folder_when_it_is_not(url, folder, tmp_path):
    store = SnapshotStore(url)
    write(folder, {"reports.jsonl": "one\ntwo\n"})
    store.push(folder, "run")
    behind = write(tmp_path / "behind", {"spec.json": "{}", "reports.jsonl": "one\n"})
    store.exchange(behind, "run")
    assert read(behind) == read(folder)
    write(behind, {"spec.json": '{"stop_at_steps": 2}'})
    store.exchange(behind, "run")
    store.pull("run", into=tmp_path / "third")
    assert read(tmp_path / "third") == read(behind)


def test_damaged_content_is_refused(url, folder, tmp_path):
    store = SnapshotStore(url)
    store.push(folder, "run")
    digest = json.loads(store._read("run/snapshot.json"))["files"]["spec.json"]
    store._write(f"run/objects/{digest}", b"other")
    with pytest.raises(StorageError, match="damaged; delete run there"):
        store.pull("run", into=tmp_path / "other")


def test_storage_of_an_unknown_kind_is_a_mistake_of_the_user():
    with pytest.raises((UserError, MissingExtraError), match=r"launcher\.storage=nosuch://place"):
        SnapshotStore("nosuch://place")
