"""One job's hosts: the process that starts them, signals them and takes all of them along when it ends.

``python -m policylab.launchers.sagemaker.pod SPEC.json`` reads orders on standard input, one per line, and
writes events on standard output, one JSON object per line. When its input ends, as it does when the emulator dies in
any way, every host is killed.

| order | what happens |
|---|---|
| ``start HOST`` | the host's command begins; ``{"event": "started"}``, or ``{"event": "refused", "reason"}`` |
| ``term HOST`` | SIGTERM to its process 1 |
| ``kill HOST`` | SIGKILL to its process 1, and with it to every process of the host; its connections end |
| ``unplug HOST`` | its network goes dead, and its processes go on |

The first events are ``{"event": "pid", "pid"}``, the process below whose root the hosts' files are found, and
``{"event": "ready"}``; later ones ``{"event": "exit", "host", "code"}``, where 128 + N is death by signal N.

Isolated hosts: this process enters mount, network and process namespaces of the job's own, in which it is process 1,
so that nothing survives it. A bridge joins the hosts; it exists in the job's network namespace alone, has no way out,
and vanishes with it. Each host has mount, network, process, name and IPC namespaces below those. Otherwise hosts are
plain processes whose environment names their folder, by which they are found and killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from policylab.launchers.sagemaker.pod import container_files, namespaces
from policylab.launchers.sagemaker.pod.marked import kill_marked

NOT_EXECUTABLE = 127
_JOB = namespaces.NEW_MOUNTS | namespaces.NEW_NETWORK | namespaces.NEW_PIDS
_HOST = _JOB | namespaces.NEW_UTS | namespaces.NEW_IPC

Spec = dict[str, Any]


def main() -> int:
    """Serve one job until the input ends."""
    spec: Spec = json.loads(Path(sys.argv[1]).read_text())
    if not spec["isolated"]:
        namespaces.adopt_orphans()
        _tell(event="pid", pid=os.getpid())
        return _Pod(spec).serve()
    try:
        try:
            namespaces.enter_new(_JOB)
        except PermissionError:  # no administrator here, but perhaps in a user namespace
            namespaces.enter_new(_JOB | namespaces.NEW_USER)
    except OSError as error:
        return _refuse(error)
    inside = os.fork()
    if inside:
        _tell(event="pid", pid=inside)
        return os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1])
    try:
        namespaces.die_with_parent()
        namespaces.make_private()
        namespaces.mount("proc", Path("/proc"), kind="proc")
        _ip("link set lo up", "link add pod type bridge", "link set pod up")
        for host in spec["hosts"]:
            if spec["disk_mb"]:
                disk = Path(host["folder"]) / "ml"
                namespaces.mount("disk", disk, kind="tmpfs", options=f"size={spec['disk_mb']}m")
    except OSError as error:
        return _refuse(error)
    return _Pod(spec).serve()


def _tell(**event: Any) -> None:
    os.write(1, (json.dumps(event) + "\n").encode())


def _refuse(error: OSError) -> int:
    _tell(event="refused", reason=str(error))
    return 1


def _ip(*commands: str) -> None:
    done = subprocess.run(
        ["ip", "-batch", "-"], input="\n".join(commands), capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")


class _Pod:
    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._isolated: bool = spec["isolated"]
        self._hosts = {host["name"]: host for host in spec["hosts"]}
        self._pids: dict[str, int] = {}
        self._networks: list[int] = []

    def serve(self) -> int:
        """Obey orders and report ends until the input ends; then kill what is left."""
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        _tell(event="ready")
        orders = b""
        while True:
            ready, _, _ = select.select([0, woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                self._reap()
            if 0 in ready:
                read = os.read(0, 4096)
                if not read:
                    return self._end()
                *lines, orders = (orders + read).split(b"\n")
                for line in lines:
                    self._obey(*line.decode().split(" ", 1))

    def _obey(self, order: str, name: str) -> None:
        if order == "start":
            self._start(self._hosts[name])
        elif name not in self._pids:
            return  # it has ended already
        elif order == "unplug":
            with contextlib.suppress(OSError):  # it is just ending
                _ip(f"link set {_link(self._hosts[name])} down")
        elif order == "term":
            os.kill(self._pids[name], signal.SIGTERM)
        elif order == "kill":
            os.kill(self._pids[name], signal.SIGKILL)

    def _reap(self) -> None:
        """Report the hosts that ended; collect the orphans of others."""
        names = {pid: name for name, pid in self._pids.items()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if name := names.get(pid):
                del self._pids[name]
                if not self._isolated:  # process 1 takes the others of its namespace along by itself
                    kill_marked(Path(self._hosts[name]["folder"]))
                code = os.waitstatus_to_exitcode(status)
                _tell(event="exit", host=name, code=code if code >= 0 else 128 - code)

    def _end(self) -> int:
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        for host in () if self._isolated else self._hosts.values():
            kill_marked(Path(host["folder"]))
        return 0

    def _start(self, host: Spec) -> None:
        """Start a host's process 1 and report when its command has begun."""
        go, give_go = os.pipe()
        told, tell = os.pipe()
        first = os.fork()
        if not first:
            os.close(give_go)
            _become_host(host, isolated=self._isolated, hidden=Path(self._spec["hidden"]), go=go, tell=tell)
        os.close(go)
        os.close(tell)
        try:
            if self._isolated:
                first = self._plug_in(host, os.read(told, 4096).decode())
            os.write(give_go, b"1")
            refused = b"".join(iter(lambda: os.read(told, 4096), b"")).decode()
        except OSError as error:
            refused = str(error)
        os.close(give_go)
        os.close(told)
        self._pids[host["name"]] = first
        if refused:
            _tell(event="refused", host=host["name"], reason=refused)
        else:
            _tell(event="started", host=host["name"])

    def _plug_in(self, host: Spec, told: str) -> int:
        """Join a new host, which told its process 1, to the bridge; return that process."""
        if not told.isdigit():
            raise OSError(told or "its first process ended")
        # Held open, so that the others see the connections of a host that was killed end; unplugging shows silence.
        self._networks.append(os.open(f"/proc/{told}/ns/net", os.O_RDONLY))
        link = _link(host)
        _ip(f"link add {link} type veth peer name eth0 netns {told}", f"link set {link} master pod up")
        return int(told)


