"""When a study is over: limits and completion criteria, the first met wins."""

from __future__ import annotations

import math
import statistics
from typing import Any

from pydantic import Field, PrivateAttr, SerializerFunctionWrapHandler, model_serializer, model_validator

from policylab.config import Settings
from policylab.tuning.history import History
from policylab.tuning.means import Means

TARGET = "limits.target:"
"""How the reason of a study begins that a target ended."""


class NotImproving(Settings):
    """Stop when the best value has not improved for a while.

    Source: SageMaker `BestObjectiveNotImproving`; its API page asks for an improvement of at least 1 %, its
    guide for any, so the threshold is a parameter.
    """

    trials: int = Field(ge=3, description="trials in a row that ended, in full or given up, without improvement")
    threshold: float = Field(default=0.01, ge=0.0, description="relative improvement that counts; 0 counts any")


class Convergence(Settings):
    """Stop when as many further trials as the last ones promise no significant improvement.

    SageMaker's rule (`ConvergenceDetected`: 1 % or less over the best) is not published. Here the values to come are
    taken as normal with mean and deviation of the last ones, and the sum of their expected improvements over the best
    (Jones et al. 1998, equation 15), which bounds that of all together, must be below the threshold. As many trials
    must have ended before: the first of a search are drawn without a model, and say little about those to come.
    """

    trials: int = Field(
        default=10, ge=3, description="last trials that ended, which speak for those to come, after as many before them"
    )
    threshold: float = Field(default=0.01, gt=0.0, description="expected relative improvement that is worth going on")


class Limits(Settings):
    """What a study may use. At least one of the first four should be set, else it ends with its searcher."""

    trials: int | None = Field(default=None, ge=1, description="configurations started")
    steps: int | None = Field(default=None, ge=1, description="environment steps in all (the objective's resource)")
    wall_clock_s: float | None = Field(default=None, gt=0, description="seconds of all sessions together")
    cost: float | None = Field(default=None, gt=0, description="price of all steps, in the currency of cost_per_step")
    cost_per_step: float = Field(default=0.0, ge=0, description="price of one step")
    target: float | None = Field(
        default=None,
        description="value (in the metric's own direction) that is good enough: of a full training, as the mean over "
        "the seeds that a trial has had so far, which may be one",
    )
    not_improving: NotImproving | None = None
    convergence: Convergence | None = None
    failures: int = Field(
        default=20, ge=1, description="runs in a row that may fail without a report of any; what fails at once costs "
        "no steps, and a search would never end"
    )  # fmt: skip

    _sign: float = PrivateAttr(default=1.0)

    @model_validator(mode="after")
    def _steps_have_a_price(self) -> Limits:
        if self.cost is not None and not self.cost_per_step:
            raise ValueError("cost is the price of steps: set cost_per_step, too, or it is never reached")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave later fields out at their defaults: hashes and logs are then what they were before there were any."""
        later = {name: type(self).model_fields[name].default for name in ("convergence", "failures")}
        data: dict[str, Any] = serialize(self)
        return {name: value for name, value in data.items() if name not in later or value != later[name]}

    @property
    def budget(self) -> int | None:
        """The steps that ``steps`` and ``cost`` allow; None if neither is set.

        >>> Limits(steps=500, cost=3.0, cost_per_step=0.01).budget
        300
        """
        ratio = math.inf if self.cost is None else self.cost / self.cost_per_step
        paid = math.floor(ratio + 1e-9) if math.isfinite(ratio) else None
        return min((steps for steps in (self.steps, paid) if steps is not None), default=None)

    @property
    def budget_name(self) -> str:
        """Which of the limits the budget is: ``steps`` or ``cost``."""
        return "cost" if self.steps is None or self.budget != self.steps else "steps"

    def signed(self, sign: float) -> Limits:
        """Return the limits of a study whose history holds ``sign`` times the metric, larger is better."""
        signed = self.model_copy()
        signed._sign = sign
        return signed

    @property
    def need_values(self) -> bool:
        """Whether the end depends on the values that come."""
        return any(rule is not None for rule in (self.target, self.not_improving, self.convergence))

    def met(self, history: History, *, elapsed_s: float) -> str | None:
        """Return which limit is met, in words, or None.

        Args:
            history: values are larger-is-better there.
            elapsed_s: seconds of this and earlier sessions.
        """
        if self.steps is not None and history.spent >= self.steps:
            return f"limits.steps: {history.spent} of {self.steps} spent"
        if self.cost is not None and history.spent * self.cost_per_step >= self.cost:
            return f"limits.cost: {history.spent * self.cost_per_step:g} of {self.cost:g} spent"
        if self.wall_clock_s is not None and elapsed_s >= self.wall_clock_s:
            return f"limits.wall_clock_s: {elapsed_s:.0f} of {self.wall_clock_s:g} s used"
        if history.failures >= self.failures:
            return f"limits.failures: {history.failures} runs in a row failed"
        if not self.need_values:
            return None
        means = Means.of(history)
        if self.target is not None and means.best >= self._sign * self.target:
            return f"{TARGET} {self._sign * means.best:g} reached {self.target:g}"
        if self.not_improving is not None and _stalled(means.values, self.not_improving):
            return f"limits.not_improving: no improvement in {self.not_improving.trials} trials"
        if self.convergence is not None and _converged(means.values, self.convergence):
            return f"limits.convergence: {self.convergence.trials} more trials promise no improvement"
        return None


def reached_by(history: History) -> int | None:
    """Return the trial whose mean over the seeds it was trained in full on is the highest, so far: who met a target."""
    found = {trial.id: trial.values_at(history.max_resource) for trial in history.trials.values() if not trial.failed}
    means = {trial: sum(values.values()) / len(values) for trial, values in found.items() if values}
    finite = {trial: mean for trial, mean in means.items() if math.isfinite(mean)}
    return max(finite, key=lambda trial: finite[trial]) if finite else None


def _stalled(means: list[float], rule: NotImproving) -> bool:
    """Whether the last trials' values improve on the best before them by less than the threshold."""
    if len(means) <= rule.trials:
        return False
    before, recent = max(means[: -rule.trials]), max(means[-rule.trials :])
    return recent <= before + rule.threshold * abs(before)


def _converged(means: list[float], rule: Convergence) -> bool:
    """Whether trials like the last ones are expected to improve on the best by less than the threshold."""
    recent = [value for value in means[-rule.trials :] if math.isfinite(value)]
    if len(recent) < rule.trials or len(means) < 2 * rule.trials:
        return False
    best, deviation = max(means), statistics.stdev(recent)
    gain = statistics.mean(recent) - best
    if deviation > 0:
        normal, z = statistics.NormalDist(), gain / deviation
        gain = gain * normal.cdf(z) + deviation * normal.pdf(z)
    return rule.trials * gain <= rule.threshold * abs(best)
