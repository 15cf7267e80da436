"""An alarm puts segments of the traffic behind it before people."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from pydantic import ValidationError

from policylab.agents import Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import AutoFeatures
from policylab.deployment.capture.format import captured_line, hour_folder
from policylab.monitoring.alarms.alarm import Alarm, Verdict
from policylab.monitoring.alarms.dispatch import AlarmSettings, Done, dispatch
from policylab.monitoring.alarms.measurement import Measurement
from policylab.monitoring.alarms.queue_labels import QueueLabels
from policylab.monitoring.labels.store import LabelFolder

END = datetime(2026, 1, 31, 17, tzinfo=UTC)
WRONG = Measurement("live.reward", -1.0, None, True, "")


def traffic(folder: Path, *, n_episodes: int, first_minute: int) -> None:
    """Write episodes of twelve steps, one a minute before `END`."""
    rng = np.random.default_rng(0)
    for episode in range(n_episodes):
        began = END - timedelta(minutes=first_minute - episode)
        path = folder / "captured/lake/a" / hour_folder(began.timestamp()) / "1.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as lines:
            for step in range(12):
                facts = {
                    "endpoint": "lake", "variant": "a", "policy_version": "0" * 64, "variant_probability": 1.0,
                    "assignment": "random", "source": "policy", "exploration": True, "propensity": 0.25,
                    "log_propensity": -1.386, "propensity_kind": "probability", "sampling_probability": 1.0,
                    "episode": f"e{first_minute}-{episode}", "step": step,
                }  # fmt: skip
                line = captured_line(
                    decision_id=f"{first_minute}-{episode}-{step}", inference_id=None,
                    time_s=began.timestamp() + step, observation=int(rng.integers(16)),
                    action=int(rng.integers(4)), facts=facts,
                )  # fmt: skip
                lines.write(json.dumps(line) + "\n")


@pytest.fixture
def action(tmp_path: Path) -> QueueLabels:
    env = gym.make("FrozenLake-v1")
    policy = TabularPolicy(np.zeros((16, 4)), make_encoder(AutoFeatures(), env.observation_space))
    write_bundle(tmp_path / "bundle", policy, env=env, lineage=Lineage(), metrics={})
    return QueueLabels(kind="label", labels=tmp_path / "labels", data=tmp_path / "data", policy=tmp_path / "bundle",
                       pairs=5, segment_steps=4)  # fmt: skip


def alarmed(action: QueueLabels, *, minutes: int = 10) -> Done:
    """Return what comes of an alarm about the last minutes."""
    start, end = (moment.isoformat() for moment in (END - timedelta(minutes=minutes), END))
    verdict = Verdict("pond", "lake", start, end, (WRONG,), (Alarm("worse", (WRONG,)),))
    (done,) = dispatch(verdict, alarms=[AlarmSettings(name="worse", actions=(action,))], targets=[])
    return done


def test_segments_of_the_latest_episodes_wait_for_people(action: QueueLabels) -> None:
    traffic(action.data, n_episodes=10, first_minute=30)
    traffic(action.data, n_episodes=10, first_minute=180)  # longer ago than `since`
    done = alarmed(action)
    assert (done.what, done.ok) == ("worse: label", True)
    assert "5 pairs of 30 segments wait in" in done.text
    (selection,) = LabelFolder(action.labels).selections()
    assert len(selection.ids) == 5
    assert alarmed(action.model_copy(update={"since": "PT4H"})).text.startswith("5 pairs of 60 segments")


def test_without_traffic_nothing_waits_and_the_reason_is_told(action: QueueLabels) -> None:
    traffic(action.data, n_episodes=3, first_minute=180)
    done = alarmed(action)
    assert not done.ok
    assert "holds no episode that began in PT1H before 2026-01-31T17:00:00+00:00" in done.text
    assert "none of the 3 episodes has 40 steps" in alarmed(
        action.model_copy(update={"since": "P1D", "segment_steps": 40})
    ).text  # fmt: skip


def test_what_is_no_duration_is_refused() -> None:
    with pytest.raises(ValidationError, match="must be a duration such as"):
        QueueLabels(kind="label", labels=Path("l"), data=Path("d"), policy=Path("p"), since="an hour")
