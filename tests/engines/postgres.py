"""A real PostgreSQL, on loopback, with a database for each test: Debian's `postgresql-15`, run as its own user."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import psycopg

_numbers = itertools.count()


def _programs() -> Path:
    """Return the folder of the server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise AssertionError("PostgreSQL is missing: apt-get install postgresql")
    return found[-1].parent


class Postgres:
    """
    A server, stopped until `start`.

    Args:
        directory: where its files are, which its user must be able to reach.
        outlives_host: whether what is committed would survive a crash of the host, too, which no test brings about.
    """

    def __init__(self, directory: Path, *, outlives_host: bool = True) -> None:
        self._bin = _programs()
        self._outlives_host = outlives_host
        self._data = directory / "data"
        # The server does not run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(directory, self._user)
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-N")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._url = f"postgresql://postgres@127.0.0.1:{self.port}"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user,
            cwd="/",
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-p {self.port} -k '' -h 127.0.0.1 -c max_connections=200"
        if not self._outlives_host:
            options += " -c fsync=off -c full_page_writes=off"
        log = str(self._data / "log")
        self._run("pg_ctl", "-D", str(self._data), "-l", log, "-o", options, "-w", "start")

    def kill(self) -> None:
        """Kill it, with all its processes, as a crash does."""
        number = int((self._data / "postmaster.pid").read_text().split()[0])
        # It starts others until it is dead, and cannot start again before these are.
        os.kill(number, signal.SIGSTOP)
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        for process in (*map(int, children), number):
            os.kill(process, signal.SIGKILL)
        # Where nobody waits for orphans, it stays as a process that has ended, and the next one takes it for running.
        (self._data / "postmaster.pid").unlink()

    def stop(self) -> None:
        """Stop it, if it runs."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self._data), "-m", "fast", "-w", "stop")

    def database(self) -> str:
        """Make a database, and return its URL."""
        name = f"test_{next(_numbers)}"
        self._execute(f"CREATE DATABASE {name}")
        return f"{self._url}/{name}"

    def remove(self, database: str) -> None:
        """Remove a database, by its URL: each has 300 files, which otherwise are removed all at once."""
        self._execute(f"DROP DATABASE {database.rpartition('/')[2]} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(f"{self._url}/postgres", autocommit=True) as connection:
            connection.execute(statement.encode())
