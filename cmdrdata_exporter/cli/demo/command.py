"""`cmdrdata demo`: a small application's calls, each beside the span and the event it led to."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from importlib.metadata import entry_points, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from cmdrdata_exporter.cli.demo.report import show_application, show_result
from cmdrdata_exporter.cli.demo.result import DemoResult, split_output
from cmdrdata_exporter.cli.demo.standin import CmdrDataStandIn, OpenAIStandIn
from cmdrdata_exporter.cli.destination import all_of
from cmdrdata_exporter.cli.extras import require
from cmdrdata_exporter.cli.status import status_of
from cmdrdata_exporter.cli.terminal import Json, Terminal
from cmdrdata_exporter.cli.usage import usage_of
from cmdrdata_exporter.delivery.spool.directory import Directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

APPLICATION = Path(__file__).with_name("chat_app.py")
API_KEY = "tk-made-up-for-the-demo"
ACCOUNT = "demo"
EVENTS = "/api/events"
NAME = "cmdrdata"
OLDEST_OPENAI = (1, 26)
"""The first to take stream_options. The very oldest ignore OPENAI_BASE_URL, so no stand-in."""
TIMEOUT_SECONDS = 30
STDERR_TAIL_LINES = 15


@click.command()
@click.option("--live", is_flag=True, help="Call the real OpenAI; needs OPENAI_API_KEY.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def demo(live: bool, as_json: bool, command: tuple[str, ...]) -> None:
    """
    See each OpenAI call become a span and a usage event.

    Runs a small chat application under opentelemetry-instrument, against stand-ins for OpenAI and
    CmdrData on this machine. Needs no account and no network. Ends with status 0 if every call
    produced exactly one event.

    With a COMMAND, as in `cmdrdata demo -- opentelemetry-instrument python app.py`, runs that with
    the stand-in for OpenAI instead, and ends with its status; all other settings are yours.
    """
    if command:
        if live or as_json:
            raise click.UsageError("--live and --json are for the demo's own application only")
        sys.exit(run_program(command))
    require("demo", "openai", "opentelemetry.distro")
    installed = version("openai")
    if tuple(map(int, installed.split(".")[:2])) < OLDEST_OPENAI:
        oldest = ".".join(map(str, OLDEST_OPENAI))
        raise click.UsageError(
            f"openai {installed} is too old for the demo; run: pip install 'openai>={oldest}'"
        )
    if live and not os.environ.get("OPENAI_API_KEY"):
        raise click.UsageError("--live calls the real OpenAI: set OPENAI_API_KEY and try again.")

    source = APPLICATION.read_text(encoding="utf-8")
    steps = steps_of(source)
    if live:
        click.echo(f"--live: {len(steps)} small calls to OpenAI, paid with your key.", err=True)
    console = Terminal(page=True)
    if not as_json:
        show_application(console, source, live)
    outcome = run(steps, live)
    if as_json:
        click.echo(json.dumps(outcome.to_json(), indent=2))
    else:
        show_result(console, outcome, live, program())
    if outcome.faults:
        raise click.ClickException(
            "not every call produced exactly one event.\n"
            + "".join(f"  {fault}\n" for fault in outcome.faults)
            + _tail(outcome.stderr)
        )


def run_program(command: Sequence[str]) -> int:
    """Run a program whose OpenAI is the stand-in, and return its exit status, as a shell does."""
    with OpenAIStandIn() as openai:
        try:
            status = subprocess.call(command, env=with_openai(os.environ, openai.url))
        except OSError as error:
            raise click.UsageError(f"{command[0]} cannot be run: {error.strerror}") from None
    return 128 - status if status < 0 else status


def with_openai(caller: Mapping[str, str], url: str) -> dict[str, str]:
    """Return the caller's environment with another OpenAI, which no proxy comes between."""
    direct = ",".join(filter(None, (caller.get("NO_PROXY", caller.get("no_proxy")), "127.0.0.1")))
    return {
        **caller,
        **openai_settings(url),
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


def openai_settings(url: str) -> dict[str, str]:
    """Return the variables that lead openai to the stand-in."""
    return {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "sk-made-up"}


def program() -> str:
    """Return how this program is started, so that its reader can start it again."""
    started = Path(sys.argv[0])
    return str(started) if started.name == NAME and shutil.which(NAME) is None else NAME


def steps_of(source: str) -> list[str]:
    """Return the application's calls, which its source numbers in comments."""
    return re.findall(r"^\s*# (\d+\. .+)$", source, re.MULTILINE)


def run(steps: list[str], live: bool) -> DemoResult:
    """Run the application between stand-ins and gather what it printed and sent."""
    with ExitStack() as stack:
        cmdrdata = stack.enter_context(CmdrDataStandIn(API_KEY))
        openai = None if live else stack.enter_context(OpenAIStandIn())
        home = stack.enter_context(TemporaryDirectory(prefix="cmdrdata-demo-"))
        spool = Path(home, "spool")
        # Also of an application that meters nothing there is something to be said.
        Directory.prepare(spool, f"{cmdrdata.url}{EVENTS}", ACCOUNT)
        finished = run_application(
            home,
            environment(os.environ, cmdrdata.url, None if openai is None else openai.url, spool),
        )
        usage, status = ledger_of(spool)
    spans, printed = split_output(finished.stdout)
    return DemoResult.of(
        steps, spans, cmdrdata.events, printed, finished.stderr, usage=usage, status=status
    )


def ledger_of(spool: Path) -> tuple[Json, Json]:
    """Return what `cmdrdata usage --json` and `cmdrdata status --json` print of the application's events."""
    [destination] = all_of(spool)
    return usage_of(destination, ["customer"]), status_of(spool)


def environment(
    caller: Mapping[str, str], cmdrdata_url: str, openai_url: str | None, spool: Path
) -> dict[str, str]:
    """
    Return the caller's environment with the demo's settings in place of any of their own.

    Args:
        caller: the environment of this process.
        cmdrdata_url: where the stand-in backend listens.
        openai_url: where the stand-in OpenAI listens, None for the OpenAI of the caller.
        spool: where events are kept.
    """
    replaced = r"(OTEL|CMDRDATA)_" if openai_url is None else r"(OTEL|CMDRDATA|OPENAI)_|\w+_PROXY$"
    kept = {
        name: value for name, value in caller.items() if not re.match(replaced, name, re.IGNORECASE)
    }
    settings = {
        "CMDRDATA_API_KEY": API_KEY,
        "CMDRDATA_ENDPOINT": f"{cmdrdata_url}{EVENTS}",
        "CMDRDATA_ACCOUNT": ACCOUNT,
        "CMDRDATA_SPOOL_DIR": str(spool),
        "OTEL_TRACES_EXPORTER": "console,cmdrdata",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": _other_instrumentors(),
        "PYTHONIOENCODING": "utf-8",
    }
    if openai_url is not None:
        settings |= openai_settings(openai_url)
    return kept | settings


def run_application(home: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """
    Run the application under opentelemetry-instrument and wait for its end.

    It runs from a copy in `home`: a program's own directory comes first on its path, and in this
    one the commands could be mistaken for packages.

    Raises:
        click.ClickException: it failed, or took too long.
    """
    launcher = _launcher()
    shutil.copy(APPLICATION, home)
    try:
        finished = subprocess.run(
            [launcher, sys.executable, APPLICATION.name],
            cwd=home,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        # Bytes even in text mode: https://github.com/python/cpython/issues/87597
        stderr = (error.stderr or b"").decode(errors="replace")
        raise click.ClickException(
            f"the application did not end within {TIMEOUT_SECONDS} seconds.\n{_tail(stderr)}"
        ) from None
    if finished.returncode:
        raise click.ClickException(
            f"the application failed with status {finished.returncode}.\n{_tail(finished.stderr)}"
        )
    return finished


def _launcher() -> str:
    """Return the opentelemetry-instrument of this interpreter, or else the one on the PATH."""
    beside = Path(sys.executable).parent
    name = "opentelemetry-instrument"
    launcher = shutil.which(name, path=beside) or shutil.which(name)
    if launcher is None:
        raise click.ClickException(f"{name} is neither in {beside} nor on the PATH.")
    return launcher


def _other_instrumentors() -> str:
    """Name the other instrumentors installed here, whose spans would mix with the calls'."""
    return ",".join(
        sorted(
            point.name
            for point in entry_points(group="opentelemetry_instrumentor")
            if point.name != "cmdrdata"
        )
    )


def _tail(stderr: str) -> str:
    # How metering starts says nothing of what has failed.
    lines = [
        line
        for line in stderr.rstrip().splitlines()
        if not line.startswith("CmdrData usage metering: ")
    ]
    if not lines:
        return "It wrote nothing to its stderr."
    return "\n".join(["The end of its stderr:", *lines[-STDERR_TAIL_LINES:]])
