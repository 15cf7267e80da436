"""Guardrails: every kind to its end, back at every step, through restarts, on alarms and on evidence."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deployment.conftest import CANARY, LINEAR, PROMOTION, Deployed, endpoint

from policylab.deployment.capture.recorder import Recorder
from policylab.deployment.decision import DecisionRequest, Refusal
from policylab.deployment.fleet import load_fleet
from policylab.deployment.running import start_endpoint
from policylab.deployment.state import EndpointState, StateFile
from policylab.errors import StorageError, UserError

# ------------------------------------------------------------------ kinds


def test_all_at_once_takes_all_traffic_and_can_go_back_while_it_bakes(deployed: Deployed) -> None:
    deployed.update({"kind": "all_at_once", "bake_s": 60.0})
    assert deployed.share(2, 100) == 1.0
    deployed.rollout.rollback("asked for")
    assert deployed.share(0, 100) == 1.0
    deployed.update({"kind": "all_at_once", "bake_s": 60.0})
    deployed.pass_time(61.0)
    assert deployed.last() == ("updated", "generation 2 has all the traffic")
    with pytest.raises(Refusal, match="nothing to roll back"):
        deployed.rollout.rollback("too late")


def test_a_canary_bakes_before_and_after_the_rest_follows(deployed: Deployed) -> None:
    deployed.update(CANARY)
    assert deployed.share(2) == pytest.approx(0.2, abs=0.05)
    deployed.pass_time(59.0)
    assert deployed.share(2) == pytest.approx(0.2, abs=0.05)
    deployed.pass_time(2.0)
    assert deployed.share(2, 100) == 1.0
    assert deployed.rollout.state.update is not None  # the last step bakes too
    deployed.pass_time(61.0)
    assert deployed.rollout.state.update is None
    assert deployed.rollout.state.generation == 2


def test_linear_goes_in_equal_steps(deployed: Deployed) -> None:
    deployed.update(LINEAR)
    shares = []
    while deployed.rollout.state.update is not None:
        shares.append(deployed.share(2))
        deployed.pass_time(11.0)
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.05)


def test_one_update_at_a_time(deployed: Deployed) -> None:
    deployed.update(CANARY)
    with pytest.raises(Refusal, match="an update is under way"):
        deployed.update(CANARY)
    with pytest.raises(Refusal, match="an update is under way"):
        deployed.rollout.set_weights({"main": 2.0})


# ------------------------------------------------------------------ alarms


@pytest.mark.parametrize("step", range(4))
def test_errors_at_any_step_bring_the_old_version_back(deployed: Deployed, step: int) -> None:
    deployed.update({**LINEAR, "alarms": {"min_requests": 20, "error_rate": 0.05}})
    for _ in range(step):
        deployed.pass_time(11.0)
    assert deployed.rollout.new is not None
    deployed.rollout.new.variants["main"].policy._policy = None  # it fails from now on
    n_failed = 0
    for _ in range(300):
        try:
            deployed.server.decide(DecisionRequest((3,)))
        except Refusal:
            n_failed += 1
    assert n_failed >= 20
    deployed.pass_time(0.1)
    what, text = deployed.last()
    assert what == "rolled back"
    assert text == f"errors: {n_failed} of {n_failed} requests, more than 5.00%"
    assert deployed.share(0, 200) == 1.0
    assert deployed.rollout.state.generation == 1


def test_the_fallback_action_counts_as_an_error(deployed: Deployed) -> None:
    deployed.update({**CANARY, "alarms": {"min_requests": 20}}, fallback={"action": 1})
    assert deployed.rollout.new is not None
    deployed.rollout.new.variants["main"].policy._policy = None
    for _ in range(300):
        deployed.server.decide(DecisionRequest((3,)))  # none of them fails for the client
    deployed.pass_time(0.1)
    assert deployed.last()[1].startswith("errors: ")


def test_few_requests_raise_no_alarm(deployed: Deployed) -> None:
    deployed.update({**CANARY, "alarms": {"min_requests": 1000}})
    assert deployed.rollout.new is not None
    deployed.rollout.new.variants["main"].counts.n_failures = 900
    deployed.pass_time(0.1)
    assert deployed.rollout.state.update is not None


def test_latency_brings_the_old_version_back(deployed: Deployed) -> None:
    deployed.update({**CANARY, "alarms": {"latency_ms": 5.0}})
    assert deployed.rollout.new is not None
    counts = deployed.rollout.new.variants["main"].counts
    for latency_s in [0.0001] * 98:
        counts.count(n_decisions=1, latency_s=latency_s, source="policy")
    deployed.pass_time(0.1)
    assert deployed.rollout.state.update is not None
    for latency_s in [0.02] * 5:
        counts.count(n_decisions=1, latency_s=latency_s, source="policy")
    deployed.pass_time(0.1)
    assert deployed.last()[1].startswith("latency: the 99th percentile is 2")


# ------------------------------------------------------------------ restarts


@pytest.mark.parametrize("step", range(4))
def test_an_update_survives_a_kill_at_every_step(deployed: Deployed, step: int) -> None:
    deployed.update(LINEAR)
    for _ in range(step):
        deployed.pass_time(11.0)
    before = deployed.share(2)
    deployed.start()
    assert deployed.share(2) == pytest.approx(before, abs=0.06)
    deployed.pass_time(9.0)  # the bake time began anew
    assert deployed.rollout.state.update is not None
    assert deployed.rollout.state.update.step == step
    for _ in range(4):
        deployed.pass_time(11.0)
    assert deployed.share(2, 100) == 1.0
    deployed.start()
    assert deployed.share(2, 100) == 1.0
    assert deployed.rollout.state.generation == 2


def test_a_rollback_survives_a_kill(deployed: Deployed) -> None:
    deployed.update(CANARY)
    deployed.rollout.rollback("asked for")
    deployed.start()
    assert deployed.share(0, 100) == 1.0
    assert deployed.last()[0] == "rolled back"


class FullDisk(StateFile):
    """Fails when it is told to."""

    full = False

    def write(self, state: EndpointState) -> None:
        if self.full:
            raise StorageError("no space left")
        super().write(state)


def test_on_a_full_disk_no_step_is_taken_but_back(deployed: Deployed, tmp_path: Path) -> None:
    file = FullDisk(tmp_path / "state")
    deployed.rollout._file = file
    deployed.update(CANARY)
    file.full = True
    for _ in range(3):  # it tries again and again, from the same step
        with pytest.raises(StorageError, match="no space"):
            deployed.pass_time(61.0)
        assert deployed.share(2) == pytest.approx(0.2, abs=0.05)
    deployed.rollout.rollback("asked for")  # safety does not wait for the disk
    assert deployed.share(0, 200) == 1.0
    file.full = False
    deployed.pass_time(1.0)
    deployed.start()
    assert deployed.rollout.state.update is None


def test_on_a_full_disk_no_update_begins(deployed: Deployed, tmp_path: Path) -> None:
    file = FullDisk(tmp_path / "state")
    deployed.rollout._file = file
    file.full = True
    with pytest.raises(StorageError, match="no space"):
        deployed.update(CANARY)
    assert deployed.rollout.state.update is None
    assert deployed.share(0, 200) == 1.0
    file.full = False
    deployed.update(CANARY)
    assert deployed.share(2) == pytest.approx(0.2, abs=0.05)


def test_a_clock_that_jumps_back_takes_no_step(deployed: Deployed) -> None:
    deployed.update(CANARY)
    deployed.pass_time(-10_000.0)
    assert deployed.rollout.state.update is not None
    assert deployed.rollout.state.update.step == 0


def test_a_damaged_state_is_told_with_its_place(tmp_path: Path, bundles: dict[str, Path]) -> None:
    config = endpoint({"name": "main", "bundle": bundles["left"]})
    started = start_endpoint(config, state_folder=tmp_path)
    started.server.close()
    document = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps({**document, "generation": 0}))
    with pytest.raises(UserError, match=r"state\.json: generation: .* remove the file"):
        start_endpoint(config, state_folder=tmp_path)
    (tmp_path / "state.json").write_text(json.dumps(document))
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(UserError, match="does not hold 32 bytes"):
        start_endpoint(config, state_folder=tmp_path)


def test_a_new_version_whose_bundle_vanishes_is_rolled_back_at_the_start(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    config = endpoint({"name": "main", "bundle": bundles["left"]})
    shutil.copytree(bundles["right"], tmp_path / "bundle")
    started = start_endpoint(config, state_folder=tmp_path / "state")
    new = endpoint({"name": "main", "bundle": tmp_path / "bundle"}, guardrail=CANARY)
    started.rollout.begin(load_fleet(new, generation=2))
    started.server.close()
    shutil.rmtree(tmp_path / "bundle")
    again = start_endpoint(config, state_folder=tmp_path / "state")
    assert again.rollout.state.update is None
    assert again.rollout.state.events[-1].text.startswith("the new version cannot be loaded: ")
    assert again.server.decide(DecisionRequest((3,))).decisions[0].action == 0
    again.server.close()


def test_weights_survive_a_start_and_a_changed_file_begins_anew(tmp_path: Path, bundles: dict[str, Path]) -> None:
    two = [{"name": "left", "bundle": bundles["left"]}, {"name": "right", "bundle": bundles["right"]}]
    started = start_endpoint(endpoint(*two), state_folder=tmp_path)
    started.rollout.set_weights({"left": 3.0})
    started.server.close()
    again = start_endpoint(endpoint(*two), state_folder=tmp_path)
    assert [route.share for route in again.server.traffic.routes] == [0.75, 0.25]
    again.server.close()
    changed = start_endpoint(endpoint(*two, limits={"batch": 7}), state_folder=tmp_path)
    assert [route.share for route in changed.server.traffic.routes] == [0.5, 0.5]
    changed.server.close()


# ------------------------------------------------------------------ promotion


def better(new: float, old: float, rng: np.random.Generator) -> Callable[[Any], float]:
    """Return rewards of 0 or 1 whose mean depends on the version: ``right`` is new."""
    return lambda decision: float(rng.random() < (new if decision.action == 2 else old))


def test_a_better_version_is_promoted_on_evidence(deployed: Deployed) -> None:
    deployed.update({**CANARY, "bake_s": 0.0, "promotion": PROMOTION})
    rng = np.random.default_rng(0)
    for _ in range(40):
        deployed.play(100, better(0.8, 0.4, rng))
        deployed.pass_time(1.0)
        if deployed.rollout.state.update is None:
            break
    assert deployed.rollout.state.generation == 2
    assert deployed.share(2, 100) == 1.0


def test_a_worse_version_is_rolled_back_on_evidence(deployed: Deployed) -> None:
    deployed.update({**CANARY, "bake_s": 0.0, "promotion": PROMOTION})
    rng = np.random.default_rng(0)
    for _ in range(60):
        deployed.play(100, better(0.2, 0.7, rng))
        deployed.pass_time(1.0)
        if deployed.rollout.state.update is None:
            break
    what, text = deployed.last()
    assert what == "rolled back"
    assert text.startswith("reward: new minus old is in [-")
    assert deployed.share(0, 200) == 1.0


def test_without_a_verdict_it_stays_where_it_is_and_then_goes_back(deployed: Deployed) -> None:
    deployed.update({**CANARY, "bake_s": 0.0, "promotion": {**PROMOTION, "max_wait_s": 100.0}})
    deployed.pass_time(99.0)
    assert deployed.rollout.state.update is not None
    assert deployed.rollout.evidence is not None
    assert deployed.rollout.evidence.verdict() == "inconclusive"
    deployed.pass_time(2.0)
    assert deployed.last() == ("rolled back", "no verdict on reward in 100 s")


def test_as_good_within_the_margin_is_good_enough(deployed: Deployed) -> None:
    deployed.update({**CANARY, "size": 0.5, "bake_s": 0.0, "promotion": {**PROMOTION, "margin": 0.3}})
    rng = np.random.default_rng(0)
    for _ in range(40):
        deployed.play(100, better(0.5, 0.5, rng))
        deployed.pass_time(1.0)
    assert deployed.rollout.state.generation == 2


def test_equal_versions_are_seldom_told_apart_however_often_one_looks(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Ten updates of a version that is as good as the old one: a verdict would be a false alarm, at most one in 20."""
    n_verdicts = 0
    for i in range(10):
        deployed = Deployed(bundles, tmp_path / str(i))
        deployed.update({**CANARY, "size": 0.5, "bake_s": 0.0, "promotion": PROMOTION})
        rng = np.random.default_rng(i)
        for _ in range(25):
            deployed.play(40, better(0.5, 0.5, rng))
            deployed.pass_time(1.0)
        n_verdicts += deployed.rollout.state.update is None
        deployed.server.close()
    assert n_verdicts <= 2


