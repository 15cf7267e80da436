"""Access: who may ask an endpoint for decisions, and who may change it."""

from __future__ import annotations

import hmac
import ipaddress
import os

from policylab.deployment.decision import Refusal
from policylab.deployment.http.wire import Headers
from policylab.errors import UserError

TOKEN, ADMIN_TOKEN = "POLICYLAB_TOKEN", "POLICYLAB_ADMIN_TOKEN"
MIN_TOKEN = 16


class Access:
    """Bearer tokens (RFC 6750), one for clients and one for admin verbs.

    Without tokens, only this machine may ask, and admin verbs must name it as their host, so that a page in a browser
    cannot reach them under a name of its own (DNS rebinding).

    Args:
        token: what clients send; None lets every client of this machine in.
        admin_token: what admin verbs need; None takes the clients' token.
    """

    def __init__(self, *, token: str | None = None, admin_token: str | None = None) -> None:
        for name, value in ((TOKEN, token), (ADMIN_TOKEN, admin_token)):
            if value is not None and (len(value) < MIN_TOKEN or not value.isascii() or not value.isprintable()):
                raise UserError(f"{name} must have at least {MIN_TOKEN} printable ASCII characters")
        self._client = None if token is None else f"Bearer {token}".encode()
        self._admin = self._client if admin_token is None else f"Bearer {admin_token}".encode()

    def check_client(self, headers: Headers) -> None:
        """Refuse a request for decisions without the token.

        Raises:
            Refusal: it has none, or a wrong one.
        """
        if self._client is not None:
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, self._client) and not (
                self._admin is not None and hmac.compare_digest(given, self._admin)
            ):
                raise Refusal("this endpoint needs its bearer token", kind="unauthorised")

    def check_admin(self, headers: Headers) -> None:
        """Refuse an admin verb without the token.

        Raises:
            Refusal: it has none, or a wrong one; or there is none, and the request does not name this machine.
        """
        if self._admin is not None:
            if not hmac.compare_digest(headers.get(b"authorization", b""), self._admin):
                raise Refusal("this page needs the endpoint's admin token", kind="unauthorised")
        elif not _names_this_machine(headers.get(b"host", b"").decode("latin-1")):
            raise Refusal("without a token, this page answers to localhost alone", kind="unauthorised")


def access_for(host: str) -> Access:
    """Return the access to a server bound to ``host``, with the tokens of the environment.

    Raises:
        UserError: others could reach it, and there is no token.
    """
    token, admin_token = os.environ.get(TOKEN) or None, os.environ.get(ADMIN_TOKEN) or None
    if not is_loopback(host) and token is None:
        raise UserError(
            f"host {host} can be reached from other machines: set {TOKEN} to a secret that clients then send as a "
            "bearer token, or bind 127.0.0.1"
        )
    return Access(token=token, admin_token=admin_token)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("example.org")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _names_this_machine(host: str) -> bool:
    """Return whether a Host header is a loopback address, with any port."""
    if host.startswith("["):
        return is_loopback(host[1:].partition("]")[0])
    return is_loopback(host.partition(":")[0])
