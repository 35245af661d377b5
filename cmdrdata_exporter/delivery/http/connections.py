"""
Pooled keep-alive connections on which an attempt has one deadline.

The timeout of a socket begins anew with every byte, so an answer that trickles in would hold its reader for minutes.
"""

from __future__ import annotations

import base64
import functools
import http.client
import io
import math
import os
import socket
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError
from urllib3.response import BaseHTTPResponse
from urllib3.util import parse_url

from cmdrdata_exporter import clocks

LONGEST_BODY = 1.0
"""Seconds in which a body is read: the status is the verdict, and a connection costs little."""


def owner() -> object:
    """Return whose connections this thread may use: gevent's belong to the hub of the thread that opened them."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("socket"):
        return None
    return sys.modules["gevent"].get_hub()


def poster(endpoint: str, proxy: str | None, connections: int) -> Callable[..., BaseHTTPResponse]:
    """
    Return what posts to an endpoint, with `urlopen`'s arguments beside method and URL.

    Args:
        endpoint: the URL.
        proxy: the URL of an HTTP proxy to go through, with the user and password it may ask for.
        connections: how many connections are kept.
    """
    classes: Any = {"http": _HTTPPool, "https": _HTTPSPool}
    if proxy is None:
        manager = urllib3.PoolManager(maxsize=connections)
        manager.pool_classes_by_scheme = classes
        # What a manager does for each request, to find the pool, is a sixth of what a request costs.
        pool = manager.connection_from_url(endpoint)
        return functools.partial(pool.urlopen, "POST", parse_url(endpoint).request_uri)
    parts = urlsplit(proxy)
    user, at, _ = parts.netloc.rpartition("@")
    token = base64.b64encode(unquote(user).encode()).decode()
    manager = urllib3.ProxyManager(
        proxy,
        maxsize=connections,
        # urllib3 leaves the user of the URL aside.
        proxy_headers={"proxy-authorization": f"Basic {token}"} if at else None,
    )
    manager.pool_classes_by_scheme = classes
    return functools.partial(manager.urlopen, "POST", endpoint)


class _Progress(threading.local):
    """How far the attempt has come that a thread makes."""

    sent = False
    """Whether any of the event may have left."""


progress = _Progress()


class _Reader(io.RawIOBase):
    """Reads a socket until a deadline: at first that of the timeout that the socket has."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._sock = sock
        timeout = sock.gettimeout()
        self.deadline = math.inf if timeout is None else clocks.monotonic() + timeout
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        # The first read has the timeout that the socket has.
        if self._begun and self.deadline < math.inf:
            remaining = self.deadline - clocks.monotonic()
            if remaining <= 0:
                raise TimeoutError
            self._sock.settimeout(remaining)
        self._begun = True
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw: Any = self.fp.detach()
        self._reader = _Reader(raw, sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        # Of answers before the answer, http.client passes over 100 alone; what follows another one would be taken for
        # the answer to the next request. https://www.rfc-editor.org/rfc/rfc9110#section-15.2
        while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            unread: Any = None
            self.headers = self.msg = unread
            super().begin()
        if self.status == http.client.SWITCHING_PROTOCOLS:
            self.will_close = True
        self._reader.deadline = min(self._reader.deadline, clocks.monotonic() + LONGEST_BODY)


class NoConnectionError(NewConnectionError):
    """A connection that broke before it was set up, so that nothing of a request can have left; see its cause."""


class _OneWrite(http.client.HTTPConnection):
    """
    Sends the head of a request together with the beginning of its body, which every request of ours has.

    An application may close descriptors that it has not opened. The number of a socket that is kept may then be that of
    a file of its own, which must get no request, with the key in it, and stay open.
    """

    _head: bytes | None = None
    _identity: tuple[int, int] | None = None
    """Device and inode of the socket."""

    def connect(self) -> None:
        try:
            super().connect()
        except OSError as error:
            # TLS has the same errors for a handshake as for an answer that breaks off.
            connection: Any = self
            raise NoConnectionError(connection, str(error)) from error
        self._identity = _identity(self.sock)

    def close(self) -> None:
        self._let_go_of_others()
        super().close()

    def _let_go_of_others(self) -> None:
        if self.sock is not None and self._identity not in (None, _identity(self.sock)):
            # TLS inside of TLS, of an HTTPS proxy, has the socket inside, too.
            getattr(self.sock, "socket", self.sock).detach()
            self.sock = None  # pyright: ignore[reportAttributeAccessIssue] - as http.client has it

    def _new_conn(self) -> socket.socket:
        connect: Callable[[], socket.socket] = getattr(super(), "_new_conn")  # noqa: B009 - http.client's own has none
        try:
            return connect()
        except RuntimeError:
            # gevent looks names up in a thread, and the interpreter starts none at its end: then without one.
            if (hub := sys.modules.get("gevent.hub")) is None:
                raise
            hub.get_hub().resolver = import_module("gevent.resolver.blocking").Resolver()
            return connect()

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        self._head = b""
        super().endheaders(*args, **kwargs)

    def send(self, data: Any) -> None:
        if self._head == b"":
            self._head = data
            return
        head, self._head = self._head, None
        if (
            head is not None
        ):  # What follows a head is the event; a proxy is asked for a tunnel without one.
            self._let_go_of_others()
            if self.sock is None:
                self.connect()
            progress.sent = True
        super().send(data if head is None else head + data)


def _identity(sock: socket.socket) -> tuple[int, int] | None:
    """Return the device and inode of a socket, None where it has no descriptor any more."""
    try:
        found = os.fstat(sock.fileno())
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _HTTPConnection(_OneWrite, HTTPConnection):
    response_class = _Response


class _HTTPSConnection(_OneWrite, HTTPSConnection):
    response_class = _Response


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls: Any = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls: Any = _HTTPSConnection
