"""The head's side of a job of several hosts: Ray here, a barrier for the others, and their dismissal at the end."""

from __future__ import annotations

import logging
import time
from typing import Any, Self

from policylab.errors import did_you_mean
from policylab.launchers.sagemaker.container.control import HeadControl
from policylab.launchers.sagemaker.container.failure import ExitCode, JobFailure
from policylab.launchers.sagemaker.container.joining import Inbox, check_ray, next_event, own_address
from policylab.launchers.sagemaker.container.layout import Hosts
from policylab.launchers.sagemaker.container.ray_node import RayNode, node_options, ray_environment
from policylab.launchers.sagemaker.container.settings import ContainerSettings

DISMISS_S = 5.0
"""Time that hosts get to hear how the job ended."""

COMING_S = 15.0
"""Time that hosts which have not joined yet get to come and hear it, when the job ends before all are there."""

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

    def __init__(self, hosts: Hosts, settings: ContainerSettings, *, token: str, inbox: Inbox) -> None:
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
        self.node = RayNode(options, environment=self._environment)
        while not self.node.up:
            self._next()
            if ended := self.node.poll():
                raise JobFailure(f"on the head {self._hosts.current}, {ended}", code=ExitCode.RAY_FAILED)

    def _next(self) -> dict[str, Any] | None:
        """Return the next event of the barrier, if there is one."""
        event = next_event(self._inbox)
        if event is None:
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
        """Tell where work goes: learners to the head's group, env runners and evaluations to those that are for them.

        Without such groups env runners go anywhere, a homogeneous job's to its one group, and the head evaluates.
        """
        groups = self._hosts.groups
        runner = self._group("rollout") or (next(iter(groups)) if len(groups) == 1 else None)
        chosen = {
            "LEARNER": self._hosts.group_of(self._hosts.head),
            "RUNNER": runner,
            "EVALUATION": self._group("evaluation"),
        }
        return {f"POLICYLAB_{work}_RESOURCE": f"group_{group}" for work, group in chosen.items() if group is not None}

    def _group(self, work: str) -> str | None:
        """Return the group for some work: as set, else the one named after it, if there is one."""
        groups, name = self._hosts.groups, getattr(self._settings, f"{work}_group")
        if name is not None and name not in groups:
            raise JobFailure(
                f"POLICYLAB_{work.upper()}_GROUP={name}: no such group{did_you_mean(name, groups)} "
                f"(groups: {', '.join(groups)})",
                code=ExitCode.BAD_INPUT,
            )
        return name or (work if work in groups else None)

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
