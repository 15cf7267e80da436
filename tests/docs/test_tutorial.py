"""Every command and every piece of Python in the documentation, and the README's example, works as typed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    for language, options, body in BLOCK.findall((ROOT / page).read_text()):
        yield language, dict(option.split("=") for option in options.split()), body


def run(command, folder, code):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=180, env={**os.environ, "PATH": path}
    )
    assert done.returncode == code, (command, done.stdout[-1500:], done.stderr[-1500:])
    return done.stdout


@pytest.mark.parametrize(("page", "n_blocks"), [("docs/tutorial.md", 6), ("docs/tuning.md", 6), ("docs/bundles.md", 5)])
def test_a_page_works_as_typed(page, n_blocks, tmp_path):
    ran = 0
    for language, options, body in blocks(page):
        if language == "yaml":
            (tmp_path / options["file"]).write_text(body)
        elif language == "python":
            printed = run([sys.executable, "-c", body], tmp_path, 0)
            for promised in re.findall(r"\)  # (\S+)$", body, re.MULTILINE):
                assert promised in printed
        else:
            for line in body.strip().splitlines():
                run(["bash", "-c", line], tmp_path, int(options.get("exit", 0)))
        ran += 1
    assert ran >= n_blocks


def test_the_experiment_of_the_readme_is_valid(tmp_path):
    from policylab.experiments.schema import load_experiment

    (example,) = [body for language, _, body in blocks("README.md") if language == "yaml"]
    (tmp_path / "example.yaml").write_text(example)
    config = load_experiment(str(tmp_path / "example.yaml"))
    shipped = load_experiment("frozenlake")
    assert config.model_dump(exclude={"description"}) == shipped.model_dump(exclude={"description"})


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), target
