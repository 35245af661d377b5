"""
Keep-alive connections, each with one request at a time, which never block once they are open.

An attempt has one deadline, however often something arrives: an answer that trickles in would hold it for minutes.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import math
import select
import socket
import ssl
import sys
from http.client import HTTPException
from importlib import import_module
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import ProtocolError, ProxyError, ReadTimeoutError, SSLError
from urllib3.util.ssl_ import create_urllib3_context

from cmdrdata_exporter.delivery.http.answers import Answer, read_answer
from cmdrdata_exporter.descriptors import OpenFile

LONGEST_BODY = 1.0
"""Seconds in which a body is read: the status is the verdict, and a connection costs little."""
_LONGEST = 1 << 18
"""Bytes of an answer, with all that comes before it, above which it is none."""
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_UNSENT = {errno.EPIPE, errno.ECONNRESET, errno.EPROTOTYPE}
"""Errors of sending after which an answer may be there all the same: a server refuses what it has not read."""


class Connector:
    """
    Opens connections to an endpoint. Safe to use from several threads.

    Args:
        endpoint: the URL.
        proxy: the URL of an HTTP proxy to go through, with the user and password it may ask for.
    """

    def __init__(self, endpoint: str, proxy: str | None) -> None:
        self._endpoint = endpoint
        self._proxy = proxy
        self._pool: Any = None
        """urllib3's, with the certificates. It knows proxies and TLS inside of TLS; nothing is requested of it."""

    def connect(self, timeout: float) -> Connection:
        """Open a connection; names, addresses, proxy and TLS may take about `timeout` seconds."""
        pool = self._pool
        if pool is None:
            pool = self._pool = self._new_pool()
        opening = pool._new_conn()  # noqa: SLF001 - what urllib3 has of its own is for whole requests
        opening.timeout = timeout
        try:
            self._open(pool, opening)
        except BaseException as error:
            # Behind the proxy there is nothing but the backend's TLS.
            at_backend = opening.has_connected_to_proxy and isinstance(error, ssl.SSLError)
            opening.close()
            # The certificates may be others the next time.
            self._pool = None
            if self._proxy is not None and isinstance(error, Exception) and not at_backend:
                raise ProxyError("the proxy makes no tunnel", error) from error
            raise
        return Connection(opening.sock)

    def _open(self, pool: Any, opening: Any) -> None:
        connect = opening.connect
        if self._proxy is not None:

            def connect() -> None:
                pool._prepare_proxy(opening)  # noqa: SLF001 - as above

        try:
            connect()
        except RuntimeError:
            # gevent looks names up in a thread, and the interpreter starts none at its end: then without one.
            if (hub := sys.modules.get("gevent.hub")) is None:
                raise
            hub.get_hub().resolver = import_module("gevent.resolver.blocking").Resolver()
            connect()

    def _new_pool(self) -> Any:
        options: dict[str, Any] = {}
        if urlsplit(self._endpoint).scheme.lower() == "https":
            # Reading the certificates takes longer than a handshake.
            options["ssl_context"] = context = create_urllib3_context()
            context.load_default_certs()
        if self._proxy is None:
            return urllib3.PoolManager(**options).connection_from_url(self._endpoint)
        return through_proxy(self._proxy, **options).connection_from_url(self._endpoint)


def through_proxy(proxy: str, **options: Any) -> urllib3.ProxyManager:
    """Return what opens connections through an HTTP proxy, by its URL, with the user and password it may ask for."""
    user, at, _ = urlsplit(proxy).netloc.rpartition("@")
    token = base64.b64encode(unquote(user).encode()).decode()
    # urllib3 leaves the user of the URL aside.
    headers = {"proxy-authorization": f"Basic {token}"} if at else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)


