"""A backend that misbehaves, in whatever way, gets every event and gets it as often as must be."""

from __future__ import annotations

import email.utils
import itertools
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.application import Application, until
from tests.faults.oracle import (
    ACCEPTED,
    ACCEPTED_AND_RESET,
    ACCEPTED_UNSEEN,
    SILENCE,
    Oracle,
    Reply,
    Request,
    Then,
)

Answer = Callable[[Request], Reply]
YES = (200, 201, 202, 204, 409)
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
IN_FLIGHT = 32
"""How many attempts may be under way together."""


def first(*replies: Reply) -> Answer:
    """Answer the first requests so, those that follow as they should be."""
    answers = itertools.chain(replies, itertools.repeat(ACCEPTED))
    taking = threading.Lock()

    def answer(_: Request) -> Reply:
        with taking:
            return next(answers)

    return answer


def once(reply: Reply, *, each: int = 1) -> Answer:
    """Answer the first attempt of every so many events so, the others as they should be."""
    number = itertools.count()
    return lambda request: reply if request.attempt == 0 and next(number) % each == 0 else ACCEPTED


def test_nothing_goes_wrong(oracle: Oracle, application: Application) -> None:
    """With a backend that takes 20 ms for each, every event arrives once."""
    oracle.answer = lambda _: Reply(delay=0.02)
    application.call(2000)
    application.settled(oracle)
    assert 0 == oracle.duplicates


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after(oracle: Oracle, application: Application, status: int, kind: str) -> None:
    """While a backend asks for patience it gets no request, whatever was to be sent; then it gets all of it."""
    asked: list[float] = []

    def answer(request: Request) -> Reply:
        if asked:
            return ACCEPTED
        asked.append(request.at)
        # A date has no fractions: one second and a part of the next.
        date = email.utils.formatdate(time.time() + 2, usegmt=True)
        return Reply(status, {"Retry-After": "1" if kind == "seconds" else date})

    oracle.answer = answer
    application.call()
    oracle.wait_for_requests(1)
    application.wait_for(pending=1, in_flight=0)
    application.call(100)
    application.settled(oracle)
    assert 1.0 <= min(request.at for request in oracle.requests[1:]) - asked[0] < 4
    assert 0 == oracle.duplicates


@pytest.mark.parametrize("value", ["past", "garbage", "-5", "0"])
def test_retry_after_that_asks_for_nothing(
    oracle: Oracle, application: Application, value: str
) -> None:
    """A time that has passed, or is none, holds nothing up."""
    value = "Tue, 14 Nov 2023 22:13:19 GMT" if value == "past" else value
    oracle.answer = first(Reply(429, {"Retry-After": value}))
    application.call(50)
    application.settled(oracle)
    assert 0 == oracle.duplicates


def test_retry_after_for_ever(oracle: Oracle, application: Application) -> None:
    """A backend that asks for thirty years gets an hour, and the events stay."""
    oracle.answer = lambda _: Reply(503, {"Retry-After": "1000000000"})
    application.call()
    application.wait_for(pending=1, in_flight=0)
    until(lambda: application.delivery.drainer.gate.delay() > 0)
    application.call(99)
    application.wait_for(pending=100, in_flight=0)
    assert 3590 < application.delivery.drainer.gate.delay() <= 3600
    assert 1 == oracle.received
    # The end of the process does not wait for it.
    began = time.monotonic()
    application.delivery.shutdown(5)
    assert time.monotonic() - began < 2
    assert {"recorded": 100, "pending": 100} == nonzero(application)


def nonzero(application: Application) -> dict[str, int]:
    """Return the states in which there are events."""
    return {name: number for name, number in application.counts().items() if number}


def test_errors_at_random(oracle: Oracle, application: Application) -> None:
    """What a backend answers with an error, and has not accepted, comes again until it is accepted, and no more."""
    chance = random.Random(20)
    failed: Counter[int] = Counter()
    counting = threading.Lock()

    def answer(request: Request) -> Reply:
        with counting:
            if chance.random() >= 0.3:
                return ACCEPTED
            status = chance.choice([500, 502, 503, 504, 408])
            failed[status] += 1
        return Reply(status)

    oracle.answer = answer
    application.call(300)
    oracle.wait_for_accepted(250)
    oracle.answer = lambda _: ACCEPTED
    application.settled(oracle, ambiguous=failed.total() - failed[503])
    assert 0 == oracle.duplicates


