"""Environments of other packages against what is known of them; a row is there if its package is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from policylab.envs.baselines import make_baseline
from policylab.envs.make import make_env
from policylab.envs.optional import PROVIDERS
from policylab.envs.settings import EnvSettings
from policylab.experiments.evaluation import RolloutEvaluator
from policylab.experiments.verify.rows import Check, Estimate

HIGHWAY = "highway-env 1.12.1 itself, 30 episodes from seeds 1000 to 1029"
N_DRIVES = 40


def rule_returns(settings: EnvSettings, name: str, *, episodes: int) -> Callable[[], Estimate]:
    """Return what plays a registered baseline: its mean return and the standard error of that."""

    def measure() -> Estimate:
        rule = make_baseline(settings.id, name, env=make_env(settings))
        return Estimate.of(RolloutEvaluator(settings, seed=0)(rule, episodes=episodes).episode_returns)

    return measure


def _drive(action: str, published: str, *, error: float) -> Check:
    settings = EnvSettings(id="highway-fast-v0", max_episode_steps=30)
    return Check(
        name=f"highway-fast: always {action}",
        published=published,
        source=HIGHWAY,
        measure=rule_returns(settings, f"always_{action}", episodes=N_DRIVES),
        published_error=error,
        slow=True,
    )


_EMPTY = EnvSettings(id="policylab/MiniGridDoorKey-v0", kwargs={"task": "MiniGrid-Empty-5x5-v0"})


_ROWS: Mapping[str, tuple[Check, ...]] = {
    "minigrid": (
        Check(
            name="MiniGrid Empty 5x5: the shortest way, five steps of at most 100",
            published="0.955",
            source="minigrid's documentation: 1 - 0.9 steps / most steps",
            measure=rule_returns(_EMPTY, "shortest_way", episodes=3),
        ),
    ),
    "driving": (_drive("idle", "12.41", error=1.10), _drive("faster", "6.93", error=0.63)),
}

CHECKS: tuple[Check, ...] = tuple(
    check for extra, rows in _ROWS.items() if PROVIDERS[extra].installed for check in rows
)
