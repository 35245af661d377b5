"""The loop: one thread makes many attempts at once, and each has its outcome, whatever becomes of the others."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import queue
import select
import socket
import ssl
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from urllib3.util import connection as urllib3_connection

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Handed, Outcome, Verdict
from cmdrdata_exporter.delivery import senders as module
from cmdrdata_exporter.delivery.backoff import PROBE_AFTER
from cmdrdata_exporter.delivery.gate import FIRST, Gate
from cmdrdata_exporter.delivery.http import loop as loop_module
from cmdrdata_exporter.delivery.http.answers import Answer
from cmdrdata_exporter.delivery.http.client import Client
from cmdrdata_exporter.delivery.http.connections import Connection, Connector
from cmdrdata_exporter.delivery.http.loop import Loop
from cmdrdata_exporter.delivery.senders import Done, Senders, Threads
from tests.delivery.samples import wait_for
from tests.faults.oracle import ACCEPTED, SILENCE, Oracle, Reply, Then

if TYPE_CHECKING:
    from typing_extensions import Self

CERTIFICATE = Path(__file__).with_name("loopback.pem")
"""A certificate for 127.0.0.1 that lasts, and its key."""
EXPIRED = CERTIFICATE.parents[1] / "faults" / "expired.pem"

Inbox: TypeAlias = "queue.SimpleQueue[Done | None]"

KEY = "tk-0123456789abcdefghij"
YES = Outcome(Verdict.DELIVERED, "HTTP 202")


@pytest.fixture(autouse=True)
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    """A loop and threads that no other test has started."""
    loop = Loop()
    monkeypatch.setattr(module, "threads", module.Threads())
    monkeypatch.setattr(Client, "loop", loop)
    return loop


@pytest.fixture
def oracle(tmp_path: Path) -> Iterator[Oracle]:
    """A backend."""
    with Oracle(tmp_path / "accepted") as running:
        yield running


def handed(*numbers: int, body: bytes = b"{}") -> list[Handed]:
    """Return events that are in flight."""
    return [
        Handed(number, number.to_bytes(16, "big"), f"id-{number}", body, 0, 0) for number in numbers
    ]


def senders(url: str, most: int = 8, proxy: str | None = None) -> tuple[Senders, Inbox]:
    """Return senders whose attempts the loop makes, and where outcomes come back."""
    done: Inbox = queue.SimpleQueue()
    client = Client(url, lambda: KEY, "test", connections=most, clock=lambda: 0.0, proxy=proxy)
    return Senders(client.post, Gate(most), done, most=most), done


def take(done: Inbox, number: int) -> dict[int, Outcome | None]:
    """Wait for outcomes, and return them by the number of the event."""
    found: dict[int, Outcome | None] = {}
    for _ in range(number):
        came = done.get(timeout=10)
        assert came is not None
        found[came[0].seq] = came[1]
    assert done.empty()
    assert len(found) == number
    return found


def test_many_at_once(oracle: Oracle) -> None:
    """As many as may be are under way at once, over as many connections, which are used again."""
    barrier = threading.Barrier(8)

    def answer(_: object) -> Reply:
        barrier.wait(10)
        return ACCEPTED

    oracle.answer = answer
    sending, done = senders(oracle.url)
    sending.give(handed(*range(32)))
    assert take(done, 32) == dict.fromkeys(range(32), YES)
    assert len(oracle.keys) == oracle.received == 32
    assert len(oracle._connections) == 8
    sending.end()


@pytest.mark.parametrize("number", [2, 3])
def test_answers_share_a_wake_up(
    number: int, oracle: Oracle, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing waits to be sent, the first answer waits a little for the others; otherwise it makes room."""
    numbers, last, waiting = itertools.count(1), threading.Event(), list[int]()

    def answer(_: object) -> Reply:
        n = next(numbers)
        if n == 2:
            last.wait(10)
        elif n == 3:
            last.set()
        return ACCEPTED

    def sleep(_: float) -> None:
        waiting.append(len(sending._work))
        last.set()
        for descriptor in loop._by_descriptor:
            select.select([descriptor], [], [], 10)

    sending, done = senders(oracle.url, most=2)
    # So that both have a connection.
    oracle.answer = lambda _: (barrier.wait(10), ACCEPTED)[-1]
    barrier = threading.Barrier(2)
    sending.give(handed(8, 9))
    take(done, 2)
    oracle.answer = answer
    monkeypatch.setattr(loop_module, "time", SimpleNamespace(sleep=sleep))
    sending.give(handed(*range(number)))
    assert take(done, number) == dict.fromkeys(range(number), YES)
    assert not any(waiting)
    assert number == 3 or waiting == [0]
    sending.end()


