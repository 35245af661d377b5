"""
HTTP, for reading only, and for whoever was given the address.

- Every path begins with a token that is made anew for each run: without it there is nothing here.
- The `Host` of a request must be an address, `localhost` or the host that was chosen. A page elsewhere that has its
  own name resolve to this host (DNS rebinding) sends that name.
- Nothing is told to other origins, nothing is cached, and nothing runs in the page but the scripts that are shipped.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import secrets
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cmdrdata_exporter.cli.dashboard import PAGE
from cmdrdata_exporter.cli.dashboard.answers import Answers, UnknownError
from cmdrdata_exporter.cli.terminal import printable
from cmdrdata_exporter.delivery.usage import UnreadableError

HTML, CSS, SCRIPT, SVG = "text/html", "text/css", "text/javascript", "image/svg+xml"
ASSETS = {
    "": ("index.html", HTML),
    "page.css": ("page.css", CSS),
    "page.js": ("page.js", SCRIPT),
    "plot.js": ("plot.js", SCRIPT),
    "uplot.css": ("uplot/uPlot.min.css", CSS),
    "uplot.js": ("uplot/uPlot.iife.min.js", SCRIPT),
    "icon.svg": ("icon.svg", SVG),
}
"""The files of the page by their path below the token, and what each is."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every response says."""

API = "api/"
SLOWEST = 10.0
"""Seconds for which a connection may say nothing."""


class DashboardServer(ThreadingTCPServer):
    """
    Serves the page; `serve_forever` until `shutdown` or an interrupt.

    Args:
        host: the address or name to listen at.
        port: 0 takes one that is free.
        answers: what the page is told.

    Raises:
        OSError: it cannot listen there.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        # Of the addresses of a name the first.
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        super().__init__(address[:2], _Handler)  # type: ignore[arg-type]
        self.host = host
        self.answers = answers
        self.token = secrets.token_urlsafe(18)
        self.assets = {
            name: ((PAGE / path).read_bytes(), kind) for name, (path, kind) in ASSETS.items()
        }
        self._once: set[str] = set()

    @property
    def url(self) -> str:
        """The address of the page."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/{self.token}/"

    def url_once(self) -> str:
        """
        Return an address that leads to the page once.

        It is for a browser's command line, which every user of this host can read.
        """
        once = secrets.token_urlsafe(18)
        self._once.add(once)
        return self.url.replace(f"{self.token}/", once)

    def opens(self, once: str) -> bool:
        """Say whether such an address is opened for the first time."""
        try:
            self._once.remove(once)
        except KeyError:
            return False
        return True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave out what a reader that has gone away makes of a response."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def serves(self, host: str) -> bool:
        """Say whether a request is for this server, by its header `Host`."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in ("localhost", self.host.lower()):
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class _Handler(BaseHTTPRequestHandler):
    server: DashboardServer  # type: ignore[assignment]
    timeout = SLOWEST
    server_version = "cmdrdata"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a request."""
        if not self.server.serves(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.FORBIDDEN, explain="This host name is not served here")
            return
        target = urlsplit(self.path)
        token, slash, name = target.path.removeprefix("/").partition("/")
        if not slash and self.server.opens(token):
            self._send(HTTPStatus.SEE_OTHER, b"", "text/plain", Location=f"/{self.server.token}/")
        elif not hmac.compare_digest(token.encode(), self.server.token.encode()) or not slash:
            self.send_error(
                HTTPStatus.NOT_FOUND, explain="Open the address that cmdrdata dashboard has printed"
            )
        elif name in self.server.assets:
            self._send(HTTPStatus.OK, *self.server.assets[name])
        elif name.startswith(API):
            self._answer(name.removeprefix(API), target.query)
        else:
            self.send_error(HTTPStatus.NOT_FOUND, explain="There is no such file")

    def _answer(self, name: str, query: str) -> None:
        status = HTTPStatus.OK
        try:
            document = self.server.answers.answer(name, dict(parse_qsl(query)))
        except UnknownError as error:
            status, document = HTTPStatus.BAD_REQUEST, {"error": printable(error)}
        except (UnreadableError, OSError) as error:
            status, document = HTTPStatus.SERVICE_UNAVAILABLE, {"error": printable(error)}
        self._send(status, json.dumps(document).encode(), "application/json")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse a request, in plain text."""
        status = HTTPStatus(code)
        text = explain or message or status.phrase
        self._send(status, f"{code}: {text}.\n".encode(), "text/plain")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, **more: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **more}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Log nothing: a path has the token."""
