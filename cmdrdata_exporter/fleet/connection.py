"""A connection to the database of a fleet's ledger: how it is made, and how it is called without its password."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

Connection = psycopg.Connection[Any]

_USUAL = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "cmdrdata",
}
"""
Options that a URL may have otherwise. Whoever waits for a server that has gone without a word waits for half a minute,
and not for the quarter of an hour that TCP tries.
"""


_UNUSABLE = (
    "the URL of the fleet's ledger cannot be read; expected is postgresql://USER@HOST:PORT/DATABASE, "
    "with special characters percent-encoded. A password may be in PGPASSFILE"
)


class UnusableUrlError(ValueError):
    """What was given is no URL of a database. It is not repeated in the message: it may have a password."""


def name_of(url: str) -> str:
    """
    Return how a database may be called where everybody reads it: `host:port/database`.

    Raises:
        UnusableUrlError: it is no URL of a database.
    """
    try:
        known = conninfo_to_dict(url)
    except psycopg.Error:
        raise UnusableUrlError(_UNUSABLE) from None
    host = str(known.get("host") or known.get("hostaddr") or "local")
    port = str(known.get("port") or "")
    database = str(known.get("dbname") or known.get("user") or "")
    # Of a password with `@` or `/` in it libpq takes a part for one of these.
    if "@" in host + database or not set(port) <= set("0123456789,"):
        raise UnusableUrlError(_UNUSABLE)
    return f"{host}{port and f':{port}'}/{database}"


def connect(url: str) -> Connection:
    """
    Connect to a database.

    Raises:
        psycopg.Error: there is no connection.
        UnusableUrlError: it is no URL of a database.
    """
    name_of(url)
    given = conninfo_to_dict(url)
    usual: dict[str, Any] = {name: value for name, value in _USUAL.items() if name not in given}
    return psycopg.connect(url, autocommit=True, **usual)


class Connected:
    """
    What has one connection, which is made when it is needed, and anew after an error. For any thread, one at a time.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        self.name = name_of(url)
        self._url = url
        self._lock = threading.RLock()
        self._connection: Connection | None = None

    @contextlib.contextmanager
    def _connected(self) -> Generator[Connection]:
        """Use the connection, which is closed after an error."""
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = connect(self._url)
                    self._prepare(self._connection)
                yield self._connection
            except BaseException:
                self.close()
                raise

    @contextlib.contextmanager
    def _transaction(self) -> Generator[Connection]:
        """Make what is done inside one change, on the database's disk when this returns, or none at all."""
        with self._connected() as connection, connection.transaction():
            yield connection

    def _prepare(self, connection: Connection) -> None:
        """Do what is to be done with a new connection."""

    def close(self) -> None:
        """Close the connection, which gives back its locks."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(psycopg.Error):
                    connection.close()
