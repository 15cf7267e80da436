"""How objects become files and streams in a host's /opt/ml/input/data."""

import gzip
import json

import pytest

WAIT = "next() { for _ in {1..2000}; do [ -p input/data/stream_$1 ] && return; sleep 0.02; done; exit 9; }"


def put(emulator, **files):
    for name, content in files.items():
        emulator.store.put_bytes(content, f"s3://bucket/data/{name.replace('__', '/')}")


def test_a_prefix_is_a_folder_or_one_object(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    put(emulator, a=b"1", deep__b=b"2", **{"-old": b"3"})
    emulator.store.put_bytes(b"4", "s3://bucket/data-old/x")
    channels = [
        emulator.channel("folder", "s3://bucket/data"),
        emulator.channel("slash", "s3://bucket/data/"),
        emulator.channel("object", "s3://bucket/data/deep/b"),
    ]
    script = "cd input/data; find folder slash object -type f"
    emulator.run(emulator.request(script, channels=channels))
    names = ["-old", "a", "deep/b"]
    expected = [*(f"folder/{one}" for one in names), "object/b", *(f"slash/{one}" for one in names)]
    assert sorted(emulator.log().splitlines()) == sorted(expected)


def test_fast_file_channels_are_read_only(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces")
    put(emulator, a=b"1")
    channels = [
        emulator.channel("fast", "s3://bucket/data/", InputMode="FastFile"),
        emulator.channel("plain", "s3://bucket/data/"),
    ]
    script = "cat input/data/fast/a; touch input/data/fast/b; touch input/data/plain/b && echo written"
    emulator.run(emulator.request(script, channels=channels))
    assert emulator.log().startswith("1")
    assert "Read-only file system" in emulator.log()
    assert "written" in emulator.log()


def test_pipes_are_fed_epoch_after_epoch(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    put(emulator, a=b"first\n", b=b"second\n")
    script = """
        cat input/data/stream_0; next 1; head -1 input/data/stream_1; next 2; cat input/data/stream_2
        ls input/data/stream; cat input/config/inputdataconfig.json
    """
    channels = [emulator.channel("stream", "s3://bucket/data/", InputMode="Pipe", ContentType="text/plain")]
    record = emulator.run(emulator.request(WAIT + script, channels=channels))
    assert record["TrainingJobStatus"] == "Completed", emulator.log()
    *lines, told = emulator.log().splitlines()
    assert lines[:5] == ["first", "second", "first", "first", "second"]
    assert "No such file" in lines[5]
    assert json.loads(told)["stream"] == {
        "ContentType": "text/plain",
        "TrainingInputMode": "Pipe",
        "S3DistributionType": "FullyReplicated",
        "RecordWrapperType": "None",
    }


def test_pipes_shuffle_and_decompress(make_emulator):
    emulator = make_emulator()
    put(emulator, **{f"part{number}": gzip.compress(b"%d " % number) for number in range(6)})
    script = f"{WAIT}\nfor epoch in 0 1 2; do next $epoch; cat input/data/stream_$epoch; echo; done"
    fields = {"InputMode": "Pipe", "CompressionType": "Gzip", "ShuffleConfig": {"Seed": 3}}
    emulator.run(emulator.request(script, channels=[emulator.channel("stream", "s3://bucket/data/", **fields)]))
    epochs = emulator.log().splitlines()
    assert [sorted(epoch.split()) for epoch in epochs] == [list("012345")] * 3
    assert len(set(epochs)) > 1


def test_a_job_that_ignores_its_pipe_ends(make_emulator):
    emulator = make_emulator()
    put(emulator, a=bytes(1_000_000))
    script = "exec 3< input/data/stream_0; sleep 0.2"
    record = emulator.run(
        emulator.request(script, channels=[emulator.channel("stream", "s3://bucket/data/", InputMode="Pipe")])
    )
    assert record["TrainingJobStatus"] == "Completed"


def test_shards_are_disjoint_and_complete(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    put(emulator, **{f"part{number}": b"x" for number in range(7)})
    source = {"S3DataDistributionType": "ShardedByS3Key"}
    channels = [emulator.channel("data", "s3://bucket/data/", source=source)]
    emulator.run(emulator.request("ls input/data/data", hosts=3, channels=channels))
    shares = [emulator.log(host).split() for host in ("algo-1", "algo-2", "algo-3")]
    assert sorted(name for one in shares for name in one) == [f"part{number}" for number in range(7)]
    assert sorted(map(len, shares)) == [2, 2, 3]


def test_channels_of_a_group_reach_that_group_alone(make_emulator):
    emulator = make_emulator(isolation="processes")
    put(emulator, a=b"1")
    groups = [
        {"InstanceGroupName": name, "InstanceType": "ml.m5.xlarge", "InstanceCount": 1}
        for name in ("learner", "rollout")
    ]
    channels = [emulator.channel("data", "s3://bucket/data/", source={"InstanceGroupNames": ["learner"]})]
    script = "ls input/data; python3 -m json.tool input/config/resourceconfig.json | grep current_group"
    request = emulator.request(
        script, channels=channels, ResourceConfig={"VolumeSizeInGB": 1, "InstanceGroups": groups}
    )
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["InstanceGroupNames"] = ["learner", "rollout"]
    emulator.run(request)
    for host in ("algo-1", "algo-2"):
        assert ("data" in emulator.log(host).split()) == ("learner" in emulator.log(host))


def test_manifests_name_objects(make_emulator):
    emulator = make_emulator()
    put(emulator, a=b"1", deep__b=b"2", c=b"3")
    manifest = [{"prefix": "s3://bucket/data/"}, "a", "deep/b"]
    emulator.store.put_bytes(json.dumps(manifest).encode(), "s3://bucket/manifest")
    channels = [emulator.channel("data", "s3://bucket/manifest", source={"S3DataType": "ManifestFile"})]
    emulator.run(emulator.request("cd input/data/data; find -type f | sort", channels=channels))
    assert emulator.log().split() == ["./a", "./deep/b"]


@pytest.mark.parametrize(
    "manifest", [b"no json", b"[]", b'["a"]', b'[{"prefix": "s3://bucket/data/"}, "../../../../etc/passwd"]', b"[1, 2]"]
)
def test_broken_and_hostile_manifests(make_emulator, manifest):
    emulator = make_emulator()
    emulator.store.put_bytes(manifest, "s3://bucket/manifest")
    channels = [emulator.channel("data", "s3://bucket/manifest", source={"S3DataType": "ManifestFile"})]
    record = emulator.run(emulator.request("true", channels=channels))
    assert record["FailureReason"].startswith("ClientError: Data download failed for channel data: ")


def test_a_channel_without_objects(make_emulator):
    emulator = make_emulator()
    record = emulator.run(emulator.request("true", channels=[emulator.channel("data", "s3://bucket/nothing")]))
    assert (
        record["FailureReason"]
        == "ClientError: Data download failed for channel data: no objects at s3://bucket/nothing"
    )


def test_a_local_folder_stands_in_for_any_source(make_emulator, tmp_path):
    (tmp_path / "mine/deep").mkdir(parents=True)
    (tmp_path / "mine/deep/a").write_text("local")
    emulator = make_emulator(folders={"data": tmp_path / "mine"})
    source = {"FileSystemId": "fs-0123456789abcdef0", "FileSystemType": "EFS", "DirectoryPath": "/"}
    source["FileSystemAccessMode"] = "ro"
    request = emulator.request("cat input/data/data/deep/a")
    request["InputDataConfig"].append({"ChannelName": "data", "DataSource": {"FileSystemDataSource": source}})
    request["VpcConfig"] = {"Subnets": ["subnet-0123456789abcdef0"], "SecurityGroupIds": ["sg-0123456789abcdef0"]}
    assert emulator.run(request)["TrainingJobStatus"] == "Completed"
    assert emulator.log() == "local"
