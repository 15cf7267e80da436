"""What a job stores when its hosts have ended: output.tar.gz always, and its model unless it failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from policylab.errors import StorageError
from policylab.launchers.sagemaker.emulator.artefacts import MAX_REASON, Merged
from policylab.launchers.sagemaker.emulator.work import Outcome, Work


def store_results(work: Work, trees: Mapping[str, Path], *, outcome: Outcome) -> Outcome:
    """Store what the hosts left in ``trees``; return the outcome, which becomes a failure if that is impossible."""
    work.record.move("Uploading", "Uploading generated training model")
    config = work.request["OutputDataConfig"]
    base = f"{config['S3OutputPath'].rstrip('/')}/{work.request['TrainingJobName']}/output"
    try:
        output = _merged(work, trees, below="output/data")
        if output.n_files:
            output.pack(work.store, f"{base}/output.tar.gz", scratch=work.folder)
        if outcome.kind == "failed":
            return outcome
        model = _merged(work, trees, below="model")
        if config.get("CompressionType") == "NONE":
            uri = f"{base}/model/"
            model.store_plainly(work.store, uri.rstrip("/"))
        else:
            uri = f"{base}/model.tar.gz"
            model.pack(work.store, uri, scratch=work.folder)
    except (StorageError, OSError) as error:
        return Outcome("failed", f"ClientError: Artifact upload failed: {error}")
    work.record.data["ModelArtifacts"] = {"S3ModelArtifacts": uri}
    clashes = [*model.clashes, *output.clashes]
    if clashes:
        rule = "ClientError: hosts wrote different files to the same place; let one host write"
        return Outcome("failed", f"{rule}: {', '.join(clashes)}"[:MAX_REASON])
    return outcome


def _merged(work: Work, trees: Mapping[str, Path], *, below: str) -> Merged:
    merged = Merged(trees, below)
    for host in merged.skipped:
        work.note(f"{host}: /opt/ml/{below} is missing or leads out of /opt/ml, and was left out")
    return merged
