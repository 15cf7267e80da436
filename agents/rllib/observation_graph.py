"""The way of a raw observation to the network, as torch operations that an export writes into its graph.

RLlib transforms observations outside of the network, in the pieces of its env-to-module pipeline and in wrappers of the
environment; a policy that is served without RLlib must do the same. Each step here repeats one of them exactly:

| step | repeats | needs |
|---|---|---|
| `flatten_step` | `FlattenObservations`: one-hot encoding, then all parts side by side | any space |
| `filter_step` | `MeanStdFilter`: subtract the mean, divide by the deviation, clip; in 64 bits | a Box of floats |
| `scale_step` | an environment wrapper that gives images of bytes as floats in [0, 1] | a Box of bytes |

A step is a `torch.nn.Module` from the tuple of an observation's parts to a tuple of parts. Parts come in the order of
`leaves`, which is that of dm-tree: the keys of a Dict sorted, whatever their order in the space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from policylab.errors import UserError

Path = tuple[str | int, ...]


def leaves(space: Space[Any], path: Path = ()) -> Iterator[tuple[Path, Space[Any]]]:
    """Yield the parts of a space that are arrays or numbers, with the keys that lead to them.

    >>> nested = spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Tuple([spaces.Box(0, 1), spaces.Discrete(3)])})
    >>> [path for path, _ in leaves(nested)]
    [('a', 0), ('a', 1), ('b',)]
    """
    match space:
        case spaces.Dict():
            for name in sorted(space.spaces):
                yield from leaves(space.spaces[name], (*path, name))
        case spaces.Tuple():
            for number, part in enumerate(space.spaces):
                yield from leaves(part, (*path, number))
        case spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary() | spaces.Box():
            yield path, space
        case _:
            raise UserError(
                f"observations of the space {str(space)[:80]} cannot be exported; use Box, Discrete, MultiDiscrete, "
                "MultiBinary, Dict or Tuple spaces"
            )


def example(space: Space[Any]) -> Any:
    """Return a batch of two first values of one part of a space, as a torch tensor of the part's type."""
    import torch

    first = getattr(space, "start", 0) + np.zeros(space.shape or (), dtype=space.dtype)
    return torch.from_numpy(np.stack([first, first]).astype(space.dtype))


def flatten_step(parts: Sequence[Space[Any]]) -> Any:
    """Return the step that encodes discrete parts as one-hot and joins all parts into one vector per observation."""
    import torch

    class Flatten(torch.nn.Module):
        def forward(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
            found = [part for space, value in zip(parts, values, strict=True) for part in _encoded(space, value)]
            return (torch.cat(found, dim=1) if len(found) > 1 else found[0],)

    return Flatten()


def _encoded(space: Space[Any], value: Any) -> Iterator[Any]:
    import torch

    match space:
        case spaces.Discrete():
            yield torch.nn.functional.one_hot(value - int(space.start), int(space.n)).float()
        case spaces.MultiDiscrete():
            sizes, starts = space.nvec.ravel().tolist(), space.start.ravel().tolist()
            flat = value.reshape(-1, len(sizes))
            for i, (size, start) in enumerate(zip(sizes, starts, strict=True)):
                yield torch.nn.functional.one_hot(flat[:, i] - start, size).float()
        case _:
            yield value.reshape(-1, int(np.prod(space.shape or (), dtype=np.int64))).float()


def filter_step(mean: Any, deviation: Any, *, clip: float | None) -> Any:
    """Return the step that subtracts ``mean``, divides by ``deviation`` and clips to ±``clip``.

    Args:
        mean: shape of the observation, float64.
        deviation: shape of the observation, > 0, float64.
        clip: bound on the result; None for none.
    """
    import torch

    class Filter(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.from_numpy(np.array(mean, dtype=np.float64)))
            self.register_buffer("deviation", torch.from_numpy(np.array(deviation, dtype=np.float64)))

        def forward(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
            (value,) = values
            filtered = (value.double() - self.mean) / self.deviation
            if clip is not None:
                filtered = filtered.clamp(-clip, clip)
            return (filtered.to(value.dtype),)

    return Filter()


def scale_step() -> Any:
    """Return the step that divides bytes by 255."""
    import torch

    class Scale(torch.nn.Module):
        def forward(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
            (value,) = values
            return (value.float() / 255.0,)

    return Scale()


def wrapper_steps(raw: Space[Any], given: Space[Any]) -> list[Any]:
    """Return the steps that lead from the environment's own observations to those that RLlib was given.

    Raises:
        UserError: no step here does that.
    """
    if raw == given:
        return []
    parts = [part for _, part in leaves(raw)]
    if isinstance(given, spaces.Box) and given.dtype == np.float32:
        if isinstance(raw, spaces.Box) and raw.dtype == np.uint8 and len(raw.shape) == 3 and raw.shape == given.shape:
            return [scale_step()]
        if given.shape == (sum(_width(part) for part in parts),):
            return [flatten_step(parts)]
    raise UserError(
        f"RLlib was given observations of {str(given)[:60]}, the environment gives {str(raw)[:60]}; only flattening "
        "and the scaling of bytes to [0, 1] can be exported"
    )


def _width(space: Space[Any]) -> int:
    match space:
        case spaces.Discrete():
            return int(space.n)
        case spaces.MultiDiscrete():
            return int(space.nvec.sum())
        case _:
            return int(np.prod(space.shape or (), dtype=np.int64))
