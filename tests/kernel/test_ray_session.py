"""Where Ray's files are: its sockets must fit into the 107 bytes that Linux gives their paths."""

import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from policylab.ray_session import clear_left, ray_folder

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


def test_the_folder_of_a_process_that_was_killed_is_cleared_by_the_next(tmp_path):
    mine, other = (tempfile.mkdtemp(prefix="ray-", dir=tmp_path) for _ in range(2))
    holding = (
        "import sys, time\n"
        "from policylab.ray_session import hold\n"
        "owner = hold(sys.argv[1])\n"
        "print('held', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holding, mine], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        clear_left(tmp_path)
        assert Path(mine).is_dir(), "its process lives"
        process.kill()
    clear_left(tmp_path)
    assert [str(path) for path in tmp_path.iterdir()] == [other], "of which nobody says whose it is"
