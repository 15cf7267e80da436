"""The control connection: only hosts of the job are let in, and whoever is lost is noticed."""

import json
import queue
import socket
import time

import pytest

from policylab.launchers.sagemaker.container.control import HeadControl, connect

TOKEN = "a token of this job"
WAIT_S = 20


@pytest.fixture
def events():
    return queue.SimpleQueue()


@pytest.fixture
def head(events):
    """The head's end, with its address; it expects algo-2 and algo-3 of group rollout."""
    made = []

    def make(heartbeat_s=0.5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        expected = {"algo-2": "rollout", "algo-3": "rollout"}
        control = HeadControl(address, token=TOKEN, expected=expected, heartbeat_s=heartbeat_s, events=events)
        made.append(control)
        return control, address

    yield make
    for control in made:
        control.close()


def hello(host="algo-2", group="rollout", token=TOKEN):
    return {"token": token, "host": host, "group": group}


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_host_is_told_what_was_announced_before_and_after_it_came(head, events):
    control, address = head()
    early = connect(address, hello(), heartbeat_s=0.5)
    until(lambda: control.joined == {"algo-2"})
    control.announce({"state": "ray", "address": "10.0.0.1:6379"})
    late = connect(address, hello("algo-3"), heartbeat_s=0.5)
    for line in (early, late):
        assert next(line.messages()) == {"state": "ray", "address": "10.0.0.1:6379"}
    late.send({"state": "ready"})
    assert events.get(timeout=WAIT_S) == {"state": "ready", "event": "ready", "host": "algo-3"}
    control.announce({"state": "done", "code": 0})
    assert next(early.messages()) == {"state": "done", "code": 0}
    early.close()
    late.close()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (hello(token="another token of a job"), "the token is another job's"),
        (hello(token=None), "the token is another job's"),
        (hello("algo-9"), "'algo-9' of group 'rollout' is no host of this job"),
        (hello(group="learner"), "'algo-2' of group 'learner' is no host of this job"),
        (hello(host=["algo-2"]), "no host of this job"),
    ],
)
def test_strangers_are_refused(head, given, reason):
    control, address = head()
    line = connect(address, given, heartbeat_s=0.5)
    message = next(line.messages())
    assert message["state"] == "refused"
    assert reason in message["reason"]
    assert control.joined == set()
    line.close()


def test_a_host_cannot_be_there_twice(head):
    control, address = head()
    first = connect(address, hello(), heartbeat_s=0.5)
    until(lambda: control.joined)
    second = connect(address, hello(), heartbeat_s=0.5)
    assert next(second.messages())["reason"] == "'algo-2' is connected already"
    assert control.joined == {"algo-2"}
    first.close()
    second.close()


@pytest.mark.parametrize("noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 3000, b"[]\n", b"1\n", b'{"a": '])
def test_noise_does_not_block_those_who_belong(head, noise):
    control, address = head()
    with socket.create_connection(address) as stranger:
        stranger.sendall(noise)
        line = connect(address, hello(), heartbeat_s=0.5)
        until(lambda: control.joined == {"algo-2"})
    line.close()


def test_the_end_of_a_process_is_noticed_at_once(head, events):
    control, address = head()
    line = connect(address, hello(), heartbeat_s=0.5)
    until(lambda: control.joined)
    line.close()
    event = events.get(timeout=WAIT_S)
    assert (event["event"], event["host"]) == ("lost", "algo-2")
    assert event["reason"] == "worker host lost: algo-2: it closed the connection"
    assert control.joined == set()


def test_a_machine_that_vanishes_is_noticed_by_its_silence(head, events):
    control, address = head(heartbeat_s=0.05)
    with socket.create_connection(address) as silent:  # no sign of life, and no end of the connection either
        silent.sendall(json.dumps(hello()).encode() + b"\n")
        assert events.get(timeout=WAIT_S)["reason"] == "worker host lost: algo-2: silent for 0.3 s"
    assert control.joined == set()


def test_signs_of_life_keep_a_quiet_host(head, events):
    control, address = head(heartbeat_s=0.05)
    line = connect(address, hello(), heartbeat_s=0.05)
    time.sleep(1.0)  # three times the silence that counts as a loss
    assert control.joined == {"algo-2"}
    assert events.empty()
    line.close()


def test_the_head_is_missed_by_its_silence_and_by_its_end(head):
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = connect(server.getsockname(), hello(), heartbeat_s=0.05)
        connection, _ = server.accept()
        with pytest.raises(ConnectionError, match=r"silent for 0\.3 s"):
            next(line.messages())
        connection.close()
        line.close()
        line = connect(server.getsockname(), hello(), heartbeat_s=0.5)
        server.accept()[0].close()
        with pytest.raises(ConnectionError, match=r"closed|reset"):
            next(line.messages())
        line.close()
