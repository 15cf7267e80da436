"""`OptimizeSettings`: how a policy is made smaller, and how much return that may cost."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveInt

from policylab.config import Settings

Method = Literal["table", "graph", "int8", "prune", "distill-network", "distill-tree"]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT_LOSS = 0.05
"""Share of the source's return that may be lost where nothing else is said."""


class OptimizeSettings(Settings):
    """Everything that decides what comes out.

    Attributes:
        how: the method.
        max_loss: largest return per episode that may be lost; None for `DEFAULT_LOSS` of the source's.
        confidence: the interval of the loss whose upper end must stay within ``max_loss``.
        episodes: on which both policies are compared, where there is no exact table.
        seed: root of all random streams.
        share: of the units of each hidden layer that ``prune`` removes.
        hidden: units of the hidden layers of ``distill-network``.
        depth: levels of the tree of ``distill-tree``.
        observations: that the source labels for a distillation.
    """

    how: Method
    max_loss: Annotated[float, Field(ge=0.0)] | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    episodes: Annotated[int, Field(ge=10, le=1_000_000)] = 200
    seed: Annotated[int, Field(ge=0)] = 0
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=8)] = (16, 16)
    depth: Annotated[int, Field(ge=1, le=16)] = 8
    observations: Annotated[int, Field(ge=100, le=10_000_000)] = 20_000
