"""Arguments of ``policylab serve``, and commands below ``policylab endpoint``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from policylab.cli.hosting_arguments import Commands, add_hosting


def add_endpoint(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add both to the parser of `policylab`."""
    _serve_arguments(command("serve", call="endpoint:serve", text="serve a policy bundle, a run or an endpoint file"))
    _endpoint_commands(command("endpoint", call="endpoint:", text="look after a running endpoint"))


def _serve_arguments(serve: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab serve``."""
    serve.add_argument("source", metavar="BUNDLE|ENDPOINT",
                       help="a policy bundle, a run directory that holds one, or an endpoint file (YAML)")  # fmt: skip
    serve.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
        help="override one setting of the endpoint, such as limits.batch=64; repeatable",
    )  # fmt: skip
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8080, metavar="N", help="port (default: 8080; 0: a free one)")
    _takes_workers(serve)
    serve.add_argument("--state", metavar="FOLDER", help="keep versions, weights and updates from start to start")
    serve.add_argument(
        "--drain", type=float, metavar="SECONDS",
        help="after SIGTERM, how long clients are told to close their connections (default: 1)",
    )  # fmt: skip


def _takes_workers(added: argparse.ArgumentParser) -> None:
    """Add what divides an endpoint among processes."""
    text = "processes that speak HTTP, started again when they crash (default: 0: one for all)"
    added.add_argument("--workers", type=int, default=0, metavar="N", help=text)


def _endpoint_commands(endpoint: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab endpoint``."""
    commands = endpoint.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, *, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("--url", help="server (default: of the endpoint created here, else http://127.0.0.1:8080)")
        added.add_argument("--name", help="endpoint (default: the one that the server has)")
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.endpoint:{name}")
        return added

    command("status", text="say how a running endpoint stands")
    weights = command("weights", text="change the weights of variants, without failing a request")
    weights.add_argument("weights", nargs="+", metavar="VARIANT=WEIGHT")
    update = command("update", text="begin the update to another version, by the guardrail of its file")
    update.add_argument("file", metavar="ENDPOINT", help="endpoint file (YAML)")
    update.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
                        help="override one setting; repeatable")  # fmt: skip
    command("rollback", text="return all traffic to the old version while an update is under way")
    promote = command("promote", text="take the next step of an update now, whatever bakes or is not proven yet")
    promote.add_argument("--full", action="store_true", help="take all of its steps")
    _background_commands(commands)
    invoke = command("invoke", text="ask for a decision")
    invoke.add_argument("observation", metavar="JSON", help="such as 3 or '[0.1, 0.2]'")
    invoke.add_argument("--mask", metavar="BITS", help="allowed actions, such as 1011")
    invoke.add_argument("--variant", metavar="NAME", help="the variant to ask, whatever its weight")
    invoke.add_argument("--model", metavar="NAME", help="of an endpoint of many models: path of its bundle")
    invoke.add_argument("--inference-id", metavar="ID", help="names the request: a retry gets the same answer")
    invoke.add_argument("--session", metavar="ID", help="keeps requests on one variant")
    reward = command("reward", text="report the reward of a decision")
    reward.add_argument("decision_id", metavar="DECISION_ID")
    reward.add_argument("reward", type=float, metavar="NUMBER")
    reward.add_argument("--terminated", action="store_true", help="the task was over with this decision")
    reward.add_argument("--truncated", action="store_true", help="the episode was cut off after it")
    reward.add_argument("--next-observation", metavar="JSON", help="what was observed after the episode's last action")
    add_hosting(commands)


def _background_commands(commands: Commands) -> None:
    """Add the commands on endpoints that run in the background."""

    def command(name: str, *, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        added.add_argument("--root", default="endpoints", metavar="FOLDER",
                           help="holds a folder for each endpoint: log, state (default: endpoints)")  # fmt: skip
        added.add_argument("--name", help="endpoint (default: the one that there is)")
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.background:{name}")
        return added

    create = command("create", text="start an endpoint in the background and wait until it answers")
    create.add_argument("source", metavar="BUNDLE|ENDPOINT", help="a bundle, a run directory, or an endpoint file")
    create.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
                        help="override one setting; repeatable")  # fmt: skip
    create.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    create.add_argument("--port", type=int, default=8080, metavar="N", help="port (default: 8080; 0: a free one)")
    _takes_workers(create)
    command("delete", text="end an endpoint of the background gracefully; its log stays")
    logs = command("logs", text="print what an endpoint of the background has printed")
    logs.add_argument("--lines", type=int, default=100, metavar="N", help="the last ones (default: 100; 0: all)")
