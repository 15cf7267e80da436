"""Endpoints that run in the background: a folder for each, with its log, its state and where it answers.

    ROOT/NAME/server.log     what the server prints, of every start
    ROOT/NAME/server.json    `Background`, while the endpoint is to run
    ROOT/NAME/state/         versions, weights and updates; locked by the server as long as it lives

Whether a server lives is told by its lock, which the kernel takes back when a process ends, however it ends: the
process of a number that a file holds may be another one by now.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from policylab.config import Settings
from policylab.deployment.endpoint import valid_name
from policylab.deployment.state import StateFile
from policylab.errors import RunDirectoryError, RunError, UserError
from policylab.files import read_json, storage_errors, write_atomic

ROOT = Path("endpoints")
SERVER, LOG, STATE = "server.json", "server.log", "state"
LOOK_S = 0.05


class Background(Settings):
    """A server in the background."""

    name: str
    url: str
    pid: int = Field(ge=1)


class BackgroundEndpoint:
    """The folder of one endpoint.

    Args:
        root: holds the folders of all endpoints.
        name: of the endpoint.

    Raises:
        UserError: the name is none that an endpoint can have.
    """

    def __init__(self, root: Path, name: str) -> None:
        try:
            self.folder = root / valid_name(name)
        except ValueError as error:
            raise UserError(f"endpoint '{name[:63]}': {error}") from None
        self.name = name
        self.log = self.folder / LOG
        self.state = self.folder / STATE

    def alive(self) -> bool:
        """Return whether its server lives."""
        if not self.state.is_dir():
            return False
        try:
            with StateFile(self.state).held():
                return False
        except RunDirectoryError:
            return True

    def server(self) -> Background | None:
        """Return its server as it was created, if it was; it may have ended since.

        Raises:
            UserError: what is told of it is damaged.
        """
        path = self.folder / SERVER
        if not path.exists():
            return None
        try:
            return Background.model_validate(read_json(path))
        except ValidationError as error:
            raise UserError(f"{path}: {error.errors(include_url=False)[0]['msg']}; remove it") from None

    def create(self, arguments: Sequence[str], *, timeout_s: float = 120.0) -> Background:
        """Start ``policylab serve`` with these arguments in the background; return when it answers.

        Raises:
            UserError: it runs already, or what was given is wrong, in the words of the server.
            RunError: the server ended, or does not answer in time.
        """
        if self.alive():
            raise UserError(f"endpoint '{self.name}' runs already; delete it first, or update it")
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            began = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "policylab", "serve", *arguments, "--state", str(self.state), "--json"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C here is not meant for it
                )
        try:
            url = self._answering(process, began=began, timeout_s=timeout_s)
        except BaseException:
            process.kill()
            process.wait()
            raise
        found = Background(name=self.name, url=url, pid=process.pid)
        write_atomic(self.folder / SERVER, found.model_dump_json(indent=1))
        process.returncode = 0  # it is not ours to wait for any more
        return found

    def _answering(self, process: subprocess.Popen[bytes], *, began: int, timeout_s: float) -> str:
        """Return the URL that the server prints as soon as it answers."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            code = process.poll()
            printed = self.log.read_bytes()[began:].decode(errors="replace")
            for line in printed.splitlines():
                if line.startswith("{") and line.endswith("}") and '"url"' in line:
                    return str(json.loads(line)["url"])
            if code is not None:
                told = [line.removeprefix("error: ") for line in printed.splitlines() if line.startswith("error: ")]
                text = "\n".join(told) or f"the server ended with code {code}; see {self.log}"
                raise (UserError if code == 2 else RunError)(text)
            time.sleep(LOOK_S)
        raise RunError(f"the server does not answer after {timeout_s:g} s; see {self.log}")

    def delete(self, *, timeout_s: float = 60.0) -> bool:
        """End the server gracefully and forget its state; the log stays. Return whether it was alive.

        Raises:
            UserError: there is no such endpoint.
            RunError: it does not end.
        """
        found = self.server()
        if found is None:
            raise UserError(f"no endpoint '{self.name}' in {self.folder.parent}; `policylab endpoint create` makes one")
        was_alive = self.alive()
        if was_alive:
            os.kill(found.pid, signal.SIGTERM)
        until = time.monotonic() + timeout_s
        while self.alive():
            if time.monotonic() > until:
                raise RunError(f"the server (process {found.pid}) has not ended in {timeout_s:g} s; see {self.log}")
            time.sleep(LOOK_S)
        with storage_errors(self.folder):
            shutil.rmtree(self.state, ignore_errors=True)
            (self.folder / SERVER).unlink(missing_ok=True)
        return was_alive

    def tail(self, n_lines: int) -> list[str]:
        """Return the last lines of the log.

        Raises:
            UserError: there is none.
        """
        if not self.log.exists():
            raise UserError(f"no log of an endpoint '{self.name}' in {self.folder.parent}")
        lines = self.log.read_text(errors="replace").splitlines()
        return lines[-n_lines:] if n_lines else lines