def test_how_many_threads_a_dead_backend_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop has one thread, and each of the two attempts that a dead backend gets at once opens a connection."""
    mine = Threads()
    monkeypatch.setattr("cmdrdata_exporter.delivery.senders.threads", mine)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    sending, done = senders(url, most=FIRST)
    sending.start()
    assert mine.count == 2
    for number in range(0, 20, 2):
        sending.give(handed(number, number + 1))
        take(done, 2)
        assert mine.count <= 1 + FIRST
    sending.end()


def test_a_large_event_to_a_slow_reader() -> None:
    """What the socket does not take at once is sent as it is read, and all of it arrives."""
    body = os.urandom(8 << 20)
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending, done = senders(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        sending.give(handed(1, body=body))
        connection, _ = listening.accept()
        with connection:
            while not received.endswith(body[-64:]):
                received += connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            assert take(done, 1) == {1: YES}
    assert received.partition(b"\r\n\r\n")[2] == body
    sending.end()


def test_a_silent_backend(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt without an answer ends in time, as ambiguous, and holds up no other one."""
    monkeypatch.setattr(module, "ATTEMPT_TIMEOUT", 0.6)
    oracle.answer = lambda request: SILENCE if request.key == "id-1" else ACCEPTED
    sending, done = senders(oracle.url)
    sending.give(handed(1, 2, 3))
    silent = Outcome(Verdict.RETRY, "ReadTimeoutError", ambiguous=True)
    assert take(done, 3) == {1: silent, 2: YES, 3: YES}
    sending.end()


