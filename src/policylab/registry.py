"""Named, lazily imported implementations, extensible through entry points.

A registry maps a name to ``"module:attribute"``. Nothing is imported until an entry is loaded, so
listing agents or environments never loads the libraries behind them. Third parties add entries under
the registry's entry-point group (``policylab.agents``, ``policylab.launchers``, ...).
"""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import entry_points
from typing import Any

from policylab.errors import MissingExtraError, UnknownNameError, did_you_mean


class Registry:
    """Names of one concept (``"agent"``) and where each implementation lives.

    Args:
        concept: what the entries are, in the singular; used in messages.
        entries: name -> ``"module:attribute"``.
        plural: of ``concept``; the entry-point group is ``policylab.PLURAL``.

    >>> registry = Registry("shape", {"ordered": "collections:OrderedDict"})
    >>> registry.load("ordered").__name__
    'OrderedDict'
    >>> registry.load("orderd")
    Traceback (most recent call last):
    ...
    policylab.errors.UnknownNameError: unknown shape 'orderd'; did you mean 'ordered'? (known: ordered)
    """

    def __init__(self, concept: str, entries: dict[str, str], *, plural: str | None = None) -> None:
        self.concept = concept
        self.group = f"policylab.{plural or concept + 's'}"
        self._own = dict(entries)

    @functools.cached_property
    def targets(self) -> dict[str, str]:
        """Every entry, own and third-party; a third party cannot replace an own name."""
        found = {point.name: point.value for point in entry_points(group=self.group)}
        return {**found, **self._own}

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self.targets)

    def load(self, name: str) -> Any:
        """Import and return the entry called ``name``.

        Raises:
            UnknownNameError: no such entry.
            MissingExtraError: the entry's module needs a package that is not installed.
        """
        if name not in self.targets:
            hint = did_you_mean(name, self.targets)
            raise UnknownNameError(f"unknown {self.concept} '{name}'{hint} (known: {', '.join(self.names())})")
        module, _, attribute = self.targets[name].partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            raise MissingExtraError(
                f"{self.concept} '{name}' cannot be loaded: {error}; install what {module} needs"
            ) from error
