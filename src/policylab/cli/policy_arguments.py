"""The arguments of ``policylab policy``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

HOW = ["table", "graph", "int8", "prune", "distill-network", "distill-tree"]


def add_policy(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add ``policylab policy`` with its commands."""
    policy = command("policy", call="policy:", text="make a policy smaller and faster, or take it to a device")
    commands = policy.add_subparsers(metavar="COMMAND", required=True)

    def added(name: str, *, text: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text, description=text)
        parser.add_argument("bundle", metavar="BUNDLE", help="folder or model.tar.gz of a policy bundle")
        parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
        parser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        parser.set_defaults(call=f"policylab.cli.policy:{name}")
        return parser

    _optimize_arguments(added("optimize", text="a smaller or faster bundle, unless it loses too much return"))
    added("edge", text="a folder that runs with onnxruntime alone, or a C header of a table or tree")


def _optimize_arguments(optimize: argparse.ArgumentParser) -> None:
    add = optimize.add_argument
    add("--how", required=True, choices=HOW, help="the method; see docs/bundles.md")
    add("--max-loss", type=float, metavar="RETURN", help="return per episode that may be lost (default: 5 %% of it)")
    add("--confidence", type=float, help="the upper end of this interval must stay within it (default: 0.95)")
    add("--episodes", type=int, metavar="N", help="paired episodes, if there is no exact table (default: 200)")
    add("--seed", type=int, help="root of the random streams (default: 0)")
    add("--share", type=float, help="prune: share of the hidden units to remove (default: 0.5)")
    add("--hidden", type=_sizes, metavar="N,N", help="distill-network: units of the hidden layers (default: 16,16)")
    add("--depth", type=int, metavar="N", help="distill-tree: levels (default: 8)")
    add("--observations", type=int, metavar="N", help="distillation: labelled observations (default: 20000)")


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
