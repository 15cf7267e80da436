"""The file system of one emulated host: this machine's, copy on write, with /opt/ml and other places of its own.

| place | what is there |
|---|---|
| /opt/ml | the host's tree, built by the emulator |
| /tmp, /var/tmp | folders of the host's own |
| /mnt, /run, /dev/shm | empty and in memory |
| /etc/hosts, /etc/hostname, /etc/resolv.conf | the names of the job's hosts and no others |
| /proc | of the host's own processes; the kernel's settings are read-only |
| /dev | the harmless devices, terminals and GPUs |
| the rest | this machine's; what is written stays in memory and is thrown away |

Folders in which something else is mounted cannot be overlaid; they are shown read-only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from policylab.launchers.sagemaker.pod import namespaces

_OWN = {"proc", "sys", "dev", "tmp", "mnt", "run"}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "nvidia*")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}


def enter(folder: Path, *, hidden: Path, read_only: list[str]) -> None:
    """Make the host's file system the root of this process, which has mounts of its own.

    Args:
        folder: holds ``ml``, ``tmp``, ``var-tmp``, ``etc`` and the empty ``rootfs``.
        hidden: a folder that the host must not see: the emulator's root with other hosts' files.
        read_only: folders below /opt/ml that are read only.

    Raises:
        OSError: the kernel forbids one of the mounts.
    """
    rootfs = folder / "rootfs"
    namespaces.mount("rootfs", rootfs, kind="tmpfs", options="mode=755")
    root, layers = rootfs / "root", rootfs / "layers"
    root.mkdir()
    layers.mkdir()
    for entry in sorted(os.scandir("/"), key=lambda one: one.name):
        if entry.name not in _OWN:
            _show(Path(entry.path), root / entry.name, layers=layers, hidden=hidden)
    _own_places(folder, root, read_only=read_only)
    _show_interpreter(root)
    if (covered := root / hidden.relative_to("/")).is_dir():
        namespaces.mount("hidden", covered, kind="tmpfs", options="size=4k,ro")
    os.chdir(root)
    os.chroot(".")
    os.chdir("/")


def _show(source: Path, target: Path, *, layers: Path, hidden: Path) -> None:
    """Show an entry of the machine's root in the host's: copy on write if possible, else read-only."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    if not source.is_dir():
        return
    target.mkdir()
    if not _has_mounts(source, hidden=hidden) and _overlay(source, target, layers=layers):
        return
    for child in source.iterdir() if os.access(source, os.R_OK) else ():
        place = target / child.name
        if child.is_symlink():
            place.symlink_to(child.readlink())
        elif child.is_dir() or child.is_file():
            place.mkdir() if child.is_dir() else place.touch()
            _bind_read_only(child, place)


def _overlay(source: Path, target: Path, *, layers: Path) -> bool:
    upper, work = layers / f"{source.name}-upper", layers / f"{source.name}-work"
    upper.mkdir()
    work.mkdir()
    options = f"lowerdir={source},upperdir={upper},workdir={work}"
    for extra in ("", ",userxattr"):  # the second form is the one that a user namespace may use
        try:
            namespaces.mount("overlay", target, kind="overlay", options=options + extra)
        except OSError:
            continue
        return True
    return False


def _has_mounts(folder: Path, *, hidden: Path) -> bool:
    """Return whether a folder is mounted below ``folder``: neither files, as in Docker's /etc, nor the job's own."""
    mounted = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    places = (Path(place) for place in mounted if place.startswith(f"{folder}/"))
    return any(place.is_dir() and not place.is_relative_to(hidden) for place in places)


def _own_places(folder: Path, root: Path, *, read_only: list[str]) -> None:
    for name in _OWN:
        (root / name).mkdir()
    namespaces.mount("proc", root / "proc", kind="proc")
    for name in ("sys", "sysrq-trigger"):
        _bind_read_only(root / "proc" / name, root / "proc" / name)
    _bind_read_only(Path("/sys"), root / "sys")
    _make_devices(root / "dev")
    for source, target in (("tmp", "tmp"), ("var-tmp", "var/tmp"), ("ml", "opt/ml")):
        place = root / target
        place.mkdir(parents=True, exist_ok=True)
        namespaces.bind(folder / source, place)
    for below in read_only:
        _bind_read_only(root / "opt/ml" / below, root / "opt/ml" / below)
    for file in (folder / "etc").iterdir():
        place = root / "etc" / file.name
        if place.is_symlink():  # what it leads to belongs to the machine
            place.unlink()
        place.touch()
        namespaces.bind(file, place)


def _make_devices(dev: Path) -> None:
    namespaces.mount("dev", dev, kind="tmpfs", options="mode=755,size=64k")
    for device in (found for name in _DEVICES for found in Path("/dev").glob(name)):
        place = dev / device.name
        place.mkdir() if device.is_dir() else place.touch()
        namespaces.bind(device, place)
    for name, target in _DEVICE_LINKS.items():
        (dev / name).symlink_to(target)
    for name, kind, options in (("pts", "devpts", "newinstance,ptmxmode=0666"), ("shm", "tmpfs", "mode=1777")):
        (dev / name).mkdir()
        namespaces.mount(name, dev / name, kind=kind, options=options)


def _show_interpreter(root: Path) -> None:
    """Show the folders of this Python where they lie in a place that is hidden otherwise, such as /tmp."""
    for prefix in {sys.prefix, sys.base_prefix}:
        place = root / Path(prefix).relative_to("/")
        if not place.exists():
            place.mkdir(parents=True)
            _bind_read_only(Path(prefix), place)


def _bind_read_only(source: Path, target: Path) -> None:
    if source.exists():
        namespaces.bind(source, target)
        namespaces.make_read_only(target)
