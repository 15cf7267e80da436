"""The Dockerfile, as far as it can be followed without an engine: its context, its installation, its program."""

import fnmatch
import json
import os
import re
import shlex
import shutil
import site
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
CONTEXT = "/tmp/policylab"  # where the image has it


def instructions():
    """Return (instruction, arguments) of the Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def arguments(name):
    return [rest for instruction, rest in instructions() if instruction == name]


def copied(folder):
    """Do what COPY does with the build context: links stay links, .dockerignore is heeded."""
    patterns = (ROOT / ".dockerignore").read_text().split()

    def left_out(parent, names):
        depth = Path(parent).relative_to(ROOT).parts
        heeded = [pattern for pattern in patterns if pattern.startswith("**/") or not depth]
        return {name for pattern in heeded for name in fnmatch.filter(names, pattern.removeprefix("**/"))}

    return shutil.copytree(ROOT, folder, symlinks=True, ignore=left_out)


def step(number, **replaced):
    """Return a RUN instruction as a command for this machine."""
    values = dict(rest.split("=", maxsplit=1) for rest in arguments("ARG"))
    command = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], arguments("RUN")[number])
    for old, new in replaced.items():
        command = command.replace(CONTEXT if old == "context" else old, str(new))
    return command


@pytest.fixture
def context(tmp_path):
    return copied(tmp_path / "context")


@pytest.fixture
def image_python(tmp_path):
    venv.create(tmp_path / "image", with_pip=True)
    return tmp_path / "image" / "bin" / "python3"


def run(command, **environment):
    done = subprocess.run(
        ["sh", "-c", command], env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_instruction_is_one_that_this_file_follows():
    found = [name for name, _ in instructions()]
    assert found == ["ARG", "FROM", "ARG", "ARG", "COPY", "RUN", "RUN", "ENV"]
    assert arguments("COPY") == [f". {CONTEXT}"]
    assert "ENTRYPOINT" not in found, "process 1 must be Python"


def test_the_context_holds_the_code_and_nothing_of_this_machine(context):
    assert (context / "src" / "policylab" / "launchers").is_symlink()
    assert (context / "src" / "policylab" / "launchers" / "sagemaker" / "prices.yaml").exists()
    assert (context / "constraints.txt").exists()
    assert not [path for name in (".git", ".venv", "__pycache__", "mlflow.db") for path in context.rglob(name)]


@pytest.mark.slow
def test_what_the_image_installs_can_be_resolved_at_the_versions_of_the_constraints(context, image_python, tmp_path):
    """pip decides on every package, and builds policylab's own; it downloads none of the large ones."""
    plan = tmp_path / "plan.json"
    first = step(0, python3=image_python, context=context).partition(" && ")[0]
    dry = first.replace(" install ", f" install --dry-run --ignore-installed --report {plan} ", 1)
    try:
        run(dry, HOME=str(tmp_path), PIP_CACHE_DIR=str(tmp_path / "cache"))
    except AssertionError as failed:
        if re.search(r"Temporary failure in name resolution|Network is unreachable|Connection refused", str(failed)):
            pytest.skip("there is no package index here")
        raise
    listed = [line["metadata"] for line in json.loads(plan.read_text())["install"]]
    versions = {re.sub(r"[-_.]+", "-", line["name"]).lower(): line["version"] for line in listed}
    pinned = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    assert {"policylab", "ray", "torch", "onnxruntime", "mlflow"} <= versions.keys()
    shared = versions.keys() & pinned.keys()
    assert len(shared) > 50
    assert {name: versions[name].partition("+")[0] for name in shared} == {name: pinned[name] for name in shared}


@pytest.mark.slow
def test_the_program_of_the_image_executes_a_job(context, image_python, tmp_path, job, spec_of):
    """policylab is installed from the context alone; what it requires is lent by this installation."""
    run(f"{image_python} -m pip install --no-deps --no-input {shlex.quote(str(context))}", HOME=str(tmp_path))
    shutil.rmtree(context)  # as the image's step does
    train = tmp_path / "train"
    run(step(1, **{f"/usr/local/bin/{name}": tmp_path / name for name in ("train", "serve")}, python3=image_python))
    assert "container serve" in (tmp_path / "serve").read_text()
    library = next((image_python.parents[1] / "lib").glob("python*/site-packages"))
    (library / "lent.pth").write_text("\n".join(site.getsitepackages()))
    host = job.host(spec=spec_of())
    environment = {**host.environment, "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run([train], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (host.root / "model" / "manifest.json").exists()
    where = run(f"{image_python} -c 'import policylab; print(policylab.__file__)'", HOME=str(tmp_path))
    assert Path(where.strip()).is_relative_to(library), "not this checkout's"