def test_a_reward_counts_when_its_time_is_over(deployed: Deployed) -> None:
    promotion = {**PROMOTION, "reward_wait_s": 30.0, "missing_reward": 0.0}
    deployed.update({**CANARY, "size": 0.5, "bake_s": 0.0, "promotion": promotion})
    evidence = deployed.rollout.evidence
    assert evidence is not None
    decisions = [deployed.server.decide(DecisionRequest((3,))).decisions[0] for _ in range(40)]
    for one in decisions[:20]:
        deployed.server.rewards.take(one.decision_id, reward=0.25)
        deployed.server.rewards.take(one.decision_id, reward=0.5)  # rewards of one decision add up
    deployed.pass_time(29.0)
    assert evidence.document()["old"] == {"n": 0, "mean": None}
    deployed.pass_time(2.0)
    sides = [evidence.document()[side] for side in ("old", "new")]
    assert sum(side["n"] for side in sides) == 40  # type: ignore[index]
    total = sum(side["n"] * side["mean"] for side in sides)  # type: ignore[index]
    assert total == pytest.approx(20 * 0.75)
    deployed.server.rewards.take(decisions[0].decision_id, reward=1.0)  # too late to count, still taken
    assert sum(evidence.document()[side]["n"] for side in ("old", "new")) == 40  # type: ignore[index]


