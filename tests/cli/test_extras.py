"""What a user reads who has not installed what a command needs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

from cmdrdata_exporter.cli import main
from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.cli.extras import require

PROGRAM = """\
import sys
sys.modules.update(dict.fromkeys(sys.argv.pop().split(",")))  # None there means: cannot be imported
from cmdrdata_exporter.cli import main
main()
"""


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        (
            "click",
            "cmdrdata: click not installed; "
            "run: pip install 'opentelemetry-instrumentation-cmdrdata[demo]'\n",
        ),
        (
            "click,rich",
            "cmdrdata: click and rich not installed; "
            "run: pip install 'opentelemetry-instrumentation-cmdrdata[demo]'\n",
        ),
        (
            "openai",
            "cmdrdata: openai not installed; "
            "run: pip install 'opentelemetry-instrumentation-cmdrdata[demo]'\n",
        ),
        (
            "openai,opentelemetry.distro",
            "cmdrdata: openai and opentelemetry.distro not installed; "
            "run: pip install 'opentelemetry-instrumentation-cmdrdata[demo]'\n",
        ),
    ],
)
def test_missing_extra_is_one_line(missing: str, line: str) -> None:
    """Status 2 and the command that helps, never a traceback."""
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, "demo", missing],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (2, "", line) == (finished.returncode, finished.stdout, finished.stderr)


def test_missing_extra_of_all_commands() -> None:
    """Without a command what all commands need is enough."""
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--help", "click"],
        capture_output=True,
        text=True,
        check=False,
    )
    line = (
        "cmdrdata: click not installed; "
        "run: pip install 'opentelemetry-instrumentation-cmdrdata[cli]'\n"
    )
    assert (2, "", line) == (finished.returncode, finished.stdout, finished.stderr)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The program tells its version."""
    monkeypatch.setattr("sys.argv", ["cmdrdata", "--version"])
    with pytest.raises(SystemExit) as end:
        main()
    installed = version("opentelemetry-instrumentation-cmdrdata")
    assert (0, f"cmdrdata {installed}\n") == (end.value.code, capsys.readouterr().out)


def test_module_of_a_missing_package_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """A module whose very package is absent is named like any other; what is there is not."""
    with pytest.raises(SystemExit) as end:
        require("x", "json", "nowhere_to_be_found.inside")
    line = (
        "cmdrdata: nowhere_to_be_found.inside not installed; "
        "run: pip install 'opentelemetry-instrumentation-cmdrdata[x]'\n"
    )
    assert (2, ("", line)) == (end.value.code, capsys.readouterr())


def test_with_everything_installed_the_group_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The console script leads to the group of all commands."""
    monkeypatch.setattr("sys.argv", ["cmdrdata", "--help"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main()
    assert 0 == end.value.code
    assert """
  Usage metering of AI calls: see it work, and look after it.

  The commands read the same environment variables as the application,
  CMDRDATA_SPOOL_DIR for instance.

  Exit status:
    0  all is well
    1  something needs you, or was not done in full
    2  the command or a setting cannot be used

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
  demo          See each OpenAI call become a span and a usage event.
  doctor        Find what would keep calls from being metered.
  status        Show where every event is, and what needs you.
  usage         Show the usage that was recorded.
  events        See what was recorded, and what became of each event.
  dashboard     Serve a page with usage over time, and where every event is.
  reconcile     Compare what was recorded with what OpenAI counts.
  dead-letters  See dead letters: events refused, expired or damaged.
  held          See events that wait for your decision.
  assign        Give held events a customer, and send them.
  replay        Send dead letters, ambiguous or local events again.
  flush         Deliver pending events now, and show what is left.
  drain         Deliver events until SIGTERM or SIGINT.
  gateway       Take spans and events of many hosts into one ledger.
  jobs          List jobs whose end was not seen, and ask for them.
""" == capsys.readouterr().out.partition("\n")[2]


def test_openai_too_old_for_the_demo_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is run: the oldest would ignore the stand-in's address and call the real OpenAI."""
    monkeypatch.setattr("cmdrdata_exporter.cli.demo.command.version", {"openai": "1.25.2"}.get)
    with pytest.raises(SystemExit) as end:
        cmdrdata(["demo"], prog_name="cmdrdata")
    assert 2 == end.value.code
    output = capsys.readouterr()
    assert "" == output.out
    assert output.err.endswith(
        "Error: openai 1.25.2 is too old for the demo; run: pip install 'openai>=1.26'\n"
    )


def test_a_python_without_sqlite() -> None:
    """Status 2 and the reason, since every command reads a ledger."""
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, "status", "_sqlite3"],
        # Measuring coverage takes SQLite.
        env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (2, "") == (finished.returncode, finished.stdout)
    (line,) = finished.stderr.splitlines()
    assert line.startswith(
        f"cmdrdata: {sys.executable} was built without SQLite, which the ledger of usage events needs ("
    )
