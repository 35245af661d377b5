"""How `cmdrdata events` shows an event: on one line as wide as the terminal, whole, or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cmdrdata_exporter.cli.changes import SHORT, body_of
from cmdrdata_exporter.cli.states import word
from cmdrdata_exporter.cli.terminal import (
    UNKNOWN,
    USUAL,
    Json,
    at_least,
    cell,
    customer,
    is_utf_8,
    moment,
    number,
    print_json,
    table,
)
from cmdrdata_exporter.delivery.spool.index_view import About
from cmdrdata_exporter.delivery.spool.indexed import WITHOUT_USAGE, IndexedEvent

GAP = 2
"""Blanks between two columns."""


WIDE = 110
"""Columns of a terminal from which on there is room for all; from the usual ones on, for all but the endpoint."""
NARROW_ID = 8
"""Characters of an id where there is less."""

_RIGHT = ("In", "Out")
"""What is a number."""


_NAMES = ("Customer", "Model", "Endpoint")
"""What is of any length."""


def _widths(wide: int) -> dict[str, int]:
    """Return the columns that there is room for in a terminal of so many, and their widths."""
    widths = {
        "Time (UTC)": 19 if wide >= WIDE else 14 if wide >= USUAL else 11,
        "Customer": 0,
        "Model": 0,
        "Endpoint": 0,
        "In": 8,
        "Out": 7,
        "State": 9,
        "ID": SHORT if wide >= WIDE else NARROW_ID,
    }
    for name, least in {"Endpoint": WIDE, "In": USUAL, "Out": USUAL}.items():
        if wide < least:
            del widths[name]
    return _shared(widths, wide, dict.fromkeys(_NAMES, wide))


def _shared(widths: Mapping[str, int], wide: int, needed: Mapping[str, int]) -> dict[str, int]:
    """Return the widths of columns where names share what others leave: none gets more than it needs."""
    names = sorted((name for name in _NAMES if name in widths), key=lambda name: needed[name])
    others = sum(width for name, width in widths.items() if name not in names)
    left = wide - others - GAP * (len(widths) - 1)
    shares: dict[str, int] = {}
    for index, name in enumerate(names):
        shares[name] = max(1, min(needed[name], left // (len(names) - index)))
        left -= shares[name]
    return {name: shares.get(name, width) for name, width in widths.items()}


def _cells(event: IndexedEvent, widths: Mapping[str, int]) -> dict[str, Text]:
    """Return what is in each column of an event."""
    damaged = event.model is None
    return {
        "Time (UTC)": Text(_time(event.at, widths["Time (UTC)"])),
        "Customer": Text("damaged") if damaged else customer(event.customer),
        "Model": cell(event.model),
        "Endpoint": cell(event.endpoint),
        "In": _amount(event, "input_tokens"),
        "Out": _amount(event, "output_tokens"),
        "State": Text(word(event.state)),
        "ID": cell(event.id[: widths["ID"]]),
    }


def _time(seconds: float, width: int) -> str:
    """Return a time; with its year and its seconds where there is room."""
    whole = _second(seconds)
    return whole if width >= len(whole) else whole[len("2026-") :][:width]


def _amount(event: IndexedEvent, unit: str) -> Text:
    """Return how much was used of a unit; nothing where the event does not say so."""
    amount = event.known_units.get(unit)
    if amount is None:
        return Text(UNKNOWN if event.usage_status in WITHOUT_USAGE else "")
    return Text(_known(event, amount))


def _known(event: IndexedEvent, amount: float) -> str:
    """Return an amount; where not all of the usage is known, it is the least."""
    return f"{at_least() if event.usage_status in WITHOUT_USAGE else ''}{number(amount)}"


def _second(seconds: float) -> str:
    """Return a time for a reader, `2026-11-21 18:24:10`, in UTC."""
    return moment(seconds).replace("T", " ").removesuffix("Z")


class Lines:
    """
    Shows events, each on one line.

    Args:
        console: where.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._widths = _widths(console.width)
        self.hidden = [name for name in ("endpoint", "tokens") if name not in self._shown()]
        """What there is no room for."""

    def _shown(self) -> list[str]:
        return ["tokens" if name in _RIGHT else name.lower() for name in self._widths]

    def _table(
        self, rows: Sequence[Mapping[str, Text]], widths: Mapping[str, int], *, fixed: bool
    ) -> Table:
        shown = table()
        shown.padding = (0, GAP - 1, 0, 0)
        shown.pad_edge = False
        for name, width in widths.items():
            shown.add_column(
                name,
                justify="right" if name in _RIGHT else "left",
                width=width if fixed else None,
                max_width=width,
                no_wrap=True,
                # The ellipsis is a character that other terminals lack.
                overflow="ellipsis" if is_utf_8() else "crop",
            )
        for row in rows:
            shown.add_row(*(row[name] for name in widths))
        return shown

    def head(self) -> None:
        """Show the names of the columns, for events that come one by one."""
        self._console.print(self._table((), self._widths, fixed=True))

    def one(self, event: IndexedEvent) -> None:
        """Show one more event."""
        shown = self._table([_cells(event, self._widths)], self._widths, fixed=True)
        shown.show_header = False
        self._console.print(shown)

    def all(self, events: Iterable[IndexedEvent]) -> None:
        """Show events, of which there are some, and the names of the columns, each as wide as it has to be."""
        rows = [_cells(event, self._widths) for event in events]
        needed = {
            name: max(len(name), *(row[name].cell_len for row in rows)) for name in self._widths
        }
        widths = _shared(needed, self._console.width, needed)
        self._console.print(self._table(rows, widths, fixed=False))


