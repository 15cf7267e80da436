"""Commands on endpoints in the background: create, delete and logs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from policylab.cli.output import emit
from policylab.errors import UserError

if TYPE_CHECKING:
    from policylab.deployment.processes.background import BackgroundEndpoint


def create(arguments: argparse.Namespace) -> int:
    """Start an endpoint in the background and wait until it answers."""
    from policylab.cli.endpoint import required_modules, source_config
    from policylab.deployment.processes.background import BackgroundEndpoint

    required_modules()
    config = source_config(Path(arguments.source), overrides=arguments.overrides)
    if arguments.name and arguments.name != config.name:
        raise UserError(f"--name is {arguments.name}, but {arguments.source} is the endpoint {config.name}")
    endpoint = BackgroundEndpoint(Path(arguments.root), config.name)
    words = [arguments.source, "--host", arguments.host, "--port", str(arguments.port)]
    words += ["--workers", str(arguments.workers)]
    for override in arguments.overrides:
        words += ["--set", override]
    server = endpoint.create(words)
    document = {**server.model_dump(mode="json"), "log": str(endpoint.log), "status": "InService"}
    emit(arguments, document, text=lambda: f"{server.name} answers at {server.url}/endpoints/{server.name}/invocations")
    return 0


def delete(arguments: argparse.Namespace) -> int:
    """End an endpoint of the background gracefully."""
    endpoint = _named(arguments)
    was_alive = endpoint.delete()
    document = {"name": endpoint.name, "status": "Deleted", "was_alive": was_alive, "log": str(endpoint.log)}
    ended = "has ended" if was_alive else "had ended before"
    emit(arguments, document, text=lambda: f"{endpoint.name} {ended}; its log is {endpoint.log}")
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Print what an endpoint of the background has printed."""
    if arguments.lines < 0:
        raise UserError(f"--lines must be 0 (all) or more, got {arguments.lines}")
    endpoint = _named(arguments)
    lines = endpoint.tail(arguments.lines)
    emit(arguments, {"name": endpoint.name, "log": str(endpoint.log), "lines": lines}, text=lambda: "\n".join(lines))
    return 0


def _named(arguments: argparse.Namespace) -> BackgroundEndpoint:
    from policylab.deployment.processes.background import BackgroundEndpoint

    root = Path(arguments.root)
    if arguments.name is None:
        found = sorted(path.parent.name for path in root.glob("*/server.json"))
        if len(found) != 1:
            known = f"there are {', '.join(found)}" if found else "there is none; `policylab endpoint create` makes one"
            raise UserError(f"--name must say which endpoint in {root}: {known}")
        return BackgroundEndpoint(root, found[0])
    return BackgroundEndpoint(root, arguments.name)
