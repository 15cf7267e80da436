"""Steps per second of Q-learning: a NumPy loop, the plain agent, the compiled agent, and C, side by side.

Every round measures each of them once, in turn, in processor seconds of one thread; the ratios are medians
over rounds. Run it with ``python benchmarks/tabular_speed.py``; it needs a C compiler called ``cc``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from policylab.agents.build import make_agent
from policylab.agents.tabular.compiled import train_many
from policylab.agents.tabular.compiled_table import sampled_table
from policylab.agents.tabular.q_learning import QLearningSettings
from policylab.envs.enumeration import table_of
from policylab.envs.make import make_env, resolve
from policylab.envs.settings import EnvSettings
from policylab.envs.table import TabularMDP
from policylab.seeding import generator, generator_state

FRACTION, ALPHA, GAMMA = 0.5, 0.1, 0.99
SCHEDULES = {"ε = 0.1": (0.1, 0.1), "ε 1 to 0.05": (1.0, 0.05)}
"""Exploration: Sutton & Barto's constant, which is the default, and a line over the first half of the budget."""

Schedule = tuple[float, float]
SEED = 1
FLAGS = ["-O3", "-ffp-contract=off", "-shared", "-fPIC"]


def settings(execution: str, schedule: Schedule) -> QLearningSettings:
    epsilon = {"kind": "linear", "start": schedule[0], "end": schedule[1], "fraction": FRACTION}
    exploration = {"kind": "epsilon_greedy", "epsilon": epsilon}
    return QLearningSettings.model_validate(
        {"learning_rate": ALPHA, "discount": GAMMA, "exploration": exploration, "execution": execution}
    )


def cpu_s(work: Callable[[], Any]) -> float:
    before = time.thread_time()
    work()
    return time.thread_time() - before


class CTable(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_int) for name in ("n_states", "n_actions", "n_outcomes", "max_episode_steps")],
        *[(name, ctypes.c_void_p) for name in ("cumulative", "reward", "initial", "next_state", "terminated")],
    ]


class CSettings(ctypes.Structure):
    _fields_ = [
        *[(name, ctypes.c_double) for name in ("learning_rate", "discount", "start", "end", "rate")],
        ("horizon", ctypes.c_int64),
    ]


class CLoop:
    """The C reference over one table."""

    def __init__(self, mdp: TabularMDP, folder: Path) -> None:
        library = folder / "q_learning.so"
        source = Path(__file__).with_name("q_learning.c")
        subprocess.run(["cc", *FLAGS, str(source), "-o", str(library)], check=True)
        self._function = ctypes.CDLL(str(library)).q_learning
        self._mdp = mdp
        self._arrays = sampled_table(mdp)

    def run(self, steps: int, schedule: Schedule) -> NDArray[np.float64]:
        """Train for ``steps`` steps from the streams of `SEED`; return the Q-table."""
        t, q = self._arrays, np.zeros((self._mdp.n_states, self._mdp.n_actions))
        pointers = (array.ctypes.data for array in (t.cumulative, t.reward, t.initial, t.next_state, t.terminated))
        shape = (self._mdp.n_states, t.n_actions, t.n_outcomes)
        table = CTable(*shape, t.limit, *pointers)
        horizon = max(int(FRACTION * steps), 1)
        start, end = schedule
        agent = CSettings(ALPHA, GAMMA, start, end, (end - start) / horizon, horizon)
        words = np.concatenate([generator_state(generator(SEED, name)) for name in ("agent", "environment")])
        data = [ctypes.c_void_p(array.ctypes.data) for array in (q, words)]
        self._function(ctypes.byref(table), ctypes.byref(agent), *data, ctypes.c_int64(steps))
        return q


def numpy_loop(env_id: str, steps: int, *, schedule: Schedule) -> None:
    """Q-learning over ``gym.make`` as tutorials write it: NumPy rows, one step after the other."""
    env = gym.make(env_id)
    rng = np.random.default_rng(SEED)
    q = np.zeros((int(env.observation_space.n), int(env.action_space.n)))  # type: ignore[attr-defined]
    state, _ = env.reset(seed=SEED)
    start, end = schedule
    for t in range(steps):
        epsilon = max(end, start + (end - start) * t / (FRACTION * steps))
        if rng.random() < epsilon:
            action = int(rng.integers(q.shape[1]))
        else:
            action = int(rng.choice(np.flatnonzero(q[state] == q[state].max())))
        next_state, reward, terminated, truncated, _ = env.step(action)
        target = reward + (0.0 if terminated else GAMMA * q[next_state].max())
        q[state, action] += ALPHA * (float(target) - q[state, action])
        state = env.reset()[0] if terminated or truncated else next_state


def one_round(
    environment: EnvSettings, loop: CLoop, *, schedule: Schedule, steps: int, plain_steps: int
) -> dict[str, float]:
    """Return steps per processor second of each, in millions."""
    plain = make_agent(settings("plain", schedule), environment, seed=SEED, budget_steps=plain_steps)
    compiled = make_agent(settings("compiled", schedule), environment, seed=SEED, budget_steps=steps)
    compiled.learn(0)
    env_id = resolve(environment).id
    seconds = {
        "numpy_loop": cpu_s(lambda: numpy_loop(env_id, plain_steps, schedule=schedule)) / plain_steps,
        "plain": cpu_s(lambda: plain.learn(plain_steps)) / plain_steps,
        "compiled": cpu_s(lambda: compiled.learn(steps)) / steps,
        "c": cpu_s(lambda: loop.run(steps, schedule)) / steps,
    }
    return {name: 1e-6 / spent for name, spent in seconds.items()}


