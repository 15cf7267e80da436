"""Linux namespaces and mounts, by the system calls that Python 3.11 does not wrap.

Source: man pages unshare(2), mount(2), mount_setattr(2), prctl(2), user_namespaces(7), pid_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

NEW_MOUNTS = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_USER = 0x10000000
NEW_PIDS = 0x20000000
NEW_NETWORK = 0x40000000

_MS_BIND, _MS_RECURSIVE, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 1, 24, 36
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _ATTR_READ_ONLY = 442, -100, 0x8000, 0x1

_KEPT_CAPABILITIES = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31}
"""What Docker leaves to a container's root, without making devices: chown, dac_override, fowner, fsetid, kill, setgid,
setuid, setpcap, net_bind_service, net_raw, sys_chroot, audit_write, setfcap (capabilities(7))."""

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter_new(namespaces: int) -> None:
    """Move this process into new namespaces; of processes, the next child is the first inside.

    Raises:
        OSError: the kernel or a policy forbids it.
    """
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(namespaces), "unshare")
    if namespaces & NEW_USER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def mount(source: str, target: Path, *, kind: str, options: str = "") -> None:
    """Mount a file system of a ``kind`` such as tmpfs on ``target``.

    Raises:
        OSError: it cannot be mounted there.
    """
    result = _libc.mount(source.encode(), bytes(target), kind.encode(), 0, options.encode())
    _check(result, f"mount {kind} on {target}")


def bind(source: Path, target: Path) -> None:
    """Show ``source`` with all that is mounted below it at ``target``, a folder or file that exists."""
    result = _libc.mount(bytes(source), bytes(target), None, _MS_BIND | _MS_RECURSIVE, None)
    _check(result, f"bind {source} to {target}")


def make_private() -> None:
    """Keep the mounts of this process from spreading to others, and theirs from arriving here."""
    _check(_libc.mount(b"none", b"/", None, _MS_RECURSIVE | _MS_PRIVATE, None), "make mounts private")


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def make_read_only(target: Path) -> None:
    """Make the mount at ``target`` and all below it read-only."""
    wanted = _MountAttributes(attr_set=_ATTR_READ_ONLY)
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR, _AT_FDCWD, bytes(target), _AT_RECURSIVE, ctypes.byref(wanted), ctypes.sizeof(wanted)
    )
    _check(result, f"make {target} read-only")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, in any way."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def give_up_capabilities() -> None:
    """Leave the program that this process becomes no more rights than root has in a container."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in set(range(last + 1)) - _KEPT_CAPABILITIES:
        _check(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "prctl")