def test_a_connection_that_takes_long(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a connection holds up nobody, and gives up in time: nothing has left."""
    monkeypatch.setattr(module, "ATTEMPT_TIMEOUT", 0.2)
    connect, over = Connector.connect, threading.Event()
    calls: list[float] = []

    def slow(connector: Connector, timeout: float) -> object:
        calls.append(timeout)
        if len(calls) == 1:
            assert over.wait(10)
        return connect(connector, timeout)

    monkeypatch.setattr(Connector, "connect", slow)
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    sending.give(handed(2))
    assert take(done, 2) == {1: Outcome(Verdict.RETRY, "ConnectTimeoutError"), 2: YES}
    over.set()
    sending.end()


def test_a_program_that_closes_descriptors(oracle: Oracle, tmp_path: Path) -> None:
    """Where a program closes all descriptors of ours and opens its own, those get nothing, and events are sent."""
    before = {int(path.name) for path in Path("/dev/fd").iterdir()}
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    assert take(done, 1) == {1: YES}
    theirs = {int(path.name) for path in Path("/dev/fd").iterdir()} - before
    own = os.open(tmp_path / "own", os.O_RDWR | os.O_CREAT)
    ends = {each.fileno() for each in oracle._connections}
    numbers = {number for number in theirs - ends if number != own and is_open(number)}
    for number in numbers:
        os.dup2(own, number)
    sending.give(handed(2))
    assert take(done, 1) == {2: YES}
    assert (tmp_path / "own").read_bytes() == b""
    for number in (*numbers, own):
        os.close(number)
    sending.end()


def is_open(number: int) -> bool:
    """Say whether a descriptor is open."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("closed", [[0], [1], [0, 1]], ids=["read", "write", "both"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_wake_up_that_is_closed(
    oracle: Oracle,
    loop: Loop,
    monkeypatch: pytest.MonkeyPatch,
    closed: list[int],
    replaced: bool,
) -> None:
    """Where a program closes what wakes the loop it comes back at once, and writes into nothing of the program's."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.http.loop.LONGEST_WAIT", 60)
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    assert take(done, 1) == {1: YES}
    deadline = time.monotonic() + 10
    while not loop._waits:
        assert time.monotonic() < deadline
    bell = loop._bell
    assert bell is not None
    with tempfile.TemporaryFile() as file:
        own = os.dup(file.fileno())
    numbers = [(bell.descriptor, bell._end)[which] for which in closed]
    for number in numbers:
        if replaced:
            os.dup2(own, number)
        else:
            os.close(number)
    sending.give(handed(2))
    assert take(done, 1) == {2: YES}
    assert os.fstat(own).st_size == 0
    for number in (*numbers, own) if replaced else (own,):
        os.close(number)
    # The loop has a new one, and nothing of the old one is left.
    assert loop._bell is not bell
    assert not any(file.is_ours for file in bell._files)
    sending.end()


def test_a_fork_while_attempts_are_under_way(oracle: Oracle, loop: Loop) -> None:
    """A child has none of its parent's attempts and descriptors; the parent goes on, and so can the child."""
    holds = threading.Event()

    def answer(_: object) -> Reply:
        assert holds.wait(10)
        return ACCEPTED

    oracle.answer = answer
    sending, done = senders(oracle.url)
    sending.give(handed(*range(8)))
    deadline = time.monotonic() + 10
    while len(oracle._attempts) < 8 or not loop._waits:
        assert time.monotonic() < deadline
    bell = loop._bell
    assert bell is not None
    with warnings.catch_warnings():
        # Of threads, which is what this is about.
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        closed = not is_open(bell.descriptor) and not is_open(bell._end)
        os._exit(0 if closed and not loop._active and not loop._runs else 1)
    assert os.waitpid(child, 0)[1] == 0
    holds.set()
    assert take(done, 8) == dict.fromkeys(range(8), YES)
    assert (oracle.received, oracle.duplicates) == (8, 0)
    sending.end()


