"""Configuration: frozen, strict settings models and the loader that reports every mistake at once."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of every settings model: unknown keys are errors, values are frozen, NaN is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
