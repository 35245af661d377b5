"""
What is known of each difference. Pure.

A cause of which the amount is known explains as much, once. A cause of which only the number of calls is known, calls
without usage for instance, explains what is left, if the provider counts no more requests than there are calls here.
What no cause explains is unexplained: no cause is ever assumed.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict

from cmdrdata_exporter.cli.reconcile.differences import Differences, Grouping, undated
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

_UNKNOWN = {"model": "unknown"}
"""How an event says that it does not know; else by the empty text."""
_RESPONSES = "responses"
"""A job of it is one request."""
_NOT_COUNTED = frozenset(("fine_tuning.jobs", "videos"))
"""Jobs that are in no surface of the usage API."""
_LONGEST_UNSEEN = 31
"""Days between what the provider counts of a job and its end being seen here."""


class Explaining:
    """
    Finds what is known of each difference.

    Args:
        rows: both sides.
        side: ours, sorted.
        ours: all of our side.
        by: what is compared by.
        hosts: further hosts whose usage counts.
        today: the UTC day that is not over.
    """

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
        self._of = Grouping(by)
        self._today = today
        self._found = Differences(rows)
        self._models = {self._of.model(group) for group in side.units}
        self._recorded = {unit for amounts in side.units.values() for unit in amounts}
        self._alike: dict[Group, list[Group]] = defaultdict(list)
        """Groups that differ in the day alone."""
        self._named: dict[Group, list[Group]] = defaultdict(list)
        """Groups that differ in the model's name alone, and whose models may be the same."""
        for row in rows:
            self._alike[self._of.replaced(row.group, "day", "")].append(row.group)
            self._named[self._of.undated(row.group)].append(row.group)

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
        return self._found.rows()

    # --- Causes whose amount is known

    def _next_day(self, row: Row) -> None:
        """A call that goes over midnight is of another day there; only exactly the same amounts are taken for that."""
        day = self._of.day(row.group)
        if day is None:
            return
        for other_day in (day - dt.timedelta(days=1), day + dt.timedelta(days=1)):
            other = (str(other_day), *row.group[1:])
            if other not in self._found.at or other in self._side.of_jobs:
                continue
            short = self._found.short(row)
            if short and short == self._found.more(other) and not self._found.more(row.group):
                text = "the same amounts are more here on {}: calls that went over midnight"
                back = "the same amounts are missing here on {}: calls that went over midnight"
                self._found.move(row, other, NEXT_DAY, text.format(other_day), back.format(day))

    def _other_names(self, row: Row) -> None:
        model = self._of.model(row.group)
        if not model:
            return
        for other in self._named[self._of.undated(row.group)]:
            # Two dates are two models.
            if other != row.group and undated(model) in (model, self._of.model(other)):
                self._found.move(
                    row,
                    other,
                    OTHER_NAME,
                    f"more here under the name {self._of.model(other)}",
                    f"missing here under the name {model}",
                )

    def _not_told(self, row: Row) -> None:
        """Events may lack what theirs has: the model of a batch, or the key where an earlier version recorded them."""
        for name in self._of.by:
            if name == "day":
                continue
            other = self._of.replaced(row.group, name, _UNKNOWN.get(name, ""))
            if other in self._found.at and other != row.group:
                self._found.move(
                    row,
                    other,
                    NOT_TOLD,
                    f"more here without a {name}",
                    f"missing here with the {name} {self._of.value(row.group, name)}",
                )

    def _jobs_seen_later(self, row: Row) -> None:
        """
        Relate what is more here on a day, and is of jobs, to the nearest day before it on which as much is missing.

        They count a job while it runs, and here it is of the day on which its end was seen.
        """
        day, more = self._of.day(row.group), self._found.more(row.group)
        of_jobs = self._side.of_jobs.get(row.group)
        if day is None or of_jobs is None or not more or self._found.short(row):
            return
        if any(amount > of_jobs.get(unit, 0) for unit, amount in more.items()):
            return
        for other in reversed(self._alike[self._of.replaced(row.group, "day", "")]):
            earlier, short = self._of.day(other), self._found.short(self._found.at[other])
            if (
                earlier is not None
                and 0 < (day - earlier).days <= _LONGEST_UNSEEN
                and all(amount <= short.get(unit, 0) for unit, amount in more.items())
            ):
                self._found.move(
                    self._found.at[other],
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
                for unit, short in self._found.short(row).items()
                if amounts.get(unit)
            }
            for unit, amount in there.items():
                self._found.left[row.group, unit] += amount
            if there:
                at = f"at {host}" if host else "recorded by an earlier version, without its host"
                text = f"usage {at}, which is not counted here"
                self._found.causes[row.group].append(Cause(OTHER_HOST, text, amounts=there))

    def _seconds(self, row: Row) -> None:
        """They count whole seconds of sound, answers tell parts of one: half a second for each request at most."""
        left = self._found.left.get((row.group, "audio_seconds"), 0)
        requests = row.units.get(REQUESTS)
        if left and requests is not None and abs(left) <= max(requests) / 2:
            self._found.causes[row.group].append(
                Cause(
                    WHOLE_SECONDS,
                    "they round each request to whole seconds",
                    amounts={"audio_seconds": abs(left)},
                )
            )
            self._found.left[row.group, "audio_seconds"] = 0

    # --- Causes whose amount is not known

    def _rest(self, row: Row) -> None:
        group, causes = row.group, self._found.causes[row.group]
        begun = self._of.day(group)
        yesterday = dt.date.fromisoformat(self._today) - dt.timedelta(days=1)
        if begun is not None and begun >= yesterday and self._found.more(group):
            causes.append(Cause(NOT_OVER, "the day is not over, or their numbers are still coming"))
            self._found.explain(row, more=True)
        short = self._found.short(row)
        if not short:
            return
        day, first = self._of.value(group, "day"), self._ours.first
        if day is not None and first is not None and day[: len(first)] < first[: len(day)]:
            causes.append(Cause(BEFORE, f"the first event was recorded on {first}"))
            self._found.explain(row)
            return
        model = self._of.model(group)
        if model and model not in self._models:
            text = "nothing of this model was recorded in this time"
            causes.append(Cause(NOT_METERED, text, amounts=short))
            self._found.explain(row)
            return
        unseen = {unit: amount for unit, amount in short.items() if unit not in self._recorded}
        if unseen:
            kinds = ", ".join(unit.replace("_", " ") for unit in unseen)
            text = f"no {kinds} were recorded in this time"
            causes.append(Cause(NOT_METERED, text, amounts=unseen))
            for unit in unseen:
                self._found.left[group, unit] = 0
        if not self._found.short(row):
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
        self._found.in_jobs[group] = len(responses)
        # Of other jobs nobody knows how many requests they are. Where requests are not known, calls may be missing.
        is_none_missing = REQUESTS in row.units and not self._found.requests(row)
        if len(jobs) > len(responses) or ((jobs or calls) and is_none_missing):
            self._found.explain(row)

    def _explain(self, row: Row, *, more: bool = False) -> None:
        """Take what is left of a row for explained."""
        for unit in self._found.more(row.group) if more else self._found.short(row):
            self._found.left[row.group, unit] = 0

    def _open_jobs(self, group: Group) -> list[OpenJob]:
        """Return the open jobs that may be in a row: begun shortly before, of its model or of none told."""
        day, model = self._of.value(group, "day"), self._of.model(group)
        return [
            job
            for job in self._ours.jobs
            if is_of_openai(job.host, self._hosts)
            and job.endpoint not in _NOT_COUNTED
            and (not model or job.model is None or undated(job.model) == undated(model))
            and (day is None or is_counted(job, day, day))
        ]
