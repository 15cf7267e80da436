"""A running endpoint: everything behind the transport, put together from an endpoint file and what is stored of it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Protocol

from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.fleet import load_fleet
from policylab.deployment.guardrails.comparison import Comparison
from policylab.deployment.guardrails.rollout import Rollout
from policylab.deployment.http.admin import Admin
from policylab.deployment.policy_server import PolicyServer
from policylab.deployment.state import EndpointState, StateFile
from policylab.errors import PolicylabError

logger = logging.getLogger(__name__)


class Running(Protocol):
    """An endpoint of whatever kind that runs in this process."""

    @property
    def config(self) -> EndpointConfig:
        """The endpoint file."""

    def tick(self) -> None:
        """Look after what takes time; to be called a few times a second, on any thread."""

    def close(self) -> None:
        """Write what was captured and stop the threads."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunningEndpoint:
    """The parts of an endpoint that runs in this process."""

    server: PolicyServer
    rollout: Rollout
    admin: Admin

    @property
    def config(self) -> EndpointConfig:
        """The endpoint file."""
        return self.server.config

    def close(self) -> None:
        """Write what was captured and stop the threads."""
        self.server.close()

    def tick(self) -> None:
        """Look after the rollout and the comparison; to be called a few times a second."""
        self.rollout.tick()
        if self.server.comparison is not None:
            self.server.comparison.tick()


def start_endpoint(
    config: EndpointConfig, *, state_folder: Path | None = None, secret: bytes | None = None
) -> RunningEndpoint:
    """Load an endpoint, or go on with the version and the update that its state folder tells of.

    Stored state holds as long as the endpoint file is the one it began with; a changed file begins anew.

    Args:
        config: with absolute paths.
        state_folder: of this endpoint alone; None keeps nothing beyond this process.
        secret: without a state folder, makes decisions repeatable.

    Raises:
        BundleError: a bundle is refused.
        UserError: the state is damaged, or the parts do not fit together.
        StorageError: the state cannot be stored.
    """
    file = None if state_folder is None else StateFile(state_folder)
    stored = None if file is None else file.read()
    if stored is not None and stored.file_hash != config.config_hash:
        logger.warning("the endpoint file has changed since the last start; what was stored of the old one is dropped")
        stored = None
    state = stored or EndpointState(file_hash=config.config_hash, config=config)
    fleet = load_fleet(state.config, generation=state.generation)
    for name, weight in state.weights.items():
        fleet.variants[name].weight = weight
    server = PolicyServer(fleet, secret=secret if file is None else file.secret())
    if config.comparison is not None:
        server.comparison = Comparison(server, config.comparison, folder=state_folder)
    rollout = Rollout(server, state, file=file)
    if file is not None:
        file.write(state)
    if state.update is not None:
        try:
            rollout.resume(load_fleet(state.update.config, generation=state.generation + 1, like=fleet))
        except PolicylabError as error:  # the old version is there and serves
            rollout.rollback(f"the new version cannot be loaded: {error}")
    return RunningEndpoint(server, rollout, Admin(server, rollout))
