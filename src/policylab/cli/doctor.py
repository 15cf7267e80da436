"""``policylab doctor``: versions, extras, cores, GPU, the emulator's hosts and writable folders."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from policylab.cli.output import columns, emit
from policylab.extras import EXTRAS

PACKAGES = ("policylab", "gymnasium", "numpy", "numba", "pydantic", "mlflow", "optuna", "matplotlib")


def doctor(arguments: argparse.Namespace) -> int:
    """Report the state of this installation; exit code 1 if something base needs is missing."""
    document: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: _version(package) for package in PACKAGES},
        "extras": {extra: _extra(modules) for extra, modules in EXTRAS.items()},
        "conflicts": _conflicts(),
        "cores": len(os.sched_getaffinity(0)),
        "gpus": _gpus(),
        "emulator": _emulator(),
        "folders": [_folder(Path.cwd()), _folder(_cache_folder()), _folder(Path(tempfile.gettempdir()))],
    }
    healthy = all(document["packages"].values()) and all(folder["writable"] for folder in document["folders"][:1])
    document["healthy"] = healthy
    emit(arguments, document, text=lambda: _text(document))
    return 0 if healthy else 1


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extra(modules: tuple[str, ...]) -> dict[str, Any]:
    missing = [module for module in modules if find_spec(module) is None]
    return {"installed": not missing, "missing": missing}


def _conflicts() -> list[str]:
    """Return what is installed side by side and must not be: pip does not notice."""
    if _version("pygame") and _version("pygame-ce"):
        remedy = "pip uninstall pygame; pip install --force-reinstall --no-deps pygame-ce"
        return [f"pygame and pygame-ce overwrite each other: {remedy}"]
    return []


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return found.stdout.strip().splitlines()


def _emulator() -> dict[str, Any]:
    from policylab.launchers.sagemaker.emulator.cluster import why_not_isolated

    reason = why_not_isolated()
    return {"isolation": "processes" if reason else "namespaces", "reason": reason}


def _cache_folder() -> Path:
    from policylab.agents.tabular.cache import cache_folder

    return cache_folder()


def _folder(path: Path) -> dict[str, Any]:
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free_gib = shutil.disk_usage(existing).free / 2**30
    return {"path": str(path), "writable": os.access(existing, os.W_OK), "free_gib": round(free_gib, 1)}


def _text(document: dict[str, Any]) -> str:
    rows = [["python", f"{document['python']} ({sys.executable})"], ["platform", document["platform"]]]
    rows += [[package, found or "MISSING: pip install policylab"] for package, found in document["packages"].items()]
    for extra, state in document["extras"].items():
        absent = f"absent ({', '.join(state['missing'])}): pip install 'policylab[{extra}]'"
        rows.append([f"extra {extra}", "installed" if state["installed"] else absent])
    rows += [["conflict", text] for text in document["conflicts"]]
    rows += [["cores", str(document["cores"])], ["GPUs", ", ".join(document["gpus"]) or "none"]]
    hosts = document["emulator"]
    rows.append(["emulator", f"hosts are {hosts['isolation']}" + (f": {hosts['reason']}" if hosts["reason"] else "")])
    for folder in document["folders"]:
        state = "writable" if folder["writable"] else "NOT WRITABLE"
        rows.append(["folder", f"{folder['path']}: {state}, {folder['free_gib']} GiB free"])
    return columns(rows)
