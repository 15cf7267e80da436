"""What the head and the other hosts do alike to become one cluster: who they are, what they share, what they hear."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import queue
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from policylab.launchers.sagemaker.bootstrap import BUNDLE
from policylab.launchers.sagemaker.container.failure import ExitCode, JobFailure
from policylab.launchers.sagemaker.container.layout import Hosts, Layout
from policylab.launchers.sagemaker.container.settings import ContainerSettings

TICK_S = 0.2
"""How long a host waits for an event before it looks around."""

Inbox = queue.SimpleQueue[dict[str, Any]]
"""What a host hears, in order: a signal handler may put into it as well."""


def next_event(inbox: Inbox, *, timeout_s: float = TICK_S) -> dict[str, Any] | None:
    """Return the next event, or None if there is none within ``timeout_s``."""
    try:
        return inbox.get(timeout=timeout_s)
    except queue.Empty:
        return None


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
