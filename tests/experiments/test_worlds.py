"""The shipped experiments on environments of other packages: planned, rules beside them, or how to install them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from policylab.envs.baselines import baseline_names
from policylab.envs.make import resolve
from policylab.envs.optional import PROVIDERS
from policylab.experiments.plan import plan
from policylab.experiments.schema import find_config, load_experiment

EXTRA_OF = {
    "energyplus_ppo": "energyplus",
    "lunarlander_ppo": "box2d",
    "reacher_ppo": "mujoco",
    "halfcheetah_ppo": "mujoco",
    "fetch_sac": "robotics",
    "highway_dqn": "driving",
    "mspacman_ppo": "atari",
    "doorkey_ppo": "minigrid",
}


def test_every_extra_has_an_experiment() -> None:
    assert set(EXTRA_OF.values()) == set(PROVIDERS)


@pytest.mark.parametrize("name", EXTRA_OF)
def test_it_is_planned_with_a_classical_baseline_beside_it(name: str) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("torch")
    provider = PROVIDERS[EXTRA_OF[name]]
    if not provider.installed:
        pytest.skip(f"needs {provider.install}")
    config = load_experiment(name)
    document = plan(config)
    assert document["evaluation"] == "rollout"
    assert baseline_names(resolve(config.env).id)
    assert [text for text in document["warnings"] if not text.startswith("seeds.")] == []


@pytest.mark.parametrize("name", EXTRA_OF)
def test_it_says_what_it_reaches_and_what_it_would_take(name: str) -> None:
    text = find_config(name).read_text()
    comment = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))
    assert re.search(rf"extra {EXTRA_OF[name]}; .*minutes on 2 cores", load_experiment(name).description)
    assert re.search(r"earns (within|-?[\d.]+)", comment), "what it reaches"
    assert re.search(r"[\d,]+ (million )?steps", comment), "a real budget"


def test_without_its_package_a_run_says_what_to_install(tmp_path: Path) -> None:
    """All packages hidden, in a process of its own."""
    modules = [provider.module for provider in PROVIDERS.values()]
    code = f"""
import contextlib, io, json, sys
for name in {modules!r} + ["pyenergyplus.dataset"]:
    sys.modules[name] = None
from policylab.cli import main
found = {{}}
for name in {list(EXTRA_OF)!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["run", name])
    found[name] = [code, said.getvalue()]
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    for name, (code, said) in json.loads(done.stdout).items():
        assert code == 2, said
        assert said.count("\n") == 1, said
        assert f"install it with: pip install 'policylab[{EXTRA_OF[name]}]'" in said
    assert list(tmp_path.iterdir()) == [], "nothing was begun"
