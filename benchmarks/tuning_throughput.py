"""How long a whole study of many short runs takes: `policylab run`, from the command to its report.

    python benchmarks/tuning_throughput.py [--rounds 3] [--trials 64] [--seeds 10] [--steps 100000]

Q-learning on FrozenLake, random search, every configuration on every seed. The launchers take turns; the figures are
medians over rounds in seconds of wall clock, the study alone beside the whole command. What both selected is compared.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAUNCHERS = ("inline", "local")

EXPERIMENT = """
name: throughput
env: {{id: FrozenLake-v1}}
agent:
  kind: q_learning
  learning_rate: 0.1
  discount: 0.99
  exploration: {{kind: epsilon_greedy, epsilon: {{kind: linear, start: 1.0, end: 0.05, fraction: 0.5}}}}
budget: {{steps: {steps}}}
seeds: {{tune: {seeds}, confirm: 0}}
search:
  space:
    parameters:
      agent.learning_rate: {{kind: continuous, low: 0.01, high: 1.0, scaling: logarithmic}}
      agent.discount: {{kind: continuous, low: 0.9, high: 0.9999, scaling: reverse_logarithmic}}
  searcher: {{kind: random}}
  scheduler: {{kind: fixed}}
  limits: {{trials: {trials}}}
tracking: {{kind: none}}
"""


def seconds(config, launcher):
    """Return the seconds of the command and of its study, and what it selected."""
    command = [sys.executable, "-m", "policylab", "run", str(config), "--out", str(config.parent / launcher), "--json"]
    started = time.perf_counter()
    done = subprocess.run([*command, "--set", f"launcher.kind={launcher}"], capture_output=True, check=True)
    elapsed, document = time.perf_counter() - started, json.loads(done.stdout)
    return elapsed, document["cost"]["wall_s"], document["selected"]["value"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("rounds", 3), ("trials", 64), ("seeds", 10), ("steps", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    found = {launcher: [] for launcher in LAUNCHERS}
    # One folder to the end: after a deletion, ext4 makes files slowly for minutes.
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "throughput.yaml"
        config.write_text(EXPERIMENT.format(steps=asked.steps, seeds=asked.seeds, trials=asked.trials))
        for round_number in range(asked.rounds + 1):
            for launcher in LAUNCHERS:
                result = seconds(config, launcher)
                if round_number:  # the first round compiles and warms the disk cache
                    found[launcher].append(result)
    print(f"{asked.trials} configurations x {asked.seeds} seeds x {asked.steps} steps")
    for launcher, results in found.items():
        whole, study, _ = zip(*results, strict=True)
        print(f"{launcher:8s} command {statistics.median(whole):6.1f} s   study {statistics.median(study):6.1f} s")
    print("selected values equal:", len({value for results in found.values() for _, _, value in results}) == 1)


if __name__ == "__main__":
    main()
