"""How an endpoint is invoked, where it is not a few variants in real time: sections of the endpoint file."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from policylab.config import Settings

VARIANT = "AllTraffic"
"""The one variant of an endpoint of many models, under the name that SageMaker's own tools give it."""


class ModelsSettings(Settings):
    """Many policies behind one endpoint, loaded when they are first asked and unloaded when memory is short.

    The header X-Amzn-SageMaker-Target-Model names a bundle by its path below the folder, such as
    ``sites/basel.tar.gz``. Policies need not have the same spaces.
    """

    folder: Path = Field(description="holds bundle folders and archives at any depth, relative to the endpoint file")
    memory_mb: float = Field(
        default=1024.0,
        gt=0.0,
        le=1e6,
        description="of all loaded models together; the least recently used ones make room",
    )
    load_wait_s: float = Field(
        default=50.0,
        gt=0.0,
        le=3600.0,
        description="how long a request waits for its model; then it gets 429, and loading goes on",
    )
    exploration: bool = Field(default=True, description="draw actions from the policies; false: deterministic")
