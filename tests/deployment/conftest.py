"""Bundles to serve, endpoints of them, and real servers on free loopback ports."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policylab.agents.bundle import Lineage, write_bundle
from policylab.agents.features import AutoFeatures, make_encoder
from policylab.agents.value_policies import TabularPolicy
from policylab.deployment.decision import DecisionRequest
from policylab.deployment.endpoint import EndpointConfig
from policylab.deployment.fleet import load_fleet
from policylab.deployment.guardrails.rollout import Rollout
from policylab.deployment.policy_server import PolicyServer
from policylab.deployment.state import EndpointState, StateFile

LINEAGE = Lineage(created_utc="2026-01-01T00:00:00+00:00")
N_STATES, N_ACTIONS = 16, 4


def lake_bundle(folder: Path, *, action: int | None = None, seed: int = 0, **options: Any) -> Path:
    """Write a tabular policy of FrozenLake: of random values, or one that prefers ``action`` everywhere."""
    env = gym.make("FrozenLake-v1")
    values = np.random.default_rng(seed).normal(size=(N_STATES, N_ACTIONS))
    if action is not None:
        values[:, action] = 10.0
    policy = TabularPolicy(values, make_encoder(AutoFeatures(), env.observation_space), **options)
    write_bundle(folder, policy, env=env, lineage=LINEAGE, metrics={})
    return folder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Policies that differ in what they do: ``left`` and ``right`` always the same, ``random`` at random."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "left": lake_bundle(folder / "left", action=0),
        "right": lake_bundle(folder / "right", action=2),
        "soft": lake_bundle(folder / "soft", seed=1, temperature=1.0),
        "random": lake_bundle(folder / "random", epsilon=1.0),
    }


def endpoint(*variants: dict[str, Any], **sections: Any) -> EndpointConfig:
    """Return the endpoint ``lake`` of some variants."""
    return EndpointConfig.model_validate({"name": "lake", "variants": variants, **sections})


@contextlib.contextmanager
def served(config: EndpointConfig, **options: Any) -> Iterator[PolicyServer]:
    """Decide for an endpoint in this process."""
    server = PolicyServer(load_fleet(config), **options)
    try:
        yield server
    finally:
        server.close()


class ServerProcess:
    """``policylab serve`` on a free port, as a user starts it."""

    def __init__(self, source: Path, *options: str, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "policylab", "serve", str(source), "--port", "0", "--json", *options]
        with tempfile.NamedTemporaryFile(delete=False) as log:
            self._log = Path(log.name)
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(env or {})}
            )
        assert self.process.stdout is not None
        with self.process.stdout as printed:
            readable, _, _ = select.select([printed], [], [], 60.0)
            line = printed.readline() if readable else ""
        if '"url"' not in line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10.0)
            self.kill()
            raise AssertionError(f"the server did not start: {self.errors}")
        document = json.loads(line)
        self.url, self.name = document["url"], document["name"]
        self.port = int(self.url.rpartition(":")[2])

    @property
    def errors(self) -> str:
        """What it has printed on its standard error."""
        return self._log.read_text()

    def stop(self) -> int:
        """Stop it as a supervisor does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30.0)

    def kill(self) -> None:
        """Kill it as the kernel does when memory is short."""
        self.process.kill()
        self.process.wait(30.0)


@contextlib.contextmanager
def running(source: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[ServerProcess]:
    """Run a server; it is ended whatever happens."""
    server = ServerProcess(source, *options, env=env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def endpoint_file(folder: Path, config: dict[str, Any]) -> Path:
    """Write an endpoint file; JSON is YAML."""
    path = folder / "endpoint.yaml"
    path.write_text(json.dumps(config, default=str))
    return path


CANARY = {"kind": "canary", "size": 0.2, "bake_s": 60.0}
LINEAR = {"kind": "linear", "size": 0.25, "bake_s": 10.0}
PROMOTION = {"reward_low": 0.0, "reward_high": 1.0, "min_decisions": 50}


class Deployed:
    """An endpoint of ``left`` with a clock to turn; `update` brings ``right``."""

    def __init__(self, bundles: dict[str, Path], folder: Path, *, first: str = "left") -> None:
        self.now, self.bundles, self.folder, self.first = 0.0, bundles, folder, first
        self.servers: list[PolicyServer] = []
        self.start()

    def config(self, name: str, **sections: Any) -> EndpointConfig:
        return endpoint({"name": "main", "bundle": self.bundles[name]}, **sections)

    def start(self) -> None:
        """Start it anew from what is on disk, as after a kill."""
        file = StateFile(self.folder)
        config = self.config(self.first)
        state = file.read() or EndpointState(file_hash=config.config_hash, config=config)
        fleet = load_fleet(state.config, generation=state.generation)
        self.server = PolicyServer(fleet, clock=lambda: self.now, secret=file.secret())
        self.servers.append(self.server)
        self.rollout = Rollout(self.server, state, file=file, clock=lambda: self.now)
        if state.update is not None:
            self.rollout.resume(load_fleet(state.update.config, generation=state.generation + 1))

    def update(self, guardrail: dict[str, Any], *, to: str = "right", **sections: Any) -> None:
        config = self.config(to, guardrail=guardrail, **sections)
        self.rollout.begin(load_fleet(config, generation=self.rollout.state.generation + 1))

    def share(self, action: int, n: int = 2000) -> float:
        decisions = [self.server.decide(DecisionRequest((3,))).decisions[0] for _ in range(n)]
        return float(np.mean([one.action == action for one in decisions]))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.rollout.tick()

    def last(self) -> tuple[str, str]:
        event = self.rollout.state.events[-1]
        return event.what, event.text

    def play(self, n: int, reward: Callable[[Any], float], *, late: bool = False) -> None:
        """Decide and report rewards, at once or afterwards."""
        decisions = [self.server.decide(DecisionRequest((3,))).decisions[0] for _ in range(n)]
        self.now += 1.0 if late else 0.0
        for one in decisions:
            self.server.rewards.take(one.decision_id, reward=reward(one))


@pytest.fixture
def deployed(bundles: dict[str, Path], tmp_path: Path) -> Iterator[Deployed]:
    found = Deployed(bundles, tmp_path / "state")
    yield found
    for server in found.servers:
        server.close()


def wait_written(recorder: Any, n: int) -> None:
    """Wait until the recorder has written or dropped so many in all."""
    for _ in range(3000):
        if recorder.n_written + recorder.n_dropped >= n:
            return
        threading.Event().wait(0.01)
    raise AssertionError("the recorder does not come to an end")
