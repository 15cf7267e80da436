"""The source bundle: the code of an experiment as a few files named by their content, uploaded once for all its jobs.

| file | content |
|---|---|
| bootstrap.py | what the container starts: `policylab.launchers.sagemaker.bootstrap` |
| policylab.zip | the package ``policylab`` with its metadata, to be put on the import path |
| modules.zip | modules and packages of the user's; absent if there are none |
| requirements.txt | what policylab needs for this experiment |
| constraints.txt | the versions of all that on the machine that built the bundle |
| bundle.json | version of policylab, digest of its code, extras |

Equal code on equal versions gives equal bytes, whatever the clock, the machine's paths and the order of files. Torch
and the CUDA libraries are left out of the constraints: an image brings those that fit its machines.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import json
import re
import site
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from policylab.errors import UserError
from policylab.files import write_atomic
from policylab.launchers.sagemaker.bootstrap import (
    BUNDLE,
    CONSTRAINTS,
    MODULES,
    REQUIREMENTS,
    SOURCE,
    source_digest,
    source_files,
)

MAX_BYTES = 50 * 2**20
"""Of a bundle; code is far smaller, and what is larger is data, which belongs in a channel."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Time of every file in an archive, the earliest that the format knows."""

OF_THE_IMAGE = re.compile(r"torch|torchvision|torchaudio|triton|(nvidia|cuda)-.*|policylab")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@dataclasses.dataclass(frozen=True, slots=True)
class SourceBundle:
    """Code ready to travel.

    Attributes:
        files: name -> content.
        hash: sha256 over names and contents; equal hashes mean equal code.
    """

    files: Mapping[str, bytes]
    hash: str

    def write(self, folder: Path) -> None:
        """Write the files into ``folder``.

        Raises:
            StorageError: a write failed.
        """
        for name, content in self.files.items():
            write_atomic(folder / name, content)


def build(*, extras: Sequence[str] = (), include: Sequence[Path] = ()) -> SourceBundle:
    """Return the bundle of this policylab, as it is imported here, and of the user's own code.

    Args:
        extras: of policylab that the experiment needs in the container, such as ``rllib``.
        include: modules, and folders of packages, to import by their own names in the container.

    Raises:
        UserError: an extra or a path that does not exist, two of one name, or more than `MAX_BYTES`.
    """
    package = _package()
    project = _Project.of(package)
    unknown = sorted(set(extras) - set(project.extras))
    if unknown:
        raise UserError(f"policylab has no extra {unknown[0]!r}; it has {', '.join(sorted(project.extras))}")
    needed = project.requirements(extras)
    facts = {"schema_version": 1, "version": project.version, "source": source_digest(package)}
    files = {
        "bootstrap.py": (package / "launchers" / "sagemaker" / "bootstrap.py").read_bytes(),
        SOURCE: _archive({**_named("policylab", package), **project.metadata()}),
        REQUIREMENTS: _lines(needed),
        CONSTRAINTS: _lines(_versions(needed)),
        BUNDLE: json.dumps({**facts, "extras": sorted(extras)}, indent=1).encode(),
    }
    modules = _modules(include)
    if modules:
        files[MODULES] = _archive(modules)
    _check_size(files, modules)
    return SourceBundle(files, _hash(files))


def _package() -> Path:
    spec = importlib.util.find_spec("policylab")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


@dataclasses.dataclass(frozen=True, slots=True)
class _Project:
    """What packaging says of policylab: of a checkout its pyproject.toml, which is newer than what was installed."""

    version: str
    requires: tuple[str, ...]
    extras: Mapping[str, tuple[str, ...]]
    entry_points: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, package: Path) -> _Project:
        file = package.resolve().parents[1] / "pyproject.toml"
        if file.exists():
            project = tomllib.loads(file.read_text())["project"]
            extras = {name: tuple(lines) for name, lines in project["optional-dependencies"].items()}
            return cls(project["version"], tuple(project["dependencies"]), extras, project.get("entry-points", {}))
        found = metadata.distribution("policylab")
        requires = [line.partition(";") for line in found.requires or ()]
        always = tuple(line.strip() for line, _, marker in requires if not _EXTRA.search(marker))
        extras = {
            extra: tuple(line.strip() for line, _, marker in requires if extra in _EXTRA.findall(marker))
            for extra in found.metadata.get_all("Provides-Extra") or ()
        }
        return cls(found.version, always, extras, {})

    def requirements(self, extras: Iterable[str]) -> list[str]:
        """Return the requirements with those of ``extras``, one extra naming others resolved."""
        found = set(self.requires)
        for extra in extras:
            for line in self.extras[extra]:
                own = re.fullmatch(r"policylab\[(.*)\]", line)
                found.update(self.requirements(own[1].split(",")) if own else [line])
        return sorted(found)

    def metadata(self) -> dict[str, bytes]:
        """Return the files by which the package on the import path is a distribution with this version."""
        folder = f"policylab-{self.version}.dist-info"
        return {f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: policylab\nVersion: {self.version}\n".encode()}


def _versions(requirements: Iterable[str]) -> Iterator[str]:
    """Yield ``name==version`` of the requirements and of all that they need, as far as it is installed here.

    Only where pip installs is looked: what a library puts on the import path (ray does, copies of other versions) would
    give a process that has imported it another bundle.
    """
    places = [*site.getsitepackages(), site.getusersitepackages()]
    waiting, seen = [(name, extras) for name, extras in map(_parsed, requirements)], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found = next(iter(metadata.distributions(name=name, path=places)), None)
        if found is None:  # of another platform, or an extra that is not installed here
            continue
        if not OF_THE_IMAGE.fullmatch(name):
            yield f"{name}=={found.version.partition('+')[0]}"
        for line in found.requires or ():
            wanted = _EXTRA.findall(line.partition(";")[2])
            if not wanted or extras & set(wanted):
                waiting.append(_parsed(line))


def _parsed(requirement: str) -> tuple[str, frozenset[str]]:
    """Return the normalised name and the extras of a requirement.

    >>> _parsed("ray[default,rllib]==2.60.0; python_version > '3'")[0]
    'ray'
    """
    name = _NAME.match(requirement)
    assert name is not None, requirement
    extras = re.match(r"\s*\[([^\]]*)\]", requirement[name.end() :])
    listed = frozenset(part.strip() for part in extras[1].split(",")) if extras else frozenset()
    return re.sub(r"[-_.]+", "-", name[0]).lower(), listed


def _named(name: str, folder: Path) -> dict[str, bytes]:
    return {f"{name}/{path}": place.read_bytes() for path, place in source_files(folder)}


def _modules(include: Sequence[Path]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    names: set[str] = set()
    for path in map(Path.absolute, map(Path, include)):
        if path.name in names:
            raise UserError(f"include: two paths are named {path.name!r}; in the container they would be one module")
        names.add(path.name)
        if path.is_dir():
            files.update(_named(path.name, path))
        elif path.is_file():
            files[path.name] = path.read_bytes()
        else:
            raise UserError(f"include: {path}: no such file or folder")
    return files


def _archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in sorted(set(lines))).encode()


def _check_size(files: Mapping[str, bytes], modules: Mapping[str, bytes]) -> None:
    size = sum(map(len, files.values()))
    if size > MAX_BYTES:
        largest = max(modules, key=lambda name: len(modules[name])) if modules else SOURCE
        raise UserError(
            f"the source bundle has {size:,} bytes, more than {MAX_BYTES:,}; the largest of your files is {largest}: "
            "give data to the job through a channel"
        )


def _hash(files: Mapping[str, bytes]) -> str:
    lines = "".join(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
