"""What an alarm does when it begins: roll an endpoint back, or train anew."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from policylab.config import Settings
from policylab.deployment.endpoint import load_endpoint
from policylab.deployment.http.client import EndpointClient
from policylab.files import storage_errors
from policylab.monitoring.alarms.alarm import Verdict


class RollBack(Settings):
    """Returns the traffic of a running endpoint to its old version."""

    kind: Literal["rollback"]
    url: str = Field(description="of the endpoint, such as http://127.0.0.1:8080")
    endpoint: str | None = Field(default=None, description="its name; default: the one that the server has")
    to: Path | None = Field(
        default=None, description="endpoint file to update to where no update is under way, relative to this file"
    )

    def act(self, verdict: Verdict) -> str:
        """Do it; return what was done.

        Raises:
            UserError: no update is under way and there is no file, or the endpoint refuses.
            RunError: the endpoint cannot be reached.
        """
        client = EndpointClient(self.url, name=self.endpoint)
        if client.get("")["update"] or self.to is None:
            client.post("/rollback", {})
            return f"{self.url}: all traffic is back at the old version"
        client.post("/update", {"config": load_endpoint(self.to).model_dump(mode="json")})
        return f"{self.url}: the update to {self.to.name} has begun"


class Retrain(Settings):
    """Starts an experiment in a process of its own, which learns from an earlier study if one is named."""

    kind: Literal["retrain"]
    config: Path = Field(description="experiment file, relative to this file")
    out: Path = Field(default=Path("runs"), description="receives the run directory, relative to this file")
    warm_start: Path | None = Field(default=None, description="run directory of the last study, relative to this file")

    def command(self) -> list[str]:
        """Return the command that trains."""
        verb, more = ("run", []) if self.warm_start is None else ("tune", self._warm())
        return [sys.executable, "-m", "policylab", verb, str(self.config), "--out", str(self.out), *more]

    def _warm(self) -> list[str]:
        return ["--set", f"search.warm_start.parents=['{self.warm_start}']"]

    def act(self, verdict: Verdict) -> str:
        """Start it; return what was started. Its output is in a log beside the run directories.

        Raises:
            StorageError: the log cannot be written.
        """
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        log = self.out / f"retrain-{moment}.log"
        with storage_errors(log):
            self.out.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
        return f"training {self.config.name} as process {process.pid}; its log is {log}"
