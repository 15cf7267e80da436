"""Names and files that try to leave their place, and what the hosts of an emulated job can reach of this machine."""

import os
import subprocess
import sys

import pytest

from policylab.errors import StorageError
from policylab.launchers.sagemaker.emulator.checkpoints import CheckpointSync
from policylab.launchers.sagemaker.object_store import FolderStore, S3Store


@pytest.fixture
def s3(aws):
    """Return a client of an S3-compatible server over HTTP, with the bucket ``bucket``."""
    return pytest.importorskip("boto3").client("s3", endpoint_url=aws)


def test_everything_works_over_an_s3_compatible_server(make_emulator, s3):
    emulator = make_emulator(store=S3Store(s3))
    script = """
        n=$(cat checkpoints/n 2>/dev/null || echo 0); echo $((n+1)) > checkpoints/n
        trap 'exit 0' TERM; [ $n = 0 ] && while :; do sleep 0.05; done
        echo weights > model/w; rm checkpoints/n; echo 1 > checkpoints/done
    """
    emulator.create_training_job(**emulator.spot_request(script))
    emulator.holds("s3://bucket/checkpoints/run/n", b"1\n")
    emulator.interrupt("job")
    assert emulator.end()["TrainingJobStatus"] == "Completed", emulator.log()
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket="bucket")["Contents"]]
    assert keys == ["checkpoints/run/done", "code/job/script.sh", "output/job/output/model.tar.gz"]


@pytest.mark.parametrize("key", ["data/../../../../tmp/evil", "data//etc/evil", "data/./x"])
def test_keys_that_lead_out_of_the_channel(make_emulator, s3, tmp_path, key):
    emulator = make_emulator(store=S3Store(s3))
    s3.put_object(Bucket="bucket", Key=key, Body=b"evil")
    record = emulator.run(emulator.request("true", channels=[emulator.channel("data", "s3://bucket/data/")]))
    assert record["FailureReason"].startswith("ClientError: Data download failed for channel data: ")
    assert "leads out of the folder" in record["FailureReason"]
    assert [path for path in tmp_path.rglob("*") if "evil" in path.name] == []


def test_checkpoint_keys_that_lead_out_of_the_folder(s3, tmp_path):
    s3.put_object(Bucket="bucket", Key="run/../../evil", Body=b"evil")
    (tmp_path / "deep/host").mkdir(parents=True)
    sync = CheckpointSync(S3Store(s3), "s3://bucket/run", folders={"algo-1": tmp_path / "deep/host"})
    with pytest.raises(StorageError, match="leads out of the folder"):
        sync.restore()
    assert list(tmp_path.rglob("evil")) == []


@pytest.mark.parametrize(
    "script",
    [
        "ln -s {secret} checkpoints/link; ln -s {secret} model/link; ln -s {secret} output/data/link",
        "ln -s {folder} checkpoints/link; ln -s {folder} model/link; ln -s {folder} output/data/link",
        "rmdir model output/data; ln -s {folder} model; ln -s {folder} output/data",
        "rm -r output; ln -s {folder} output",
        "rmdir checkpoints; ln -s {folder} checkpoints",
    ],
)
def test_links_give_nothing_of_this_machine_away(make_emulator, tmp_path, script):
    emulator = make_emulator(isolation="processes")
    (tmp_path / "private/data").mkdir(parents=True)
    for name in ("secret", "failure", "data/secret"):
        (tmp_path / "private" / name).write_text("top secret")
    script = script.format(folder=tmp_path / "private", secret=tmp_path / "private/secret")
    request = emulator.request(
        f"{script}; sleep 0.3; exit 1", CheckpointConfig={"S3Uri": "s3://bucket/checkpoints/run"}
    )
    request["OutputDataConfig"]["CompressionType"] = "NONE"
    record = emulator.run(request)
    assert "secret" not in record["FailureReason"]
    for one in emulator.store.list("s3://bucket/output/"):
        assert b"top secret" not in emulator.store.get_bytes(one.uri)
    assert emulator.store.list("s3://bucket/checkpoints/") == []


