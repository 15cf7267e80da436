"""What a run leaves does not depend on the processor: BLAS adds in another order on each kind."""

import os
import subprocess
import sys

from policylab.experiments.schema import load_experiment


def test_a_tabular_run_leaves_the_same_bytes_with_the_kernels_of_another_processor(tmp_path):
    config = load_experiment("taxi_tune", overrides=["budget.steps=3000", "evaluation.marks=6", "tracking.kind=none"])
    left = []
    for core in ("Prescott", "Haswell"):  # names of OpenBLAS; elsewhere they change nothing
        folder = tmp_path / core
        folder.mkdir()
        (folder / "spec.json").write_text(config.spec("tune", 0).model_dump_json())
        command = [sys.executable, "-m", "policylab", "run-spec", str(folder)]
        subprocess.run(command, env={**os.environ, "OPENBLAS_CORETYPE": core}, check=True, capture_output=True)
        left.append([(folder / name).read_bytes() for name in ("reports.jsonl", "result.json")])
    assert left[0] == left[1]