def test_an_interruption(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the loop's work, whatever it is, ends its attempts, and the thread goes on."""
    advance = Loop._advance
    raised: list[bool] = []

    def interrupted(*arguments: object) -> None:
        if not raised:
            raised.append(True)
            raise SystemExit
        advance(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Loop, "_advance", interrupted)
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    assert take(done, 1) == {1: Outcome(Verdict.RETRY, "interrupted", ambiguous=True)}
    sending.give(handed(2))
    assert take(done, 1) == {2: YES}
    assert faults.counts.pop("sender") == 1
    sending.end()


def test_the_end_of_the_loop(oracle: Oracle, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to do the loop leaves its thread, and comes again."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.http.loop.LONGEST_WAIT", 0.01)
    sending, done = senders(oracle.url)
    for number in range(3):
        sending.give(handed(number))
        assert take(done, 1) == {number: YES}
        wait_for(lambda: not loop._runs)
    sending.end()


def test_where_no_thread_can_be_started(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no thread for the loop, who gives an event sends it."""

    def none(*_: object) -> bool:
        return False

    monkeypatch.setattr(module.Threads, "put", none)
    sending, done = senders(oracle.url)
    sending.give(handed(1, 2))
    assert take(done, 2) == {1: YES, 2: YES}
    sending.end()


# Answers

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nTrailer: a\r\n\r\n"
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
)


@pytest.mark.parametrize("data", [CHUNKED, INTERIM], ids=["chunked", "interim"])
def test_an_answer_in_pieces(data: bytes) -> None:
    """An answer is one in whatever pieces it comes, its connection is kept, and nothing of it is left over."""
    client_end, server_end = socket.socketpair()
    with server_end:
        connection = Connection(client_end)
        for _ in range(2):
            assert connection.is_fresh()
            connection.begin(b"request", 10.0)
            assert server_end.recv(100) == b"request"
            for number in range(len(data) - 1):
                server_end.sendall(data[number : number + 1])
                assert connection.advance(0.0) is None
            server_end.sendall(data[-1:])
            found = connection.advance(0.0)
            assert isinstance(found, Answer)
            assert (found.status, found.body, found.keep_alive) == (200, b"{}", True)
        connection.close()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * (1 << 18),
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * (1 << 20),
        b"HTTP/1.1 100 Continue\r\n\r\n" * (1 << 16),
        b"\x00" * (1 << 20),
    ],
    ids=["headers", "header", "interim", "garbage"],
)
def test_an_endless_head(oracle: Oracle, data: bytes) -> None:
    """An answer whose status never comes is none, and is not read for ever."""
    oracle.answer = lambda _: Reply(raw=data, accepts=False)
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    found = take(done, 1)[1]
    assert found is not None
    assert (found.verdict, found.ambiguous) == (Verdict.RETRY, True)
    assert found.reason in ("ProtocolError", "HTTPException", "LineTooLong")
    sending.end()


@pytest.mark.parametrize("later", [False, True])
def test_an_answer_that_nobody_asked_for(oracle: Oracle, later: bool) -> None:
    """What comes on a kept connection before a request is not the answer to it."""
    yes = ACCEPTED.encoded()
    oracle.answer = lambda request: (
        Reply(raw=yes if later else yes + yes) if request.key == "id-1" else Reply(503)
    )
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    assert take(done, 1) == {1: YES}
    if later:
        (connection,) = oracle._connections
        connection.sendall(yes)
    sending.give(handed(2))
    assert take(done, 1) == {2: Outcome(Verdict.RETRY, "HTTP 503", answer="{}")}
    sending.end()


@pytest.mark.parametrize("then", [Then.CLOSE, Then.RESET])
@pytest.mark.parametrize("seen", [True, False])
def test_a_connection_that_is_closed_meanwhile(
    oracle: Oracle, monkeypatch: pytest.MonkeyPatch, then: Then, seen: bool
) -> None:
    """A backend that closes a kept connection gets the next event on another one; what it may have got is ambiguous."""
    oracle.answer = lambda _: Reply(then=then)
    sending, done = senders(oracle.url)
    sending.give(handed(1))
    assert take(done, 1) == {1: YES}
    assert sending._client is not None
    (connection,) = sending._client._idle
    assert select.select([connection.descriptor], (), (), 10)[0]
    if not seen:

        def is_fresh(_: Connection) -> bool:
            return True

        monkeypatch.setattr(Connection, "is_fresh", is_fresh)
    sending.give(handed(2))
    lost = Outcome(Verdict.RETRY, "ProtocolError", ambiguous=True)
    assert take(done, 1) == {2: YES if seen else lost}
    assert oracle.received == (2 if seen else 1)
    sending.end()


def test_an_answer_before_the_request_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer counts that comes while the request is being sent, and its connection carries no other one."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.http.connections.LONGEST_BODY", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sending, done = senders(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        for number in (1, 2):
            sending.give(handed(number, body=bytes(16 << 20)))
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
                if number == 1:
                    assert take(done, 1) == {1: Outcome(Verdict.REFUSED, "HTTP 413")}
        # This time the connection was reset, with most of the request in it.
        assert take(done, 1) == {2: Outcome(Verdict.REFUSED, "HTTP 413")}
    sending.end()


# Several destinations


def test_a_destination_that_never_answers(tmp_path: Path) -> None:
    """All attempts of one destination may wait for answers, or for its name: no other one is slowed."""
    with contextlib.ExitStack() as stack:
        oracles = [stack.enter_context(Oracle(tmp_path / f"{number}")) for number in range(5)]
        oracles[0].answer = lambda _: SILENCE
        all_of_them = [senders(oracle.url, most=32) for oracle in oracles]
        began = time.monotonic()
        all_of_them[0][0].give(handed(*range(64)))
        oracles[0].wait_for_requests(32)
        for sending, _ in all_of_them[1:]:
            sending.give(handed(*range(200)))
        for _, done in all_of_them[1:]:
            assert take(done, 200) == dict.fromkeys(range(200), YES)
        # Before the first attempt of the silent one is over.
        assert all_of_them[0][1].empty()
        assert time.monotonic() - began < module.ATTEMPT_TIMEOUT
        for sending, _ in all_of_them:
            sending.end()
        oracles[0].close()
        assert len(take(all_of_them[0][1], 64)) == 64


def test_a_name_that_takes_long(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up that hangs holds up its own destination alone."""
    monkeypatch.setattr(module, "ATTEMPT_TIMEOUT", 5)
    look_up, over = socket.getaddrinfo, threading.Event()

    def hang(host: str, *arguments: Any) -> Any:
        if host == "hangs.example":
            assert over.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return look_up(host, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    hanging, no_one = senders("http://hangs.example/", most=32)
    hanging.give(handed(*range(32)))
    sending, done = senders(oracle.url)
    sending.give(handed(*range(100)))
    assert take(done, 100) == dict.fromkeys(range(100), YES)
    assert no_one.empty()
    over.set()
    unknown = Outcome(Verdict.RETRY, "NameResolutionError")
    assert take(no_one, 32) == dict.fromkeys(range(32), unknown)
    sending.end()
    hanging.end()


def test_a_backend_that_is_down() -> None:
    """However much waits for a backend that is down, a few attempts are enough to know."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    sending, done = senders(url, most=32)
    sending._gate = Gate(32, first=FIRST)
    sending.give(handed(*range(100)))
    tried = [outcome for outcome in take(done, 100).values() if outcome is not None]
    assert tried == [Outcome(Verdict.RETRY, "NewConnectionError")] * len(tried)
    assert len(tried) <= PROBE_AFTER + FIRST
    sending.end()


# TLS and proxies


def server_side(certificate: Path = CERTIFICATE) -> ssl.SSLContext:
    """Return what serves TLS on 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Oracle]:
    """A backend that speaks TLS, whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with Oracle(tmp_path / "secure", tls=server_side()) as running:
        yield running


class Proxy:
    """
    A proxy that makes tunnels; use it as a context manager.

    Args:
        tls: with which certificate it speaks TLS itself.
        status: what it answers; it makes a tunnel where that is 200.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, status: bytes = b"200 OK") -> None:
        self._tls = tls
        self._status = status
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._listen)]
        self.heads: list[bytes] = []
        """What was asked of it."""
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://us%40er:p%3Aw@127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                stack.enter_context(connection)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            self.heads.append(head)
            connection.sendall(b"HTTP/1.1 " + self._status + b"\r\n\r\n")
            if not self._status.startswith(b"200"):
                return
            host, _, port = head.split(b" ")[1].partition(b":")
            backend = stack.enter_context(socket.create_connection((host.decode(), int(port))))
            ends = {connection: backend, backend: connection}
            while True:
                for end in select.select(ends, (), ())[0]:
                    data = end.recv(1 << 16)
                    while isinstance(end, ssl.SSLSocket) and end.pending():
                        data += end.recv(1 << 16)
                    if not data:
                        return
                    ends[end].sendall(data)


