"""`cmdrdata dashboard` over HTTP: who may read it, what every response says, and what the page is told."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode, urlsplit

import pytest

from cmdrdata_exporter.cli import terminal
from cmdrdata_exporter.cli.dashboard import PAGE, command
from cmdrdata_exporter.cli.dashboard.answers import LISTED, NEWEST, Answers
from cmdrdata_exporter.cli.dashboard.over_time import RANGES
from cmdrdata_exporter.cli.dashboard.server import DashboardServer
from cmdrdata_exporter.cli.states import NO_CUSTOMER
from cmdrdata_exporter.cli.status import status_of
from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.spool.directory import LEDGER, Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.version import VERSION
from tests import used
from tests.cli.conftest import Run
from tests.cli.test_hostile import HOSTILE
from tests.dashboards import serving
from tests.ledgers import DELIVERED, KEY, NOW, REFUSED, SEED, event_id, fill, record

CHAT = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}


class Answer(NamedTuple):
    """What a server has answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the document of an answer that went well."""
        assert 200 == self.status, self.body
        return json.loads(self.body)


class Reader:
    """Reads from a server."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.port = parts.port
        self.path = parts.path

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Return the answer to a request for a path below the token, or a whole one that begins with `/`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        whole = path if path.startswith("/") else self.path + path
        connection.request(method, whole, headers=headers)
        response = connection.getresponse()
        answer = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return answer

    def ask(self, name: str, **question: str) -> Any:
        """Return the answer to a question of the page."""
        return self.get(f"api/{name}?{urlencode(question)}").json()


Serve = Callable[..., DashboardServer]


