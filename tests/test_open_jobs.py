"""Jobs whose end was not seen: kept on the disk, found again by any process, billed once to who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter import CmdrDataSpanExporter, customer_context
from cmdrdata_exporter.delivery.open_jobs import OpenJob, unnamed
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger_view import LedgerReader
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, jobs
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import VERSION, client
from tests.test_jobs import BY_NAME, QUEUED, RESPONDED, Kind, every_kind, poll, start

# The SDK says of what it still has that the provider will not have it for ever.
pytestmark = pytest.mark.filterwarnings("ignore:The (Assistants|Sora) API:DeprecationWarning")

PROGRAM = """
import os, signal, sys, time
import openai
from cmdrdata_exporter import customer_context
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor

CmdrDataInstrumentor().instrument()
sdk = openai.OpenAI(base_url=sys.argv[1], api_key="sk-test", max_retries=0)
events, kill = int(sys.argv[2]), sys.argv[3] == "kill"
with customer_context("acme", team="acme"):
    stream = sdk.responses.create(
        model="gpt-5-mini", input="the secret", stream=True, extra_body={"background": True}
    )
    for _ in range(events):
        next(stream)
    if not events:
        stream.close()
if kill:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def open_job(**changes: Any) -> OpenJob:
    """Return an open job without an id."""
    facts: dict[str, Any] = {
        "key": b"1" * 16,
        "host": "api.openai.com",
        "port": 443,
        "endpoint": "responses",
        "job_id": None,
        "path": None,
        "since": 100.0,
        "until": 110.0,
        "model": "gpt-5-mini",
        "payer": {"cmdrdata.customer.id": "acme"},
        "facts": {},
    }
    return OpenJob(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, True),
        ({"model": None}, True),
        ({"host": "elsewhere"}, False),
        ({"endpoint": "batches"}, False),
        ({"job_id": "resp_1"}, False),
        ({"model": "gpt-5-mini-2025-08-07"}, True),
        ({"model": "o3"}, False),
        ({"model": "gpt-5"}, False),
        ({"since": 108.0}, False),
        ({"until": 102.0}, False),
    ],
)
def test_a_job_without_an_id(changes: dict[str, Any], found: bool) -> None:
    """A job that told no id is the one that was created while its call was open, by its model."""
    job = open_job(**changes)
    seen = unnamed([job], "api.openai.com", "responses", 105, "gpt-5-mini-2025-08-07")
    assert seen == (job if found else None)


def test_jobs_of_two_customers() -> None:
    """Where two fit that are not of one customer, none is guessed; of one customer either will do."""
    one = open_job()
    same, other = (
        open_job(key=b"2" * 16, payer={"cmdrdata.customer.id": name}) for name in ("acme", "globex")
    )
    assert unnamed([one, same], "api.openai.com", "responses", 105, None) == one
    assert unnamed([one, other], "api.openai.com", "responses", 105, None) is None


@every_kind
def test_a_job_is_kept_until_its_end(kind: Kind, provider: Provider, meter: Meter) -> None:
    """What started a job is kept until its end is seen, with who pays and without content."""
    start(kind, "sync", provider)
    (job,) = meter.recorded.jobs.values()
    assert (job.job_id, f"/v1{job.path}") == (kind.id, kind.poll_path)
    assert job.payer == {"cmdrdata.customer.id": "acme", "cmdrdata.metadata.team": "acme"}
    assert "secret" not in repr(job)
    poll(kind, "sync", provider, kind.started)
    assert len(meter.recorded.jobs) == 1
    poll(kind, "sync", provider, kind.ended, kind.ended)
    assert meter.recorded.jobs == {}


