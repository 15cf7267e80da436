"""The first program of a training container: makes policylab importable, then becomes `policylab container`.

It is a file of the source bundle (`policylab.launchers.sagemaker.source_bundle`) and runs where nothing is installed
yet, so it needs the standard library alone, of any Python from 3.9 on.

| the image holds | then |
|---|---|
| this very policylab | nothing is done |
| the same version with other code (an image of one's own) | the bundle's code goes first; nothing is installed |
| anything else (AWS's PyTorch images) | the bundle's code goes first; pip installs what it requires |

Process 1 stays Python throughout: the last step replaces this program instead of starting another.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NoReturn

BUNDLE, SOURCE, MODULES = "bundle.json", "policylab.zip", "modules.zip"
REQUIREMENTS, CONSTRAINTS = "requirements.txt", "constraints.txt"
PIP = ("-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--root-user-action=ignore")
UNPACKED = "POLICYLAB_UNPACKED"
"""Environment variable with the temporary folders of the bundle's code, which the container removes at its end."""

KEPT_LINES = 12
MAX_FAILURE = 1000
"""Characters of the failure file: the service takes the first 1024."""

SKIPPED_FOLDERS = {"__pycache__", "node_modules", "runs", "mlruns", "mlartifacts", "venv"}
SKIPPED_SUFFIXES = {".pyc", ".pyo", ".md"}


def source_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield path below ``folder`` and place of every file that travels: no bytecode, hidden files or environments."""
    for parent, folders, names in os.walk(folder, followlinks=True):
        kept = (name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        folders[:] = sorted(name for name in kept if not (Path(parent) / name / "pyvenv.cfg").exists())
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix not in SKIPPED_SUFFIXES:
                path = Path(parent) / name
                yield path.relative_to(folder).as_posix(), path


def source_digest(folder: Path) -> str:
    """Return the sha256 of names and contents of a package's files."""
    digest = hashlib.sha256()
    for name, path in sorted(source_files(folder)):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def main() -> NoReturn:
    """Prepare, then become the container's program; a failure leaves the failure file and exit code 1."""
    signal.signal(signal.SIGTERM, _stopped)
    here = Path(__file__).resolve().parent
    try:
        paths = prepare(here)
    except Exception as error:  # whatever it is, the job must say so
        _fail(f"{type(error).__name__}: {error}")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    os.environ[UNPACKED] = os.pathsep.join(paths)
    # The toolkit of AWS's images passes hyperparameters as arguments; the container reads them from their file.
    described = os.environ.get("POLICYLAB_PROCESS")
    command = ["process", described] if described else ["container"]
    if not described:  # process 1 gets no signal it has no handler for: one that comes now waits for the container's
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.execv(sys.executable, [sys.executable, "-m", "policylab", *command])


def prepare(bundle: Path) -> list[str]:
    """Return the folders to put in front of the import path; install what is missing.

    Raises:
        RuntimeError: pip could not install the requirements.
        OSError, ValueError, KeyError: the bundle is damaged.
    """
    facts = json.loads((bundle / BUNDLE).read_text())
    paths = []
    if (bundle / MODULES).exists():
        paths.append(_unpacked(bundle / MODULES))
    held = _installed()
    if held is not None and source_digest(held) == facts["source"]:
        _say(f"the image holds this policylab {facts['version']}: nothing to install")
        return paths
    paths.append(_unpacked(bundle / SOURCE))
    if held is not None and _version() == facts["version"]:
        _say(f"the image holds policylab {facts['version']}: the bundle's code runs with what is installed")
    else:
        _say(f"installing what policylab {facts['version']} requires")
        _pip(["--constraint", str(bundle / CONSTRAINTS), "--requirement", str(bundle / REQUIREMENTS)])
    return paths


def _installed() -> Path | None:
    """Return the folder of the policylab that would be imported, without importing it."""
    spec = importlib.util.find_spec("policylab")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _version() -> str | None:
    try:
        return metadata.version("policylab")
    except metadata.PackageNotFoundError:
        return None


def _unpacked(archive: Path) -> str:
    folder = tempfile.mkdtemp(prefix=f"policylab-{archive.stem}-")
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def _pip(arguments: list[str]) -> None:
    """Run pip, showing what it prints.

    Raises:
        RuntimeError: it failed; the message ends with its last lines.
    """
    command = [sys.executable, *PIP, *arguments]
    last: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                sys.stdout.write(line)
                last = [*last, line.strip()][-KEPT_LINES:]
        except BaseException:
            process.kill()
            raise
    sys.stdout.flush()
    if process.returncode:
        errors = [line for line in last if line.startswith("ERROR")] or last
        raise RuntimeError(
            "pip could not install what policylab requires (without a way out of the container, use an image that "
            f"holds policylab): {' '.join(errors)}"
        )


def _say(text: str) -> None:
    sys.stdout.write(f"bootstrap: {text}\n")
    sys.stdout.flush()


def _fail(cause: str) -> NoReturn:
    sys.stderr.write(f"bootstrap: {cause}\n")
    failure = Path(os.environ.get("POLICYLAB_ML_ROOT", "/opt/ml")) / "output" / "failure"
    try:
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(f"bootstrap failed: {cause}"[:MAX_FAILURE])
    except OSError as error:
        sys.stderr.write(f"bootstrap: {failure}: {error}\n")
    sys.exit(1)


def _stopped(signum: int, frame: object, /) -> NoReturn:
    """Leave at once: nothing has begun that could be saved."""
    _say("stopped before the run began")
    sys.exit(0)


if __name__ == "__main__":
    main()
