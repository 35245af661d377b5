"""Between the ledger and the wire: nothing is sent that may not be sent, and nothing in flight is forgotten."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery.relay import Relay
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from tests.faults.application import Application
from tests.faults.oracle import ACCEPTED, SILENCE, Oracle, Reply, Request


def test_what_waits_at_the_end_is_not_sent(tmp_path: Path, oracle: Oracle) -> None:
    """After the end nothing is sent: what waited for a sender is pending, and only what was under way is ambiguous."""
    with Application(tmp_path / "spool", oracle.url) as application:
        # Until then only a few are sent at once.
        application.call(10)
        application.wait_for(delivered=10)
        oracle.answer = lambda _: SILENCE
        application.call(100)
        oracle.wait_for_requests(42)
        application.delivery.shutdown(0.2)
        assert {"recorded": 110, "delivered": 10, "pending": 68, "in_flight": 32} == {
            name: number for name, number in application.counts().items() if number
        }
        oracle.answer = lambda _: ACCEPTED
        application.call()
        application.settled(oracle, ambiguous=32)
        assert (111, 0) == (len(oracle.accepted), oracle.duplicates)


def test_what_fails_after_the_commit(
    tmp_path: Path, oracle: Oracle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that were committed as being in flight are sent, even where what tidies up after it fails."""
    failed = threading.Event()
    real = Relay.tidy_up

    def tidy_up(relay: Relay, ledger: Ledger) -> None:
        if not failed.is_set():
            failed.set()
            raise sqlite3.OperationalError("database or disk is full")
        real(relay, ledger)

    monkeypatch.setattr(Relay, "tidy_up", tidy_up)
    with Application(tmp_path / "spool", oracle.url) as application:
        application.call(10)
        application.settled(oracle)
        assert failed.is_set()


def test_what_was_answered_before_the_end(tmp_path: Path, oracle: Oracle) -> None:
    """At the end what has been answered is committed, within the time there is; the rest is in flight."""
    with Application(tmp_path / "spool", oracle.url) as application:
        application.call(10)
        application.wait_for(delivered=10)
        answered: list[str] = []
        with_all_of_them = threading.Barrier(20)

        def answer(request: Request) -> Reply:
            with oracle.changed:
                answers = len(answered) < 10
                if answers:
                    answered.append(request.key)
            with_all_of_them.wait(10)
            return ACCEPTED if answers else SILENCE

        oracle.answer = answer
        application.call(20)
        oracle.wait_for_requests(30)
        began = time.monotonic()
        application.delivery.shutdown(0.5)
        assert time.monotonic() - began < 1.5
        assert {"recorded": 30, "delivered": 20, "in_flight": 10} == {
            name: number for name, number in application.counts().items() if number
        }
        oracle.answer = lambda _: ACCEPTED
        application.call()
        application.settled(oracle, ambiguous=10)
        assert (31, 0) == (len(oracle.accepted), oracle.duplicates)
