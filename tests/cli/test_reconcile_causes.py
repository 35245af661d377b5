"""What is known of a difference: each cause where it holds, none where it does not."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from cmdrdata_exporter.cli.reconcile.compare import Comparison, compare
from cmdrdata_exporter.cli.reconcile.lines import LayoutError, TheirLine, Theirs
from cmdrdata_exporter.cli.reconcile.ours import OurLine, Ours
from cmdrdata_exporter.cli.reconcile.rows import Row
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from tests.usage_months import open_job

TODAY = "2026-11-20"
HOST = "api.openai.com"
BY = ("day", "model")
MODEL = "gpt-5-mini-2025-08-07"


def at(day: int) -> int:
    """Return the first second of a day of November."""
    return int(dt.datetime(2026, 11, day, tzinfo=dt.timezone.utc).timestamp())


def date(day: int) -> str:
    """Return the name of a day of November."""
    return f"2026-11-{day:02}"


def there(
    day: int, model: str = MODEL, surface: str = "completions", requests: int = 1, **units: float
) -> TheirLine:
    """Return a line of theirs."""
    told = {"requests": requests, **units}
    return TheirLine(
        surface, at(day), at(day) + 86_400, model, units=told, told=frozenset({"model"})
    )


def here(
    day: int | str,
    model: str = MODEL,
    endpoint: str = "responses",
    *,
    events: int = 1,
    status: str = "reported",
    host: str = HOST,
    **units: float,
) -> list[OurLine]:
    """Return lines of ours."""
    group = (day if isinstance(day, str) else date(day), model)
    return [
        OurLine(group, endpoint, status, host, unit, amount)
        for unit, amount in {"events": events, **units}.items()
    ]


def compared(
    theirs: list[TheirLine],
    ours: list[list[OurLine]],
    *,
    jobs: list[OpenJob] | None = None,
    first: str = "2026-11-01",
    hosts: tuple[str, ...] = (),
    by: tuple[str, ...] = BY,
) -> Comparison:
    """Compare some lines."""
    added = Theirs(by)
    added.add(theirs, since=None, until=None)
    lines = [line for some in ours for line in some]
    mine = Ours(lines, jobs or [], True, first, 0, {}, {})
    return compare(added, mine, by, hosts=hosts, today=TODAY)


def known(row: Row) -> tuple[list[tuple[str, dict[str, float]]], dict[str, float]]:
    """Return the causes of a row with their amounts, and what is unexplained."""
    return [(cause.code, dict(cause.amounts)) for cause in row.causes], dict(row.unexplained)


def test_what_is_missing_without_a_word() -> None:
    """A difference of which nothing is known is unexplained, with the requests that are no call here."""
    (row,) = compared([there(5, requests=3, input_tokens=30)], [here(5, input_tokens=10)]).rows
    assert ([], {"input_tokens": -20, "requests": -2}) == known(row)


def test_what_is_more_without_a_word() -> None:
    """So is what is more here than there."""
    (row,) = compared([there(5, input_tokens=10)], [here(5, input_tokens=11)]).rows
    assert ([], {"input_tokens": 1}) == known(row)


def test_a_day_that_is_not_over() -> None:
    """Of yesterday and today their numbers may still be coming, so more here is no riddle; less is."""
    rows = compared(
        [there(18, input_tokens=10), there(19, input_tokens=10), there(20, input_tokens=20)],
        [here(18, input_tokens=12), here(19, input_tokens=11), here(20, input_tokens=1)],
    ).rows
    assert [
        ([], {"input_tokens": 2}),
        ([("not_over", {})], {}),
        ([], {"input_tokens": -19}),
    ] == [known(row) for row in rows]


@pytest.mark.parametrize(
    ("status", "code"), [("missing", "no_usage"), ("partial", "part_of_usage")]
)
@pytest.mark.parametrize(
    ("requests", "unexplained"), [(3, {}), (4, {"input_tokens": -20, "requests": -1})]
)
def test_calls_without_usage(
    status: str, code: str, requests: int, unexplained: dict[str, float]
) -> None:
    """They explain what is missing, unless there are more requests there than calls here: nobody knows their share."""
    (row,) = compared(
        [there(5, requests=requests, input_tokens=30)],
        [here(5, input_tokens=10), here(5, status=status, events=2)],
    ).rows
    assert ([(code, {})], unexplained) == known(row)


def test_calls_without_usage_where_requests_are_not_known() -> None:
    """What may be in several of their surfaces cannot be counted, so it cannot be told that no call is missing."""
    (row,) = compared(
        [
            there(5, requests=100, input_tokens=9000),
            there(5, surface="images", requests=1, images=1),
        ],
        [here(5, input_tokens=10), here(5, status="missing"), here(5, images=1)],
    ).rows
    assert ([("no_usage", {})], {"input_tokens": -8990}) == known(row)


def test_calls_without_usage_elsewhere() -> None:
    """What is not known of another host is no cause of what is missing at theirs."""
    (row,) = compared(
        [there(5, input_tokens=30)],
        [here(5, input_tokens=10), here(5, status="missing", host="gw.test", events=2)],
    ).rows
    assert ([], {"input_tokens": -20}) == known(row)


def test_calls_that_used_nothing() -> None:
    """A refused call is no request there, so it hides none that is missing."""
    (row,) = compared(
        [there(5, requests=2, input_tokens=30)],
        [here(5, input_tokens=10), here(5, status="not_applicable", events=7)],
    ).rows
    assert ([], {"input_tokens": -20, "requests": -1}) == known(row)


@pytest.mark.parametrize(
    ("since", "model", "host", "explains"),
    [
        (5, None, HOST, True),
        (4, None, HOST, True),
        (3, None, HOST, True),
        (2, None, HOST, False),
        (6, None, HOST, False),
        (5, "gpt-5-mini", HOST, True),
        (5, MODEL, HOST, True),
        (5, "gpt-4o", HOST, False),
        (5, None, "eu.api.openai.com", True),
        (5, None, "groq.test", False),
    ],
)
def test_open_jobs(since: int, model: str | None, host: str, explains: bool) -> None:
    """A job that nobody has asked for may be what is missing: of that model, there, and not days before or after."""
    job = open_job("batch_1", at(since) + 60)._replace(model=model, host=host)
    (row,) = compared(
        [there(5, requests=9, input_tokens=30)], [here(5, input_tokens=10)], jobs=[job]
    ).rows
    if explains:
        assert ([("open_jobs", {})], {}) == known(row)
    else:
        assert ([], {"input_tokens": -20, "requests": -8}) == known(row)


@pytest.mark.parametrize(
    ("since", "by", "explains"),
    [(5, ("model",), True), (3, ("model",), True), (2, ("model",), False), (7, ("model",), False)],
)
def test_open_jobs_of_the_time(since: int, by: tuple[str, ...], explains: bool) -> None:
    """Also where no days are compared, a job is of the time only if it was started shortly before or in it."""
    job = open_job("batch_1", at(since) + 60)
    (row,) = compared(
        [there(5, requests=9, input_tokens=30), there(6, input_tokens=1)],
        [here(5, input_tokens=10)],
        jobs=[job],
        by=by,
    ).rows
    assert explains is (not row.unexplained)


@pytest.mark.parametrize(
    ("requests", "unexplained"), [(3, {}), (5, {"input_tokens": -20, "requests": -2})]
)
def test_open_responses(requests: int, unexplained: dict[str, float]) -> None:
    """A response in the background is one request; where more are missing, they are something else."""
    jobs = [open_job(f"resp_{number}", at(5))._replace(endpoint="responses") for number in range(2)]
    (row,) = compared(
        [there(5, requests=requests, input_tokens=30)], [here(5, input_tokens=10)], jobs=jobs
    ).rows
    assert ([("open_jobs", {})], unexplained) == known(row)


@pytest.mark.parametrize("endpoint", ["fine_tuning.jobs", "videos"])
def test_open_jobs_that_are_not_counted(endpoint: str) -> None:
    """What is in no surface of theirs explains nothing."""
    job = open_job("job_1", at(5))._replace(endpoint=endpoint)
    (row,) = compared([there(5, input_tokens=30)], [here(5, input_tokens=10)], jobs=[job]).rows
    assert ([], {"input_tokens": -20}) == known(row)


def test_other_hosts() -> None:
    """Usage at another host explains as much as it is, and counts where it is said to be theirs."""
    theirs = [there(5, requests=3, input_tokens=30)]
    ours = [here(5, input_tokens=10), here(5, host="gw.test", input_tokens=15)]
    found = compared(theirs, ours)
    assert ([("other_host", {"input_tokens": 15})], {"input_tokens": -5, "requests": -2}) == known(
        found.rows[0]
    )
    assert {"gw.test": {"requests": 1, "input_tokens": 15}} == found.elsewhere
    counted = compared(theirs, ours, hosts=("gw.test",))
    assert [] == counted.notes
    assert [
        "Nothing was recorded at the host 'gw.test:443' in this time; expected is a name, without a port, as "
        "cmdrdata usage --by host shows it."
    ] == compared(theirs, ours, hosts=("gw.test:443",)).notes
    assert ([], {"input_tokens": -5, "requests": -1}) == known(counted.rows[0])
    assert {} == counted.elsewhere


def test_a_host_that_an_earlier_version_did_not_record() -> None:
    """Nobody knows whether it was theirs; it counts only where somebody says so."""
    theirs, ours = [there(5, input_tokens=30)], [here(5, host="", input_tokens=30)]
    found = compared(theirs, ours)
    assert ([("other_host", {"input_tokens": 30})], {}) == known(found.rows[0])
    assert "usage recorded by an earlier version, without its host, which is not counted here" == (
        found.rows[0].causes[0].text
    )
    assert ([], {}) == known(compared(theirs, ours, hosts=("",)).rows[0])


def test_hosts_of_openai() -> None:
    """The hosts of its regions are its own; a name that only looks like it is not."""
    found = compared(
        [there(5, input_tokens=20)],
        [here(5, host=f"us.{HOST}", input_tokens=20), here(5, host=f"x{HOST}", input_tokens=20)],
    )
    assert 20 == found.totals["input_tokens"].ours
    assert [f"x{HOST}"] == list(found.elsewhere)


def test_over_midnight() -> None:
    """A call of 23:59 is of the next day here; only the very same amounts are taken for that."""
    theirs = [there(5, requests=2, input_tokens=30), there(6, input_tokens=7)]
    same = compared(theirs, [here(5, input_tokens=20), here(6, events=2, input_tokens=17)]).rows
    assert [([("next_day", {"input_tokens": 10})], {})] * 2 == [known(row) for row in same]
    other = compared(theirs, [here(5, input_tokens=20), here(6, events=2, input_tokens=16)]).rows
    assert [([], {"input_tokens": -10, "requests": -1}), ([], {"input_tokens": 9})] == [
        known(row) for row in other
    ]


def test_jobs_whose_end_was_seen_later() -> None:
    """What is more here on the day of their end, and all of it theirs, is missing on the nearest day before."""
    theirs = [there(day, requests=10, input_tokens=100) for day in (3, 5, 9)]
    ours = [
        here(3, events=4, input_tokens=40),
        here(5, events=3, input_tokens=30),
        here(9, events=10, input_tokens=100),
        here(9, endpoint="batches", batch_requests=5, input_tokens=50),
    ]
    rows = compared(theirs, ours).rows
    assert [
        ([], {"input_tokens": -60, "requests": -6}),
        ([("jobs_seen_later", {"input_tokens": 50})], {"input_tokens": -20, "requests": -7}),
        ([("jobs_seen_later", {"input_tokens": 50})], {}),
    ] == [known(row) for row in rows]
    ours[-1] = here(9, endpoint="responses", events=5, input_tokens=50)
    assert {"input_tokens": 50} == compared(theirs, ours).rows[-1].unexplained


@pytest.mark.parametrize(
    ("ours", "code"),
    [("gpt-5-mini", "other_name"), ("unknown", "not_told"), ("gpt-5", None)],
)
def test_other_names(ours: str, code: str | None) -> None:
    """A model without its date may be the same one; an event may not know its model at all."""
    rows = compared(
        [there(5, input_tokens=30)], [here(5, input_tokens=10), here(5, ours, input_tokens=15)]
    ).rows
    found = {row.group[1]: known(row) for row in rows}
    if code is None:
        assert {MODEL: ([], {"input_tokens": -20}), ours: ([], {"input_tokens": 15})} == found
    else:
        moved = [(code, {"input_tokens": 15})]
        assert {MODEL: (moved, {"input_tokens": -5}), ours: (moved, {})} == found


def test_two_dates_of_a_model() -> None:
    """They are two models with prices of their own: what is more of one makes up for nothing of the other."""
    rows = compared(
        [there(5, "gpt-4o-2024-05-13", input_tokens=30)],
        [
            here(5, "gpt-4o-2024-05-13", input_tokens=10),
            here(5, "gpt-4o-2024-08-06", input_tokens=20),
        ],
    ).rows
    assert [([], {"input_tokens": -20}), ([], {"input_tokens": 20})] == [known(row) for row in rows]


def test_what_was_never_metered() -> None:
    """A model, or a kind of usage, of which nothing was recorded in all this time is said to be that."""
    rows = compared(
        [
            there(5, input_tokens=30),
            there(5, "o4-mini", input_tokens=7),
            there(5, "whisper-1", "audio_transcriptions", audio_seconds=60),
        ],
        [here(5, input_tokens=30), here(5, "whisper-1", events=1)],
    ).rows
    assert [
        ([], {}),
        ([("not_metered", {"input_tokens": 7})], {}),
        ([("not_metered", {"audio_seconds": 60})], {}),
    ] == [known(row) for row in rows]


def test_before_the_first_event() -> None:
    """Before the ledger began there is nothing to compare with."""
    rows = compared(
        [there(4, input_tokens=30), there(5, input_tokens=30)],
        [here(5, input_tokens=10)],
        first="2026-11-05",
    ).rows
    assert [([("before_the_ledger", {})], {}), ([], {"input_tokens": -20})] == [
        known(row) for row in rows
    ]


SECONDS: list[tuple[float, Any]] = [
    (59.5, ([("whole_seconds", {"audio_seconds": 0.5})], {})),
    (60.5, ([("whole_seconds", {"audio_seconds": 0.5})], {})),
    (59.4, ([], {"audio_seconds": pytest.approx(-0.6)})),
]


@pytest.mark.parametrize(("ours", "expected"), SECONDS)
def test_whole_seconds(ours: float, expected: Any) -> None:
    """Each request may be half a second more or less, and not more than that."""
    (row,) = compared(
        [there(5, "whisper-1", "audio_transcriptions", audio_seconds=60)],
        [here(5, "whisper-1", "audio.transcriptions", audio_seconds=ours)],
    ).rows
    assert expected == known(row)


def test_months_of_which_only_the_sum_is_known() -> None:
    """Their days are added up to that month, if all of them are there."""
    days = [there(day, input_tokens=10) for day in range(1, 31)]
    found = compared(days, [here("2026-11", events=30, input_tokens=290)], first="2026-11")
    assert [("2026-11", MODEL)] == [row.group for row in found.rows]
    assert (300, 290) == found.rows[0].units["input_tokens"]
    part = compared(days[:-1], [here("2026-11", events=30, input_tokens=290)], first="2026-11")
    assert 0 == part.totals["input_tokens"].ours
    assert [("completions", {"input_tokens": 290}, "of days that are not in what was given")] == (
        part.uncompared
    )


def test_what_is_not_compared() -> None:
    """What one side does not count is named, with the reason; it is in no total."""
    found = compared(
        [
            there(5, input_tokens=30),
            TheirLine("vector_stores", at(5), at(6), units={"vector_store_bytes": 9}),
        ],
        [
            here(5, input_tokens=30, reasoning_output_tokens=4, total_tokens=30),
            here(6, input_tokens=8),
            here(5, "text-embedding-3-small", "embeddings", input_tokens=6),
        ],
    )
    assert [
        ("completions", {"input_tokens": 8}, "of days that are not in what was given"),
        ("completions", {"reasoning_output_tokens": 4}, "their usage does not tell it"),
        ("embeddings", {"input_tokens": 6}, "no usage of it was given"),
        (
            "vector_stores",
            {"vector_store_bytes": 9},
            "storage is charged by the day, no call uses it",
        ),
    ] == found.uncompared
    assert {"requests": (1, 1), "input_tokens": (30, 30)} == found.totals


def test_coverage_is_of_each_row() -> None:
    """What is more in one row makes up for nothing in another."""
    found = compared(
        [there(5, input_tokens=50), there(6, input_tokens=50)],
        [here(5, input_tokens=80), here(6, input_tokens=20)],
    )
    assert (100, 100) == found.totals["input_tokens"]
    assert 0.7 == found.covered["input_tokens"] == found.lowest


@pytest.mark.parametrize("by", ["model", "project", "tier", "key"])
def test_by_what_they_do_not_tell(by: str) -> None:
    """What theirs is not grouped by, nothing can be compared by."""
    line = there(5, input_tokens=5)._replace(told=frozenset[str]())
    with pytest.raises(LayoutError, match=f"cannot be compared by {by}; ask the usage API with"):
        compared([line], [], by=(by,))
