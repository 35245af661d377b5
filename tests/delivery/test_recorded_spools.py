"""Spools of earlier versions, with events in every state: this version drains them right."""

from __future__ import annotations

import tarfile
import time
from collections import Counter
from pathlib import Path

import pytest

from cmdrdata_exporter.delivery import Outcome
from cmdrdata_exporter.delivery.destination import LOCAL, Destination
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.options import Options
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import Command, encode_command, key_of
from cmdrdata_exporter.delivery.spool.salvage import salvage
from cmdrdata_exporter.delivery.usage import Question
from tests.delivery.samples import DELIVERED, REFUSED, counts

SPOOLS = Path(__file__).parents[1] / "recorded" / "spools"
ENDPOINT, ACCOUNT = "http://127.0.0.1:1/events", "recorded"


def number(event_id: str) -> int:
    """Return the number that the id of a recorded event begins with."""
    return int(event_id[:4])


@pytest.fixture(params=sorted(SPOOLS.glob("*.tar.gz")), ids=lambda path: path.name.split(".")[0])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A spool as an earlier version left it, whose process was killed."""
    path = tmp_path / request.param.name.split(".")[0]
    path.mkdir(mode=0o700)
    with tarfile.open(request.param) as archive:
        # Python before 3.11.4 has no filters: https://docs.python.org/3/library/tarfile.html#supporting-older-python-versions
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(path)  # noqa: S202 - our own archive
    return path


def kept(directory: Directory, state: str) -> dict[int, str | None]:
    """Return the events in a state, with their reasons; those that are damaged have a negative number."""
    with LedgerReader(directory) as reader:
        found = list(reader.kept(state))
    return {number(each.event.id) if each.event else -1: each.reason for each in found}


JOBS = {"1": (), "2": ("batch_2", "batch_3"), "3": ("batch_2", "batch_3")}
"""The jobs of the provider that are open, by the version of the spool."""


def spool_version(spool: Path) -> str:
    """Return the version of a recorded spool."""
    return spool.name.removeprefix("version-")


def open_jobs(directory: Directory) -> list[str | None]:
    """Return the jobs of the provider that are open."""
    with LedgerReader(directory) as reader:
        return [job.job_id for job in reader.open_jobs()]


def test_before_it_is_drained(spool: Path) -> None:
    """Commands read a ledger of an earlier version before anything has changed it."""
    directory = Directory(spool / Destination(ENDPOINT, ACCOUNT).name)
    assert counts(directory) == {
        "recorded": 30,
        "delivered": 5,
        # Six in the ledger, and ten in journals only.
        "pending": 16,
        "in_flight": 2,
        "held": 3,
        "dead": 3,
        "dropped": 1,
        "repeated": 1,
        "ambiguous": 2,
        "assigned": 1,
        "expired": 1,
        "unspooled": 3,
    }
    assert open_jobs(directory) == list(JOBS[spool_version(spool)])
    with LedgerReader(directory) as reader:
        number_of_jobs, oldest = reader.count_open_jobs()
    # An earlier version has no table; what is in journals only is not counted.
    assert (number_of_jobs > 0) == (oldest is not None) == ("1" != spool_version(spool))


def test_every_state(spool: Path) -> None:
    """All that was to be sent is sent once with its bytes; the rest is where it was, and the accounts are exact."""
    directory = Directory.prepare(spool, ENDPOINT, ACCOUNT)
    posted: dict[int, bytes] = {}
    times: Counter[int] = Counter()

    def post(event_id: str, body: bytes, timeout: float) -> Outcome:
        times[number(event_id)] += 1
        posted[number(event_id)] = body
        # It is refused once more.
        return REFUSED if number(event_id) == 10 else DELIVERED

    delivery = DurableDelivery(directory, Options(post=post))
    delivery.start()
    deadline = time.monotonic() + 30
    # Whether the writer of a journal has gone is looked at once a second.
    while directory.journals() and time.monotonic() < deadline:
        assert delivery.flush(30)
    delivery.close(5)
    # Pending, in flight, replayed, assigned, and from the journals; not what was delivered before, nor what is damaged.
    sent = {10, 20, 30, 31, 40, 41, 50, 51, 100, 102, 103, 104, 106, 107, 108, 109}
    assert times == dict.fromkeys(sent, 1)
    assert b'"initech"' in posted[20]
    assert all(b'"acme"' in body for each, body in posted.items() if each != 20)
    assert kept(directory, "held") == {21: "no customer", 23: "ambiguous", 101: "no customer"}
    assert kept(directory, "dead") == {
        10: "HTTP 400: no such model",
        11: "HTTP 422: no such model",
        13: "expired",
        -1: "damaged",
    }
    assert counts(directory) == {
        "recorded": 28,
        "delivered": 20,
        "held": 3,
        "dead": 4,
        "dropped": 1,
        "repeated": 3,
        # Two had been in flight when the process was killed.
        "ambiguous": 4,
        "assigned": 2,
        "replayed": 1,
        "expired": 1,
        "unspooled": 3,
        # One in a journal, the end of another, and a row.
        "damaged": 3,
    }
    assert directory.journals() == []
    assert open_jobs(directory) == list(JOBS[spool_version(spool)])
    with LedgerReader(directory) as reader:
        assert reader.count_open_jobs()[0] == len(JOBS[spool_version(spool)])
        # What was delivered is known where its id may come again.
        known = {each: reader.knows(key_of(f"{each:04d}{each:028x}"), 0.0) for each in (1, 2, 3)}
        totals = {total.group: total.amount for total in reader.usage.totals(["month", "customer"])}
        days = {total.group[0] for total in reader.usage.totals(["day"])}
    assert known == {1: False, 2: True, 3: True}
    assert days == {"2026-07", "2026-11-20"}
    assert totals[("2026-07", "acme")] == 20


USED = {
    ("", "2026-11-20"): 2000,
    ("acme", "2026-07"): 1000,
    ("acme", "2026-11-20"): 16000,
    ("globex", "2026-11-20"): 1000,
}
"""The input tokens by customer and day in the ledger of a recorded spool, before anything is imported."""
OF_ACME = {
    "pending": (6, {"input_tokens": 5000, "output_tokens": 100}),
    "in_flight": (2, {"input_tokens": 2000, "output_tokens": 40}),
    "held": (1, {"input_tokens": 1000, "output_tokens": 20}),
    "dead": (3, {"input_tokens": 3000, "output_tokens": 60}),
    "dropped": (1, {"input_tokens": 1000, "output_tokens": 20}),
}
"""What of it is not delivered; one of the pending events is damaged."""


@pytest.mark.parametrize("migrated", [False, True])
def test_what_was_used(spool: Path, migrated: bool) -> None:
    """What an earlier version has summed is read the same before and after the migration, as far as it is known."""
    directory = Directory(spool / Destination(ENDPOINT, ACCOUNT).name)
    if migrated:
        Ledger(directory).close()
    has_groups = spool_version(spool) > "2"
    by = ("hour", "customer", "model", "provider", "service_tier", "plan")
    with LedgerReader(directory) as reader:
        tokens = {
            total.group: total.amount
            for total in reader.usage.totals(by)
            if total.unit == "input_tokens"
        }
        outside = reader.usage.outside(Question("2026-11-20", "2026-11-20", "acme"))
        billed = {
            total.unit: total.amount
            for total in reader.usage.totals(
                (), Question("2026-11-20", customer="acme", billed=True)
            )
        }
        dropped_before = reader.usage.dropped_before()
        assert reader.usage.labels() == (("plan",) if has_groups else ())
    known = ("openai", "flex", "pro") if has_groups else ("", "", "")
    hour = "T10" if has_groups else ""
    assert tokens == {
        (day if len(day) == 7 else f"{day}{hour}", customer, "gpt-5-mini", *known): amount
        for (customer, day), amount in USED.items()
    }
    # Of a damaged event an earlier version knew nothing, nor what it had dropped.
    expected: dict[str, tuple[int, dict[str, int]]] = OF_ACME
    if not has_groups:
        expected = OF_ACME | {"pending": (5, OF_ACME["pending"][1]), "dropped": (0, {})}
    assert outside == expected
    assert dropped_before == (0 if has_groups else 1)
    events = 16 - sum(number for number, _ in outside.values())
    # What the damaged one used is among it: nobody can tell.
    assert billed == {"events": events, "input_tokens": 16000 - 11000 - 1000 * has_groups} | {
        "output_tokens": 320 - 220 - 20 * has_groups
    }


def test_what_a_person_decides(spool: Path) -> None:
    """What an earlier version has counted moves with its event: assigned, or dropped."""
    directory = Directory(spool / Destination(ENDPOINT, ACCOUNT).name)
    ledger = Ledger(directory)
    with ledger.transaction():
        for action, each, customer in (("assign", 21, "initech"), ("drop", 11, None)):
            command = Command(action, (key_of(f"{each:04d}{each:028x}"),), customer)
            ledger.import_records("9.journal", 9, [encode_command(command)], [], time.time())
    ledger.close()
    with LedgerReader(directory) as reader:
        found = {
            total.group: total.amount
            for total in reader.usage.totals(("day", "customer"))
            if total.unit == "input_tokens"
        }
        dropped = reader.usage.outside()["dropped"]
    expected = {(day, customer): amount for (customer, day), amount in USED.items()}
    assert found == expected | {("2026-11-20", ""): 1000, ("2026-11-20", "initech"): 1000}
    number = 2 if spool_version(spool) > "2" else 1
    assert dropped == (number, {"input_tokens": 1000 * number, "output_tokens": 20 * number})


def test_a_damaged_ledger(spool: Path) -> None:
    """What can be read of a damaged ledger of an earlier version goes on, and its totals with it."""
    directory = Directory(spool / Destination(ENDPOINT, ACCOUNT).name)
    with LedgerReader(directory) as reader:
        before = list(reader.usage.totals(("day", "customer", "provider")))
        events = sum(
            1 for state in ("pending", "in_flight", "held", "dead") for _ in reader.kept(state)
        )
    assert salvage(directory, time.time())[1] == 0
    with LedgerReader(directory) as reader:
        assert before == list(reader.usage.totals(("day", "customer", "provider")))
        assert events == sum(
            1 for state in ("pending", "in_flight", "held", "dead") for _ in reader.kept(state)
        )
        assert [job.job_id for job in reader.open_jobs()] == list(JOBS[spool_version(spool)])


def test_what_stays(spool: Path) -> None:
    """Events of the destination `local` stay there, with those that its journals still hold."""
    directory = Directory.prepare(spool, None, ACCOUNT)
    assert directory.path.name == LOCAL
    assert counts(directory) == {"recorded": 3, "local": 1, "held": 1, "pending": 1}
    delivery = DurableDelivery(directory, Options(post=None))
    delivery.start()
    assert delivery.flush(30)
    delivery.close(5)
    assert counts(directory) == {"recorded": 3, "local": 2, "held": 1}
    assert set(kept(directory, "local")) == {200, 202}