def test_tls(secure: Oracle) -> None:
    """Over TLS many events are under way at once, large ones too, and their connections are used again."""
    sending, done = senders(secure.url)
    for _ in range(2):
        sending.give(handed(*range(24), body=os.urandom(200_000)))
        assert take(done, 24) == dict.fromkeys(range(24), YES)
    assert (secure.received, secure.duplicates) == (48, 24)
    assert len(secure._connections) <= 8
    assert {each.headers["authorization"] for each in secure.requests} == {f"Bearer {KEY}"}
    sending.end()


@pytest.mark.parametrize("by_proxy", [False, True])
@pytest.mark.parametrize("trouble", ["unknown", "expired", "other host"])
def test_tls_with_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, by_proxy: bool
) -> None:
    """Who cannot show a certificate for the host of the endpoint gets nothing, and the reason says so."""
    shown = EXPIRED if trouble == "expired" else CERTIFICATE
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull if trouble == "unknown" else str(shown))
    with Oracle(tmp_path / "stranger", tls=server_side(shown)) as stranger, Proxy() as proxy:
        host = "localhost" if trouble == "other host" else "127.0.0.1"
        url = stranger.url.replace("127.0.0.1", host)
        sending, done = senders(url, proxy=proxy.url if by_proxy else None)
        sending.give(handed(1, 2))
        untrusted = Outcome(Verdict.RETRY, "SSLCertVerificationError")
        assert take(done, 2) == {1: untrusted, 2: untrusted}
        assert (stranger.received, len(proxy.heads)) == (0, 2 if by_proxy else 0)
        sending.end()


