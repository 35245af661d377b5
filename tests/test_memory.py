"""The delivery in memory: every event is somewhere, retries are patient, and the exit tells what is left."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.http import Outcome, Verdict
from cmdrdata_exporter.delivery.local import LocalDelivery
from cmdrdata_exporter.delivery.memory import PROBE_INTERVAL, MemoryDelivery

ACME = Header("acme", "m", "chat.completions", "reported", {"input_tokens": 1}, "2026-11-21")
NOBODY = Header(None, "m", "chat.completions", "reported", {"input_tokens": 1}, "2026-11-21")

DELIVERED = Outcome(Verdict.DELIVERED, "HTTP 200")
REFUSED = Outcome(Verdict.REFUSED, "HTTP 400")
UNAUTHORIZED = Outcome(Verdict.MISCONFIGURED, "HTTP 401")
UNAVAILABLE = Outcome(Verdict.RETRY, "HTTP 503", retry_after=None)
BROKEN = Outcome(Verdict.RETRY, "HTTP 500", ambiguous=True)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Backend:
    """Answers attempts as scripted, the last outcome from then on."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.received: list[tuple[str, bytes]] = []

    def __call__(self, event_id: str, body: bytes, timeout: float) -> Outcome:
        """Take an attempt."""
        assert 0 < timeout <= 10
        self.received.append((event_id, body))
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


def delivery(backend: Callable[[str, bytes, float], Outcome], **options: Any) -> MemoryDelivery:
    """Return a delivery without threads: it sends when it is flushed."""
    return MemoryDelivery(backend, senders=0, **options)


def counts(delivery: MemoryDelivery) -> dict[str, int]:
    """Return what is not zero, having checked that every event is somewhere."""
    found = delivery.counts
    states = ("delivered", "pending", "in_flight", "held", "dead", "overflowed")
    assert found["recorded"] == sum(found[state] for state in states)
    return {state: number for state, number in found.items() if number}


def test_events_are_sent_by_threads() -> None:
    """Without being asked, senders deliver each event once, with its id and its bytes."""
    received: dict[str, bytes] = {}
    all_there = threading.Event()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        assert event_id not in received
        received[event_id] = body
        if len(received) == 100:
            all_there.set()
        return DELIVERED

    delivery = MemoryDelivery(post, senders=4)
    for number in range(100):
        delivery.record(str(number), ACME, b"%d" % number)
    assert all_there.wait(10)
    assert delivery.flush(10)
    assert counts(delivery) == {"recorded": 100, "delivered": 100}
    assert received == {str(number): b"%d" % number for number in range(100)}


def test_a_flush_sends_what_waits() -> None:
    """A flush delivers in the calling thread, and says so."""
    backend = Backend(DELIVERED)
    waiting = delivery(backend)
    waiting.record("1", ACME, b"{}")
    assert counts(waiting) == {"recorded": 1, "pending": 1}
    assert waiting.flush(5)
    assert counts(waiting) == {"recorded": 1, "delivered": 1}


def test_a_refused_event() -> None:
    """An event that is refused for good is kept apart and does not hold up those behind it."""
    backend = Backend(REFUSED, DELIVERED)
    waiting = delivery(backend)
    waiting.record("bad", ACME, b"{}")
    waiting.record("good", ACME, b"{}")
    assert waiting.flush(5)
    assert counts(waiting) == {"recorded": 2, "delivered": 1, "dead": 1}
    assert [(event.id, reason) for event, reason in waiting.dead] == [("bad", "HTTP 400")]


