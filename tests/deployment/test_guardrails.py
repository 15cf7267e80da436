"""Rolling updates, promotion by hand, the alarm on value, and the faults that a rollout must survive."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deployment.conftest import CANARY, LINEAR, PROMOTION, Deployed, endpoint, served

from policylab.deployment.capture import pending_rewards
from policylab.deployment.decision import DecisionRequest, Refusal
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.fleet import load_fleet
from policylab.deployment.guardrails.settings import RewardRules

ROLLING = {"kind": "rolling", "size": 0.4, "bake_s": 10.0, "rollback_size": 0.3}
VALUE = {"reward_low": 0.0, "reward_high": 1.0, "at_least": 0.5, "min_decisions": 50}
KINDS = {
    "all_at_once": {"kind": "all_at_once", "bake_s": 10.0},
    "canary": {**CANARY, "bake_s": 10.0},
    "linear": LINEAR,
    "rolling": ROLLING,
}


def share(deployed: Deployed) -> float:
    """Return the share of the new version."""
    return sum(route.share for route in deployed.server.traffic.routes if route.fleet is deployed.rollout.new)


# ------------------------------------------------------------------ rolling


def test_rolling_goes_in_batches(deployed: Deployed) -> None:
    deployed.update(ROLLING)
    shares = []
    while deployed.rollout.state.update is not None:
        shares.append(share(deployed))
        deployed.pass_time(11.0)
    assert shares == pytest.approx([0.4, 0.8, 1.0])
    assert deployed.rollout.state.generation == 2


def test_rolling_goes_back_in_batches_and_at_once_when_asked_again(deployed: Deployed) -> None:
    deployed.update(ROLLING)
    deployed.pass_time(11.0)
    deployed.rollout.rollback("asked for")
    shares = [share(deployed)]
    while deployed.rollout.state.update is not None:
        deployed.pass_time(11.0)
        shares.append(share(deployed))
    assert shares == pytest.approx([0.5, 0.2, 0.0])
    assert deployed.last() == ("rolled back", "asked for")
    deployed.update(ROLLING)
    deployed.pass_time(11.0)
    deployed.rollout.rollback("asked for")
    with pytest.raises(Refusal, match="on its way back"):
        deployed.rollout.promote()
    deployed.rollout.rollback("now")
    assert (share(deployed), deployed.last()) == (0.0, ("rolled back", "now"))


def test_a_way_back_survives_a_kill(deployed: Deployed) -> None:
    deployed.update(ROLLING)
    deployed.pass_time(11.0)
    deployed.rollout.rollback("asked for")
    deployed.start()
    assert share(deployed) == pytest.approx(0.5)
    document = deployed.rollout.document()["update"]
    assert (document["share"], document["returning"]) == (pytest.approx(0.5), "asked for")
    for _ in range(2):
        deployed.pass_time(11.0)
    assert deployed.share(0, 100) == 1.0
    assert deployed.rollout.state.generation == 1


@pytest.mark.parametrize(
    ("guardrail", "message"),
    [
        ({"kind": "rolling", "size": 0.04}, "at least 0.05"),
        ({"kind": "canary", "rollback_size": 0.5}, "needs kind rolling"),
        ({"alarms": {"value": {**VALUE, "at_least": 2.0}}}, "must lie between"),
    ],
)
def test_settings_that_make_no_sense_are_refused(guardrail: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        endpoint({"name": "main", "bundle": "x"}, guardrail=guardrail)


# ------------------------------------------------------------------ promotion by hand


def test_promotion_takes_a_step_or_all_of_them(deployed: Deployed) -> None:
    with pytest.raises(Refusal, match="nothing to promote"):
        deployed.rollout.promote()
    deployed.update({**LINEAR, "promotion": PROMOTION})
    deployed.rollout.promote()
    assert share(deployed) == pytest.approx(0.5)
    assert deployed.rollout.evidence is not None
    deployed.rollout.promote(full=True)
    assert deployed.last()[0] == "updated"
    assert deployed.share(2, 100) == 1.0
    assert deployed.server.rewards.observers == []


# ------------------------------------------------------------------ the alarm on value


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_of_little_value_is_rolled_back_whatever_the_guardrail(deployed: Deployed, kind: str) -> None:
    deployed.update({**KINDS[kind], "bake_s": 3600.0, "rollback_size": 1.0, "alarms": {"value": VALUE}})
    rng = np.random.default_rng(0)
    for _ in range(40):
        deployed.play(50, lambda decision: float(rng.random() < (0.1 if decision.action == 2 else 0.9)))
        deployed.pass_time(1.0)
        if deployed.rollout.state.update is None:
            break
    what, text = deployed.last()
    assert what == "rolled back"
    assert text.startswith("value: the mean reward is in [0, 0.")
    assert deployed.share(0, 100) == 1.0


def test_a_version_of_enough_value_passes_its_alarm(deployed: Deployed) -> None:
    deployed.update({**CANARY, "alarms": {"value": {**VALUE, "at_least": 0.4}}})
    rng = np.random.default_rng(0)
    while deployed.rollout.state.update is not None:
        deployed.play(100, lambda _: float(rng.random() < 0.5))
        deployed.pass_time(20.0)
    assert deployed.rollout.state.generation == 2


def test_what_is_known_of_the_value_survives_a_kill(deployed: Deployed) -> None:
    deployed.update({"kind": "all_at_once", "bake_s": 100.0, "alarms": {"value": VALUE}})
    deployed.play(30, lambda _: 1.0)
    deployed.pass_time(2.0)
    deployed.start()
    assert deployed.rollout.watch is not None
    assert deployed.rollout.watch.value is not None
    assert deployed.rollout.watch.value.state.n == 30
    assert deployed.rollout.document()["update"]["value"]["n"] == 30


# ------------------------------------------------------------------ faults


@pytest.mark.parametrize("kind", KINDS)
def test_a_controller_killed_at_each_step_ends_where_one_that_lives_does(deployed: Deployed, kind: str) -> None:
    deployed.update(KINDS[kind])
    shares = [share(deployed)]
    while deployed.rollout.state.update is not None:
        deployed.start()
        assert share(deployed) == pytest.approx(shares[-1])
        deployed.pass_time(9.0)  # its bake time began anew
        assert share(deployed) == pytest.approx(shares[-1])
        deployed.pass_time(2.0)
        shares.append(share(deployed))
    deployed.start()
    assert deployed.share(2, 100) == 1.0
    assert deployed.rollout.state.generation == 2
    assert len(shares) == len(deployed.rollout.state.config.guardrail.steps) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_controller_killed_at_each_step_still_rolls_back(bundles: dict[str, Path], tmp_path: Path, kind: str) -> None:
    n_steps = len(EndpointConfig.model_validate(
        {"name": "lake", "variants": [{"name": "main", "bundle": "x"}], "guardrail": KINDS[kind]}
    ).guardrail.steps)  # fmt: skip
    for step in range(n_steps):
        deployed = Deployed(bundles, tmp_path / str(step))
        deployed.update(KINDS[kind])
        for _ in range(step):
            deployed.pass_time(11.0)
        deployed.start()
        deployed.rollout.rollback("asked for")
        while deployed.rollout.state.update is not None:
            deployed.start()
            deployed.pass_time(11.0)
        assert deployed.share(0, 100) == 1.0
        assert deployed.last() == ("rolled back", "asked for")
        for server in deployed.servers:
            server.close()


@pytest.mark.parametrize("alarms", [{}, {"value": VALUE}])
def test_a_silent_alarm_source_brings_the_old_version_back_if_that_counts(
    deployed: Deployed, alarms: dict[str, Any]
) -> None:
    deployed.update({**CANARY, "alarms": {**alarms, "missing_data": "breaching"}})
    if alarms:
        for _ in range(400):  # answers enough, rewards none
            deployed.server.decide(DecisionRequest((3,)))
    deployed.pass_time(61.0)
    what, text = deployed.last()
    what_is_missing = "rewards" if alarms else "answers"
    assert (what, text.partition(",")[0]) == ("rolled back", f"silent: 0 {what_is_missing} in this step")


def test_an_alarm_source_that_falls_silent_at_a_later_step_is_noticed(deployed: Deployed) -> None:
    deployed.update({**CANARY, "alarms": {"missing_data": "breaching"}})
    for _ in range(400):
        deployed.server.decide(DecisionRequest((3,)))
    deployed.pass_time(61.0)
    assert share(deployed) == 1.0
    deployed.pass_time(61.0)
    assert deployed.last()[0] == "rolled back"


def test_the_bundle_may_vanish_while_the_update_is_under_way(bundles: dict[str, Path], tmp_path: Path) -> None:
    """Both versions are in memory; only a new start needs the files."""
    gone = tmp_path / "gone"
    shutil.copytree(bundles["right"], gone)
    deployed = Deployed({**bundles, "gone": gone}, tmp_path / "state")
    deployed.update(CANARY, to="gone")
    shutil.rmtree(gone)
    for _ in range(2):
        deployed.pass_time(61.0)
    assert deployed.share(2, 100) == 1.0
    with pytest.raises(Exception, match="gone"):
        load_fleet(deployed.rollout.state.config)
    deployed.server.close()


@pytest.mark.parametrize("jump_s", [-1e9, 1e9])
def test_a_wall_clock_that_jumps_moves_no_step(deployed: Deployed, jump_s: float) -> None:
    """Bake times are measured by a clock that nobody sets; the wall clock dates events alone."""
    deployed.update(CANARY)
    deployed.rollout._wall_clock = lambda: 2e9 + jump_s
    deployed.server._wall_clock = lambda: 2e9 + jump_s
    deployed.pass_time(59.0)
    assert share(deployed) == pytest.approx(0.2)
    assert deployed.server.decide(DecisionRequest((3,))).decisions[0].time_s == 2e9 + jump_s
    deployed.pass_time(2.0)
    assert share(deployed) == 1.0
    assert deployed.rollout.state.events[-1].time_s == 2e9 + jump_s


@pytest.mark.parametrize("wait_s", [0.0, 5.0])
def test_nothing_is_kept_of_decisions_that_are_forgotten_or_counted(
    bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch, wait_s: float
) -> None:
    monkeypatch.setattr(pending_rewards, "MAX_PENDING", 10)
    now, counted = [0.0], list[pending_rewards.Counted]()
    rules = RewardRules(reward_low=0.0, reward_high=1.0, reward_wait_s=wait_s)
    pending = pending_rewards.PendingRewards(rules, clock=lambda: now[0], weighted=False, count=counted.append)
    with served(endpoint({"name": "left", "bundle": bundles["left"]})) as server:
        for i in range(100):
            pending.decided("new", server.decide(DecisionRequest((3,), inference_id=f"id-{i}")))
    assert (len(pending), len(pending._names), pending.n_forgotten) == (10, 10, 90)
    for i in range(100):
        pending.rewarded(f"id-{i}", 1.0)
    now[0] = 6.0
    pending.mature()
    assert (len(counted), len(pending), len(pending._names)) == (10, 0, 0)