def test_what_a_client_aimed_at_is_no_evidence(deployed: Deployed) -> None:
    deployed.update({**CANARY, "bake_s": 0.0, "promotion": PROMOTION})
    evidence = deployed.rollout.evidence
    assert evidence is not None
    aimed = deployed.server.decide(DecisionRequest((3,), target_variant="main")).decisions[0]
    drawn = deployed.server.decide(DecisionRequest((3,), inference_id="mine")).decisions[0]
    deployed.server.rewards.take(aimed.decision_id, reward=1.0)
    deployed.server.rewards.take("mine", reward=5.0)
    assert drawn.assignment == "random"
    found = evidence.document()
    assert sum(found[side]["n"] for side in ("old", "new")) == 1  # type: ignore[index]
    assert found["n_outside"] == 1  # taken as 1, the end of the range, and told


def test_sessions_that_began_before_a_step_are_no_evidence_of_it(deployed: Deployed) -> None:
    """They are all the old version's: with them, old episodes would be compared with new ones."""

    def ask(session: str) -> None:
        decision = deployed.server.decide(DecisionRequest((3,), session_id=session)).decisions[0]
        deployed.server.rewards.take(decision.decision_id, reward=1.0)

    ask("before")
    deployed.update({**CANARY, "size": 0.5, "promotion": PROMOTION})
    evidence = deployed.rollout.evidence
    assert evidence is not None
    ask("before")
    assert evidence.state.old.n + evidence.state.new.n == 0
    for i in range(40):
        ask(f"after-{i}")
    assert evidence.state.old.n + evidence.state.new.n == 40
    assert min(evidence.state.old.n, evidence.state.new.n) > 5


