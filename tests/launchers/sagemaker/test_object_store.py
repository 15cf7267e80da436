"""Objects in a folder of this machine and in S3 (a moto server): the same behaviour."""

import threading

import pytest

from policylab.errors import StorageError, UserError
from policylab.launchers.sagemaker.object_store import FolderStore, NoSuchObjectError, S3Store
from policylab.launchers.sagemaker.service import client


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    request.getfixturevalue("aws")
    return S3Store(client("s3", region=None))


def uris(found):
    return [one.uri for one in found]


def test_a_folder_comes_back_as_it_was_uploaded(store, tmp_path):
    source = tmp_path / "source"
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "deep").write_bytes(b"\0\xff")
    (source / "top").write_text("")
    store.upload_folder(source, "s3://bucket/prefix/")
    store.download_folder("s3://bucket/prefix", tmp_path / "target")
    assert (tmp_path / "target" / "a" / "b" / "deep").read_bytes() == b"\0\xff"
    assert (tmp_path / "target" / "top").read_bytes() == b""


def test_a_listing_goes_by_the_beginning_of_the_name_as_in_s3(store):
    for key in ("runs/1/a", "runs/10/a", "runs/1/b", "other"):
        store.put_bytes(key.encode(), f"s3://bucket/{key}")
    assert uris(store.list("s3://bucket/runs/1")) == [
        "s3://bucket/runs/1/a", "s3://bucket/runs/1/b", "s3://bucket/runs/10/a",
    ]  # fmt: skip
    assert uris(store.list("s3://bucket/runs/1/")) == ["s3://bucket/runs/1/a", "s3://bucket/runs/1/b"]
    assert len(store.list("s3://bucket/")) == 4
    assert store.list("s3://bucket/runs/1/")[0].size == len("runs/1/a")


def test_the_etag_tells_a_change_of_content_that_keeps_the_size(store):
    store.put_bytes(b"one", "s3://bucket/key")
    before = store.list("s3://bucket/key")[0].etag
    store.put_bytes(b"two", "s3://bucket/key")
    assert store.list("s3://bucket/key")[0].etag != before


def test_what_is_not_there(store, tmp_path):
    store.put_bytes(b"", "s3://bucket/folder/key")
    for uri in ("s3://bucket/none", "s3://bucket/folder", "s3://bucket/folder/key/below"):
        assert not store.exists(uri)
        with pytest.raises(NoSuchObjectError, match=uri):
            store.get_bytes(uri)
        with pytest.raises(NoSuchObjectError, match=uri):
            store.get_file(uri, tmp_path / "target")
        store.delete(uri)
    assert store.exists("s3://bucket/folder/key")
    assert list(tmp_path.glob("*target*")) == []


@pytest.mark.parametrize("uri", ["bucket/key", "s3://", "https://bucket/key"])
def test_names_that_are_none(store, uri):
    with pytest.raises(UserError, match="is not a name such as s3://BUCKET/KEY"):
        store.put_bytes(b"", uri)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/", "s3://bucket/../key", "s3://../key", "s3://bucket/a//b", "s3://.partial/x", "s3://b/x/"]
)
def test_names_that_lead_out_of_the_folder_or_name_no_file(tmp_path, uri):
    with pytest.raises(UserError, match="cannot name a file below"):
        FolderStore(tmp_path).put_bytes(b"", uri)


def test_a_bucket_that_is_not_there_or_not_ours_is_told_in_one_sentence(aws):
    with pytest.raises(StorageError, match=r"s3://elsewhere/key: S3 refuses \(NoSuchBucket\)"):
        S3Store(client("s3", region=None)).put_bytes(b"", "s3://elsewhere/key")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a//evil", "."])
def test_a_hostile_object_does_not_leave_the_folder_it_is_downloaded_to(aws, tmp_path, name):
    store = S3Store(client("s3", region=None))
    for key in ("good", name):
        store.put_bytes(b"", f"s3://bucket/folder/{key}")
    with pytest.raises(StorageError, match="leads out of the folder"):
        store.download_folder("s3://bucket/folder", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_reader_never_sees_part_of_an_object(store):
    contents = [bytes([digit]) * 200_000 for digit in range(4)]
    store.put_bytes(contents[0], "s3://bucket/key")
    ended = threading.Event()

    def write():
        for content in contents * 5:
            store.put_bytes(content, "s3://bucket/key")
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        assert store.get_bytes("s3://bucket/key") in contents
        assert [one.size for one in store.list("s3://bucket/")] == [200_000]
    writer.join()