def to_json(event: IndexedEvent) -> Json:
    """Return what a script gets of an event; null is what is not known, or not there."""
    return {
        "id": event.id,
        "at": moment(event.at),
        "customer": event.customer,
        "model": event.model,
        "endpoint": event.endpoint,
        "usage_status": event.usage_status,
        "units": dict(event.units),
        "response_id": event.response_id or None,
        "request_id": event.request_id or None,
        "trace_id": event.trace_id or None,
        "state": event.state,
        "reason": event.reason,
        "since": None if event.since is None else moment(event.since),
        "attempts": event.attempts,
    }


def about_json(about: About) -> Json:
    """Return what a script gets of an index."""
    return {
        "there": about.there,
        "missing_before": None if about.missing_before is None else moment(about.missing_before),
        "filling": about.filling,
        "reason": about.reason,
    }


GONE = {
    "delivered": "went to the backend, and is not kept here",
    "dropped": "is not kept: the event was given up",
    "local": "is not kept any more; its usage is",
}
"""What became of a body that is not here, by the state of its event."""
DAMAGED = "is damaged"


def show_whole(console: Console, event: IndexedEvent, body: bytes | None) -> None:
    """Show all that is known of an event."""
    console.print(cell(f"Event {event.id}", "bold"))
    lines = Table.grid(padding=(0, GAP))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    for name, text in {
        "State": cell(_state(event)),
        "Ended": Text(f"{_second(event.at)} UTC"),
        "Customer": Text("damaged") if event.model is None else customer(event.customer),
        "Model": cell(event.model),
        "Endpoint": cell(event.endpoint),
        "Usage": cell(_usage(event)),
        "Response": cell(event.response_id),
        "Request": cell(event.request_id),
        "Trace": cell(event.trace_id),
        "Body": Text(_body(event, body)),
    }.items():
        if text.plain:
            lines.add_row(f"  {name}", text)
    console.print(lines)
    if body is not None:
        print_json(body_of(body) or {})


def _state(event: IndexedEvent) -> str:
    """Return in words which state an event is in, why, since when, and how often it was tried."""
    said = word(event.state)
    if event.reason:
        said += f": {event.reason}"
    if event.since is not None:
        due = event.state == "pending" and event.attempts
        said += f", {'next attempt at' if due else 'since'} {_second(event.since)} UTC"
    if event.attempts:
        said += f", tried {event.attempts} time{'s' * (event.attempts != 1)} in vain"
    return said


def _usage(event: IndexedEvent) -> str:
    units = ", ".join(
        f"{_known(event, amount)} {unit.replace('_', ' ')}"
        for unit, amount in event.known_units.items()
    )
    return f"{event.usage_status or 'not known'}{': ' * bool(units)}{units}"


def _body(event: IndexedEvent, body: bytes | None) -> str:
    if body is not None:
        return "as it would be sent:"
    return GONE.get(event.state, DAMAGED)