def test_evidence_survives_a_kill(deployed: Deployed) -> None:
    deployed.update({**CANARY, "size": 0.5, "bake_s": 0.0, "promotion": {**PROMOTION, "min_decisions": 1000}})
    deployed.play(100, lambda _: 1.0)
    deployed.pass_time(2.0)
    assert deployed.rollout.evidence is not None
    before = deployed.rollout.evidence.state
    assert before.old.n + before.new.n == 100
    deployed.start()
    assert deployed.rollout.evidence is not None
    assert deployed.rollout.evidence.state == before


# ------------------------------------------------------------------ valued before acting


def settled(deployed: Deployed) -> None:
    """Wait until the recorder has asked the new version about every decision."""
    deployed.server.recorder.close()
    deployed.server.recorder = Recorder("lake", None)


BEFORE = {"kind": "all_at_once", "bake_s": 0.0, "promotion": {**PROMOTION, "before_acting": True, "max_weight": 4.0}}


@pytest.fixture
def exploring(bundles: dict[str, Path], tmp_path: Path) -> Iterator[Deployed]:
    """An endpoint whose old version takes every action alike, so that any other can be valued on its decisions."""
    found = Deployed(bundles, tmp_path / "exploring", first="random")
    yield found
    for server in found.servers:
        server.close()


