"""Captured traffic of an endpoint is the same log as a recording, whatever happened to its lines on the way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents import Bundle, Lineage, TabularPolicy, make_encoder, write_bundle
from policylab.agents.features import AutoFeatures
from policylab.cli import main
from policylab.deployment.capture.format import (
    EpisodeEnd,
    captured_line,
    hour_folder,
    parse_captured,
    parse_reward,
    reward_line,
)
from policylab.deployment.capture.parquet import ParquetFiles
from policylab.errors import UserError
from policylab.experiments.recording import record
from policylab.monitoring.ope import OpeSettings, evaluate, read_log
from policylab.monitoring.ope.captured_log import CaptureQuery, read_captured_log
from policylab.monitoring.ope.log import Log

SETTINGS = OpeSettings(n_refits=0, n_resamples=100)
ALL_ZERO = CaptureQuery(missing_reward=0.0)
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    env = gym.make("FrozenLake-v1", is_slippery=False, max_episode_steps=30)
    weights = np.random.default_rng(0).normal(size=(16, 4))
    policy = TabularPolicy(weights, make_encoder(AutoFeatures(), env.observation_space), epsilon=0.7)
    return write_bundle(tmp_path_factory.mktemp("b") / "bundle", policy, env=env, lineage=Lineage(), metrics={})


@pytest.fixture(scope="module")
def recorded(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Log:
    path = tmp_path_factory.mktemp("r") / "log.parquet"
    record(bundle, path, episodes=60, seed=1)
    return read_log(path)


@pytest.fixture(scope="module")
def cut(recorded: Log) -> Log:
    """The recording, as if a limit of time had ended every third episode where it ended."""
    truncated = recorded.terminated & (recorded.episode % 3 == 0)
    return dataclasses.replace(recorded, terminated=recorded.terminated & ~truncated, truncated=truncated)


def lines_of(log: Log, **changes: Any) -> tuple[Lines, Lines]:
    """Return the lines that an endpoint writes of a recording's decisions and rewards."""
    decisions: Lines = []
    rewards: Lines = []
    for row in range(len(log)):
        facts = {
            "endpoint": "lake", "variant": "a", "policy_version": "0" * 64, "variant_probability": 1.0,
            "assignment": "random", "source": "policy", "exploration": True,
            "propensity": float(np.exp(log.log_propensity[row])), "log_propensity": float(log.log_propensity[row]),
            "propensity_kind": "probability", "episode": f"e{log.episode[row]}", "step": int(log.step[row]),
            "sampling_probability": 1.0, **changes,
        }  # fmt: skip
        name, time_s = f"d{row}", 1_700_000_000.0 + row
        decisions.append(
            captured_line(
                decision_id=name, inference_id=None, time_s=time_s, observation=int(log.observation[row]),
                action=int(log.action[row]), facts=facts,
            )
        )  # fmt: skip
        rewards.append(reward_line(name, reward=float(log.reward[row])))
    return decisions, rewards


def write(folder: Path, decisions: Lines, rewards: Lines) -> Path:
    for place, lines in (("captured/lake/a", decisions), ("ground-truth/lake", rewards)):
        hour = folder / place / hour_folder(1_700_000_000.0)
        hour.mkdir(parents=True)
        half = len(lines) // 2
        for name, part in (("1", lines[:half]), ("2", lines[half:])):
            (hour / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in part))
    return folder


def with_ends(log: Log, rewards: Lines) -> Lines:
    """Return the reward lines with the ends of episodes, as a client tells them."""
    told = []
    for row, line in enumerate(rewards):
        end = None
        if log.terminated[row] or log.truncated[row]:
            end = EpisodeEnd(
                terminated=bool(log.terminated[row]), truncated=bool(log.truncated[row]),
                next_observation=int(log.next_observation[row]),
            )  # fmt: skip
        told.append(reward_line(line["eventMetadata"]["eventId"], reward=float(log.reward[row]), end=end))
    return told


def same(first: Log, second: Log) -> bool:
    names = ("observation", "action", "reward", "log_propensity", "starts")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def shuffled(lines: Lines) -> Lines:
    return [lines[i] for i in np.random.default_rng(0).permutation(len(lines))]


