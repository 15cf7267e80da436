"""Jobs of several hosts: names, groups, the network between them, and what happens when one of them is lost."""

import json

import pytest
from botocore.exceptions import ClientError

from policylab.errors import ConfigError
from policylab.launchers.sagemaker.emulator import parse_injection
from policylab.launchers.sagemaker.emulator.hosts import hosts_of, resource_config

WHO = "name=$(python3 -c \"import json; print(json.load(open('input/config/resourceconfig.json'))['current_host'])\")"

TALK = r"""exec python3 -c '
import json, socket, sys, time
mine = json.load(open("input/config/resourceconfig.json"))["current_host"]
patience = 5.0
def fail(reason):
    open("output/failure", "w").write(reason)
    sys.exit(5)
if mine == "algo-1":
    server = socket.create_server(("algo-1", 7000))
    server.settimeout(patience)
    try:
        peer, address = server.accept()
    except TimeoutError:
        fail("algo-2 never joined")
    peer.settimeout(patience)
    print("joined from", address[0], flush=True)
    while True:
        try:
            said = peer.recv(1)
        except TimeoutError:
            fail("algo-2 is silent")
        if not said:
            fail("algo-2 is lost")
        if said == b"x":
            sys.exit(0)
else:
    deadline = time.monotonic() + 10
    while True:
        try:
            peer = socket.create_connection(("algo-1", 7000), timeout=1)
            break
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    for _ in range(20 if "short" in sys.argv else 600):
        peer.sendall(b".")
        time.sleep(0.05)
    peer.sendall(b"x")
' """


def groups_request(emulator, script, **sections):
    groups = [
        {"InstanceGroupName": "learner", "InstanceType": "ml.g5.2xlarge", "InstanceCount": 1},
        {"InstanceGroupName": "rollout", "InstanceType": "ml.c5.4xlarge", "InstanceCount": 2},
    ]
    request = emulator.request(script, ResourceConfig={"VolumeSizeInGB": 5, "InstanceGroups": groups}, **sections)
    for channel in request["InputDataConfig"]:
        channel["DataSource"]["S3DataSource"].setdefault("InstanceGroupNames", ["learner", "rollout"])
    return request


@pytest.mark.parametrize("name", [f"job-{number}" for number in range(20)])
def test_host_lists_are_never_sorted_and_the_first_group_never_has_algo_1(name):
    many = hosts_of({"TrainingJobName": name, "ResourceConfig": {"InstanceType": "x", "InstanceCount": 11}})
    assert sorted(host.number for host in many) == list(range(1, 12))
    assert [host.number for host in many] != list(range(1, 12))
    groups = [
        {"InstanceGroupName": group, "InstanceType": "x", "InstanceCount": n} for group, n in (("a", 1), ("b", 2))
    ]
    mixed = hosts_of({"TrainingJobName": name, "ResourceConfig": {"InstanceGroups": groups}})
    assert [host.group for host in mixed] == ["a", "b", "b"]
    assert mixed[0].name != "algo-1"
    again = hosts_of({"TrainingJobName": name, "ResourceConfig": {"InstanceGroups": groups}})
    assert mixed == again
    listed = resource_config(mixed, mixed[2])
    assert listed["hosts"] == [host.name for host in mixed]
    assert listed["instance_groups"][0] == {"instance_group_name": "a", "instance_type": "x", "hosts": [mixed[0].name]}


def test_one_host_is_algo_1():
    assert [h.name for h in hosts_of({"TrainingJobName": "a", "ResourceConfig": {"InstanceType": "x"}})] == ["algo-1"]


