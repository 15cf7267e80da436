"""`EnvSettings`: how an experiment file names an environment."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, field_validator, model_serializer

from policylab.config import Settings

ID_FORM = re.compile(r"(?:(?P<module>[\w.]+):)?(?P<id>(?:[\w-]+/)?[\w.-]+-v\d+)", re.ASCII)
"""``[module:][namespace/]Name-vN``, stricter than Gymnasium, which lets ``Name`` and ``Name-vx`` pass."""

RESERVED_KWARGS = {
    "max_episode_steps": "set it beside `kwargs`",
    "render_mode": "policylab chooses it when it draws",
    "disable_env_checker": "leave it out, environments are checked once",
    "id": "set it beside `kwargs`",
}


class LearnedRewardSettings(Settings):
    """A reward model that replaces the environment's reward while an agent learns."""

    path: str = Field(description="folder that `policylab labels train` wrote")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="its digest, so that a run says what it learned from")
    shift: float = Field(
        default=0.0,
        description="added to the reward of every step: preferences between segments of one length cannot tell it, "
        "and it decides whether long episodes are good",
    )


class EnvSettings(Settings):
    """An environment by its Gymnasium id."""

    id: str = Field(
        description="Gymnasium id with its version, 'FrozenLake-v1', or 'module:namespace/Name-v0' to import the "
        "module that registers it first"
    )
    kwargs: dict[str, JsonValue] = Field(default_factory=dict, description="arguments of the environment's constructor")
    max_episode_steps: int | None = Field(
        default=None, ge=1, description="time limit in steps; default: the registered one, or else 1000"
    )
    learned_reward: LearnedRewardSettings | None = Field(
        default=None, description="learn from this reward; policies are still valued by the environment's own"
    )

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``learned_reward`` out without one: experiments keep the hash they had before it existed."""
        return {name: value for name, value in handler(self).items() if name != "learned_reward" or value is not None}

    @field_validator("id")
    @classmethod
    def _has_form(cls, value: str) -> str:
        if ID_FORM.fullmatch(value):
            return value
        name = re.sub(r"-v\w*$", "", value)
        if re.fullmatch(r"[\w.:/-]+-v\d+", value, re.ASCII) or not re.fullmatch(r"[\w.:/-]+", name, re.ASCII):
            raise ValueError("an environment id has the form [module:][namespace/]Name-vN; see `policylab list envs`")
        raise ValueError(
            f"an environment id ends in its version; write e.g. '{_newest(name)}', see `policylab list envs`"
        )

    @field_validator("kwargs")
    @classmethod
    def _not_reserved(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in sorted(value.keys() & RESERVED_KWARGS.keys()):
            raise ValueError(f"`{name}` is no argument of the environment here; {RESERVED_KWARGS[name]}")
        return value


def _newest(name: str) -> str:
    """Return the newest registered version of ``name``, or a guess."""
    from gymnasium import registry  # only for a message: reading settings needs no Gymnasium

    versions = [spec.version for known, spec in registry.items() if known.rpartition("-v")[0] == name.split(":")[-1]]
    return f"{name}-v{max((version for version in versions if version is not None), default=0)}"
