"""`ServedPolicy`: what one variant does with observations, within masks and bounds, and how likely it was to do so."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from struct import Struct
from typing import Any, Literal

import msgspec
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from policylab.agents.action_distributions import Gaussian
from policylab.agents.bundle import Bundle
from policylab.agents.distribution_policy import DistributionPolicy, Limits
from policylab.agents.policy import Mask
from policylab.agents.recurrent_policy import Memory, RecurrentPolicy
from policylab.deployment.endpoint import BoundsSettings
from policylab.errors import RunError, UserError

_SMALLEST = 2.0**-53
_LARGEST_LOG = 709.782712893384
_numbers = Struct("<QQQ16x").unpack
MAX_KNOWN = 100_000


class PolicyFailure(RunError):
    """A policy gave no usable answer to an observation of its own space."""


class Draw:
    """The random numbers of one decision: a function of the endpoint's secret and the decision's id.

    A retry repeats the decision to the last bit, after a restart too. Without the secret nobody can choose an id for
    the action it leads to.

    Attributes:
        of_variant: in [0, 1), for the assignment of a variant.
        of_action: in [0, 1), for the action of a single observation.
        of_sampling: in [0, 1), for what is recorded.

    >>> Draw(b"secret", "a").of_action == Draw(b"secret", "a").of_action
    True
    """

    __slots__ = ("_digest", "of_action", "of_sampling", "of_variant")

    def __init__(self, secret: bytes, decision_id: str) -> None:
        self._digest = hashlib.blake2b(decision_id.encode(), key=secret, digest_size=40).digest()
        variant, action, sampling = _numbers(self._digest)
        self.of_variant = (variant >> 11) * _SMALLEST
        self.of_action = (action >> 11) * _SMALLEST
        self.of_sampling = (sampling >> 11) * _SMALLEST

    def of_step(self, i: int) -> Draw:
        """Return the random numbers of the i-th decision of a request whose decisions follow from each other."""
        return Draw(self._digest, str(i))

    def generator(self) -> np.random.Generator:
        """Return a stream for actions that take more than one number."""
        return np.random.Generator(np.random.SFC64(int.from_bytes(self._digest[24:40], "little")))


class Choice(msgspec.Struct, frozen=True):
    """One action, as the environment takes it, with the logarithm of its propensity and the propensity itself."""

    action: Any
    log_propensity: float
    propensity: float

    @classmethod
    def of(cls, action: Any, log_propensity: float) -> Choice:
        """Return the choice of an action; a density beyond the range of floats is the largest float.

        >>> Choice.of(1, 0.0).propensity, Choice.of(1, 800.0).propensity
        (1.0, 1.797...e+308)
        """
        return cls(action, log_propensity, math.exp(min(log_propensity, _LARGEST_LOG)))


class _Listing:
    """What a policy does with one observation.

    Args:
        row: the probability of each action.
        first: the action of the first of them.

    Raises:
        PolicyFailure: they do not add up to 1.
    """

    __slots__ = ("_choices", "_cumulative", "_first", "_probabilities")

    def __init__(self, row: NDArray[np.float64], first: int) -> None:
        self._first = first
        self._probabilities: list[float] = row.tolist()
        self._cumulative = list(itertools.accumulate(self._probabilities))
        if not 0.999 < self._cumulative[-1] < 1.001:  # NaN compares as false
            total = self._cumulative[-1]
            raise PolicyFailure(f"the probabilities of the actions add up to {total}; export the policy again")
        self._choices: list[Choice | None] = [None] * len(self._probabilities)

    def at(self, uniform: float) -> Choice:
        """Return the choice that a number in [0, 1) draws."""
        index = bisect_right(self._cumulative, uniform * self._cumulative[-1])
        while self._probabilities[index] == 0.0:  # rounding at the upper end, where masked actions may stand
            index -= 1
        choice = self._choices[index]
        if choice is None:
            choice = self._choices[index] = Choice.of(self._first + index, math.log(self._probabilities[index]))
        return choice


class Chosen(msgspec.Struct, frozen=True):
    """The choices of one request, and what the policy remembers after them, if it has a memory."""

    choices: Sequence[Choice]
    memory: Memory | None = None


class ServedPolicy:
    """A policy under the rules of an endpoint.

    Args:
        bundle: the verified policy.
        exploration: draw actions; without it the deterministic action is taken, whose propensity is 1.
        bounds: narrower bounds of continuous actions, to which actions are clipped.

    Raises:
        UserError: the bounds do not fit the action space.
    """

    def __init__(self, bundle: Bundle, *, exploration: bool, bounds: BoundsSettings | None = None) -> None:
        self.bundle = bundle
        self.exploration = exploration
        self.version = bundle.digest
        self._policy: Any = bundle.policy
        self._listed = isinstance(bundle.action_space, spaces.Discrete)
        self._first = int(bundle.action_space.start) if isinstance(bundle.action_space, spaces.Discrete) else 0
        self._limits = None if bounds is None else _checked_limits(bundle, bounds)
        # A policy does not change: what it does for each of a few observations is computed once.
        few = isinstance(bundle.observation_space, spaces.Discrete) and int(bundle.observation_space.n) <= MAX_KNOWN
        self._known: dict[int, _Listing] | None = {} if few and self._listed else None
        self.n_actions = int(bundle.action_space.n) if isinstance(bundle.action_space, spaces.Discrete) else None
        density = exploration and isinstance(bundle.action_space, spaces.Box)
        self.propensity_kind: Literal["probability", "density"] = "density" if density else "probability"

    @property
    def remembers(self) -> bool:
        """Whether it has a memory, which goes from decision to decision of a session."""
        return isinstance(self.bundle.policy, RecurrentPolicy)

    def choose(self, observations: Sequence[Any], masks: Sequence[Mask | None] | None, *, draw: Draw) -> list[Choice]:
        """Return one choice for each raw observation.

        Raises:
            UserError: an observation does not fit, or the model cannot be computed.
            PolicyFailure: the policy computed no distribution, as a network does of NaN.
        """
        if not self._listed:
            return self._drawn(observations, draw) if self.exploration else self._deterministic(observations)
        if len(observations) == 1:
            return [self._listing(observations[0], None if masks is None else masks[0]).at(draw.of_action)]
        rows = self._policy.probabilities_batch(observations, masks=masks, greedy=not self.exploration)
        uniforms = draw.generator().random(len(observations)).tolist()
        return [_Listing(row, self._first).at(uniform) for row, uniform in zip(rows, uniforms, strict=True)]

    def choose_next(
        self, observations: Sequence[Any], masks: Sequence[Mask | None] | None, *, memory: Memory | None, draw: Draw
    ) -> Chosen:
        """Return one choice for each raw observation: steps of an episode, one after the other, if there is a memory.

        Args:
            observations: of one request.
            masks: as in `choose`.
            memory: as of the request before, of the same episode; None begins one. A policy without memory ignores it.
            draw: random numbers.

        Raises:
            UserError, PolicyFailure: as `choose`.
        """
        if not isinstance(self.bundle.policy, RecurrentPolicy):
            return Chosen(self.choose(observations, masks, draw=draw))
        steps = self.bundle.policy.after([memory or self.bundle.policy.initial()])
        acting = copy.copy(self)
        acting._policy, acting._known = steps, None
        if len(observations) == 1:
            return Chosen(acting.choose(observations, masks, draw=draw), steps.memories()[0])
        choices: list[Choice] = []
        for i, observation in enumerate(observations):
            mask = None if masks is None else [masks[i]]
            choices += acting.choose([observation], mask, draw=draw.of_step(i))
        return Chosen(choices, steps.memories()[0])

    def _listing(self, observation: Any, mask: Mask | None) -> _Listing:
        known = self._known if mask is None and type(observation) is int else None
        if known is not None and (found := known.get(observation)) is not None:
            return found
        row = self._policy.probabilities(observation, mask=mask, greedy=not self.exploration)
        found = _Listing(row, self._first)
        if known is not None and self.bundle.observation_space.contains(observation):
            known[observation] = found
        return found

    def _drawn(self, observations: Sequence[Any], draw: Draw) -> list[Choice]:
        rng = draw.generator()
        if isinstance(self._policy, DistributionPolicy):
            actions, found = self._policy.sample_batch(observations, rng, limits=self._limits)
            pairs = list(zip(actions, found.tolist(), strict=True))
        else:
            pairs = [self._policy.sample(observation, rng) for observation in observations]
        return [Choice.of(_finite(action), _finite(log_propensity)) for action, log_propensity in pairs]

    def _deterministic(self, observations: Sequence[Any]) -> list[Choice]:
        actions = self._policy.act_batch(observations)
        if self._limits is not None:
            actions = actions.clip(*self._limits)
        return [Choice.of(_finite(action), 0.0) for action in actions]

    def log_probability(self, observation: Any, action: Any, *, mask: Mask | None) -> float:
        """Return how likely this policy, under the same rules, takes an action that another one took."""
        if self._listed:
            found = self._policy.probabilities(observation, mask=mask, greedy=not self.exploration)
            probability = float(found[int(action) - self._first])
            return math.log(probability) if probability > 0.0 else -math.inf
        if not self.exploration:
            return 0.0 if np.array_equal(self._deterministic([observation])[0].action, action) else -math.inf
        if self._limits is None:
            return float(self._policy.log_probability(observation, action))
        return float(self._policy.log_probability(observation, action, limits=self._limits))


def _finite(value: Any) -> Any:
    if not np.isfinite(value).all():
        raise PolicyFailure("the policy gave an action or a density that is not finite; export it again")
    return value


def _checked_limits(bundle: Bundle, bounds: BoundsSettings) -> Limits:
    space, policy = bundle.action_space, bundle.policy
    continuous = isinstance(policy, DistributionPolicy) and isinstance(policy.settings.distribution, Gaussian)
    if not isinstance(space, spaces.Box) or not continuous:
        raise UserError(
            f"bounds are for continuous actions; the actions of this policy are {str(space)[:60]}, use masks"
        )
    low, high = (_per_component(bound, space) for bound in (bounds.low, bounds.high))
    if not ((low < high) & (low >= space.low) & (high <= space.high)).all():
        raise UserError(f"bounds must be narrower than the action space {space}, got low {low} and high {high}")
    return low, high


def _per_component(bound: float | tuple[float, ...], space: spaces.Box) -> NDArray[Any]:
    try:
        return np.broadcast_to(np.array(bound, dtype=space.dtype), space.shape)
    except ValueError as error:
        raise UserError(f"bounds need one number, or one for each of {space.shape} components, got {bound}") from error
