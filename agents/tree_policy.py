"""`TreePolicy`: a decision tree over the numbers of a raw observation, held in plain arrays.

| array | type, shape | of node i |
|---|---|---|
| ``feature`` | int32, (n_nodes,) | the number that is compared; -1 in a leaf |
| ``threshold`` | float64, (n_nodes,) | ``left`` is for numbers up to this, ``right`` for all others, NaN too |
| ``left``, ``right`` | int32, (n_nodes,) | nodes behind i; -1 in a leaf |
| ``outputs`` | float32, (n_nodes, n_outputs) | inputs of the action distribution; read in leaves |

Node 0 is the root, and children stand behind their parent: a walk ends, whoever wrote the arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from policylab.agents.distribution_policy import DistributionPolicy, DistributionSettings
from policylab.agents.policy import Arrays, no_files, validated
from policylab.errors import UserError

MAX_NODES = 65_535
MAX_DEPTH = 64
LEAF = -1
_DTYPES = {"feature": np.int32, "threshold": np.float64, "left": np.int32, "right": np.int32, "outputs": np.float32}


class TreeSettings(DistributionSettings):
    """What a tree is beside its arrays.

    Attributes:
        n_features: numbers of an observation, flattened row by row.
        reads_numbers: whether an observation is one whole number, as of a Discrete space.
    """

    n_features: Annotated[int, Field(ge=1, le=1_000_000)]
    reads_numbers: bool = False


class TreePolicy(DistributionPolicy):
    """Acts on the outputs of the leaf that an observation falls into.

    Args:
        arrays: as the table of this module says; copied.
        settings: numbers of an observation, and what the outputs mean.

    Raises:
        UserError: the arrays are no tree, or do not fit the settings.
    """

    settings: TreeSettings
    kind: str = "tree"
    tolerance: float = 1e-9

    def __init__(self, arrays: Arrays, settings: TreeSettings) -> None:
        self._arrays = {name: np.array(array) for name, array in arrays.items()}
        for array in self._arrays.values():
            array.flags.writeable = False
        _check_types(self._arrays)
        self.settings = settings
        self.depth = _checked_depth(self._arrays, settings)
        self._walk = tuple(self._arrays[name].tolist() for name in ("feature", "threshold", "left", "right"))

    @property
    def n_leaves(self) -> int:
        """Number of leaves."""
        return int((self._arrays["feature"] == LEAF).sum())

    @property
    def reads_numbers(self) -> bool:
        """Whether an observation is one whole number, as of a Discrete space."""
        return self.settings.reads_numbers

    def outputs(self, observations: Iterable[Any]) -> NDArray[np.float32]:
        """Return the inputs of the distribution for raw observations, shape (n, n_outputs).

        Raises:
            UserError: an observation has another number of numbers.
        """
        rows = self._rows(observations if isinstance(observations, list | np.ndarray) else list(observations))
        leaves = [self._leaf(rows[0])] if len(rows) == 1 else self._leaves(rows)
        found: NDArray[np.float32] = self._arrays["outputs"][leaves]
        return found

    def _rows(self, batch: Any) -> NDArray[np.float64]:
        n = self.settings.n_features
        try:
            rows = np.asarray(batch).reshape(len(batch), n)
        except ValueError as error:
            raise UserError(f"an observation must be {n} numbers, got {str(batch)[:60]}") from error
        if len(batch) and rows.dtype.kind not in "iufb":
            raise UserError(f"an observation must be {n} numbers, got {str(batch)[:60]}")
        return rows.astype(np.float64)

    def _leaf(self, row: NDArray[np.float64]) -> int:
        feature, threshold, left, right = self._walk
        numbers, node = row.tolist(), 0
        while (place := feature[node]) != LEAF:
            node = left[node] if numbers[place] <= threshold[node] else right[node]
        return int(node)

    def _leaves(self, rows: NDArray[np.float64]) -> NDArray[np.int64]:
        feature, threshold, left, right = (self._arrays[name] for name in ("feature", "threshold", "left", "right"))
        node, every = np.zeros(len(rows), dtype=np.int64), np.arange(len(rows))
        for _ in range(self.depth):
            goes_left = rows[every, feature[node]] <= threshold[node]
            node = np.where(feature[node] == LEAF, node, np.where(goes_left, left[node], right[node]))
        return node

    def config(self) -> dict[str, Any]:
        """Return the number of features and the distribution as JSON."""
        return self.settings.model_dump(mode="json")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the nodes, as the table of this module says."""
        return dict(self._arrays)

    def files(self) -> dict[str, bytes]:
        """Return nothing: arrays hold the whole policy."""
        return {}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], arrays: Arrays, *, files: Mapping[str, bytes] | None = None) -> Self:
        """Return the policy that `config` and `arrays` came from."""
        no_files(files or {})
        return cls(arrays, validated(TreeSettings, config))


def _check_types(arrays: Arrays) -> None:
    held = {name: array.dtype for name, array in arrays.items()}
    if held != {name: np.dtype(dtype) for name, dtype in _DTYPES.items()}:
        told = ", ".join(f"{name} ({dtype})" for name, dtype in sorted(held.items())) or "none"
        raise UserError(f"a tree needs the arrays feature, threshold, left, right and outputs, got {told[:120]}")


def _checked_depth(arrays: Arrays, settings: TreeSettings) -> int:
    """Return the depth of the tree.

    Raises:
        UserError: a shape, an index or a number is wrong, or a node has no parent or several.
    """
    feature, left, right = arrays["feature"], arrays["left"], arrays["right"]
    n_nodes, n_outputs = feature.size, settings.distribution.n_outputs
    shapes = {name: (n_nodes, n_outputs) if name == "outputs" else (n_nodes,) for name in _DTYPES}
    if not 1 <= n_nodes <= MAX_NODES or any(arrays[name].shape != shape for name, shape in shapes.items()):
        found = {name: array.shape for name, array in sorted(arrays.items())}
        raise UserError(f"a tree has 1 to {MAX_NODES} nodes and {n_outputs} outputs in each, got shapes {found}")
    if not (np.isfinite(arrays["threshold"]).all() and np.isfinite(arrays["outputs"]).all()):
        raise UserError("the tree holds NaN or infinity; distil it again")
    inner, nodes = feature != LEAF, np.arange(n_nodes)
    if not ((feature >= LEAF) & (feature < settings.n_features)).all():
        raise UserError(f"the tree compares a number that no observation has; it has {settings.n_features}")
    for child in (left, right):
        if not np.where(inner, (child > nodes) & (child < n_nodes), child == LEAF).all():
            raise UserError("the children of a tree's node stand behind it, and leaves have none; distil it again")
    if not np.array_equal(np.sort(np.concatenate([left[inner], right[inner]])), nodes[1:]):
        raise UserError("a node of the tree has no parent, or more than one; distil it again")
    depth = np.zeros(n_nodes, dtype=np.int64)
    for node in np.flatnonzero(inner).tolist():
        depth[left[node]] = depth[right[node]] = depth[node] + 1
    if depth.max() > MAX_DEPTH:
        raise UserError(f"the tree is {depth.max()} levels deep, above {MAX_DEPTH}; distil it with --depth")
    return int(depth.max())
