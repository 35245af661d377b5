"""
What the page is told, as JSON: of the ledgers in one spool directory, read anew for each answer.

No text in it commands a screen: control characters and marks that reverse text are escaped, as on a terminal. The page
shows it as text, never as HTML. It has no content of calls and no key, since neither is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cmdrdata_exporter.cli.dashboard.over_time import RANGES, OverTime, Range, in_order
from cmdrdata_exporter.cli.destination import ELSEWHERE, Destination, all_of
from cmdrdata_exporter.cli.states import COUNTED, NO_CUSTOMER, STATES, word
from cmdrdata_exporter.cli.status import status_of, where_to, who_leads, why_there
from cmdrdata_exporter.cli.terminal import Json, moment, plural, printable_values
from cmdrdata_exporter.cli.usage.costs import priced, read_priced
from cmdrdata_exporter.cli.usage.numbers import EVENTS, Question, labels_of
from cmdrdata_exporter.cli.usage.report import footnotes
from cmdrdata_exporter.delivery.spool.index_view import IndexedEvent, IndexReader
from cmdrdata_exporter.delivery.usage import UnreadableError
from cmdrdata_exporter.prices import PriceTable
from cmdrdata_exporter.version import VERSION

GROUPINGS = (
    ("customer",),
    ("model",),
    ("customer", "model"),
    ("endpoint",),
    ("status",),
    ("provider",),
    ("request_model",),
    ("service_tier",),
    ("project",),
)
"""What usage may be grouped by, besides the metadata keys that are summed by."""
LISTED = 200
"""How many groups are listed."""
FOUND = 50
"""How many events are shown that have one id, of a trace for instance."""
NEWEST = 20
"""How many of the newest events are shown."""
NOT_FOUND = "No such event. What was recorded is found for 30 days; the id of an event may be shortened, no other may."

Asked = Mapping[str, str]
One = TypeVar("One")


class UnknownError(LookupError):
    """What was asked for is not there, or is none of what may be asked for."""


class Answers:
    """
    Answers questions about the ledgers of a spool directory.

    Args:
        spool: the directory.
        destination: the name of the one that is shown first; None is the first one.
        prices: by which usage has a cost; a text says why there are none.
        clock: returns Unix seconds.
    """

    def __init__(
        self,
        spool: Path,
        destination: str | None = None,
        prices: PriceTable | str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._spool = spool
        self._first = destination
        self._prices = None if isinstance(prices, str) else prices
        self._no_cost = [f"No cost is shown: {prices}."] if isinstance(prices, str) else []
        self._clock = clock
        self._answers: dict[str, Callable[[Asked], Json]] = {
            "choices": self._choices,
            "status": self._status,
            "usage": self._usage,
            "find": self._find,
            "newest": self._newest,
        }

    def answer(self, name: str, question: Asked) -> Json:
        """
        Return the answer of a name to a question.

        Raises:
            UnknownError: there is no such answer, or no such destination, range or grouping.
            UnreadableError: the ledger cannot be read.
        """
        return printable_values(_one_of(self._answers, name, "answer")(question))

    def _choices(self, _: Asked) -> Json:
        """Return what may be chosen on the page."""
        return {
            "version": VERSION,
            "spool_dir": str(self._spool),
            "first": self._first,
            "cost": self._prices is not None,
            "ranges": [{"value": name, "title": range_.title} for name, range_ in RANGES.items()],
            "by": _titled(GROUPINGS),
        }

    def _status(self, _: Asked) -> Json:
        """Return where the events of every destination are, and what needs a person."""
        found = status_of(self._spool)
        attention = [found["unusable"]] if found["unusable"] else []
        return {
            "at": moment(self._clock()),
            "attention": attention,
            "nothing": f"No events recorded in {self._spool} yet. {ELSEWHERE}.",
            "destinations": list(map(_destination, found["destinations"])),
        }

    def _usage(self, question: Asked) -> Json:
        """Return what was used: `range`, `by`, `unit`; `customer` of one alone, `only` billed, `cost` no."""
        place = self._place(question)
        span = _one_of(RANGES, question.get("range", "days"), "range")
        groupings = (*GROUPINGS, *((label,) for label in labels_of([place])))
        by = _one_of(
            {",".join(columns): columns for columns in groupings},
            question.get("by", "customer"),
            "grouping",
        )
        unit = question.get("unit", EVENTS)
        periods = span.periods(self._clock())
        # A period is asked for by its first day.
        asked = Question(
            since=f"{periods[0]}-01"[:10],
            customer=question.get("customer"),
            billed=question.get("only") == "billed",
        )
        columns = (*by, span.column)
        prices = None if question.get("cost") == "no" else self._prices
        numbers = read_priced([place], columns, asked, prices)
        found = priced(numbers, columns, asked, prices)
        usage = OverTime(found, by, span.column, periods)
        rows = usage.rows(unit)
        return {
            "title": span.title,
            "by": list(by),
            "groupings": _titled(groupings),
            "unit": unit,
            "periods": periods,
            "series": usage.series(unit),
            "rows": [
                {
                    "names": usage.names(group),
                    "units": units,
                    "at_least": group in usage.at_least,
                }
                for group, units in rows[:LISTED]
            ],
            "total": {"units": usage.total(), "at_least": bool(usage.at_least)},
            "notes": [
                *_left_out(len(rows), usage.elsewhere),
                *_of_days(footnotes(found), span, periods[0]),
                *self._no_cost,
            ],
        }

    def _find(self, question: Asked) -> Json:
        """Return the events, of any destination, that have `id` for one of their ids."""
        events: list[Json] = []
        unread: list[str] = []
        for place in all_of(self._spool):
            found = _found(place, question.get("id", ""))
            if isinstance(found, str):
                unread.append(f"Not looked at: {place.name}, since {found}.")
            else:
                events += found
        more = f", of which {FOUND} are shown" if len(events) > FOUND else ""
        said = f"{plural(len(events), 'event')} found{more}." if events else NOT_FOUND
        return {"events": events[:FOUND], "text": " ".join([said, *unread])}

    def _newest(self, question: Asked) -> Json:
        """Return the events of a destination whose calls have ended last."""
        place = self._place(question)
        with IndexReader(place.directory) as index:
            events = [_event(place, found) for found in index.newest(NEWEST)]
        return {"events": events, "text": "" if events else "None yet."}

    def _place(self, question: Asked) -> Destination:
        there = {destination.name: destination for destination in all_of(self._spool)}
        return _one_of(there, question.get("destination", ""), "destination")


def _destination(known: Json) -> Json:
    """Return where the events of a destination are."""
    shown = {
        "name": known["name"],
        "description": where_to(known),
        "attention": known["attention"],
    }
    if "events" not in known:  # its ledger cannot be read
        return shown
    return {
        **shown,
        "sender": who_leads(known),
        "recorded": known["events"]["recorded"],
        "states": [
            {
                "word": word(state),
                "meaning": meaning,
                "count": known["events"][state],
                "why": why_there(known, state),
            }
            for state, meaning in STATES.items()
        ],
        "counted": [
            {"word": name, "meaning": meaning, "count": known["counted"][name]}
            for name, meaning in COUNTED.items()
            if known["counted"][name]
        ],
    }


def _found(place: Destination, text: str) -> list[Json] | str:
    """Return the events of a destination with an id, or why its ledger cannot be read."""
    try:
        with IndexReader(place.directory) as index:
            return [_event(place, found) for found in index.find(text)]
    except UnreadableError as error:
        return str(error)


def _event(place: Destination, found: IndexedEvent) -> Json:
    """Return what is told of an event: what it was, its ids, and what became of it."""
    damaged = found.endpoint is None
    return {
        "destination": place.name,
        "at": moment(found.at).replace("T", " ").replace("Z", ""),
        "customer": found.customer if damaged else found.customer or NO_CUSTOMER,
        "model": found.model,
        "endpoint": found.endpoint,
        "state": word(found.state),
        "reason": found.reason,
        "usage": found.usage_status,
        "units": in_order(found.known_units),
        "id": found.id,
        "request_id": found.request_id,
        "response_id": found.response_id,
        "trace_id": found.trace_id,
    }


def _titled(groupings: Sequence[tuple[str, ...]]) -> list[Json]:
    """Return what usage may be grouped by, as it is asked for and as it is shown."""
    return [
        {"value": ",".join(columns), "title": " and ".join(columns).replace("_", " ")}
        for columns in groupings
    ]


def _left_out(groups: int, elsewhere: int) -> list[str]:
    """Return what is not in the numbers that are shown."""
    notes: list[str] = []
    if groups > LISTED:
        notes.append(f"Not listed: {groups - LISTED:,} more groups. For all: cmdrdata usage --csv")
    if elsewhere:
        notes.append(
            f"Not shown: {plural(elsewhere, 'event')} that an earlier version recorded without such a period. "
            "Choose a longer range"
        )
    return notes


def _of_days(notes: list[str], span: Range, first: str) -> list[str]:
    """Return notes; where they are of whole days and the numbers are not, they say so."""
    if span.column != "hour" or not notes:
        return notes
    return [f"Of the whole days since {first[:10]}:", *notes]


def _one_of(known: Mapping[str, One], name: str, what: str) -> One:
    try:
        return known[name]
    except KeyError:
        expected = ", ".join(known) or "none yet"
        raise UnknownError(f"{name!r} is no {what}; expected is one of: {expected}") from None
