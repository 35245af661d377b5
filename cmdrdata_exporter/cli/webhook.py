"""
What `cmdrdata status --webhook` posts: that something begins to need a person, and that it is over.

The URL of a webhook is a secret as a rule. So nothing but its host is ever shown.
"""

from __future__ import annotations

import json
import math
import os
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import click
import urllib3
from urllib3 import exceptions
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError, SSLError
from urllib3.util import parse_url

from cmdrdata_exporter import clocks
from cmdrdata_exporter.cli.destination import Refusal
from cmdrdata_exporter.cli.terminal import Json, plural
from cmdrdata_exporter.delivery.backoff import backoff
from cmdrdata_exporter.delivery.http.connections import through_proxy
from cmdrdata_exporter.setting_urls import proxy_for
from cmdrdata_exporter.setting_values import ConfigurationError, is_loopback
from cmdrdata_exporter.version import USER_AGENT

PATIENCE = 30.0
"""Seconds that something must last before it is told: a process that is restarted alarms nobody."""
TIMEOUT = 5.0
"""Seconds that one attempt may take."""
MOST = 1000
"""Notices that wait, at most, for a receiver that is down."""


def webhook_url(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Have the URL of a webhook given. What is wrong with it is said without it."""
    if value is None:
        return None
    expected = "expected is an https:// URL, or an http:// URL of this machine"
    try:
        parts = urlsplit(value)
        _ = parts.port
        host = (parse_url(value).host or "").strip("[]")
    except (ValueError, HTTPError):
        raise click.BadParameter(f"it is not a URL; {expected}", ctx, param) from None
    if "\\" in value or not value.isascii() or not value.isprintable() or " " in value:
        wrong = "it holds blanks, or characters that no URL has"
    elif "@" in parts.netloc:
        wrong = "it holds a user name or password"
    elif parts.scheme not in ("http", "https") or not host:
        wrong = "it is not a URL"
    elif parts.scheme == "http" and not is_loopback(host):
        wrong = "http:// would show it to whoever is on the way"
    else:
        return value
    raise click.BadParameter(f"{wrong}; {expected}", ctx, param)


def webhook_in_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> str | None:
    """Have a file given that has the URL of a webhook in it."""
    if value is None:
        return None
    try:
        text = value.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise click.BadParameter(f"{str(value)!r} cannot be read: {reason}", ctx, param) from None
    return webhook_url(ctx, param, text.strip())


class _Notice(NamedTuple):
    due: float
    """When it may be sent, in monotonic seconds."""
    body: Json


class Webhook:
    """
    Notices that are posted one after the other, each until the receiver has accepted it.

    Args:
        url: of the receiver.

    Raises:
        Refusal: the environment asks for a proxy that cannot be used.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: deque[_Notice] = deque()
        self._failures = 0
        self._next = 0.0
        """When the next attempt may be made, after one that failed."""
        self.trouble: str | None = None
        """Why the last attempt failed; None where it did not."""
        self.dropped = 0
        """Notices that were given up, since too many waited."""
        try:
            proxy = proxy_for(url, os.environ)
        except ConfigurationError as error:
            raise Refusal(str(error)) from None
        self._pool: Any = urllib3.PoolManager() if proxy is None else through_proxy(proxy)

    @property
    def host(self) -> str:
        """Where it is, without what is secret."""
        return urlsplit(self._url).netloc

    @property
    def waiting(self) -> int:
        """How many notices could not be delivered yet."""
        return sum(notice.due <= clocks.monotonic() for notice in self._waiting)

    def add(self, body: Json) -> None:
        """Take a notice. What is over before it was told was nothing."""
        now = clocks.monotonic()
        if body["event"] == "over":
            for notice in self._waiting:
                if notice.due > now and _what(notice.body) == _what(body):
                    self._waiting.remove(notice)
                    return
        if len(self._waiting) == MOST:
            self._waiting.popleft()
            self.dropped += 1
        patience = 0.0 if body["event"] == "over" else PATIENCE
        self._waiting.append(_Notice(now + patience, body))

    def send(self) -> float:
        """Post what is due, until an attempt fails; return after how many seconds the next one is."""
        while self._waiting:
            notice = min(self._waiting, key=_due)
            now = clocks.monotonic()
            wait = max(notice.due, self._next) - now
            if wait > 0:
                return wait
            self.trouble = self._post(notice.body)
            if self.trouble is None:
                self._failures, self._next = 0, 0.0
                self._waiting.remove(notice)
            else:
                self._next = clocks.monotonic() + backoff(self._failures)
                self._failures += 1
        return math.inf

    def _post(self, body: Json) -> str | None:
        """Make one attempt; return why it failed."""
        try:
            answer = self._pool.request(
                "POST",
                self._url,
                body=json.dumps(body).encode(),
                headers={
                    "Content-Type": "application/json",
                    "Idempotency-Key": body["id"],
                    "User-Agent": USER_AGENT,
                },
                timeout=TIMEOUT,
                retries=False,
                redirect=False,
                # What it says is not read: it may say it for ever.
                preload_content=False,
            )
            answer.close()
        except (HTTPError, OSError) as error:
            return _failure(error)
        return None if 200 <= answer.status < 300 else f"it answers {answer.status}"

    def describe(self) -> str | None:
        """Return what a person should know of it, None where all is well."""
        if self.trouble is None and not self.dropped:
            return None
        told = f"Webhook at {self.host}: {self.trouble or 'it answers again'}; "
        told += f"{plural(self.waiting, 'notice')} to send"
        return f"{told}, {self.dropped:,} given up" if self.dropped else told


def _due(notice: _Notice) -> float:
    return notice.due


def _what(body: Json) -> tuple[object, ...]:
    return body["destination"], body["kind"]


def _failure(error: Exception) -> str:
    """Return in words why there was no answer. The error itself may have the URL in it."""
    if isinstance(error, ProxyError):
        return "the proxy makes no connection"
    if isinstance(error, SSLError):
        return "its certificate is not accepted"
    # In some versions of urllib3 what is refused has timed out, too.
    is_refused = isinstance(error, NewConnectionError)
    if isinstance(error, exceptions.TimeoutError) and not is_refused:
        return "it does not answer in time"
    return "it cannot be reached"
