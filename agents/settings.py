"""Settings that every tabular agent shares."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from policylab.agents.exploration import EpsilonGreedy, ExplorationSettings
from policylab.agents.features import AutoFeatures, FeaturesSettings
from policylab.agents.schedules import Constant, ScheduleSettings, within
from policylab.config import Settings

ExecutionKind = Literal["auto", "plain", "compiled"]
LearningRate = Annotated[ScheduleSettings, within(0.0, math.inf, open_start=True)]


class TabularSettings(Settings):
    """What every learner of action values can be told; each adds its `kind` and its own fields."""

    mutable: ClassVar[frozenset[str]] = frozenset({"learning_rate", "discount", "exploration"})
    """Settings that may change while an agent trains: they shape no array of its state."""

    kind: str = ""
    learning_rate: LearningRate = Field(
        default=Constant(value=0.1),
        description="step size α, a number or a schedule; 0.1 as in Sutton & Barto, example 6.7",
    )
    discount: float = Field(default=0.99, ge=0.0, le=1.0, description="weight γ of a reward one step later")
    exploration: ExplorationSettings = Field(default=EpsilonGreedy(), description="how actions are chosen")
    initial_value: float = Field(default=0.0, description="every action value before learning, in units of return")
    features: FeaturesSettings = Field(default=AutoFeatures(), description="how an observation becomes rows")
    execution: ExecutionKind = Field(
        default="auto",
        description="compiled trains on the exact table of the environment, plain steps it; auto picks",
    )
