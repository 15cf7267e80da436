"""``policylab policy optimize|edge``: smaller and faster policies, and folders that run without policylab."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit
from policylab.errors import ConfigError

if TYPE_CHECKING:
    from policylab.deployment.optimization import Optimized, OptimizeSettings

SETTINGS = ("max_loss", "confidence", "episodes", "seed", "share", "hidden", "depth", "observations")


def optimize(arguments: argparse.Namespace) -> int:
    """Write a smaller or faster bundle; exit code 1, and nothing written, if it loses more return than allowed."""
    settings = _settings(arguments)
    from policylab.agents.bundle import load_bundle
    from policylab.deployment.optimization import optimize as make_smaller
    from policylab.deployment.optimization.optimize import as_document

    found = make_smaller(load_bundle(Path(arguments.bundle)), Path(arguments.out), settings=settings)
    document = {**as_document(found), "path": arguments.out}
    emit(arguments, document, text=lambda: _text(found, settings=settings, path=arguments.out))
    return 0


def edge(arguments: argparse.Namespace) -> int:
    """Write a folder that runs the policy without policylab."""
    from policylab.agents.bundle import load_bundle
    from policylab.deployment.optimization.edge import edge_folder

    bundle = load_bundle(Path(arguments.bundle))
    names = edge_folder(bundle, Path(arguments.out))
    test = (
        "python run.py --self-test"
        if "run.py" in names
        else "cc -std=c99 -o test_policy test_policy.c && ./test_policy"
    )
    document = {"path": arguments.out, "files": names, "test": test, "digest": bundle.digest}
    emit(arguments, document, text=lambda: f"{arguments.out}: {', '.join(names)}\ntest it there: {test}")
    return 0


def _settings(arguments: argparse.Namespace) -> OptimizeSettings:
    from pydantic import ValidationError

    from policylab.deployment.optimization import OptimizeSettings

    given: dict[str, Any] = {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}
    try:
        return OptimizeSettings.model_validate({"how": arguments.how, **given})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{option}: {first['msg']}, got {first['input']}") from None


def _text(found: Optimized, *, settings: OptimizeSettings, path: str) -> str:
    before, after, loss = found.before, found.after, found.loss
    if loss.exact:
        lost = f"{loss.value:.6g}, exact"
    else:
        lost = (
            f"{loss.value:.6g} [{loss.low:.6g}, {loss.high:.6g}] at {settings.confidence:.0%}, "
            f"{loss.episodes:,} paired episodes"
        )
    smaller, faster = before.n_bytes / after.n_bytes, before.act_us / after.act_us
    rows = [
        ["", "source", "optimized", ""],
        ["bytes", f"{before.n_bytes:,}", f"{after.n_bytes:,}", f"{smaller:.2f} times smaller"],
        ["decision", f"{before.act_us:.1f} us", f"{after.act_us:.1f} us", f"{faster:.2f} times faster"],
        ["return", f"{loss.source:.6g}", f"{loss.optimized:.6g}", f"lost {lost}; {found.max_loss:.6g} allowed"],
    ]
    manifest = found.bundle.manifest
    return "\n".join([columns(rows), f"bundle {path} ({manifest.policy.kind}, {manifest.digest[:12]})"])
