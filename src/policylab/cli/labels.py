"""Commands on labels: select pairs, serve them to people, consolidate, train a reward model, label automatically."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from policylab.cli.output import columns, emit
from policylab.errors import UserError


def select(arguments: argparse.Namespace) -> int:
    """Choose pairs of segments and store them."""
    from policylab.agents.bundle import load_bundle
    from policylab.envs.reward_model import RewardModel
    from policylab.monitoring.labels.segments import cut
    from policylab.monitoring.labels.selection import select as choose
    from policylab.monitoring.labels.store import LabelFolder

    folder = LabelFolder(Path(arguments.labels))
    bundle = load_bundle(Path(arguments.policy)) if arguments.policy else None
    chosen = []
    for number, data in enumerate(arguments.data):
        segments = cut(Path(data), length=arguments.segment_steps, bundle=bundle if Path(data).is_dir() else None)
        model = RewardModel.load(Path(arguments.model)) if arguments.model else None
        pairs = choose(segments, model, n_pairs=arguments.pairs, seed=arguments.seed, name=number)
        chosen.append((data, segments, pairs))
    found = []
    for data, segments, pairs in chosen:
        selection = folder.add(segments, pairs)
        found.append({"data": data, "n_segments": len(segments), "n_pairs": len(selection.ids)})
    rows = [
        ["data", "segments", "pairs"],
        *([one["data"], f"{one['n_segments']:,}", f"{one['n_pairs']:,}"] for one in found),
    ]
    text = f"{columns(rows)}\nnext: policylab labels serve {arguments.labels}"
    emit(arguments, {"labels": str(folder.path), "selected": found}, text=lambda: text)
    return 0


def serve(arguments: argparse.Namespace) -> int:
    """Serve the labelling page until it is told to stop."""
    from policylab.deployment.http.access import access_for, is_loopback
    from policylab.deployment.http.listening import bound_socket
    from policylab.monitoring.labels.server import LabelServer
    from policylab.monitoring.labels.service import LabelService
    from policylab.monitoring.labels.store import LabelFolder

    access = access_for(arguments.host)
    service = LabelService(LabelFolder(Path(arguments.labels)))
    with contextlib.closing(bound_socket(arguments.host, arguments.port)) as listener:
        server = LabelServer(listener, service, access=access)
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        note = "" if is_loopback(arguments.host) else "; add #token=... with the secret to the address"
        sys.stdout.write((json.dumps({"url": url}) if arguments.json else f"label at {url}{note}") + "\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):  # how it is told to stop; every label was written when given
            server.serve_forever()
    return 0


def consolidate(arguments: argparse.Namespace) -> int:
    """Write one preference per pair, and print how the labellers agree."""
    from policylab.monitoring.labels.consolidation import consolidate_folder
    from policylab.monitoring.labels.service import agreement
    from policylab.monitoring.labels.store import LabelFolder

    folder = LabelFolder(Path(arguments.labels))
    document = {**consolidate_folder(folder), "agreement": agreement(folder.given())}
    emit(arguments, document, text=lambda: _consolidation_text(document))
    return 0


def _consolidation_text(document: dict[str, Any]) -> str:
    rows = [["labeller", "labels", "right about"]]
    for name, n in document["agreement"]["n_labels"].items():
        rows.append([name, f"{n:,}", f"{document['reliability'][name]:.1%}"])
    lines = [
        f"{document['n_people']:,} pairs labelled by people, {document['n_automatic']:,} automatically",
        columns(rows),
    ]
    for both in document["agreement"]["two"]:
        kappa = _number(both["cohen_kappa"])
        lines.append(
            f"{both['labellers'][0]} and {both['labellers'][1]}: Cohen's kappa {kappa} on {both['n_pairs']:,} pairs"
        )
    if len(document["agreement"]["n_labels"]) > 2:
        everybody = document["agreement"]["all"]
        lines.append(f"all: Fleiss' kappa {_number(everybody['fleiss_kappa'])} on {everybody['n_pairs']:,} pairs")
    return "\n".join(lines)


def train(arguments: argparse.Namespace) -> int:
    """Train a reward model and say how well it predicts held-out labels."""
    from policylab.monitoring.labels import reward_training as training
    from policylab.monitoring.labels.preference_model import PreferenceSettings
    from policylab.monitoring.labels.segments import STEP_PARTS
    from policylab.monitoring.labels.store import LabelFolder

    parts = tuple(part.strip() for part in arguments.inputs.split(","))
    if not parts or len(set(parts)) != len(parts) or not set(parts) <= set(STEP_PARTS):
        raise UserError(f"--inputs must be some of {', '.join(STEP_PARTS)}, got {arguments.inputs!r:.60}")
    settings = PreferenceSettings(
        n_members=arguments.members, hidden=arguments.hidden, noise=arguments.noise, ridge=arguments.ridge,
        seed=arguments.seed,
    )  # fmt: skip
    folder = LabelFolder(Path(arguments.labels))
    model = training.train(folder, parts=parts, settings=settings)
    validation = training.validate(folder, model, accuracy=arguments.accuracy)
    found = training.summary(model, folder, validation=validation)
    model.lineage["validation"] = found["validation"]
    digest = model.save(Path(arguments.out))
    document = {**found, "path": arguments.out, "sha256": digest}
    emit(arguments, document, text=lambda: _training_text(document, accuracy=arguments.accuracy))
    return 0


def _training_text(document: dict[str, Any], *, accuracy: float) -> str:
    held_out = document["validation"]
    right = "no held-out labels" if held_out["accuracy"] is None else f"{held_out['accuracy']:.1%} of {held_out['n']:,}"
    if held_out["threshold"] is None:
        automatic = f"none: an accuracy of {accuracy:.0%} is not validated, label more pairs"
    else:
        bound = f"right in at least {held_out['lower_bound']:.1%} of cases"
        automatic = f"confidence of at least {held_out['threshold']:.3f}, {bound}"
    rows = [
        ["trained on", f"{document['n_pairs']:,} pairs"],
        ["held-out labels predicted", right],
        ["automatic labels", automatic],
        ["recorded returns", f"correlation {_number(document['correlation_with_recorded_returns'])}"],
    ]
    use = f"env:\n  learned_reward:\n    path: {document['path']}\n    sha256: {document['sha256']}"
    return f"{columns(rows)}\ntrain an agent on it:\n{use}"


def auto(arguments: argparse.Namespace) -> int:
    """Label what the model is sure of; exit code 1 if its confidence is not validated."""
    from policylab.envs.reward_model import RewardModel
    from policylab.files import write_atomic
    from policylab.monitoring.labels import reward_training as training
    from policylab.monitoring.labels.store import LabelFolder

    folder, model = LabelFolder(Path(arguments.labels)), RewardModel.load(Path(arguments.model))
    found = training.automatic_labels(folder, model, accuracy=arguments.accuracy)
    written = {"model": arguments.model, "preferences": found.preferences}
    write_atomic(folder.automatic_file, json.dumps(written, indent=1) + "\n")
    validations = [dataclasses.asdict(validation) for validation in found.validations]
    document = {"n_automatic": len(found.preferences), "n_people": found.n_people, "selections": validations}
    rows = [["selection", "held-out labels", "predicted", "validated confidence"]]
    for number, one in enumerate(found.validations, start=1):
        accuracy = "-" if one.accuracy is None else f"{one.accuracy:.1%}"
        rows.append(
            [str(number), f"{one.n:,}", accuracy, f"from {_number(one.threshold)}" if one.threshold else "none"]
        )
    told = f"{len(found.preferences):,} pairs labelled automatically; {found.n_people:,} are left to people"
    emit(arguments, document, text=lambda: f"{columns(rows)}\n{told}")
    return 0 if any(one.threshold is not None for one in found.validations) else 1


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
