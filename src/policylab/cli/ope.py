"""``policylab ope``: what a policy would earn, from a log of what another policy did."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from policylab.cli.output import columns, emit
from policylab.errors import ConfigError

if TYPE_CHECKING:
    from policylab.monitoring.ope import Evaluation, OpeSettings

SETTINGS = ("discount", "horizon", "deterministic", "level", "least_return", "seed")


def ope(arguments: argparse.Namespace) -> int:
    """Value a bundle's policy on a log; exit code 1 if the log does not allow an answer."""
    from policylab.agents.bundle import load_bundle
    from policylab.monitoring.ope import evaluate, read_log
    from policylab.monitoring.ope.captured_log import CaptureQuery, read_captured_log
    from policylab.monitoring.ope.evaluation import as_document

    settings = _settings(arguments)
    bundle = load_bundle(Path(arguments.policy))
    path = Path(arguments.log)
    if path.is_dir():
        query = CaptureQuery(arguments.endpoint, arguments.variant, arguments.missing_reward)
        log = read_captured_log(path, bundle, query=query)
    else:
        log = read_log(path)
    found = evaluate(bundle, log, settings=settings)
    emit(arguments, as_document(found), text=lambda: _text(found))
    return 0 if found.answer else 1


def _settings(arguments: argparse.Namespace) -> OpeSettings:
    from pydantic import ValidationError

    from policylab.monitoring.ope import OpeSettings

    given = {name: value for name in SETTINGS if (value := getattr(arguments, name)) is not None}
    try:
        return OpeSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{option}: {first['msg']}, got {first['input']}") from None


def _text(found: Evaluation) -> str:
    overlap = found.overlap
    rows = [["logged policy", str(found.logged), f"{overlap.n_episodes:,} episodes"]]
    for name, interval in found.estimates.items():
        rows.append([name, str(interval), "<- the answer" if name == found.answer else ""])
    rows += [[f"at least ({name})", f"{bound:.4g}", f"{found.level:.0%} sure"] for name, bound in _bounds(found)]
    rows += [
        ["effective episodes", f"{overlap.effective_episodes:.4g}", f"of {overlap.n_episodes:,}"],
        ["mean weight", f"{overlap.mean_weight:.4g}", "1 if every action of the target could be logged"],
        ["unsupported", f"{overlap.unsupported:.2%} ± {overlap.unsupported_error:.2%}", "of the target's decisions"],
    ]
    reasons = {reason: [name for name, why in found.refused.items() if why == reason] for reason in _reasons(found)}
    refused = [f"refused ({', '.join(names)}): {reason}" for reason, names in reasons.items()]
    return "\n".join([columns(rows), *refused, *(f"note: {note}" for note in found.notes)])


def _bounds(found: Evaluation) -> list[tuple[str, float]]:
    return sorted(found.lower_bounds.items())


def _reasons(found: Evaluation) -> list[str]:
    return list(dict.fromkeys(found.refused.values()))