def test_a_key_that_is_refused(oracle: Oracle, tmp_path: Path) -> None:
    """While the key is refused few requests are made and nothing is lost; a mended key is found without a restart."""
    old, new = "tk-old-456789abcdefghij", "tk-new-456789abcdefghij"
    key = tmp_path / "key"
    key.write_text(old)

    def answer(request: Request) -> Reply:
        known = request.headers["authorization"] == f"Bearer {new}"
        return ACCEPTED if known else Reply(401)

    oracle.answer = answer
    variables = {"CMDRDATA_API_KEY": "", "CMDRDATA_API_KEY_FILE": str(key)}
    with Application(
        tmp_path / "spool", oracle.url, **variables, CMDRDATA_PROBE_INTERVAL="1"
    ) as application:
        application.call(200)
        oracle.wait_for_requests(1)
        began = time.monotonic()
        # Two probes, of which each comes later than the one before.
        oracle.wait_for(lambda oracle: oracle.requests[-1].at - began > 2)
        assert oracle.received <= IN_FLIGHT + 3
        application.wait_for(pending=200, in_flight=0)
        key.write_text(new)
        application.settled(oracle)
        assert 0 == oracle.duplicates


def test_events_that_are_refused(oracle: Oracle, application: Application) -> None:
    """Only events that are refused are set aside, none waits behind them, and a replay bills each once."""
    ids = [os.urandom(16).hex() for _ in range(600)]
    refused = dict(zip(ids[::100], itertools.cycle([400, 413, 422])))
    oracle.answer = lambda request: (
        Reply(refused[request.key]) if request.key in refused else ACCEPTED
    )
    application.record(*ids)
    application.settled(oracle, dead=6)
    expected = {key: f"HTTP {status}: {{}}" for key, status in refused.items()}
    assert expected == application.kept("dead")
    assert 600 == oracle.received
    oracle.answer = lambda _: ACCEPTED
    application.command("replay", *refused)
    application.settled(oracle, replayed=len(refused))
    assert 0 == oracle.duplicates
    # Asked for once more, they are known.
    application.command("replay", *refused)
    application.call()
    application.settled(oracle, replayed=len(refused))
    assert 0 == oracle.duplicates


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("reply", [Reply(500), SILENCE], ids=["500", "no answer"])
def test_a_poisonous_share(
    oracle: Oracle,
    application: Application,
    monkeypatch: pytest.MonkeyPatch,
    reply: Reply,
    share: float,
) -> None:
    """Events that fail whenever they come hold up no other one, however many they are, and are no trouble."""
    if reply is SILENCE:
        monkeypatch.setattr("cmdrdata_exporter.delivery.senders.ATTEMPT_TIMEOUT", 0.2)
    chance = random.Random(18)
    ids = [os.urandom(16).hex() for _ in range(500)]
    poisonous = {event_id for event_id in ids if chance.random() < share}
    oracle.answer = lambda request: reply if request.key in poisonous else ACCEPTED
    application.record(*ids)
    oracle.wait_for_accepted(len(ids) - len(poisonous))
    # All that fails has failed by now, and comes again and again.
    oracle.wait_for(lambda oracle: len({request.key for request in oracle.requests}) == len(ids))
    began = time.monotonic()
    application.call(500)
    oracle.wait_for_accepted(len(ids) - len(poisonous) + 500)
    assert time.monotonic() - began < 5
    assert not application.delivery.drainer.gate.in_trouble
    # Mended, all of it arrives.
    oracle.answer = lambda _: ACCEPTED
    application.wait_for(delivered=1000, pending=0, in_flight=0, dead=0)
    assert 1000 == len(oracle.keys)
    # In so short a time a busy host may not get an answer that is given, either.
    assert oracle.duplicates == 0 or reply is SILENCE


