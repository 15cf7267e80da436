"""Tree policies and their bundles: acting as the tree says, and refusal of arrays that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents import bundle_arrays, tree_policy
from policylab.agents.action_distributions import Categorical, QValues
from policylab.agents.bundle import Lineage, load_bundle, write_bundle
from policylab.agents.policy import policy_from
from policylab.agents.tree_policy import TreePolicy, TreeSettings
from policylab.errors import BundleError, UserError
from policylab.files import content_hash
from policylab.seeding import generator

# x[2] <= 0.0 ? 0 : (x[3] <= 0.5 ? 1 : 0)
ARRAYS: dict[str, Any] = {
    "feature": np.array([2, -1, 3, -1, -1], np.int32),
    "threshold": np.array([0.0, 0.0, 0.5, 0.0, 0.0]),
    "left": np.array([1, -1, 3, -1, -1], np.int32),
    "right": np.array([2, -1, 4, -1, -1], np.int32),
    "outputs": np.array([[0, 0], [1, 0], [0, 0], [0, 1], [3, 1]], np.float32),
}


def tree(**changes: Any) -> TreePolicy:
    return TreePolicy({**ARRAYS, **changes}, TreeSettings(n_features=4, distribution=Categorical(n_actions=2)))


def said(x: Any) -> int:
    return 0 if x[2] <= 0.0 or not x[3] <= 0.5 else 1


def test_a_tree_acts_as_its_comparisons_say_one_by_one_and_in_batches() -> None:
    one = tree()
    batch = generator(0, "observations").normal(size=(500, 4)).astype(np.float32)
    batch[::50, 2], batch[1::50, 3], batch[2::50, 3] = 0.0, 0.5, np.nan
    expected = [said(x) for x in batch]
    assert one.act_batch(batch).tolist() == expected
    assert [one.act(x) for x in batch] == expected
    assert (one.depth, one.n_leaves) == (2, 3)
    assert one.probabilities(batch[0] * 0 - 1) == pytest.approx([np.e / (np.e + 1), 1 / (np.e + 1)])
    assert one.act_batch([]).shape == (0,)


@pytest.mark.parametrize("observation", [[1.0, 2.0], ["a", "b", "c", "d"], None, 3, [[1], [2, 3]]])
def test_an_observation_of_another_shape_is_refused(observation: Any) -> None:
    with pytest.raises(UserError, match="an observation must be 4 numbers, got"):
        tree().act(observation)


def test_a_tree_rebuilt_from_its_parts_is_the_same() -> None:
    config = json.loads(json.dumps(tree().config(), allow_nan=False))
    again = policy_from("tree", config, arrays=tree().arrays())
    assert all(np.array_equal(again.arrays()[name], array) for name, array in ARRAYS.items())


def ints(*numbers: int) -> Any:
    return np.array(numbers, np.int32)


HOSTILE = {
    "cycle": ({"left": ints(1, -1, 0, -1, -1)}, "children of a tree's node stand behind it"),
    "self": ({"left": ints(0, -1, 3, -1, -1)}, "children of a tree's node stand behind it"),
    "child out of range": ({"right": ints(2, -1, 5, -1, -1)}, "children of a tree's node stand behind it"),
    "leaf with a child": ({"right": ints(2, 4, 4, -1, -1)}, "children of a tree's node stand behind it"),
    "negative child": ({"left": ints(-5, -1, 3, -1, -1)}, "children of a tree's node stand behind it"),
    "two parents": ({"left": ints(2, -1, 3, -1, -1)}, "has no parent, or more than one"),
    "feature out of range": ({"feature": ints(4, -1, 3, -1, -1)}, "compares a number that no observation has"),
    "negative feature": ({"feature": ints(-2, -1, 3, -1, -1)}, "compares a number that no observation has"),
    "NaN threshold": ({"threshold": np.array([np.nan, 0, 0, 0, 0])}, "holds NaN or infinity"),
    "NaN output": ({"outputs": np.full((5, 2), np.nan, np.float32)}, "holds NaN or infinity"),
    "ragged": ({"threshold": np.zeros(4)}, "has 1 to 65535 nodes and 2 outputs in each, got shapes"),
    "outputs of other actions": ({"outputs": np.zeros((5, 3), np.float32)}, "2 outputs in each, got shapes"),
    "empty": ({name: array[:0] for name, array in ARRAYS.items()}, "has 1 to 65535 nodes"),
    "of other types": ({"feature": np.zeros(5)}, r"needs the arrays feature.*, got feature \(float64\)"),
    "another array": ({"code": np.zeros(5)}, "needs the arrays feature"),
}


@pytest.mark.parametrize(("changes", "message"), HOSTILE.values(), ids=HOSTILE)
def test_arrays_that_are_no_tree_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tree(**changes)


def test_a_tree_that_is_too_deep_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_policy, "MAX_DEPTH", 1)
    with pytest.raises(UserError, match=r"2 levels deep, above 1; distil it with --depth"):
        tree()


def test_a_bundle_of_a_tree_loads_and_one_with_altered_nodes_does_not(tmp_path: Path) -> None:
    settings = TreeSettings(n_features=4, distribution=QValues(n_actions=2, epsilon=0.1))
    env, lineage = gym.make("CartPole-v1"), Lineage(parent="0" * 64)
    bundle = write_bundle(tmp_path / "b", TreePolicy(ARRAYS, settings), env=env, lineage=lineage, metrics={})
    assert load_bundle(tmp_path / "b").manifest.lineage.parent == "0" * 64
    observation = np.array([0, 0, 1, 0], np.float32)
    assert bundle.policy.act(observation) == 1
    assert np.exp(bundle.policy.log_probability(observation, 1)) == pytest.approx(0.95)

    altered = {**ARRAYS, "left": ints(1, -1, 0, -1, -1)}
    content = bundle_arrays.dump(altered)
    (tmp_path / "b" / "arrays.npz").write_bytes(content)
    _reseal(tmp_path / "b", content)
    with pytest.raises(BundleError, match="children of a tree's node stand behind it"):
        load_bundle(tmp_path / "b")


def _reseal(folder: Path, content: bytes) -> None:
    """Make hashes and digest fit, as one who means harm would."""
    import hashlib

    facts = json.loads((folder / "manifest.json").read_text())
    facts["files"]["arrays.npz"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    facts["digest"] = content_hash({name: value for name, value in facts.items() if name != "digest"})
    (folder / "manifest.json").write_text(json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n")
