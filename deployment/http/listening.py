"""Binding an address, before anything is started that would have to be ended again, and closing the door behind it."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

from policylab.errors import UserError

_ONLY_BEGUN_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load the byte of a TCP header that holds its flags
    (0x45, 0, 1, 0x02),  # SYN is set: go on; else: skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # let pass
)
"""BPF instructions (linux/filter.h): code, jump if true, jump if false, operand."""


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a listening address; port 0 takes a free one.

    Raises:
        UserError: it cannot be bound.
    """
    bound = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        return bound
    except (OSError, OverflowError) as error:
        if bound is not None:
            bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot listen on {host} port {port}: {reason}; choose another --port") from None


def let_nobody_in(listener: socket.socket) -> None:
    """Make a listening socket deaf to new clients: the kernel would reset those that come in while it is being closed.

    A filter (Linux, SO_ATTACH_FILTER) drops their first packet. Those in the queue are left alone, and so are those
    that are half-way: their client, which has the answer to its first packet, believes that it is connected.
    Elsewhere than on Linux the moment between the last accept and the close remains.
    """
    if sys.platform != "linux":
        return
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _ONLY_BEGUN_CONNECTIONS)
    instructions = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_ONLY_BEGUN_CONNECTIONS), ctypes.addressof(instructions))
    with contextlib.suppress(OSError):  # a kernel without filters
        listener.setsockopt(socket.SOL_SOCKET, 26, program)


def let_everybody_in(listener: socket.socket) -> None:
    """Take back what `let_nobody_in` did (SO_DETACH_FILTER)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # there was no filter
            listener.setsockopt(socket.SOL_SOCKET, 27, 0)