@every_kind
def test_another_process_knows_who_started_it(
    kind: Kind, provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has not started a job bills it to who did, where both use one spool."""
    start(kind, "sync", provider)
    monkeypatch.setattr(jobs, "known", jobs.Jobs())
    poll(kind, "sync", provider, kind.ended)
    assert meter.events() == list(kind.events)
    assert meter.recorded.jobs == {}


@pytest.fixture
def spooled() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The instrumentor at work with the spool of the environment; what was recorded there."""
    CmdrDataInstrumentor().instrument(exporter=CmdrDataSpanExporter())
    yield recorded
    CmdrDataInstrumentor().uninstrument()


def directory() -> Directory:
    """Return the directory of events that stay here."""
    return Directory(Path(os.environ["CMDRDATA_SPOOL_DIR"]) / "local")


def recorded() -> list[dict[str, Any]]:
    """Return the events of the spool, once they are in its ledger."""
    import json

    from cmdrdata_exporter import runtime

    for delivery in runtime.process.deliveries:
        assert delivery.flush(10)
    with LedgerReader(directory()) as ledger:
        return [json.loads(kept.event.body) for kept in ledger.kept("local") if kept.event]


def opened() -> list[OpenJob]:
    """Return the jobs that are open in the spool."""
    with LedgerReader(directory()) as ledger:
        return ledger.open_jobs()


if VERSION >= (1, 66):
    import time

    BACKGROUND: dict[str, Any] = BY_NAME["background response"].start_arguments

    def now(facts: dict[str, Any]) -> dict[str, Any]:
        """Return a response that was created just now."""
        return {**facts, "created_at": int(time.time())}

    def events_of(response: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the first events of a background response."""
        return [
            {"type": f"response.{name}", "sequence_number": number, "response": response}
            for number, name in enumerate(("created", "in_progress"))
        ]

    @pytest.mark.parametrize("same", [True, False], ids=["same process", "another"])
    def test_a_background_stream_that_is_cut_before_its_first_event(
        same: bool,
        provider: Provider,
        meter: Meter,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It makes no event: the one is made when its end is seen, for who started it."""
        provider.answer("/v1/responses", Reply(events=events_of(now(QUEUED)), hold_after=0))
        with client(provider) as sdk, customer_context("acme", team="acme"):
            sdk.responses.create(stream=True, **BACKGROUND).close()
        assert meter.events() == []
        (job,) = meter.recorded.jobs.values()
        assert (job.job_id, job.path, job.model) == (None, None, "gpt-5-mini")
        if not same:
            monkeypatch.setattr(jobs, "known", jobs.Jobs())
        poll(BY_NAME["background response"], "sync", provider, now(RESPONDED), now(RESPONDED))
        (event,) = meter.events()
        assert (event["customer_id"], event["total_tokens"]) == ("acme", 35)
        assert event["metadata"]["usage_status"] == "reported"
        assert meter.recorded.jobs == {}

    def test_a_stream_that_is_no_job(provider: Provider, meter: Meter) -> None:
        """A stream in the foreground that is cut has told all that will be known of it: an event."""
        provider.answer("/v1/responses", Reply(events=events_of(now(QUEUED)), hold_after=0))
        with client(provider) as sdk:
            sdk.responses.create(model="gpt-5-mini", input="x", stream=True).close()
        assert [event["metadata"]["usage_status"] for event in meter.events()] == ["partial"]
        assert meter.recorded.jobs == {}

    @pytest.mark.parametrize("how", ["kill", "end"])
    @pytest.mark.parametrize("seen", [0, 1])
    def test_a_process_that_is_killed(
        seen: int,
        how: str,
        provider: Provider,
        spooled: Callable[[], list[dict[str, Any]]],
    ) -> None:
        """A background stream that dies with its process is billed once, to its starter, when it is polled."""
        events = events_of(now(QUEUED))
        provider.answer("/v1/responses", Reply(events=events, hold_after=seen))
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, provider.url, str(seen), how],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == (-signal.SIGKILL if how == "kill" else 0), done.stderr
        (job,) = opened()
        assert job.job_id == (None if seen == 0 else "resp_1")
        response = {**RESPONDED, "created_at": int(job.since)}
        kind = BY_NAME["background response"]
        poll(kind, "sync", provider, response, response)
        (event,) = spooled()
        assert (event["customer_id"], event["total_tokens"]) == ("acme", 35)
        assert opened() == []
