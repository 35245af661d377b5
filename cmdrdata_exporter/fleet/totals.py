"""What a transaction adds to the totals and counters of a fleet's ledger: added up in memory, and written at once."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.groups import MOST_VALUES, OTHER, Group, as_labels, labels_of
from cmdrdata_exporter.delivery.spool.details import Details
from cmdrdata_exporter.delivery.spool.totals import group_of, storable
from cmdrdata_exporter.fleet.connection import Connection

EVENTS = "events"
"""The unit that each event has one of."""
SLOTS = 64
_EXACT = decimal.Context(prec=500)
"""Holds each sum of what is `storable` to its last digit: with that of binary fractions a batch would differ from its
events."""
_NOTHING = Decimal(0)
_MOST_KNOWN = 10_000
"""Of how many groups it is known that they have a row."""


class Place(NamedTuple):
    """Where an event is counted."""

    hour: dt.datetime
    host: str
    group: int


class Totals:
    """
    The totals of a ledger, for one that writes it.

    Args:
        total_by: the user's metadata keys by which usage is summed.
    """

    def __init__(self, total_by: Sequence[str] = ()) -> None:
        self.total_by = tuple(total_by)
        self._slot = random.SystemRandom().randrange(SLOTS)
        self._amounts: dict[Place, dict[str, Decimal]] = {}
        self._groups: dict[int, Group] = {}
        """Those that were named since the last transaction."""
        self._known: set[int] = set()
        """The numbers of groups that have a row."""
        self._values: dict[str, set[str]] | None = None
        self.counts: Counter[str] = Counter()
        """What is added to the counters, by their names."""

    def place(self, connection: Connection, event: Event, said: Details, host: str) -> Place:
        """Return where an event is to be counted."""
        group = group_of(event.header, said, self._labels(connection, said))
        return Place(hour_of(said.at), host, self._number(group))

    def _number(self, group: Group) -> int:
        number = group.number
        if number not in self._known:
            self._groups[number] = group
        return number

    def _labels(self, connection: Connection, said: Details) -> str:
        """Return the labels of an event; where one has too many values already, a new one is counted as `OTHER`."""
        if not said.labels:
            return ""
        if self._values is None:
            self._values = {name: set() for name in self.total_by}
            for (text,) in connection.execute("SELECT DISTINCT labels FROM fleet_groups"):
                for name, value in labels_of(text).items():
                    self._values.setdefault(name, set()).add(value)
        labels: dict[str, str] = {}
        for name, value in said.labels.items():
            there = self._values.setdefault(name, set())
            if value and value not in there and len(there) >= MOST_VALUES:
                labels[name] = OTHER
            elif value:
                there.add(value)
                labels[name] = value
        return as_labels(labels)

    def add(self, place: Place, units: Mapping[str, int | float], sign: int = 1) -> None:
        """Add the usage of an event, or take it off with -1."""
        amounts = self._amounts.setdefault(place, {})
        amounts[EVENTS] = _EXACT.add(amounts.get(EVENTS, _NOTHING), sign)
        for unit, amount in units.items():
            if not isinstance(amount, bool):
                # As it is written. A unit may be called `events`, too.
                written = Decimal(repr(storable(amount)))
                amounts[unit] = _EXACT.fma(written, sign, amounts.get(unit, _NOTHING))

    def move(
        self,
        connection: Connection,
        place: Place,
        units: Mapping[str, int | float],
        **changes: str,
    ) -> Place:
        """Have the usage of an event counted in a group that is another one in a few columns; return where."""
        row = connection.execute(
            f"SELECT {', '.join(Group._fields)} FROM fleet_groups WHERE number = %s".encode(),  # noqa: S608 - names of columns
            (place.group,),
        ).fetchone()
        if row is None:
            return place
        after = place._replace(group=self._number(Group(*row)._replace(**changes)))
        self.add(place, units, -1)
        self.add(after, units)
        return after

    def write(self, connection: Connection) -> None:
        """
        Write what was added. Last in a transaction: others wait for these rows until its end.

        All write rows in the order of their keys, so that no two wait for each other.
        """
        if self._groups:
            columns = zip(
                *((number, *group) for number, group in sorted(self._groups.items())), strict=True
            )
            arrays = ", ".join(["%s::bigint[]", *["%s::text[]"] * len(Group._fields)])
            connection.execute(
                f"INSERT INTO fleet_groups SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING".encode(),  # noqa: S608 - marks
                [list(column) for column in columns],
            )
        hours = {
            (place.hour, place.host, place.group, unit): amount
            for place, amounts in self._amounts.items()
            for unit, amount in amounts.items()
            if amount
        }
        days: dict[tuple[dt.date, int, str], Decimal] = {}
        for (hour, _, group, unit), amount in hours.items():
            key = hour.date(), group, unit
            days[key] = _EXACT.add(days.get(key, _NOTHING), amount)
        if hours:
            connection.execute(
                "INSERT INTO fleet_totals_by_hour AS known"
                " SELECT * FROM unnest(%s::timestamp[], %s::text[], %s::bigint[], %s::text[], %s::numeric[])"
                " ON CONFLICT (hour, source_host, group_number, unit)"
                " DO UPDATE SET amount = known.amount + excluded.amount",
                _columns(hours),
            )
            connection.execute(
                "INSERT INTO fleet_totals AS known"
                " SELECT * FROM unnest(%s::date[], %s::bigint[], %s::text[], %s::numeric[])"
                " ON CONFLICT (day, group_number, unit) DO UPDATE SET amount = known.amount + excluded.amount",
                _columns(days),
            )
        counted = {name: number for name, number in self.counts.items() if number}
        if counted:
            connection.execute(
                "INSERT INTO fleet_counters AS known SELECT name, %s, value"
                " FROM unnest(%s::text[], %s::bigint[]) AS new (name, value)"
                " ON CONFLICT (name, slot) DO UPDATE SET value = known.value + excluded.value",
                (self._slot, *_columns({(name,): number for name, number in counted.items()})),
            )

    def written(self) -> None:
        """Take note that the transaction is committed."""
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known |= self._groups.keys()
        self._forget()

    def clear(self) -> None:
        """Forget what was added, since its transaction has failed, and which groups and labels there are."""
        self._known.clear()
        self._values = None
        self._forget()

    def _forget(self) -> None:
        self._amounts.clear()
        self._groups.clear()
        self.counts.clear()


def hour_of(at: int) -> dt.datetime:
    """Return the UTC hour of a time, without a time zone, as the database has it."""
    hour = dt.datetime.fromtimestamp(at, dt.timezone.utc).replace(minute=0, second=0, microsecond=0)
    return hour.replace(tzinfo=None)


def _columns(rows: Mapping[Any, int | Decimal]) -> list[list[object]]:
    """Return rows as columns, in the order of their keys, the amounts last."""
    ordered = sorted(rows.items())
    amounts: list[object] = [str(amount) for _, amount in ordered]
    return [*map(list, zip(*(key for key, _ in ordered), strict=True)), amounts]


def as_json(units: Mapping[str, int | float]) -> str:
    """Return units as the ledger stores them."""
    return json.dumps(dict(units), separators=(",", ":"))