def test_a_proxy_that_is_a_stranger(secure: Oracle) -> None:
    """A proxy that cannot show its certificate is asked for nothing."""
    with Proxy(server_side(EXPIRED)) as proxy:
        sending, done = senders(secure.url, proxy=proxy.url)
        sending.give(handed(1))
        assert take(done, 1) == {1: Outcome(Verdict.RETRY, "ProxyError")}
        assert proxy.heads == []
        sending.end()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_tunnel(secure: Oracle, tls: bool) -> None:
    """Through a proxy it is the same: the proxy gets its own user and password, the backend the key."""
    with Proxy(server_side() if tls else None) as proxy:
        sending, done = senders(secure.url, proxy=proxy.url)
        for _ in range(2):
            sending.give(handed(*range(24), body=os.urandom(200_000)))
            assert take(done, 24) == dict.fromkeys(range(24), YES)
        assert {each.headers["authorization"] for each in secure.requests} == {f"Bearer {KEY}"}
        assert (secure.received, secure.duplicates) == (48, 24)
        assert 1 <= len(proxy.heads) <= 8
        user = base64.b64encode(b"us@er:p:w")
        for head in proxy.heads:
            assert head.startswith(b"CONNECT 127.0.0.1:%d HTTP/1." % secure.port)
            assert b"basic " + user.lower() in head.lower()
            assert KEY.encode() not in head
        sending._client.reset()  # pyright: ignore[reportOptionalMemberAccess]
        sending.end()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_slow_tunnel(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tunnel does not take at once is sent as it is read, and all of it arrives."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    connect = urllib3_connection.create_connection

    def small(*arguments: Any, **options: Any) -> socket.socket:
        options["socket_options"] = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)]
        return connect(*arguments, **options)

    monkeypatch.setattr(urllib3_connection, "create_connection", small)
    body = os.urandom(1 << 20)
    received = bytearray()
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        Proxy(server_side() if tls else None) as proxy,
    ):
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
        sending, done = senders(url, proxy=proxy.url)
        sending.give(handed(1, body=body))
        accepted, _ = listening.accept()
        with server_side().wrap_socket(accepted, server_side=True) as connection:
            while not received.endswith(body[-64:]):
                data = connection.recv(1 << 16)
                assert data
                received += data
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            assert take(done, 1) == {1: YES}
    assert received.partition(b"\r\n\r\n")[2] == body
    sending.end()


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("status", [b"407 Proxy Authentication Required", b"502 Bad Gateway"])
def test_a_proxy_that_refuses(secure: Oracle, tls: bool, status: bytes) -> None:
    """A proxy that makes no tunnel gets no key, and the reason says that it was the proxy."""
    with Proxy(server_side() if tls else None, status) as proxy:
        sending, done = senders(secure.url, proxy=proxy.url)
        sending.give(handed(1, 2))
        assert take(done, 2) == dict.fromkeys((1, 2), Outcome(Verdict.RETRY, "ProxyError"))
        sending.end()
    assert (secure.received, len(proxy.heads)) == (0, 2)
    assert KEY.encode() not in b"".join(proxy.heads)
