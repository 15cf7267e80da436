"""Decisions: propensities that are those of the draws, retries, sessions, variants, shadows, limits."""

from __future__ import annotations

import collections
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.deployment.conftest import endpoint, served

from policylab.agents.bundle import load_bundle
from policylab.deployment.capture.reading import read_captured
from policylab.deployment.decision import NEW_SESSION, DecisionRequest, Refusal
from policylab.deployment.fleet import load_fleet
from policylab.deployment.served_policy import Draw, PolicyFailure, ServedPolicy
from policylab.errors import UserError

EVERY_ACTION = np.ones(4, dtype=np.bool_)


def ask(observation: Any = 3, **fields: Any) -> DecisionRequest:
    return DecisionRequest((observation,), **fields)


def mask(*allowed: int) -> Any:
    found = np.zeros(4, dtype=np.bool_)
    found[list(allowed)] = True
    return (found,)


# ------------------------------------------------------------------ propensities


def test_actions_are_drawn_as_often_as_their_propensities_say(bundles: dict[str, Path]) -> None:
    with served(endpoint({"name": "soft", "bundle": bundles["soft"]})) as server:
        decisions = [server.decide(ask()).decisions[0] for _ in range(4000)]
    expected = load_bundle(bundles["soft"]).policy.probabilities(3)  # type: ignore[attr-defined]
    counts = collections.Counter(one.action for one in decisions)
    assert stats.chisquare([counts[a] for a in range(4)], 4000 * expected).pvalue > 1e-4
    assert all(one.propensity == pytest.approx(expected[one.action], abs=1e-12) for one in decisions)
    assert all(one.log_propensity == pytest.approx(math.log(one.propensity)) for one in decisions)


def test_the_propensity_is_that_after_the_mask(bundles: dict[str, Path]) -> None:
    unmasked = load_bundle(bundles["soft"]).policy.probabilities(3)  # type: ignore[attr-defined]
    with served(endpoint({"name": "soft", "bundle": bundles["soft"]})) as server:
        decisions = [server.decide(ask(masks=mask(1, 3))).decisions[0] for _ in range(500)]
    assert {one.action for one in decisions} == {1, 3}
    for one in decisions:
        assert one.propensity == pytest.approx(unmasked[one.action] / (unmasked[1] + unmasked[3]))


def test_without_exploration_the_best_allowed_action_is_taken_for_certain(bundles: dict[str, Path]) -> None:
    probabilities = load_bundle(bundles["soft"]).policy.probabilities(3)  # type: ignore[attr-defined]
    best, second = np.argsort(-probabilities)[:2]
    config = endpoint({"name": "soft", "bundle": bundles["soft"], "exploration": False})
    with served(config) as server:
        plain = server.decide(ask()).decisions[0]
        without_best = server.decide(ask(masks=mask(*({0, 1, 2, 3} - {int(best)})))).decisions[0]
    assert (plain.action, plain.propensity, plain.exploration) == (best, 1.0, False)
    assert (without_best.action, without_best.propensity) == (second, 1.0)


def test_an_epsilon_greedy_policy_explores_among_allowed_actions_alone(bundles: dict[str, Path]) -> None:
    with served(endpoint({"name": "random", "bundle": bundles["random"]})) as server:
        decisions = [server.decide(ask(masks=mask(0, 2))).decisions[0] for _ in range(300)]
    assert {(one.action, one.propensity) for one in decisions} == {(0, 0.5), (2, 0.5)}


@pytest.mark.parametrize("bad", [mask(), (np.ones(3, dtype=np.bool_),), (EVERY_ACTION, EVERY_ACTION)])
def test_a_mask_that_does_not_fit_is_refused(bundles: dict[str, Path], bad: Any) -> None:
    with (
        served(endpoint({"name": "left", "bundle": bundles["left"]})) as server,
        pytest.raises(Refusal, match="mask"),
    ):
        server.decide(ask(masks=bad))


def test_a_batch_is_decided_one_by_one(bundles: dict[str, Path]) -> None:
    with served(endpoint({"name": "soft", "bundle": bundles["soft"]})) as server:
        decisions = server.decide(DecisionRequest(tuple(range(16)), inference_id="batch")).decisions
    policy = load_bundle(bundles["soft"]).policy
    assert len({one.decision_id for one in decisions}) == 16
    assert all(one.inference_id is None for one in decisions)  # one id cannot name sixteen decisions
    for observation, one in enumerate(decisions):
        assert one.propensity == pytest.approx(math.exp(policy.log_probability(observation, one.action)))


