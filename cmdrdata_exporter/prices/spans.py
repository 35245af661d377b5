"""Times of which usage is summed: an hour, a day, a month."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta, timezone
from typing import NamedTuple

_WRITTEN = re.compile(r"(\d{4})-(\d\d)(?:-(\d\d)(?:T(\d\d))?)?", re.ASCII)


class Span(NamedTuple):
    """From `start` until `end`, which is not a part of it; in UTC."""

    start: datetime
    end: datetime

    @classmethod
    def read(cls, text: str) -> Span | None:
        """Read what a ledger has, `2026-11-29T16`, `2026-11-29` or `2026-11`; None where it is none of these."""
        if (written := _WRITTEN.fullmatch(text)) is None:
            return None
        year, month, day, hour = (None if part is None else int(part) for part in written.groups())
        try:
            start = datetime(year or 0, month or 0, day or 1, hour or 0, tzinfo=timezone.utc)
            if hour is not None:
                return cls(start, start + timedelta(hours=1))
            if day is not None:
                return cls(start, start + timedelta(days=1))
            return cls(start, (start + timedelta(days=31)).replace(day=1))
        except (ValueError, OverflowError):
            return None

    def instants(self, days: Iterable[date], times: Iterable[time]) -> list[datetime]:
        """
        Return when to look which prices hold, so that none within this span is missed.

        Args:
            days: on which prices change.
            times: of each day, in UTC, at which they do.
        """
        midnights = {_midnight(day) for day in days}
        begun = {self.start, *(day for day in midnights if self.start < day < self.end)}
        of_days = {
            _midnight(day.date()).replace(hour=at.hour, minute=at.minute, second=at.second)
            for day in begun
            for at in times
        }
        return sorted(begun | {at for at in of_days if self.start < at < self.end})


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), timezone.utc)
