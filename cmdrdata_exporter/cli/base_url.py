"""Where a key of the provider's may be sent: never in the clear, but to this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from cmdrdata_exporter.cli.destination import Refusal

OPENAI = "https://api.openai.com/v1"


def require_safe(base_url: str, name: str) -> None:
    """
    See to it that a key may be sent to a URL.

    Args:
        base_url: what was given.
        name: of the variable or option that it was given by.

    Raises:
        Refusal: it is no URL, or shows the key to whoever is on the way.
    """
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise Refusal(f"{name} is no URL; expected is one like {OPENAI}")
    if parts.scheme == "http" and not _is_loopback(host):
        raise Refusal(
            f"{name} is http://, which would show the key to whoever is on the way; use https://"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
