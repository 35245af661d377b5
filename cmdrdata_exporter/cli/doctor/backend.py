"""
Check of the endpoint: whether it can be reached, and what it answers.

It is asked by one GET with the key, over the connections that events take. A GET records nothing. What it is answered
tells whether somebody is there, speaks HTTP, and knows the key; only an event itself tells that events are accepted.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import timezone
from email.utils import parsedate_to_datetime

from urllib3.exceptions import NameResolutionError, ProxyError, SSLError

from cmdrdata_exporter.cli.doctor import topic
from cmdrdata_exporter.cli.doctor.findings import Finding
from cmdrdata_exporter.delivery.destination import KAFKA
from cmdrdata_exporter.delivery.http.answers import Answer
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.settings import CMDRDATA_ENDPOINT, Settings
from cmdrdata_exporter.version import VERSION

CLOCKS_APART = 60.0
"""Seconds that two clocks may differ."""


def check(settings: Settings, *, timeout: float, now: float) -> Iterator[Finding]:
    """
    Yield what is wrong with the endpoint of these settings, if there is one.

    Args:
        settings: of the application.
        timeout: seconds that it may take.
        now: Unix seconds.
    """
    if settings.target.kind == KAFKA:
        yield from topic.check(settings, timeout=timeout)
        return
    if settings.endpoint is None:
        return
    client = Client(
        settings.endpoint,
        settings.read_key,
        f"cmdrdata-doctor/{VERSION}",
        connections=1,
        clock=lambda: now,
        proxy=settings.proxy,
    )
    where, found = settings.target.shown_endpoint, client.ask(timeout)
    if isinstance(found, Exception):
        yield _unreached(f"{where}", found, timeout, proxied=settings.proxy is not None)
        return
    yield from _answered(f"{where}", found)
    yield from _dated(f"{where}", found, now)


def _unreached(where: str, error: Exception, timeout: float, *, proxied: bool) -> Finding:
    """Say why there is no answer. Not in the error's own words, which may have what the URL of a proxy has."""
    if isinstance(error, ProxyError):
        why, remedy = "the proxy makes no tunnel", "Check HTTPS_PROXY and NO_PROXY."
    elif isinstance(error, NameResolutionError):
        why, remedy = "its name is not known", f"Check {CMDRDATA_ENDPOINT} and the name service."
    elif isinstance(error, (ssl.SSLError, SSLError)):
        text = getattr(error, "verify_message", "") or getattr(error, "reason", "") or "TLS failed"
        why = f"its certificate is not accepted, or TLS fails ({text})"
        remedy = "Install the certificate of its authority, or name it in SSL_CERT_FILE."
    elif isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        why, remedy = f"nothing came within {timeout:g} s", "Check the network, and the firewall."
    else:
        why, remedy = type(error).__name__, f"Check {CMDRDATA_ENDPOINT} and the network."
    through = " through the proxy" if proxied and not isinstance(error, ProxyError) else ""
    return Finding.error("unreachable", f"{where} cannot be reached{through}: {why}.", remedy)


def _answered(where: str, answer: Answer) -> Iterator[Finding]:
    """Read the answer to a GET, of which many a backend knows nothing."""
    status = answer.status
    if status in (401, 403):
        yield Finding.error(
            "key-refused",
            f"{where} refuses the key ({status}).",
            "Check the key and the account. Events are kept until it is accepted.",
        )
    elif 300 <= status < 400:
        yield Finding.error(
            "endpoint-moved",
            f"{where} sends us elsewhere ({status}). The key is never taken along.",
            f"Set {CMDRDATA_ENDPOINT} to the URL where events are to be posted.",
        )
    elif status == 404 or (
        status < 300 and "text/html" in answer.headers.get("content-type", "").lower()
    ):
        yield Finding.warning(
            "endpoint-wrong",
            f"{where} answers {'a web page' if status < 300 else '404'}, as a server does that takes no events there.",
            f"Check the path in {CMDRDATA_ENDPOINT}.",
        )
    elif status == 429 or status >= 500:
        yield Finding.warning(
            "backend-trouble",
            f"{where} is in trouble ({status}).",
            "Events are kept, and sent when it is over.",
        )


def _dated(where: str, answer: Answer, now: float) -> Iterator[Finding]:
    try:
        date = parsedate_to_datetime(answer.headers.get("date", ""))
        # One of an unknown zone is in UTC, as all dates of HTTP.
        apart = now - (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return
    if abs(apart) > CLOCKS_APART:
        side = "ahead of" if apart > 0 else "behind"
        yield Finding.warning(
            "clock",
            f"The clock of this host is {abs(apart):,.0f} s {side} that of {where}: usage may fall on another day.",
            "Have the clock set by NTP.",
        )
