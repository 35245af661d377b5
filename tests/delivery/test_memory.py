"""The delivery in memory: every event is somewhere, retries are patient, and the exit tells what is left."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import context as otel_context

from cmdrdata_exporter import clocks, faults
from cmdrdata_exporter.delivery import Header, Outcome, Transport, Verdict
from cmdrdata_exporter.delivery.local import LocalDelivery
from cmdrdata_exporter.delivery.memory import MemoryDelivery
from cmdrdata_exporter.delivery.options import Options
from tests.delivery.samples import wait_for

ACME = Header("acme", "m", "chat.completions", "reported", {"input_tokens": 1}, "2026-11-21")
NOBODY = Header(None, "m", "chat.completions", "reported", {"input_tokens": 1}, "2026-11-21")
HELD = replace(NOBODY, hold=True)

DELIVERED = Outcome(Verdict.DELIVERED, "HTTP 200")
REFUSED = Outcome(Verdict.REFUSED, "HTTP 400", answer="no such model")
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


class WithoutThreads(MemoryDelivery):
    """A delivery as at the exit of the interpreter, which starts no thread any more: it sends when it is flushed."""

    def _start(self) -> None:
        """Start nothing."""


def delivery(
    backend: Transport, *, capacity: int = 10_000, clock: Clock | None = None, **options: Any
) -> MemoryDelivery:
    """Return a delivery that sends when it is flushed."""
    how = Options(backend, **options)
    return WithoutThreads(how, capacity=capacity, most=1, clock=clock or clocks.monotonic)


def counts(delivery: MemoryDelivery) -> dict[str, int]:
    """Return what is not zero, having checked that every event is somewhere."""
    found = delivery.counts
    states = ("delivered", "pending", "in_flight", "held", "dead", "logged")
    assert found["recorded"] == sum(found[state] for state in states)
    return {state: number for state, number in found.items() if number}


def test_senders_start_without_a_context() -> None:
    """Nothing of the context in which an event is recorded goes into the threads that send it."""
    found: list[object] = []

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        found.append(otel_context.get_current())
        return DELIVERED

    class Inherits(threading.Thread):
        """A thread as an instrumentation of threads makes it: it runs in the context that started it."""

        def start(self) -> None:
            """Keep the context."""
            self.context = otel_context.get_current()
            super().start()

        def run(self) -> None:
            """Run in it."""
            otel_context.attach(self.context)
            super().run()

    token = otel_context.attach(otel_context.set_value("of", "a request"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "Thread", Inherits)
            sending = MemoryDelivery(Options(post))
            sending.record("1", ACME, b"{}")
        assert sending.flush(10)
    finally:
        otel_context.detach(token)
    assert found == [{}]


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

    delivery = MemoryDelivery(Options(post))
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


def test_a_flush_leaves_the_sending_to_the_senders() -> None:
    """A flush that is shorter than an attempt neither cuts the attempt short nor makes it twice."""
    attempts: list[float] = []
    answer = threading.Event()
    asked = threading.Event()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        attempts.append(timeout)
        asked.set()
        answer.wait(10)
        return DELIVERED

    sending = MemoryDelivery(Options(post), most=1)
    sending.record("1", ACME, b"{}")
    assert asked.wait(10)
    sending.record("2", ACME, b"{}")
    assert not sending.flush(0.01)
    assert counts(sending) == {"recorded": 2, "in_flight": 1, "pending": 1}
    answer.set()
    assert sending.flush(10)
    assert attempts == [10.0, 10.0]


def test_a_refused_event() -> None:
    """An event that is refused for good is kept apart and does not hold up those behind it."""
    backend = Backend(REFUSED, DELIVERED)
    waiting = delivery(backend)
    waiting.record("bad", ACME, b"{}")
    waiting.record("good", ACME, b"{}")
    assert waiting.flush(5)
    assert counts(waiting) == {"recorded": 2, "delivered": 1, "dead": 1}
    assert [(event.id, reason) for event, reason in waiting.dead] == [
        ("bad", "HTTP 400: no such model")
    ]


def test_retries_keep_order_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event is sent again with the same id and bytes, after a pause that doubles, and ambiguous attempts count."""
    pauses: list[float] = []

    def longest(low: float, high: float) -> float:
        pauses.append(high)
        return high

    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", longest)
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
    assert [event_id for event_id, _ in backend.received] == ["1", "2", "1"]


def longest(low: float, high: float) -> float:
    """Draw the largest number, so that no pause is shorter than a flush while the clock stands."""
    return high


