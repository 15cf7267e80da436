"""``policylab monitor explain``: which features a policy decides by."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from policylab.cli.output import columns, emit


def explain(arguments: argparse.Namespace) -> int:
    """Compute attributions; write them as JSON and as figures."""
    from policylab.agents.bundle import load_bundle
    from policylab.files import write_atomic
    from policylab.monitoring.attribution import explanation
    from policylab.monitoring.causes.steps import read_steps

    bundle, out = load_bundle(Path(arguments.policy)), Path(arguments.out)
    steps = read_steps(Path(arguments.data), bundle=bundle)
    decisions = list(dict.fromkeys(arguments.decision))
    found = explanation.explain(
        bundle, steps.observation, decisions=decisions, method=arguments.method, seed=arguments.seed
    )
    document = explanation.document(found, decisions=decisions)
    write_atomic(out / "explanation.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    figures = [str(path) for path in explanation.write_figures(found, out, decisions=decisions)]
    rows = [["feature", *(f"output {i}" for i in range(found.values.shape[2]))]]
    rows += [[str(i), *(f"{value:.4g}" for value in scores)] for i, scores in enumerate(found.overall())]
    told = f"mean absolute attribution of {len(found.values):,} decisions; figures in {out}"
    emit(arguments, {**document, "figures": figures}, text=lambda: f"{columns(rows)}\n{told}")
    return 0
