"""House rules that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 50
HOME_PATH = re.compile(r"(?<![\w.])/(?:home|root|Users)/\w|[A-Z]:\\Users\\")
VAGUE_NAMES = {"utils.py", "util.py", "common.py", "base.py", "helpers.py", "misc.py", "manager.py"}


def tracked() -> list[Path]:
    """Return the files under version control; a source archive without git has none to check."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def modules() -> list[Path]:
    """Return the tracked Python modules of the package, tests left out."""
    outside = {ROOT / "tests", ROOT / "benchmarks", ROOT / "docs"}
    return [path for path in tracked() if path.suffix == ".py" and not outside & set(path.parents)]


def test_modules_stay_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules()}
    assert {name: n for name, n in lengths.items() if n > MAX_MODULE_LINES} == {}


def test_functions_stay_short() -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": lines
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := body_lines(node)) > MAX_FUNCTION_LINES
    }
    assert long == {}


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function from ``def`` to its end, its docstring left out."""
    first = node.body[0]
    documented = ast.get_docstring(node, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def test_files_are_named_after_their_concept() -> None:
    assert [path for path in modules() if path.name in VAGUE_NAMES] == []


def test_no_path_of_one_machine() -> None:
    found = {}
    for path in tracked():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if match := HOME_PATH.search(text):
            found[str(path.relative_to(ROOT))] = match.group()
    assert found == {}


def test_nothing_is_unpickled() -> None:
    libraries = "pickle|cloudpickle|dill|joblib|shelve|marshal"
    pattern = re.compile(rf"^\s*(?:import|from) (?:{libraries})\b|allow_pickle=True", re.MULTILINE)
    assert [str(path.relative_to(ROOT)) for path in modules() if pattern.search(path.read_text())] == []
