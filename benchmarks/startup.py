"""How long the first thing takes: importing policylab, its help, and refusing a mistake.

    python benchmarks/startup.py [--rounds 11]

Each command is a fresh process; the commands take turns, and the figures are medians over rounds in milliseconds
of wall clock. `python -c pass` is what every one of them pays anyway.
"""

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import policylab": ["-c", "import policylab"],
    "import gymnasium": ["-c", "import gymnasium"],
    "policylab --help": ["-m", "policylab", "--help"],
    "policylab plan nofile": ["-m", "policylab", "plan", "nofile"],
}


def milliseconds(arguments):
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return 1000 * (time.perf_counter() - started)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    times = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, arguments in COMMANDS.items():
            times[name].append(milliseconds(arguments))
    for name, found in times.items():
        found = found[1:]  # the first round warms the disk cache
        print(f"{name:24s} median {statistics.median(found):7.1f} ms   min {min(found):7.1f}   max {max(found):7.1f}")


if __name__ == "__main__":
    main()
