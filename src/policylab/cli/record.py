"""``policylab record``: what a policy does, as a Parquet file of transitions."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from policylab.cli.output import columns, emit


def record(arguments: argparse.Namespace) -> int:
    """Play a bundle's policy in its environment and record every step."""
    from policylab.agents.bundle import load_bundle
    from policylab.experiments.recording import record as play

    found = play(
        load_bundle(Path(arguments.bundle), memory=True),
        Path(arguments.out),
        episodes=arguments.episodes,
        seed=arguments.seed,
        deterministic=arguments.deterministic,
    )
    document = {**dataclasses.asdict(found), "path": str(found.path)}
    rows = [
        ["recorded", f"{found.transitions:,} transitions in {found.episodes:,} episodes"],
        ["return", f"{found.return_mean:.6g} per episode"],
        ["file", str(found.path)],
    ]
    emit(arguments, document, text=lambda: columns(rows))
    return 0
