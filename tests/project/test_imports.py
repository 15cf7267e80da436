"""Importing is light: the libraries behind an adapter load when the adapter is used."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
SDKS = {"ray", "torch", "mlflow", "boto3", "botocore", "sagemaker", "onnx", "onnxruntime", "fastapi", "uvicorn"}
NUMERICAL = {"numpy", "scipy", "gymnasium", "numba", "matplotlib", "pandas", "optuna", "pygame"}


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a new process holds after running ``code``."""
    report = "import json, sys; print(json.dumps([*sys.modules]), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


def test_the_package_alone_loads_no_library() -> None:
    assert not loaded_after("import policylab") & (SDKS | NUMERICAL)


@pytest.mark.parametrize("package", [name for name in PACKAGES if name.count(".") == 1])
def test_no_room_loads_an_sdk(package: str) -> None:
    assert not loaded_after(f"import {package}") & (SDKS | {"matplotlib"})


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_loads_no_library(arguments: list[str]) -> None:
    code = f"""
import sys
sys.argv = ["policylab", *{arguments!r}]
from policylab.cli import main
try:
    code = main()
except SystemExit as exit:
    code = exit.code
assert not code, code
"""
    assert not loaded_after(code) & (SDKS | NUMERICAL)


def test_python_dash_m_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "policylab", "--help"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "usage: policylab" in done.stdout.lower()


def test_gymnasium_knows_the_environments_in_either_import_order() -> None:
    check = "assert any(name.startswith('policylab/') for name in gymnasium.registry)"
    loaded_after(f"import policylab, gymnasium; {check}")
    loaded_after(f"import gymnasium, policylab; {check}")
