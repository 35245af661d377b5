"""What the drainer asks its database, so that a ledger of millions costs it no more than an empty one."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery import FOR_EVER, Header, Outcome, Verdict
from cmdrdata_exporter.delivery.drainer import Drainer, Options
from cmdrdata_exporter.delivery.spool import ledger
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.journal import Journal
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, encode_event, key_of

OUTCOMES = {
    "delivered": Outcome(Verdict.DELIVERED, "HTTP 201"),
    "remembered": Outcome(Verdict.DELIVERED, "HTTP 201"),
    "refused": Outcome(Verdict.REFUSED, "HTTP 400"),
    "later": Outcome(Verdict.RETRY, "HTTP 503", retry_after=3600.0),
}
"""What the backend answers to each event."""


def header(name: str) -> Header:
    """Return the header of an event."""
    remember = FOR_EVER if name == "remembered" else 0
    return Header("acme", "m", "chat.completions", "reported", {}, "2026-11-21", remember=remember)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that a ledger executes from now on, with its values."""
    executed: list[str] = []
    connect: Callable[[Directory], sqlite3.Connection] = ledger.connect

    def traced(directory: Directory) -> sqlite3.Connection:
        db = connect(directory)
        db.set_trace_callback(executed.append)
        return db

    monkeypatch.setattr(ledger, "connect", traced)
    return executed


def test_no_query_of_a_turn_scans_a_table(tmp_path: Path, statements: list[str]) -> None:
    """Import, sending, outcomes and upkeep find by an index what they need; only small tables are read whole."""
    directory = Directory.prepare(tmp_path / "spool", "http://127.0.0.1", "test")
    journal = Journal(directory)
    for name in OUTCOMES:
        journal.append(encode_event(name, header(name), b"{}"))
    journal.append(encode_command(Command("replay", (key_of("refused"),))))
    drainer = Drainer(
        directory, journal, Options(post=lambda event_id, body, timeout: OUTCOMES[event_id])
    )
    settled: set[str] = set()
    while "later" not in settled or drainer.relay.in_flight:
        drainer._turn()
        settled = {handed.id for handed, _ in drainer.relay.outcomes} | settled
    journal.seal()
    drainer._turn()
    drainer._end()
    with sqlite3.connect(directory.path / "ledger.db", isolation_level=None) as db:
        plans = {
            statement: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in statements
            if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE"))
        }
    db.close()
    assert {"SELECT", "INSERT", "UPDATE", "DELETE"} == {text.split()[0] for text in plans}
    # A scan for a minimum is called a search, of nothing.
    reads = [(text, line) for text, plan in plans.items() for line in plan]
    scans = {
        re.sub(r"[\d.]{8,}", "?", text)
        for text, line in reads
        if re.match(r"SCAN (?!CONSTANT ROW)|SEARCH (?!.* USING )", line)
    }
    sizes = {
        text
        for text in scans
        if re.fullmatch(r"SELECT sum\(40 [^()]*(\(\w+\)[^()]*)+\) FROM groups", text)
    }
    assert 1 == len(sizes)
    assert {
        "SELECT name, offset FROM journals",
        # It has one row.
        "SELECT seq FROM sqlite_sequence WHERE name = 'events'",
        "DELETE FROM jobs WHERE told < ?",
        "DELETE FROM jobs WHERE job = '' AND told < ?",
    } == scans - sizes


def test_what_journals_hold_is_counted_unread(tmp_path: Path) -> None:
    """Events that were not imported yet are counted by how their records begin; commands are none."""
    directory = Directory.prepare(tmp_path / "spool", "http://127.0.0.1", "test")
    journal = Journal(directory)
    for name in OUTCOMES:
        journal.append(encode_event(name, header(name), b"{}"))
    journal.append(encode_command(Command("drop", (key_of("refused"),))))
    journal.seal()
    with LedgerReader(directory) as reader:
        assert 4 == reader.not_imported()
