"""The public names of the room."""

from __future__ import annotations

import subprocess
import sys

import policylab.agents


def test_every_exported_name_resolves_and_is_documented() -> None:
    assert policylab.agents.__all__ == sorted(policylab.agents.__all__, key=lambda name: (not name.isupper(), name))
    for name in policylab.agents.__all__:
        assert getattr(policylab.agents, name) is not None


def test_importing_the_room_loads_no_heavy_library() -> None:
    probe = (
        "import sys, policylab.agents; "
        "sys.exit(str(sorted({'numba', 'torch', 'ray', 'mlflow', 'boto3', 'matplotlib', 'pygame'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False).stderr == "[]\n"
