"""Registers policylab's environments with Gymnasium, whichever of the two is imported first.

Importing Gymnasium costs more than all else that ``import policylab`` does, and most commands never need
it. So if Gymnasium is not loaded yet, a finder waits for its import and registers right after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def _register() -> None:
    from policylab.envs.registration import register_all

    register_all()


class _GymnasiumFinder(MetaPathFinder):
    """Finds ``gymnasium`` through the other finders and adds one call after its execution."""

    def find_spec(  # noqa: PLR0917 - the signature of the import system
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if fullname != "gymnasium":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        loader, execute = spec.loader, spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            # Only now: an import of Gymnasium that fails may be tried again.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            del loader.exec_module  # the loader of the module is as it was found
            _register()

        loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Register now if Gymnasium is loaded, else as soon as it is."""
    if "gymnasium" in sys.modules:
        _register()
    elif not any(isinstance(finder, _GymnasiumFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _GymnasiumFinder())
