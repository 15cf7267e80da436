"""Ray without its noise, and started only when remote processes are asked for.

An algorithm whose runners and learner are local needs no cluster at all. RLlib starts one all the same, only to keep
weights in an object store that nobody reads; `load` makes those calls hand their value through while no cluster runs.
That saves seconds at the start of every run, and the processes.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys
import warnings
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

from policylab.extras import require
from policylab.ray_session import ray_session

_STACK_NOTICE = ("You are running",)
_ALGORITHMS = ("appo", "bc", "cql", "dqn", "impala", "marwil", "ppo", "sac")
NOISE = {
    "ray.rllib.algorithms.algorithm_config": _STACK_NOTICE,
    **{f"ray.rllib.algorithms.{name}.{name}": _STACK_NOTICE for name in _ALGORITHMS},
    "ray._common.deprecation": ("DeprecationWarning: `RLModule(config=[RLModuleConfig object])`",),
    "ray.tune.trainable.trainable": ("Trainable.setup took",),
}
"""Logger -> beginnings of messages that RLlib gives at every start, about its own code or its own defaults."""

LOCAL_MODULES = ("ray.rllib.env.env_runner_group", "ray.rllib.algorithms.algorithm")
"""Modules of RLlib that put values into the object store even when nothing is remote."""


def load() -> ModuleType:
    """Import ray and RLlib without their noise and return ray.

    Raises:
        MissingExtraError: the extra `rllib` is not installed.
    """
    first = "ray.rllib" not in sys.modules
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its change of default is announced on each start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ray and what it imports use names their own dependencies deprecate
        ray = require("ray", extra="rllib")
        require("torch", extra="rllib")
        require("ray.rllib", extra="rllib")
        for name, beginnings in NOISE.items():
            logger = logging.getLogger(name)
            if not any(isinstance(known, _Silence) for known in logger.filters):
                logger.addFilter(_Silence(beginnings))
        for name in LOCAL_MODULES:
            module = importlib.import_module(name)
            if not isinstance(module.ray, _LocalRay):
                module.ray = _LocalRay(ray)  # type: ignore[attr-defined]
    if first:
        gc.freeze()  # 440,000 objects of modules, which to search for garbage at its end takes the process a second
    return ray


class _Silence(logging.Filter):
    """Drops messages with known beginnings."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self._beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self._beginnings)


class _LocalRay:
    """The module ray, whose object store is the process's own memory while no cluster runs.

    Configurations are never stored: a runner that has its own as a value can be started again when it dies, while one
    in the store may be gone by then, of which Ray warns at each start (ray#53727).
    """

    def __init__(self, ray: ModuleType) -> None:
        self._ray = ray

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ray, name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return ray itself: functions that RLlib sends to its runners carry this object along."""
        return importlib.import_module, ("ray",)

    def put(self, value: Any) -> Any:
        from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

        if isinstance(value, AlgorithmConfig) or not self._ray.is_initialized():
            return value
        return self._ray.put(value)

    def get(self, reference: Any, **options: Any) -> Any:
        return self._ray.get(reference, **options) if self._ray.is_initialized() else reference


def session(n_cpus: int) -> AbstractContextManager[Any]:
    """Return the Ray session for ``n_cpus`` remote processes.

    It is the one in use in this process, else the one that RAY_ADDRESS names, else one that ends with the context.
    """
    load()
    if os.environ.get("RAY_ADDRESS"):
        return ray_session("auto")
    return ray_session("local", num_cpus=n_cpus)  # declared: with fewer the runners would wait for ever