def test_hosts_know_their_groups_and_reach_each_other_by_name(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces")
    script = """
        cat input/config/resourceconfig.json; echo
        hostname; getent hosts algo-1 algo-2 algo-3 | sort; ip -br link show eth0 | cut -d' ' -f1
    """
    record = emulator.run(groups_request(emulator, script))
    assert record["TrainingJobStatus"] == "Completed", emulator.log()
    told = {host: json.loads(emulator.log(host).splitlines()[0]) for host in emulator.log_files("job")}
    assert {host: one["current_host"] for host, one in told.items()} == {host: host for host in told}
    lists = {json.dumps([one["hosts"], one["instance_groups"]]) for one in told.values()}
    assert len(lists) == 1
    for host, one in told.items():
        group = next(g for g in one["instance_groups"] if host in g["hosts"])
        assert (one["current_group_name"], one["current_instance_type"]) == (
            group["instance_group_name"],
            group["instance_type"],
        )
        lines = emulator.log(host).splitlines()
        assert lines[1] == host
        assert [line.split() for line in lines[2:5]] == [[f"10.77.0.{n}", f"algo-{n}"] for n in (1, 2, 3)]
        assert one["network_interface_name"] == lines[5].partition("@")[0]


def test_there_is_no_way_out_of_the_job(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces", parallel=2)
    script = "ip route | grep -c default; ip route get 192.0.2.1; ls /sys/class/net | tr '\\n' ' '"
    emulator.run(emulator.request(script))
    assert emulator.log().splitlines()[0] == "0"
    assert "unreachable" in emulator.log()


def test_parallel_jobs_use_the_same_addresses_and_ports(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces", parallel=2)
    short = TALK.rstrip() + " short"
    for name in ("left", "right"):
        emulator.create_training_job(**emulator.request(short, name=name, hosts=2))
    for name in ("left", "right"):
        assert emulator.end(name)["TrainingJobStatus"] == "Completed", emulator.log(name=name)
        assert emulator.log(name=name) == "joined from 10.77.0.2\n"


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("kill@2:algo-2", "algo-2 is lost"),
        ("unplug@2:algo-2", "algo-2 is silent"),
        ("missing:algo-2", "algo-2 never joined"),
    ],
)
def test_losing_a_host(make_emulator, needs_namespaces, trouble, reason):
    emulator = make_emulator(isolation="namespaces", injections=(parse_injection(trouble),), linger_s=1, grace_s=1)
    record = emulator.run(emulator.request(TALK, hosts=2))
    assert record["TrainingJobStatus"] == "Failed"
    assert record["FailureReason"] == f"AlgorithmError: {reason}, exit code: {record['FailureReason'][-3:].strip(': ')}"
    assert emulator.hosts()["algo-1"]["ExitCode"] == 5
    killed = {"kill@2:algo-2": 137, "missing:algo-2": None}
    if trouble in killed:
        assert emulator.hosts()["algo-2"]["ExitCode"] == killed[trouble]


def test_a_host_is_lost_when_it_is_told_to_be(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces", linger_s=10, grace_s=1)
    emulator.create_training_job(**emulator.request(TALK, hosts=2))
    emulator.says("joined")
    with pytest.raises(ClientError, match="job has no host algo-3"):
        emulator.lose("job", "algo-3")
    emulator.lose("job", "algo-2")
    assert "algo-2 is lost" in emulator.end()["FailureReason"]
    assert emulator.hosts()["algo-2"]["ExitCode"] == 137


def test_a_host_that_comes_late(make_emulator, needs_namespaces):
    emulator = make_emulator(isolation="namespaces", injections=(parse_injection("late@0.8:algo-2"),))
    record = emulator.run(emulator.request(TALK.rstrip() + " short", hosts=2))
    assert record["TrainingJobStatus"] == "Completed", emulator.log()
    assert emulator.hosts()["algo-1"]["Seconds"] >= 0.8


@pytest.mark.parametrize("status", [0, 1])
def test_the_others_may_finish_by_themselves_when_one_has_ended(make_emulator, isolation, status):
    """One host's end, good or bad, is no signal to the others: what they do then is theirs to show."""
    emulator = make_emulator(isolation=isolation)
    script = f'{WHO}\n[ $name = algo-1 ] && exit {status}; trap "echo told" TERM; sleep 0.6; echo finished'
    record = emulator.run(emulator.request(script, hosts=2))
    assert record["TrainingJobStatus"] == ("Failed" if status else "Completed")
    assert emulator.log("algo-2") == "finished\n"


def test_hosts_that_linger_after_a_failure_are_ended(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation, linger_s=1, grace_s=20)
    script = f'trap "echo told; exit 0" TERM\n{WHO}\n[ $name = algo-1 ] && exit 3; while :; do sleep 0.05; done'
    record = emulator.run(emulator.request(script, hosts=2))
    assert record["FailureReason"] == "AlgorithmError: , exit code: 3"
    assert emulator.log("algo-2") == "told\n"
    assert not emulator.hosts()["algo-2"]["Killed"]


def test_models_are_merged_and_clashes_found(make_emulator, isolation):
    emulator = make_emulator(isolation=isolation)
    script = f"{WHO}\nmkdir model/part; echo $name > model/part/$name; echo same > model/same"
    record = emulator.run(emulator.request(script, hosts=2))
    assert record["TrainingJobStatus"] == "Completed"
    with emulator.archive() as archive:
        assert sorted(archive.getnames()) == ["part", "part/algo-1", "part/algo-2", "same"]
    clash = emulator.request(f"{WHO}\necho $name > model/weights", name="clash", hosts=2)
    reason = emulator.run(clash)["FailureReason"]
    assert reason.startswith(
        "ClientError: hosts wrote different files to the same place; let one host write: weights (on"
    )


def test_plain_model_files(make_emulator):
    emulator = make_emulator()
    request = emulator.request("mkdir model/a; echo 1 > model/a/b; echo 2 > model/c")
    request["OutputDataConfig"]["CompressionType"] = "NONE"
    record = emulator.run(request)
    uri = record["ModelArtifacts"]["S3ModelArtifacts"]
    assert uri == "s3://bucket/output/job/output/model/"
    assert [one.uri.removeprefix(uri) for one in emulator.store.list(uri)] == ["a/b", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kil@5:algo-2", "did you mean 'kill'"),
        ("kill@5", "names its host"),
        ("interrupt@5:algo-1", "befalls the whole job"),
        ("kill:algo-2", "needs a time"),
        ("missing@3:algo-2", "has no time"),
        ("", "an injection is"),
    ],
)
def test_injections_that_make_no_sense(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_injection(text)


@pytest.mark.parametrize(
    ("text", "message"), [("kill@5:algo-9", "no such host"), ("interrupt@5", "only spot instances")]
)
def test_injections_that_cannot_befall_a_job(make_emulator, text, message):
    emulator = make_emulator(injections=(parse_injection(text),))
    with pytest.raises(ConfigError, match=message):
        emulator.check(emulator.request("true"))
