"""A rollout to look at: a bad candidate is rolled back and a good one promoted, by evidence alone, on a real server.

The world is a ten-armed bandit (`policylab.envs.textbook.bandit`). The policy that serves prefers an arm of medium
value, the bad candidate the worst one, the good candidate the best; all explore with probability 0.1. Decisions are
asked over HTTP, and what the world pays is reported as a reward.

    OUT/endpoint.yaml, bad.yaml, good.yaml    the versions
    OUT/timeline.json                         what was seen, several times a second, and every event
    OUT/rollout.png                           the same as a figure
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from policylab.agents.bundle import Lineage, write_bundle
from policylab.agents.features import AutoFeatures, make_encoder
from policylab.agents.value_policies import TabularPolicy
from policylab.deployment.http.client import EndpointClient
from policylab.deployment.processes.background import BackgroundEndpoint
from policylab.errors import RunError, UserError
from policylab.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "demo"
PHASE_S = 60.0
LOOK_S = 0.1
N_ASKED = 20
DECISIONS_PER_S = 500.0
"""At most: evidence comes in as slowly as it can be watched, on any machine."""
BEFORE_S = 1.0
REWARDS = (-4.0, 4.0)
VERSIONS = ("endpoint", "bad", "good")


class World:
    """A bandit and the connection to the endpoint that plays it.

    Args:
        env: the bandit, dealt.
        url: of the server.
    """

    def __init__(self, env: gym.Env[Any, Any], url: str) -> None:
        self._env = env
        self._connection = http.client.HTTPConnection(str(urllib.parse.urlsplit(url).netloc), timeout=30.0)
        self.n_decisions = 0

    def play(self, n: int) -> float:
        """Ask for decisions, act, report the rewards; return their mean."""
        reports = []
        for _ in range(n):
            decision = self._post("invocations", 0)
            _, reward, *_ = self._env.step(decision["action"])
            reports.append({"decision_id": decision["decision_id"], "reward": float(reward)})
        self._post("rewards", {"rewards": reports})
        self.n_decisions += n
        return float(np.mean([report["reward"] for report in reports]))

    def _post(self, page: str, document: Any) -> Any:
        headers = {"content-type": "application/json"}
        self._connection.request("POST", f"/endpoints/{NAME}/{page}", json.dumps(document), headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RunError(f"the demo's endpoint refused a request with {response.status}: {content[:200]!r}")
        return json.loads(content)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def rollout_demo(out: Path, *, seed: int = 0) -> dict[str, Any]:
    """Play the demonstration; return what came of it.

    Args:
        out: folder to write; must not hold another one.
        seed: of the bandit.

    Raises:
        UserError: ``out`` is in use.
        RunError: the server failed, or an update did not end as it should.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; give another --out")
    env = gym.make("policylab/Bandit-v0", reward_std=0.5, max_episode_steps=10_000_000)
    env.reset(seed=seed)
    write_versions(out, env)
    endpoint = BackgroundEndpoint(out / "endpoints", NAME)
    server = endpoint.create([str(out / "endpoint.yaml"), "--port", "0"])
    world = World(env, server.url)
    try:
        timeline, ended = _played(world, EndpointClient(server.url, name=NAME), out=out)
    finally:
        world.close()
        endpoint.delete()
    write_atomic(out / "timeline.json", json.dumps(timeline, indent=1))
    draw(timeline, out / "rollout.png")
    return {
        "bad": ended["bad"],
        "good": ended["good"],
        "n_decisions": world.n_decisions,
        "figure": str(out / "rollout.png"),
        "timeline": str(out / "timeline.json"),
    }


