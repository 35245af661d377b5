"""`cmdrdata jobs`: what nobody has asked for is listed, and asked for with the application's key."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from cmdrdata_exporter import clocks
from cmdrdata_exporter.cli import terminal
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool import commands
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.jobs import COUNTER
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from cmdrdata_exporter.delivery.spool.records import Command, encode_command
from opentelemetry_instrumentation_cmdrdata import durable
from opentelemetry_instrumentation_cmdrdata.jobs import Key
from tests.cli.conftest import Run
from tests.ledgers import NOW
from tests.provider import Provider, Reply
from tests.sdk import VERSION

RunJson = Callable[..., tuple[int, Any]]


def batch(number: int, host: str = "api.openai.com", **changes: Any) -> OpenJob:
    """Return an open batch."""
    facts: dict[str, Any] = {
        "key": durable.key_of(Key(host, f"batch_{number}")),
        "host": host,
        "port": 443,
        "endpoint": "batches",
        "job_id": f"batch_{number}",
        "path": f"/batches/batch_{number}",
        "since": NOW + number,
        "until": NOW + number,
        "model": None,
        "payer": {"cmdrdata.customer.id": "acme", "cmdrdata.metadata.team": "core"},
        "facts": {},
    }
    return OpenJob(**{**facts, **changes})


UNNAMED = batch(
    9,
    key=b"9" * 16,
    endpoint="responses",
    job_id=None,
    path=None,
    model="gpt-5-mini",
    payer={},
)


def keep(directory: Directory, *jobs: OpenJob) -> None:
    """Have a process keep open jobs."""
    commands.append(
        directory, [encode_command(Command("job", (job.key,), job=job)) for job in jobs]
    )


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is three hours later."""
    monkeypatch.setattr(clocks, "wall", lambda: NOW + 3 * 3600)
    monkeypatch.setattr(terminal, "time", SimpleNamespace(time=clocks.wall))


