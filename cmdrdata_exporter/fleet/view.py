"""What may be known of a fleet's ledger without changing it: the same questions as to the ledger of a host."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from cmdrdata_exporter import clocks
from cmdrdata_exporter.delivery import Event, Header, groups
from cmdrdata_exporter.delivery.groups import DROPPED, Group, labels_of
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool.facts import TOTAL_BY
from cmdrdata_exporter.delivery.spool.index_view import About
from cmdrdata_exporter.delivery.spool.indexed import WITHOUT_USAGE, IndexedEvent
from cmdrdata_exporter.delivery.spool.ledger_view import PART, Kept
from cmdrdata_exporter.delivery.spool.schema import STATES as HOST_STATES
from cmdrdata_exporter.delivery.spool.usage_view import (
    EVENTS,
    Total,
    UnreadableError,
    by_group,
    in_order,
    without,
)
from cmdrdata_exporter.fleet.connection import Connection, connect, name_of
from cmdrdata_exporter.fleet.migrations import require_known, version_of
from cmdrdata_exporter.fleet.states import OPEN, STATES
from cmdrdata_exporter.fleet.totals import DAY, FOLDED, hour_of

if TYPE_CHECKING:
    from typing_extensions import Self

SOURCE_HOST = "source_host"
"""Who recorded or sent the events."""
MOST = 1000
"""How many events `find` returns at most."""
SETTLING = 10.0
"""Seconds within which what was given a number earlier may be committed after what was given a later one."""
_HEX = re.compile(r"[0-9a-f]{1,32}")
_EVENT = (
    "key, seq, id, state, due, recorded, attempts, reason, customer, model, endpoint, status, units, at,"
    " trace_id, response_id, request_id, day, body"
)


class HostState(NamedTuple):
    """What a host has said of itself last."""

    host: str
    version: str
    at: float
    """When it said so, by its own clock, in Unix seconds."""
    seen: float
    """When that came, by the gateway's."""
    recorded: int
    pending: int
    held: int
    dead: int
    unspooled: int


