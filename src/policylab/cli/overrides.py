"""What names an experiment and changes its settings, for every command that takes one."""

from __future__ import annotations

import argparse


def takes_config(added: argparse.ArgumentParser) -> None:
    """Add what names an experiment and changes its settings."""
    added.add_argument("config", help="an experiment file, or the name of a shipped one (policylab list configs)")
    takes_overrides(added)


def takes_overrides(added: argparse.ArgumentParser, *, example: str = "agent.discount=0.95") -> None:
    """Add what changes an experiment's settings, ``example`` among them."""
    added.add_argument(
        "--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE",
        help=f"override one setting, such as {example}; repeatable",
    )  # fmt: skip
    added.add_argument(
        "--launcher", action="append", dest="overrides", type="launcher.kind={}".format, metavar="KIND",
        help="where runs execute: local, inline, ray or sagemaker; short for --set launcher.kind=KIND",
    )  # fmt: skip
    added.add_argument(
        "--emulate", action="append_const", dest="overrides", const="launcher.emulate=true",
        help="with --launcher sagemaker: execute the very requests on this machine; nothing is sent",
    )  # fmt: skip
