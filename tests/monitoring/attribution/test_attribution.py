"""Shapley values of games with known ones, nDCG of the guide, and rankings that drift or do not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score

from policylab.agents import Bundle, Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import AutoFeatures, BinsFeatures
from policylab.cli import main
from policylab.errors import UserError
from policylab.monitoring.attribution import shapley
from policylab.monitoring.attribution.drift import attribution_drift
from policylab.monitoring.attribution.ranking import ndcg
from policylab.monitoring.attribution.shapley import shapley_of_game, shapley_values

Floats = NDArray[np.float64]


def test_the_airport_game() -> None:
    # Littlechild and Owen, Management Science 20 (1973): runways of cost 1, 2 and 3 are shared as
    # 1/3, 1/3 + 1/2, 1/3 + 1/2 + 1.
    cost = [max([0, *(i + 1 for i in range(3) if coalition >> i & 1)]) for coalition in range(8)]
    assert shapley_of_game(np.array(cost, dtype=float)) == pytest.approx([1 / 3, 5 / 6, 11 / 6])


def linear(x: Floats) -> Floats:
    return np.stack([x @ np.arange(1.0, x.shape[1] + 1), -x[:, 0]], axis=1)


@pytest.mark.parametrize("n_features", [3, 14])  # all coalitions, and drawn orders
def test_a_linear_function_is_explained_exactly_by_either_way(n_features: int) -> None:
    rng = np.random.default_rng(0)
    x, background = rng.normal(size=(5, n_features)), np.tile(rng.normal(size=n_features), (4, 1))
    found = shapley_values(linear, x, background=background, rng=rng)
    expected = np.arange(1.0, n_features + 1) * (x - background[0])
    assert found[:, :, 0] == pytest.approx(expected)
    assert found[:, 0, 1] == pytest.approx(-(x[:, 0] - background[0, 0]))
    assert found[:, 1:, 1] == pytest.approx(0.0)


def interacting(x: Floats) -> Floats:
    return (x[:, 0] * x[:, 1] + np.sin(x[:, 2]) + x[:, 3] * (x[:, 0] > 0))[:, None]


def test_values_add_up_to_the_output() -> None:
    rng = np.random.default_rng(1)
    x, background = rng.normal(size=(6, 4)), rng.normal(size=(20, 4))
    found = shapley_values(interacting, x, background=background, rng=rng)
    assert found.sum(axis=1) == pytest.approx(interacting(x) - interacting(background).mean(axis=0))


def test_drawn_orders_estimate_the_exact_values_without_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    x, background = rng.normal(size=(1, 4)), rng.normal(size=(20, 4))
    exact = shapley_values(interacting, x, background=background, rng=rng)[0, :, 0]
    monkeypatch.setattr(shapley, "MAX_EVALUATIONS", 0)
    drawn = np.array([
        shapley_values(interacting, x, background=background, rng=np.random.default_rng(seed))[0, :, 0]
        for seed in range(50)
    ])  # fmt: skip
    error = drawn.std(axis=0) / np.sqrt(50)
    assert (np.abs(drawn.mean(axis=0) - exact) < 4 * error + 1e-12).all()


def test_ndcg_of_the_guide() -> None:
    value = ndcg(np.array([0.70, 0.50, 0.05]), np.array([0.10, 0.20, 0.70]))
    assert value == pytest.approx(0.687639624122622, abs=1e-15)
    assert ndcg(np.array([0.7, 0.5, 0.05]), np.array([3.0, 2.0, 1.0])) == 1.0


def test_ndcg_is_scikit_learns_with_ties_too() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        then, now = rng.random(6), rng.integers(0, 4, 6).astype(float)
        assert ndcg(then, now) == pytest.approx(ndcg_score([then], [now]))
    assert ndcg(np.zeros(3), np.zeros(3)) == 1.0
    assert ndcg(np.zeros(3), np.ones(3)) == 0.0


# ------------------------------------------------------------------ policies


@pytest.fixture
def policies(tmp_path: Path) -> SimpleNamespace:
    """CartPole policies over bins that look at the pole (features 2 and 3), or at the cart (0 and 1)."""
    env = gym.make("CartPole-v1")
    features = BinsFeatures(n_bins=6, low=(-2.4, -3.0, -0.2, -3.0), high=(2.4, 3.0, 0.2, 3.0))
    encoder = make_encoder(features, env.observation_space)
    centres = np.stack(np.meshgrid(*[np.linspace(-1, 1, 6)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)

    def bundle(name: str, weights: list[float]) -> Bundle:
        lean = centres @ weights
        policy = TabularPolicy(np.stack([-lean, lean], axis=1), encoder)
        return write_bundle(tmp_path / name, policy, env=env, lineage=Lineage(), metrics={})

    return SimpleNamespace(
        pole=bundle("pole", [0.1, 0.1, 2.0, 1.0]), cart=bundle("cart", [2.0, 1.0, 0.1, 0.1]), folder=tmp_path
    )


def observations(seed: int, n: int = 500) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, 4)).astype(np.float32) * np.array([2.4, 3.0, 0.2, 3.0], dtype=np.float32)


def test_the_same_policy_and_observations_have_not_drifted(policies: SimpleNamespace) -> None:
    found = attribution_drift(policies.pole, baseline=observations(0), window=observations(1))
    assert [output.label for output in found] == ["label0", "label1"]
    for output in found:
        assert not output.drifted
        assert output.ndcg.value > 0.99
        assert np.argmax(output.baseline) == 2


def test_a_policy_that_looks_elsewhere_has_drifted(policies: SimpleNamespace) -> None:
    found = attribution_drift(policies.cart, baseline=observations(0), window=observations(1), then=policies.pole)
    assert all(output.drifted for output in found)
    assert all(np.argmax(output.window) == 0 for output in found)


def test_what_has_no_features_is_refused(policies: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two features"):
        attribution_drift(policies.pole, baseline=np.zeros(5), window=np.zeros(5))
    env = gym.make("FrozenLake-v1")
    encoder = make_encoder(AutoFeatures(), env.observation_space)
    lake = write_bundle(
        tmp_path / "lake", TabularPolicy(np.zeros((16, 4)), encoder), env=env, lineage=Lineage(), metrics={}
    )
    with pytest.raises(UserError, match="a list of numbers; those of this policy are Discrete"):
        attribution_drift(lake, baseline=np.zeros((5, 2)), window=np.zeros((5, 2)))


def test_the_command(
    policies: SimpleNamespace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for name, seed in (("then", 0), ("now", 1)):
        flat = pa.FixedSizeListArray.from_arrays(pa.array(observations(seed).ravel()), 4)
        n = len(flat)
        columns = {"episode_id": np.arange(n), "t": np.zeros(n, int), "obs": flat, "action": np.zeros(n, int),
                   "reward": np.zeros(n), "next_obs": flat, "terminated": np.ones(n, bool),
                   "truncated": np.zeros(n, bool)}  # fmt: skip
        pq.write_table(pa.table(columns), policies.folder / f"{name}.parquet")
    then, now = (str(policies.folder / f"{name}.parquet") for name in ("then", "now"))
    pole, cart = (str(policies.folder / name) for name in ("pole", "cart"))
    assert main(["monitor", "attribution", pole, then, now]) == 0
    assert "DRIFT" not in capsys.readouterr().out
    out = policies.folder / "out"
    assert main(["monitor", "attribution", cart, then, now, "--then", pole, "--out", str(out), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["outputs"]) == 2
    violation = json.loads((out / "constraint_violations.json").read_text())["violations"][0]
    assert (violation["label"], violation["metric_name"]) == ("label0", "shap")
    assert violation["description"].endswith("exceeds threshold 0.9")
