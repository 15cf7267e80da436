"""One host's node of the job's Ray cluster, started and ended by its command line.

Source: Ray 2.60, https://docs.ray.io/en/latest/cluster/cli.html#ray-start. ``--block`` keeps Ray's processes below one
that ends when one of them ends, and ends them when it ends. `ray stop` is not used: it ends every Ray on the machine.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from policylab.launchers.sagemaker.container.settings import ContainerSettings
from policylab.ray_session import ray_folder

UP = "Ray runtime started."
STARTS = 3
STOP_S = 5.0
KEPT_CHARACTERS = 300

_LABEL = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")
"""What Ray takes as the value of a label; a group may be named otherwise."""

PROGRAM = """
import os, signal, sys, threading
def end_with_parent():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end_with_parent, daemon=True).start()
from ray.scripts.scripts import main
sys.argv[0] = "ray"
sys.exit(main())
"""
"""The command line of Ray, which ends when its input does: when the container closes it, or has died in any way."""


def ray_environment(token: str) -> dict[str, str]:
    """Return what every Ray process of the job is told: a token of this job's own, and to say nothing to its makers."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "20",  # of 60: how long nodes look for a head that is gone
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # nothing is left to be drained when a node is ended
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def node_options(settings: ContainerSettings, *, host: str, group: str, ip: str) -> list[str]:
    """Return the options of ``ray start`` that say what this host offers, and to whom.

    Resources ``group_GROUP`` (a unit per processor) and ``host_HOST``, and labels, are for placing actors.
    """
    cpus = len(os.sched_getaffinity(0)) if settings.num_cpus is None else settings.num_cpus
    options = ["--node-ip-address", ip, "--num-cpus", str(cpus), "--disable-usage-stats"]
    if settings.num_gpus is not None:
        options += ["--num-gpus", str(settings.num_gpus)]
    options += ["--resources", json.dumps({f"group_{group}": max(cpus, 1), f"host_{host}": 1})]
    labels = {"group": group, "host": host}
    if all(_LABEL.fullmatch(value) for value in labels.values()):
        options += ["--labels", ",".join(f"{name}={value}" for name, value in labels.items())]
    return [*options, *shlex.split(settings.ray_options)]


class RayNode:
    """The processes of one node, below `pid`.

    Ray gives up on a node that takes more than 30 s to start, as on a busy machine: it is started again.

    Args:
        options: of ``ray start``.
        environment: variables beside this process's own.

    Attributes:
        up: whether the node was there at a `poll`.
    """

    def __init__(self, options: Sequence[str], *, environment: Mapping[str, str]) -> None:
        self.up = False
        self._options = options
        self._environment = environment
        self._starts = 0
        self._start()

    def _start(self) -> None:
        self._starts += 1
        self._folder = Path(ray_folder())
        self._output = self._folder / "output"
        command = [sys.executable, "-c", PROGRAM, "start", "--block", "--temp-dir", str(self._folder), *self._options]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, "TMPDIR": str(self._folder), **self._environment},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that the others are below."""
        return self._process.pid

    def poll(self) -> str | None:
        """Look after the node; return why it has ended, None while it is there or is started once more."""
        code = self._process.poll()
        if code is None:
            self.up = self.up or UP in self._text()
            return None
        if not self.up and self._starts < STARTS:
            self.stop()
            self._start()
            return None
        tail = " ".join(self._text().split())[-KEPT_CHARACTERS:]
        return f"Ray ended (exit {code}): {tail}"

    def _text(self) -> str:
        return self._output.read_text(errors="replace")

    def stop(self) -> None:
        """End the node; what does not end with it ends with the container."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
