"""`edge_folder`: a policy that runs where policylab is not.

| of | holds | needs |
|---|---|---|
| a network | ``model.onnx``, ``policy.json``, ``run.py``, ``requirements.txt`` | onnxruntime, numpy |
| a table or tree | ``policy.h``, ``test_policy.c`` | a C99 compiler |

Both test themselves against the golden vectors of the bundle.
"""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

from policylab.agents.bundle import Bundle
from policylab.agents.onnx_policy import MODEL, OnnxPolicy
from policylab.agents.tree_policy import TreePolicy
from policylab.agents.value_policies import TabularPolicy
from policylab.deployment.optimization.c_policy import c_files
from policylab.errors import UserError
from policylab.files import write_atomic

KNOWN = {MODEL, "policy.json", "run.py", "requirements.txt", "policy.h", "test_policy.c"}


def edge_folder(bundle: Bundle, into: Path) -> list[str]:
    """Write the files that run the bundle's policy on its own; return their names.

    Args:
        bundle: a network, a table or a tree.
        into: the folder; one that holds other files is refused.

    Raises:
        UserError: the policy has no such form, or ``into`` holds other files.
        StorageError: a write failed.
    """
    foreign = {entry.name for entry in into.iterdir()} - KNOWN if into.is_dir() else set()
    if foreign:
        raise UserError(f"{into} holds {sorted(foreign)[0]!r}, which is no part of an edge folder; use another folder")
    match bundle.policy:
        case OnnxPolicy():
            files = _network_files(bundle, bundle.policy)
        case TabularPolicy() | TreePolicy():
            files = c_files(bundle)
        case _:
            raise UserError(
                f"a policy of the kind '{bundle.manifest.policy.kind}' has no edge form; networks, tables and "
                "trees have"
            )
    for name in KNOWN - set(files):
        (into / name).unlink(missing_ok=True)  # of an older folder of another kind
    for name, content in files.items():
        write_atomic(into / name, content)
    return sorted(files)


def _network_files(bundle: Bundle, policy: OnnxPolicy) -> dict[str, bytes | str]:
    facts: dict[str, Any] = {
        "digest": bundle.digest,
        "environment": bundle.manifest.environment.id,
        "inputs": {
            name: {"path": list(path), "dtype": dtype.name, "shape": list(shape)}
            for name, (path, dtype, shape) in policy.entries.items()
        },
        "distribution": policy.settings.distribution.model_dump(mode="json"),
        "tolerance": bundle.manifest.tolerance,
        "golden": [[golden.observation, golden.action] for golden in bundle.manifest.golden],
    }
    runner = importlib.resources.files("policylab.deployment.optimization").joinpath("edge_run.py")
    return {
        MODEL: policy.model,
        "policy.json": json.dumps(facts, indent=1, allow_nan=False) + "\n",
        "run.py": runner.read_text(encoding="utf-8"),
        "requirements.txt": "numpy\nonnxruntime\n",
    }