def test_an_event_that_the_backend_cannot_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that fails again and again goes behind the others, which are delivered in spite of it."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", longest)
    clock = Clock()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        return BROKEN if event_id == "poison" else DELIVERED

    waiting = delivery(post, clock=clock)
    waiting.record("poison", ACME, b"{}")
    for _ in range(6):
        assert not waiting.flush(0)
        waiting.flush(0.001)
        clock.now += 60
    for number in range(3):
        waiting.record(str(number), ACME, b"{}")
    for _ in range(2):
        assert not waiting.flush(0.001)
        clock.now += 60
    assert counts(waiting)["delivered"] == 3
    assert counts(waiting)["pending"] == 1


def test_an_event_that_cannot_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    """An attempt that raises is no verdict: its event waits behind the others, which are sent."""
    errors: list[Exception] = [ValueError("Invalid header value"), MemoryError()]

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        if errors:
            raise errors.pop(0)
        return DELIVERED

    sending = delivery(post)
    for event_id in ("1", "2", "3"):
        sending.record(event_id, ACME, b"{}")
    while not sending.flush(10):
        pass
    assert counts(sending) == {"recorded": 3, "delivered": 3, "ambiguous": 2}
    assert faults.counts == {"delivery": 2}
    assert "usage event '1' cannot be sent" in caplog.text
    faults.counts.clear()