class FleetReader:
    """
    A fleet's ledger at one instant; use it as a context manager.

    Args:
        url: of the database.

    Raises:
        UnreadableError: it cannot be read.
        UnknownVersionError: a later version wrote it.
        UnusableUrlError: it is no URL of a database.
    """

    def __init__(self, url: str) -> None:
        self.name = name_of(url)
        self.last = 0
        """A number up to which all events are here: what comes later has a larger one, or has been shown."""
        with self._reading():
            self._db: Connection = connect(url)

    def __enter__(self) -> Self:
        try:
            with self._reading():
                self._db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                # Sums of a million rows in memory; to compile a query takes longer than it.
                self._db.execute("SET LOCAL work_mem = '128MB'")
                self._db.execute("SET LOCAL jit = off")
                require_known(version_of(self._db))
            [(self.last,)] = self._query(
                "SELECT coalesce(max(seq), 0) FROM fleet_events WHERE recorded < %s",
                (clocks.wall() - SETTLING,),
            )
        except BaseException:
            self._db.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(psycopg.Error):
            self._db.close()

    @property
    def ledger(self) -> Self:
        """The ledger, of which the index of events is a part."""
        return self

    @contextlib.contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except psycopg.errors.UndefinedTable:
            raise UnreadableError(
                f"there is no ledger of a fleet in {self.name}: cmdrdata gateway makes one"
            ) from None
        except psycopg.Error as error:
            # What it says has no password in it.
            said = " ".join(str(error).split())
            raise UnreadableError(
                f"the fleet's ledger at {self.name} cannot be read: {said}"
            ) from None

    def _query(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._reading():
            return self._db.execute(query.encode(), values).fetchall()

    def _stream(self, query: str, values: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield rows without having all of them at once."""
        with self._reading(), self._db.cursor(name="stream") as cursor:
            cursor.itersize = PART
            cursor.execute(query.encode(), values)
            yield from cursor

    # How many

    def counts(self) -> dict[str, int]:
        """
        Return how many events are in each state, and what else is counted.

        recorded = delivered + local + pending + in_flight + held + dead + dropped.
        """
        names = ("recorded", "delivered", *HOST_STATES, "dropped")
        counts: dict[str, int] = dict.fromkeys((*names, "repeated", "ambiguous", "damaged"), 0)
        counts |= dict(
            self._query("SELECT name, sum(value)::bigint FROM fleet_counters GROUP BY name")
        )
        for state, number in self._query(
            "SELECT state, count(*) FROM fleet_events WHERE state < 4 GROUP BY state"
        ):
            counts[STATES[state]] = number
        elsewhere = sum(counts[name] for name in names[1:] if name != "local")
        counts["local"] = counts["recorded"] - elsewhere
        return counts

    def not_imported(self) -> int:
        """Return how many events are in journals only: there are no journals."""
        return 0

    def open_jobs(self) -> list[OpenJob]:
        """Return the jobs of the provider whose end was not seen: the hosts know theirs."""
        return []

    def oldest_pending(self) -> float | None:
        """Return since when, in Unix seconds, the oldest event waits that is to be sent."""
        [(oldest,)] = self._query(
            "SELECT min(recorded) FROM fleet_events WHERE state < 2 AND state < 4"
        )
        return oldest

    def facts(self) -> dict[str, Any]:
        """Return what gateways have written down of themselves."""
        return {
            name: json.loads(value)
            for name, value in self._query("SELECT name, value FROM fleet_facts")
        }

    def reasons(self, state: str) -> dict[str, int]:
        """Return how many events are in a state for each reason, the backend's words left out."""
        rows = self._query(
            "SELECT split_part(coalesce(reason, ''), ': ', 1) COLLATE \"C\" AS cause, count(*)"
            " FROM fleet_events WHERE state = %s AND state < 4 GROUP BY cause ORDER BY cause",
            (STATES.index(state),),
        )
        return dict(rows)

    def hosts(self) -> list[HostState]:
        """Return what each host has said of itself, by name."""
        rows = self._query(
            f'SELECT {", ".join(HostState._fields)} FROM fleet_hosts ORDER BY host COLLATE "C"'  # noqa: S608 - texts of this module
        )
        return [HostState(*row) for row in rows]

    # Usage

    def labels(self) -> tuple[str, ...]:
        """Return the user's metadata keys by which usage is summed, or was: `CMDRDATA_TOTAL_BY`."""
        known = set(self.facts().get(TOTAL_BY, ()))
        for (text,) in self._query("SELECT DISTINCT labels FROM fleet_groups WHERE labels <> ''"):
            known |= labels_of(text).keys()
        return tuple(sorted(known))

    def columns(self) -> tuple[str, ...]:
        """Return all that totals may be grouped by."""
        return tuple(dict.fromkeys((*groups.COLUMNS, *sorted({SOURCE_HOST, *self.labels()}))))

    def totals(
        self,
        by: Sequence[str],
        *,
        since: str | None = None,
        until: str | None = None,
        customer: str | None = None,
        billed: bool = False,
        where: Mapping[str, str] | None = None,
    ) -> Iterator[Total]:
        """
        Yield what was used of each unit, summed by some of `columns`. See `LedgerReader.totals`.

        Raises:
            UnreadableError: it cannot be read.
        """
        asked = _Asked(since, until, _where(customer, where))
        names = in_order(by)
        if not billed:
            yield from self._sums(names, asked)
            return
        events = self._outside(asked)
        outside = by_group(names, ((values, units) for _, values, units in events))
        for left in without(outside, self._sums(names, asked._replace(fate=""))):
            yield from (total for total in left if total.amount)

    def outside(
        self, since: str | None = None, until: str | None = None, customer: str | None = None
    ) -> dict[str, tuple[int, dict[str, float]]]:
        """
        Return how many events were recorded that are neither delivered nor where they belong, and what they used.

        By their state: pending, in_flight, held, dead and dropped.

        Raises:
            UnreadableError: it cannot be read.
        """
        asked = _Asked(since, until, _where(customer, None))
        found: dict[str, dict[str, float]] = {STATES[state]: {} for state in OPEN}
        for state, _, units in self._outside(asked):
            sums = found[STATES[state]]
            for unit, amount in units.items():
                sums[unit] = sums.get(unit, 0) + amount
        found[DROPPED] = {
            total.unit: total.amount for total in self._sums((), asked._replace(fate=DROPPED))
        }
        return {state: (int(units.pop(EVENTS, 0)), units) for state, units in found.items()}

    def dropped_before(self) -> int:
        """Return how many events an earlier version dropped, which are not told from those that were delivered."""
        return 0

    def _sums(self, names: Sequence[str], asked: _Asked) -> Iterator[Total]:
        query, values = _sums_query(names, asked)
        for *group, unit, amount in self._query(query, values):
            yield Total(tuple(group), unit, _number(amount))

    def _outside(
        self, asked: _Asked
    ) -> Iterator[tuple[int, Mapping[str, str], Mapping[str, float]]]:
        """Yield of each event that is not settled its state, what it may be grouped by, and what it used."""
        tests, given = ["state < 4"], list[object]()
        for test, value in (("day >= %s", asked.since), ("day <= %s", asked.until)):
            if value is not None:
                tests.append(test)
                given.append(value)
        columns = ", ".join(f"g.{name}" for name in Group._fields)
        folded = self.facts().get(FOLDED, "")
        for state, at, host, units, *group in self._query(
            f"SELECT e.state, e.at, e.host, e.units, {columns} FROM fleet_events e"  # noqa: S608 - texts of this module
            f" JOIN fleet_groups g ON g.number = e.group_number WHERE {' AND '.join(tests)}",
            given,
        ):
            known, hour = Group(*group), hour_of(at)
            times = {"hour": hour, "day": hour[:DAY], "month": hour[:7]}
            if times["day"] <= folded:
                times["hour"] = times["day"]
            values = {**labels_of(known.labels), **known._asdict(), **times, SOURCE_HOST: host}
            if all(values.get(name, "") == value for name, value in asked.where.items()):
                used = {EVENTS: 1}
                for unit, amount in json.loads(units).items():
                    if not isinstance(amount, bool):
                        used[unit] = used.get(unit, 0) + amount
                yield state, values, used

    # Events

    def kept(self, state: str, limit: int = -1) -> Iterator[Kept]:
        """Yield the events in a state whose bodies are here, the oldest first."""
        rows = self._stream(
            f"SELECT {_EVENT} FROM fleet_events WHERE state = %s AND body IS NOT NULL"  # noqa: S608 - texts of this module
            " ORDER BY due, recorded, seq LIMIT %s",
            (STATES.index(state), None if limit < 0 else limit),
        )
        for row in rows:
            yield _kept(row)

    def knows(self, key: bytes, now: float) -> bool:  # noqa: ARG002 - as a host's ledger is asked
        """Return whether a duplicate of this event would be recognised."""
        return bool(self._query("SELECT FROM fleet_keys WHERE key = %b", (key,)))

    def about(self) -> About:
        """Return what is known of the events that can be found."""
        since = self.facts().get("kept_since")
        begin = since and dt.datetime.fromisoformat(since).replace(tzinfo=dt.timezone.utc)
        return About(
            there=True,
            missing_before=begin.timestamp() if begin else None,
            filling=False,
            reason=None,
        )

    def count(self) -> int:
        """Return how many events can be found."""
        counts = self.counts()
        return counts["recorded"] - counts.get("forgotten", 0)

    def newest(
        self,
        limit: int,
        *,
        state: str | None = None,
        customer: str | None = None,
        model: str | None = None,
        endpoint: str | None = None,
        since: int | None = None,
        until: int | None = None,
        no_usage: bool = False,
        after: int | None = None,
    ) -> list[IndexedEvent]:
        """Return events, the one whose call ended last first. See `IndexReader.newest`."""
        given: dict[str, object] = {
            "state = %s": None if state is None else STATES.index(state),
            "coalesce(customer, '') = %s": customer,
            "model = %s": model,
            "endpoint = %s": endpoint,
            "at >= %s": since,
            "at < %s": until,
            "status = ANY (%s)": list(WITHOUT_USAGE) if no_usage else None,
            "seq > %s": after,
        }
        tests = {test: value for test, value in given.items() if value is not None}
        if state is not None and STATES.index(state) in OPEN:
            tests["state < %s"] = len(OPEN)
        return self._events(
            f"{' AND '.join(tests) or 'true'} ORDER BY at DESC, seq DESC LIMIT %s",
            [*tests.values(), limit],
        )

    def find(self, text: str) -> list[IndexedEvent]:
        """
        Return the events that have a text for their id, response id, request id or trace id, in the order of time.

        Where there is none, those whose ids begin with it.
        """
        text = text.strip()
        if not text or "\0" in text:
            return []
        order = "ORDER BY at, seq LIMIT %s"
        # The empty id is none, as the indexes have it.
        found = self._events(
            "id = %s OR (trace_id = %s AND trace_id <> '') OR (response_id = %s AND response_id <> '')"
            f" OR (request_id = %s AND request_id <> '') {order}",
            [text, text, text, text, MOST],
        )
        if not found and _HEX.fullmatch(text):
            found = self._events(f"id LIKE %s {order}", [f"{text}%", MOST])
        return found

    def _events(self, condition: str, values: Sequence[object]) -> list[IndexedEvent]:
        rows = self._query(f"SELECT {_EVENT} FROM fleet_events WHERE {condition}", values)  # noqa: S608 - texts of this module
        return [_indexed(row) for row in rows]

    def body(self, event: IndexedEvent) -> bytes | None:
        """Return what is sent of an event, or would be; None where it is not here any more."""
        rows = self._query(
            "SELECT body FROM fleet_events WHERE day = (SELECT day FROM fleet_keys WHERE key = %b) AND key = %b",
            (event.key, event.key),
        )
        return next((body for (body,) in rows), None)

    def bodies(self, states: Iterable[str]) -> Iterator[tuple[IndexedEvent, bytes | None]]:
        """Yield the events in some states whose bodies are here, and these, the oldest first."""
        for state in states:
            for row in self._stream(
                f"SELECT {_EVENT} FROM fleet_events WHERE state = %s AND body IS NOT NULL ORDER BY due, seq",  # noqa: S608 - texts of this module
                (STATES.index(state),),
            ):
                yield _indexed(row), row[-1]


class _Asked(NamedTuple):
    """Of which usage something is asked."""

    since: str | None
    until: str | None
    where: Mapping[str, str]
    fate: str | None = None


def _where(customer: str | None, where: Mapping[str, str] | None) -> dict[str, str]:
    return {**(where or {}), **({} if customer is None else {"customer": customer})}


_DAILY = {"day": ("day", "day::text"), "month": ("day", "to_char(day, 'YYYY-MM')")}
_HOURLY = {
    "hour": ("time", "time"),
    "day": ("time", "left(time, 10)"),
    "month": ("time", "left(time, 7)"),
    SOURCE_HOST: (SOURCE_HOST, SOURCE_HOST),
}
"""What a table has of times and hosts: its column, and as it is shown."""


def _sums_query(names: Sequence[str], asked: _Asked) -> tuple[str, list[object]]:
    """
    Return how SQL asks for sums, and its values.

    It sums by what is in the tables first; of these sums, which are few, times and labels are read, and summed again.
    """
    fine = not {*names, *asked.where}.isdisjoint(("hour", SOURCE_HOST))
    table, day, own = (
        ("fleet_totals_by_hour", "left(time, 10)", _HOURLY)
        if fine
        else ("fleet_totals", "day", _DAILY)
    )
    tests: list[str] = []
    values: list[object] = []
    for test, value in ((f"{day} >= %s", asked.since), (f"{day} <= %s", asked.until)):
        if value is not None:
            tests.append(test)
            values.append(value)
    of_group: list[str] = []
    of_group_values: list[object] = []
    for name, value in asked.where.items():
        _, text, given = _column(name, own)
        if name in own:
            tests.append(f"{text} = %s")
            values.append(value)
        else:
            of_group.append(f"{text} = %s")
            of_group_values += [*given, value]
    if asked.fate is not None:
        of_group.append("fate = %s")
        of_group_values.append(asked.fate)
    if of_group:
        of = " AND ".join(of_group)
        tests.append(f"group_number IN (SELECT number FROM fleet_groups WHERE {of})")  # noqa: S608 - texts of this module
    columns = [_column(name, own) for name in names]
    inner = ", ".join(dict.fromkeys((*(raw for raw, _, _ in columns), "unit")))
    source = table
    if any(name not in own for name in names):
        source += " JOIN fleet_groups ON number = group_number"
    where = f" WHERE {' AND '.join(tests)}" if tests else ""
    sums = f"(SELECT {inner}, sum(amount) AS amount FROM {source}{where} GROUP BY {inner}) AS sums"  # noqa: S608 - texts of this module
    outer = [f'({text}) COLLATE "C"' for text in (*(text for _, text, _ in columns), "unit")]
    places = ", ".join(map(str, range(1, len(outer) + 1)))
    return (
        f"SELECT {', '.join(outer)}, sum(amount) FROM {sums} GROUP BY {places}"  # noqa: S608 - texts of this module
        f" HAVING sum(amount) <> 0 ORDER BY {places}",
        [*(value for _, _, given in columns for value in given), *values, *of_group_values],
    )


def _column(name: str, own: Mapping[str, tuple[str, str]]) -> tuple[str, str, list[object]]:
    """Return in which column of the tables something is, how SQL reads it there, and the values of that."""
    if name in own:
        return (*own[name], [])
    if name in Group._fields:
        return name, name, []
    return "labels", "coalesce(nullif(labels, '')::json ->> %s, '')", [name]


def _number(amount: Decimal) -> float:
    whole = int(amount)
    return whole if whole == amount else float(amount)


def _kept(row: tuple[Any, ...]) -> Kept:
    key, _, event_id, state, due, recorded, attempts, reason, customer, *rest = row
    model, endpoint, status, units, _, _, _, _, day, body = rest
    header = Header(customer, model, endpoint, status, json.loads(units), day.isoformat())
    return Kept(
        *(key, STATES[state], due, recorded, attempts, reason), Event(event_id, header, body)
    )


def _indexed(row: tuple[Any, ...]) -> IndexedEvent:
    key, seq, event_id, state, due, _, attempts, reason, customer, *rest = row
    model, endpoint, status, units, at, trace, response, request, _, _ = rest
    return IndexedEvent(
        *(seq, key, event_id, at, customer, model, endpoint, status, json.loads(units)),
        *(trace, response, request, STATES[state], reason, due, attempts),
    )