def test_retries_keep_order_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is sent again with the same id and bytes, after a pause that doubles, and ambiguous attempts count."""
    pauses: list[float] = []

    def longest(low: float, high: float) -> float:
        pauses.append(high)
        return high

    monkeypatch.setattr("random.uniform", longest)
    clock = Clock()
    backend = Backend(*[BROKEN] * 9, DELIVERED)
    waiting = delivery(backend, clock=clock)
    waiting.record("1", ACME, b"{}")
    for _ in range(9):
        assert not waiting.flush(0.1), "the pause is longer than the flush"
        clock.now += pauses[-1]
    assert waiting.flush(0.1)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backend.received == [("1", b"{}")] * 10
    assert counts(waiting) == {"recorded": 1, "delivered": 1, "ambiguous": 9}


def test_retry_after_gates_all_events() -> None:
    """While the backend asks to wait, nothing is sent."""
    clock = Clock()
    backend = Backend(Outcome(Verdict.RETRY, "HTTP 429", retry_after=30.0), DELIVERED)
    waiting = delivery(backend, clock=clock)
    waiting.record("1", ACME, b"{}")
    waiting.record("2", ACME, b"{}")
    assert not waiting.flush(5)
    clock.now += 29.5
    assert not waiting.flush(0.1)
    assert len(backend.received) == 1
    clock.now += 0.5
    assert waiting.flush(5)
    assert [event_id for event_id, _ in backend.received] == ["1", "1", "2"]


def test_a_refused_key_pauses_everything(caplog: pytest.LogCaptureFixture) -> None:
    """A refused key loses nothing: one line says so, one attempt a minute finds out when it is mended."""
    clock = Clock()
    backend = Backend(UNAUTHORIZED, UNAUTHORIZED, DELIVERED)
    waiting = delivery(backend, clock=clock)
    waiting.record("1", ACME, b"{}")
    with caplog.at_level(logging.WARNING, "cmdrdata"):
        assert not waiting.flush(5)
        assert not waiting.flush(5)
        assert len(backend.received) == 1
        assert counts(waiting) == {"recorded": 1, "pending": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "CmdrData does not accept events (HTTP 401); check key and endpoint. Every event is kept, "
        f"the next attempt is in {PROBE_INTERVAL:.0f} s"
    ]


def test_a_mended_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delivery goes on by itself once the backend accepts events again, one probe at a time until then."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.memory.PROBE_INTERVAL", 0.001)
    probes: list[str] = []
    all_there = threading.Event()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        probes.append(event_id)
        if len(probes) < 4:
            return UNAUTHORIZED
        if probes[3:] == ["1", "2"]:
            all_there.set()
        return DELIVERED

    delivery = MemoryDelivery(post, senders=1)
    delivery.record("1", ACME, b"{}")
    delivery.record("2", ACME, b"{}")
    assert all_there.wait(10)
    assert delivery.flush(10)
    assert counts(delivery) == {"recorded": 2, "delivered": 2}
    assert probes == ["1", "1", "1", "1", "2"]


def test_events_without_a_customer() -> None:
    """An event that nobody pays is held, not sent, and no obstacle to a flush; sent where the user wants it."""
    holding = delivery(Backend(DELIVERED))
    holding.record("1", NOBODY, b"{}")
    assert holding.flush(1)
    assert counts(holding) == {"recorded": 1, "held": 1}
    sending = delivery(Backend(DELIVERED), hold_unattributed=False)
    sending.record("1", NOBODY, b"{}")
    assert sending.flush(1)
    assert counts(sending) == {"recorded": 1, "delivered": 1}


def test_local() -> None:
    """Without a backend this process is the destination."""
    local = LocalDelivery()
    local.record("1", ACME, b"{}")
    local.record("2", NOBODY, b"{}")
    assert local.flush(1)
    local.close(1)
    assert local.counts == {"recorded": 2, "local": 2}
    assert [event.id for event in local.events] == ["1", "2"]


def test_a_full_memory(caplog: pytest.LogCaptureFixture) -> None:
    """An event beyond the capacity goes to the log, whole and recoverable; those that wait stay."""
    full = delivery(Backend(UNAVAILABLE), capacity=1)
    full.record("1", ACME, b'{"n":1}')
    with caplog.at_level(logging.ERROR, "cmdrdata"):
        full.record("2", ACME, b'{"n":2}')
    assert counts(full) == {"recorded": 2, "pending": 1, "overflowed": 1}
    assert json.loads(caplog.records[-1].getMessage()) == {
        "cmdrdata": "undelivered",
        "id": "2",
        "event": {"n": 2},
    }


def test_the_end_of_the_process(caplog: pytest.LogCaptureFixture) -> None:
    """What could not be delivered by the exit is in the log, one recoverable line an event: pending, held and dead."""
    ending = delivery(Backend(REFUSED, UNAVAILABLE))
    for event_id, header in (("dead", ACME), ("pending", ACME), ("held", NOBODY)):
        ending.record(event_id, header, b'{"of":"%s"}' % event_id.encode())
    with caplog.at_level(logging.ERROR, "cmdrdata"):
        ending.close(0.1)
    lines = [
        record.getMessage() for record in caplog.records if record.getMessage().startswith("{")
    ]
    assert [json.loads(line)["event"] for line in lines] == [
        {"of": "pending"},
        {"of": "held"},
        {"of": "dead"},
    ]


def test_a_post_that_raises() -> None:
    """An attempt that ends in no outcome at all leaves the event where it was, as an ambiguous one."""

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        raise KeyboardInterrupt

    waiting = delivery(post)
    waiting.record("1", ACME, b"{}")
    with pytest.raises(KeyboardInterrupt):
        waiting.flush(1)
    assert counts(waiting) == {"recorded": 1, "pending": 1, "ambiguous": 1}


def test_a_forked_child() -> None:
    """A child sends its own events and leaves those of its parent to the parent."""
    backend = Backend(DELIVERED)
    resets: list[int] = []
    waiting = delivery(backend, reset=lambda: resets.append(os.getpid()))
    waiting.record("parent's", ACME, b"{}")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        waiting.record("child's", ACME, b"{}")
        waiting.flush(5)
        os.write(
            writer,
            json.dumps([len(resets), [i for i, _ in backend.received], waiting.counts]).encode(),
        )
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        reset, received, childs_counts = json.load(pipe)
    assert (reset, received, childs_counts["recorded"], childs_counts["delivered"]) == (
        1,
        ["child's"],
        1,
        1,
    )
    assert waiting.flush(5)
    assert [event_id for event_id, _ in backend.received] == ["parent's"]