def test_hosts_see_neither_each_other_nor_the_emulators_files(make_emulator, needs_namespaces, tmp_path):
    emulator = make_emulator(isolation="namespaces")
    (tmp_path / "mine").write_text("mine")
    script = f"""
        ls {emulator.root} {tmp_path}; ps -e | wc -l; ls /tmp /mnt; ls / | tr '\\n' ' '
        for place in /etc /usr /var/lib /root; do echo x > $place/policylab-emulated; done; kill -9 -1; echo alive
    """
    record = emulator.run(emulator.request(script, Environment={"HOME": "/tmp"}))
    assert record["TrainingJobStatus"] == "Completed", emulator.log()
    assert "mine" not in emulator.log()
    assert "jobs" not in emulator.log()
    assert emulator.log().endswith("alive\n")


@pytest.mark.skipif(os.getuid() != 0, reason="every other test of namespaces does without being root then")
def test_hosts_are_isolated_without_being_administrator(tmp_path, needs_namespaces):
    """User namespaces are enough: here without any capability but the one that lets root enter them."""
    limits = "from policylab.launchers.sagemaker.emulator.cluster import decide; print(*decide('auto'))"
    command = ["setpriv", "--bounding-set=-all,+setfcap", sys.executable, "-c", limits]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("True"), done.stdout + done.stderr


def test_root_in_a_host_is_no_administrator_of_this_machine(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces")
    script = """
        mount -t tmpfs x /mnt && echo mounted; mknod /tmp/disk b 8 0 && echo made; ip link set eth0 down && echo cut
        echo 1 > /proc/sys/vm/overcommit_memory && echo set; echo x > /sys/kernel/profiling && echo wrote
        ls /dev | sort | tr '\\n' ' '; echo; python3 -c 'import os; print(os.ttyname(os.openpty()[1]))'; id -u
    """
    emulator.run(emulator.request(script))
    *refusals, devices, terminal, user = emulator.log().splitlines()
    assert (terminal, user) == ("/dev/pts/0", "0")
    names = {name for name in devices.split() if not name.startswith("nvidia")}
    assert names == {"fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
                     "urandom", "zero"}  # fmt: skip
    assert len(refusals) >= 5
    assert not {"mounted", "made", "cut", "set", "wrote"} & set(refusals)


def test_checkpoints_follow_what_the_host_does(tmp_path):
    """Changed files are uploaded, deleted ones deleted, and what came into the store meanwhile is left alone."""
    store, folder = FolderStore(tmp_path / "s3"), tmp_path / "host"
    for name in ("kept", "deep/gone", "changed"):
        store.put_bytes(b"old", f"s3://bucket/run/{name}")
    sync = CheckpointSync(store, "s3://bucket/run/", folders={"algo-1": folder})
    assert sync.restore() == 3
    assert sync.upload() == 0
    (folder / "changed").write_text("new")
    (folder / "deep/gone").unlink()
    (folder / "deep/added").write_text("added")
    store.put_bytes(b"foreign", "s3://bucket/run/foreign")
    assert sync.upload() == 3
    assert sync.upload() == 0
    content = {one.uri.rpartition("run/")[2]: store.get_bytes(one.uri) for one in store.list("s3://bucket/run/")}
    assert content == {"kept": b"old", "changed": b"new", "deep/added": b"added", "foreign": b"foreign"}


def test_one_prefix_for_all_hosts(tmp_path):
    store = FolderStore(tmp_path / "s3")
    store.put_bytes(b"old", "s3://bucket/run/both")
    store.put_bytes(b"old", "s3://bucket/run/removed")
    folders = {host: tmp_path / host for host in ("algo-1", "algo-2")}
    sync = CheckpointSync(store, "s3://bucket/run", folders=folders)
    sync.restore()
    (folders["algo-2"] / "both").write_text("two")
    sync.upload()
    assert sync.contested() == []
    (folders["algo-1"] / "both").write_text("one")
    (folders["algo-1"] / "removed").unlink()
    sync.upload()
    assert sync.contested() == ["both"]
    assert store.get_bytes("s3://bucket/run/both") == b"one"
    assert not store.exists("s3://bucket/run/removed")
    (folders["algo-2"] / "both").write_text("lost with its host")
    assert sync.upload(without={"algo-2"}) == 0