def test_captured_traffic_says_what_a_recording_says(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    log = read_captured_log(write(tmp_path, *lines_of(recorded)), bundle)
    assert same(log, recorded)
    found, expected = (evaluate(bundle, one, settings=SETTINGS) for one in (log, recorded))
    for name in ("is", "pdis", "wis", "pdwis"):
        assert found.estimates[name].value == pytest.approx(expected.estimates[name].value)


def test_told_ends_make_captured_traffic_a_whole_recording(bundle: Bundle, cut: Log, tmp_path: Path) -> None:
    decisions, rewards = lines_of(cut)
    log = read_captured_log(write(tmp_path, decisions, with_ends(cut, rewards)), bundle)
    assert same(log, cut)
    assert log.ends == "whole"
    for name in ("next_observation", "terminated", "truncated"):
        assert np.array_equal(getattr(log, name), getattr(cut, name)), name
    found, expected = (evaluate(bundle, one, settings=SETTINGS) for one in (log, cut))
    assert found.estimates["dr"].value == pytest.approx(expected.estimates["dr"].value)


def test_told_ends_are_read_beside_parquet(bundle: Bundle, cut: Log, tmp_path: Path) -> None:
    decisions, rewards = lines_of(cut, shadows=[], n_dropped=0)
    folder = write(tmp_path, [], with_ends(cut, rewards))
    files = ParquetFiles(folder / "captured-parquet" / "lake")
    for line in decisions:
        files.add(line, time_s=parse_captured(json.dumps(line)).time_utc.timestamp())
    assert files.flush(last=True) == (len(decisions), 0)
    log = read_captured_log(folder, bundle)
    assert np.array_equal(log.next_observation, cut.next_observation)
    assert np.array_equal(log.truncated, cut.truncated)


def test_an_episode_without_its_end_is_left_out_where_ends_are_told(
    bundle: Bundle, recorded: Log, tmp_path: Path
) -> None:
    decisions, rewards = lines_of(recorded)
    told = with_ends(recorded, rewards)
    last = int(recorded.starts[1]) - 1
    del told[last]["policylab"]
    log = read_captured_log(write(tmp_path, decisions, told), bundle)
    assert (log.n_episodes, log.left_out) == (59, {"had not ended": 1})


def test_an_episode_that_goes_on_after_its_end_is_refused(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    decisions, rewards = lines_of(recorded)
    told = with_ends(recorded, rewards)
    told[int(recorded.starts[1]) - 2]["policylab"] = {"terminated": True}
    with pytest.raises(UserError, match="goes on after it has ended"):
        read_captured_log(write(tmp_path, decisions, told), bundle)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ({"terminated": True, "next_observation": 99}, "next_observation reported for decision d0: 99 is not a value"),
        ({"truncated": True}, "truncated needs next_observation"),
        ({"next_observation": 3}, "next_observation needs terminated or truncated"),
        ({"terminated": "yes"}, "valid boolean"),
        ({"ended": True}, "not permitted"),
        ([], "reward line"),
    ],
)
def test_an_end_that_makes_no_sense_is_one_error(
    end: Any, message: str, bundle: Bundle, recorded: Log, tmp_path: Path
) -> None:
    decisions, rewards = lines_of(recorded)
    rewards[0]["policylab"] = end
    with pytest.raises(UserError, match=message):
        read_captured_log(write(tmp_path, decisions, rewards), bundle)


def test_lines_of_rewards_without_ends_are_as_they_were() -> None:
    line = reward_line("a", reward=1.0)
    assert "policylab" not in line
    assert parse_reward(json.dumps(line)).end is None


def ordered_anyhow(decisions: Lines, rewards: Lines) -> tuple[Lines, Lines]:
    return shuffled(decisions), shuffled(rewards)


def twice(decisions: Lines, rewards: Lines) -> tuple[Lines, Lines]:
    return decisions + decisions[::3], rewards