WIDE = """\
 Job       Started   Customer      Model        Endpoint
──────────────────────────────────────────────────────────
 batch_1   3 h ago   acme                       batches
 unknown   3 h ago   no customer   gpt-5-mini   responses

unknown: the stream was left before it told the id; the job is billed when the
application asks for it.
"""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_list(columns: int, local: Directory, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each open job is listed, with who pays, how long ago it was started, in any terminal."""
    keep(local, batch(1), UNNAMED)
    monkeypatch.setenv("COLUMNS", str(columns))
    done = run("jobs", "--destination", "local")
    assert done.returncode == 0
    rows, _, note = done.stdout.partition("\n\n")
    expected_rows, _, expected_note = WIDE.partition("\n\n")
    assert rows == expected_rows
    assert note.split() == expected_note.split()
    assert max(map(len, done.stdout.splitlines())) <= columns


def test_json(local: Directory, run_json: RunJson) -> None:
    """Scripts get the same, as one document."""
    keep(local, batch(1))
    assert run_json("jobs", "--destination", "local") == (
        0,
        {
            "destination": "local",
            "jobs": [
                {
                    "job": "batch_1",
                    "endpoint": "batches",
                    "host": "api.openai.com",
                    "path": "/batches/batch_1",
                    "model": None,
                    "customer": "acme",
                    "started": "2026-11-21T18:33:21Z",
                    "age_seconds": 10799,
                }
            ],
            "given_up": 0,
        },
    )


def test_none(local: Directory, run: Run) -> None:
    """Where no job is open, that is said."""
    keep(local, batch(1))
    commands.append(local, [encode_command(Command("job_ended", (batch(1).key,), at=NOW + 60))])
    assert commands.import_journals(local)
    assert run("jobs", "--destination", "local").stdout == "No job of the provider is open.\n"


def test_what_is_given_up(local: Directory, run: Run) -> None:
    """A job that nobody saw to end for 30 days is forgotten, and counted."""
    keep(local, batch(1))
    assert commands.import_journals(local)
    ledger = Ledger(local, local=True)
    for days, number in ((29, 0), (31, 1)):
        with ledger.transaction():
            ledger.retention.expire(NOW + days * 86400)
        with LedgerReader(local) as reader:
            assert reader.counts().get(COUNTER, 0) == number
    ledger.close()
    assert run("jobs", "--destination", "local").stdout == (
        "No job of the provider is open.\n"
        "1 job not seen to end within 30 days given up: not billed.\n"
    )


def test_polling_needs_a_key(local: Directory, run: Run) -> None:
    """Without the key of the application nothing is asked."""
    keep(local, batch(1))
    done = run("jobs", "--destination", "local", "--poll")
    assert (done.returncode, done.stderr) == (
        2,
        "Error: OPENAI_API_KEY is not set; --poll asks with the key of the application\n",
    )


@pytest.mark.parametrize(
    "url", ["http://example.com/v1", "http://127.0.0.1.example.com/v1", "ftp://x", "https://[x"]
)
def test_where_no_key_goes(
    url: str, local: Directory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key goes over plain HTTP to this machine only, and to nothing that is no URL."""
    keep(local, batch(1))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    done = run("jobs", "--destination", "local", "--poll")
    assert done.returncode == 2
    assert "OPENAI_BASE_URL" in done.stderr
    assert "sk-hidden" not in done.stdout + done.stderr


if VERSION >= (2, 54):
    from tests.test_jobs import BATCH, BATCHED

    @pytest.fixture
    def asked(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
        """The provider that the environment names."""
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
        return provider

    def here(number: int) -> OpenJob:
        """Return an open batch of the stand-in."""
        return batch(number, "127.0.0.1")

    def events(directory: Directory) -> list[Any]:
        """Return the events of a directory: customer, metadata and tokens."""
        assert commands.import_journals(directory)
        with LedgerReader(directory) as ledger:
            bodies = [json.loads(kept.event.body) for kept in ledger.kept("local") if kept.event]
        return [
            (body["customer_id"], body["metadata"]["team"], body["total_tokens"]) for body in bodies
        ]

    def test_polling(
        local: Directory,
        asked: Provider,
        run_json: RunJson,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What has ended is billed to who started it, once; what runs, is gone or of another host stays."""
        monkeypatch.setenv("CMDRDATA_CUSTOMER_ID", "default")
        keep(local, here(1), here(2), here(3), batch(4), UNNAMED)
        asked.answer("/v1/batches/batch_1", Reply(json=BATCHED))
        asked.answer("/v1/batches/batch_2", Reply(json={**BATCH, "id": "batch_2"}))
        status, document = run_json("jobs", "--destination", "local", "--poll")
        assert (status, document["billed"]) == (1, 1)
        assert [(job["job"], job["polled"]) for job in document["jobs"]] == [
            ("batch_2", "running"),
            ("batch_3", "not found"),
            ("batch_4", "other host"),
            (None, "unknown id"),
        ]
        assert events(local) == [("acme", "core", 480)]
        assert {request.headers["authorization"] for request in asked.requests} == {
            "Bearer sk-test"
        }
        # Killed before its end was noted, it is asked for again, and is the same event.
        keep(local, here(1))
        run_json("jobs", "--destination", "local", "--poll")
        assert events(local) == [("acme", "core", 480)]

    def test_a_job_of_nobody(
        local: Directory,
        asked: Provider,
        run: Run,
        remote: Directory,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A job that was started for nobody is held, whatever customer is the default here."""
        monkeypatch.setenv("CMDRDATA_CUSTOMER_ID", "default")
        keep(remote, here(1)._replace(payer={}))
        asked.answer("/v1/batches/batch_1", Reply(json=BATCHED))
        done = run("jobs", "--poll")
        assert done.stdout == (
            "1 job asked for, 1 event recorded.\n"
            "No process sends them now: start the application, or run cmdrdata flush.\n"
            "No job of the provider is open.\n"
        )
        assert commands.import_journals(remote)
        with LedgerReader(remote) as ledger:
            assert [kept.reason for kept in ledger.kept("held")] == ["no customer"]

    @pytest.mark.parametrize(
        ("answer", "outcome"), [(401, "refused"), (403, "refused"), (500, "unreachable")]
    )
    def test_a_key_that_is_refused(
        answer: int, outcome: str, local: Directory, asked: Provider, run_json: RunJson
    ) -> None:
        """A wrong key, or a provider that fails, is tried with three jobs only; all are kept."""
        keep(local, *map(here, range(1, 6)))
        for number in range(1, 6):
            asked.answer(f"/v1/batches/batch_{number}", _failing(answer))
        status, document = run_json("jobs", "--destination", "local", "--poll")
        assert status == 1
        assert [job["polled"] for job in document["jobs"]] == [outcome] * 5
        assert len(asked.requests) == 3

    def _failing(status: int) -> Reply:
        return Reply(status=status, json={}, headers={"x-should-retry": "false"})

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [
            (_failing(400), "unreadable"),
            (_failing(403), "refused"),
            (_failing(500), "unreachable"),
            (Reply(content=b"<html>", headers={"content-type": "application/json"}), "unreadable"),
        ],
        ids=["400", "403", "500", "no-json"],
    )
    def test_one_job_that_cannot_be_asked_for(
        reply: Reply, outcome: str, local: Directory, asked: Provider, run_json: RunJson
    ) -> None:
        """It keeps no other one from being asked for and billed, and the command from no end in order."""
        keep(local, here(1), here(2))
        asked.answer("/v1/batches/batch_1", reply)
        asked.answer("/v1/batches/batch_2", Reply(json={**BATCHED, "id": "batch_2"}))
        status, document = run_json("jobs", "--destination", "local", "--poll")
        assert (status, document["billed"]) == (1, 1)
        assert [(job["job"], job["polled"]) for job in document["jobs"]] == [("batch_1", outcome)]

    @pytest.mark.filterwarnings("ignore:The Assistants API is deprecated")
    def test_betas(local: Directory, asked: Provider, run_json: RunJson) -> None:
        """What the provider gives only to those who name a beta is asked for as the SDK's own methods do."""
        run_path, session_path = "/threads/thread_1/runs/run_1", "/agents/sessions/sess_1/turns"
        keep(
            local,
            here(1),
            here(2)._replace(endpoint="beta.threads.runs", job_id="run_1", path=run_path),
            here(3)._replace(endpoint="agents.sessions", job_id="sess_1", path=session_path),
        )
        run_json("jobs", "--destination", "local", "--poll")
        polled = _betas(asked)
        assert polled == {
            "/v1/batches/batch_1": None,
            f"/v1{run_path}": "assistants=v2",
            f"/v1{session_path}": "agents=v1",
        }
        sdk: Any = openai.OpenAI(api_key="sk-test", base_url=asked.url, max_retries=0)
        with sdk as client:
            with contextlib.suppress(openai.NotFoundError):
                client.beta.threads.runs.retrieve("run_1", thread_id="thread_1")
            if VERSION >= (3, 57):
                with contextlib.suppress(openai.NotFoundError):
                    client.beta.agents.sessions.turns.list("sess_1")
        assert _betas(asked) == polled

    def _betas(provider: Provider) -> dict[str, str | None]:
        """Return the betas that the last request for each path has named."""
        return {one.path: one.headers.get("openai-beta") for one in provider.requests}
