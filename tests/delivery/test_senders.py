"""The senders: what was given comes back exactly once, with what came of it, whatever a post does."""

from __future__ import annotations

import _thread
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

import pytest
from opentelemetry import context as otel_context

from cmdrdata_exporter import faults
from cmdrdata_exporter.delivery import Handed, Outcome, Verdict
from cmdrdata_exporter.delivery import senders as module
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.senders import AT_ONCE, ATTEMPT_TIMEOUT, Done, Senders
from tests.delivery.samples import DELIVERED, UNAUTHORIZED, UNAVAILABLE, wait_for

Inbox: TypeAlias = "queue.SimpleQueue[Done | None]"


def handed(*numbers: int) -> list[Handed]:
    """Return events that are in flight."""
    return [
        Handed(number, bytes([number]) * 16, f"id-{number}", b"body-%d" % number, 0, 0)
        for number in numbers
    ]


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that no other test has started."""
    monkeypatch.setattr(module, "threads", module.Threads())


def senders(post: Callable[[str, bytes, float], Outcome], most: int = 4) -> tuple[Senders, Inbox]:
    """Return senders, and where outcomes come back."""
    done: Inbox = queue.SimpleQueue()
    return Senders(post, Gate(most), done, most=most), done


def deliver(event_id: str, body: bytes, timeout: float) -> Outcome:
    """Deliver whatever it is."""
    return DELIVERED


def take(done: Inbox, number: int) -> dict[int, Outcome | None]:
    """Wait for outcomes, and return them by the number of the event."""
    found: dict[int, Outcome | None] = {}
    for _ in range(number):
        came = done.get(timeout=10)
        assert came is not None
        event, outcome = came
        assert event.seq not in found
        found[event.seq] = outcome
    assert done.empty()
    return found


def test_sending() -> None:
    """Each event is posted once, with its id, its bytes and the seconds it may take."""
    posted: list[tuple[str, bytes, float]] = []

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        posted.append((event_id, body, timeout))
        return DELIVERED

    sending, done = senders(post)
    sending.give(handed(*range(20)))
    assert sending.busy == 20
    assert not sending.alone
    # Four at a time: what the gate turned away comes back unsent.
    found = take(done, 20)
    sent = {number for number, outcome in found.items() if outcome is DELIVERED}
    assert sorted(posted) == sorted(
        (f"id-{number}", b"body-%d" % number, ATTEMPT_TIMEOUT) for number in sent
    )
    assert set(found.values()) <= {DELIVERED, None}
    sending.end()


def test_no_more_at_once_than_there_may_be() -> None:
    """As many events of a destination are on their way as may be, and no more."""
    barrier = threading.Barrier(4)
    under_way: list[str] = []
    most: list[int] = []

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        under_way.append(event_id)
        barrier.wait(10)
        most.append(len(under_way))
        barrier.wait(10)
        under_way.remove(event_id)
        return DELIVERED

    sending, done = senders(post)
    sending.start()
    sending.give(handed(1, 2, 3, 4))
    assert take(done, 4) == dict.fromkeys((1, 2, 3, 4), DELIVERED)
    sending.give(handed(5, 6, 7, 8))
    assert take(done, 4) == dict.fromkeys((5, 6, 7, 8), DELIVERED)
    assert most == [4] * 8
    sending.end()


def test_many_destinations_share_threads() -> None:
    """However many destinations send at once, there are so many threads, and each destination gets its turn."""
    reached = threading.Semaphore(0)
    over = threading.Event()

    def hang(event_id: str, body: bytes, timeout: float) -> Outcome:
        reached.release()
        assert over.wait(10)
        return DELIVERED

    slow = [senders(hang) for _ in range(module.MOST_THREADS // 4)]
    for sending, _ in slow:
        sending.give(handed(1, 2, 3, 4, 5))
    for _ in range(module.MOST_THREADS):
        assert reached.acquire(timeout=10)
    quick = [senders(deliver) for _ in range(20)]
    for sending, _ in quick:
        sending.give(handed(1))
    assert module.threads.count == module.MOST_THREADS
    over.set()
    for _, done in quick:
        assert take(done, 1) == {1: DELIVERED}
    for _, done in slow:
        assert take(done, 5) == dict.fromkeys((1, 2, 3, 4, 5), DELIVERED)
    for sending, _ in (*slow, *quick):
        sending.end()


def test_threads_end_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """While anything is drained a few threads stay, for the exit of the process; then none does."""
    monkeypatch.setattr(module, "IDLE", 0.01)
    sending, done = senders(deliver, most=16)
    sending.start()
    assert module.threads.count == AT_ONCE
    sending.give(handed(*range(16)))
    take(done, 16)
    wait_for(lambda: module.threads.count == AT_ONCE)
    sending.end()
    wait_for(lambda: module.threads.count == 0)
    # They come again.
    again, done = senders(deliver)
    again.give(handed(1))
    assert take(done, 1) == {1: DELIVERED}
    again.end()


def test_a_gate_that_is_shut() -> None:
    """What may not be sent comes back unsent, so that it is not ambiguous."""

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        assert event_id == "id-1"
        return UNAUTHORIZED

    sending, done = senders(post, most=1)
    sending.give(handed(1))
    assert take(done, 1) == {1: UNAUTHORIZED}
    sending.give(handed(2, 3))
    assert take(done, 2) == {2: None, 3: None}
    sending.end()


@pytest.mark.parametrize(
    ("error", "kind", "outcome"),
    [
        (ValueError(), "delivery", Outcome(Verdict.RETRY, "ValueError", ambiguous=True)),
        (MemoryError(), "delivery", Outcome(Verdict.RETRY, "MemoryError", ambiguous=True)),
        (KeyboardInterrupt(), "sender", Outcome(Verdict.RETRY, "interrupted", ambiguous=True)),
        (SystemExit(1), "sender", Outcome(Verdict.RETRY, "interrupted", ambiguous=True)),
    ],
    ids=repr,
)
def test_a_post_that_raises(error: BaseException, kind: str, outcome: Outcome) -> None:
    """An attempt that ends in no outcome is no verdict on its event, which may have left; the thread goes on."""
    errors = [error]

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        if errors:
            raise errors.pop()
        return DELIVERED

    sending, done = senders(post, most=1)
    sending.give(handed(1))
    assert take(done, 1) == {1: outcome}
    sending.give(handed(2))
    assert take(done, 1) == {2: DELIVERED}
    assert faults.counts.pop(kind) == 1
    sending.end()


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that shuts down starts none: who gives an event sends it."""

    def none(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    idents: list[int] = []

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        idents.append(_thread.get_ident())
        return UNAVAILABLE

    monkeypatch.setattr(_thread, "start_new_thread", none)
    sending, done = senders(post)
    assert sending.alone
    sending.give(handed(1, 2))
    assert take(done, 2) == {1: UNAVAILABLE, 2: UNAVAILABLE}
    assert idents == [_thread.get_ident()] * 2


def test_without_the_context_of_whoever_gives() -> None:
    """Nothing of the context in which an event is given goes into the threads that send it."""
    found: list[object] = []

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        found.append(otel_context.get_current())
        return DELIVERED

    sending, done = senders(post)
    token = otel_context.attach(otel_context.set_value("of", "a request"))
    try:
        sending.give(handed(1))
    finally:
        otel_context.detach(token)
    take(done, 1)
    assert found == [{}]
    sending.end()


def test_the_end() -> None:
    """After its end nothing more is sent: what waits comes back unsent, what is on its way comes to its end."""
    asked, answer = threading.Event(), threading.Event()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        asked.set()
        assert answer.wait(10)
        return DELIVERED

    sending, done = senders(post, most=1)
    sending.give(handed(1, 2, 3))
    assert asked.wait(10)
    sending.end()
    assert take(done, 2) == {2: None, 3: None}
    answer.set()
    assert take(done, 1) == {1: DELIVERED}