@pytest.mark.parametrize("status", [403, 406, 431, 451])
def test_a_firewall(oracle: Oracle, application: Application, status: int) -> None:
    """Events that a firewall dislikes are set aside, each with its reason, and the others do not wait for them."""
    ids = [os.urandom(16).hex() for _ in range(400)]
    disliked = set(ids[::20])
    blocked = Reply(status, body=b"<html>\n<h1>Request blocked</h1>")
    oracle.answer = lambda request: blocked if request.key in disliked else ACCEPTED
    application.record(*ids)
    oracle.wait_for_accepted(len(ids) - len(disliked))
    # Each is tried again once another event has passed.
    while application.counts()["dead"] < len(disliked):
        application.call(5)
        oracle.wait_for(lambda oracle: set(application.ids) - disliked <= oracle.keys)
    application.settled(oracle, dead=len(disliked))
    expected = dict.fromkeys(disliked, f"HTTP {status}: <html> <h1>Request blocked</h1>")
    assert expected == application.kept("dead")
    oracle.answer = lambda _: ACCEPTED
    application.command("replay", *disliked)
    application.settled(oracle, replayed=len(disliked))
    assert 0 == oracle.duplicates


def test_an_account_that_is_forbidden(oracle: Oracle, tmp_path: Path) -> None:
    """Where everything is forbidden little is sent, nothing is given up, and a mended account is found."""
    oracle.answer = lambda _: Reply(403, body=b"account suspended")
    with Application(tmp_path / "spool", oracle.url, CMDRDATA_PROBE_INTERVAL="1") as application:
        application.call(200)
        until(lambda: application.delivery.drainer.gate.paused)
        assert application.delivery.drainer.gate.reason == "HTTP 403: account suspended"
        before = oracle.received
        assert before <= IN_FLIGHT + 8
        oracle.wait_for(lambda oracle: oracle.received >= before + 3)
        oracle.answer = lambda _: ACCEPTED
        application.settled(oracle)
        assert 0 == oracle.duplicates


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/json"])
def test_a_portal(oracle: Oracle, tmp_path: Path, content_type: str) -> None:
    """A page that answers in the backend's place with 200 has taken nothing: all is kept until it is gone."""
    page = b"<!DOCTYPE html><title>Sign in</title>"
    oracle.answer = lambda _: Reply(
        200, {"Content-Type": content_type, "Content-Length": str(len(page))}, page, accepts=False
    )
    with Application(tmp_path / "spool", oracle.url, CMDRDATA_PROBE_INTERVAL="1") as application:
        application.call(20)
        until(lambda: application.delivery.drainer.gate.paused)
        assert "HTTP 200 with a web page" in (application.delivery.drainer.gate.reason or "")
        oracle.answer = lambda _: ACCEPTED
        application.settled(oracle)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(ACCEPTED_UNSEEN, id="closed without a word"),
        pytest.param(ACCEPTED_AND_RESET, id="reset within the reply"),
        pytest.param(Reply(500, accepts=True), id="a lie"),
        pytest.param(
            Reply(accepts=True, raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n", then=Then.CLOSE), id="garbage"
        ),
    ],
)
def test_accepted_unseen(oracle: Oracle, application: Application, reply: Reply) -> None:
    """What may have been accepted is sent again, the same bytes under the same key, and is counted."""
    oracle.answer = once(reply, each=10)
    application.call(200)
    application.settled(oracle, ambiguous=20)
    assert 20 == oracle.duplicates


@pytest.mark.parametrize("reply", [ACCEPTED_UNSEEN, ACCEPTED_AND_RESET, Reply(504, accepts=True)])
def test_ambiguous_events_are_held(oracle: Oracle, tmp_path: Path, reply: Reply) -> None:
    """Whoever prefers it decides on each event that may have been accepted; nothing is sent twice by itself."""
    oracle.answer = once(reply, each=10)
    with Application(tmp_path / "spool", oracle.url, CMDRDATA_AMBIGUOUS="hold") as application:
        application.call(100)
        application.wait_for(delivered=90, held=10, pending=0, in_flight=0)
        assert (100, 0) == (len(oracle.keys), oracle.duplicates)
        held = application.kept("held")
        assert {"ambiguous"} == set(held.values())
        application.command("replay", *held)
        application.settled(oracle, ambiguous=10, replayed=10)
        assert 10 == oracle.duplicates


