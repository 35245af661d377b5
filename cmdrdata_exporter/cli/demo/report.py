"""What `cmdrdata demo` shows a reader, at 80 columns and more, in a terminal or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.syntax import Syntax
from rich.text import Text

from cmdrdata_exporter.cli.status import show_status
from cmdrdata_exporter.cli.terminal import cell, customer, heading, plain, table
from cmdrdata_exporter.cli.usage import show_usage

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cmdrdata_exporter.cli.demo.result import DemoCall, DemoResult, Json, Span

COMMAND = """\
CMDRDATA_API_KEY=tk-...  CMDRDATA_ENDPOINT=http://127.0.0.1:.../api/events \\
OTEL_TRACES_EXPORTER=console,cmdrdata \\
OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none \\
opentelemetry-instrument python chat_app.py"""

SEEN = """\
Each call made one span, for your tracing tools, and one usage event, for the bill: the streamed
one and the failed one too. Every event says who pays, because the application said so with
customer_context(). None of them carries a prompt or a reply. Usage and status come from the ledger
on this machine's disk, where each event is kept until CmdrData has accepted it."""

STAND_INS = """\
OpenAI and CmdrData were stand-ins on this machine; replies and token counts are made up."""

LIVE = """\
OpenAI was the real one; CmdrData was a stand-in on this machine, so nothing was billed there."""

NEXT_STEPS = """\
In your code, where it is known who is asking:
    from cmdrdata_exporter import customer_context
    with customer_context("your-customer"):
In the shell that starts it, with opentelemetry-distro installed:
    export CMDRDATA_API_KEY=<your key> CMDRDATA_CUSTOMER_ID=<of other calls>
    export OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none
    OTEL_TRACES_EXPORTER=cmdrdata opentelemetry-instrument python your_app.py
Beside an OTLP pipeline that you already have:
    OTEL_TRACES_EXPORTER=otlp,cmdrdata
Every event whole, as JSON:
    {program} demo --json"""

TRY_LIVE = """\
This demo again, with the real OpenAI and your OPENAI_API_KEY:
    {program} demo --live"""


def show_application(console: Console, source: str, live: bool) -> None:
    """Show what is about to run, and how."""
    openai = "the real OpenAI" if live else "a stand-in for OpenAI"
    heading(console, "The application")
    console.print(_code(source.rstrip(), "python"))
    heading(console, "The command")
    console.print(
        f"Nothing in the application starts the metering; opentelemetry-instrument does.\n"
        f"Here it talks to {openai} and to a stand-in for CmdrData:\n"
    )
    console.print(_code(COMMAND, "bash"))


def show_result(
    console: Console, outcome: DemoResult, live: bool, program: str = "cmdrdata"
) -> None:
    """Show what the run printed, the calls, the totals, and where to go from here with `program`."""
    heading(console, "What the application printed")
    console.print(Text(plain(outcome.printed.rstrip(), keep="\n")))
    heading(console, "Each call, its span and its event")
    console.print(_calls(outcome))
    heading(console, "Usage per customer: cmdrdata usage")
    show_usage(console, outcome.usage)
    heading(console, "Where every event is: cmdrdata status")
    show_status(console, outcome.status)
    if outcome.faults:
        return
    heading(console, "What you just saw")
    console.print(" ".join(SEEN.split()))
    console.print(LIVE if live else STAND_INS)
    heading(console, "Next steps")
    steps = NEXT_STEPS if live else f"{NEXT_STEPS}\n{TRY_LIVE}"
    # A path is one word, however narrow the terminal.
    console.print(Text(steps.format(program=program)), soft_wrap=True)


def _code(source: str, language: str) -> Syntax:
    # The terminal's own colours, so that it reads on dark and on light ones.
    return Syntax(source, language, theme="ansi_dark", background_color="default", word_wrap=True)


def _calls(outcome: DemoResult) -> Table:
    shown = table("The call", "Its span")
    # The other two wrap instead, where there is little room: they lose nothing by it.
    shown.add_column("The event at CmdrData", no_wrap=True)
    shown.show_lines = True
    for call in outcome.calls:
        shown.add_row(Text(call.step), _span(call.span), _events(call))
    for event in outcome.strays:
        shown.add_row("", _missing("no span"), _event(event))
    return shown


def _span(span: Span | None) -> Text:
    if span is None:
        return _missing("no span")
    return Text(f"{plain(span.name)}\n{span.span_id}\n{span.duration_ms} ms")


def _events(call: DemoCall) -> Text:
    if not call.events:
        return _missing("no event")
    return Text("\n\n").join(map(_event, call.events))


def _missing(what: str) -> Text:
    return Text(what, style="bold red")


def _event(event: Json) -> Text:
    """Say who pays, for which model, how many tokens, and how the call ended."""
    usage = event["metadata"].get("usage", {})
    lines = [
        Text.assemble(customer(event["customer_id"]), ", ", cell(event["model"])),
        _tokens(event["input_tokens"], "in", usage, cached="cache_read_input_tokens"),
        _tokens(event["output_tokens"], "out", usage, reasoning="reasoning_output_tokens"),
        *_ending(event),
    ]
    return Text("\n").join(line for line in lines if line)


def _tokens(total: int, direction: str, usage: Json, **parts: str) -> Text:
    """Say a total and its parts; nothing of 0, which stands for unknown too: the status tells."""
    said = [f"{total:,} {direction}"] if total else []
    for name, field in parts.items():
        if usage.get(field):
            said.append(f"{usage[field]:,} of them {name}")
    return Text(", ".join(said))


def _ending(event: Json) -> list[Text]:
    """Say whether the call succeeded and whether its usage is known."""
    usage = f"usage {event['metadata']['usage_status']}"
    if event["request"]["success"]:
        return [Text(f"succeeded, {usage}", style="green")]
    error = event["error"]
    code = f" ({error['code']})" if error["code"] else ""
    return [cell(f"failed: {error['type']}{code}", "yellow"), cell(usage)]
