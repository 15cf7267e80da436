"""`RllibSettings`: what an experiment file says of an RLlib agent. Nothing here needs ray.

The fields are the words of the field; whatever else RLlib can be told goes through ``overrides``, which is
checked against the algorithm's own configuration when the agent is made.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    JsonValue,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from policylab.agents.rllib.algorithms import ALGORITHMS, Algorithm
from policylab.agents.schedules import Constant, Linear, within
from policylab.config import Settings

AlgorithmName = Literal["PPO", "APPO", "IMPALA", "DQN", "SAC", "BC", "MARWIL", "CQL"]
Activation = Literal["relu", "tanh", "elu", "silu", "leaky_relu", "linear"]
Device = Literal["auto", "cpu", "cuda"]


def _number_is_constant(given: Any) -> Any:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return {"kind": "constant", "value": given}
    if not isinstance(given, dict | Settings):
        raise ValueError("expected a number, or a schedule such as {kind: linear, start: 1e-3, end: 0.0}")
    return given


LearningRate = Annotated[
    Annotated[Constant | Linear, Field(discriminator="kind")],
    BeforeValidator(_number_is_constant, json_schema_input_type=float | Constant | Linear),
    within(0.0, math.inf, open_start=True),
]


class Lstm(Settings):
    """A recurrent layer behind the hidden ones: what the policy remembers of the episode so far."""

    cell_size: int = Field(default=64, ge=1, le=4096, description="numbers remembered, and as many in the cell")
    sequence: int = Field(
        default=20, ge=2, le=10_000, description="steps through which gradients flow back; longer episodes are cut"
    )


class Network(Settings):
    """The neural network: fully connected, behind a convolutional part where observations are images."""

    hidden: tuple[PositiveInt, ...] | None = Field(
        default=None, description="units of each hidden layer; default: 64-64, for DQN and SAC 256-256"
    )
    activation: Activation | None = Field(
        default=None, description="of the hidden layers; default: tanh, for DQN and SAC relu"
    )
    shared: bool = Field(
        default=False, description="whether policy and value function share the hidden layers (PPO, IMPALA)"
    )
    dropout: float = Field(
        default=0.0,
        ge=0.0,
        lt=1.0,
        description="share of hidden units left out at random in each gradient step; never while sampling, evaluating "
        "or serving",
    )

    lstm: Lstm | None = Field(
        default=None, description="a memory (PPO), for environments whose observations do not tell all; default: none"
    )

    @model_serializer(mode="wrap")
    def _without_what_is_not_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``lstm`` out without one: experiments keep the hash, and agents the checkpoints, they had before."""
        return {name: value for name, value in handler(self).items() if name != "lstm" or value is not None}

    @model_validator(mode="after")
    def _dropout_has_units(self) -> Self:
        if self.dropout and (self.activation == "linear" or self.hidden == ()):
            raise ValueError("`dropout` acts on the activations of hidden layers; give layers that are not linear")
        return self


class GradientClip(Settings):
    """A bound on gradients, before the optimiser sees them."""

    by: Literal["global_norm", "norm", "value"] = Field(
        default="global_norm",
        description="what is bounded: the norm over all parameters of an optimiser, of each parameter, or every number",
    )
    limit: float = Field(gt=0.0, description="the bound; larger gradients are scaled down (value: cut off) to it")


