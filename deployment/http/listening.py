"""Binding an address, before anything is started that would have to be ended again."""

from __future__ import annotations

import socket

from policylab.errors import UserError


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
