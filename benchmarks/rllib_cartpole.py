"""PPO on CartPole-v1 to a 100-episode mean return of 475: the whole process, from a cold start.

    python -m benchmarks.rllib_cartpole [--seeds 5] [--contenders policylab rllib sb3] [--overhead]

Each run is a process of its own that imports, builds, trains and ends when the mean return of its last 100 training
episodes reaches 475, or after 400,000 steps. Rounds alternate between contenders; the table has medians over seeds.

| contender | what |
|---|---|
| policylab | the agent of the shipped `cartpole_ppo`, through policylab's own loop |
| rllib_same | RLlib with the same settings, through ``algo.train()``, started as RLlib's documentation does |
| rllib | RLlib's own defaults: two remote env runners, 2x256 network, torch's own number of threads |
| sb3 | Stable-Baselines3 with the hyperparameters of rl-baselines3-zoo, if it is installed |

``--overhead`` compares, in one process and in turns, an iteration of policylab's loop with one of ``algo.train()``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

GOAL, WINDOW, LIMIT = 475.0, 100, 400_000


class Mean100:
    """The mean return of the last 100 episodes, told in groups that ended in one iteration."""

    def __init__(self) -> None:
        self._returns: deque[float] = deque(maxlen=WINDOW)

    def reached(self, returns: Iterable[float]) -> bool:
        self._returns.extend(returns)
        return len(self._returns) == WINDOW and statistics.fmean(self._returns) >= GOAL


def _shipped() -> Any:
    from policylab.experiments.schema import load_experiment

    return load_experiment("cartpole_ppo")


def policylab(seed: int) -> int:
    from policylab.agents.build import make_agent

    config, mean = _shipped(), Mean100()
    agent = make_agent(config.agent, config.env, seed=seed, budget_steps=config.budget.steps)
    episodes = 0
    while agent.steps < LIMIT:
        report = agent.learn(1)
        ended, episodes = report.episodes - episodes, report.episodes
        if mean.reached([report.metrics["train/return_mean"]] * ended if ended else []):
            break
    agent.close()
    return agent.steps


def _train(config: Any, seed: int) -> int:
    config.environment("CartPole-v1").debugging(seed=seed)
    algo, steps = config.build_algo(), 0
    while steps < LIMIT:
        result = algo.train()
        steps = int(result["num_env_steps_sampled_lifetime"])
        runners = result["env_runners"]
        enough = runners.get("num_episodes_lifetime", 0) >= WINDOW
        if enough and runners.get("episode_return_mean", 0.0) >= GOAL:  # RLlib's own mean over 100 episodes
            break
    algo.stop()
    return steps


def rllib(seed: int) -> int:
    from ray.rllib.algorithms.ppo import PPOConfig

    return _train(PPOConfig(), seed)


def rllib_same(seed: int) -> int:
    import ray
    import torch
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    from policylab.agents.rllib.algorithms import ALGORITHMS

    torch.set_num_threads(1)
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    settings, budget = _shipped().agent, _shipped().budget.steps
    config = PPOConfig()
    given = {**ALGORITHMS["PPO"].defaults, **settings.overrides}
    given["lambda_"] = given.pop("lambda", given.get("lambda_"))
    for name, value in given.items():
        setattr(config, name, value)
    rate = settings.learning_rate
    config.training(
        lr=[[0, rate.start], [budget, rate.end]],
        gamma=settings.discount,
        train_batch_size_per_learner=settings.batch_size,
        minibatch_size=settings.minibatch_size,
        num_epochs=settings.n_epochs,
    )
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=settings.n_envs_per_runner)
    config.rl_module(
        model_config=DefaultModelConfig(
            fcnet_hiddens=list(settings.network.hidden), fcnet_activation=settings.network.activation
        )
    )
    return _train(config, seed)


def sb3(seed: int) -> int:
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class Stop(BaseCallback):  # type: ignore[misc]
        mean = Mean100()

        def _on_step(self) -> bool:
            ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            return not self.mean.reached(ended)

    torch.set_num_threads(1)

    def linear(start: float) -> Callable[[float], float]:
        return lambda remaining: remaining * start

    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=8, seed=seed),
        n_steps=32,
        batch_size=256,
        gae_lambda=0.8,
        gamma=0.98,
        n_epochs=20,
        ent_coef=0.0,
        learning_rate=linear(1e-3),
        clip_range=linear(0.2),
        seed=seed,
        device="cpu",
    )
    model.learn(100_000, callback=Stop())
    return int(model.num_timesteps)


CONTENDERS: dict[str, Callable[[int], int]] = {
    "policylab": policylab,
    "rllib_same": rllib_same,
    "rllib": rllib,
    "sb3": sb3,
}


def measure(contender: str, seed: int) -> dict[str, float]:
    """Run one contender in a process of its own; return wall and processor seconds, and environment steps."""
    threads = {} if contender == "rllib" else {"OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rllib_cartpole", "--one", contender, "--seed", str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        env={**os.environ, **threads},
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "steps": json.loads(done.stdout.splitlines()[-1])}


def overhead(rounds: int = 40) -> None:
    """Print by how much an iteration of our loop is longer than one of ``algo.train()``, in turns."""
    from policylab.agents.build import make_agent

    config = _shipped()
    agent = make_agent(config.agent, config.env, seed=0, budget_steps=config.budget.steps)
    agent.learn(1)
    ours, raw = [], []
    for _ in range(rounds):
        for times, step in ((ours, lambda: agent.learn(1)), (raw, agent._learner.algo.train)):
            began = time.process_time()
            step()
            times.append(time.process_time() - began)
    agent.close()
    middle, least = (f(ours) / f(raw) - 1 for f in (statistics.median, min))
    print(
        f"loop over algo.train(): {100 * middle:+.1f} % at the median of {rounds} iterations, "
        f"{100 * least:+.1f} % at best"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=[*CONTENDERS])
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(CONTENDERS[arguments.one](arguments.seed))
        return
    if arguments.overhead:
        overhead()
        return
    chosen = [name for name in arguments.contenders if name != "sb3" or importlib.util.find_spec("stable_baselines3")]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for seed in range(arguments.seeds):
        for name in chosen:
            found[name].append(measure(name, seed))
            print(f"{name} seed {seed}: {found[name][-1]}", file=sys.stderr, flush=True)
    print("| contender | wall s | processor s | steps | times as fast as RLlib's defaults |\n|---|---|---|---|---|")
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    for name, row in medians.items():
        ratio = f"{medians['rllib']['wall_s'] / row['wall_s']:.1f}" if "rllib" in medians else "-"
        print(f"| {name} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {row['steps']:,.0f} | {ratio} |")


if __name__ == "__main__":
    main()