class RllibSettings(Settings):
    """A deep agent of RLlib."""

    mutable: ClassVar[frozenset[str]] = frozenset(
        {
            "learning_rate",
            "discount",
            "batch_size",
            "minibatch_size",
            "n_epochs",
            "gradient_clip",
            "l1",
            "l2",
            "diagnostics",
            "overrides",
        }
    )
    """Settings that may change while it trains: they leave the network as it is."""

    kind: Literal["rllib"] = "rllib"
    algorithm: AlgorithmName = Field(description="RLlib's name of the algorithm")
    learning_rate: LearningRate = Field(
        default=Constant(value=3e-4),
        description="step size of the optimiser (for SAC of all three), a number or a linear schedule",
    )
    discount: float = Field(default=0.99, ge=0.0, le=1.0, description="weight γ of a reward one step later")
    network: Network = Network()
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="transitions an update learns from, per learner: freshly sampled (default 1024 for PPO, 512 for "
        "APPO, IMPALA) or replayed (64 for DQN, 256 for SAC)",
    )
    minibatch_size: int | None = Field(
        default=None,
        ge=1,
        description="transitions of one gradient step, PPO only; default: 128, or the whole batch",
    )
    n_epochs: int | None = Field(default=None, ge=1, description="passes over each batch, PPO only; default: 10")
    machine: Literal["small", "cluster"] = Field(
        default="small",
        description="small: everything in this process, vectorised environments; cluster: remote env runners",
    )
    n_env_runners: int | None = Field(
        default=None, ge=0, le=10_000, description="remote processes that sample; default: 0, on a cluster 2"
    )
    n_envs_per_runner: int | None = Field(
        default=None, ge=1, le=10_000, description="environments stepped as one batch; default: 8, for DQN and SAC 1"
    )
    n_learners: int | None = Field(
        default=None, ge=0, le=1024, description="remote processes that learn; 0, the default: in the run's own process"
    )
    device: Device = Field(default="auto", description="where the network is trained; auto: a GPU if there is one")
    torch_threads: int = Field(
        default=1, ge=1, le=1024, description="threads of torch; more than 1 slow small networks down"
    )
    observation_filter: Literal["none", "mean_std"] = Field(
        default="none", description="mean_std: observations are centred and scaled by their running mean and deviation"
    )
    gradient_clip: GradientClip | None = Field(
        default=None, description="a bound on gradients; default: the algorithm's, for PPO a global norm of 0.5"
    )
    l1: float = Field(default=0.0, ge=0.0, description="penalty on the sum of the weights' absolute values")
    l2: float = Field(default=0.0, ge=0.0, description="penalty on half the sum of squared weights: weight decay")
    diagnostics: bool = Field(
        default=True,
        description="report gradient norms by layer, dead units, entropy and KL, and warn of vanishing and exploding "
        "gradients",
    )
    dataset: str | None = Field(
        default=None,
        description="Parquet file of recorded transitions that BC, MARWIL and CQL learn from (`policylab record`)",
    )
    overrides: dict[str, JsonValue] = Field(
        default_factory=dict, description="further attributes of RLlib's configuration of the algorithm, by its names"
    )

    @model_validator(mode="after")
    def _fits_the_algorithm(self) -> Self:
        if not self.facts.epochs:
            for name in ("minibatch_size", "n_epochs"):
                if getattr(self, name) is not None:
                    raise ValueError(f"`{name}` belongs to PPO, {self.algorithm} learns from a batch once; remove it")
        if self.minibatch_size is not None and self.minibatch_size > self.effective_batch_size:
            raise ValueError(
                f"`minibatch_size` {self.minibatch_size} is larger than the batch of {self.effective_batch_size}; "
                "lower it or raise `batch_size`"
            )
        if self.gradient_clip is not None and {"grad_clip", "grad_clip_by"} & self.overrides.keys():
            raise ValueError("`gradient_clip` and overrides.grad_clip say the same; keep the first")
        if self.network.shared and self.facts.replays:
            raise ValueError(f"`network.shared` is for PPO and IMPALA; {self.algorithm} has but one function to learn")
        if self.network.lstm is not None and self.algorithm != "PPO":
            raise ValueError(f"`network.lstm` is for PPO; {self.algorithm} has no memory here, remove it")
        self._fits_the_data()
        return self

    def _fits_the_data(self) -> None:
        if not self.facts.offline:
            if self.dataset is not None:
                able = ", ".join(name for name, facts in ALGORITHMS.items() if facts.offline)
                raise ValueError(f"{self.algorithm} samples what it learns from; remove `dataset`, or choose {able}")
            return
        if self.dataset is None:
            raise ValueError(f"{self.algorithm} learns from recorded transitions; name their Parquet file as `dataset`")
        for name in ("n_env_runners", "n_envs_per_runner", "n_learners"):
            if getattr(self, name):
                raise ValueError(f"{self.algorithm} samples nothing and learns in the run's process; remove `{name}`")
        if self.machine == "cluster" or self.observation_filter != "none":
            raise ValueError(f"{self.algorithm} samples nothing; remove `machine: cluster` and `observation_filter`")

    @property
    def facts(self) -> Algorithm:
        """What policylab knows of the algorithm."""
        return ALGORITHMS[self.algorithm]

    @property
    def effective_batch_size(self) -> int:
        """`batch_size`, or the algorithm's default."""
        return self.batch_size or self.facts.batch_size

    @property
    def effective_env_runners(self) -> int:
        """`n_env_runners`, or the machine's default."""
        return (2 if self.machine == "cluster" else 0) if self.n_env_runners is None else self.n_env_runners

    @property
    def n_cpus(self) -> int:
        """Processors one run keeps busy: its own process, which learns, and its remote ones."""
        return 1 + self.effective_env_runners + (self.n_learners or 0)

    @property
    def effective_envs_per_runner(self) -> int:
        """`n_envs_per_runner`, or the algorithm's default."""
        return self.n_envs_per_runner or self.facts.n_envs
