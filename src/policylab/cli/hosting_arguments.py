"""Arguments of endpoints on SageMaker: ``--on sagemaker`` for verbs that both places have, and verbs for files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

HOSTED = ("create", "update", "status", "weights", "rollback", "invoke", "delete")
"""Verbs that an endpoint on SageMaker has as well."""

SENT = ("create", "update")
Commands = Any
"""What ``add_subparsers`` returns; argparse has no public name for it."""


class _On(argparse.Action):
    """Lets the verb of the other place be called."""

    def __call__(  # noqa: PLR0917 - argparse
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        if values == "sagemaker":
            namespace.call = f"policylab.cli.hosting:{self.const}"


def add_hosting(commands: Commands) -> None:
    """Add everything to the commands below ``policylab endpoint``."""
    for name, text in (("create", "create an endpoint"), ("delete", "delete an endpoint")):
        if name not in commands.choices:
            added = commands.add_parser(name, help=text, description=text)
            added.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document")
            added.add_argument("--name", help="endpoint")
            added.set_defaults(call=f"policylab.cli.hosting:{name}")
            if name == "create":
                added.add_argument("source", metavar="ENDPOINT", help="endpoint file (YAML)")
                _takes_overrides(added)
    for name in HOSTED:
        verb = commands.choices[name]
        verb.add_argument("--on", choices=["local", "sagemaker"], action=_On, const=name, default="local",
                          help="where the endpoint is (default: local); on sagemaker it goes by --name")  # fmt: skip
        verb.add_argument("--region", help="of SageMaker (default: policylab.yaml's, else the AWS profile's)")
        if name in SENT:
            verb.add_argument(
                "--dry-run", action="store_true", help="with --on sagemaker: print and check the requests"
            )
    for name, text in (
        ("to-sagemaker", "the requests of an endpoint file to SageMaker, and what they cannot express"),
        ("to-cloudformation", "an endpoint file as a CloudFormation template"),
    ):
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("file", metavar="ENDPOINT", help="endpoint file (YAML) with a section sagemaker")
        _takes_overrides(added)
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.hosting:{name.replace('-', '_')}")


def _takes_overrides(added: argparse.ArgumentParser) -> None:
    added.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
                       help="override one setting; repeatable")  # fmt: skip
