"""The labelling page and its few routes, on the standard library's HTTP server.

| route | what |
|---|---|
| GET /, /page.js, /page.css | the page; it holds no data |
| GET /next?labeller=NAME | the next pair and how many are done |
| GET /clips/PAIR/0, /clips/PAIR/1 | the picture of a segment |
| POST /labels | ``{"pair", "labeller", "choice"}`` |
| POST /undo | ``{"labeller"}``: takes the last label back |

Without a token only this machine may ask, by its own name (DNS rebinding); with one, every route but the page's
needs it. What changes something must be JSON, which no other site can send without asking first. The page's policy
lets it run its own script alone, and everything that comes from data is put on it as text.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from policylab.deployment.decision import Refusal
from policylab.deployment.http.access import Access
from policylab.errors import PolicylabError, StorageError
from policylab.monitoring.labels.service import LabelService

MAX_BODY_BYTES = 4_096
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
CLIP = re.compile(r"/clips/([0-9a-f]{16})/([01])")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
logger = logging.getLogger(__name__)


class LabelServer(ThreadingHTTPServer):
    """Listens on a socket that was bound before.

    Args:
        listener: where.
        service: answers.
        access: who may ask.
    """

    daemon_threads = True

    def __init__(self, listener: socket.socket, service: LabelService, *, access: Access) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_activate()
        self.service = service
        self.access = access


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    protocol_version = "HTTP/1.1"
    timeout = 30
    server_version, sys_version = "policylab", ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, handler: Any) -> None:
        try:
            status, media_type, content = handler(urllib.parse.urlsplit(self.path))
        except Refusal as refusal:
            status, media_type, content = _error(401, str(refusal))
        except StorageError as error:
            status, media_type, content = _error(507, str(error))
        except PolicylabError as error:
            status, media_type, content = _error(400, str(error))
        except Exception:
            logger.exception("a request failed")
            status, media_type, content = _error(500, "the server failed; its log says why")
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": media_type, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        if status >= 400:
            self.send_header("Connection", "close")  # a body may not have been read
            self.close_connection = True
        self.end_headers()
        self.wfile.write(content)

    def _get(self, url: urllib.parse.SplitResult) -> tuple[int, str, bytes]:
        if url.path in FILES:
            name, media_type = FILES[url.path]
            return 200, media_type, (Path(__file__).parent / name).read_bytes()
        self._check()
        if url.path == "/next":
            labeller = urllib.parse.parse_qs(url.query).get("labeller", [""])[0]
            return _json(self.server.service.standing(labeller))
        if clip := CLIP.fullmatch(url.path):
            found = self.server.service.clip(clip[1], int(clip[2]))
            return 200, found.media_type, found.content
        return _error(404, "no such page")

    def _post(self, url: urllib.parse.SplitResult) -> tuple[int, str, bytes]:
        self._check()
        body = self._body()
        if body is None:
            return _error(400, f"send a JSON object of texts, at most {MAX_BODY_BYTES} bytes")
        service, labeller = self.server.service, body.get("labeller", "")
        if url.path == "/labels":
            service.give(body.get("pair", ""), labeller=labeller, choice=body.get("choice", ""))
            return _json(service.standing(labeller))
        if url.path == "/undo":
            withdrawn = service.undo(labeller)
            return _json({**service.standing(labeller), "withdrawn": withdrawn})
        return _error(404, "no such page")

    def _check(self) -> None:
        self.server.access.check_admin({name.lower().encode(): value.encode() for name, value in self.headers.items()})

    def _body(self) -> dict[str, str] | None:
        size = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != "application/json" or not size.isdecimal() or len(size) > 6:
            return None
        if int(size) > MAX_BODY_BYTES:
            return None
        try:
            found = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError):
            return None
        whole = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
        return found if whole else None

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: requests of a page are no news."""


def _json(document: Any) -> tuple[int, str, bytes]:
    return 200, "application/json", json.dumps(document).encode()


def _error(status: int, message: str) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps({"message": message}).encode()
