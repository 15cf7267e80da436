"""When a study is over: limits and completion criteria, the first met wins."""

from __future__ import annotations

from pydantic import Field

from policylab.config import Settings
from policylab.tuning.history import History


class NotImproving(Settings):
    """Stop when the best value has not improved for a while.

    Source: SageMaker `BestObjectiveNotImproving`; its API page asks for an improvement of at least 1 %, its
    guide for any, so the threshold is a parameter.
    """

    trials: int = Field(ge=3, description="finished trials in a row without improvement")
    threshold: float = Field(default=0.01, ge=0.0, description="relative improvement that counts; 0 counts any")


class Limits(Settings):
    """What a study may use. At least one of the first four should be set, else it ends with its searcher."""

    trials: int | None = Field(default=None, ge=1, description="configurations started")
    steps: int | None = Field(default=None, ge=1, description="environment steps in all (the objective's resource)")
    wall_clock_s: float | None = Field(default=None, gt=0, description="seconds of all sessions together")
    cost: float | None = Field(default=None, gt=0, description="price of all steps, in the currency of cost_per_step")
    cost_per_step: float = Field(default=0.0, ge=0, description="price of one step")
    target: float | None = Field(default=None, description="value (in the metric's own direction) that is good enough")
    not_improving: NotImproving | None = None

    def met(self, history: History, *, elapsed_s: float) -> str | None:
        """Return which limit is met, in words, or None.

        Args:
            history: values are larger-is-better there, and so is ``target`` here.
            elapsed_s: seconds of this and earlier sessions.
        """
        if self.steps is not None and history.spent >= self.steps:
            return f"limits.steps: {history.spent} of {self.steps} spent"
        if self.cost is not None and history.spent * self.cost_per_step >= self.cost:
            return f"limits.cost: {history.spent * self.cost_per_step:g} of {self.cost:g} spent"
        if self.wall_clock_s is not None and elapsed_s >= self.wall_clock_s:
            return f"limits.wall_clock_s: {elapsed_s:.0f} of {self.wall_clock_s:g} s used"
        if self.target is None and self.not_improving is None:
            return None
        finals = [values for trial in history.trials.values() if (values := trial.values_at(history.max_resource))]
        means = [sum(values.values()) / len(values) for values in finals]
        if self.target is not None and means and max(means) >= self.target:
            return f"limits.target: {max(means):g} reached {self.target:g}"
        if self.not_improving is not None and _stalled(means, self.not_improving):
            return f"limits.not_improving: no improvement in {self.not_improving.trials} trials"
        return None


def _stalled(means: list[float], rule: NotImproving) -> bool:
    """Whether the last trials' values improve on the best before them by less than the threshold."""
    if len(means) <= rule.trials:
        return False
    before, recent = max(means[: -rule.trials]), max(means[-rule.trials :])
    return recent <= before + rule.threshold * abs(before)
