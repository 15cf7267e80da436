"""A monitor at work on this machine: an endpoint, an environment that changes, the alarm, its cause, and the rollback.

A policy that is optimal on firm ice (FrozenLake without slipping) serves; the ice becomes slippery. The endpoint's
earlier version, which is optimal on slippery ice, takes over again. Both policies are exact.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from policylab.agents.bundle import Lineage, write_bundle
from policylab.agents.features import AutoFeatures, make_encoder
from policylab.agents.value_policies import TabularPolicy
from policylab.deployment.http.client import EndpointClient
from policylab.envs.enumeration import table_for
from policylab.envs.planners import value_iteration
from policylab.envs.settings import EnvSettings
from policylab.errors import RunError
from policylab.files import write_atomic
from policylab.monitoring.outcomes.joined import OutcomeQuery, read_outcomes
from policylab.monitoring.outcomes.measures import measure
from policylab.monitoring.profiles.profile import profile_of
from policylab.monitoring.schedule.baselines import write_data_baseline, write_quality_baseline
from policylab.monitoring.schedule.monitor_file import load_monitor
from policylab.monitoring.schedule.summary import html, read_windows
from policylab.monitoring.schedule.watch import watch_live

ENVIRONMENT, LIMIT = "FrozenLake-v1", 60
EPSILON, DISCOUNT = 0.05, 0.99
BASELINE_EPISODES, RECOVERY_EPISODES, MAX_EPISODES = 80, 80, 400
START_S, ALARM_S = 60.0, 60.0
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class DemoResult:
    """What came of it.

    Attributes:
        return_before: mean return of episodes before the ice became slippery.
        return_shifted: while the wrong policy was on slippery ice.
        return_after: after the rollback.
        seconds_to_alarm: from the first decision on slippery ice.
        causes: names of the layers that were found to have drifted by themselves.
        report: the page.
    """

    return_before: float
    return_shifted: float
    return_after: float
    seconds_to_alarm: float
    causes: tuple[str, ...]
    report: Path


def demo(folder: Path, *, say: Say = lambda _: None, seed: int = 0) -> DemoResult:
    """Play it in ``folder``; return what came of it.

    Raises:
        RunError: no alarm was raised, or the endpoint failed.
        MissingExtraError: the extra ``serve`` is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, slippery in (("quick", False), ("cautious", True)):
        _bundle(folder / name, slippery=slippery)
        variants = [{"name": name, "bundle": name}]
        config = {"name": "lake", "variants": variants, "capture": {"folder": "data", "max_disk_use": 1.0}}
        write_atomic(folder / f"{name}.yaml", json.dumps(config))
    with _served(folder / "quick.yaml") as url:
        player = _Player(url, seed=seed)
        say("the policy that is optimal on firm ice serves; a baseline is taken")
        before = player.play(BASELINE_EPISODES, slippery=False)
        _baselines(folder, n=player.n_decisions)
        found = _shift(folder, player, say=say, url=url)
        say("rolled back; the ice is still slippery")
        after = player.play(RECOVERY_EPISODES, slippery=True)
    report = folder / "report.html"
    write_atomic(report, html(read_windows(folder / "monitored")))
    return dataclasses.replace(found, return_before=before, return_after=after, report=report)


def _shift(folder: Path, player: _Player, *, say: Say, url: str) -> DemoResult:
    """Make the ice slippery, play until the monitor has rolled the endpoint back."""
    config = load_monitor(_monitor_file(folder, url))
    stop, ready, told, failed = threading.Event(), threading.Event(), [], []

    def watch() -> None:
        try:
            watch_live(config, stop=stop, ready=ready.set, alarmed=lambda one: told.append((time.monotonic(), one)))
        except Exception as error:  # told below, on the thread that waits
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    ready.wait(START_S)
    say("the ice becomes slippery")
    began, returns = time.monotonic(), list[float]()
    try:
        while not failed and not any(one["checks"] for _, one in told) and len(returns) < MAX_EPISODES:
            n_told = len(told)
            returns.append(player.play(1, slippery=True))
            for at, one in told[n_told:]:
                say(f"after {at - began:.1f} s: {'; '.join(alarm['text'] for alarm in one['alarms']) or 'no alarm'}")
        deadline = time.monotonic() + ALARM_S
        while not failed and not any(one["checks"] for _, one in told) and time.monotonic() < deadline:
            stop.wait(0.1)
    finally:
        stop.set()
        thread.join(ALARM_S)
    if failed:
        raise RunError(f"the watch failed: {failed[0]}") from failed[0]
    checked = next((one for _, one in told if one["checks"]), None)
    if checked is None or not checked["alarms"]:
        raise RunError("no alarm was raised")
    causes = next(check for check in checked["checks"] if check["kind"] == "causes")
    say(f"cause: {causes['text']}")
    for done in checked["done"]:
        say(f"{done['what']}: {done['text']}")
    named = tuple(causes["result"].get("causes", ()))
    return DemoResult(0.0, float(np.mean(returns)), 0.0, told[0][0] - began, named, folder)


