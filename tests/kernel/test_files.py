"""Writes are whole or not at all; reads tolerate a torn last line and nothing else."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from policylab.errors import RunDirectoryError, StorageError
from policylab.files import append_line, copy_folder, drop_torn_tail, locked, read_lines, write_atomic


def test_an_atomic_write_replaces_the_file_and_leaves_no_other(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    write_atomic(target, "one")
    write_atomic(target, b"two")
    assert target.read_bytes() == b"two"
    assert os.listdir(target.parent) == ["file.txt"]


def test_a_failed_write_keeps_the_old_content(tmp_path):
    target = tmp_path / "file.txt"
    write_atomic(target, "old")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inside").touch()
    with pytest.raises(StorageError, match=r"cannot write .*folder.*free space or fix permissions"):
        write_atomic(folder, "cannot replace a folder")
    assert target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "folder"]


def test_a_full_disk_is_one_storage_error():
    with pytest.raises(StorageError, match=r"cannot write /dev/full: No space left on device"):
        append_line(Path("/dev/full"), {"step": 1})


def test_an_append_that_fails_midway_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "log.jsonl"
    append_line(path, {"step": 0})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 4, limits[1]))
        with pytest.raises(StorageError, match="cannot write"):
            append_line(path, {"step": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_bytes() == before


def test_appended_records_come_back_and_a_torn_tail_does_not(tmp_path):
    path = tmp_path / "log.jsonl"
    for step in range(3):
        append_line(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 3')
    assert read_lines(path) == [{"step": 0}, {"step": 1}, {"step": 2}]
    drop_torn_tail(path)
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n{"step": 2}\n'
    drop_torn_tail(tmp_path / "absent.jsonl")
    assert read_lines(tmp_path / "absent.jsonl") == []


def test_a_folder_is_copied_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "in" / "target"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.bin").write_bytes(b"1")
    copy_folder(source, target)
    assert (target / "deep" / "a.bin").read_bytes() == b"1"
    (source / "deep" / "a.bin").write_bytes(b"2")

    def full_disk(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "copytree", full_disk)
        with pytest.raises(StorageError, match="No space left on device"):
            copy_folder(source, target)
    assert (target / "deep" / "a.bin").read_bytes() == b"1"
    copy_folder(source, target)
    assert (target / "deep" / "a.bin").read_bytes() == b"2"
    assert list(target.parent.iterdir()) == [target], "what was left of the failed copy is gone"


def test_damage_before_the_tail_names_file_and_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(RunDirectoryError, match=r"log.jsonl:2: not a JSON record"):
        read_lines(path)


HOLD = """
import sys
from pathlib import Path
from policylab.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_excludes_another_process_and_dies_with_it(tmp_path):
    path = tmp_path / "run.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunDirectoryError, match="in use by another policylab process"), locked(path):
            pass
        holder.kill()
    with locked(path, wait_s=5):
        pass
