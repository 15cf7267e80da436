"""Policies with a memory behind an endpoint: a session remembers its episode, nothing else does.

The network adds up what it has seen, so that what an answer must be is known for any sequence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from tests.deployment.conftest import LINEAGE, endpoint, lake_bundle, running, served

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from tests.deployment.networks import summing_network

from policylab.agents.action_distributions import Categorical, Gaussian
from policylab.agents.bundle import load_bundle, write_bundle
from policylab.agents.recurrent_policy import RecurrentPolicy
from policylab.deployment.batch_transform import BatchTransform
from policylab.deployment.decision import DecisionRequest, Refusal
from policylab.deployment.fleet import load_fleet
from policylab.deployment.http.client import EndpointClient
from policylab.deployment.policy_server import PolicyServer
from policylab.envs.settings import EnvSettings
from policylab.errors import BundleError, UserError
from policylab.experiments.evaluation import RolloutEvaluator
from policylab.experiments.recording import record
from policylab.seeding import generator

LISTED = Categorical(n_actions=2)
TORQUE = Gaussian(n_components=1, dtype="float32", low=(-2.0,), high=(2.0,))
SEQUENCE = generator(0, "sequence").uniform(-0.4, 0.4, size=(20, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("memory")
    for name, env_id, n, distribution in (("pole", "CartPole-v1", 4, LISTED), ("swing", "Pendulum-v1", 3, TORQUE)):
        write_bundle(made / name, summing_network(n, distribution), env=gym.make(env_id), lineage=LINEAGE, metrics={})
    return made


def policy_in(path: Path) -> RecurrentPolicy:
    policy = load_bundle(path, memory=True).policy
    assert isinstance(policy, RecurrentPolicy)
    return policy


@contextlib.contextmanager
def deciding(bundle: Path, **variant: Any) -> Iterator[PolicyServer]:
    with served(endpoint({"name": "main", "bundle": bundle, **variant}), secret=b"s" * 16) as server:
        yield server


def ask(server: PolicyServer, *observations: Any, **fields: Any) -> Any:
    return server.decide(DecisionRequest(observations, **fields)).decisions


def expected(policy: RecurrentPolicy, sequence: Any) -> list[Any]:
    """Return the probability of the second action at each step, by the sums themselves."""
    sums = np.cumsum(sequence.astype(np.float64), axis=0)
    return [float(policy.probabilities(one.astype(np.float32))[1]) for one in sums]


def test_a_session_remembers_and_sessions_do_not_hear_of_each_other(folder: Path) -> None:
    policy = policy_in(folder / "pole")
    sequences = {"a": SEQUENCE, "b": -SEQUENCE[::-1]}
    chances = {session: expected(policy, sequence) for session, sequence in sequences.items()}
    assert not np.allclose(chances["a"], chances["b"], atol=1e-2)
    with deciding(folder / "pole") as server:
        for t in range(len(SEQUENCE)):
            for session, sequence in sequences.items():
                (one,) = ask(server, sequence[t], session_id=session)
                chance = chances[session][t] if one.action == 1 else 1 - chances[session][t]
                assert one.propensity == pytest.approx(chance, abs=1e-5)
                assert one.step == t


def test_without_a_session_every_request_begins_anew(folder: Path) -> None:
    policy = policy_in(folder / "pole")
    with deciding(folder / "pole", exploration=False) as server:
        for observation in SEQUENCE:
            assert [one.action for one in ask(server, observation, observation)] == [policy.act(observation)] * 2


def test_the_observations_of_one_request_are_steps_of_its_session(folder: Path) -> None:
    with deciding(folder / "pole", exploration=False) as server:
        alone = [ask(server, one, session_id="alone")[0].action for one in SEQUENCE]
        batched = [one.action for one in ask(server, *SEQUENCE[:7], session_id="batched")]
        batched += [one.action for one in ask(server, *SEQUENCE[7:], session_id="batched")]
        assert batched == alone
        assert len(set(alone)) == 2
    with deciding(folder / "pole") as server:
        drawn = ask(server, *([SEQUENCE[0] * 0] * 40), session_id="drawn")
        assert {one.action for one in drawn} == {0, 1}, "each step draws for itself"


def test_continuous_actions_remember_too(folder: Path) -> None:
    policy, sequence = policy_in(folder / "swing"), SEQUENCE[:, :3]
    with deciding(folder / "swing", exploration=False) as server:
        actions = [ask(server, one, session_id="a")[0].action for one in sequence]
    assert np.abs(np.array(actions) - policy.act_batch(list(np.cumsum(sequence, axis=0)))).max() < 1e-5


def test_a_retry_is_no_further_step_and_a_closed_session_is_forgotten(folder: Path) -> None:
    with deciding(folder / "pole", exploration=False) as server:
        actions = [ask(server, one, session_id="a")[0].action for one in SEQUENCE]
        again = []
        for i, one in enumerate(SEQUENCE):
            again.append(ask(server, one, session_id="b", inference_id=f"request-{i}")[0].action)
            ask(server, one, session_id="b", inference_id=f"request-{i}")
        assert again == actions
        assert server.close_session("b")
        assert [ask(server, one, session_id="b")[0].action for one in SEQUENCE] == actions


def test_a_request_that_fails_leaves_the_memory_as_it_was(folder: Path) -> None:
    with deciding(folder / "pole", exploration=False) as server:
        actions = []
        for one in SEQUENCE:
            with pytest.raises(Refusal, match="must be float32 of shape"):
                ask(server, np.zeros(3, np.float32), session_id="a")
            actions.append(ask(server, one, session_id="a")[0].action)
        assert actions == [ask(server, one, session_id="b")[0].action for one in SEQUENCE]


def test_two_requests_of_a_session_at_once_are_not_both_answered(folder: Path) -> None:
    with deciding(folder / "pole") as server:
        first, second = (server.begin(DecisionRequest((one,), session_id="a")) for one in SEQUENCE[:2])
        server.finish(first, server.choose(first))  # type: ignore[arg-type]
        with pytest.raises(Refusal, match="send a session's requests one by one") as caught:
            server.finish(second, server.choose(second))  # type: ignore[arg-type]
        assert caught.value.kind == "busy"
        assert ask(server, SEQUENCE[1], session_id="a")


def test_another_policy_of_the_session_begins_anew(folder: Path, tmp_path: Path) -> None:
    """The memory of one network means nothing to another."""
    weak = summing_network(4, Categorical(n_actions=2))
    halved = weak.model.replace(b"policy", b"Policy")  # the graph's name: another policy that decides the same
    other = RecurrentPolicy(halved, weak.settings)
    write_bundle(tmp_path / "other", other, env=gym.make("CartPole-v1"), lineage=LINEAGE, metrics={})
    variants = [{"name": "one", "bundle": folder / "pole"}, {"name": "other", "bundle": tmp_path / "other"}]
    config = endpoint(*({**variant, "exploration": False} for variant in variants))
    policy = policy_in(folder / "pole")
    with served(config) as server:
        for one in SEQUENCE:
            ask(server, one, session_id="a", target_variant="one")
        (found,) = ask(server, SEQUENCE[0], session_id="a", target_variant="other")
    assert found.action == policy.act(SEQUENCE[0])
    assert policy.act(SEQUENCE.sum(axis=0) + SEQUENCE[0]) != found.action, "with the memory it would act otherwise"


def test_over_http_a_session_plays_an_episode_as_the_policy_does_here(folder: Path, tmp_path: Path) -> None:
    steps = policy_in(folder / "pole").after([policy_in(folder / "pole").initial()])
    with running(folder / "pole", "--set", "variants.0.exploration=false", "--workers", "2") as server:
        client = EndpointClient(server.url)
        for observation in SEQUENCE:
            document = {"observation": observation.tolist()}
            answer = client.post("/invocations", document, headers={"X-Amzn-SageMaker-Session-Id": "episode-1"})
            assert answer["action"] == steps.act(observation)


def test_evaluation_and_records_begin_each_episode_without_memory(folder: Path, tmp_path: Path) -> None:
    env, policy = EnvSettings(id="CartPole-v1"), policy_in(folder / "pole")
    evaluator = RolloutEvaluator(env, seed=0)
    together = evaluator.play(policy, numbers=range(20))
    assert together == [evaluator.play(policy, numbers=[i])[0] for i in range(20)]
    pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    bundle = load_bundle(folder / "pole", memory=True)
    rows = parquet.read_table(record(bundle, tmp_path / "record.parquet", episodes=3).path).to_pylist()
    total = np.zeros(4)
    for row in rows:
        total = np.array(row["obs"]) + (total if row["t"] else 0.0)
        chances = policy.probabilities(total.astype(np.float32))
        assert row["propensity"] == pytest.approx(float(chances[row["action"]]), abs=1e-5)


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"shadows": [{"name": "next", "bundle": "pole"}]}, "shadows"),
        ({"serverless": {}}, "serverless"),
        (
            {"guardrail": {"promotion": {"reward_low": 0.0, "reward_high": 1.0, "before_acting": True}}},
            "guardrail.promotion.before_acting",
        ),
    ],
)
def test_what_follows_no_sessions_is_refused(folder: Path, sections: dict[str, Any], named: str) -> None:
    given = {name: [{**one, "bundle": folder / one["bundle"]} for one in value] if name == "shadows" else value
             for name, value in sections.items()}  # fmt: skip
    with pytest.raises(UserError, match=f"remembers the steps of a session, which `{named}` does not follow"):
        load_fleet(endpoint({"name": "main", "bundle": folder / "pole"}, **given))


def test_files_of_records_and_what_knows_no_memory_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ask an endpoint, in sessions"):
        BatchTransform(endpoint({"name": "main", "bundle": folder / "pole"}))
    with pytest.raises(BundleError, match="the policy has a memory, which only its evaluation"):
        load_bundle(folder / "pole")
    assert load_bundle(lake_bundle(tmp_path / "lake"), memory=True)