def _bundle(path: Path, *, slippery: bool) -> None:
    settings = EnvSettings(id=ENVIRONMENT, kwargs={"is_slippery": slippery}, max_episode_steps=LIMIT)
    table = table_for(settings)
    assert table is not None
    with contextlib.closing(_env(slippery=slippery)) as env:
        values = value_iteration(table, discount=DISCOUNT).action_values
        encoder = make_encoder(AutoFeatures(), env.observation_space)
        policy = TabularPolicy(values, encoder, epsilon=EPSILON)
        write_bundle(path, policy, env=env, lineage=Lineage(), metrics={})


def _env(*, slippery: bool) -> gym.Env[Any, Any]:
    return gym.make(ENVIRONMENT, is_slippery=slippery, max_episode_steps=LIMIT)


def _baselines(folder: Path, *, n: int) -> None:
    """Wait until all decisions are written, then keep that traffic as the baseline of every check."""
    data, then = folder / "data", folder / "then"
    deadline = time.monotonic() + START_S
    while len(outcomes := read_outcomes(data, query=OutcomeQuery(missing_reward=0.0))) < n:
        if time.monotonic() > deadline:
            raise RunError(f"only {len(outcomes)} of {n} decisions were captured")
        time.sleep(0.1)
    time.sleep(0.5)  # what the recorder still holds of the last episode's reward
    data.rename(then)
    write_data_baseline(folder / "base", profile_of([then]))
    found = measure(read_outcomes(then, query=OutcomeQuery(missing_reward=0.0)))
    write_quality_baseline(folder / "good", found)


def _monitor_file(folder: Path, url: str) -> Path:
    path = folder / "monitor.yaml"
    back = {"kind": "rollback", "url": url, "to": "cautious.yaml"}
    config = {
        "name": "lake", "data": "data", "endpoint": "lake", "policy": "quick", "out": "monitored",
        "checks": [
            {"kind": "data", "baseline": "base"},
            {"kind": "quality", "baseline": "good", "missing_reward": 0.0},
            {"kind": "causes", "baseline": "then"},
        ],
        "alarms": [
            {"name": "stream", "of": "live.*"},
            {"name": "environment", "of": "causes.transition", "actions": [back]},
            {"name": "worse", "of": "quality.return_mean"},
        ],
        "targets": [{"kind": "file", "path": "alarms.jsonl"}],
    }  # fmt: skip
    write_atomic(path, json.dumps(config, indent=1))
    return path


class _Player:
    """Plays episodes with the endpoint's decisions; reports each return, and how it ended, with the last decision."""

    def __init__(self, url: str, *, seed: int) -> None:
        self.n_decisions = 0
        self._client = EndpointClient(url)
        self._number = itertools.count()
        self._seed = seed

    def play(self, episodes: int, *, slippery: bool) -> float:
        """Return the mean return."""
        with contextlib.closing(_env(slippery=slippery)) as env:
            return float(np.mean([self._episode(env) for _ in range(episodes)]))

    def _episode(self, env: gym.Env[Any, Any]) -> float:
        number, total = next(self._number), 0.0
        observation, _ = env.reset(seed=self._seed * 1_000_003 + number)
        for step in itertools.count():
            asked = {"observation": int(observation), "episode": f"e{number}", "step": step}
            answer = self._client.post("/invocations", asked)
            self.n_decisions += 1
            observation, reward, terminated, truncated, _ = env.step(answer["action"])
            total += float(reward)
            if terminated or truncated:
                report = {
                    "decision_id": answer["decision_id"], "reward": total, "terminated": bool(terminated),
                    "truncated": bool(truncated), "next_observation": int(observation),
                }  # fmt: skip
                self._client.post("/rewards", {"rewards": [report]})
                return total
        raise AssertionError


@contextlib.contextmanager
def _served(path: Path) -> Iterator[str]:
    """Serve an endpoint file in a process of its own; yield its address."""
    command = [sys.executable, "-m", "policylab", "serve", str(path), "--port", "0", "--json"]
    with (path.parent / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline() if readable else ""
        if '"url"' not in line:
            raise RunError(f"the endpoint did not start; see {path.parent / 'server.log'}")
        yield json.loads(line)["url"]
    finally:
        process.terminate()
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
