"""What a deep policy costs: exporting it from RLlib, and one decision of it, beside RLlib's own module.

    python benchmarks/policy_export.py [--rounds 9]

The networks are RLlib's, with 64-64 and 256-256 units. Figures are medians over rounds of the process's processor time
(milliseconds for exports, microseconds for decisions), with one thread each; the alternatives take turns.
"""

import argparse
import contextlib
import io
import statistics
import time
import warnings

import numpy as np
from gymnasium import spaces

STATE, PUSH = spaces.Box(-1.0, 1.0, (8,), np.float32), spaces.Discrete(4)


def networks():
    import torch
    from ray.rllib.algorithms.dqn import DQNConfig
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    torch.set_num_threads(1)
    known = {"__env_single__": (STATE, PUSH), "__env__": (STATE, PUSH)}
    for name, algorithm, hidden in (("PPO 64-64", PPOConfig, [64, 64]), ("DQN 256-256", DQNConfig, [256, 256])):
        config = algorithm().rl_module(model_config=DefaultModelConfig(fcnet_hiddens=hidden))
        spec = config.get_default_rl_module_spec()
        spec.observation_space, spec.action_space, spec.model_config = STATE, PUSH, config.model_config
        spec.inference_only = True
        pipelines = {
            "env_to_module": config.build_env_to_module_connector(spaces=known),
            "module_to_env": config.build_module_to_env_connector(spaces=known),
        }
        yield name, spec.build(), pipelines


def spent(action, times=1):
    started = time.process_time()
    for _ in range(times):
        action()
    return (time.process_time() - started) / times


def measure(module, pipelines, *, rounds):
    import torch

    from policylab.agents.rllib.export import PolicyExporter, export_policy

    exporter = PolicyExporter()
    policy = exporter.export(module, **pipelines)
    batch = np.random.default_rng(0).uniform(-1, 1, (256, 8)).astype(np.float32)
    one, tensor = batch[0], torch.from_numpy(batch[:1])
    tasks = {
        "export, traced (ms)": (1e3, 1, lambda: export_policy(module, **pipelines)),
        "export, numbers replaced (ms)": (1e3, 5, lambda: exporter.export(module, **pipelines)),
        "RLModule.forward_inference, 1 (us)": (1e6, 200, lambda: module.forward_inference({"obs": tensor})),
        "act, 1 (us)": (1e6, 500, lambda: policy.act(one)),
        "act_batch, 256, per decision (us)": (1e6 / 256, 50, lambda: policy.act_batch(batch)),
    }
    found = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, (unit, times, action) in tasks.items():
            found[name].append(unit * spent(action, times))
    return {name: statistics.median(values) for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        results = {name: measure(module, pipelines, rounds=rounds) for name, module, pipelines in networks()}
    print(f"{'':36s}" + "".join(f"{name:>14s}" for name in results))
    for task in next(iter(results.values())):
        print(f"{task:36s}" + "".join(f"{found[task]:14.1f}" for found in results.values()))


if __name__ == "__main__":
    main()
