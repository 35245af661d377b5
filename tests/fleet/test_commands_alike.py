"""What the commands say of a fleet's ledger is what they say of one host's that has the same events."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.cli.reconcile.compare import JOBS_ELSEWHERE
from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.records import decode
from cmdrdata_exporter.fleet.arrivals import Arrival
from cmdrdata_exporter.fleet.connection import name_of
from cmdrdata_exporter.fleet.store import FleetLedger
from tests.engines.postgres import Postgres
from tests.fleet.samples import NOW
from tests.ledgers import fill
from tests.usage_months import SURFACES, Month

CALLS = 600
Of = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def month() -> Month:
    """A month with gaps on our side."""
    return Month(CALLS)


@pytest.fixture(scope="module")
def spool(month: Month, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spool directory of a host that has recorded that month."""
    spool = tmp_path_factory.mktemp("spool")
    local = Directory.prepare(spool, None, "default")
    fill(local, month.records, local=True, index=10_000)
    return spool


@pytest.fixture(scope="module")
def fleet(month: Month, postgres: Postgres) -> str:
    """The URL of a ledger to which the same events have come."""
    url = postgres.database()
    ledger = FleetLedger(url, clock=lambda: NOW)
    events = [each for each in map(decode, month.records) if isinstance(each, Event)]
    ledger.store([Arrival(each.id, each.body, "web-1", "event") for each in events])
    ledger.close()
    return url


@pytest.fixture(scope="module")
def files(month: Month, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files of the provider's side."""
    paths = [tmp_path_factory.mktemp("theirs") / f"{surface}.json" for surface in SURFACES]
    fields = ("model", "project_id", "api_key_id", "batch", "service_tier")
    for path, text in zip(paths, month.documents(fields), strict=True):
        path.write_text(text, encoding="utf-8")
    return list(map(str, paths))


@pytest.fixture
def of(
    spool: Path, fleet: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Of:
    """Run a command; return its status, what it prints and what it says, with the same name for both ledgers."""
    monkeypatch.setenv("CMDRDATA_SPOOL_DIR", str(spool))
    monkeypatch.setenv("COLUMNS", "120")

    def of(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cmdrdata(list(arguments), prog_name="cmdrdata")
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, named(out, fleet), named(err, fleet)

    return of


def named(text: str, fleet: str) -> str:
    """Return a text in which both ledgers have the same name."""
    return text.replace(name_of(fleet), "LEDGER").replace("local", "LEDGER")


@pytest.mark.parametrize("form", [("--json",), ("--csv",), ()])
@pytest.mark.parametrize("by", ["day,model", "project,tier", "model", "day"])
def test_reconcile(of: Of, fleet: str, files: list[str], by: str, form: tuple[str, ...]) -> None:
    """Every row and every cause is the same, but for open jobs, which hosts alone know: that is said."""
    asked = ("reconcile", *files, "--by", by, "--check", "90", *form)
    host, ours = of(*asked), of(*asked, "--ledger", fleet)
    assert host[0] == ours[0]
    if form == ("--json",):
        document, other = json.loads(host[1]), json.loads(ours[1])
        assert other == document | {"notes": [*document["notes"], JOBS_ELSEWHERE]}
        assert host[2] == ours[2]
    else:
        words = " ".join("".join(ours[1:]).split())
        rest = words.replace(f"Note: {JOBS_ELSEWHERE}", "").replace(JOBS_ELSEWHERE, "")
        assert rest != words
        assert "".join(host[1:]).split() == rest.split()


USAGE = (
    ("usage", "--by", "customer,model", "--json"),
    ("usage", "--by", "day,endpoint,service_tier,host", "--csv"),
    ("usage", "--since", "2026-10-03", "--until", "2026-10-09", "--by", "hour"),
    ("usage", "--by", "month,project,key"),
    ("usage", "--by", "model", "--cost"),
    ("usage", "--customer", "acme", "--only", "billed", "--json"),
    ("usage", "--customer", "nobody"),
    ("usage", "--focus"),
    ("usage", "--focus", "--cost"),
    ("events", "list"),
    ("events", "export"),
    ("held", "list"),
    ("dead-letters", "list", "--json"),
)


@pytest.mark.parametrize("asked", USAGE, ids=" ".join)
def test_usage_and_events(of: Of, fleet: str, asked: tuple[str, ...]) -> None:
    """Usage is the same in every form, and so are the events."""
    assert of(*asked) == of(*asked, "--ledger", fleet)


@pytest.mark.parametrize(
    "asked",
    [
        ("list", "--limit", "1000", "--since", "2026-10-24"),
        ("list", "--model", "tts-1", "--since", "2026-10-24"),
        ("show", f"{7:032x}"),
    ],
    ids=" ".join,
)
def test_events(of: Of, fleet: str, asked: tuple[str, ...]) -> None:
    """The events that are found are the same. What a host's index has of older ones is its own affair."""
    asked = ("events", *asked, "--json")
    found = [json.loads(of(*asked, *more)[1])["events"] for more in ((), ("--ledger", fleet))]
    assert found[0]
    assert found[0] == found[1]


def test_a_report(of: Of, fleet: str, tmp_path: Path) -> None:
    """The report to look at is the same, to the last number."""
    texts: list[str] = []
    for more in ((), ("--ledger", fleet)):
        file = tmp_path / f"{len(texts)}.html"
        assert of("usage", "--html", str(file), "--by", "model", *more)[0] == 0
        texts.append(named(file.read_text(encoding="utf-8"), fleet))
    assert texts[0] == texts[1]
