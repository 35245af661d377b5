"""The words for the states of an event: one place has them, and every output uses them."""

from __future__ import annotations

import re

import pytest

from cmdrdata_exporter.cli import states
from cmdrdata_exporter.delivery.spool import ledger
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.cli.conftest import Run
from tests.ledgers import AMBIGUOUS, REFUSED, fill, record


def test_every_state_has_a_word() -> None:
    """The ledger's states have a word each, and so have the two of which it keeps a count only."""
    assert {*ledger.STATES, "delivered", "dropped"} == set(states.STATES)
    assert states.NO_CUSTOMER == ledger.UNATTRIBUTED


def test_help_has_every_state(run: Run) -> None:
    """`status --help` says what each state means, in one line of a terminal of 80 columns."""
    shown = run("status", "--help").stdout
    for name, meaning in states.STATES.items():
        assert re.search(rf"^  +{states.word(name)} +{re.escape(meaning)}$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("group", "rows"),
    [
        (
            "held",
            " ID             Reason        Customer      Model\n"
            "───────────────────────────────────────────────────────\n"
            " 000200000000   ambiguous     acme          gpt-5-mini\n"
            " 000300000000   no customer   no customer   gpt-5-mini\n",
        ),
        (
            "dead-letters",
            " ID             Reason     Customer   Model\n"
            "─────────────────────────────────────────────────\n"
            " 000100000000   HTTP 400   acme       gpt-5-mini\n",
        ),
    ],
)
def test_a_narrow_terminal(
    group: str, rows: str, remote: Directory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 60 columns a list leaves out the time, so that no word is broken."""
    fill(remote, [record(1), record(2), record(3, None)], [REFUSED, AMBIGUOUS], hold_ambiguous=True)
    monkeypatch.setenv("COLUMNS", "60")
    assert rows == run(group, "list").stdout
