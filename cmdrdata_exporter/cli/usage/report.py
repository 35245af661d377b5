"""What `cmdrdata usage` shows a reader: rows, and below them what is in the numbers and what is not."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from cmdrdata_exporter.cli.states import STATES, word
from cmdrdata_exporter.cli.terminal import Json, cell, plural
from cmdrdata_exporter.cli.usage import costs
from cmdrdata_exporter.cli.usage.layout import show_rows
from cmdrdata_exporter.cli.usage.numbers import EVENTS, ordered

SETTLED = ("delivered", "local")
"""The states of events that `--only billed` leaves in."""


def show_usage(console: Console, found: Json) -> None:
    """Show a reader what was used, as far as there is room for it."""
    notes: list[str] = []
    if found["rows"]:
        units = ordered(found["total"]["units"])
        shown = show_rows(console, found, units)
        if left := [unit.replace("_", " ") for unit in units if unit not in shown]:
            notes.append(f"Not shown: {', '.join(left)}. Use a wider terminal or --json.")
    else:
        _say(console, cell(f"No usage recorded for {_whose(found)} with these filters."), wide=True)
    for note in (*notes, *footnotes(found)):
        console.print()
        _say(console, cell(note))


def footnotes(found: Json) -> list[str]:
    """Return what is to be known of the numbers: what is in them, or not, that one may not expect."""
    notes = (
        _destinations(found),
        _states(found),
        _dropped_before(found),
        _too_low(found),
        _not_counted(found),
    )
    return [*costs.footnotes(found), *(note for note in notes if note is not None)]


def _say(console: Console, line: Text, *, wide: bool = False) -> None:
    # In a file or a pipe a line is a line.
    console.print(line, soft_wrap=wide or not console.is_terminal)


def _whose(found: Json) -> str:
    names: list[str] = found["destinations"]
    return names[0] if len(names) == 1 else f"any of {', '.join(names)}"


def _destinations(found: Json) -> str | None:
    """Return of which destinations the numbers are the sum."""
    names: list[str] = found["destinations"]
    if len(names) == 1:
        return None
    note = f"The sum of {len(names)} destinations: {', '.join(names)}."
    if found["states"]["local"]:
        note += " A local event that was replayed to another one is counted in both."
    return note


def _states(found: Json) -> str | None:
    """Return which events are in the numbers, or left out, though they were not delivered: a sum that is exact."""
    counts: dict[str, int] = found["states"]
    outside = [_count(counts, state) for state in STATES if state not in SETTLED and counts[state]]
    if not outside:
        return None
    settled = [_count(counts, state) for state in SETTLED if counts[state]]
    if found["only"] is not None:
        shown = " + ".join(settled) or "none delivered"
        return (
            f"{plural(found['total'][EVENTS], 'event')} = {shown}. Left out: {', '.join(outside)}."
        )
    shown = " + ".join([*settled, *outside])
    return f"{plural(found['total'][EVENTS], 'event')} = {shown}. Delivered alone: --only billed"


def _dropped_before(found: Json) -> str | None:
    """Return how many events are taken for delivered, though a person has dropped them."""
    if not found["dropped_before"]:
        return None
    return f"An earlier version dropped {plural(found['dropped_before'], 'event')}: these count as delivered here."


def _count(counts: dict[str, int], state: str) -> str:
    return f"{counts[state]:,} {word(state)}"


def _too_low(found: Json) -> str | None:
    """Return for how many calls the usage is unknown, or known only in part: the totals are too low then."""
    known = [
        f"{plural(found['incomplete_usage'][status], 'call')} reported {what}"
        for status, what in (("missing", "no usage"), ("partial", "usage only in part"))
        if found["incomplete_usage"][status]
    ]
    if not known:
        return None
    return f"Totals are too low: {', '.join(known)}. To see which: --by endpoint,model,status"


def _not_counted(found: Json) -> str | None:
    """Return how many events are not in the totals yet."""
    if not found["not_imported"]:
        return None
    return f"Not counted yet: {plural(found['not_imported'], 'more event')}, recorded just now."