@pytest.mark.parametrize(("favoured", "verdict"), [(2, "better"), (0, "worse")])
def test_a_version_is_valued_before_it_acts(exploring: Deployed, favoured: int, verdict: str) -> None:
    """Reward 1 for one action: the old version's value is 1/4, that of ``right`` 1 if this is its action, else 0."""
    exploring.update(BEFORE)
    for _ in range(60):  # proof of "worse" takes 1,000 to 2,000 decisions
        exploring.play(100, lambda decision: float(decision.action == favoured))
        assert exploring.share(2, 50) < 0.6  # it has no traffic yet
        settled(exploring)
        evidence = exploring.rollout.evidence
        assert evidence is not None
        if evidence.verdict() != "inconclusive":
            break
    low, high = evidence.difference()
    truth = 0.75 if verdict == "better" else -0.25
    assert low < truth < high
    assert evidence.verdict() == verdict
    found = evidence.document()
    five_deviations = 5.0 * math.sqrt(3.0 / found["new"]["n"])  # type: ignore[index]  # a weight is 4 or 0
    assert found["new"]["mean"] == pytest.approx(float(favoured == 2), abs=five_deviations)  # type: ignore[index]
    assert found["weights"]["mean"] == pytest.approx(1.0, abs=five_deviations)  # type: ignore[index]
    exploring.pass_time(1.0)
    if verdict == "better":
        assert exploring.share(2, 100) == 1.0
        assert exploring.server.candidate is None
    else:
        assert exploring.last()[0] == "rolled back"


def test_what_the_old_version_never_does_proves_nothing(deployed: Deployed) -> None:
    """``left`` never takes the action of ``right``, which may be worth anything: the answer is that it is not known."""
    deployed.update(BEFORE)
    deployed.play(500, lambda _: 1.0)
    settled(deployed)
    evidence = deployed.rollout.evidence
    assert evidence is not None
    assert evidence.verdict() == "inconclusive"
    assert evidence.difference()[1] >= 0.0
    assert evidence.document()["new"]["effective_n"] == 0.0  # type: ignore[index]


def test_a_candidate_that_fails_is_rolled_back_before_it_acts(exploring: Deployed) -> None:
    exploring.update(BEFORE)
    assert exploring.rollout.new is not None
    exploring.rollout.new.variants["main"].policy._policy = None
    exploring.play(50, lambda _: 1.0)  # no client notices
    settled(exploring)
    exploring.pass_time(0.1)
    assert exploring.last() == ("rolled back", "errors: 50 of 50 decisions that it was asked about")


def test_the_value_before_acting_survives_a_kill(exploring: Deployed) -> None:
    exploring.update(BEFORE)
    exploring.play(60, lambda decision: float(decision.action == 1))
    settled(exploring)
    exploring.pass_time(2.0)
    assert exploring.rollout.evidence is not None
    before = exploring.rollout.evidence.state
    assert (before.old.n, before.weights.n) == (60, 60)
    exploring.start()
    assert exploring.rollout.evidence is not None
    assert exploring.rollout.evidence.state == before


@pytest.mark.parametrize(
    ("guardrail", "message"),
    [
        ({"kind": "all_at_once", "promotion": PROMOTION}, "needs kind canary, linear or rolling"),
        ({"kind": "canary", "promotion": {**PROMOTION, "missing_reward": 0.0}}, "needs a reward_wait_s"),
        ({"kind": "linear", "size": 0.05}, "at least 0.1"),
        ({"kind": "canary", "size": 0.6}, "less than or equal to 0.5"),
        ({"kind": "canary", "promotion": {**PROMOTION, "reward_high": 0.0}}, "below reward_high"),
    ],
)
def test_guardrails_that_make_no_sense_are_refused(guardrail: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        endpoint({"name": "main", "bundle": "x"}, guardrail=guardrail)
