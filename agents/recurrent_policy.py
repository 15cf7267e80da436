"""`RecurrentPolicy`: a network with a memory, as an ONNX graph with the memory going in and coming out.

The policy itself holds no memory: `RecurrentPolicy.after` makes `Steps`, the policy as of a memory, which go on from
decision to decision. Asked directly, like any other policy, it decides as at the start of an episode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from policylab.agents.distribution_policy import DistributionPolicy
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings, Port
from policylab.errors import UserError

Memory = Mapping[str, NDArray[np.float32]]
"""What is remembered, by name: of one episode arrays of the shapes in the settings, of n episodes (n, ...)."""
NEXT = "_next"
"""Ending of the name of the output that goes into the input of the same name at the next step."""
MAX_MEMORY = 1_000_000
"""Numbers remembered of an episode; an endpoint holds them for each session."""


class RecurrentSettings(OnnxSettings):
    """What a recurrent policy is beside its graph.

    Attributes:
        memory: shape of each part of the memory of one episode; at its start they are 0.
    """

    memory: Annotated[dict[str, tuple[PositiveInt, ...]], Field(min_length=1, max_length=16)]


class RecurrentPolicy(OnnxPolicy):
    """Acts on what a network computes from a raw observation and what it remembers of the episode.

    Beside the inputs of an `OnnxPolicy`, the graph has one for each part of the memory, of shape (n, ...) and float32;
    after its ``outputs`` come the parts of the next memory, in any order, under their names with ``_next`` at the end.

    Args:
        model: an ONNX `ModelProto` without references to other files.
        settings: how observations and memory enter, and what the output means.

    Raises:
        UserError: the model is damaged or hostile, or does not fit the settings.
        MissingExtraError: onnxruntime is not installed.
    """

    settings: RecurrentSettings
    Settings: ClassVar[type[OnnxSettings]] = RecurrentSettings
    kind: str = "recurrent"

    def _without_memory(self, inputs: dict[str, Port], outputs: list[Port]) -> tuple[dict[str, Port], list[Port]]:
        shapes = self.settings.memory
        if sum(int(np.prod(shape, dtype=np.float64)) for shape in shapes.values()) > MAX_MEMORY:
            raise UserError(f"a policy may remember {MAX_MEMORY:,} numbers of an episode, this one has more")
        coming = [port.name.removesuffix(NEXT) for port in self._session.get_outputs()[1:]]
        after = dict(zip(coming, outputs[1:], strict=True))
        fits = sorted(coming) == sorted(shapes) and all(
            port is not None and port[0] == "tensor(float)" and port[1][1:] == shape
            for name, shape in shapes.items()
            for port in (inputs.get(name), after[name])
        )
        self._coming = coming
        if not fits:
            raise UserError(
                f"the ONNX model must take and give the memory {dict(shapes)} of its settings, got the inputs "
                f"{sorted(inputs)} and after the first output {coming}"
            )
        return {name: port for name, port in inputs.items() if name not in shapes}, outputs[:1]

    def initial(self) -> Memory:
        """Return the memory at the start of an episode: zeros."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.settings.memory.items()}

    def after(self, memories: Sequence[Memory]) -> Steps:
        """Return the policy as of the memories of n episodes."""
        return Steps(self, {name: np.stack([memory[name] for memory in memories]) for name in self.settings.memory})

    def compute(self, parts: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the outputs at the start of episodes; see `OnnxPolicy.compute`."""
        n = len(next(iter(parts.values())))
        return self.advance(parts, {name: np.stack([part] * n) for name, part in self.initial().items()})[0]

    def advance(self, parts: Mapping[str, NDArray[Any]], memory: Memory) -> tuple[NDArray[np.float32], Memory]:
        """Return the outputs of one step, shape (n, n_outputs), and the memory after it.

        Raises:
            UserError: the graph cannot be computed, or remembers no finite numbers.
        """
        outputs, *following = self.all_outputs({**parts, **memory})
        if not all(np.isfinite(part).all() for part in following):
            raise UserError("the network remembers NaN or infinity, as after diverged learning; export it again")
        return outputs, dict(zip(self._coming, following, strict=True))


class Steps(DistributionPolicy):
    """A recurrent policy in n episodes: each question is the next step of all of them.

    Args:
        policy: the policy.
        memory: of the n episodes.

    Attributes:
        memory: as of the last step.
    """

    settings: RecurrentSettings

    def __init__(self, policy: RecurrentPolicy, memory: Memory) -> None:
        self.settings = policy.settings
        self.memory = memory
        self._policy = policy

    @property
    def reads_numbers(self) -> bool:
        """Whether an observation is one whole number, as of a Discrete space."""
        return self._policy.reads_numbers

    def outputs(self, observations: Iterable[Any]) -> NDArray[np.float32]:
        """Return the inputs of the distribution for the next observation of each episode, shape (n, n_outputs)."""
        batch = list(observations)
        found, self.memory = self._policy.advance(self._policy.inputs(batch), self.memory)
        return found

    def memories(self) -> list[Memory]:
        """Return the memory of each episode."""
        n = len(next(iter(self.memory.values())))
        return [{name: part[i] for name, part in self.memory.items()} for i in range(n)]


class Episodes:
    """Decides in many episodes at once; remembers each of them if the policy has a memory.

    Args:
        policy: any policy.
    """

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._memories: dict[int, Memory] = {}

    def act_batch(
        self, observations: Sequence[Any], *, numbers: Sequence[int], rng: np.random.Generator | None = None
    ) -> NDArray[Any]:
        """Return the next action of each of the episodes ``numbers``; all others are over, or yet to begin."""
        if not isinstance(self._policy, RecurrentPolicy):
            actions: NDArray[Any] = self._policy.act_batch(observations, rng=rng)
            return actions
        initial = self._policy.initial()
        steps = self._policy.after([self._memories.get(number, initial) for number in numbers])
        actions = steps.act_batch(observations, rng=rng)
        self._memories = dict(zip(numbers, steps.memories(), strict=True))
        return actions


def in_episode(policy: Any) -> Any:
    """Return the policy at the start of one episode, to be asked once for each of its steps."""
    return policy.after([policy.initial()]) if isinstance(policy, RecurrentPolicy) else policy
