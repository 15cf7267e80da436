"""Deep policies behind an endpoint: listed, continuous and multi-discrete actions, bounds, and broken networks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from tests.deployment.conftest import LINEAGE, endpoint, served

from policylab.agents.action_distributions import Categorical, Gaussian, MultiCategorical
from policylab.agents.bundle import load_bundle, write_bundle
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.deployment.capture.reading import read_captured
from policylab.deployment.decision import DecisionRequest, Refusal
from policylab.deployment.fleet import load_fleet
from policylab.errors import UserError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

N_INPUTS = 3


class World(gym.Env[Any, Any]):
    """Observations of three numbers, and any action space."""

    observation_space = spaces.Box(-np.inf, np.inf, (N_INPUTS,), np.float32)

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space

    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        return np.zeros(N_INPUTS, np.float32), {}

    def step(self, action: Any) -> Any:
        return self.np_random.normal(size=N_INPUTS).astype(np.float32), 0.0, False, False, {}


WORLDS: dict[str, tuple[spaces.Space[Any], Any]] = {
    "listed": (spaces.Discrete(4, start=1), Categorical(n_actions=4, first_action=1)),
    "several": (spaces.MultiDiscrete([2, 3]), MultiCategorical(sizes=(2, 3), first_actions=(0, 0))),
    "continuous": (
        spaces.Box(-2.0, 2.0, (2,), np.float32),
        Gaussian(n_components=2, low=(-2.0, -2.0), high=(2.0, 2.0)),
    ),
}


def deep_bundle(folder: Path, kind: str) -> Path:
    action_space, distribution = WORLDS[kind]
    weights = np.random.default_rng(0).normal(size=(N_INPUTS, distribution.n_outputs)).astype(np.float32) / 3
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["observation", "W"], ["outputs"])],
        "policy",
        [helper.make_tensor_value_info("observation", TensorProto.FLOAT, ["n", N_INPUTS])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", distribution.n_outputs])],
        [numpy_helper.from_array(weights, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    settings = OnnxSettings(inputs={"observation": ()}, distribution=distribution)
    gym.register("World-v0", entry_point=lambda: World(action_space), disable_env_checker=True)
    try:
        env = gym.make("World-v0")
        policy = OnnxPolicy(model.SerializeToString(), settings)
        write_bundle(folder, policy, env=env, lineage=LINEAGE, metrics={})
    finally:
        del gym.registry["World-v0"]
    return folder


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("deep")
    return {kind: deep_bundle(folder / kind, kind) for kind in WORLDS}


OBSERVATION = np.array([0.5, -1.0, 2.0], np.float32)


@pytest.mark.parametrize("kind", WORLDS)
@pytest.mark.parametrize("n", [1, 3])
def test_propensities_are_those_of_the_policy(deep: dict[str, Path], kind: str, n: int) -> None:
    policy = load_bundle(deep[kind]).policy
    with served(endpoint({"name": "deep", "bundle": deep[kind]})) as server:
        for i in range(10):
            answer = server.decide(DecisionRequest((OBSERVATION,) * n, inference_id=str(i)))
            assert len(answer.decisions) == n
            for one in answer.decisions:
                assert one.log_propensity == pytest.approx(policy.log_probability(OBSERVATION, one.action), abs=1e-6)
                assert one.propensity_kind == ("density" if kind == "continuous" else "probability")
            assert server.decide(DecisionRequest((OBSERVATION,) * n, inference_id=str(i))) is answer


@pytest.mark.parametrize("kind", WORLDS)
def test_without_exploration_actions_are_certain(deep: dict[str, Path], kind: str) -> None:
    policy = load_bundle(deep[kind]).policy
    with served(endpoint({"name": "deep", "bundle": deep[kind], "exploration": False})) as server:
        decision = server.decide(DecisionRequest((OBSERVATION,))).decisions[0]
    assert np.array_equal(decision.action, policy.act(OBSERVATION))
    assert (decision.propensity, decision.propensity_kind) == (1.0, "probability")


def test_continuous_actions_stay_within_bounds_and_say_how_likely_that_was(
    deep: dict[str, Path], tmp_path: Path
) -> None:
    """Of the clipped components the propensity is the share of draws beyond the bound."""
    config = endpoint(
        {"name": "deep", "bundle": deep["continuous"]},
        shadows=[{"name": "same", "bundle": deep["continuous"]}],
        bounds={"low": -1.5, "high": [-0.5, -0.25]},
        capture={"folder": tmp_path},
    )
    with served(config) as server:
        decisions = [server.decide(DecisionRequest((OBSERVATION,))).decisions[0] for _ in range(3000)]
    actions = np.array([one.action for one in decisions])
    high = np.array([-0.5, -0.25], np.float32)
    assert (actions >= np.float32(-1.5)).all()
    assert (actions <= high).all()
    corner = [one for one in decisions if (one.action == high).all()]
    likely = corner[0].propensity
    assert 0.02 < likely < 0.98
    assert len(corner) / 3000 == pytest.approx(likely, abs=4.5 * math.sqrt(likely * (1.0 - likely) / 3000))
    captured = list(read_captured(tmp_path, endpoint="lake"))
    for one in captured[:50]:  # the shadow is the same policy under the same bounds
        assert one.facts.shadows[0].log_probability == pytest.approx(one.facts.log_propensity, abs=1e-6)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"low": -3.0, "high": 1.0}, "must be narrower than the action space"),
        ({"low": 0.5, "high": 0.5}, "must be narrower"),
        ({"low": [0.0, 0.0, 0.0], "high": 1.0}, "one for each of"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(deep: dict[str, Path], bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_fleet(endpoint({"name": "deep", "bundle": deep["continuous"]}, bounds=bounds))


def test_masks_are_for_listed_actions(deep: dict[str, Path]) -> None:
    mask = np.array([False, True, False, True])
    with served(endpoint({"name": "deep", "bundle": deep["listed"]})) as server:
        decisions = [server.decide(DecisionRequest((OBSERVATION,), (mask,))).decisions[0] for _ in range(50)]
        batch = server.decide(DecisionRequest((OBSERVATION,) * 20, (mask, None) * 10)).decisions
    assert {one.action for one in decisions} == {2, 4}  # actions count from 1
    assert {one.action for one in batch[::2]} <= {2, 4}
    with (
        served(endpoint({"name": "deep", "bundle": deep["continuous"]})) as server,
        pytest.raises(Refusal, match="a policy that chooses from a list"),
    ):
        server.decide(DecisionRequest((OBSERVATION,), (mask,)))


@pytest.mark.parametrize("kind", WORLDS)
def test_a_network_that_computes_no_numbers_is_a_failure(deep: dict[str, Path], kind: str) -> None:
    """The difference of two infinities is none: no action must come of it, and no propensity that is no number."""
    infinite = np.full(N_INPUTS, np.inf, np.float32)
    with served(endpoint({"name": "deep", "bundle": deep[kind]})) as server, np.errstate(all="ignore"):
        with pytest.raises(Refusal, match="the policy of variant 'deep' failed") as refusal:
            server.decide(DecisionRequest((infinite,)))
        assert refusal.value.kind == "failed"
        assert server.fleet.variants["deep"].counts.n_failures == 1