def measure(env_id: str, exploration: str, *, rounds: int, steps: int, folder: Path) -> dict[str, Any]:
    environment, schedule = EnvSettings(id=env_id), SCHEDULES[exploration]
    mdp = table_of(make_env(environment))
    loop = CLoop(mdp, folder)
    agent = make_agent(settings("compiled", schedule), environment, seed=SEED, budget_steps=200_000)
    agent.learn(200_000)
    equal = bool(np.array_equal(loop.run(200_000, schedule), agent.q))  # type: ignore[attr-defined]
    found = [one_round(environment, loop, schedule=schedule, steps=steps, plain_steps=30_000) for _ in range(rounds)]

    def median(key: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(map(key, found))

    return {
        "env": env_id,
        "exploration": exploration,
        "million_steps_per_s": {name: round(median(lambda r, n=name: r[n]), 4) for name in found[0]},  # type: ignore[misc]
        "compiled_over_numpy_loop": round(median(lambda r: r["compiled"] / r["numpy_loop"])),
        "compiled_over_plain": round(median(lambda r: r["compiled"] / r["plain"])),
        "compiled_over_c": round(median(lambda r: r["compiled"] / r["c"]), 3),
        "q_table_equals_c": equal,
    }


def cores(env_id: str, *, steps: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Return what share of perfect speed-up all cores reach, ours and that of the C loop in as many threads.

    From the best wall-clock time of many short rounds. C shares nothing between its threads, so where it falls
    short of 1 the machine was busy, and only the ratio of the two says something.
    """
    mdp, n_cores = table_of(make_env(EnvSettings(id=env_id))), os.cpu_count() or 1
    schedule = SCHEDULES["ε 1 to 0.05"]
    loop, pairs = CLoop(mdp, folder), [(settings("auto", schedule), seed) for seed in range(4 * n_cores)]
    train_many(mdp, pairs[:1], steps=1)

    def c_many(n_threads: int) -> None:
        with ThreadPoolExecutor(n_threads) as threads:
            list(threads.map(lambda _: loop.run(steps, schedule), pairs))

    works: dict[str, Callable[[int], Any]] = {
        "efficiency": lambda n_threads: train_many(mdp, pairs, steps=steps, n_threads=n_threads),
        "c_efficiency": c_many,
    }
    walls: dict[tuple[str, int], float] = {}
    for _ in range(rounds):
        for name, work in works.items():
            for n_threads in (1, n_cores):
                before = time.perf_counter()
                work(n_threads)
                spent = time.perf_counter() - before
                walls[name, n_threads] = min(spent, walls.get((name, n_threads), spent))
    shares = {name: round(walls[name, 1] / walls[name, n_cores] / n_cores, 3) for name in works}
    return {"cores": n_cores, "pairs": len(pairs), "steps_each": steps, **shares}


def start_up(folder: Path) -> dict[str, float]:
    """Return the seconds a process needs to its first compiled step, without and with the cache on disk."""
    probe = (
        "import time; t = time.perf_counter()\n"
        "from policylab.agents.build import make_agent\n"
        "from policylab.envs.settings import EnvSettings\n"
        "settings = {'kind': 'q_learning', 'execution': 'compiled'}\n"
        "make_agent(settings, EnvSettings(id='FrozenLake-v1'), seed=0, budget_steps=1).learn(1)\n"
        "print(time.perf_counter() - t)\n"
    )
    environment = {**os.environ, "POLICYLAB_CACHE_DIR": str(folder / "cache")}
    seconds = [
        float(subprocess.run([sys.executable, "-c", probe], env=environment, check=True, capture_output=True).stdout)
        for _ in range(2)
    ]
    return {"cold_s": round(seconds[0], 2), "warm_s": round(seconds[1], 2)}


def print_table(found: dict[str, Any]) -> None:
    columns = ("numpy_loop", "plain", "compiled", "c")
    print("Q-learning, million steps per processor second of one thread (medians)\n")
    print(
        f"{'environment':30s}" + "".join(f"{name:>12s}" for name in columns) + "   /numpy   /plain      /C  same Q as C"
    )
    for row in found["one_thread"]:
        speeds = "".join(f"{row['million_steps_per_s'][name]:12.4f}" for name in columns)
        ratios = f"{row['compiled_over_numpy_loop']:9d}{row['compiled_over_plain']:9d}{row['compiled_over_c']:8.2f}"
        print(f"{row['env'] + ', ' + row['exploration']:30s}{speeds}{ratios}  {row['q_table_equals_c']}")
    many = found["all_cores"]
    cold, warm = found["start_up"]["cold_s"], found["start_up"]["warm_s"]
    shares = f"efficiency {many['efficiency']:.2f}, C {many['c_efficiency']:.2f}"
    print(f"\nall {many['cores']} cores ({many['pairs']} pairs): {shares}")
    print(f"first compiled step of a process: {cold} s cold, {warm} s warm\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10_000_000, help="of the compiled agent and of C, per round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environments = ("Taxi-v4", "FrozenLake-v1", "CliffWalking-v1")
        found = {
            "one_thread": [
                measure(env_id, exploration, rounds=arguments.rounds, steps=arguments.steps, folder=folder)
                for env_id in environments
                for exploration in SCHEDULES
            ],
            "all_cores": cores("Taxi-v4", steps=arguments.steps // 10, rounds=30, folder=folder),
            "start_up": start_up(folder),
        }
    print_table(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