def in_parts(decisions: Lines, rewards: Lines) -> tuple[Lines, Lines]:
    split = [reward_line(line["eventMetadata"]["eventId"], reward=1.0) for line in rewards]
    rest = [
        reward_line(line["eventMetadata"]["eventId"], reward=float(line["groundTruthData"]["data"]) - 1.0)
        for line in rewards
    ]
    return decisions, rest + split


@pytest.mark.parametrize("change", [ordered_anyhow, twice, in_parts])
def test_order_repetition_and_parts_do_not_matter(
    change: Callable[[Lines, Lines], tuple[Lines, Lines]], bundle: Bundle, recorded: Log, tmp_path: Path
) -> None:
    assert same(read_captured_log(write(tmp_path, *change(*lines_of(recorded))), bundle), recorded)


def test_missing_rewards_must_be_explained(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    decisions, rewards = lines_of(recorded)
    earned = [line for line in rewards if float(line["groundTruthData"]["data"]) > 0]
    folder = write(tmp_path, decisions, earned)
    with pytest.raises(UserError, match=r"decisions have no reward, such as d0; say what they earned"):
        read_captured_log(folder, bundle)
    assert same(read_captured_log(folder, bundle, query=ALL_ZERO), recorded)


def test_an_episode_with_a_lost_step_is_left_out(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    decisions, rewards = lines_of(recorded)
    log = read_captured_log(write(tmp_path, decisions[1:], rewards), bundle)
    assert log.left_out == {"steps are missing": 1}
    assert log.n_episodes == 59


def test_decisions_without_an_episode_are_a_bandits(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    log = read_captured_log(write(tmp_path, *lines_of(recorded, episode=None, step=None)), bundle)
    assert (log.n_episodes, set(log.lengths.tolist())) == (len(recorded), {1})
    found = evaluate(bundle, log, settings=SETTINGS)
    assert set(found.estimates) == {"ips", "snips", "dr", "sndr", "switch_dr", "dr_os", "dm"}
    assert found.estimates["ips"].value == pytest.approx(recorded.reward.mean())


def test_aimed_decisions_are_left_out_and_counted(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    decisions, rewards = lines_of(recorded)
    first = int(recorded.starts[1])
    for line in decisions[:first]:
        line["policylab"]["assignment"] = "target"
    log = read_captured_log(write(tmp_path, decisions, rewards), bundle)
    assert log.left_out == {"aimed at a variant by the client": first}
    assert log.n_episodes == 59


def test_masks_are_applied_to_the_policy_that_is_valued(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    decisions, rewards = lines_of(recorded, episode=None, step=None)
    for line in decisions:
        action = json.loads(line["captureData"]["endpointOutput"]["data"])
        line["policylab"]["mask"] = [i == action for i in range(4)]
        line["policylab"]["propensity"], line["policylab"]["log_propensity"] = 1.0, 0.0
    log = read_captured_log(write(tmp_path, decisions, rewards), bundle)
    found = evaluate(bundle, log, settings=SETTINGS)
    # Where only one action is allowed, every policy takes it.
    assert found.overlap.effective_episodes == pytest.approx(len(recorded))
    assert found.estimates["ips"].value == pytest.approx(recorded.reward.mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line["captureData"]["endpointInput"].update(data="99"), "not a value of the space"),
        (lambda line: line["captureData"]["endpointOutput"].update(data="[1]"), "not a value of the space"),
        (lambda line: line["policylab"].update(mask=[True]), "mask that does not fit"),
        (lambda line: line["policylab"].update(step=None), "has no step"),
        (lambda line: line["policylab"].pop("variant"), "captured line: variant"),
        (lambda line: line.pop("captureData"), "not a line of the capture format"),
    ],
)
def test_a_line_that_cannot_be_right_is_one_clear_error(
    change: Callable[[dict[str, Any]], None], message: str, bundle: Bundle, recorded: Log, tmp_path: Path
) -> None:
    decisions, rewards = lines_of(recorded)
    change(decisions[3])
    with pytest.raises(UserError, match=message):
        read_captured_log(write(tmp_path, decisions, rewards), bundle)


def test_no_traffic_and_several_endpoints_are_told(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must hold one endpoint, .* it holds none"):
        read_captured_log(tmp_path, bundle)
    folder = write(tmp_path / "t", *lines_of(recorded))
    (folder / "captured" / "other").mkdir()
    with pytest.raises(UserError, match="it holds lake, other"):
        read_captured_log(folder, bundle)
    assert read_captured_log(folder, bundle, query=CaptureQuery("lake")).n_episodes == 60
    with pytest.raises(UserError, match="holds no decisions of endpoint 'lake'"):
        read_captured_log(folder, bundle, query=CaptureQuery("lake", "b"))


def test_drift_is_told_apart_in_captured_traffic(
    bundle: Bundle, recorded: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    env = gym.make("FrozenLake-v1", is_slippery=False, max_episode_steps=30)
    write_bundle(tmp_path / "bundle", bundle.policy, env=env, lineage=Lineage(), metrics={})
    decisions, rewards = lines_of(recorded)
    before = write(tmp_path / "before", decisions, rewards)
    moved = json.loads(json.dumps(decisions))
    for line in moved:  # the policy now always goes down
        line["captureData"]["endpointOutput"]["data"] = "1"
    after = write(tmp_path / "after", moved, rewards)
    assert main(["monitor", "causes", str(before), str(after)]) == 2
    assert "name a policy of the task with --policy" in capsys.readouterr().err
    asked = ("--policy", str(tmp_path / "bundle"), "--json")
    assert main(["monitor", "causes", str(before), str(before), *asked]) == 0
    assert json.loads(capsys.readouterr().out)["causes"] == []
    assert main(["monitor", "causes", str(before), str(after), *asked]) == 1
    assert "policy" in json.loads(capsys.readouterr().out)["causes"]


def test_the_command_reads_captured_traffic(
    bundle: Bundle, recorded: Log, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    env = gym.make("FrozenLake-v1", is_slippery=False, max_episode_steps=30)
    write_bundle(tmp_path / "bundle", bundle.policy, env=env, lineage=Lineage(), metrics={})
    decisions, rewards = lines_of(recorded)
    folder = write(tmp_path / "t", decisions, rewards[:-1])
    assert main(["ope", str(tmp_path / "bundle"), str(folder), "--json"]) == 2
    assert "--missing-reward" in capsys.readouterr().err
    assert main(["ope", str(tmp_path / "bundle"), str(folder), "--missing-reward", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "wdr"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e200])
def test_a_reward_one_cannot_compute_with_has_not_arrived(
    bundle: Bundle, recorded: Log, tmp_path: Path, value: float
) -> None:
    decisions, rewards = lines_of(recorded)
    rewards[5] = reward_line("d5", reward=value)
    folder = write(tmp_path, decisions, rewards)
    with pytest.raises(UserError, match=r"1 of .* decisions have no reward, such as d5"):
        read_captured_log(folder, bundle)
    log = read_captured_log(folder, bundle, query=ALL_ZERO)
    assert log.left_out == {"rewards that are no usable number": 1}
    assert np.isfinite(log.reward).all()


def test_a_time_without_a_zone_is_utc(bundle: Bundle, recorded: Log, tmp_path: Path) -> None:
    decisions, rewards = lines_of(recorded)
    for line in decisions[::2]:
        line["eventMetadata"]["inferenceTime"] = line["eventMetadata"]["inferenceTime"].rstrip("Z")
    assert same(read_captured_log(write(tmp_path, decisions, rewards), bundle), recorded)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("policylab", "log_propensity"), 0.7, "log_propensity 0.7 is of no probability"),
        (("eventMetadata", "eventId"), ["d5"], "an id must be text, got list"),
        (("eventMetadata", "inferenceId"), True, "an id must be text, got bool"),
    ],
)
def test_an_impossible_line_is_told_with_its_place(
    bundle: Bundle, recorded: Log, tmp_path: Path, place: tuple[str, str], value: Any, message: str
) -> None:
    decisions, rewards = lines_of(recorded)
    decisions[5][place[0]][place[1]] = value
    with pytest.raises(UserError, match=rf"1\.jsonl:6: .*{message}"):
        read_captured_log(write(tmp_path, decisions, rewards), bundle)
