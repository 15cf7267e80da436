"""Where Ray's files are: its sockets must fit into the 107 bytes that Linux gives their paths."""

import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from policylab.ray_session import ray_folder

LONGEST = "session_2026-11-26_16-08-45_483736_1234567/sockets/plasma_store.10"


@pytest.mark.parametrize("n_more", [0, 100])
def test_a_socket_fits_wherever_the_temporary_folder_is(monkeypatch, n_more):
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as short:
        place = Path(short, "x" * n_more)
        place.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        folder = Path(ray_folder())
        try:
            path = folder / LONGEST
            path.parent.mkdir(parents=True)
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
            assert folder.is_relative_to(place) == (n_more == 0)
        finally:
            shutil.rmtree(folder)
