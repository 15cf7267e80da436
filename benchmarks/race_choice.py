"""Whom the race gives up and whom it chooses, on generated curves whose true values are known.

    python benchmarks/race_choice.py [--studies 100]

Of 200 configurations of normal worth, each run scatters by its seed: ``share`` of the variance is the seeds', and
``common`` of that the seed does to all alike. A study costs 64 full trainings of ten reports, on up to five seeds.
Told are, per study, how many finalists were dropped; of these, the share that was better than the leader of that
moment; the share of studies that dropped their best finalist; and how far the choice was from the best finalist, in
standard deviations between configurations, with half a 95 % interval.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from policylab.tuning.landscape import LandscapeBackend, landscape_study
from policylab.tuning.log import EventLog
from policylab.tuning.scheduler import Horizon
from policylab.tuning.schedulers.race import Race, RaceSettings

FULL, N, N_SEEDS, TRAININGS = 10, 200, 5, 64
CASES = ((0.1, 0.0), (0.3, 0.0), (0.6, 0.0), (0.84, 0.0), (0.3, 0.9), (0.8, 0.9), (0.8, 0.5))
Array = NDArray[np.float64]


def landscape(seed: int, *, share: float, common: float) -> tuple[Array, Array]:
    """Return curves (N, N_SEEDS, FULL), which rise at different speeds and wobble, and true values (N,)."""
    rng = np.random.default_rng(seed)
    true = rng.standard_normal(N) * math.sqrt(1 - share)
    luck = rng.standard_normal((N, N_SEEDS)) * math.sqrt(share * (1 - common))
    luck += rng.standard_normal(N_SEEDS) * math.sqrt(share * common)
    growth = 1 - np.exp(-np.arange(1, FULL + 1) * rng.uniform(0.2, 1.0, (N, 1)))
    wobble = 0.1 * rng.standard_normal((N, N_SEEDS, FULL))
    return (true[:, None] + luck)[:, :, None] * growth[:, None, :] + wobble, true


def study(seed: int, *, share: float, common: float) -> tuple[list[bool], bool, float]:
    """Return who of the dropped was better than the leader, whether the best finalist was dropped, and the regret."""
    curves, true = landscape(seed, share=share, common=common)
    scheduler = Race.make(RaceSettings(), Horizon(FULL, TRAININGS * FULL, n_seeds=N_SEEDS))
    log = EventLog(None)
    run = landscape_study(LandscapeBackend(curves), scheduler, log=log)
    run.run()
    finalists = [trial.id for trial in run.history.trials.values() if trial.runs[0].resource >= FULL]
    best, chosen = max(finalists, key=lambda trial: true[trial]), scheduler.best(run.history)
    assert chosen is not None
    drops = [
        (event["trial"], int(event["reason"].rsplit(" ", 1)[1])) for event in log.events if event["event"] == "stop"
    ]
    better = [bool(true[dropped] > true[leader]) for dropped, leader in drops]
    regret = float(true[best] - true[chosen]) / math.sqrt(1 - share)
    return better, best in {dropped for dropped, _ in drops}, regret


def rows(n_studies: int) -> Iterator[str]:
    """Yield one table row per case."""
    for share, common in CASES:
        better, lost, regrets = zip(
            *(study(seed, share=share, common=common) for seed in range(n_studies)), strict=True
        )
        dropped = [one for each in better for one in each]
        half = 1.96 * np.std(regrets, ddof=1) / math.sqrt(n_studies)
        yield (
            f"| {share:g} | {common:g} | {len(dropped) / n_studies:.1f} | {np.mean(dropped):.1%} | {np.mean(lost):.0%} "
            f"| {np.mean(regrets):.3f} ± {half:.3f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    given = parser.parse_args()
    print("| seeds' share | common | dropped | better than the leader | best dropped | distance from the best |")
    print("|---" * 6 + "|")
    for row in rows(given.studies):
        print(row, flush=True)


if __name__ == "__main__":
    main()
