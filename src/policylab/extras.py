"""Optional dependencies: what each extra is for, and one sentence when it is missing or broken."""

from __future__ import annotations

import importlib
from types import ModuleType

from policylab.errors import MissingExtraError

EXTRAS = {
    "ray": ("ray", "fsspec", "aiohttp_cors", "opencensus"),
    "rllib": ("ray", "torch", "onnx"),
    "offline": ("pyarrow",),
    "sagemaker": ("sagemaker", "boto3"),
    "serve": ("uvicorn", "httptools", "msgspec", "onnxruntime"),
    "scale": ("ray", "grpc_reflection", "uvicorn", "httptools", "msgspec"),
    "monitor": ("pyarrow", "pandas"),
    "energyplus": ("pyenergyplus",),
    "box2d": ("Box2D",),
    "mujoco": ("mujoco",),
    "robotics": ("gymnasium_robotics", "mujoco"),
    "driving": ("highway_env",),
    "atari": ("ale_py",),
    "minigrid": ("minigrid",),
}
"""Extra -> the modules it brings."""


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``, which ``extra`` brings.

    >>> try:
    ...     require("not_there", extra="serve")
    ... except MissingExtraError as error:
    ...     str(error).split("; ")
    ["not_there cannot be imported (No module named 'not_there')", "install it with: pip install 'policylab[serve]'"]

    Raises:
        MissingExtraError: it is absent or broken; the message names the install command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{module} cannot be imported ({error}); install it with: pip install 'policylab[{extra}]'"
        ) from error
