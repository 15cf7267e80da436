"""Ray nodes as processes of their own on this machine, each of which can be lost as a machine is."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

START_S = 180


def free_port():
    """Return a port below those that the kernel gives to connections, so that it is still free when it is used."""
    while True:
        port = secrets.choice(range(20_000, 32_000))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def wait_for_port(port, node):
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        assert node.process.poll() is None, node.output()
        assert time.monotonic() < deadline, node.output()
        time.sleep(0.2)


class Node:
    """A node with everything it runs; a session of its own, so that all of it can be ended at once."""

    def __init__(self, *options, env):
        ports = {f"--{name}": free_port() for name in ("dashboard-agent-listen-port", "dashboard-agent-grpc-port")}
        ports |= {"--min-worker-port": 0, "--max-worker-port": 0}
        self._folder = tempfile.TemporaryDirectory(dir="/tmp", prefix="t", ignore_cleanup_errors=True)
        command = [Path(sys.executable).with_name("ray"), "start", "--block", "--disable-usage-stats", *options]
        command += [part for pair in ports.items() for part in pair]
        if "--head" in options:
            command += ["--temp-dir", self._folder.name, "--ray-client-server-port", free_port()]
        self._output = Path(self._folder.name) / "output"
        with self._output.open("w") as output:
            self.process = subprocess.Popen(
                [*map(str, command)], env=env, start_new_session=True, stdout=output, stderr=output
            )

    def output(self):
        """Return what it printed."""
        return self._output.read_text()

    def lose(self):
        """End it without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self):
        self.lose()
        self._folder.cleanup()


@pytest.fixture(scope="module")
def ray_environment():
    """The environment of processes of a cluster: nothing that another session of Ray left, and our programs first.

    Where the user's home holds a token, ``ray start --head`` would require it, and nodes that join would not send it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "RAY_AUTH_MODE": "disabled", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def start_node(ray_environment):
    """Start a node with options of ``ray start``; all nodes end with the module."""
    with contextlib.ExitStack() as nodes:

        def start(*options):
            node = Node(*options, env=ray_environment)
            nodes.callback(node.close)
            return node

        yield start


def wait_for_node(node):
    """Return whether a node came up; Ray gives up on one that takes more than 30 s, as on a busy machine."""
    while node.process.poll() is None:
        if "Ray runtime started" in node.output():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(scope="module")
def join(start_node):
    """Start a node with options of ``ray start`` and wait until it is part of the cluster at an address."""

    def start(address, *options):
        for _ in range(4):
            node = start_node("--address", address, *options)
            if wait_for_node(node):
                return node
        pytest.fail(node.output())

    return start


@pytest.fixture(scope="module")
def start_head(start_node):
    """Start a head with options of ``ray start`` and wait for it; return the node and the address of the cluster."""

    def start(*options):
        port = free_port()
        node = start_node("--head", "--port", port, *options)
        wait_for_port(port, node)
        return node, f"127.0.0.1:{port}"

    return start
