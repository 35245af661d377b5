"""A backend that cannot be reached has accepted nothing: it is asked again without a risk, and gets everything once."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery import senders
from cmdrdata_exporter.delivery.destination import Destination
from tests.faults.application import Application, until
from tests.faults.oracle import Oracle

EXPIRED = Path(__file__).with_name("expired.pem")
"""A certificate of 2020 for the loopback address, and its key."""


@contextlib.contextmanager
def refused(tmp_path: Path, patch: pytest.MonkeyPatch) -> Generator[str]:
    """Nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}/api/events"


@contextlib.contextmanager
def no_such_host(tmp_path: Path, patch: pytest.MonkeyPatch) -> Generator[str]:
    """The name of the host is not known."""

    def resolve(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patch.setattr(socket, "getaddrinfo", resolve)
    yield "https://api.example/api/events"


@contextlib.contextmanager
def expired_certificate(tmp_path: Path, patch: pytest.MonkeyPatch) -> Generator[str]:
    """The certificate is trusted, but its time is over."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(EXPIRED)
    patch.setenv("SSL_CERT_FILE", str(EXPIRED))
    with Oracle(tmp_path / "never", tls=context) as oracle:
        yield oracle.url
        assert 0 == oracle.received


@contextlib.contextmanager
def black_hole(tmp_path: Path, patch: pytest.MonkeyPatch) -> Generator[str]:
    """The host answers no attempt to connect."""
    patch.setattr(senders, "ATTEMPT_TIMEOUT", 0.2)
    with socket.socket(socket.AF_INET6) as server, contextlib.ExitStack() as waiting:
        server.bind(("::1", 0))
        server.listen(0)
        # As many as fit into its queue, which nobody empties.
        for _ in range(2):
            client = waiting.enter_context(socket.socket(socket.AF_INET6))
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"http://[::1]:{server.getsockname()[1]}/api/events"


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (refused, "NewConnectionError"),
        (no_such_host, "NameResolutionError"),
        (expired_certificate, "SSLCertVerificationError"),
        (black_hole, "ConnectTimeoutError"),
    ],
)
def test_a_backend_that_cannot_be_reached(
    tmp_path: Path,
    trouble: Callable[[Path, pytest.MonkeyPatch], contextlib.AbstractContextManager[str]],
    reason: str,
) -> None:
    """What surely never arrived is not ambiguous: once the backend can be reached it gets each event once."""
    with (
        pytest.MonkeyPatch.context() as patch,
        trouble(tmp_path, patch) as url,
        Application(tmp_path / "spool", url) as application,
    ):
        application.call(50)
        gate = application.delivery.drainer.gate
        until(lambda: gate.in_trouble)
        assert reason == gate.reason
        application.wait_for(pending=50, in_flight=0)
        application.delivery.shutdown(0)
        counts = {name: number for name, number in application.counts().items() if number}
        assert {"recorded": 50, "pending": 50} == counts
    with Oracle(tmp_path / "accepted") as oracle:
        # The same destination, now that it can be reached.
        shutil.move(
            application.directory.path, tmp_path / "spool" / Destination(oracle.url, "default").name
        )
        with Application(tmp_path / "spool", oracle.url) as following:
            following.ids += application.ids
            # Each waits for its next attempt, the later the more there were.
            following.settled(oracle)
            assert (50, 50) == (oracle.received, len(oracle.accepted))


def test_a_backend_that_comes_back(tmp_path: Path) -> None:
    """A backend that was down and listens again gets everything from the process that has waited for it."""
    with Oracle(tmp_path / "before") as before:
        port = before.port
        application = Application(tmp_path / "spool", before.url)
        application.call(50)
        before.wait_for_accepted(50)
        application.wait_for(delivered=50)
    with application:
        first = set(application.call(50))
        until(lambda: application.delivery.drainer.gate.in_trouble)
        with Oracle(tmp_path / "after", port=port) as after:
            application.wait_for(delivered=100, pending=0, in_flight=0)
            assert (first, 0) == (after.keys, after.duplicates)
