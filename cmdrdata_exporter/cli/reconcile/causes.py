"""
What is known of each difference. Pure.

A cause of which the amount is known explains as much, once. A cause of which only the number of calls is known, calls
without usage for instance, explains what is left, if the provider counts no more requests than there are calls here.
What no cause explains is unexplained: no cause is ever assumed.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Mapping

from cmdrdata_exporter.cli.reconcile.lines import Group
from cmdrdata_exporter.cli.reconcile.ours import Ours, is_counted, is_of_openai
from cmdrdata_exporter.cli.reconcile.rows import Cause, Row
from cmdrdata_exporter.cli.reconcile.sides import Side
from cmdrdata_exporter.cli.reconcile.surfaces import REQUESTS
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.wording import plural

NOT_METERED = "not_metered"
BEFORE = "before_the_ledger"
NO_USAGE = "no_usage"
PART_OF_USAGE = "part_of_usage"
OPEN_JOBS = "open_jobs"
JOBS_SEEN_LATER = "jobs_seen_later"
NEXT_DAY = "next_day"
OTHER_NAME = "other_name"
NOT_TOLD = "not_told"
OTHER_HOST = "other_host"
WHOLE_SECONDS = "whole_seconds"
NOT_OVER = "not_over"

_DATED = re.compile(r"-(\d{4}-\d\d-\d\d|\d{4})$")
_UNKNOWN = {"model": "unknown"}
"""How an event says that it does not know; else by the empty text."""
_RESPONSES = "responses"
"""A job of it is one request."""
_NOT_COUNTED = frozenset(("fine_tuning.jobs", "videos"))
"""Jobs that are in no surface of the usage API."""
_LONGEST_UNSEEN = 31
"""Days between what the provider counts of a job and its end being seen here."""


class Explaining:
    """Finds what is known of each difference."""

    def __init__(  # noqa: PLR0917 - all that is known
        self,
        rows: list[Row],
        side: Side,
        ours: Ours,
        by: tuple[str, ...],
        hosts: tuple[str, ...],
        today: str,
    ) -> None:
        self._hosts = hosts
        self._rows = rows
        self._side = side
        self._ours = ours
        self._by = by
        self._today = today
        self._at = {row.group: row for row in rows}
        self._left: dict[tuple[Group, str], float] = {
            (row.group, unit): pair.difference
            for row in rows
            for unit, pair in row.units.items()
            if unit != REQUESTS and pair.difference
        }
        """What is not explained yet."""
        self._causes: dict[Group, list[Cause]] = defaultdict(list)
        self._in_jobs: dict[Group, int] = defaultdict(int)
        """The requests that are jobs which nobody has seen to end, as far as that is known."""
        self._models = {self._model(group) for group in side.units}
        self._recorded = {unit for amounts in side.units.values() for unit in amounts}
        self._alike: dict[Group, list[Group]] = defaultdict(list)
        """Groups that differ in the day alone."""
        self._named: dict[Group, list[Group]] = defaultdict(list)
        """Groups that differ in the model's name alone, and whose models may be the same."""
        for row in rows:
            self._alike[self._without(row.group, "day")].append(row.group)
            self._named[self._undated(row.group)].append(row.group)

    def rows(self) -> list[Row]:
        """Return the rows with what is known of them."""
        for explain in (
            self._next_day,
            self._other_names,
            self._not_told,
            self._jobs_seen_later,
            self._other_hosts,
            self._seconds,
            self._rest,
        ):
            for row in self._rows:
                if row.differs:
                    explain(row)
        return [
            row._replace(causes=tuple(self._causes[row.group]), unexplained=self._unexplained(row))
            for row in self._rows
        ]

    # --- What is left of a row

    def _short(self, row: Row) -> dict[str, float]:
        """Return what is missing here of each unit, as far as nothing explains it."""
        return {
            unit: -left for unit in row.units if (left := self._left.get((row.group, unit), 0)) < 0
        }

    def _more(self, group: Group) -> dict[str, float]:
        """Return what is more here than there."""
        return {
            unit: left
            for unit in self._at[group].units
            if (left := self._left.get((group, unit), 0)) > 0
        }

    def _requests(self, row: Row) -> float:
        """Return how many more requests they count than there are calls and open responses; 0 where it is not known."""
        pair = row.units.get(REQUESTS)
        return 0 if pair is None else max(0, -pair.difference - self._in_jobs[row.group])

    def _unexplained(self, row: Row) -> Mapping[str, float]:
        left = {
            unit: amount for unit in row.units if (amount := self._left.get((row.group, unit), 0))
        }
        requests = self._requests(row)
        if any(amount < 0 for amount in left.values()) and requests:
            left[REQUESTS] = -requests
        return left

    # --- Causes whose amount is known

    def _moved(self, row: Row, other: Group, code: str, text: str, back: str) -> None:
        """Have what is more in another group make up for what is missing in a row, once."""
        short, more = self._short(row), self._more(other)
        moved = {unit: min(amount, more[unit]) for unit, amount in short.items() if unit in more}
        if not moved:
            return
        for unit, amount in moved.items():
            self._left[row.group, unit] += amount
            self._left[other, unit] -= amount
        self._causes[row.group].append(Cause(code, text, amounts=moved))
        self._causes[other].append(Cause(code, back, amounts=moved))

    def _next_day(self, row: Row) -> None:
        """A call that goes over midnight is of another day there; only exactly the same amounts are taken for that."""
        day = self._day(row.group)
        if day is None:
            return
        for other_day in (day - dt.timedelta(days=1), day + dt.timedelta(days=1)):
            other = (str(other_day), *row.group[1:])
            if other not in self._at or other in self._side.of_jobs:
                continue
            short = self._short(row)
            if short and short == self._more(other) and not self._more(row.group):
                text = "the same amounts are more here on {}: calls that went over midnight"
                back = "the same amounts are missing here on {}: calls that went over midnight"
                self._moved(row, other, NEXT_DAY, text.format(other_day), back.format(day))

    def _other_names(self, row: Row) -> None:
        model = self._model(row.group)
        if not model:
            return
        for other in self._named[self._undated(row.group)]:
            # Two dates are two models.
            if other != row.group and _undated(model) in (model, self._model(other)):
                self._moved(
                    row,
                    other,
                    OTHER_NAME,
                    f"more here under the name {self._model(other)}",
                    f"missing here under the name {model}",
                )

    def _not_told(self, row: Row) -> None:
        """Events may lack what theirs has: the model of a batch, or the key where an earlier version recorded them."""
        for name in self._by:
            if name == "day":
                continue
            other = self._with(row.group, name, _UNKNOWN.get(name, ""))
            if other in self._at and other != row.group:
                self._moved(
                    row,
                    other,
                    NOT_TOLD,
                    f"more here without a {name}",
                    f"missing here with the {name} {self._value(row.group, name)}",
                )

    def _jobs_seen_later(self, row: Row) -> None:
        """
        Relate what is more here on a day, and is of jobs, to the nearest day before it on which as much is missing.

        They count a job while it runs, and here it is of the day on which its end was seen.
        """
        day, more = self._day(row.group), self._more(row.group)
        of_jobs = self._side.of_jobs.get(row.group)
        if day is None or of_jobs is None or not more or self._short(row):
            return
        if any(amount > of_jobs.get(unit, 0) for unit, amount in more.items()):
            return
        for other in reversed(self._alike[self._without(row.group, "day")]):
            earlier, short = self._day(other), self._short(self._at[other])
            if (
                earlier is not None
                and 0 < (day - earlier).days <= _LONGEST_UNSEEN
                and all(amount <= short.get(unit, 0) for unit, amount in more.items())
            ):
                self._moved(
                    self._at[other],
                    row.group,
                    JOBS_SEEN_LATER,
                    f"more here on {day}, when the end of jobs was seen",
                    f"missing here on {earlier}: jobs whose end was seen later",
                )
                return

    def _other_hosts(self, row: Row) -> None:
        for host, amounts in self._side.elsewhere.get(row.group, {}).items():
            there = {
                unit: min(short, amounts[unit])
                for unit, short in self._short(row).items()
                if amounts.get(unit)
            }
            for unit, amount in there.items():
                self._left[row.group, unit] += amount
            if there:
                at = f"at {host}" if host else "recorded by an earlier version, without its host"
                text = f"usage {at}, which is not counted here"
                self._causes[row.group].append(Cause(OTHER_HOST, text, amounts=there))

    def _seconds(self, row: Row) -> None:
        """They count whole seconds of sound, answers tell parts of one: half a second for each request at most."""
        left = self._left.get((row.group, "audio_seconds"), 0)
        requests = row.units.get(REQUESTS)
        if left and requests is not None and abs(left) <= max(requests) / 2:
            self._causes[row.group].append(
                Cause(
                    WHOLE_SECONDS,
                    "they round each request to whole seconds",
                    amounts={"audio_seconds": abs(left)},
                )
            )
            self._left[row.group, "audio_seconds"] = 0

    # --- Causes whose amount is not known

    def _rest(self, row: Row) -> None:
        group, causes = row.group, self._causes[row.group]
        if self._more(group) and self._is_recent(group):
            causes.append(Cause(NOT_OVER, "the day is not over, or their numbers are still coming"))
            self._explain(row, more=True)
        short = self._short(row)
        if not short:
            return
        day, first = self._day_of(group), self._ours.first
        if day is not None and first is not None and day[: len(first)] < first[: len(day)]:
            causes.append(Cause(BEFORE, f"the first event was recorded on {first}"))
            self._explain(row)
            return
        model = self._model(group)
        if model and model not in self._models:
            text = "nothing of this model was recorded in this time"
            causes.append(Cause(NOT_METERED, text, amounts=short))
            self._explain(row)
            return
        unseen = {unit: amount for unit, amount in short.items() if unit not in self._recorded}
        if unseen:
            kinds = ", ".join(unit.replace("_", " ") for unit in unseen)
            text = f"no {kinds} were recorded in this time"
            causes.append(Cause(NOT_METERED, text, amounts=unseen))
            for unit in unseen:
                self._left[group, unit] = 0
        if not self._short(row):
            return
        jobs = self._open_jobs(group)
        calls = self._side.calls.get(group, {})
        if jobs:
            text = f"{plural(len(jobs), 'job')} not seen to end: run cmdrdata jobs --poll"
            causes.append(Cause(OPEN_JOBS, text, len(jobs)))
        for status, code, what in (
            ("missing", NO_USAGE, "no usage"),
            ("partial", PART_OF_USAGE, "a part of the usage"),
        ):
            if number := calls.get(status, 0):
                text = f"{plural(number, 'call')} reported {what}"
                causes.append(Cause(code, text, number))
        responses = [job for job in jobs if job.endpoint == _RESPONSES]
        self._in_jobs[group] = len(responses)
        # Of other jobs nobody knows how many requests they are. Where requests are not known, calls may be missing.
        is_none_missing = REQUESTS in row.units and not self._requests(row)
        if len(jobs) > len(responses) or ((jobs or calls) and is_none_missing):
            self._explain(row)

    def _explain(self, row: Row, *, more: bool = False) -> None:
        """Take what is left of a row for explained."""
        for unit in self._more(row.group) if more else self._short(row):
            self._left[row.group, unit] = 0

    def _open_jobs(self, group: Group) -> list[OpenJob]:
        """Return the open jobs that may be in a row: begun shortly before, of its model or of none told."""
        day, model = self._day_of(group), self._model(group)
        return [
            job
            for job in self._ours.jobs
            if is_of_openai(job.host, self._hosts)
            and job.endpoint not in _NOT_COUNTED
            and (not model or job.model is None or _undated(job.model) == _undated(model))
            and (day is None or is_counted(job, day, day))
        ]

    # --- Groups

    def _value(self, group: Group, name: str) -> str | None:
        return group[self._by.index(name)] if name in self._by else None

    def _model(self, group: Group) -> str:
        return self._value(group, "model") or ""

    def _day_of(self, group: Group) -> str | None:
        return self._value(group, "day")

    def _day(self, group: Group) -> dt.date | None:
        day = self._day_of(group)
        return dt.date.fromisoformat(day) if day is not None and len(day) == 10 else None

    def _is_recent(self, group: Group) -> bool:
        day = self._day(group)
        return day is not None and day >= dt.date.fromisoformat(self._today) - dt.timedelta(days=1)

    def _with(self, group: Group, name: str, value: str) -> Group:
        return tuple(
            value if one == name else there for one, there in zip(self._by, group, strict=True)
        )

    def _without(self, group: Group, name: str) -> Group:
        return self._with(group, name, "")

    def _undated(self, group: Group) -> Group:
        return self._with(group, "model", _undated(self._model(group)))


def _undated(model: str) -> str:
    """Return the name of a model without its date, `gpt-4o` of `gpt-4o-2024-08-06`."""
    return _DATED.sub("", model)
