"""What Numba must know to compile the rules: their compiled primitives, and values that remember the best.

| primitive | in Python | compiled |
|---|---|---|
| `draw` | ``Generator.random`` | SFC64 on an array of its four words |
| `likely` | its argument | a hint to LLVM |
| `action_values`, `value`, `assign`, ... | a weight array | `RememberedValues` |
| `update`, `looks_ahead` | method and attribute | chosen by the algorithm's type at compile time |

Importing this module registers them; the rules themselves follow by `register_rules`.
"""
# ruff: noqa: PLR0917 - rules take positional arguments
# mypy: disable-error-code="untyped-decorator,no-untyped-call"

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, overload, register_jitable, type_callable
from numpy.typing import NDArray

from policylab.agents.exploration import among_best, greedy
from policylab.agents.rule import RULES, draw, likely
from policylab.agents.tabular.core import looks_ahead, update
from policylab.agents.tabular.values import action_values, assign, features, maximum, recall, value

INLINE: Any = {"forceinline": True}
"""The loops are fast only as one function: then tuples live in registers and calls cost nothing."""


class RememberedValues(NamedTuple):
    """Action values with the best of every state at hand, so that most updates need no search for it.

    | field | shape | meaning |
    |---|---|---|
    | weights | (n_states, n_actions) | Q(s, a) |
    | best | (n_states,) | max Q(s, ·) |
    | action | (n_states,) | its action, or -1 when several reach it |
    | bound | (n_states,) | what no value below the best exceeds |
    """

    weights: NDArray[np.float64]
    best: NDArray[np.float64]
    action: NDArray[np.int64]
    bound: NDArray[np.float64]


def form_of(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what the decorated function returns, given Numba types, as the compiled form of ``function``."""

    def register(choose: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(choose)
        def template(*arguments: Any) -> Any:
            form = choose(*arguments)
            form.__annotations__ = {}  # Numba wants the parameters of both to be equal, annotations included
            return form

        choose.__annotations__ = {}
        overload(function, jit_options=INLINE)(template)
        return choose

    return register


_registered: set[Callable[..., Any]] = set()


def register_rules() -> None:
    """Make every rule that has been imported compilable; to be called before a loop is compiled."""
    for function in RULES:
        if function not in _registered:
            register_jitable(**INLINE)(function)
            _registered.add(function)


def is_remembered(q: Any) -> bool:
    """Return whether a Numba type is that of `RememberedValues`."""
    return isinstance(q, types.NamedTuple) and q.instance_class is RememberedValues


@register_jitable(**INLINE)
def at(place: int) -> Any:
    """Return an index as an unsigned number: compiled code then need not look whether it counts from the end."""
    return np.uint64(place)


@register_jitable(**INLINE)
def refresh(q: RememberedValues, state: int) -> None:
    """Find the best of one state anew."""
    weights = q.weights
    best, place, ties, bound = weights[at(state), 0], 0, 1, -np.inf
    for action in range(1, weights.shape[1]):
        weight = weights[at(state), at(action)]
        if weight > best:
            best, place, ties, bound = weight, action, 1, best
        elif weight == best:
            ties += 1
        elif weight > bound:
            bound = weight
    q.best[at(state)], q.bound[at(state)] = best, bound
    q.action[at(state)] = place if ties == 1 else -1


@form_of(draw)
def _draw(rng: Any) -> Callable[..., Any]:
    """SFC64 and NumPy's map to [0, 1): the upper 53 bits."""

    def compiled(rng: Any) -> float:
        a, b, c, counter = rng[0], rng[1], rng[2], rng[3]
        word = a + b + counter
        rng[0] = b ^ (b >> np.uint64(11))
        rng[1] = c + (c << np.uint64(3))
        rng[2] = ((c << np.uint64(24)) | (c >> np.uint64(40))) + word
        rng[3] = counter + np.uint64(1)
        return float(word >> np.uint64(11)) * (1.0 / 9007199254740992.0)

    return compiled


@type_callable(likely)
def _likely_type(context: Any) -> Callable[..., Any]:
    return lambda condition: types.boolean


@lower_builtin(likely, types.Boolean)
def _likely(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """LLVM's ``llvm.expect``: rare code is moved out of the way, and registers go to the usual code."""
    bit = ir.IntType(1)
    expect = builder.module.declare_intrinsic("llvm.expect", [bit], ir.FunctionType(bit, [bit, bit]))
    return builder.call(expect, [args[0], bit(1)])


@form_of(features)
def _features(state: Any) -> Callable[..., Any]:
    return lambda state: (state,)


@form_of(recall)
def _recall(states: Any, place: Any) -> Callable[..., Any]:
    return lambda states, place: states[place]


@type_callable(action_values)
def _action_values_type(context: Any) -> Callable[..., Any]:
    return lambda q, state: types.Array(types.float64, 1, "C")


@lower_builtin(action_values, types.Array, types.Integer)
def _action_values_of_array(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """A row of a table, without the reference count that a slice in a called function would cost."""
    return context.get_function(operator.getitem, sig)(builder, args)


@lower_builtin(action_values, types.NamedTuple, types.Integer)
def _action_values_remembered(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    row = sig.return_type(sig.args[0].types[0], sig.args[1])
    return context.get_function(operator.getitem, row)(builder, (builder.extract_value(args[0], 0), args[1]))


@form_of(value)
def _value(q: Any, state: Any, action: Any) -> Callable[..., Any]:
    if is_remembered(q):
        return lambda q, state, action: q.weights[at(state), at(action)]
    return lambda q, state, action: q[at(state), at(action)]


@form_of(maximum)
def _maximum(q: Any, state: Any) -> Callable[..., Any]:
    if is_remembered(q):
        return lambda q, state: q.best[at(state)]

    def scanned(q: Any, state: Any) -> Any:
        best = q[state, 0]
        for action in range(1, q.shape[1]):
            best = max(best, q[at(state), at(action)])
        return best

    return scanned


@form_of(greedy)
def _greedy(q: Any, state: Any, rng: Any) -> Callable[..., Any]:
    def remembered(q: Any, state: Any, rng: Any) -> Any:
        action = q.action[at(state)]
        return action if action >= 0 else among_best(action_values(q, state), rng)

    return remembered if is_remembered(q) else lambda q, state, rng: among_best(action_values(q, state), rng)


@form_of(assign)
def _assign(q: Any, feature: Any, action: Any, weight: Any) -> Callable[..., Any]:
    def plain(q: Any, feature: Any, action: Any, weight: Any) -> None:
        q[at(feature), at(action)] = weight

    def remembered(q: Any, feature: Any, action: Any, weight: Any) -> None:
        old, best, bound = q.weights[at(feature), at(action)], q.best[at(feature)], q.bound[at(feature)]
        q.weights[at(feature), at(action)] = weight
        is_best = q.action[at(feature)] == action
        top, other = (weight, bound) if is_best else (best, weight)
        if other < top and (is_best or old < best):
            q.best[at(feature)] = top
            q.bound[at(feature)] = max(bound, other)
        elif weight != old:
            refresh(q, feature)

    return remembered if is_remembered(q) else plain


@form_of(update)
def _update(algorithm: Any, step: Any) -> Callable[..., Any]:
    method = register_jitable(**INLINE)(algorithm.instance_class.update)
    return lambda algorithm, step: method(algorithm, step)


@form_of(looks_ahead)
def _looks_ahead(algorithm: Any) -> Callable[..., Any]:
    method = register_jitable(**INLINE)(algorithm.instance_class.looks_ahead)
    return lambda algorithm: method(algorithm)