def write_versions(out: Path, env: gym.Env[Any, Any]) -> None:
    """Write the three policies and their endpoint files."""
    means = env.unwrapped.q  # type: ignore[attr-defined]
    order = np.argsort(means)
    for name, arm in zip(VERSIONS, (order[len(order) // 2], order[0], order[-1]), strict=True):
        values = np.zeros((1, len(means)))
        values[0, arm] = 1.0
        policy = TabularPolicy(values, make_encoder(AutoFeatures(), env.observation_space), epsilon=0.1)
        lineage = Lineage(created_utc=datetime.now(UTC).isoformat(timespec="seconds"))
        write_bundle(out / "bundles" / name, policy, env=env, lineage=lineage, metrics={})
        document = {
            "name": NAME,
            "variants": [{"name": "main", "bundle": f"bundles/{name}"}],
            "guardrail": {
                "kind": "canary",
                "size": 0.3,
                "bake_s": 1.5,
                "promotion": {"reward_low": REWARDS[0], "reward_high": REWARDS[1], "max_wait_s": PHASE_S},
            },
        }
        write_atomic(out / f"{name}.yaml", json.dumps(document, indent=1))  # JSON is YAML


def _played(world: World, client: EndpointClient, *, out: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Update to the bad and to the good candidate; return what was seen, and how each update ended."""
    from policylab.deployment.endpoint import load_endpoint

    began, samples, ended = time.time(), list[dict[str, Any]](), dict[str, str]()

    def look(phase: str, rewards: list[float]) -> dict[str, Any]:
        status = client.get("")
        update = status["update"] or {}
        sample = {
            "time_s": round(time.time() - began, 3),
            "phase": phase,
            "share": update.get("share", 0.0),
            "difference": (update.get("evidence") or {}).get("difference"),
            "mean_reward": float(np.mean(rewards)),
        }
        samples.append(sample)
        return status

    def play(phase: str, until: float) -> dict[str, Any]:
        look_at, rewards = time.monotonic() + LOOK_S, list[float]()
        while time.monotonic() < min(look_at, until) or not rewards:
            following = time.monotonic() + N_ASKED / DECISIONS_PER_S
            rewards.append(world.play(N_ASKED))
            time.sleep(max(0.0, following - time.monotonic()))
        return look(phase, rewards)

    for phase, expected in (("bad", "rolled back"), ("good", "updated")):
        quiet = time.monotonic() + BEFORE_S
        while time.monotonic() < quiet:
            play("serving", quiet)
        client.post("/update", {"config": load_endpoint(out / f"{phase}.yaml").model_dump(mode="json")})
        until = time.monotonic() + PHASE_S
        while (status := play(phase, until))["update"] is not None:
            if time.monotonic() > until:
                raise RunError(f"the update to the {phase} candidate has not ended in {PHASE_S:g} s")
        last = status["events"][-1]
        ended[phase] = f"{last['what']}: {last['text']}"
        if last["what"] != expected:
            raise RunError(f"the {phase} candidate should be {expected}, but: {ended[phase]}")
    quiet = time.monotonic() + BEFORE_S
    while time.monotonic() < quiet:
        status = play("serving", quiet)
    events = [{**event, "time_s": round(event["time_s"] - began, 3)} for event in status["events"]]
    return {"samples": samples, "events": events}, ended


def draw(timeline: dict[str, Any], path: Path) -> None:
    """Draw what was seen into a PNG file."""
    from policylab.experiments.report.style import PAPER, house_style

    with house_style():
        figure_of(timeline).savefig(path, dpi=150, facecolor=PAPER)


def figure_of(timeline: dict[str, Any]) -> Figure:
    """Return the figure: share of the new version, the interval of the difference, the mean reward."""
    from matplotlib.figure import Figure

    from policylab.experiments.report.style import MUTED, OPTIMUM, TUNE, WIDTH

    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    shares, differences, rewards = figure.subplots(3, 1, sharex=True)
    samples = timeline["samples"]
    times = [sample["time_s"] for sample in samples]
    shares.step(times, [100.0 * sample["share"] for sample in samples], where="post", color=TUNE)
    shares.set_title("A bad candidate is rolled back, a good one promoted")
    shares.set_ylabel("traffic of the\ncandidate, %")
    shares.set_ylim(-4.0, 112.0)
    _draw_intervals(differences, samples)
    rewards.plot(times, [sample["mean_reward"] for sample in samples], color=OPTIMUM)
    rewards.set_ylabel("mean reward\nof a decision")
    rewards.set_xlabel("seconds")
    for event in timeline["events"]:
        for axes in (shares, differences, rewards):
            axes.axvline(event["time_s"], color=MUTED, linewidth=0.8, linestyle=":")
    _name_ends(shares, timeline["events"])
    return figure


def _draw_intervals(axes: Axes, samples: list[dict[str, Any]]) -> None:
    from policylab.experiments.report.style import FAILED, MUTED, OPTIMUM

    for phase, colour in (("bad", FAILED), ("good", OPTIMUM)):
        found = [(one["time_s"], *one["difference"]) for one in samples if one["phase"] == phase and one["difference"]]
        if found:
            times, lows, highs = zip(*found, strict=True)
            axes.fill_between(times, lows, highs, color=colour, alpha=0.25, linewidth=0.0)
            axes.plot(times, [(low + high) / 2.0 for _, low, high in found], color=colour, linewidth=1.0)
    axes.axhline(0.0, color=MUTED, linewidth=0.8)
    axes.set_ylabel("candidate minus\nserving, interval")


def _name_ends(axes: Axes, events: list[dict[str, Any]]) -> None:
    """Write beside the line of each event what it was."""
    names = {"update": "update", "rolled back": "rolled back", "updated": "promoted"}
    for event in events:
        if event["what"] in names:
            axes.annotate(names[event["what"]], (event["time_s"], 110.0), xytext=(3, 0), textcoords="offset points",
                          fontsize=8, va="top")  # fmt: skip
