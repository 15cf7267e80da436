"""Edge folders: run without policylab, or compiled, they act as the bundle does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from tests.deployment.conftest import LINEAGE, lake_bundle
from tests.deployment.networks import dense_network

from policylab.agents.action_distributions import Categorical, Gaussian, QValues
from policylab.agents.bundle import Bundle, load_bundle, write_bundle
from policylab.agents.features import AutoFeatures, BinsFeatures, make_encoder
from policylab.agents.tree_policy import TreePolicy, TreeSettings
from policylab.agents.value_policies import TabularPolicy
from policylab.cli.main import main
from policylab.deployment.optimization.edge import edge_folder
from policylab.deployment.optimization.regression_tree import grow
from policylab.errors import UserError
from policylab.seeding import generator

CC = shutil.which("cc")
needs_compiler = pytest.mark.skipif(CC is None, reason="no C compiler")
N_RANDOM = 10_000


def compiled(bundle: Bundle, folder: Path) -> Path:
    """Write, compile and test the C form of a bundle's policy; return the program."""
    assert edge_folder(bundle, folder) == ["policy.h", "test_policy.c"]
    strict = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([str(CC), *strict, "-o", "test_policy", "test_policy.c"], cwd=folder, check=True, timeout=120)
    tested = subprocess.run([folder / "test_policy"], capture_output=True, text=True, check=False, timeout=60)
    n = len(bundle.manifest.golden)
    assert (tested.returncode, tested.stdout) == (0, f"{n} of {n} recorded answers reproduced\n")
    return folder / "test_policy"


def answers(program: Path, observations: Any) -> list[int]:
    text = "\n".join(" ".join(f"{number:.17g}" for number in np.ravel(one).tolist()) for one in observations)
    found = subprocess.run([program, "-"], input=text, capture_output=True, text=True, check=True, timeout=60)
    return [int(line) for line in found.stdout.split()]


@needs_compiler
def test_a_compiled_table_acts_as_the_table_in_every_state(tmp_path: Path) -> None:
    bundle = load_bundle(lake_bundle(tmp_path / "b"))
    program = compiled(bundle, tmp_path / "edge")
    assert answers(program, range(16)) == [bundle.policy.act(state) for state in range(16)]
    nothing = -(2**31)
    assert answers(program, [-1, 16, 2.5, np.nan, np.inf, -np.inf, 1e300]) == [nothing] * 7


@needs_compiler
def test_a_compiled_table_of_several_components_counts_them_alike(tmp_path: Path) -> None:
    env = gym.make("Blackjack-v1")
    encoder = make_encoder(AutoFeatures(), env.observation_space)
    policy = TabularPolicy(generator(0, "values").normal(size=(encoder.n_features, 2)), encoder)
    bundle = write_bundle(tmp_path / "b", policy, env=env, lineage=LINEAGE, metrics={})
    assert isinstance(env.observation_space, spaces.Tuple)
    sizes = [int(part.n) for part in env.observation_space.spaces]  # type: ignore[attr-defined]
    states = [tuple(map(int, index)) for index in np.ndindex(*sizes)]
    assert answers(compiled(bundle, tmp_path / "edge"), states) == [policy.act(state) for state in states]


@needs_compiler
def test_a_compiled_tree_acts_as_the_tree_on_random_observations_and_on_its_thresholds(tmp_path: Path) -> None:
    rng = generator(0, "tree")
    x = rng.normal(size=(4_000, 4)).astype(np.float32).astype(np.float64)
    y = np.eye(3)[(np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] > 0).astype(int) + (x[:, 3] > 1)]
    settings = TreeSettings(n_features=4, distribution=QValues(n_actions=3, first_action=-1))
    policy = TreePolicy(grow(x, y, depth=10), settings)
    assert policy.n_leaves > 50
    env: Any = gym.make("CartPole-v1")
    env.action_space = spaces.Discrete(3, start=-1)
    env.step = lambda action: (env.observation_space.sample(), 0.0, True, False, {})
    bundle = write_bundle(tmp_path / "b", policy, env=env, lineage=LINEAGE, metrics={})
    program = compiled(bundle, tmp_path / "edge")
    random = rng.normal(size=(N_RANDOM, 4)).astype(np.float32)
    assert answers(program, random) == policy.act_batch(random).tolist()
    edges = np.repeat(policy.arrays()["threshold"][:, None], 4, axis=1)
    nasty = np.concatenate([edges, np.nextafter(edges, np.inf), [[np.nan] * 4, [np.inf] * 4, [-np.inf] * 4]])
    assert answers(program, nasty) == policy.act_batch(nasty).tolist()


