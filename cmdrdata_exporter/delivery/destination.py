"""
Where events go: what is asked of a destination because of its kind.

One of another kind is a scheme here, a transport in a folder beside `http`, and its row in `runtime.TRANSPORTS`.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple
from urllib.parse import urlsplit

LOCAL = "local"
"""The kind, and the name, of the destination that has no endpoint: its events stay on this host."""
HTTP = "http"
KAFKA = "kafka"


class Destination(NamedTuple):
    """A backend's endpoint and the account there. Each has a directory of its own, and no key but its own."""

    endpoint: str | None = None
    account: str = "default"

    @property
    def kind(self) -> str:
        """`LOCAL` or what its transport speaks."""
        if self.endpoint is None:
            return LOCAL
        return KAFKA if self.endpoint.startswith("kafka:") else HTTP

    @property
    def name(self) -> str:
        """The name of its directory: the same for the same endpoint and account."""
        if self.kind == LOCAL:
            return LOCAL
        readable = re.sub(r"[^A-Za-z0-9._-]", "_", self.account)[:40].lstrip(".")
        digest = hashlib.sha256(f"{self.endpoint}\n{self.account}".encode()).hexdigest()[:12]
        return f"{readable or 'account'}-{digest}"

    @property
    def shown_endpoint(self) -> str | None:
        """The endpoint for people: without a query, which may hold what is nobody's business."""
        return None if self.endpoint is None else re.split("[?#]", self.endpoint, maxsplit=1)[0]

    @property
    def server(self) -> tuple[str, int] | None:
        """Its host and port; None where there is none."""
        if self.kind == LOCAL:
            return None
        # Of several servers of Kafka the first one stands for all.
        parts = urlsplit((self.endpoint or "").partition(",")[0])
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def __str__(self) -> str:
        """Return what logs call it."""
        return LOCAL if self.kind == LOCAL else f"{self.account} at {self.shown_endpoint}"