def test_a_handler_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging that fails keeps no sender from its work."""

    def fail(record: logging.LogRecord) -> bool:
        raise RuntimeError

    monkeypatch.setattr(logging.getLogger("cmdrdata"), "filters", [fail])
    done = threading.Event()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        if event_id == "2":
            done.set()
        return REFUSED

    sending = MemoryDelivery(Options(post), most=1)
    sending.record("1", ACME, b"{}")
    sending.record("2", ACME, b"{}")
    assert done.wait(10)
    assert sending.flush(10)
    assert counts(sending) == {"recorded": 2, "dead": 2}
    assert faults.counts["logging"] == 1
    faults.counts.clear()


def test_trouble_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend in trouble is told once, with what waits, and its return too; a failure or two are not."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", longest)
    clock = Clock()
    backend = Backend(*[UNAVAILABLE] * 3, DELIVERED, *[BROKEN] * 7, DELIVERED)
    waiting = delivery(backend, clock=clock)

    def until_delivered() -> None:
        waiting.record("1", ACME, b"{}")
        while not waiting.flush(0.001):
            clock.now += 60

    with caplog.at_level(logging.WARNING, "cmdrdata"):
        until_delivered()
        assert caplog.records == []
        until_delivered()
    assert [record.getMessage() for record in caplog.records] == [
        "usage events wait: the backend cannot be reached or fails (HTTP 500, 5 failures in a row). "
        "All events are kept; attempts go on, at most 60 s apart",
        "the backend accepts usage events again",
    ]


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
        "delivery is paused: the backend refuses the key or endpoint (HTTP 401). Check both; all events are kept, "
        "the next attempt is in 60 s"
    ]
    # Then later, as a directory's events are.
    for seconds in (60, 120):
        clock.now += seconds - 1
        assert not waiting.flush(0.5)
        clock.now += 1
        waiting.flush(0.5)
    assert len(backend.received) == 3
    assert counts(waiting) == {"recorded": 1, "delivered": 1}


def test_a_mended_key() -> None:
    """Delivery goes on by itself once the backend accepts events again, one probe at a time until then."""
    probes: list[str] = []
    recorded, all_there = threading.Event(), threading.Event()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        assert recorded.wait(10)
        probes.append(event_id)
        if len(probes) < 4:
            return UNAUTHORIZED
        if len(probes) == 5:
            all_there.set()
        return DELIVERED

    delivery = MemoryDelivery(Options(post, probe_interval=0.001), most=1)
    delivery.record("1", ACME, b"{}")
    delivery.record("2", ACME, b"{}")
    recorded.set()
    assert all_there.wait(10)
    assert delivery.flush(10)
    assert counts(delivery) == {"recorded": 2, "delivered": 2}
    assert probes == ["1", "2", "1", "2", "1"]


def test_events_without_a_customer() -> None:
    """An event that nobody pays is held, not sent, and no obstacle to a flush; sent where the user wants it."""
    holding = delivery(Backend(DELIVERED))
    holding.record("1", HELD, b"{}")
    assert holding.flush(1)
    assert counts(holding) == {"recorded": 1, "held": 1}
    sending = delivery(Backend(DELIVERED))
    sending.record("1", NOBODY, b"{}")
    assert sending.flush(1)
    assert counts(sending) == {"recorded": 1, "delivered": 1}


def test_ambiguous_attempts() -> None:
    """What may have been accepted unseen is held where the user wants that, and is no obstacle to a flush."""
    backend = Backend(BROKEN)
    holding = delivery(backend, hold_ambiguous=True)
    holding.record("1", ACME, b"{}")
    assert holding.flush(1)
    assert counts(holding) == {"recorded": 1, "held": 1, "ambiguous": 1}
    assert backend.received == [("1", b"{}")]


def logged(caplog: pytest.LogCaptureFixture) -> list[object]:
    """Return what the lines of the log say: of an event its id and body, else the line."""
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return [
        (document["cmdrdata"], document["id"], document["event"])
        if line.startswith("{") and (document := json.loads(line))
        else line
        for line in lines
    ]


def test_local(caplog: pytest.LogCaptureFixture) -> None:
    """Without a backend this process is the destination, and nothing that it recorded ends with it unseen."""
    local = LocalDelivery()
    local.record("1", ACME, b'{"n":1}')
    local.record("2", NOBODY, b'{"n":2}')
    assert local.flush(1)
    assert local.counts == {"recorded": 2, "local": 2, "logged": 0}
    assert [event.id for event in local.events] == ["1", "2"]
    assert [] == logged(caplog)
    local.close(1)
    assert local.counts == {"recorded": 2, "local": 0, "logged": 2}
    assert [
        "2 usage events are undelivered (this process ends and keeps nothing on disk). One line each follows:",
        ("undelivered", "1", {"n": 1}),
        ("undelivered", "2", {"n": 2}),
    ] == logged(caplog)
    local.close(1)
    assert [] == logged(caplog)
    local.record("3", ACME, b'{"n":3}')
    assert ("undelivered", "3", {"n": 3}) == logged(caplog)[-1]
    assert local.outcomes() == {"recorded": 3, "logged": 3}


def test_a_full_local_memory(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no room for one event more, the oldest goes to the log."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.local.CAPACITY", 1)
    local = LocalDelivery()
    for number in (1, 2):
        local.record(str(number), ACME, b"{}")
    assert local.counts == {"recorded": 2, "local": 1, "logged": 1}
    assert [
        "1 usage event is undelivered (1 are kept already). One line each follows:",
        ("undelivered", "1", {}),
    ] == logged(caplog)


def test_a_full_memory(caplog: pytest.LogCaptureFixture) -> None:
    """An event beyond the capacity goes to the log, whole and recoverable; those that wait stay."""
    full = delivery(Backend(UNAVAILABLE), capacity=1)
    full.record("1", ACME, b'{"n":1}')
    with caplog.at_level(logging.ERROR, "cmdrdata"):
        full.record("2", ACME, b'{"n":2}')
    assert counts(full) == {"recorded": 2, "pending": 1, "logged": 1}
    assert json.loads(caplog.records[-1].getMessage()) == {
        "cmdrdata": "undelivered",
        "id": "2",
        "event": {"n": 2},
    }


def test_held_events_take_no_room() -> None:
    """However many events are held or refused, those that can be sent are; of the others the oldest go to the log."""
    full = delivery(Backend(DELIVERED), capacity=2)
    for event_id in ("1", "2", "3"):
        full.record(event_id, HELD, b"{}")
    full.record("4", ACME, b"{}")
    assert full.flush(1)
    assert counts(full) == {"recorded": 4, "delivered": 1, "held": 2, "logged": 1}
    assert [event.id for event in full.held] == ["2", "3"]
    refusing = delivery(Backend(REFUSED), capacity=2)
    for event_id in ("1", "2", "3"):
        refusing.record(event_id, ACME, b"{}")
        assert refusing.flush(1)
    assert counts(refusing) == {"recorded": 3, "dead": 2, "logged": 1}
    assert [event.id for event, _ in refusing.dead] == ["2", "3"]


def lines_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return state and id of each event in the log, having checked that it is there as it would have been sent."""
    lines = [
        json.loads(record.getMessage())
        for record in caplog.records
        if record.getMessage().startswith("{")
    ]
    assert [line["event"] for line in lines] == [{"of": line["id"]} for line in lines]
    return [(line["cmdrdata"], line["id"]) for line in lines]


def record(delivery: MemoryDelivery, event_id: str, header: Header = ACME) -> None:
    """Record an event that `lines_of` recognises."""
    delivery.record(event_id, header, b'{"of":"%s"}' % event_id.encode())


def test_the_end_of_the_process(caplog: pytest.LogCaptureFixture) -> None:
    """What could not be delivered by the exit is in the log, one recoverable line an event: pending, held and dead."""
    ending = delivery(Backend(REFUSED, UNAVAILABLE))
    for event_id, header in (("dead", ACME), ("pending", ACME), ("held", HELD)):
        record(ending, event_id, header)
    ending.close(0.1)
    ending.close(0.1)
    assert lines_of(caplog) == [
        ("undelivered", "pending"),
        ("undelivered", "held"),
        ("undelivered", "dead"),
    ]
    assert counts(ending) == {"recorded": 3, "logged": 3}


