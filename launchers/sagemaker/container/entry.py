"""`policylab container`: one host's part of a training job, from the contract's files to the exit code.

| exit code | meaning |
|---|---|
| 0 | the run finished, or was stopped and has saved |
| 1 | the run failed |
| 2 | the job was given something wrong |
| 3 | Ray could not be started |
| 4 | hosts never joined |
| 5 | a worker host was lost |
| 6 | the head was lost |
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import signal
import sys

from policylab.errors import PolicylabError
from policylab.launchers.sagemaker.bootstrap import UNPACKED
from policylab.launchers.sagemaker.container.cluster import Cluster, Stopped
from policylab.launchers.sagemaker.container.failure import (
    ExitCode,
    JobFailure,
    failure_text,
    room_for_failure,
    write_failure,
)
from policylab.launchers.sagemaker.container.head import STOP, Head
from policylab.launchers.sagemaker.container.joining import Inbox, job_token
from policylab.launchers.sagemaker.container.layout import Hosts, Layout, read_hosts
from policylab.launchers.sagemaker.container.processes import become_subreaper, end_descendants
from policylab.launchers.sagemaker.container.run import JobRun
from policylab.launchers.sagemaker.container.settings import ContainerSettings, read_settings
from policylab.launchers.sagemaker.container.worker import Worker

RESUME = "policylab resume RUN_DIR, where the job was submitted"
END_S = 5.0
"""Time that processes still running at the end get to end by themselves."""

logger = logging.getLogger(__name__)


def run_container() -> ExitCode:
    """Do this host's part of the job; return the exit code, having written the failure file unless it is 0."""
    _log_to_stdout()
    inbox: Inbox = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: inbox.put(dict(STOP)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])  # the bootstrap kept it for this handler
    become_subreaper()
    layout = Layout.of_environment()
    try:
        with room_for_failure(layout.failure):
            return _Container(layout, inbox).execute()
    finally:
        end_descendants(timeout_s=END_S)
        for folder in filter(None, os.environ.get(UNPACKED, "").split(os.pathsep)):
            shutil.rmtree(folder, ignore_errors=True)


class _Container:
    """What is known of the job so far, for the failure file."""

    def __init__(self, layout: Layout, inbox: Inbox) -> None:
        self._layout = layout
        self._inbox = inbox
        self._hosts: Hosts | None = None
        self._settings: ContainerSettings | None = None
        self._run: JobRun | None = None
        self._cluster: Cluster | None = None
        self._ending = contextlib.ExitStack()

    def execute(self) -> ExitCode:
        with self._ending:  # the failure file is written before anything is taken down, which may take too long
            code = self._attempt()
            if self._cluster is not None:
                self._cluster.ended_with(code)
        return code

    def _attempt(self) -> ExitCode:
        try:
            self._settings = read_settings(os.environ)
            self._hosts = read_hosts(self._layout, head_group=self._settings.head_group)
            self._do_part(self._hosts, self._settings)
        except Stopped:
            logger.info("stopped before the run began")
        except JobFailure as failure:
            return self._fail(str(failure), code=failure.code)
        except PolicylabError as error:
            return self._fail(str(error), code=ExitCode(error.exit_code))
        except Exception as error:
            logger.exception("a defect of policylab's, or of the machine")
            return self._fail(f"{type(error).__name__}: {error}", code=ExitCode.FAILED)
        return ExitCode.DONE

    def _do_part(self, hosts: Hosts, settings: ContainerSettings) -> None:
        token = job_token(self._layout, settings)
        if not hosts.leads:
            Worker(hosts, settings, token=token, inbox=self._inbox).follow()
            return
        if len(hosts.all) > 1:
            self._cluster = self._ending.enter_context(Cluster(hosts, settings, token=token, inbox=self._inbox))
        self._run = JobRun(
            self._layout, events=self._inbox, save_every_s=settings.save_every_s, tracking=settings.tracking
        )
        self._ending.callback(self._run.discard)
        self._run.restore()
        environment = self._cluster.form() if self._cluster else {}
        node = self._cluster.node if self._cluster else None
        Head(self._run, settings, self._inbox, node).lead(environment)

    def _fail(self, cause: str, *, code: ExitCode) -> ExitCode:
        text = failure_text(cause, facts=self._facts())
        sys.stderr.write(text + "\n")
        try:
            write_failure(self._layout.failure, text)
        except OSError:
            if self._run is not None:
                self._run.discard()  # the disk may be full
            try:
                write_failure(self._layout.failure, text)
            except OSError as error:
                logger.error("the failure file cannot be written: %s", error)
        return code

    def _facts(self) -> list[str]:
        facts = []
        if self._hosts is not None:
            facts.append(f"host {self._hosts.current}, group {self._hosts.group}")
        if self._run is not None:
            facts += self._run.facts()
        command = self._settings and self._settings.resume_command
        facts.append(f"resume with: {command or RESUME}")
        return facts


def _log_to_stdout() -> None:
    """Show what the container does among the run's own lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("container: %(message)s"))
    package = logging.getLogger("policylab.launchers.sagemaker")
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    package.propagate = False
