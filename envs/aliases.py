"""Environments that Gymnasium renamed without changing their dynamics, so one config runs on both versions.

Source: the version histories in Gymnasium 1.4: Taxi-v4 corrects ``is_rainy`` and ``fickle_passenger`` (#1561),
CliffWalking-v1 adds ``is_slippery``.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from pydantic import JsonValue

ALIASES: Mapping[str, str] = {
    "Taxi-v3": "Taxi-v4",
    "Taxi-v4": "Taxi-v3",
    "CliffWalking-v0": "CliffWalking-v1",
    "CliffWalking-v1": "CliffWalking-v0",
}
"""Requested id -> the id of the same environment in another Gymnasium version."""

CHANGED_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "Taxi": ("is_rainy", "fickle_passenger"),
    "CliffWalking": ("is_slippery",),
}
"""Arguments whose meaning differs between the two versions; with one of them set there is no alias."""


def alias_of(env_id: str, kwargs: Mapping[str, JsonValue], *, known: Container[str]) -> str | None:
    """Return the id in ``known`` that is the same environment as the unknown ``env_id``, or None.

    >>> alias_of("Taxi-v4", {}, known={"Taxi-v3"})
    'Taxi-v3'
    >>> alias_of("Taxi-v4", {"is_rainy": True}, known={"Taxi-v3"}) is None
    True
    """
    alias = ALIASES.get(env_id)
    if alias is None or alias not in known:
        return None
    changed = CHANGED_ARGUMENTS[env_id.rpartition("-v")[0]]
    return None if any(kwargs.get(name) for name in changed) else alias