@pytest.mark.parametrize("then", [Then.CLOSE, Then.RESET])
def test_connections_that_do_not_last(oracle: Oracle, application: Application, then: Then) -> None:
    """A backend that closes its connections unannounced, each after one reply, loses and doubles nothing by it."""
    oracle.answer = lambda _: Reply(then=then)
    application.call(300)
    application.wait_for(delivered=300, pending=0, in_flight=0)
    counts = application.counts()
    assert set(application.ids) == oracle.keys
    # A reset may overtake the reply before it.
    assert oracle.duplicates <= counts["ambiguous"]
    assert set() == oracle.altered


def test_a_connection_that_ends_when_it_is_used_again(
    oracle: Oracle, application: Application
) -> None:
    """A request on a connection that has just ended may have arrived: it is sent again, and counted."""
    oracle.answer = lambda request: (
        Reply(accepts=False, raw=b"", then=Then.CLOSE) if request.turn else ACCEPTED
    )
    application.call(50)
    oracle.wait_for(lambda oracle: oracle.received > len(oracle.accepted))
    oracle.answer = lambda _: ACCEPTED
    application.wait_for(delivered=50, pending=0, in_flight=0)
    assert (50, 0) == (len(oracle.accepted), oracle.duplicates)
    assert oracle.received - 50 == application.counts()["ambiguous"] > 0


@pytest.mark.parametrize(
    "reply",
    [
        *(pytest.param(Reply(status, accepts=True), id=str(status)) for status in YES),
        pytest.param(Reply(before=b"HTTP/1.1 100 Continue\r\n\r\n"), id="100"),
        pytest.param(Reply(before=b"HTTP/1.1 102 Processing\r\n\r\n"), id="102"),
        pytest.param(Reply(before=HINTS * 2), id="103 twice"),
        pytest.param(Reply(headers={"Content-Length": "9"}, then=Then.CLOSE), id="truncated body"),
        pytest.param(Reply(body=b"x" * 200_000), id="long body"),
    ],
)
def test_ways_to_say_yes(oracle: Oracle, application: Application, reply: Reply) -> None:
    """A status that means that the event is there is the verdict, whatever comes before and after it."""
    oracle.answer = lambda _: reply
    application.call(50)
    application.settled(oracle)
    assert (50, 0) == (oracle.received, oracle.duplicates)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(302, {"Location": "/login"}), id="302"),
        pytest.param(Reply(308, {"Location": "/elsewhere"}), id="308"),
        pytest.param(Reply(404), id="404"),
        pytest.param(Reply(101, {"Upgrade": "h2c"}), id="101"),
    ],
)
def test_answers_of_something_else(oracle: Oracle, tmp_path: Path, reply: Reply) -> None:
    """What is not the backend accepts nothing: no redirect is followed, and all is kept until there is a success."""
    oracle.answer = lambda _: reply
    with Application(tmp_path / "spool", oracle.url, CMDRDATA_PROBE_INTERVAL="1") as application:
        application.call(1)
        oracle.wait_for_requests(1)
        application.wait_for(pending=1, in_flight=0)
        assert application.delivery.drainer.gate.paused
        assert {"recorded": 1, "pending": 1} == nonzero(application)
        oracle.answer = lambda _: ACCEPTED
        application.settled(oracle)
        assert (1, 0) == (len(oracle.accepted), oracle.duplicates)


def test_an_answer_before_the_answer(oracle: Oracle, application: Application) -> None:
    """The answer that follows an interim one belongs to the same request, and to no other on that connection."""
    refused = once(Reply(503, before=HINTS, delay=0.01), each=3)
    oracle.answer = lambda request: replace(refused(request), before=HINTS, delay=0.01)
    application.call(90)
    application.settled(oracle)
    assert (90, 120) == (len(oracle.accepted), oracle.received)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1 20",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"<html>captive portal</html>\r\n",
        b"\x16\x03\x01\x00\xa5",
    ],
)
def test_garbage(oracle: Oracle, application: Application, raw: bytes) -> None:
    """What is no answer says nothing: the event may have been accepted, and is sent again until a status says so."""
    oracle.answer = once(Reply(accepts=False, raw=raw, then=Then.CLOSE))
    application.call(20)
    application.settled(oracle, ambiguous=20)
    assert 0 == oracle.duplicates
