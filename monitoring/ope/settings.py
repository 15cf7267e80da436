"""How to evaluate a policy by a log."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from policylab.monitoring.ope.overlap import OverlapSettings


class OpeSettings(OverlapSettings):
    """How to evaluate."""

    discount: float = Field(1.0, ge=0.0, le=1.0, description="γ of the return that is estimated")
    horizon: int | None = Field(
        None, ge=1, description="most steps of an episode; default: the time limit of the bundle's environment"
    )
    deterministic: bool = Field(False, description="value the policy's deterministic actions, not its distribution")
    level: float = Field(0.95, gt=0.0, lt=1.0, description="confidence level of intervals and lower bounds")
    n_resamples: int = Field(2_000, ge=100, le=100_000, description="bootstrap resamples of episodes")
    n_refits: int = Field(200, ge=0, le=10_000, description="of these, resamples for which the model is fitted again")
    least_return: float | None = Field(
        None, description="no return of the task is lower; default: the least logged one"
    )
    switch_threshold: float = Field(10.0, gt=0.0, description="τ of Switch-DR: largest ratio that is weighted")
    shrinkage: float = Field(100.0, gt=0.0, description="λ of optimistic shrinkage")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="root of resampling, folds and features")