def _link(host: Spec) -> str:
    return f"port{host['number']}"


def _become_host(host: Spec, *, isolated: bool, hidden: Path, go: int, tell: int) -> NoReturn:
    """Turn this new process into the host's process 1; what prevents it is written to ``tell``."""
    try:
        signal.set_wakeup_fd(-1)
        if isolated:
            namespaces.enter_new(_HOST)
            inside = os.fork()
            if inside:
                os.write(tell, str(inside).encode())
                os._exit(0)
        os.setsid()
        os.read(go, 1)
        log = os.open(host["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if isolated:
            _isolate(host, hidden=hidden)
        else:
            namespaces.die_with_parent()
            os.chdir(host["folder"])
        for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
            os.dup2(source, target)
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
    except BaseException as error:
        os.write(tell, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    try:
        os.execvpe(host["argv"][0], host["argv"], host["environment"])
    except OSError as error:
        os.write(2, f"{host['argv'][0]}: {error.strerror}\n".encode())
        os._exit(NOT_EXECUTABLE)


def _isolate(host: Spec, *, hidden: Path) -> None:
    _ip("link set lo up", f"addr add {host['address']}/24 dev eth0", "link set eth0 up")
    socket.sethostname(host["name"])
    container_files.enter(Path(host["folder"]), hidden=hidden, read_only=host["read_only"])
    namespaces.give_up_capabilities()


if __name__ == "__main__":
    sys.exit(main())
