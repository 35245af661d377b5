"""`cmdrdata replay`: dead letters and ambiguous events are sent again, local ones for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace as changed
from pathlib import Path

import click

from cmdrdata_exporter import clocks
from cmdrdata_exporter.cli.changes import (
    by_ids,
    change,
    end,
    events_in,
    report,
    say_who_sends,
)
from cmdrdata_exporter.cli.days import day_option
from cmdrdata_exporter.cli.destination import (
    TIMEOUT,
    Destination,
    Place,
    Refusal,
    chosen,
    fleet,
    ledger_option,
    location_options,
    place,
    prepared,
    require_owner,
    settings_of,
    spool_path,
)
from cmdrdata_exporter.cli.states import DEAD_LETTER
from cmdrdata_exporter.cli.terminal import plural, print_json, say
from cmdrdata_exporter.delivery import FOR_EVER, Event, cause
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import LOCAL, Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import encode_event, key_of
from cmdrdata_exporter.delivery.spool.schema import AMBIGUOUS


@click.command()
@click.argument("event_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every dead letter.")
@click.option(
    "--reason", metavar="REASON", help="Dead letters with this reason, 'HTTP 400' for instance."
)
@click.option(
    "--ambiguous",
    is_flag=True,
    help="Held events that are ambiguous: the backend may have accepted them.",
)
@click.option("--local", is_flag=True, help="Events that stayed on this host; needs --since.")
@day_option("--since", "With --local: the first UTC day.")
@day_option("--until", "With --local: the last UTC day.")
@location_options
@ledger_option
def replay(
    *,
    event_ids: tuple[str, ...],
    all_: bool,
    reason: str | None,
    ambiguous: bool,
    local: bool,
    since: str | None,
    until: str | None,
    name: str | None,
    spool: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """
    Send dead letters, ambiguous or local events again.

    They are sent with the same id and the same bytes as before. With --local, events of the
    destination `local` are sent to the destination of the environment. A second replay of the same
    days bills nothing twice.

    Example: cmdrdata replay --reason 'HTTP 400'
    """
    if bool(event_ids) + all_ + (reason is not None) + ambiguous + local != 1:
        raise click.UsageError(
            "choose the events: by their ids, or with one of --all, --reason, --ambiguous, --local"
        )
    if local:
        if since is None:
            raise click.UsageError("--local needs --since, the first day to be sent")
        if name is not None:
            raise click.UsageError("--local sends to the destination of the environment")
        if url is not None and fleet(url, spool) is not None:
            raise click.UsageError("--local is for the events of this host, not with --ledger")
        _replay_local(spool, (since, until or "9999"), as_json)
        return
    if since or until:
        raise click.UsageError("--since and --until belong to --local")
    destination = place(url, spool, name)
    keys = _selected(destination, event_ids, reason, ambiguous=ambiguous)
    found = change(destination, "replay", keys)
    noun = "event" if event_ids else "ambiguous event" if ambiguous else DEAD_LETTER
    report(destination, found, noun, all_=all_ or ambiguous, as_json=as_json)


def _selected(
    destination: Place, event_ids: tuple[str, ...], reason: str | None, *, ambiguous: bool
) -> list[bytes]:
    if ambiguous:
        return [event.key for event in events_in(destination, "held") if event.reason == AMBIGUOUS]
    if event_ids:
        stuck = (
            event
            for event in events_in(destination, "dead", "held")
            if event.state == "dead" or event.reason == AMBIGUOUS
        )
        return [event.key for event in by_ids(stuck, event_ids, "dead letter or ambiguous event")]
    dead = events_in(destination, "dead")
    if reason is None:
        return [event.key for event in dead]
    return [event.key for event in dead if reason in (event.reason, cause(event.reason or ""))]


def _replay_local(spool: Path | None, days: tuple[str, str], as_json: bool) -> None:
    """Record the local events of some days for the destination of the environment."""
    settings = settings_of(spool)
    if settings.target.kind == LOCAL:
        raise Refusal(
            "the destination of the environment is local too: "
            "set CMDRDATA_API_KEY (and CMDRDATA_ENDPOINT), as the application will have them"
        )
    path = spool_path(spool)
    source = chosen(path, LOCAL)
    require_owner(path)
    target = prepared(path, settings.endpoint, settings.account)
    keys = {key_of(event.id) for event in _local_events(source.directory, days)}
    known = _known(target, keys)
    missing = keys - known
    new = (event for event in _local_events(source.directory, days) if key_of(event.id) in missing)
    in_time = not missing or commands.take_in(target, map(_record, new), TIMEOUT)
    recorded = len(_known(target, keys) - known)
    counts = {"selected": len(keys), "known": len(known), "replayed": recorded}
    if as_json:
        print_json({**counts, "in_time": in_time, "destination": target.path.name})
    else:
        say(
            f"{recorded:,} of {plural(len(keys), 'local event')} added to {target.path.name}; "
            f"{len(known):,} already there."
        )
        if recorded:
            say_who_sends(Destination(target, settings.endpoint, settings.account))
    end(in_time and recorded + len(known) == len(keys), in_time=in_time)


def _known(directory: Directory, keys: set[bytes]) -> set[bytes]:
    """Return the keys whose events the destination knows."""
    with LedgerReader(directory) as ledger:
        return {key for key in keys if ledger.knows(key, clocks.wall())}


def _record(event: Event) -> bytes:
    """Return the record of an event that is the same one for ever, however often it is replayed."""
    header = event.header
    return encode_event(event.id, changed(header, remember=FOR_EVER), event.body)


def _local_events(directory: Directory, days: tuple[str, str]) -> Iterator[Event]:
    with LedgerReader(directory) as ledger:
        for kept in ledger.kept("local"):
            if kept.event is not None and days[0] <= kept.event.header.day <= days[1]:
                yield kept.event
