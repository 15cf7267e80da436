"""How a new version of an endpoint takes over from the old one: the ``guardrail`` section of the endpoint file.

Names and limits follow Amazon SageMaker's deployment guardrails (`BlueGreenUpdatePolicy`, `RollingUpdatePolicy`); the
promotion test, the alarm on the policy's value and the minimum number of requests behind an alarm are ours.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from policylab.config import Settings


class RewardRules(Settings):
    """How rewards are taken in: their range, and when a decision counts."""

    reward_low: float = Field(description="lowest possible reward of a decision")
    reward_high: float = Field(description="highest possible reward of a decision")
    reward_wait_s: float = Field(
        default=0.0,
        ge=0.0,
        le=86_400.0,
        description="a decision counts so long after it was made, with its rewards then; 0: with its first reward",
    )
    missing_reward: float | None = Field(
        default=None, description="reward of a decision that none was reported for in time; default: it does not count"
    )

    @model_validator(mode="after")
    def _range(self) -> Self:
        if not self.reward_low < self.reward_high:
            raise ValueError("reward_low must be below reward_high")
        missing = self.missing_reward
        if missing is not None and not self.reward_low <= missing <= self.reward_high:
            raise ValueError("missing_reward must lie between reward_low and reward_high")
        if missing is not None and self.reward_wait_s == 0.0:
            raise ValueError("missing_reward needs a reward_wait_s: how long a reward is waited for")
        return self


class ValueAlarm(RewardRules):
    """Goes off when the mean reward per decision of the new version is below a value, by an anytime-valid interval."""

    at_least: float = Field(description="mean reward per decision that the new version must not be proven to be below")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="that it does not go off without cause")
    min_decisions: int = Field(default=50, ge=1, description="with a reward, before it is judged")

    @model_validator(mode="after")
    def _attainable(self) -> Self:
        if not self.reward_low <= self.at_least <= self.reward_high:
            raise ValueError("at_least must lie between reward_low and reward_high")
        return self


class ComparisonSettings(RewardRules):
    """An A/B test of the variants by their rewards, with the weights of the variants as its declared split."""

    baseline: str | None = Field(default=None, description="variant to compare the others with; default: the first")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="of all comparisons together")
    min_decisions: int = Field(default=100, ge=1, description="with a reward, of each variant, before it is judged")
    sample_size: int | None = Field(
        default=None,
        ge=2,
        description="rewards of each variant after which it is judged, once; default: intervals that are always valid",
    )


class Alarms(Settings):
    """What makes the new version give way to the old one, judged on the requests it has answered."""

    min_requests: int = Field(default=20, ge=1, description="below so many answers of the new version, none is judged")
    error_rate: float = Field(
        default=0.05, ge=0.0, lt=1.0, description="highest share of requests that failed or got the fallback action"
    )
    latency_ms: float | None = Field(
        default=None, gt=0.0, description="highest 99th percentile of the time for a decision; default: not judged"
    )
    value: ValueAlarm | None = Field(default=None, description="on the new version's mean reward; default: not judged")
    missing_data: Literal["not_breaching", "breaching"] = Field(
        default="not_breaching",
        description="what a step with too few answers or rewards to judge means; breaching: it is rolled back",
    )


class PromotionTest(RewardRules):
    """Evidence on reward that the new version must give before it advances.

    At every step but the last, an anytime-valid confidence interval of the difference in mean reward per decision, new
    minus old, is held against minus the margin: above it the step is passed, below it the new version is rolled back,
    and in between it goes on baking, until ``max_wait_s``, which rolls back.
    """

    margin: float = Field(default=0.0, ge=0.0, description="how much worse is still as good; 0: must be better")
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0, description="of all decisions of one update together")
    min_decisions: int = Field(default=100, ge=1, description="with a reward, of each version, before it is judged")
    max_wait_s: float = Field(default=86_400.0, gt=0.0, description="longest time at one step without a verdict")
    before_acting: bool = Field(
        default=False,
        description="begin with a step without traffic, in which the new version is valued on the old one's decisions",
    )
    max_weight: float = Field(
        default=10.0, ge=1.0, le=1000.0, description="where importance weights are cut off in that step"
    )


class Guardrail(Settings):
    """How traffic moves from the old version to the new one."""

    kind: Literal["all_at_once", "canary", "linear", "rolling"] = Field(
        default="all_at_once",
        description="in one step; a canary and then the rest; in equal steps; in batches, which may also go back so",
    )
    size: float = Field(
        default=0.1,
        gt=0.0,
        le=0.5,
        description="share of the traffic of the canary, of each linear step (at least 0.1) or batch (at least 0.05)",
    )
    rollback_size: float = Field(
        default=1.0,
        ge=0.05,
        le=1.0,
        description="rolling: share of the traffic of each batch that goes back, bake_s apart; 1: all of it at once",
    )
    bake_s: float = Field(
        default=0.0, ge=0.0, le=3600.0, description="time after each step in which alarms are watched"
    )
    alarms: Alarms = Alarms()
    promotion: PromotionTest | None = Field(
        default=None, description="for the steps before the last; default: alarms alone decide"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "linear" and self.size < 0.1:
            raise ValueError("size of linear steps must be at least 0.1")
        if self.kind == "rolling" and self.size < 0.05:
            raise ValueError("size of rolling batches must be at least 0.05")
        if self.kind != "rolling" and self.rollback_size < 1.0:
            raise ValueError("rollback_size needs kind rolling; the others go back at once")
        if self.promotion is not None and all(share == 1.0 for share in self.steps):
            raise ValueError("a promotion test needs kind canary, linear or rolling, or promotion.before_acting")
        return self

    @property
    def steps(self) -> tuple[float, ...]:
        """Share of the new version at each step.

        >>> Guardrail(kind="linear", size=0.3).steps
        (0.3, 0.6, 0.9, 1.0)
        """
        before = (0.0,) if self.promotion is not None and self.promotion.before_acting else ()
        match self.kind:
            case "all_at_once":
                return (*before, 1.0)
            case "canary":
                return (*before, self.size, 1.0)
            case "linear" | "rolling":
                n_steps = math.ceil(round(1.0 / self.size, 9))
                return (*before, *(round((i + 1) * self.size, 9) for i in range(n_steps - 1)), 1.0)
