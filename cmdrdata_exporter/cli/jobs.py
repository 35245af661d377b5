"""`cmdrdata jobs`: jobs of the provider that were started here, and whose end nobody has asked for."""

from __future__ import annotations

import click
from rich.console import Console

from cmdrdata_exporter.attributes import CUSTOMER_ID
from cmdrdata_exporter.cli.changes import say_who_sends
from cmdrdata_exporter.cli.destination import Destination, on_destination, require_owner
from cmdrdata_exporter.cli.polling import POLL_WORDS, Asked, ask
from cmdrdata_exporter.cli.terminal import (
    ATTENTION,
    Json,
    Terminal,
    age,
    cell,
    customer,
    duration,
    moment,
    plural,
    print_json,
    say,
    table,
)
from cmdrdata_exporter.delivery.open_jobs import KEPT, OpenJob
from cmdrdata_exporter.delivery.spool.jobs import COUNTER
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader

NO_ID = "unknown"
"""Shown for the id of a job whose stream was left before it told one."""


@click.command()
@click.option(
    "--poll",
    is_flag=True,
    help="Ask the provider for each, with OPENAI_API_KEY, and record what has ended.",
)
@on_destination
def jobs(destination: Destination, *, poll: bool, as_json: bool) -> None:
    """
    List jobs whose end was not seen, and ask for them.

    Those are background responses, batches, runs, videos and the like. A job is charged when its
    end is seen. With --poll they are asked for, with the application's OPENAI_API_KEY at
    OPENAI_BASE_URL, and billed to whoever started them. Exits with status 1 if one could not be
    asked for.

    Example: cmdrdata jobs --poll
    """
    asked: dict[bytes, Asked] = {}
    if poll:
        require_owner(destination.directory.path)
        with LedgerReader(destination.directory) as ledger:
            found = ledger.open_jobs()
        asked = ask(destination.directory, found)
    with LedgerReader(destination.directory) as ledger:
        found = ledger.open_jobs()
        given_up = ledger.counts().get(COUNTER, 0)
    if as_json:
        document: Json = {
            "destination": destination.name,
            "jobs": [_document(job, asked.get(job.key)) for job in found],
            "given_up": given_up,
        }
        if poll:
            document["polled"] = len(asked)
            document["billed"] = sum(one.events for one in asked.values())
        print_json(document)
    else:
        if poll:
            _show_asked(destination, asked)
        _show(Terminal(), found, asked)
        if given_up:
            say(
                f"{plural(given_up, 'job')} not seen to end within {KEPT / 86400:.0f} days "
                "given up: not billed."
            )
    if any(one.failed for one in asked.values()):
        click.get_current_context().exit(ATTENTION)


def _document(job: OpenJob, asked: Asked | None) -> Json:
    document: Json = {
        "job": job.job_id,
        "endpoint": job.endpoint,
        "host": job.host,
        "path": job.path,
        "model": job.model,
        "customer": job.payer.get(CUSTOMER_ID),
        "started": moment(job.since),
        "age_seconds": int(age(moment(job.since))),
    }
    if asked is not None:
        document["polled"] = asked.outcome
    return document


def _show_asked(destination: Destination, asked: dict[bytes, Asked]) -> None:
    events = sum(one.events for one in asked.values())
    if not asked:
        return
    say(f"{plural(len(asked), 'job')} asked for, {plural(events, 'event')} recorded.")
    outcomes = [one.outcome for one in asked.values()]
    for outcome in dict.fromkeys(outcomes):
        if (words := POLL_WORDS.get(outcome)) is not None:
            say(f"{outcomes.count(outcome):,} {words}")
    if events:
        say_who_sends(destination)


def _show(console: Console, found: list[OpenJob], asked: dict[bytes, Asked]) -> None:
    if not found:
        console.print("No job of the provider is open.")
        return
    headers = ["Job", "Started", "Customer", "Model", "Endpoint"]
    shown = table(*headers, *(["Polled"] if asked else []))
    for column in shown.columns:
        column.overflow = "fold"
    shown.columns[1].no_wrap = True
    for job in found:
        row = [
            cell(job.job_id or NO_ID),
            cell(f"{duration(age(moment(job.since)))} ago"),
            customer(job.payer.get(CUSTOMER_ID)),
            cell(job.model),
            cell(job.endpoint),
        ]
        if asked:
            one = asked.get(job.key)
            row.append(cell(None if one is None else one.outcome))
        shown.add_row(*row)
    console.print(shown)
    if any(job.job_id is None for job in found):
        console.print()
        console.print(
            "unknown: the stream was left before it told the id; the job is billed when the "
            "application asks for it."
        )
