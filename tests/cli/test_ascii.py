"""The commands on terminals that show ASCII only, or another encoding that is not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.ledgers import AMBIGUOUS, REFUSED, fill, record

TERMINALS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
COMMANDS = [
    ("status",),
    ("usage", "--by", "customer,model"),
    ("dead-letters", "list"),
    ("held", "list"),
    ("events", "list"),
    ("events", "show", "é"),
    ("events", "export"),
    ("dead-letters", "show", "0"),
    ("usage", "--destination", "é"),
    ("--help",),
    ("drain", "--help"),
]


PROGRAM = """
import json, sys
from cmdrdata_exporter.cli import main

for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as end:
        assert end.code in (0, 1, 2)
"""


def run(*commands: tuple[str, ...], **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run commands in a process whose terminal is what the environment says."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LC_", "LANG", "PYTHONIO", "PYTHONUTF8"))
    }
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(commands)],
        env={**kept, "COLUMNS": "80", **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def used(remote: Directory) -> Directory:
    """A ledger in which customers and models have names in several scripts."""
    fill(
        remote,
        [
            record(1, "Müller"),
            record(2, "客"),
            record(3, None),
            record(4, model="modèle"),
            record(5, model="a model that no line has room for"),
        ],
        [REFUSED, AMBIGUOUS],
    )
    return remote


@pytest.mark.parametrize("terminal", TERMINALS, ids=str)
def test_ascii(terminal: dict[str, str], used: Directory) -> None:
    """No command fails, and none prints what such a terminal does not show."""
    done = run(*COMMANDS, **terminal)
    assert 0 == done.returncode, done.stderr
    assert (done.stdout + done.stderr).isascii()
    for text in (b"Needs you", b"Total", b"HTTP 400", b"no customer"):
        assert text in done.stdout


def test_what_is_shown(used: Directory) -> None:
    """A table has a line of hyphens, and what is not ASCII stands as its escape, in columns that are straight."""
    done = run(("usage",), PYTHONIOENCODING="ascii")
    lines = [line.rstrip() for line in done.stdout.decode().splitlines()]
    assert [
        "                        Input   Output    Total",
        "Customer      Events   tokens   tokens   tokens",
        "-----------------------------------------------",
        "M\\xfcller          1    1,000       20    1,020",
    ] == [lines[index] for index in (0, 1, 2, 3)]


def test_utf_8_where_nothing_is_said(used: Directory) -> None:
    """In a container without a locale Python writes UTF-8, and so do the commands."""
    assert "Müller" in run(("usage",)).stdout.decode()
    assert "Müller" in run(("usage",), LC_ALL="C", PYTHONIOENCODING="utf-8").stdout.decode()


def test_another_encoding(used: Directory) -> None:
    """What an encoding has is shown, what it lacks is escaped."""
    shown = run(("usage",), PYTHONIOENCODING="latin-1").stdout.decode("latin-1")
    assert "Müller" in shown
    assert "\\u5ba2" in shown


def test_a_file(used: Directory) -> None:
    """What is meant for a file is UTF-8 everywhere, so that no id becomes another one."""
    written = run(("usage", "--csv"), ("usage", "--focus"), LC_ALL="C").stdout.decode()
    assert "\nMüller,events,1\n" in written
    assert "modèle/input_tokens" in written
