"""How a command reads events, has something changed in a ledger, and reports what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import click

from cmdrdata_exporter.cli.destination import COUNTERS, TIMEOUT, Place
from cmdrdata_exporter.cli.terminal import ATTENTION, Json, plural, print_json, say
from cmdrdata_exporter.delivery.spool.kept import Kept

SHORT = 12
"""Characters of an id in a list: enough to name the event."""


class Change(NamedTuple):
    """What a command asked for, and what came of it."""

    action: str
    selected: int
    changed: int
    in_time: bool


def change(place: Place, action: str, keys: Sequence[bytes], customer: str | None = None) -> Change:
    """Have a command applied to events, and count what it changed."""
    if not keys:
        return Change(action, 0, 0, in_time=True)
    changed, in_time = place.change(action, keys, customer)
    return Change(action, len(keys), changed, in_time)


def report(
    destination: Place,
    found: Change,
    noun: str,
    *,
    all_: bool,
    as_json: bool,
    more: Json | None = None,
) -> None:
    """
    Print what was changed, and exit with a status that says whether that was all.

    Args:
        destination: where.
        found: what was changed.
        noun: what one of the events is called.
        all_: whether the command was about all of them, not those that match something.
        as_json: whether to print JSON.
        more: what else the JSON says.
    """
    done = COUNTERS[found.action]
    if as_json:
        document = {"selected": found.selected, done: found.changed, "in_time": found.in_time}
        print_json({**document, **(more or {})})
    elif not found.selected:
        say(f"No {'' if all_ else 'matching '}{noun}s to {found.action}.")
    else:
        say(f"{found.changed:,} of {plural(found.selected, noun)} {done}.")
        if found.changed and found.action != "drop":
            say_who_sends(destination)
    end(found.changed >= found.selected, in_time=found.in_time)


def say_who_sends(place: Place) -> None:
    """Print what becomes of events that are to be sent now."""
    said = place.who_sends()
    if said is not None:
        say(said)


def end(fine: bool, *, in_time: bool) -> None:
    """Exit with the status that says whether all was done that was asked for."""
    if not in_time:
        say(
            f"The leader has not answered within {TIMEOUT:.0f} s; "
            "it applies the rest when it continues. See: cmdrdata status",
            err=True,
        )
    if not fine:
        click.get_current_context().exit(ATTENTION)


def events_in(destination: Place, *states: str) -> Iterator[Kept]:
    """Yield the events in some states, the oldest first."""
    with destination.ledger() as ledger:
        for state in states:
            yield from ledger.kept(state)


def by_ids(events: Iterable[Kept], ids: Sequence[str], noun: str) -> list[Kept]:
    """
    Return the events with these ids; a beginning that names one event alone will do.

    Raises:
        click.UsageError: an id names none, or several.
    """
    matching: dict[str, list[Kept]] = {wanted: [] for wanted in ids}
    for event in events:
        for wanted, found in matching.items():
            if id_of(event).startswith(wanted):
                found.append(event)
    chosen: dict[bytes, Kept] = {}
    for wanted, found in matching.items():
        exactly = [event for event in found if id_of(event) == wanted] or found
        if len(exactly) != 1:
            how_many = "more than one" if exactly else "no"
            raise click.UsageError(f"{how_many} {noun} has an id that begins with {wanted!r}")
        chosen[exactly[0].key] = exactly[0]
    return list(chosen.values())


def metadata_of(event: Kept) -> Json:
    """Return the metadata of an event, numbers as they are written."""
    if event.event is None:
        return {}
    body = json.loads(event.event.body, parse_int=str, parse_float=str)
    return body.get("metadata") or {}


def body_of(body: bytes | None) -> Json | None:
    """Return the body of an event, None where it is damaged or gone."""
    return None if body is None else json.loads(body, parse_int=_integer)


def _integer(digits: str) -> int | str:
    """Return an integer, as text where it has more digits than Python converts."""
    try:
        return int(digits)
    except ValueError:
        return digits


def id_of(event: Kept) -> str:
    """Return an event's id; of one whose record is damaged, what stands for it."""
    return event.key.hex() if event.event is None else event.event.id
