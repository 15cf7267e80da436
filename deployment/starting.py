"""Starting an endpoint, of whatever kind its file asks for."""

from __future__ import annotations

from pathlib import Path

from policylab.deployment.asynchronous.app import AsyncApp, RunningAsync
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.http.access import Access
from policylab.deployment.http.app import EndpointApp
from policylab.deployment.http.http_app import HttpApp
from policylab.deployment.many_models.app import ModelsApp, RunningModels
from policylab.deployment.running import Running, start_endpoint
from policylab.deployment.serverless import RunningServerless, ServerlessApp


def start_app(config: EndpointConfig, *, access: Access, state_folder: Path | None) -> tuple[HttpApp, Running]:
    """Start an endpoint of whatever kind; return its application and what is behind it.

    Raises:
        BundleError: a bundle is refused.
        UserError: the state is damaged, or the parts do not fit together.
        StorageError: the state cannot be stored.
    """
    if config.models is not None:
        models = RunningModels(config, state_folder=state_folder)
        return ModelsApp(models, access=access), models
    if config.asynchronous is not None:
        behind = RunningAsync(config, state_folder=state_folder)
        return AsyncApp(behind, access=access), behind
    if config.serverless is not None:
        serverless = RunningServerless(config, state_folder=state_folder)
        return ServerlessApp(serverless, access=access), serverless
    running = start_endpoint(config, state_folder=state_folder)
    return EndpointApp(running.server, access=access, admin=running.admin), running