# ------------------------------------------------------------------ retries


def test_a_retry_gets_the_same_decision_and_is_recorded_once(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint({"name": "random", "bundle": bundles["random"]}, capture={"folder": tmp_path})
    with served(config) as server:
        first = server.decide(ask(inference_id="one"))
        assert all(server.decide(ask(inference_id="one")) == first for _ in range(20))
        others = [server.decide(ask(inference_id=f"other-{i}")).decisions[0].action for i in range(50)]
    assert len(set(others)) > 1
    captured = list(read_captured(tmp_path, endpoint="lake"))
    assert [one.inference_id for one in captured].count("one") == 1
    assert len(captured) == 51


def test_one_id_for_two_observations_is_refused(bundles: dict[str, Path]) -> None:
    with served(endpoint({"name": "left", "bundle": bundles["left"]})) as server:
        server.decide(ask(3, inference_id="same"))
        with pytest.raises(Refusal, match="used for another request") as refusal:
            server.decide(ask(4, inference_id="same"))
    assert refusal.value.kind == "invalid"


def test_the_secret_alone_decides_what_an_id_leads_to(bundles: dict[str, Path]) -> None:
    config = endpoint({"name": "random", "bundle": bundles["random"]})
    answers = []
    for secret in (b"a" * 32, b"a" * 32, b"b" * 32):
        with served(config, secret=secret) as server:
            answers.append([server.decide(ask(inference_id=str(i))).decisions[0].action for i in range(40)])
    assert answers[0] == answers[1]  # also after a restart
    assert answers[0] != answers[2]


def test_few_ids_are_remembered_and_not_for_ever(bundles: dict[str, Path]) -> None:
    now = [0.0]
    config = endpoint({"name": "left", "bundle": bundles["left"]}, limits={"remembered_ids": 2})
    with served(config, clock=lambda: now[0]) as server:
        for name in ("a", "b", "c"):
            server.decide(ask(inference_id=name))
        server.decide(ask(5, inference_id="a"))  # forgotten: there is room for two
        with pytest.raises(Refusal, match="used for another"):
            server.decide(ask(5, inference_id="c"))
        now[0] = 601.0
        server.decide(ask(5, inference_id="c"))


# ------------------------------------------------------------------ variants and sessions


def test_variants_answer_by_weight(bundles: dict[str, Path]) -> None:
    config = endpoint(
        {"name": "left", "bundle": bundles["left"], "weight": 3},
        {"name": "right", "bundle": bundles["right"], "weight": 1},
        {"name": "idle", "bundle": bundles["random"], "weight": 0},
    )
    with served(config) as server:
        decisions = [server.decide(ask()).decisions[0] for _ in range(4000)]
    counts = collections.Counter(one.variant for one in decisions)
    assert counts["idle"] == 0
    assert stats.chisquare([counts["left"], counts["right"]], [3000, 1000]).pvalue > 1e-4
    assert {(one.variant, one.action, one.variant_probability) for one in decisions} == {
        ("left", 0, 0.75),
        ("right", 2, 0.25),
    }


def test_weights_change_while_it_serves(bundles: dict[str, Path]) -> None:
    config = endpoint({"name": "left", "bundle": bundles["left"]}, {"name": "right", "bundle": bundles["right"]})
    with served(config) as server:
        server.set_weights({"left": 0.0})
        assert {server.decide(ask()).decisions[0].variant for _ in range(100)} == {"right"}
        with pytest.raises(Refusal, match="must not all be 0"):
            server.set_weights({"right": 0.0})
        with pytest.raises(Refusal, match="did you mean 'left'"):
            server.set_weights({"lef": 1.0})
        assert {server.decide(ask()).decisions[0].variant for _ in range(100)} == {"right"}


def test_a_named_variant_answers_whatever_its_weight(bundles: dict[str, Path]) -> None:
    config = endpoint(
        {"name": "left", "bundle": bundles["left"]}, {"name": "right", "bundle": bundles["right"], "weight": 0}
    )
    with served(config) as server:
        decision = server.decide(ask(target_variant="right")).decisions[0]
        assert (decision.variant, decision.assignment) == ("right", "target")
        with pytest.raises(Refusal, match="did you mean 'right'"):
            server.decide(ask(target_variant="rihgt"))


def test_a_session_keeps_its_variant_and_counts_its_steps(bundles: dict[str, Path]) -> None:
    now = [0.0]
    config = endpoint(
        {"name": "left", "bundle": bundles["left"]},
        {"name": "right", "bundle": bundles["right"]},
        sessions={"expire_s": 100.0},
    )
    with served(config, clock=lambda: now[0]) as server:
        answer = server.decide(ask(session_id=NEW_SESSION))
        assert answer.new_session is not None
        name, variant = answer.new_session[0], answer.decisions[0].variant
        server.set_weights({variant: 0.0})  # new sessions go elsewhere, this one stays
        decisions = []
        for _ in range(30):
            now[0] += 99.0
            decisions.append(server.decide(ask(session_id=name)).decisions[0])
        assert {one.variant for one in decisions} == {variant}
        assert [one.step for one in decisions] == list(range(1, 31))
        assert {(one.episode, one.assignment, one.variant_probability) for one in decisions} == {(name, "session", 0.5)}
        now[0] += 101.0
        assert server.decide(ask(session_id=name)).decisions[0].variant != variant  # it had expired


def test_a_session_ends_when_it_is_closed(bundles: dict[str, Path]) -> None:
    with served(endpoint({"name": "left", "bundle": bundles["left"]})) as server:
        name, _ = server.open_session()
        assert [server.decide(ask(session_id=name)).decisions[0].step for _ in range(2)] == [0, 1]
        assert server.close_session(name)
        assert not server.close_session(name)
        assert server.decide(ask(session_id=name)).decisions[0].step == 0


def test_sessions_are_bounded(bundles: dict[str, Path]) -> None:
    config = endpoint({"name": "left", "bundle": bundles["left"]}, sessions={"max_sessions": 3})
    with served(config) as server:
        for i in range(10):
            server.decide(ask(session_id=f"s{i}"))
        assert len(server.sessions) == 3
        assert server.sessions.n_evicted == 7


def test_a_retry_of_a_step_is_no_further_step(bundles: dict[str, Path]) -> None:
    with served(endpoint({"name": "left", "bundle": bundles["left"]})) as server:
        first = server.decide(ask(session_id="s", inference_id="a")).decisions[0]
        again = server.decide(ask(session_id="s", inference_id="a")).decisions[0]
        following = server.decide(ask(session_id="s", inference_id="b")).decisions[0]
    assert (first.step, again.step, following.step) == (0, 0, 1)


# ------------------------------------------------------------------ shadows


def test_shadows_are_recorded_and_never_answer(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint(
        {"name": "soft", "bundle": bundles["soft"]},
        shadows=[
            {"name": "right", "bundle": bundles["right"]},
            {"name": "noise", "bundle": bundles["random"], "sampling": 0.25},
        ],
        capture={"folder": tmp_path},
    )
    with served(config) as server:
        answered = {d.decision_id: d for d in (server.decide(ask()).decisions[0] for _ in range(400))}
        shadows = {shadow.name: shadow for shadow in server.fleet.shadows}
    captured = list(read_captured(tmp_path, endpoint="lake"))
    assert {one.decision_id for one in captured} == set(answered)
    for one in captured:
        assert one.action == answered[one.decision_id].action
        told = {shadow.variant: shadow for shadow in one.facts.shadows}
        # The shadow's probability of the action that was taken, not of its own.
        assert told["right"].action == 2
        assert told["right"].log_probability == (0.0 if one.action == 2 else None)
        if "noise" in told:
            assert told["noise"].log_probability == pytest.approx(math.log(0.25))
    n_noise = sum("noise" in {shadow.variant for shadow in one.facts.shadows} for one in captured)
    assert 60 < n_noise < 140
    assert shadows["right"].n_decisions == 400
    assert shadows["right"].n_agreeing == sum(one.action == 2 for one in captured)


def test_a_shadow_that_fails_is_counted_and_changes_nothing(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint(
        {"name": "left", "bundle": bundles["left"]},
        shadows=[{"name": "broken", "bundle": bundles["right"]}],
        capture={"folder": tmp_path},
    )
    with served(config) as server:
        server.fleet.shadows[0].policy._policy = None
        assert server.decide(ask()).decisions[0].action == 0
        server.recorder.close()
        assert server.fleet.shadows[0].n_failures == 1
    (captured,) = read_captured(tmp_path, endpoint="lake")
    assert captured.facts.shadows == ()


# ------------------------------------------------------------------ deadlines, failures


class Slow:
    """Stands in the way of a policy for a while, as a network that is too large does."""

    def __init__(self, policy: Any, seconds: float) -> None:
        self.policy, self.seconds = policy, seconds

    def probabilities(self, observation: Any, **options: Any) -> Any:
        time.sleep(self.seconds)
        return self.policy.probabilities(observation, **options)


def test_after_the_deadline_the_fallback_action_is_answered(bundles: dict[str, Path], tmp_path: Path) -> None:
    config = endpoint(
        {"name": "left", "bundle": bundles["left"]},
        limits={"deadline_ms": 50.0},
        fallback={"action": 3},
        capture={"folder": tmp_path},
    )
    with served(config) as server:
        in_time = server.decide(ask()).decisions[0]
        variant = server.fleet.variants["left"]
        variant.policy._policy = Slow(variant.policy._policy, 1.0)
        late = server.decide(ask(4, inference_id="late")).decisions[0]
        again = server.decide(ask(4, inference_id="late")).decisions[0]
        assert variant.counts.n_fallbacks == 1
    assert (in_time.action, in_time.source) == (0, "policy")
    assert (late.action, late.source, late.propensity) == (3, "fallback", 1.0)
    assert again == late
    assert [one.facts.source for one in read_captured(tmp_path, endpoint="lake")] == ["policy", "fallback"]


def test_a_policy_that_fails_is_covered_by_the_fallback_action(bundles: dict[str, Path]) -> None:
    config = endpoint({"name": "left", "bundle": bundles["left"]}, fallback={"action": 1})
    with served(config) as server:
        server.fleet.variants["left"].policy._policy = None
        assert server.decide(ask()).decisions[0].source == "fallback"
    with served(endpoint({"name": "left", "bundle": bundles["left"]})) as server:
        server.fleet.variants["left"].policy._policy = None
        with pytest.raises(Refusal, match="the policy of variant 'left' failed") as refusal:
            server.decide(ask())
        assert refusal.value.kind == "failed"
        assert server.fleet.variants["left"].counts.n_failures == 1


def test_probabilities_that_are_no_numbers_are_a_failure(bundles: dict[str, Path]) -> None:
    policy = ServedPolicy(load_bundle(bundles["left"]), exploration=True)

    class Broken:
        def probabilities(self, observation: Any, **_: Any) -> Any:
            return np.array([np.nan, 0.5, 0.25, 0.25])

    policy._policy = Broken()
    with pytest.raises(PolicyFailure, match="add up to nan"):
        policy.choose([3], None, draw=Draw(b"secret", "a"))


def test_an_observation_that_does_not_fit_is_the_clients_fault(bundles: dict[str, Path]) -> None:
    with served(endpoint({"name": "left", "bundle": bundles["left"]}, fallback={"action": 1})) as server:
        with pytest.raises(Refusal, match="does not fit") as refusal:
            server.decide(ask("there"))
        assert refusal.value.kind == "observation"
        assert server.fleet.variants["left"].counts.n_failures == 0


def test_threads_decide_side_by_side(bundles: dict[str, Path]) -> None:
    config = endpoint({"name": "random", "bundle": bundles["random"]}, limits={"remembered_ids": 100_000})
    with served(config) as server:
        found: list[dict[str, Any]] = [{} for _ in range(4)]

        def work(mine: dict[str, Any]) -> None:
            for i in range(300):
                mine[str(i)] = server.decide(ask(inference_id=str(i))).decisions[0].action

        threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found[0] == found[1] == found[2] == found[3]
        assert server.fleet.variants["random"].counts.n_requests == 300


# ------------------------------------------------------------------ loading


def test_policies_of_one_endpoint_need_the_same_spaces(bundles: dict[str, Path], tmp_path: Path) -> None:
    import gymnasium as gym
    from tests.deployment.conftest import LINEAGE

    from policylab.agents.bundle import write_bundle
    from policylab.agents.features import AutoFeatures, make_encoder
    from policylab.agents.value_policies import TabularPolicy

    env = gym.make("Taxi-v3")
    encoder = make_encoder(AutoFeatures(), env.observation_space)
    write_bundle(tmp_path / "taxi", TabularPolicy(np.zeros((500, 6)), encoder), env=env, lineage=LINEAGE, metrics={})
    config = endpoint({"name": "left", "bundle": bundles["left"]}, {"name": "taxi", "bundle": tmp_path / "taxi"})
    with pytest.raises(UserError, match="'taxi' has Discrete\\(500\\), 'left' Discrete\\(16\\)"):
        load_fleet(config)


@pytest.mark.parametrize(
    ("sections", "message"),
    [({"fallback": {"action": 4}}, "fallback.action"), ({"bounds": {"low": 0, "high": 1}}, "use masks")],
)
def test_what_does_not_fit_the_action_space_is_refused(
    bundles: dict[str, Path], sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_fleet(endpoint({"name": "left", "bundle": bundles["left"]}, **sections))