class Connection:
    """
    An open connection.

    An application may close descriptors that it has not opened. The number of a socket that is kept may then be that of
    a file of its own, which must get no request, with the key in it, and stay open.

    Args:
        sock: a socket, or what urllib3 has instead of one for TLS inside of TLS.
    """

    def __init__(self, sock: Any) -> None:
        self._file: OpenFile | None = None
        """None before it is open and once it is closed."""
        self._socket = sock
        self._transport: Any = sock if isinstance(sock, socket.socket) else sock.socket
        """What bytes leave through."""
        self.descriptor: int = sock.fileno()
        self._file = OpenFile(self.descriptor)
        self._readable = select.poll()
        self._readable.register(self.descriptor, select.POLLIN)
        # gevent's sockets wait for nothing then, so that any thread may use them.
        sock.settimeout(0.0)
        self.deadline = math.inf
        """When the request under way is given up, in monotonic seconds."""
        self.unsent = self._received = b""
        """What is left to send of it."""
        self._answer: Answer | None = None
        self.sent = False
        """Whether any of the request may have left."""

    def is_fresh(self) -> bool:
        """Say whether a request can be sent: the connection is ours, and the backend has not closed it."""
        try:
            if self._is_ours():
                # An exception takes longer than this. What is of TLS inside of TLS may have been read already.
                if self._transport is self._socket and not self._readable.poll(0):
                    return True
                self._socket.recv(1)
        except _LATER:
            return True
        except OSError:
            pass
        # Closed, or with something in it that belongs to no request.
        return False

    def begin(self, request: bytes, deadline: float) -> None:
        """Send a request, as much of it as the socket takes; `advance` does the rest."""
        self.unsent, self._received, self._answer = self._encrypted(request), b"", None
        self.deadline = deadline
        self.sent = True
        # `advance` meets the error once more.
        with contextlib.suppress(OSError):
            self._send()

    def advance(self, now: float) -> Answer | Exception | None:
        """
        Go on where the socket is ready or the deadline has come.

        Returns:
            The answer, or why there is none; None while there may be one later.
        """
        try:
            if not self._is_ours():
                return ProtocolError("something else has the connection's descriptor")
            if self.unsent:
                self._send()
            found = self._receive()
        except Exception as error:  # noqa: BLE001 - no memory, for one
            # The status is the verdict, whatever became of the body.
            return self._answer or _named(error)
        if found is not None:
            return found
        if self._answer is not None:
            self.deadline = min(self.deadline, now + LONGEST_BODY)
        if now < self.deadline:
            return None
        pool: Any = None
        return self._answer or ReadTimeoutError(pool, "", "no answer in time")

    def close(self) -> None:
        """Let go of it."""
        if self._is_ours():
            self._socket.close()
        else:
            self._transport.detach()
        self._file = None

    def __del__(self) -> None:
        if self._file is not None:
            self.close()

    def _is_ours(self) -> bool:
        return self._file is not None and self._file.is_ours

    def _encrypted(self, request: bytes) -> bytes:
        """Return what is sent for a request. urllib3's TLS inside of TLS loses what it cannot send at once."""
        if self._transport is self._socket:
            return request
        while request:
            request = request[self._socket.sslobj.write(request) :]
        return self._socket.outgoing.read()

    def _send(self) -> None:
        try:
            self.unsent = self.unsent[self._transport.send(self.unsent) :]
        except _LATER:
            pass
        except OSError as error:
            if error.errno not in _UNSENT:
                raise
            self.unsent = b""

    def _receive(self) -> Answer | None:
        """Return the answer once it is complete."""
        while True:
            try:
                data = self._socket.recv(65536)
            except _LATER:
                return None
            self._received += data or b""
            self._answer = answer = read_answer(self._received, ended=not data)
            if answer is not None and answer.complete:
                return answer._replace(keep_alive=False) if self.unsent else answer
            if len(self._received) > _LONGEST:
                raise ProtocolError("too long")


def _named(error: Exception) -> Exception:
    """Return an error as urllib3 names it: those names are in logs and metrics."""
    if isinstance(error, ssl.SSLError):
        return SSLError(error)
    return ProtocolError(str(error)) if isinstance(error, OSError | HTTPException) else error