@pytest.fixture
def serve(spool: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serve the spool directory, three minutes after what happened in it."""
    monkeypatch.setattr(terminal, "time", SimpleNamespace(time=lambda: NOW + 180))
    with contextlib.ExitStack() as stack:

        def serve(host: str = "127.0.0.1", first: str | None = None) -> DashboardServer:
            return stack.enter_context(
                serving(Answers(spool, first, clock=lambda: NOW + 180), host)
            )

        yield serve


@pytest.fixture
def reader(serve: Serve) -> Reader:
    """Read from a server of the spool directory."""
    return Reader(serve().url)


@pytest.fixture
def some(remote: Directory) -> Directory:
    """The ledger of some days."""
    fill(
        remote,
        [
            record(1, "acme"),
            record(2, "acme", day="2026-11-21", units={**CHAT, "audio_seconds": 2.5}),
            record(3, "globex", model="gpt-5", status="missing", units={}),
            record(4, "globex", day="2026-10-22"),
            record(5, "initech", day="2026-10-23"),
            record(6, None),
        ],
        [DELIVERED, REFUSED],
    )
    return remote


@pytest.mark.parametrize("path", ["", "page.css", "page.js", "plot.js", "uplot.js", "api/status"])
def test_without_the_token(reader: Reader, path: str) -> None:
    """Nothing is there without the token, with another one, or with a part of it."""
    token = reader.path.strip("/")
    for wrong in (
        "",
        f"{token[:-1]}/",
        f"{token}x/",
        f"{'0' * len(token)}/",
        "%C3%A9/",
    ):
        answer = reader.get(f"/{wrong}{path}")
        assert (404, b"404: Open the address that cmdrdata dashboard has printed.\n") == (
            answer.status,
            answer.body,
        )
    assert 200 == reader.get(path).status


def test_the_token_is_new_each_time(serve: Serve) -> None:
    """A token is long, of no pattern, and of one run alone."""
    tokens = {serve().token for _ in range(3)}
    assert 3 == len(tokens)
    assert all(re.fullmatch(r"[\w-]{24}", token) for token in tokens)


HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "", 200, "text/html"),
        ("GET", "page.css", 200, "text/css"),
        ("GET", "page.js", 200, "text/javascript"),
        ("GET", "icon.svg", 200, "image/svg+xml"),
        ("GET", "api/status", 200, "application/json"),
        ("GET", "api/nothing", 400, "application/json"),
        ("GET", "../page.css", 404, "text/plain"),
        ("GET", "uplot/LICENSE", 404, "text/plain"),
        ("GET", "/", 404, "text/plain"),
        ("POST", "api/status", 501, "text/plain"),
        ("DELETE", "", 501, "text/plain"),
    ],
)
def test_headers(reader: Reader, method: str, path: str, status: int, kind: str) -> None:
    """Every response, also a refusal, forbids all but our own scripts, and is neither cached nor told elsewhere."""
    answer = reader.get(path, method)
    headers = {name: value for name, value in answer.headers.items() if name != "Date"}
    assert (status, {**HEADERS, "Content-Type": f"{kind}; charset=utf-8"}) == (
        answer.status,
        {
            name: value
            for name, value in headers.items()
            if name not in ("Server", "Content-Length")
        },
    )
    assert ("cmdrdata ", str(len(answer.body))) == (headers["Server"], headers["Content-Length"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("LOCALHOST:9000", 200),
        ("[::1]:8765", 200),
        ("192.168.1.7", 200),
        ("evil.example", 403),
        ("evil.example:8765", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_hosts(reader: Reader, host: str, status: int) -> None:
    """A name that someone else may have resolve to this host is refused, with the token, too."""
    assert status == reader.get("api/status", Host=host).status


def test_a_host_by_name(serve: Serve) -> None:
    """The name that was given to listen at is served, too."""
    server = serve("localhost")
    server.host = "usage.test"
    assert server.serves("usage.test:8765")
    assert not server.serves("other.test")


def test_no_other_origin(reader: Reader) -> None:
    """Nothing allows a page of another origin to read an answer."""
    answer = reader.get("api/status", Origin="https://evil.example")
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_opened_once(serve: Serve) -> None:
    """The address that a browser's command line shows to others on this host works once."""
    server = serve()
    reader = Reader(server.url)
    once = urlsplit(server.url_once()).path
    assert server.token not in once
    first = reader.get(once)
    assert (303, reader.path) == (first.status, first.headers["Location"])
    assert 404 == reader.get(once).status


def contents(spool: Path) -> dict[str, tuple[str, int]]:
    """Return what is in every file of a directory, and when it was changed; but for what readers share."""
    return {
        str(path.relative_to(spool)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in spool.rglob("*")
        # SQLite's own: which reader reads what, and a log that is empty.
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def test_read_only(some: Directory, spool: Path, reader: Reader) -> None:
    """Whatever is asked, nothing in the spool directory changes."""
    before = contents(spool)
    for name in ("choices", "status"):
        reader.ask(name)
    for chosen in ("days", "months"):
        reader.ask("usage", destination=some.path.name, range=chosen)
    assert before == contents(spool)
    assert {0} == {path.stat().st_size for path in spool.rglob("*-wal")}


def test_choices(some: Directory, serve: Serve) -> None:
    """The page is told what may be chosen, and what to choose first."""
    found = Reader(serve(first=some.path.name).url).ask("choices")
    assert (VERSION, some.path.name) == (found["version"], found["first"])
    assert list(RANGES) == [one["value"] for one in found["ranges"]]


def test_status(some: Directory, local: Directory, spool: Path, reader: Reader) -> None:
    """The page says what `cmdrdata status` says: the same counts, the same words for what needs a person."""
    fill(local, [record(7)], local=True)
    expected = status_of(spool)["destinations"]
    found = reader.ask("status")
    assert [one["name"] for one in expected] == [one["name"] for one in found["destinations"]]
    for told, known in zip(found["destinations"], expected, strict=True):
        assert known["attention"] == told["attention"]
        counts = {state["word"].replace(" ", "_"): state["count"] for state in told["states"]}
        assert known["events"] == {"recorded": told["recorded"], **counts}
        assert told["recorded"] == sum(counts.values())
    assert "2026-11-21T18:36:20Z" == found["at"]
    assert any("1 held, no customer" in text for text in found["destinations"][0]["attention"])


def test_usage_by_customer(some: Directory, reader: Reader) -> None:
    """Sums and series are of the same periods, in the order of the unit; who used none of it has no bars."""
    found = reader.ask("usage", destination=some.path.name, unit="total_tokens")
    assert ("2026-10-23", "2026-11-21", 30) == (
        found["periods"][0],
        found["periods"][-1],
        len(found["periods"]),
    )
    once = {"events": 1, **CHAT}
    twice = {"events": 2, **{unit: 2 * amount for unit, amount in CHAT.items()}}
    assert [
        {"names": ["acme"], "units": {**twice, "audio_seconds": 2.5}, "at_least": False},
        {"names": ["initech"], "units": once, "at_least": False},
        {"names": ["no customer"], "units": once, "at_least": False},
        {"names": ["globex"], "units": {"events": 1}, "at_least": False},
    ] == found["rows"]
    assert {
        "events": 5,
        "input_tokens": 4000,
        "output_tokens": 80,
        "total_tokens": 4080,
        "audio_seconds": 2.5,
    } == found["total"]["units"]
    zeros = [0] * 28
    assert [
        {"names": ["acme"], "amounts": [*zeros, 1020, 1020]},
        {"names": ["initech"], "amounts": [1020, *zeros, 0]},
        {"names": ["no customer"], "amounts": [*zeros, 1020, 0]},
    ] == found["series"]
    assert [
        "5 events = 1 delivered + 2 pending + 1 held + 1 dead. Delivered alone: --only billed",
        "Totals are too low: 1 call reported no usage. To see which: --by endpoint,model,status",
    ] == found["notes"]
    billed = reader.ask("usage", destination=some.path.name, only="billed")
    assert (
        [{"names": ["acme"], "units": once, "at_least": False}],
        ["1 event = 1 delivered. Left out: 2 pending, 1 held, 1 dead."],
    ) == (billed["rows"], billed["notes"][:1])


def test_usage_by_month_of_one_customer(some: Directory, reader: Reader) -> None:
    """Months of the last year, of one customer alone, by two columns."""
    question = {"range": "months", "by": "customer,model", "customer": "globex"}
    found = reader.ask("usage", destination=some.path.name, **question)
    assert ("2025-12", "2026-11") == (found["periods"][0], found["periods"][-1])
    assert [
        {"names": ["globex", "gpt-5-mini"], "amounts": [*[0] * 10, 1, 0]},
        {"names": ["globex", "gpt-5"], "amounts": [*[0] * 11, 1]},
    ] == sorted(found["series"], key=lambda one: one["amounts"], reverse=True)


def test_a_customer_called_like_nobody(remote: Directory, reader: Reader) -> None:
    """Whoever is called "no customer" is not added to those who are nobody."""
    fill(remote, [record(1, NO_CUSTOMER), record(2, NO_CUSTOMER), record(3, None)])
    found = reader.ask("usage", destination=remote.path.name)
    assert [([NO_CUSTOMER], 2), ([NO_CUSTOMER], 1)] == [
        (row["names"], row["units"]["events"]) for row in found["rows"]
    ]


def test_many_groups(remote: Directory, reader: Reader) -> None:
    """Seven groups are told apart in the plot and the others are one; what is not listed is said."""
    fill(
        remote,
        [
            record(number, f"c{number:03}", units={"images": 1000 - number})
            for number in range(LISTED + 9)
        ],
    )
    found = reader.ask("usage", destination=remote.path.name, unit="images")
    assert LISTED == len(found["rows"])
    assert [*(f"c{number:03}" for number in range(7)), "202 others"] == [
        one["names"][0] for one in found["series"]
    ]
    assert found["total"]["units"]["images"] == sum(sum(one["amounts"]) for one in found["series"])
    assert "Not listed: 9 more groups. For all: cmdrdata usage --csv" == found["notes"][0]


def test_usage_by_hour(remote: Directory, reader: Reader) -> None:
    """Two days by the hour; what has no hour is said, and so is what the notes are of, which is whole days."""
    fill(
        remote,
        [
            used.record(1, "acme", at=NOW),
            used.record(2, "acme", at=NOW - 47 * 3600),
            used.record(3, "acme", at=NOW - 48 * 3600),
            record(4, day="2026-11-21"),
        ],
    )
    found = reader.ask("usage", destination=remote.path.name, range="hours")
    assert ("2026-11-19T19", "2026-11-21T18", 48) == (
        found["periods"][0],
        found["periods"][-1],
        len(found["periods"]),
    )
    assert [{"names": ["acme"], "amounts": [1, *[0] * 46, 1]}] == found["series"]
    assert [
        "Not shown: 1 event that an earlier version recorded without such a period. Choose a longer range",
        "Of the whole days since 2026-11-19:",
        "4 events = 4 pending. Delivered alone: --only billed",
    ] == found["notes"]


def test_usage_by_a_label(remote: Directory, reader: Reader) -> None:
    """The metadata keys that a ledger sums by may be chosen beside the columns that all have."""
    ledger = Ledger(remote, total_by=["plan"])
    with ledger.transaction():
        events = [
            used.record(number, "acme", plan=plan) for number, plan in enumerate(("pro", None))
        ]
        ledger.import_records(SEED, 0, events, [], NOW)
    ledger.close()
    found = reader.ask("usage", destination=remote.path.name, by="plan")
    assert {"value": "plan", "title": "plan"} == found["groupings"][-1]
    assert [None, "pro"] == sorted((row["names"][0] for row in found["rows"]), key=str)


@pytest.fixture
def indexed(remote: Directory) -> Directory:
    """The ledger of some events, with an index."""
    used.indexed(remote)
    fill(
        remote,
        [used.record(number, "acme", at=NOW - number) for number in range(30)],
        [DELIVERED, Outcome(Verdict.REFUSED, HOSTILE)],
    )
    return remote


def test_what_is_not_known_is_no_zero(remote: Directory, reader: Reader) -> None:
    """Zeros that stand in a body for usage that was not told are not shown; those that were told are."""
    zeros: dict[str, int | float] = {"input_tokens": 0, "output_tokens": 0}
    fill(
        remote,
        [
            record(1, "acme", status="missing", units=zeros),
            record(2, "acme", status="partial", units={**zeros, "input_tokens": 7}),
            record(3, "acme", status="reported", units=zeros),
        ],
    )
    assert [("missing", {}), ("partial", {"input_tokens": 7}), ("reported", zeros)] == [
        (event["usage"], event["units"])
        for number in (1, 2, 3)
        for event in reader.ask("find", id=event_id(number))["events"]
    ]


def test_find(indexed: Directory, local: Directory, reader: Reader) -> None:
    """An event of any destination is found by each of its ids, with what became of it."""
    fill(local, [used.record(40, None)], local=True)
    told = {
        "destination": indexed.path.name,
        "at": "2026-11-21 18:33:20",
        "customer": "acme",
        "model": "gpt-5-mini",
        "endpoint": "chat.completions",
        "state": "delivered",
        "reason": None,
        "usage": "reported",
        "units": CHAT,
        "id": event_id(0),
        "request_id": "req_0000",
        "response_id": "resp_0000",
        "trace_id": f"{1:032x}",
    }
    for text in (event_id(0), "resp_0000", "req_0000", f" {event_id(0)[:8]}"):
        assert {"events": [told], "text": "1 event found."} == reader.ask("find", id=text)
    (other,) = reader.ask("find", id="resp_0040")["events"]
    assert ("local", "held", NO_CUSTOMER) == tuple(
        other[name] for name in ("destination", "state", "customer")
    )
    assert 3 == len(reader.ask("find", id=f"{1:032x}")["events"])
    nothing = reader.ask("find", id="resp_9999")
    assert ([], True) == (nothing["events"], nothing["text"].startswith("No such event."))
    (dead,) = reader.ask("find", id="resp_0001")["events"]
    assert "dead" == dead["state"]
    assert [] == [text for text in texts(dead) if not text.isprintable()]


def test_find_where_one_ledger_cannot_be_read(
    indexed: Directory, local: Directory, reader: Reader
) -> None:
    """The others are looked at, and it is said which one was not."""
    (local.path / LEDGER).write_bytes(b"no database at all, but longer than a header is" * 30)
    found = reader.ask("find", id="resp_0002")
    expected = "1 event found. Not looked at: local, since the ledger cannot be read: file is not a database."
    assert (1, expected) == (len(found["events"]), found["text"])


def test_newest(indexed: Directory, reader: Reader) -> None:
    """The events whose calls have ended last, of any state, the last first; no more than can be looked at."""
    found = reader.ask("newest", destination=indexed.path.name)["events"]
    assert [event_id(number) for number in range(NEWEST)] == [event["id"] for event in found]
    assert ["delivered", "dead", "pending"] == [event["state"] for event in found[:3]]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({"destination": "other"}, "'other' is no destination; expected is one of: NAME"),
        ({"range": "years"}, "'years' is no range; expected is one of: hours, days, months"),
        ({"by": "key"}, "'key' is no grouping; expected is one of: customer, model, "),
    ],
)
def test_what_cannot_be_asked(
    some: Directory, reader: Reader, question: dict[str, str], expected: str
) -> None:
    """What was wrong is said, and what is expected."""
    answer = reader.get(f"api/usage?{urlencode({'destination': some.path.name, **question})}")
    error = json.loads(answer.body)["error"].replace(some.path.name, "NAME")
    assert (400, True) == (answer.status, error.startswith(expected)), error


def test_a_ledger_that_cannot_be_read(some: Directory, reader: Reader) -> None:
    """It is said, of the destination and where usage would be; the others are still shown."""
    (some.path / LEDGER).write_bytes(b"no database at all, but longer than a header is" * 30)
    (told,) = reader.ask("status")["destinations"]
    assert ["the ledger cannot be read: file is not a database"] == told["attention"]
    answer = reader.get(f"api/usage?destination={some.path.name}")
    assert (503, {"error": "the ledger cannot be read: file is not a database"}) == (
        answer.status,
        json.loads(answer.body),
    )


def test_before_the_first_event(spool: Path, reader: Reader) -> None:
    """Where there is nothing, the page is told where events would be."""
    found = reader.ask("status")
    assert [] == found["destinations"]
    assert found["nothing"].startswith(f"No events recorded in {spool} yet. ")


def texts(document: object) -> Iterator[str]:
    """Yield every text in a document."""
    if isinstance(document, dict):
        for pair in cast("dict[str, object]", document).items():
            yield from texts(list(pair))
    elif isinstance(document, list):
        for value in cast("list[object]", document):
            yield from texts(value)
    elif isinstance(document, str):
        yield document


def test_hostile_names(remote: Directory, reader: Reader) -> None:
    """What others have named is printable wherever it is told, the unit's name and an error, too."""
    fill(remote, [record(1, HOSTILE, model=HOSTILE, endpoint=HOSTILE, units={HOSTILE: 1})])
    answers = [
        reader.ask("usage", destination=remote.path.name, by="customer,model", unit=HOSTILE),
        json.loads(reader.get(f"api/usage?{urlencode({'destination': HOSTILE})}").body),
    ]
    assert [] == [text for text in texts(answers) if not text.isprintable()]
    assert 1 == len(answers[0]["rows"])


def test_no_key_and_no_content(some: Directory, reader: Reader) -> None:
    """The key is in no answer, though the environment has it."""
    bodies = [
        reader.get(path).body
        for path in ("", "api/choices", "api/status", f"api/usage?destination={some.path.name}")
    ]
    assert not [body for body in bodies if KEY.encode() in body]


def test_the_library_is_as_published() -> None:
    """The library's files are those that its README names, whose licence is beside them."""
    readme = (PAGE / "uplot" / "README.md").read_text()
    sums = dict(re.findall(r"SHA-256 of `([^`]+)`: `([0-9a-f]{64})`", readme))
    assert sums == {
        name: hashlib.sha256((PAGE / "uplot" / name).read_bytes()).hexdigest()
        for name in ("uPlot.iife.min.js", "uPlot.min.css")
    }
    assert "The MIT License" in (PAGE / "uplot" / "LICENSE").read_text()


def test_nothing_from_elsewhere() -> None:
    """The page names no other host, and has no style or script within its HTML."""
    html = (PAGE / "index.html").read_text()
    assert [] == re.findall(r"https?:|//|<style|style=|\son\w+=|<script(?! src)", html)


COMMAND = (sys.executable, "-c", "from cmdrdata_exporter.cli import main; main()", "dashboard")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command(some: Directory, number: signal.Signals) -> None:
    """It prints the address, serves until it is ended, says so, and has status 0 then."""
    with subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        opened, more = process.stdout.readline(), process.stdout.readline()
        reader = Reader(opened.removeprefix("Open ").rstrip())
        assert some.path.name == reader.ask("choices")["first"]
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert re.fullmatch(r"Open http://127\.0\.0\.1:\d+/[\w-]{24}/\n", opened)
    assert "Whoever has this address can read usage. Ctrl-C ends it.\n" == more
    assert (0, "Ended.\n", "") == (process.returncode, out, err)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader presses Ctrl-C as soon as it is served."""

    def serve_forever(_: DashboardServer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DashboardServer, "serve_forever", serve_forever)


def test_json(run: Run, ended: None) -> None:
    """A script is told the address, and nothing else."""
    done = run("dashboard", "--port", "0", "--json")
    assert (0, ["url"], "") == (done.returncode, list(json.loads(done.stdout)), done.stderr)


def test_beyond_this_host(run: Run, ended: None) -> None:
    """Whoever lets other hosts in is warned that nothing is encrypted."""
    done = run("dashboard", "--port", "0", "--host", "0.0.0.0")  # noqa: S104 - it is served to nobody
    assert 0 == done.returncode
    assert done.stderr.startswith("Warning: 0.0.0.0 can be reached from other hosts")


def test_open(run: Run, ended: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser is given an address without the token; where there is none, that is said."""
    opened: list[str] = []

    def browser(url: str) -> bool:
        opened.append(url)
        return len(opened) == 1

    monkeypatch.setattr(command.webbrowser, "open", browser)
    found, missing = (run("dashboard", "--port", "0", "--open") for _ in range(2))
    assert ("", "No browser was found here: open the address above.\n") == (
        found.stderr,
        missing.stderr,
    )
    token = re.findall(r"/([\w-]{24})/", found.stdout)[0]
    assert token not in opened[0]


def test_without_prices(some: Directory, spool: Path) -> None:
    """Where there are no prices, the page says why."""
    with serving(Answers(spool, prices="genai-prices is needed", clock=lambda: NOW)) as server:
        found = Reader(server.url).ask("usage", destination=some.path.name)
    assert "No cost is shown: genai-prices is needed." == found["notes"][-1]
    assert "cost in USD" not in found["total"]["units"]


def test_a_port_in_use(run: Run) -> None:
    """Whoever wants a port that is in use is told to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = run("dashboard", "--port", port)
    assert (2, f"Error: cannot listen at 127.0.0.1, port {port}: ") == (
        done.returncode,
        done.stderr.split("Address")[0],
    )


def test_a_host_that_is_none(run: Run) -> None:
    """A host that cannot be one is refused."""
    done = run("dashboard", "--host", "a" * 70, "--port", "0")
    assert (2, True) == (done.returncode, done.stderr.startswith("Error: cannot listen at aaa"))


def test_a_destination_that_is_not_there(some: Directory, run: Run) -> None:
    """A destination that is named must be there."""
    done = run("dashboard", "--destination", "other")
    assert (2, True) == (done.returncode, "--destination NAME" in done.stderr)


def test_a_reader_that_goes_away(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed of a reader that does not wait for the answer; any other fault is."""
    server = serve()

    def fault(error: Exception) -> str:
        try:
            raise error
        except type(error):
            server.handle_error(None, None)
        return capsys.readouterr().err

    assert ["", ""] == [fault(error) for error in (BrokenPipeError(), TimeoutError())]
    assert "ZeroDivisionError" in fault(ZeroDivisionError())
