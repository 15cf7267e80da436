"""A host that does not lead: it offers its processors through Ray until the head has said how the job ended."""

from __future__ import annotations

import logging
import threading
import time

from policylab.launchers.sagemaker.container.control import Line, connect
from policylab.launchers.sagemaker.container.failure import ExitCode, JobFailure
from policylab.launchers.sagemaker.container.joining import TICK_S, Inbox, check_ray, next_event, own_address
from policylab.launchers.sagemaker.container.layout import Hosts
from policylab.launchers.sagemaker.container.processes import reap_orphans
from policylab.launchers.sagemaker.container.ray_node import RayNode, node_options, ray_environment
from policylab.launchers.sagemaker.container.settings import ContainerSettings

AFTER_GRACE_S = 5.0
"""How much longer than the head's run a host that was told to stop keeps its actors: saving may need them."""

CONNECT_AGAIN_S = 0.5

logger = logging.getLogger(__name__)


class Worker:
    """One host beside the head.

    Args:
        hosts: of the job.
        settings: of the container.
        token: the job's secret.
        inbox: receives what the head says, and the stop.
    """

    def __init__(self, hosts: Hosts, settings: ContainerSettings, *, token: str, inbox: Inbox) -> None:
        check_ray(hosts)
        self._hosts = hosts
        self._settings = settings
        self._token = token
        self._inbox = inbox
        self._line: Line | None = None
        self._node: RayNode | None = None
        self._ready = False
        self._deadline: float | None = None

    def follow(self) -> None:
        """Be part of the cluster until the head says that the job is over, well or not: that is for the head to tell.

        Raises:
            JobFailure: there is no head, it was lost, or it refuses this host; or Ray ended here.
        """
        try:
            if not self._join():
                return
            while not self._over():
                if self._node is not None:
                    self._look_after(self._node)
        finally:
            if self._node is not None:
                self._node.stop()
            if self._line is not None:
                self._line.close()

    def _join(self) -> bool:
        """Connect to the head, which may be slower than this host; return whether it came before a stop."""
        hello = {"token": self._token, "host": self._hosts.current, "group": self._hosts.group}
        deadline = time.monotonic() + self._settings.join_timeout_s
        logger.info("looking for the head %s", self._hosts.head)
        while True:
            try:
                address = (self._hosts.head, self._settings.control_port)
                self._line = connect(address, hello, heartbeat_s=self._settings.heartbeat_s)
            except OSError as error:
                if time.monotonic() >= deadline:
                    within = f"within {self._settings.join_timeout_s:g} s"
                    raise JobFailure(
                        f"the head {self._hosts.head} was not reached {within}: {error}", code=ExitCode.HEAD_LOST
                    ) from None
            else:
                threading.Thread(target=self._listen, args=(self._line,), daemon=True).start()
                return True
            if next_event(self._inbox, timeout_s=CONNECT_AGAIN_S) is not None:
                logger.info("stopped before the head was there")
                return False

    def _listen(self, line: Line) -> None:
        try:
            for message in line.messages():
                self._inbox.put({**message, "event": message.get("state")})
        except ConnectionError as error:
            self._inbox.put({"event": "lost", "reason": str(error)})

    def _over(self) -> bool:
        """Act on the next event, if there is one; return whether the job is over for this host."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            logger.warning("the head has not said how the job ended; leaving")
            return True
        event = next_event(self._inbox)
        if event is None:
            return False
        if event["event"] == "done":
            logger.info("the head %s is done (exit code %s)", self._hosts.head, event.get("code"))
            return True
        if event["event"] == "stop" and self._deadline is None:
            logger.info("stopping: Ray stays until the run has saved")
            self._deadline = time.monotonic() + self._settings.grace_s + AFTER_GRACE_S
        elif event["event"] == "ray":
            self._start(str(event["address"]))
        elif event["event"] == "refused":
            raise JobFailure(f"the head {self._hosts.head} refuses: {event['reason']}", code=ExitCode.BAD_INPUT)
        elif event["event"] == "lost":
            cause = f"lost the head {self._hosts.head} without a final status: {event['reason']}"
            raise JobFailure(cause, code=ExitCode.HEAD_LOST)
        return False

    def _start(self, address: str) -> None:
        deadline = time.monotonic() + self._settings.join_timeout_s
        ip = own_address(self._hosts, deadline=deadline, pause=lambda: time.sleep(TICK_S))
        own = node_options(self._settings, host=self._hosts.current, group=self._hosts.group, ip=ip)
        self._node = RayNode(["--address", address, *own], environment=ray_environment(self._token))

    def _look_after(self, node: RayNode) -> None:
        """Tell the head that Ray is up, or that it has ended."""
        reap_orphans([node.pid])
        assert self._line is not None
        if ended := node.poll():
            cause = f"worker host lost: {self._hosts.current}: {ended}"
            self._line.send({"state": "lost", "reason": cause})
            raise JobFailure(cause, code=ExitCode.RAY_FAILED)
        if node.up and not self._ready:
            self._ready = True
            self._line.send({"state": "ready"})
