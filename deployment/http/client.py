"""`EndpointClient`: a client of a running endpoint that needs nothing but the standard library."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from policylab.deployment.http.access import ADMIN_TOKEN, TOKEN
from policylab.errors import RunError, UserError

TIMEOUT_S = 60.0


class EndpointClient:
    """Sends JSON to the routes of one endpoint, with the token of the environment.

    Args:
        url: of the server, such as http://127.0.0.1:8080.
        name: of the endpoint; default: the one that the server has.
    """

    def __init__(self, url: str, *, name: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._token = os.environ.get(ADMIN_TOKEN) or os.environ.get(TOKEN)
        # Proxies of the environment are for other hosts, and must not see the token.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._place = f"{self._url}/endpoints/{name or self._found_name()}"

    def get(self, page: str) -> dict[str, Any]:
        """Return what a page of the endpoint says.

        Raises:
            UserError: it refuses.
            RunError: the server failed, or cannot be reached.
        """
        return self._send(f"{self._place}{page}", None, headers={})

    def post(self, page: str, document: Any, *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Send a document to a page of the endpoint; return its answer.

        Raises:
            UserError: it refuses.
            RunError: the server failed, or cannot be reached.
        """
        return self._send(f"{self._place}{page}", json.dumps(document).encode(), headers=headers or {})

    def _found_name(self) -> str:
        description = self._send(f"{self._url}/openapi.json", None, headers={})
        place = next((path for path in description["paths"] if path.startswith("/endpoints/")), "/endpoints/")
        return str(place.split("/")[2])

    def _send(self, url: str, body: bytes | None, *, headers: Mapping[str, str]) -> dict[str, Any]:
        request = urllib.request.Request(url, body, {"content-type": "application/json", **headers})
        if self._token is not None:
            request.add_header("authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                document: dict[str, Any] = json.loads(response.read())
                return document
        except urllib.error.HTTPError as error:
            message = _message(error.read())
            if error.code >= 500:
                raise RunError(f"{url}: {error.code}: {message}") from None
            raise UserError(f"{url}: {message}") from None
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise RunError(f"{url}: no answer: {reason}; is the endpoint running there?") from None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["Message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", errors="replace")