def test_the_end_waits_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A backend that does not answer holds up no exit, and what is on its way to it is in the log as well."""
    asked, answer = threading.Event(), threading.Event()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        asked.set()
        answer.wait(10)
        return DELIVERED

    ending = MemoryDelivery(Options(post), most=1)
    record(ending, "1")
    assert asked.wait(10)
    record(ending, "2")
    ending.close(0.01)
    assert lines_of(caplog) == [("unanswered", "1"), ("undelivered", "2")]
    assert counts(ending) == {"recorded": 2, "logged": 2}
    answer.set()
    # The sender is free again, and what it held was given up: it is not counted twice.
    record(ending, "3")
    assert counts(ending)["logged"] + counts(ending).get("delivered", 0) == 3


def test_an_interrupted_end(caplog: pytest.LogCaptureFixture) -> None:
    """Ctrl-C ends the waiting, not the writing of what is left to the log."""

    def interrupted(event_id: str, body: bytes, timeout: float) -> Outcome:
        raise KeyboardInterrupt

    ending = delivery(interrupted)
    record(ending, "1")
    with pytest.raises(KeyboardInterrupt):
        ending.close(5)
    assert lines_of(caplog) == [("undelivered", "1")]


def test_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """An event of a call that ends after us is delivered at once, or logged once the time is over."""
    clock = Clock()
    backend = Backend(DELIVERED)
    ended = delivery(backend, clock=clock)
    ended.close(5)
    record(ended, "1")
    assert [event_id for event_id, _ in backend.received] == ["1"]
    clock.now += 5
    record(ended, "2")
    assert lines_of(caplog) == [("undelivered", "2")]
    assert counts(ended) == {"recorded": 2, "delivered": 1, "logged": 1}


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


def test_a_forked_child_of_a_local_process() -> None:
    """A child is a destination of its own, and its lock is nobody's."""
    local = LocalDelivery()
    local.record("parent's", ACME, b"{}")
    with local._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - measured in the parent only
            free = local._lock.acquire(blocking=False)
            os._exit(0 if free and local._recorded == 0 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_poisonous_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that fail whenever they come, or never get an answer, hold up no other one."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", lambda low, high: 0.001)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    over, all_there = threading.Event(), threading.Event()
    delivered: set[str] = set()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        if event_id.startswith("slow") and attempts[event_id] > 0:
            over.wait(60)
        attempts[event_id] += 1
        if not event_id.isdecimal():
            return BROKEN
        delivered.add(event_id)
        if len(delivered) == 50:
            all_there.set()
        return DELIVERED

    attempts: Counter[str] = Counter()
    sending = MemoryDelivery(Options(post))
    for number in range(50):
        sending.record(f"{'slow' if number % 2 else 'poison'} {number}", ACME, b"{}")
        sending.record(str(number), ACME, b"{}")
    try:
        assert all_there.wait(30)
    finally:
        over.set()


def test_one_event_that_is_forbidden() -> None:
    """An event that a firewall dislikes is set aside with its reason once another one has passed."""
    forbidden = Outcome(Verdict.FORBIDDEN, "HTTP 403", answer="SQL injection")

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        return forbidden if event_id == "bad" else DELIVERED

    waiting = delivery(post)
    waiting.record("bad", ACME, b"{}")
    waiting.record("good", ACME, b"{}")
    assert waiting.flush(60)
    assert counts(waiting) == {"recorded": 2, "delivered": 1, "dead": 1}
    assert [(event.id, why) for event, why in waiting.dead] == [("bad", "HTTP 403: SQL injection")]


def test_an_event_that_the_gate_turns_away() -> None:
    """What the senders give back unsent is pending again, and its next attempt is the first."""
    clock = Clock()
    backend = Backend(DELIVERED)
    waiting = delivery(backend, clock=clock)
    waiting.record("1", ACME, b"{}")
    event = waiting._queue.claim()
    assert (counts(waiting), event.attempts) == ({"recorded": 1, "in_flight": 1}, 0)
    waiting._note(event, None)
    assert counts(waiting) == {"recorded": 1, "pending": 1}
    assert not waiting.flush(0.01)
    clock.now += 1
    assert waiting._queue.again[0].attempts == 0
    assert waiting.flush(1)
    assert counts(waiting) == {"recorded": 1, "delivered": 1}


def test_an_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has nothing to do goes; the next event starts one."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.memory.IDLE", 0.01)
    sending = MemoryDelivery(Options(Backend(DELIVERED)))
    for number in range(2):
        sending.record(str(number), ACME, b"{}")
        assert sending.flush(10)
        wait_for(lambda: not sending.running)
    assert counts(sending) == {"recorded": 2, "delivered": 2}
