"""``policylab demo``: things to look at, made here and now."""

from __future__ import annotations

import argparse
from pathlib import Path

from policylab.cli.output import emit


def rollout(arguments: argparse.Namespace) -> int:
    """Let a bad candidate be rolled back and a good one be promoted."""
    from policylab.cli.endpoint import required_modules
    from policylab.deployment.guardrails.demo import rollout_demo

    required_modules()
    document = rollout_demo(Path(arguments.out), seed=arguments.seed)
    lines = [
        f"bad candidate: {document['bad']}",
        f"good candidate: {document['good']}",
        f"{document['n_decisions']:,} decisions; see {document['figure']}",
    ]
    emit(arguments, document, text=lambda: "\n".join(lines))
    return 0
