"""Policies: what a trained agent leaves behind, and what a bundle, an endpoint and an evaluation hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from policylab.config import Settings
from policylab.errors import UserError
from policylab.registry import Registry

Arrays = Mapping[str, NDArray[Any]]
Mask = NDArray[np.bool_]
"""Which actions are allowed, shape (n_actions,), at least one of them."""
_Model = TypeVar("_Model", bound=Settings)

POLICIES = Registry(
    "policy",
    {
        "tabular": "policylab.agents.value_policies:TabularPolicy",
        "bandit": "policylab.agents.value_policies:BanditPolicy",
        "onnx": "policylab.agents.onnx_policy:OnnxPolicy",
        "recurrent": "policylab.agents.recurrent_policy:RecurrentPolicy",
        "tree": "policylab.agents.tree_policy:TreePolicy",
    },
    plural="policies",
)


class Policy(Protocol):
    """A decision rule over raw environment observations.

    `act` with ``rng=None`` is deterministic (the first index among ties). With a generator it draws from the policy's
    action distribution; `sample` also tells the log-probability of what it drew, which a served decision records, and
    `log_probability` values an action that another policy took. For a Box of actions both are log-densities in units of
    the action.
    """

    def act(self, observation: Any, *, rng: np.random.Generator | None = None) -> Any:
        """Return the action for one raw observation of the environment."""
        ...

    def act_batch(self, observations: Iterable[Any], *, rng: np.random.Generator | None = None) -> NDArray[Any]:
        """Return one action for each raw observation, shape (n, ...): what `act` would return one after the other."""
        ...

    def sample(self, observation: Any, rng: np.random.Generator) -> tuple[Any, float]:
        """Return the action that `act` draws with ``rng``, and its log-probability."""
        ...

    def log_probability(self, observation: Any, action: Any) -> float:
        """Return the log-probability of drawing ``action``; -inf for one that is never drawn."""
        ...


class DiscretePolicy(Policy, Protocol):
    """A policy that chooses among a list of actions."""

    def probabilities(self, observation: Any, *, mask: Mask | None = None, greedy: bool = False) -> NDArray[np.float64]:
        """Return the probability of each action for one raw observation, shape (n_actions,).

        Args:
            observation: as the environment gives it.
            mask: the allowed actions; the others get no probability, and the policy chooses among the rest.
            greedy: of the deterministic choice, which is 1 on one action, instead of the drawn one.
        """
        ...

    def probabilities_batch(
        self, observations: Sequence[Any], *, masks: Sequence[Mask | None] | None = None, greedy: bool = False
    ) -> NDArray[np.float64]:
        """Return what `probabilities` gives for each observation, shape (n, n_actions)."""
        ...


class StoredPolicy(Policy, Protocol):
    """A policy that a bundle can hold: its kind, its JSON, its arrays and its files rebuild it exactly.

    Attributes:
        kind: its name in `POLICIES`.
        tolerance: how far probabilities, log-probabilities and continuous actions may differ between processors,
            relative to the larger of 1 and their size.
    """

    kind: str
    tolerance: float

    def config(self) -> dict[str, Any]:
        """Return the JSON part."""
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the numeric part: finite arrays by name."""
        ...

    def files(self) -> dict[str, bytes]:
        """Return further files by name, such as ``model.onnx``."""
        ...

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], arrays: Arrays, *, files: Mapping[str, bytes]) -> Self:
        """Return the policy that the parts came from.

        Raises:
            UserError: the parts do not fit together.
            MissingExtraError: the kind needs a package that is not installed.
        """
        ...


def policy_from(
    kind: str, config: Mapping[str, Any], *, arrays: Arrays, files: Mapping[str, bytes] | None = None
) -> StoredPolicy:
    """Return the stored policy of one kind; the reverse of its `config`, `arrays` and `files`.

    Raises:
        UnknownNameError: no such kind.
        UserError: the parts do not fit together.
        MissingExtraError: the kind needs a package that is not installed.
    """
    policy: StoredPolicy = POLICIES.load(kind).from_parts(config, arrays, files=files or {})
    return policy


def validated(model: type[_Model], config: Mapping[str, Any]) -> _Model:
    """Return a policy's JSON part as its settings.

    Raises:
        UserError: it does not fit them.
    """
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"policy config: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def no_files(files: Mapping[str, bytes]) -> None:
    """Raise a UserError if there are files, for a policy that is held in arrays alone."""
    if files:
        raise UserError(f"the policy needs no further files, got {', '.join(sorted(files))[:80]}")