@pytest.mark.parametrize(
    ("env_id", "sizes", "distribution"),
    [
        ("CartPole-v1", (4, 16, 2), Categorical(n_actions=2)),
        ("Pendulum-v1", (3, 16, 2), Gaussian(n_components=1, low=(-2.0,), high=(2.0,), rescale=True)),
    ],
)
def test_a_network_runs_without_policylab(env_id: str, sizes: Any, distribution: Any, tmp_path: Path) -> None:
    policy = dense_network(sizes, distribution)
    bundle = write_bundle(tmp_path / "b", policy, env=gym.make(env_id), lineage=LINEAGE, metrics={})
    edge_folder(bundle, tmp_path / "edge")
    observations = generator(1, "edge").normal(size=(50, sizes[0])).astype(np.float32)
    text = "\n".join(json.dumps(row) for row in observations.tolist())

    guard = "import runpy, sys; sys.modules['policylab'] = None; sys.modules['gymnasium'] = None; "
    guard += "sys.argv = ['run.py', *sys.argv[1:]]; runpy.run_path('run.py', run_name='__main__')"
    command = [sys.executable, "-c", guard]
    tested = subprocess.run(
        [*command, "--self-test"], cwd=tmp_path / "edge", capture_output=True, text=True, check=False, timeout=120
    )
    n = len(bundle.manifest.golden)
    assert (tested.returncode, tested.stdout) == (0, f"{n} of {n} recorded answers reproduced\n"), tested.stderr
    found = subprocess.run(
        command, cwd=tmp_path / "edge", input=text, capture_output=True, text=True, check=True, timeout=120
    )
    actions = [json.loads(line) for line in found.stdout.splitlines()]
    assert np.array(actions) == pytest.approx(policy.act_batch(observations), abs=1e-4)


def test_an_altered_network_fails_its_self_test(tmp_path: Path) -> None:
    policy = dense_network((4, 16, 2), Categorical(n_actions=2))
    bundle = write_bundle(tmp_path / "b", policy, env=gym.make("CartPole-v1"), lineage=LINEAGE, metrics={})
    edge_folder(bundle, tmp_path / "edge")
    facts = json.loads((tmp_path / "edge" / "policy.json").read_text())
    facts["golden"][0][1] = 1 - facts["golden"][0][1]
    (tmp_path / "edge" / "policy.json").write_text(json.dumps(facts))
    command = [sys.executable, "run.py", "--self-test"]
    tested = subprocess.run(command, cwd=tmp_path / "edge", capture_output=True, text=True, check=False, timeout=120)
    assert tested.returncode == 1


def test_what_has_no_edge_form_is_refused_and_other_files_are_kept(tmp_path: Path) -> None:
    env = gym.make("CartPole-v1")
    bins = BinsFeatures(n_bins=2, low=(-1, -1, -1, -1), high=(1, 1, 1, 1))
    encoder = make_encoder(bins, env.observation_space)
    policy = TabularPolicy(np.zeros((16, 2)), encoder)
    bundle = write_bundle(tmp_path / "b", policy, env=env, lineage=LINEAGE, metrics={})
    with pytest.raises(UserError, match=r"features 'bins'; make a tree of it first: policylab policy optimize"):
        edge_folder(bundle, tmp_path / "edge")
    (tmp_path / "edge").mkdir(exist_ok=True)
    (tmp_path / "edge" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match=r"holds 'mine\.txt', which is no part of an edge folder"):
        edge_folder(load_bundle(lake_bundle(tmp_path / "t")), tmp_path / "edge")


def test_the_command_names_the_files_and_their_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake_bundle(tmp_path / "b")
    assert main(["policy", "edge", str(tmp_path / "b"), "--out", str(tmp_path / "edge"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == ["policy.h", "test_policy.c"]
    assert document["test"].startswith("cc -std=c99")
