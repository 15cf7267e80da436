"""What a wheel holds equals what is on disk, and the linked rooms are seen by every tool."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
ROOMS = {name.removeprefix("policylab."): path for name, path in SETUPTOOLS["package-dir"].items() if "." in name}


def folder_of(package: str) -> Path:
    """Return the real folder of a declared package."""
    head, *rest = package.split(".")[1:] or [""]
    room = f"policylab.{head}" if f"policylab.{head}" in SETUPTOOLS["package-dir"] else "policylab"
    inner = rest if room != "policylab" else [part for part in (head, *rest) if part]
    return ROOT.joinpath(SETUPTOOLS["package-dir"][room], *inner)


def packages_on_disk() -> set[str]:
    """Return every package below the folders that pyproject.toml maps, by its import name."""
    found = set()
    for package, folder in SETUPTOOLS["package-dir"].items():
        for marker in (ROOT / folder).rglob("__init__.py"):  # rglob does not walk into links
            parts = marker.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *parts)))
    return found


def test_declared_packages_are_the_packages_on_disk() -> None:
    declared = SETUPTOOLS["packages"]
    assert len(declared) == len(set(declared))
    assert packages_on_disk() == set(declared)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_each_room_is_linked_into_the_package(room: str) -> None:
    link = ROOT / "src" / "policylab" / room
    assert link.is_symlink(), f"{link.relative_to(ROOT)} must be a link: type checkers and coverage read through it"
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / ROOMS[room]


def test_every_data_file_is_declared() -> None:
    declared = SETUPTOOLS["package-data"]
    for package in SETUPTOOLS["packages"]:
        folder = folder_of(package)
        inner = [folder_of(name) for name in SETUPTOOLS["packages"] if name != package]
        shipped = {match for pattern in declared.get(package, []) for match in folder.glob(pattern)}
        for path in folder.rglob("*"):
            hidden = any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
            if hidden or not path.is_file() or path.suffix in {".py", ".md"}:
                continue
            if not any(other != folder and path.is_relative_to(other) for other in inner):
                assert path in shipped, f"{path.relative_to(ROOT)} would be missing from the wheel: see package-data"


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_public_names_exist(package: str) -> None:
    module = importlib.import_module(package)
    names = getattr(module, "__all__", [])
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(module, name), f"{package}.__all__ names {name!r}, which does not exist"


def test_console_script_points_at_a_function() -> None:
    module, _, attribute = PROJECT["project"]["scripts"]["policylab"].partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_version_is_the_same_everywhere() -> None:
    assert importlib.import_module("policylab").__version__ == PROJECT["project"]["version"]
    assert (
        f"## [{PROJECT['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()
        or "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    )


def test_constraints_pin_every_direct_dependency() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in pin and "+" not in pin and "/" not in pin for pin in pins), "only plain pins: name==version"
    pinned = {normalised(pin) for pin in pins}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(requirement for extra in extras for requirement in extra)]
    assert {normalised(requirement) for requirement in wanted} - {"policylab"} <= pinned


def normalised(requirement: str) -> str:
    """Return the project name of a requirement, as package indexes compare it.

    >>> normalised("types-PyYAML>=6")
    'types-pyyaml'
    """
    name = requirement
    for stop in "[<>=!~; ":
        name = name.partition(stop)[0]
    return name.lower().replace("_", "-").replace(".", "-")
