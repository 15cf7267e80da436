"""The head's side of a job of several hosts: Ray here, a barrier for the others, and their dismissal at the end."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import queue
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from policylab.launchers.sagemaker.bootstrap import BUNDLE
from policylab.launchers.sagemaker.container.control import HeadControl
from policylab.launchers.sagemaker.container.failure import ExitCode, JobFailure
from policylab.launchers.sagemaker.container.layout import Hosts, Layout
from policylab.launchers.sagemaker.container.ray_node import RayNode, node_options, ray_environment
from policylab.launchers.sagemaker.container.settings import ContainerSettings

TICK_S = 0.2
DISMISS_S = 5.0
"""Time that hosts get to hear how the job ended."""

COMING_S = 15.0
"""Time that hosts which have not joined yet get to come and hear it, when the job ends before all are there."""

ROLLOUT = "rollout"
RAY_STARTS = 3
"""Ray gives up on a node that takes more than 30 s to start, as on a busy machine; so often it is started."""

logger = logging.getLogger(__name__)


class Stopped(Exception):
    """The job was stopped before the run began."""


class Cluster:
    """The job's hosts as one Ray cluster, seen from the head; a context manager that ends it.

    Args:
        hosts: of the job.
        settings: of the container.
        token: the job's secret.
        inbox: receives the losses of hosts, and the stop.
    """

    def __init__(self, hosts: Hosts, settings: ContainerSettings, *, token: str, inbox: queue.SimpleQueue[Any]) -> None:
        check_ray(hosts)
        self._hosts = hosts
        self._settings = settings
        self._environment = ray_environment(token)
        self._inbox = inbox
        self._deadline = time.monotonic() + settings.join_timeout_s
        self._ip = own_address(hosts, deadline=self._deadline, pause=self._next)
        self._others = {host: hosts.group_of(host) for host in hosts.all if host != hosts.current}
        self._code = ExitCode.FAILED
        self.node: RayNode | None = None
        try:
            self._control = HeadControl(
                (self._ip, settings.control_port),
                token=token,
                expected=self._others,
                heartbeat_s=settings.heartbeat_s,
                events=inbox,
            )
        except OSError as error:
            place = f"{self._ip}:{settings.control_port}"
            raise JobFailure(f"the head cannot listen at {place}: {error}", code=ExitCode.BAD_INPUT) from None

    def form(self) -> dict[str, str]:
        """Start Ray here, wait until it is up on every host; return the environment in which processes use it.

        Raises:
            JobFailure: Ray did not start, or hosts did not join in time, or were lost.
            Stopped: SIGTERM came first.
        """
        options = ["--head", "--port", str(self._settings.ray_port), "--include-dashboard", "false", *self._options()]
        self._start(options)
        address = f"{self._ip}:{self._settings.ray_port}"
        self._control.announce({"state": "ray", "address": address})
        waiting = set(self._others)
        while waiting:
            if time.monotonic() >= self._deadline:
                raise JobFailure(self._missing(waiting), code=ExitCode.HOSTS_MISSING)
            event = self._next()
            if event is not None and event["event"] == "ready":
                waiting.discard(event["host"])
                logger.info("%s has joined; %d to come", event["host"], len(waiting))
        return {**self._environment, "RAY_ADDRESS": address, **self._placement()}

    def _options(self) -> list[str]:
        return node_options(self._settings, host=self._hosts.current, group=self._hosts.group, ip=self._ip)

    def _start(self, options: list[str]) -> None:
        for _ in range(RAY_STARTS):
            self.node = RayNode(options, environment=self._environment)
            while not self.node.up and self.node.ended is None:
                self._next()
            ended = self.node.ended
            if ended is None:
                return
            self.node.stop()
        raise JobFailure(f"on the head {self._hosts.current}, {ended}", code=ExitCode.RAY_FAILED)

    def _next(self) -> dict[str, Any] | None:
        """Return the next event of the barrier, if there is one."""
        try:
            event: dict[str, Any] = self._inbox.get(timeout=TICK_S)
        except queue.Empty:
            return None
        if event["event"] == "stop":
            self._code = ExitCode.DONE
            raise Stopped
        if event["event"] == "lost":
            raise JobFailure(event["reason"], code=ExitCode.WORKER_LOST)
        return event

    def _missing(self, waiting: set[str]) -> str:
        joined = self._control.joined
        parts = [f"hosts never joined within {self._settings.join_timeout_s:g} s"]
        absent, late = sorted(waiting - joined), sorted(waiting & joined)
        parts += [", ".join(absent)] if absent else []
        parts += [f"joined, but their Ray never started: {', '.join(late)}"] if late else []
        return ": ".join(parts)

    def _placement(self) -> dict[str, str]:
        """Tell where RLlib's actors go: learners to the head's group, env runners to that of the rollouts.

        Without such a group env runners go anywhere; of a homogeneous job that is its one group.
        """
        groups = self._hosts.groups
        runner = self._settings.rollout_group or (next(iter(groups)) if len(groups) == 1 else ROLLOUT)
        if self._settings.rollout_group not in (None, *groups):
            raise JobFailure(
                f"POLICYLAB_ROLLOUT_GROUP={runner}: no such group (groups: {', '.join(groups)})",
                code=ExitCode.BAD_INPUT,
            )
        learner = self._hosts.group_of(self._hosts.head)
        placed = {"POLICYLAB_RUNNER_RESOURCE": f"group_{runner}"} if runner in groups else {}
        return {"POLICYLAB_LEARNER_RESOURCE": f"group_{learner}", **placed}

    def ended_with(self, code: ExitCode) -> None:
        """Remember what the other hosts will be told."""
        self._code = code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.announce({"state": "done", "code": int(self._code)})
        began = time.monotonic()
        # After a failure those who are on their way are told as well; a stop, they are told by the service.
        coming = min(began + COMING_S, self._deadline) if self._code is not ExitCode.DONE else began
        while (now := time.monotonic()) < coming and not self._control.met >= self._others.keys():
            time.sleep(0.05)
        while self._control.joined and now < began + DISMISS_S:
            time.sleep(0.05)
            now = time.monotonic()
        self._control.close()
        if self.node is not None:
            self.node.stop()


def check_ray(hosts: Hosts) -> None:
    """Check that this host has Ray, which a job of several hosts needs.

    Raises:
        JobFailure: it has not.
    """
    if importlib.util.find_spec("ray") is None:
        raise JobFailure(
            f"a job of {len(hosts.all)} hosts needs Ray; use an image with policylab[ray], or the bundle's extra `ray`",
            code=ExitCode.BAD_INPUT,
        )


def own_address(hosts: Hosts, *, deadline: float, pause: Callable[[], object]) -> str:
    """Return the IPv4 address under which the others find this host; its name may be known only after a while.

    Args:
        hosts: of the job.
        deadline: time of `time.monotonic` at which to give up.
        pause: called between two attempts.

    Raises:
        JobFailure: the name was not known in time.
    """
    while True:
        try:
            return str(socket.getaddrinfo(hosts.current, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
        except OSError as error:
            if time.monotonic() >= deadline:
                raise JobFailure(f"the name of this host, {hosts.current}, was never known: {error}") from None
            pause()


def job_token(layout: Layout, settings: ContainerSettings, *, environment: Mapping[str, str] = os.environ) -> str:
    """Return the secret that the hosts of this job share, and that of another job does not have.

    Without a setting it is made of what every host is given: the job's name and the contents of its own channels.
    """
    if settings.job_token is not None:
        return hashlib.sha256(settings.job_token.encode()).hexdigest()
    digest = hashlib.sha256()
    for name in ("TRAINING_JOB_ARN", "TRAINING_JOB_NAME"):
        digest.update(environment.get(name, "").encode() + b"\0")
    for file in (layout.spec, layout.channel("code") / BUNDLE):
        digest.update(hashlib.sha256(file.read_bytes() if file.exists() else b"").digest())
    return digest.hexdigest()
