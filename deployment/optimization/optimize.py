"""`optimize`: one bundle in, a smaller or faster one out, with what was saved and what was lost."""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import gymnasium as gym

from policylab.agents import bundle_arrays
from policylab.agents.bundle import Bundle, Lineage, write_bundle
from policylab.agents.policy import StoredPolicy
from policylab.deployment.optimization.distillation import distilled, visited
from policylab.deployment.optimization.graphs import folded, pruned, quantized
from policylab.deployment.optimization.loss import Loss, return_lost
from policylab.deployment.optimization.settings import DEFAULT_LOSS, OptimizeSettings
from policylab.deployment.optimization.tables import tabulate
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import RunError
from policylab.seeding import generator

N_TIMED = 400
N_CALIBRATION = 2_000


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """What a policy costs: bytes of its numbers, and the median time of one decision."""

    n_bytes: int
    act_us: float


@dataclasses.dataclass(frozen=True, slots=True)
class Optimized:
    """What came out, and how it compares.

    Attributes:
        bundle: as loaded from where it was written.
        before: of the source.
        after: of the result.
        loss: of return.
        max_loss: what was allowed, in units of return.
    """

    bundle: Bundle
    before: Size
    after: Size
    loss: Loss
    max_loss: float


def optimize(source: Bundle, into: Path, *, settings: OptimizeSettings) -> Optimized:
    """Write a smaller or faster policy of ``source`` as a bundle folder, unless it loses too much return.

    Args:
        source: the policy, and the environment it was trained for.
        into: the new bundle's folder.
        settings: the method, and what may be lost.

    Raises:
        RunError: it loses more than allowed, or too few episodes say that it does not; nothing is written.
        UserError: the method does not fit the policy, or ``into`` holds other files.
        MissingExtraError: the method or the environment needs a package that is not installed.
        StorageError: a write failed.
    """
    entry = source.manifest.environment
    named = EnvSettings(id=entry.id, kwargs=entry.kwargs, max_episode_steps=entry.max_episode_steps)
    env = make_env(named)
    try:
        policy = _made(source, env, settings=settings)
        loss = return_lost(
            named,
            source.policy,
            optimized=policy,
            episodes=settings.episodes,
            confidence=settings.confidence,
            seed=settings.seed,
        )
        allowed = DEFAULT_LOSS * abs(loss.source) if settings.max_loss is None else settings.max_loss
        if loss.high > allowed + 1e-12 * abs(loss.source):
            raise RunError(_refusal(loss, settings=settings, allowed=allowed))
        before, after = _sizes(source, policy, env=env)
        metrics = {"optimize": _facts(settings, before=before, after=after, loss=loss)}
        lineage = source.manifest.lineage
        made = Lineage(config_hash=lineage.config_hash, seeds=lineage.seeds, parent=source.digest)
        bundle = write_bundle(into, policy, env=env, lineage=made, metrics=metrics)
    finally:
        env.close()
    return Optimized(bundle, before, after, loss=loss, max_loss=allowed)


def _made(source: Bundle, env: gym.Env[Any, Any], *, settings: OptimizeSettings) -> StoredPolicy:
    match settings.how:
        case "table":
            return tabulate(source)
        case "graph":
            return folded(source)
        case "int8":
            return quantized(source)
        case "prune":
            rng = generator(settings.seed, "calibration", "episodes")
            seen = visited(env, source.policy, n=N_CALIBRATION, rng=rng)
            return pruned(source, share=settings.share, observations=seen)
        case "distill-network" | "distill-tree":
            return distilled(source, env, settings=settings)


def _refusal(loss: Loss, *, settings: OptimizeSettings, allowed: float) -> str:
    if loss.exact:
        return (
            f"{settings.how} loses {loss.value:.6g} of the return {loss.source:.6g}, exactly, and {allowed:.6g} is "
            "allowed; nothing was written: raise --max-loss or choose another method"
        )
    remedy = "raise --episodes for a narrower interval" if loss.value <= allowed else "choose another method"
    return (
        f"{settings.how} loses {loss.value:.6g} [{loss.low:.6g}, {loss.high:.6g}] of the return {loss.source:.6g} at "
        f"{settings.confidence:.0%} confidence over {loss.episodes:,} paired episodes, and {allowed:.6g} is allowed; "
        f"nothing was written: {remedy}, or raise --max-loss"
    )


def _sizes(source: Bundle, policy: StoredPolicy, *, env: gym.Env[Any, Any]) -> tuple[Size, Size]:
    """Return what both policies cost, timed in turns on observations of the source."""
    seen = visited(env, source.policy, n=N_TIMED, rng=generator(0, "timed"))
    both: list[Any] = [source.policy, policy]
    times: list[list[int]] = [[], []]
    for observation in seen:
        for i, acting in enumerate(both):
            start = time.perf_counter_ns()
            acting.act(observation)
            times[i].append(time.perf_counter_ns() - start)
    before, after = (
        Size(_n_bytes(one), round(statistics.median(of_one) / 1e3, 2)) for one, of_one in zip(both, times, strict=True)
    )
    return before, after


def _n_bytes(policy: StoredPolicy) -> int:
    arrays = policy.arrays()
    return sum(map(len, policy.files().values())) + (len(bundle_arrays.dump(arrays)) if arrays else 0)


def _facts(settings: OptimizeSettings, *, before: Size, after: Size, loss: Loss) -> dict[str, Any]:
    return {
        "settings": settings.model_dump(mode="json"),
        "bytes": [before.n_bytes, after.n_bytes],
        "act_us": [before.act_us, after.act_us],
        "return": [loss.source, loss.optimized],
        "loss": {"value": loss.value, "low": loss.low, "high": loss.high, "episodes": loss.episodes},
    }


def as_document(found: Optimized) -> dict[str, Any]:
    """Return what came out as JSON values."""
    loss = found.loss
    ends = {"value": loss.value, "low": loss.low, "high": loss.high}
    return {
        "digest": found.bundle.digest,
        "kind": found.bundle.manifest.policy.kind,
        "parent": found.bundle.manifest.lineage.parent,
        "source": {**dataclasses.asdict(found.before), "return": loss.source},
        "optimized": {**dataclasses.asdict(found.after), "return": loss.optimized},
        "loss": {**ends, "exact": loss.exact, "allowed": found.max_loss},
        "episodes": loss.episodes,
    }
