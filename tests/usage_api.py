"""A stand-in for OpenAI's usage API on loopback: it pages, wants an admin key, and limits its rate at times."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from typing_extensions import Self

from tests.usage_months import DAYS, KEYS, PROJECTS, Provider, moment

KEY = "sk-admin-AbCdEfGhIjKlMnOpQrStUvWx"
METHODS = {
    "completions": "completions",
    "decisions": "decisions",
    "embeddings": "embeddings",
    "moderations": "moderations",
    "images": "images",
    "audio_speeches": "audio_speeches",
    "audio_transcriptions": "audio_transcriptions",
    "web_search_calls": "web_searches",
    "file_search_calls": "file_searches",
    "code_interpreter_sessions": "code_interpreter_sessions",
    "vector_stores": "vector_stores",
}
"""The surface of each path."""


@dataclass
class UsageServer:
    """
    The API; a context manager, and `url` is what a client takes as its base URL.

    Every request but each `limits_each`-th one is answered; that one gets `limit`.
    """

    provider: Provider
    page_days: int = 7
    """Buckets of a page at most."""
    limits_each: int = 0
    limit: tuple[int, Mapping[str, str]] = (429, {"Retry-After": "7"})
    lacks: tuple[str, ...] = ()
    """Paths that it does not know."""
    requests: list[str] = field(default_factory=list[str])
    """The paths that were asked for, with their queries."""

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The base of the URLs that it answers at."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # One packet for head and body, which else waits for an acknowledgement.

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
                """Stay silent."""

            def do_GET(self) -> None:
                """Answer."""
                server.requests.append(self.path)
                status, headers, body = server.answer(
                    self.path, self.headers.get("Authorization", "")
                )
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler

    def answer(self, target: str, credentials: str) -> tuple[int, Mapping[str, str], Any]:
        """Return status, headers and body for a request."""
        url = urlsplit(target)
        asked = parse_qsl(url.query)
        if credentials != f"Bearer {KEY}":
            return 401, {}, {"error": {"message": "Incorrect API key provided: sk-…"}}
        if self.limits_each and len(self.requests) % self.limits_each == 0:
            return *self.limit, {"error": {"message": "slow down"}}
        path = url.path.removeprefix("/v1/organization/")
        if path == "projects":
            return 200, {}, _list([{"id": project, "name": project} for project in PROJECTS])
        if path.startswith("projects/"):
            project = PROJECTS.index(path.split("/")[1])
            key = list(KEYS)[project]
            shown = {"id": key, "redacted_value": f"sk-proj-********{KEYS[key]}"}
            return 200, {}, _list([shown])
        name = path.removeprefix("usage/")
        if name in self.lacks or name not in METHODS:
            return 404, {}, {"error": {"message": "no such path"}}
        given = dict(asked)
        first = 1 + (int(given["start_time"]) - moment(1, 0)) // 86_400
        last = (int(given["end_time"]) - moment(1, 0)) // 86_400
        assert 1 <= first <= last <= DAYS
        begin = int(given["page"].removeprefix("page_")) if "page" in given else first
        end = min(last, begin + min(self.page_days, int(given["limit"])) - 1)
        more = None if end == last else f"page_{end + 1}"
        group_by = [value for key, value in asked if key in ("group_by", "group_by[]")]
        return 200, {}, self.provider.page(METHODS[name], begin, end, group_by, more)


def _list(data: list[dict[str, str]]) -> dict[str, Any]:
    return {"object": "list", "data": data, "has_more": False, "last_id": data[-1]["id"]}
