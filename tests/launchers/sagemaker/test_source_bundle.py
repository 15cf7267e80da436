"""The source bundle: the same bytes for the same code, only what belongs, and a bootstrap that installs it."""

import ensurepip
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import psutil
import pytest

import policylab
from policylab.errors import UserError
from policylab.launchers.sagemaker import source_bundle
from policylab.launchers.sagemaker.bootstrap import source_digest
from policylab.launchers.sagemaker.source_bundle import build

PACKAGE = Path(policylab.__file__).parent
WRITE = """
import pathlib, sys
from policylab.launchers.sagemaker.source_bundle import build
sys.path.insert(0, sys.argv[2])
build(extras=["rllib"]).write(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def bundle():
    return build(extras=["rllib"])


def names(content):
    return zipfile.ZipFile(io.BytesIO(content)).namelist()


def parts(files):
    """Return every file with its content, those of archives one by one, so that a difference is told by its name."""
    found = {}
    for name, content in files.items():
        if not name.endswith(".zip"):
            found[name] = content
            continue
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found |= {f"{name}/{one}": archive.read(one) for one in archive.namelist()}
    return found


def test_equal_code_has_equal_bytes_in_every_process(bundle, tmp_path):
    """Also in one that has imported ray, which puts copies of other distributions on the path."""
    copy = tmp_path / "thirdparty_files" / "aiohttp-0.1.dist-info"
    copy.mkdir(parents=True)
    (copy / "METADATA").write_text("Metadata-Version: 2.1\nName: aiohttp\nVersion: 0.1\n")
    here = parts(bundle.files)
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", WRITE, str(tmp_path / seed), str(copy.parent) if seed == "1" else ""]
        subprocess.run(command, env=environment, check=True)
        files = {path.name: path.read_bytes() for path in (tmp_path / seed).iterdir()}
        there = parts(files)
        assert {name for name in here.keys() | there.keys() if here.get(name) != there.get(name)} == set()
        assert files == bundle.files


def test_a_change_of_code_changes_the_hash_and_bytecode_does_not(bundle, tmp_path):
    (tmp_path / "mine.py").write_text("x = 1\n")
    first = build(include=[tmp_path / "mine.py"])
    os.utime(tmp_path / "mine.py", (1, 1))
    assert build(include=[tmp_path / "mine.py"]) == first
    (tmp_path / "mine.py").write_text("x = 2\n")
    assert build(include=[tmp_path / "mine.py"]).hash != first.hash
    assert bundle.hash != first.hash


def test_the_package_travels_whole_and_alone(bundle):
    found = names(bundle.files["policylab.zip"])
    assert {"policylab/cli/main.py", "policylab/py.typed", "policylab/launchers/sagemaker/prices.yaml"} <= set(found)
    assert f"policylab-{policylab.__version__}.dist-info/METADATA" in found
    assert [name for name in found if "__pycache__" in name or name.endswith(".pyc")] == []
    assert "modules.zip" not in bundle.files


def test_what_does_not_belong_stays_behind(tmp_path):
    mine = tmp_path / "mine"
    for name in ("__init__.py", "data.json", "__pycache__/x.pyc", "runs/old/run.json", ".git/config", ".venv/x.py",
                 "environment/pyvenv.cfg", "environment/lib/x.py", "inner/__init__.py"):  # fmt: skip
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("x")
    found = names(build(include=[mine]).files["modules.zip"])
    assert sorted(found) == ["mine/__init__.py", "mine/data.json", "mine/inner/__init__.py"]


def test_constraints_hold_what_is_installed_but_leave_torch_to_the_image(bundle):
    constraints = bundle.files["constraints.txt"].decode().splitlines()
    assert all("==" in line and "+" not in line for line in constraints)
    pinned = {line.partition("==")[0] for line in constraints}
    assert {"numpy", "pydantic", "gymnasium", "numba", "llvmlite"} <= pinned
    assert not pinned & {"torch", "triton", "policylab", "pytest", "ruff"}
    assert "torch>=2.6" in bundle.files["requirements.txt"].decode().splitlines()


def test_requirements_are_those_of_the_extras(bundle):
    plain, deep = (item.files["requirements.txt"].decode() for item in (build(), bundle))
    assert "ray" not in plain
    assert "ray[rllib]" in deep
    assert build(extras=["all"]).files["requirements.txt"].decode().count("policylab") == 0


def test_wrong_input_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="policylab has no extra 'rlib'; it has"):
        build(extras=["rlib"])
    with pytest.raises(UserError, match=r"include: .*absent: no such file or folder"):
        build(include=[tmp_path / "absent"])
    for name in ("a/same.py", "b/same.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"two paths are named 'same\.py'"):
        build(include=[tmp_path / "a/same.py", tmp_path / "b/same.py"])
    monkeypatch.setattr(source_bundle, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"more than 1,000; .* largest of your files is same\.py"):
        build(include=[tmp_path / "a/same.py"])


def start(bundle, folder, **environment):
    """Run the bundle's bootstrap with this Python, in a training container without a resourceconfig.json."""
    bundle.write(folder / "code")
    return subprocess.run(
        [sys.executable, "bootstrap.py"],
        cwd=folder / "code",
        env={**os.environ, "POLICYLAB_ML_ROOT": str(folder / "ml"), "TMPDIR": str(folder), **environment},
        capture_output=True,
        text=True,
    )


