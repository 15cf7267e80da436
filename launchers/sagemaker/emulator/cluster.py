"""`Cluster`: the running hosts of one attempt, through the process of `policylab.launchers.sagemaker.pod`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from policylab.errors import RunError, UserError
from policylab.launchers.sagemaker.emulator.hosts import INTERFACE, Host
from policylab.launchers.sagemaker.pod.marked import MARK, kill_marked

Isolation = Literal["auto", "namespaces", "processes"]

_POD = "policylab.launchers.sagemaker.pod"
_READY_S = 60.0
_PARTS = ("ml", "tmp", "var-tmp", "etc", "rootfs")
_PATH = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ClusterLostError(RunError):
    """The hosts cannot be started, or have vanished together: on the service an internal error."""


@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """The end of a host's process 1; ``code`` is 128 + N after signal N."""

    host: str
    code: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a host executes.

    Attributes:
        argv: program and arguments.
        environment: its variables, besides PATH, HOME and LANG.
        log: file to which its output is appended.
        read_only: folders below /opt/ml that it may not write.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    read_only: Sequence[str] = ()


class Cluster:
    """Hosts with file trees of their own; leaves no process, mount, namespace or link when it is closed.

    Args:
        folder: an empty one, for the hosts' files.
        commands: every host of the job, and what it will execute when it is started.
        isolated: in namespaces of their own, else as plain processes.
        hidden: what isolated hosts must not see.
        disk_mb: size of each host's /opt/ml, if they are isolated; default: what the machine has.

    Raises:
        ClusterLostError: the hosts cannot be made.
    """

    def __init__(
        self,
        folder: Path,
        commands: Mapping[Host, Command],
        *,
        isolated: bool,
        hidden: Path,
        disk_mb: int | None = None,
    ) -> None:
        self.isolated = isolated
        self._folder = folder
        self._disk_mb = disk_mb
        self._begun: dict[str, Any] = {}
        self._unread = b""
        for host in commands:
            self._make_folders(host, names="".join(f"{one.address} {one.name}\n" for one in commands))
        spec = {
            "isolated": isolated,
            "hidden": str(hidden),
            "disk_mb": disk_mb,
            "hosts": [self._host_spec(host, command) for host, command in commands.items()],
        }
        (folder / "pod.json").write_text(json.dumps(spec))
        self._pod = subprocess.Popen(
            [sys.executable, "-m", _POD, str(folder / "pod.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches the emulator alone
        )
        deadline = time.monotonic() + _READY_S
        try:
            while not {"pid", "ready"} <= self._begun.keys():
                if time.monotonic() > deadline:
                    raise ClusterLostError(f"the hosts were not made within {_READY_S:.0f} s")
                self._take(timeout_s=1.0)
        except BaseException:
            self.close()
            raise

    @property
    def interface(self) -> str:
        """The network interface over which hosts reach each other."""
        return INTERFACE if self.isolated else "lo"

    def _make_folders(self, host: Host, *, names: str) -> None:
        for part in _PARTS:
            (self._folder / host.name / part).mkdir(parents=True)
        for part in ("tmp", "var-tmp"):
            (self._folder / host.name / part).chmod(0o1777)
        etc = self._folder / host.name / "etc"
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        (etc / "hostname").write_text(f"{host.name}\n")
        (etc / "resolv.conf").write_text("")

    def _host_spec(self, host: Host, command: Command) -> dict[str, Any]:
        folder = self._folder / host.name
        here = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/tmp", **command.environment}
        argv = list(command.argv)
        if not self.isolated:
            ml = str(folder / "ml")
            argv = [part.replace("/opt/ml", ml) for part in argv]
            here = {key: value.replace("/opt/ml", ml) for key, value in here.items()}
            here |= {MARK: ml, "HOME": str(folder / "tmp"), "TMPDIR": str(folder / "tmp")}
        return {
            "name": host.name,
            "number": host.number,
            "address": host.address,
            "folder": str(folder),
            "log": str(command.log),
            "argv": argv,
            "environment": here,
            "read_only": list(command.read_only),
        }

    def ml(self, name: str) -> Path:
        """Return where a host's /opt/ml is found from here."""
        tree = self._folder / name / "ml"
        if self._disk_mb is None:
            return tree
        return Path(f"/proc/{self._begun['pid']}/root", *tree.parts[1:])

    def start(self, name: str) -> None:
        """Begin a host's command."""
        self._order(f"start {name}")

    def term(self, name: str) -> None:
        """Send SIGTERM to a host's process 1."""
        self._order(f"term {name}")

    def kill(self, name: str) -> None:
        """Take a host away at once."""
        self._order(f"kill {name}")

    def unplug(self, name: str) -> None:
        """Cut a host off the network, without a word to its processes."""
        self._order(f"unplug {name}")

    def exits(self, *, timeout_s: float) -> list[Exit]:
        """Return the hosts that ended since the last call; wait at most ``timeout_s`` for one.

        Raises:
            ClusterLostError: a host could not be started, or the process that holds them is gone.
        """
        return [Exit(one["host"], one["code"]) for one in self._take(timeout_s=timeout_s) if one["event"] == "exit"]

    def _order(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # told by the next `exits`
            assert self._pod.stdin is not None
            self._pod.stdin.write(f"{line}\n".encode())
            self._pod.stdin.flush()

    def _take(self, *, timeout_s: float) -> list[dict[str, Any]]:
        """Return the events that have arrived."""
        assert self._pod.stdout is not None
        output = self._pod.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return []
        read = os.read(output, 65_536)
        if not read:
            raise ClusterLostError("the process that held the hosts ended unexpectedly")
        *lines, self._unread = (self._unread + read).split(b"\n")
        events = [json.loads(line) for line in lines]
        for event in events:
            if event["event"] == "refused":
                raise ClusterLostError(f"{event.get('host', 'hosts')} cannot be made: {event['reason']}")
            self._begun[event["event"]] = event.get("pid")
        return events

    def close(self) -> None:
        """Kill what still runs and wait until it is gone."""
        assert self._pod.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._pod.stdin.close()
        try:
            self._pod.wait(_READY_S)
        except subprocess.TimeoutExpired:
            self._pod.kill()
            self._pod.wait()
        if self._pod.stdout is not None:
            self._pod.stdout.close()
        if not self.isolated:  # the process that holds the hosts may have been killed itself
            kill_marked(self._folder)


@functools.cache
def why_not_isolated() -> str | None:
    """Return why this machine cannot isolate hosts, or None: found out by isolating one."""
    folder = Path(tempfile.mkdtemp(prefix="policylab-probe-"))
    host = Host(1, "probe", "none")
    try:
        if shutil.which("ip", path=_PATH) is None:
            return "the command `ip` (package iproute2) is not installed"
        command = Command(argv=["true"], environment={}, log=folder / "log")
        cluster = Cluster(folder / "hosts", {host: command}, isolated=True, hidden=folder)
        try:
            cluster.start(host.name)
            ended = cluster.exits(timeout_s=_READY_S) or cluster.exits(timeout_s=_READY_S)
        finally:
            cluster.close()
        return None if ended and ended[0].code == 0 else f"a trial host failed: {(folder / 'log').read_text()!r}"
    except ClusterLostError as error:
        return str(error)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def decide(isolation: Isolation) -> tuple[bool, str]:
    """Return whether hosts are isolated, and why.

    Raises:
        UserError: namespaces were asked for, and are not allowed here.
    """
    if isolation == "processes":
        return False, "asked for"
    reason = why_not_isolated()
    if reason is None:
        return True, "namespaces are allowed here"
    if isolation == "namespaces":
        raise UserError(f"isolation=namespaces: not possible on this machine: {reason}; use isolation=processes")
    return False, reason
