"""The arguments of ``policylab labels``."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_labels(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the command; ``command`` makes a parser of a name, ``call`` and ``text``."""
    labels = command("labels", call="labels:", text="let people compare episodes, and learn a reward from that")
    commands = labels.add_subparsers(metavar="COMMAND", required=True)

    def added(name: str, *, text: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text, description=text)
        parser.add_argument("labels", metavar="LABELS", help="folder of pairs and labels")
        parser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        parser.set_defaults(call=f"policylab.cli.labels:{name}")
        return parser

    _select_arguments(added("select", text="choose pairs of segments about which reward models disagree"))
    serve = added("serve", text="show pairs on a local web page until it is told to stop")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, default=8081, metavar="N", help="port (default: 8081; 0: a free one)")
    added("consolidate", text="make one preference per pair of what several people said, and say how they agree")
    train = added("train", text="train a reward model on consolidated labels")
    train.add_argument("--out", required=True, metavar="DIR", help="folder that receives the model")
    train.add_argument("--members", type=int, default=5, metavar="N", help="models of the ensemble (default: 5)")
    train.add_argument("--hidden", type=int, default=16, metavar="N", help="tanh units; 0: linear (default: 16)")
    train.add_argument("--noise", type=float, default=0.1, metavar="P", help="share of careless labels (default: 0.1)")
    train.add_argument("--ridge", type=float, default=1.0, metavar="X", help="weight of squared weights (default: 1)")
    train.add_argument("--seed", type=int, default=0, help="root of bootstraps and beginnings (default: 0)")
    train.add_argument(
        "--inputs", default="observation,action", metavar="A,B",
        help="what of a step the reward depends on: observation, action, next_observation (default: the first two)",
    )  # fmt: skip
    auto = added("auto", text="label the pairs that a reward model is sure of; leave the others to people")
    auto.add_argument("model", metavar="MODEL", help="folder of `policylab labels train`")
    for command_ in (train, auto):
        command_.add_argument(
            "--accuracy", type=float, default=0.95, metavar="P",
            help="that automatic labels must have, by held-out labels of people (default: 0.95)",
        )  # fmt: skip


def _select_arguments(select: argparse.ArgumentParser) -> None:
    recording = "Parquet file of `policylab record`, or a folder of captured traffic"
    select.add_argument("data", nargs="+", metavar="DATA", help=recording)
    select.add_argument("--pairs", type=int, default=100, metavar="N", help="to choose from each DATA (default: 100)")
    select.add_argument("--segment-steps", type=int, default=25, metavar="N", help="steps of a segment (default: 25)")
    select.add_argument("--policy", metavar="BUNDLE", help="a policy of the task, to read captured traffic")
    select.add_argument("--model", metavar="MODEL", help="reward model whose disagreement counts; default: random ones")
    select.add_argument("--seed", type=int, default=0, help="root of the drawn candidates (default: 0)")