def test_an_image_with_this_very_policylab_needs_nothing(tmp_path):
    (tmp_path / "mine.py").write_text("")
    done = start(build(include=[tmp_path / "mine.py"]), tmp_path, PYTHONPATH=str(PACKAGE.parent))
    assert "nothing to install" in done.stdout
    assert done.returncode == 2, "it became the container, which misses resourceconfig.json"
    assert "resourceconfig.json: missing" in (tmp_path / "ml/output/failure").read_text()
    assert list(tmp_path.glob("policylab-*")) == [], "what was unpacked is gone"


def test_an_image_with_other_code_of_this_version_runs_the_bundles(bundle, tmp_path):
    image = tmp_path / "image"
    with zipfile.ZipFile(io.BytesIO(bundle.files["policylab.zip"])) as archive:
        archive.extractall(image)
    shutil.rmtree(image / "policylab" / "launchers" / "sagemaker" / "container")
    done = start(bundle, tmp_path, PYTHONPATH=str(image))
    assert "the bundle's code runs with what is installed" in done.stdout
    assert done.returncode == 2
    assert "resourceconfig.json: missing" in (tmp_path / "ml/output/failure").read_text()


def test_a_stop_between_bootstrap_and_container_is_kept_for_the_container(bundle, tmp_path):
    """Process 1 never gets a signal that it has no handler for: here it is pending when the container begins."""
    bundle.write(tmp_path)
    code = (
        "import bootstrap, os, signal\n"
        "bootstrap.os.execv = lambda path, words: (os.kill(os.getpid(), signal.SIGTERM), real(path, words))\n"
    )
    code = "import os\nreal = os.execv\n" + code + "bootstrap.main()\n"
    spec = tmp_path / "ml" / "input" / "config"
    spec.mkdir(parents=True)
    (spec / "resourceconfig.json").write_text('{"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]}')
    environment = {**os.environ, "POLICYLAB_ML_ROOT": str(tmp_path / "ml"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "stopped before the head was there" in done.stdout


def test_the_digest_is_that_of_an_installed_copy(bundle, tmp_path):
    with zipfile.ZipFile(io.BytesIO(bundle.files["policylab.zip"])) as archive:
        archive.extractall(tmp_path)
    assert source_digest(tmp_path / "policylab") == json.loads(bundle.files["bundle.json"])["source"]


def wheel(folder, version):
    """Write a wheel of an empty distribution."""
    info = f"trifle-{version}.dist-info"
    with zipfile.ZipFile(folder / f"trifle-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr("trifle.py", f"version = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: trifle\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A Python without policylab and all that it needs, as in an image of AWS's."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def bare_environment(tmp_path_factory):
    """Of a bare Python, which finds the pip that every Python carries with it."""
    folder = tmp_path_factory.mktemp("pip")
    (wheel,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder), "PIP_CONFIG_FILE": os.devnull}


def prepare(python, code, **environment):
    command = "import pathlib, bootstrap; paths = bootstrap.prepare(pathlib.Path('.')); print(*paths, sep='\\n')"
    environment["TMPDIR"] = str(code)
    return subprocess.run([python, "-c", command], cwd=code, env=environment, capture_output=True, text=True)


def test_an_image_without_policylab_gets_what_it_requires_in_the_versions_of_the_constraints(
    bundle, bare_python, bare_environment, tmp_path
):
    code, wheels = tmp_path / "code", tmp_path / "wheels"
    bundle.write(code)
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        wheel(wheels, version)
    (code / "requirements.txt").write_text("trifle>=1\n")
    (code / "constraints.txt").write_text("trifle==1.0\n")
    environment = {**bare_environment, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    done = prepare(bare_python, code, **environment)
    assert done.returncode == 0, done.stderr
    found = subprocess.run([bare_python, "-c", "import trifle; print(trifle.version)"], capture_output=True, text=True)
    assert found.stdout.strip() == "1.0"
    (unpacked,) = (Path(line) for line in done.stdout.splitlines() if line.startswith(str(code)))
    assert (unpacked / "policylab" / "cli" / "main.py").exists()

    (code / "requirements.txt").write_text("nowhere\n")
    failed = prepare(bare_python, code, **environment)
    assert "pip could not install what policylab requires" in failed.stderr
    assert "No matching distribution found for nowhere" in failed.stderr


def test_a_stop_while_pip_waits_for_the_index_ends_both(bundle, bare_python, bare_environment, tmp_path):
    bundle.write(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        environment = {**bare_environment, "PIP_INDEX_URL": index, "TMPDIR": str(tmp_path)}
        process = subprocess.Popen(
            [bare_python, "bootstrap.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        connection, _ = silent.accept()  # pip asks
        (pip,) = psutil.Process(process.pid).children()
        process.terminate()
        out, _ = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == 0
    assert "stopped before the run began" in out
    assert not pip.is_running()


def test_a_damaged_bundle_leaves_the_failure_file(bundle, tmp_path):
    bundle.write(tmp_path / "code")
    (tmp_path / "code" / "bundle.json").write_text("{")
    environment = {**os.environ, "POLICYLAB_ML_ROOT": str(tmp_path)}
    done = subprocess.run([sys.executable, "code/bootstrap.py"], cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 1
    assert (tmp_path / "output" / "failure").read_text().startswith("bootstrap failed: JSONDecodeError")


def test_the_image_of_ones_own_starts_the_bundle_in_the_first_process(tmp_path):
    """The Dockerfile writes the program `train`; the shell that it begins as must be gone when Python runs."""
    text = (Path(__file__).parents[3] / "Dockerfile").read_text()
    writes = re.search(r"RUN (printf .*?)\n\n", text, flags=re.DOTALL)[1].replace("\\\n", " ")
    train, code = tmp_path / "train", tmp_path / "ml" / "input" / "data" / "code"
    writes = writes.replace("/usr/local/bin/train", str(train)).replace("/opt/ml", str(tmp_path / "ml"))
    subprocess.run(["sh", "-c", writes], check=True)
    code.mkdir(parents=True)
    (code / "bootstrap.py").write_text("import os\nprint(os.getpid(), os.getcwd())\n")
    process = subprocess.Popen([train], stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].split() == [str(process.pid), str(code)]
