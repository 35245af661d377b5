"""`cmdrdata doctor`: check a host and an environment before an application is deployed there."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

import click

from cmdrdata_exporter import clocks
from cmdrdata_exporter.cli.destination import (
    Place,
    Refusal,
    fleet,
    json_option,
    ledger_option,
    spool_option,
)
from cmdrdata_exporter.cli.doctor import backend, environment, ledger, spool
from cmdrdata_exporter.cli.doctor.findings import SEVERITIES, Finding
from cmdrdata_exporter.cli.doctor.probe import here
from cmdrdata_exporter.cli.terminal import (
    ATTENTION,
    Json,
    Terminal,
    cell,
    plural,
    print_json,
)
from cmdrdata_exporter.settings import ConfigurationError, Settings, spool_directory
from opentelemetry_instrumentation_cmdrdata import preflight

PROBE_TIMEOUT = 60.0
"""Seconds that another Python may take to look around."""
INSTRUMENT = "opentelemetry-instrument"
NARROWEST = 20
"""Columns for a text, also where the terminal says that it has fewer."""
_COLORS = {"error": "red", "warning": "yellow", "note": "dim"}


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--strict", is_flag=True, help="Exit with status 1 for warnings, too.")
@click.option("--offline", is_flag=True, help="Leave the endpoint alone.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1, max=300.0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="The longest that the endpoint may take.",
)
@spool_option
@ledger_option
@json_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def doctor(
    *,
    strict: bool,
    offline: bool,
    timeout: float,
    spool: Path | None,
    url: str | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """
    Find what would keep calls from being metered.

    And what would keep events from being delivered. Looks at versions, settings, the endpoint, the
    spool directory, and at what else observes the same calls. With a COMMAND after `--`, it looks
    with the Python that runs the command, which is not run. The endpoint is asked by one GET, which
    records nothing. Exits with status 1 for errors.

    Example: cmdrdata doctor -- opentelemetry-instrument python app.py
    """
    place = fleet(url, spool)
    findings = findings_of(command, spool, place, timeout=None if offline else timeout)
    found = _document(findings)
    if as_json:
        print_json(found)
    else:
        _show(Terminal(), findings, offline=offline)
    if found["errors"] or (strict and found["warnings"]):
        click.get_current_context().exit(ATTENTION)


def findings_of(
    command: Sequence[str] = (),
    spool_dir: Path | None = None,
    place: Place | None = None,
    *,
    timeout: float | None,
) -> list[Finding]:
    """
    Return what all checks find, the worst first.

    Args:
        command: of the application; empty where it runs with this Python.
        spool_dir: the spool directory, where that is not the environment's.
        place: the ledger of a fleet, where there is one.
        timeout: seconds that the endpoint may take; None asks it nothing.
    """
    found = _probed(command) if command else environment.check(here([]))
    try:
        settings = Settings.read(spool_dir=spool_dir)
    except ConfigurationError:
        pass  # The checks of the environment have said so.
    else:
        if settings.enabled:
            found += spool.check(settings, spool_dir or spool_directory())
            if timeout is not None:
                found += backend.check(settings, timeout=timeout, now=clocks.wall())
    if place is not None and timeout is not None:
        found += ledger.check(place)
    order = list(SEVERITIES)
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _probed(command: Sequence[str]) -> list[Finding]:
    """Return what the Python of a command finds."""
    arguments = command[1:] if Path(command[0]).name == INSTRUMENT else command
    # opentelemetry-instrument becomes the program that it is given, so its own Python tells nothing.
    program = preflight.command_of(arguments)
    if not program:
        raise Refusal(f"{INSTRUMENT} is given no program to run")
    python = python_of(program[0])
    probe = [python, "-m", "cmdrdata_exporter.cli.doctor.probe", *arguments]
    try:
        done = subprocess.run(
            probe,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT,
            check=False,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = f"it takes longer than {PROBE_TIMEOUT:g} s"
        return [_not_looked(probe, type(error).__name__ if isinstance(error, OSError) else why)]
    # What is installed there may print something of its own, before or after.
    printed = (line for line in reversed(done.stdout.splitlines()) if line.startswith("["))
    try:
        return [Finding(**finding) for finding in json.loads(next(printed, ""))]
    except (ValueError, TypeError):
        # Without a word it is a Python that has printed something else, as an older version may.
        if done.returncode and "No module named" not in done.stderr:
            return [_not_looked(probe, f"it ends with status {done.returncode}")]
    return [
        Finding.error(
            "not-installed",
            f"{python} has no opentelemetry-instrumentation-cmdrdata of this version.",
            f"Run {shlex.quote(python)} -m pip install 'opentelemetry-instrumentation-cmdrdata[instruments]'.",
        )
    ]


def _not_looked(probe: Sequence[str], why: str) -> Finding:
    return Finding.error(
        "not-looked-at",
        f"{probe[0]} could not look around: {why}.",
        f"See what it says: {shlex.join(probe)}.",
    )


def python_of(program: str) -> str:
    """
    Return the Python that runs a program: itself, or the one that its first line names.

    Raises:
        Refusal: there is no such program, or no Python runs it.
    """
    path = shutil.which(program)
    if path is None:
        raise Refusal(f"{program!r} is no program that can be run")
    if Path(path).name.startswith(("python", "pypy")):
        return path
    try:
        with Path(path).open("rb") as file:
            first = file.readline(1024).decode("utf-8", "replace").strip()
    except OSError:
        first = ""
    words = first.removeprefix("#!").split() if first.startswith("#!") else []
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    if not words or not Path(words[0]).name.startswith(("python", "pypy")):
        raise Refusal(f"{program!r} is not run by Python; name the Python and the program")
    return shutil.which(words[0]) or words[0]


def _document(findings: Sequence[Finding]) -> Json:
    """Return what `cmdrdata doctor --json` prints."""
    count = {
        severity: sum(finding.severity == severity for finding in findings)
        for severity in SEVERITIES
    }
    return {
        **{f"{severity}s": number for severity, number in count.items()},
        "findings": [finding._asdict() for finding in findings],
    }


def _show(console: Terminal, findings: Sequence[Finding], *, offline: bool) -> None:
    for severity in SEVERITIES:
        for finding in findings:
            if finding.severity != severity:
                continue
            console.print(cell(f"{severity}: {finding.id}", f"bold {_COLORS[severity]}"))
            for text in (finding.what, finding.remedy):
                width = max(NARROWEST, console.width - 2)
                for line in textwrap.wrap(text, width, break_on_hyphens=False):
                    console.print(cell(f"  {line}"))
            console.print()
    looked = "versions, settings, other instrumentations, the spool directory"
    console.print(cell(f"Checked: {looked}{'' if offline else ', the endpoint'}."))
    counts = [
        plural(number, severity)
        for severity in SEVERITIES
        if (number := sum(finding.severity == severity for finding in findings))
    ]
    console.print(cell(f"Found: {', '.join(counts)}." if counts else "Nothing to do."))
