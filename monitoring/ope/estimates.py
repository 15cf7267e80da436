"""The estimates of one evaluation, each with its bootstrap interval over episodes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from policylab.experiments.statistics import Interval
from policylab.experiments.statistics.interval import percentile_interval, run_weights
from policylab.monitoring.ope import bandit, bounds, magic
from policylab.monitoring.ope.estimators import ESTIMATORS
from policylab.monitoring.ope.fitted_q import FittedQ
from policylab.monitoring.ope.log import Log
from policylab.monitoring.ope.marginalised import marginalised
from policylab.monitoring.ope.settings import OpeSettings
from policylab.monitoring.ope.states import States
from policylab.monitoring.ope.target import Target
from policylab.monitoring.ope.trajectories import Trajectories
from policylab.seeding import generator

Floats = NDArray[np.float64]
MODEL_FREE = ("is", "pdis", "wis", "pdwis")
MAX_DRAWS = 20_000_000
"""Episode counts drawn at once: 160 MB."""
MAX_DRAWS_IN_ALL, ENOUGH = 200_000_000, 200
"""Of many episodes fewer resamples are drawn, but enough: their means are nearly normal."""


class Estimates:
    """The estimators of one log and target, each a call that may be left out.

    Args:
        log: E episodes.
        target: the policy on it.
        plain: the trajectories without a model.
        settings: how to evaluate.
        horizon: most steps of an episode; None without a limit.
    """

    def __init__(
        self, log: Log, target: Target, *, plain: Trajectories, settings: OpeSettings, horizon: int | None
    ) -> None:
        self.log = log
        self.target = target
        self.plain = plain
        self.settings = settings
        self.states = States.of(log)
        self.ratio = target.log_probability - log.log_propensity
        self.model = (
            None
            if target.choices is None
            else FittedQ(
                log, target.choices, states=self.states, discount=settings.discount, horizon=horizon, seed=settings.seed
            )
        )

    def by_name(self) -> dict[str, Callable[[], Interval | None]]:
        """Return the estimators that suit the log, by name; a call gives None where it needs what the log lacks."""
        of_bandit = int(self.log.lengths.max()) == 1
        names = ("ips", "snips", "dr", "sndr", "switch_dr", "dr_os") if of_bandit else tuple(ESTIMATORS)
        make = self._bandit if of_bandit else self._trajectory
        found: dict[str, Callable[[], Interval | None]] = {name: functools.partial(make, name) for name in names}
        if not of_bandit:
            found |= {"magic": self._magic, "mis": self._marginalised}
        return found | {"dm": self._direct}

    def logged(self) -> Interval:
        """Return the mean discounted return of the logged episodes themselves."""
        returns = self.plain.reward.sum(axis=1)
        return self._resampled(lambda share: share @ returns)

    def lower_bounds(self) -> dict[str, float]:
        """Return high-confidence lower bounds by method; none for too few episodes."""
        rng = generator(self.settings.seed, "ope", "bounds")
        if self.log.n_episodes < 2 * bounds.MIN_FOR_THRESHOLD:
            return {}
        return bounds.lower_bounds(
            self.plain.weight[:, -1],
            self.plain.reward.sum(axis=1),
            level=self.settings.level,
            rng=rng,
            least_return=self.settings.least_return,
        )

    def _trajectory(self, name: str) -> Interval | None:
        of = self.plain if name in MODEL_FREE else self.modelled
        return None if of is None else self._resampled(functools.partial(ESTIMATORS[name], of))

    def _bandit(self, name: str) -> Interval | None:
        made: dict[str, Callable[[bandit.Decisions, Floats], Floats]] = {
            "ips": bandit.ips,
            "snips": bandit.snips,
            "dr": bandit.doubly_robust,
            "sndr": bandit.self_normalised_doubly_robust,
            "switch_dr": functools.partial(bandit.switch_doubly_robust, threshold=self.settings.switch_threshold),
            "dr_os": functools.partial(bandit.shrunk_doubly_robust, shrinkage=self.settings.shrinkage),
        }
        of = self.plain if name in ("ips", "snips") else self.modelled
        if of is None:
            return None
        decisions = bandit.Decisions(*(column[:, 0] for column in (of.weight, of.reward, of.action_value, of.value)))
        return self._resampled(functools.partial(made[name], decisions))

    def _magic(self) -> Interval | None:
        of = self.modelled
        if of is None or self.log.n_episodes < 2:
            return None
        rng = generator(self.settings.seed, "ope", "magic")
        share = run_weights(self.log.n_episodes, n_tasks=1, n_resamples=200, rng=rng)[0]
        value, terms, _ = magic.magic(of, resampled=share)
        # With the blend as it is: each episode's term is resampled.
        return self._resampled(lambda share: len(terms) * (share @ terms), value=value)

    def _marginalised(self) -> Interval | None:
        states = self.states
        if states is None:
            return None
        discount = self.settings.discount
        return self._refitted(
            lambda share: marginalised(self.log, self.ratio, states=states, discount=discount, share=share)
        )

    def _direct(self) -> Interval | None:
        model, first = self.model, self.log.starts[:-1]
        if model is None:
            return None
        n = self.log.n_episodes
        return self._refitted(lambda share: np.array([row @ model.guesses(row * n).value[first] for row in share]))

    @functools.cached_property
    def modelled(self) -> Trajectories | None:
        """The trajectories with a model's guesses; None where actions cannot be listed."""
        if self.model is None:
            return None
        guesses = self.model.cross_fitted()
        return Trajectories.of(
            self.log,
            self.ratio,
            discount=self.settings.discount,
            action_value=guesses.action_value,
            value=guesses.value,
        )

    def _resampled(self, values: Callable[[Floats], Floats], *, value: float | None = None) -> Interval:
        """Return an estimate with its bootstrap interval over episodes."""
        return self._interval(values, n_resamples=self.settings.n_resamples, value=value)

    def _refitted(self, values: Callable[[Floats], Floats]) -> Interval:
        """Return an estimate with its bootstrap interval, the model fitted again to each resample."""
        return self._interval(values, n_resamples=self.settings.n_refits)

    def _interval(
        self, values: Callable[[Floats], Floats], *, n_resamples: int, value: float | None = None
    ) -> Interval:
        n, level = self.log.n_episodes, self.settings.level
        estimate = float(values(np.full((1, n), 1.0 / n))[0]) if value is None else value
        if n == 1 or n_resamples == 0 or not np.isfinite(estimate):
            return Interval(estimate, None, None, level=level, n=n, method="no interval")
        rng = generator(self.settings.seed, "ope", "resamples")
        n_resamples = min(n_resamples, max(ENOUGH, MAX_DRAWS_IN_ALL // n))
        at_once, found = max(1, MAX_DRAWS // n), []
        for first in range(0, n_resamples, at_once):
            size = min(at_once, n_resamples - first)
            found.append(values(run_weights(n, n_tasks=1, n_resamples=size, rng=rng)[0]))
        resampled = np.concatenate(found)
        known = resampled[np.isfinite(resampled)]
        interval = percentile_interval(estimate, known, level=level, n=n)
        return dataclasses.replace(interval, method="bootstrap over episodes")
