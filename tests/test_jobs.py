"""Jobs of the provider are billed once, when their end is first seen, to who started them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest

from cmdrdata_exporter import customer_context, faults
from opentelemetry_instrumentation_cmdrdata import jobs
from opentelemetry_instrumentation_cmdrdata.jobs import LONGEST_AGE, Job, Jobs, Key, StartedJob
from tests import replies
from tests.metering import Meter, attributes
from tests.provider import Provider, Reply
from tests.sdk import FORMS, HELPER, VERSION, Form, client, make, method_of

# The SDK says of what it still has that the provider will not have it for ever.
pytestmark = pytest.mark.filterwarnings("ignore:The (Assistants|Sora) API:DeprecationWarning")

(PLAIN,) = (form for form in FORMS if form.name == "plain")
STREAM = next(form for form in FORMS if form.name == "stream")
ANSWERS = [form for form in FORMS if not form.streaming and form is not PLAIN]
STREAMING_BYTES = [form for form in FORMS if form.name in ("plain", "streaming-raw-bytes")]

WORLDS = ["sync", "async"]

# --- What the provider answers ----------------------------------------------------------------

QUEUED: dict[str, Any] = {
    **replies.RESPONSE,
    "background": True,
    "status": "queued",
    "output": [],
    "usage": None,
}
RESPONDED: dict[str, Any] = {**replies.RESPONSE, "background": True}

BATCH: dict[str, Any] = {
    "id": "batch_1",
    "object": "batch",
    "created_at": 1_700_000_010,
    "endpoint": "/v1/chat/completions",
    "model": "gpt-5-mini-2025-08-07",
    "status": "in_progress",
    "request_counts": {"total": 5, "completed": 0, "failed": 0},
}
BATCHED: dict[str, Any] = {
    **BATCH,
    "status": "completed",
    "request_counts": {"total": 5, "completed": 4, "failed": 1},
    "usage": {
        "input_tokens": 400,
        "input_tokens_details": {"cached_tokens": 40},
        "output_tokens": 80,
        "output_tokens_details": {"reasoning_tokens": 8},
        "total_tokens": 480,
    },
}

TUNING: dict[str, Any] = {
    "id": "ftjob-1",
    "object": "fine_tuning.job",
    "created_at": 1_700_000_011,
    "model": "gpt-4o-mini-2024-07-18",
    "status": "queued",
    "training_file": "file-1",
    "validation_file": None,
    "trained_tokens": None,
}
TUNED: dict[str, Any] = {**TUNING, "status": "succeeded", "trained_tokens": 5000}

RUN: dict[str, Any] = {
    "id": "run_1",
    "object": "thread.run",
    "created_at": 1_700_000_012,
    "thread_id": "thread_1",
    "assistant_id": "asst_1",
    "status": "queued",
    "model": "gpt-4o",
    "usage": None,
}
RAN: dict[str, Any] = {
    **RUN,
    "status": "completed",
    "usage": {"prompt_tokens": 60, "completion_tokens": 6, "total_tokens": 66},
}

VIDEO: dict[str, Any] = {
    "id": "video_1",
    "object": "video",
    "created_at": 1_700_000_013,
    "model": "sora-2",
    "status": "queued",
    "progress": 0,
    "seconds": "8",
    "size": "720x1280",
}
FILMED: dict[str, Any] = {**VIDEO, "status": "completed", "progress": 100}

EARLIER = ("earlier.mp4", b"\x00\x00\x00 ftypisom", "video/mp4")

EVALUATION: dict[str, Any] = {
    "id": "evalrun_1",
    "object": "eval.run",
    "created_at": 1_700_000_014,
    "eval_id": "eval_1",
    "name": "a run",
    "model": "gpt-4o",
    "status": "queued",
    "per_model_usage": None,
}
EVALUATED: dict[str, Any] = {
    **EVALUATION,
    "status": "completed",
    "per_model_usage": [
        {
            "model_name": model,
            "invocation_count": 3,
            "prompt_tokens": tokens,
            "completion_tokens": 3,
            "total_tokens": tokens + 3,
            "cached_tokens": 2,
        }
        for model, tokens in (("gpt-4o-2024-08-06", 70), ("o3-2025-04-16", 90))
    ],
}

# --- What must be recorded --------------------------------------------------------------------


def charge(
    endpoint: str,
    served_by: str,
    tokens: tuple[int, int, int],
    *,
    usage: dict[str, Any] | None = None,
    usage_status: str = "reported",
    request_model: str | None = None,
    customer: str | None = "acme",
    streaming: bool = False,
    **metadata: Any,
) -> dict[str, Any]:
    """Return a whole event, without what differs from run to run."""
    return {
        "customer_id": customer,
        "model": served_by,
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "total_tokens": tokens[2],
        "provider": "openai",
        "metadata": {
            **({"team": customer} if customer else {}),
            "service_tier": None,
            **metadata,
            "usage_status": usage_status,
            "endpoint": endpoint,
            "request_model": request_model,
            "server_address": "127.0.0.1",
            "usage": usage or {},
        },
        "version": "0.1.0",
        "error": {"occurred": False, "type": None, "code": None, "message": None},
        "request": {"streaming": streaming, "retry_count": 0, "success": True},
        **({"first_token": True} if streaming else {}),
    }


def but(facts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return facts, but for some changes."""
    return {**facts, **changes}


RESPONSE_CHARGE: dict[str, Any] = {
    "endpoint": "responses",
    "served_by": "gpt-5-mini-2025-08-07",
    "tokens": (23, 12, 35),
    "usage": {
        "cache_read_input_tokens": 8,
        "cache_write_input_tokens": 0,
        "reasoning_output_tokens": 5,
    },
    "response_id": "resp_1",
    "created": 1_700_000_002,
    "finish_reason": "stop",
    "service_tier": "default",
}
TUNING_CHARGE: dict[str, Any] = {
    "endpoint": "fine_tuning.jobs",
    "served_by": "gpt-4o-mini-2024-07-18",
    "tokens": (0, 0, 0),
    "job_id": "ftjob-1",
    # The predecessor's key.
    "model": "gpt-4o-mini-2024-07-18",
    "training_file": "file-1",
    "validation_file": None,
    "created": 1_700_000_011,
}
RUN_CHARGE: dict[str, Any] = {
    "endpoint": "beta.threads.runs",
    "served_by": "gpt-4o",
    "tokens": (60, 6, 66),
    "run_id": "run_1",
    "thread_id": "thread_1",
    "assistant_id": "asst_1",
    "status": "completed",
    "created": 1_700_000_012,
}
VIDEO_CHARGE: dict[str, Any] = {
    "endpoint": "videos",
    "served_by": "sora-2",
    "tokens": (0, 0, 0),
    "usage": {"video_seconds": 8},
    "job_id": "video_1",
    "status": "completed",
    "created": 1_700_000_013,
    "size": "720x1280",
}


@dataclass(frozen=True)
class Kind:
    """A kind of job: how it is started and asked for, what is answered, and the events of all that."""

    name: str
    start: str
    """The method that starts it."""
    start_path: str
    start_arguments: dict[str, Any]
    started: dict[str, Any]
    poll: str
    """The method that asks for it."""
    poll_path: str
    poll_arguments: dict[str, Any]
    ended: dict[str, Any]
    events: Sequence[dict[str, Any]]
    since: tuple[int, int]
    poll_only: Sequence[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """The events of a process that only asks for the job, of a customer of its own."""

    @property
    def id(self) -> str:
        """The provider's id of the job."""
        return self.ended["id"]


RETRIEVE_RUN = {"run_id": "run_1", "thread_id": "thread_1"}
RUN_KIND = Kind(
    name="run",
    start="beta.threads.runs.create",
    start_path="/v1/threads/thread_1/runs",
    start_arguments={"thread_id": "thread_1", "assistant_id": "asst_1"},
    started=RUN,
    poll="beta.threads.runs.retrieve",
    poll_path="/v1/threads/thread_1/runs/run_1",
    poll_arguments=RETRIEVE_RUN,
    ended=RAN,
    events=[charge(**RUN_CHARGE)],
    poll_only=[charge(**RUN_CHARGE, customer="other")],
    since=(1, 66),
)

KINDS = [
    kind
    for kind in (
        Kind(
            name="background response",
            start="responses.create",
            start_path="/v1/responses",
            start_arguments={
                "model": "gpt-5-mini",
                "input": "What is the secret?",
                "extra_body": {"background": True},
            },
            started=QUEUED,
            poll="responses.retrieve",
            poll_path="/v1/responses/resp_1",
            poll_arguments={"response_id": "resp_1"},
            ended=RESPONDED,
            events=[charge(**RESPONSE_CHARGE, request_model="gpt-5-mini")],
            poll_only=[charge(**RESPONSE_CHARGE, customer="other")],
            since=(1, 66),
        ),
        Kind(
            name="batch",
            start="batches.create",
            start_path="/v1/batches",
            start_arguments={
                "completion_window": "24h",
                "endpoint": "/v1/chat/completions",
                "input_file_id": "file-1",
            },
            started=BATCH,
            poll="batches.retrieve",
            poll_path="/v1/batches/batch_1",
            poll_arguments={"batch_id": "batch_1"},
            ended=BATCHED,
            events=[
                charge(
                    "batches",
                    "gpt-5-mini-2025-08-07",
                    (400, 80, 480),
                    usage={
                        "cache_read_input_tokens": 40,
                        "reasoning_output_tokens": 8,
                        "batch_requests": 4,
                    },
                    job_id="batch_1",
                    status="completed",
                    created=1_700_000_010,
                )
            ],
            since=(1, 66),
        ),
        Kind(
            name="fine-tuning",
            start="fine_tuning.jobs.create",
            start_path="/v1/fine_tuning/jobs",
            start_arguments={"model": "gpt-4o-mini", "training_file": "file-1"},
            started=TUNING,
            poll="fine_tuning.jobs.retrieve",
            poll_path="/v1/fine_tuning/jobs/ftjob-1",
            poll_arguments={"fine_tuning_job_id": "ftjob-1"},
            ended=TUNED,
            events=[
                charge(
                    **TUNING_CHARGE,
                    request_model="gpt-4o-mini",
                    usage_status="not_applicable",
                    status="queued",
                ),
                charge(
                    **TUNING_CHARGE,
                    request_model="gpt-4o-mini",
                    usage={"trained_tokens": 5000},
                    status="succeeded",
                ),
            ],
            since=(1, 0),
        ),
        RUN_KIND,
        Kind(
            name="video",
            start="videos.create",
            start_path="/v1/videos",
            start_arguments={"prompt": "a secret", "model": "sora-2"},
            started=VIDEO,
            poll="videos.retrieve",
            poll_path="/v1/videos/video_1",
            poll_arguments={"video_id": "video_1"},
            ended=FILMED,
            events=[charge(**VIDEO_CHARGE, request_model="sora-2")],
            since=(2, 54),
        ),
        *(
            Kind(
                name=f"video {method}",
                start=f"videos.{method}",
                start_path=path,
                start_arguments={"prompt": "another", **arguments},
                started=VIDEO,
                poll="videos.retrieve",
                poll_path="/v1/videos/video_1",
                poll_arguments={"video_id": "video_1"},
                ended=FILMED,
                events=[charge(**VIDEO_CHARGE)],
                since=(2, 54),
            )
            for method, path, arguments in (
                ("remix", "/v1/videos/video_0/remix", {"video_id": "video_0"}),
                ("edit", "/v1/videos/edits", {"video": EARLIER}),
                ("extend", "/v1/videos/extensions", {"video": EARLIER, "seconds": "4"}),
            )
        ),
        Kind(
            name="evaluation",
            start="evals.runs.create",
            start_path="/v1/evals/eval_1/runs",
            start_arguments={"eval_id": "eval_1", "data_source": {"type": "jsonl"}},
            started=EVALUATION,
            poll="evals.runs.retrieve",
            poll_path="/v1/evals/eval_1/runs/evalrun_1",
            poll_arguments={"run_id": "evalrun_1", "eval_id": "eval_1"},
            ended=EVALUATED,
            events=[
                charge(
                    "evals.runs",
                    model,
                    (tokens, 3, tokens + 3),
                    usage={"cache_read_input_tokens": 2},
                    run_id="evalrun_1",
                    eval_id="eval_1",
                    status="completed",
                    created=1_700_000_014,
                )
                for model, tokens in (("gpt-4o-2024-08-06", 70), ("o3-2025-04-16", 90))
            ],
            since=(2, 54),
        ),
    )
    if kind.since <= VERSION
]
BY_NAME = {kind.name: kind for kind in KINDS}

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
every_world = pytest.mark.parametrize("world", WORLDS)


def start(kind: Kind, world: str, provider: Provider) -> None:
    """Start a job, of the customer acme."""
    provider.answer(kind.start_path, Reply(json=kind.started))
    with customer_context("acme", team="acme"):
        make(world, provider, kind.start, PLAIN, kind.start_arguments)


def poll(kind: Kind, world: str, provider: Provider, *answers: dict[str, Any]) -> None:
    """Ask for a job as often as there are answers, in the context of another customer."""
    provider.answer(kind.poll_path, *(Reply(json=answer) for answer in answers))
    for _ in answers:
        with customer_context("other", team="other"):
            make(world, provider, kind.poll, PLAIN, kind.poll_arguments)


@every_world
@every_kind
def test_a_job(kind: Kind, world: str, provider: Provider, meter: Meter) -> None:
    """A job is one charge, of who started it, however often and by whom it is asked for."""
    start(kind, world, provider)
    poll(kind, world, provider, kind.started, kind.ended, kind.ended)
    assert meter.events() == kind.events


@every_world
@every_kind
def test_the_spans_of_a_job(kind: Kind, world: str, provider: Provider, meter: Meter) -> None:
    """Every request of a job is a span, and none of those that ask for it counts its usage again."""
    start(kind, world, provider)
    poll(kind, world, provider, kind.ended, kind.ended)
    _, *asking = [attributes(span) for span in meter.spans()]
    assert len(asking) == 2
    assert asking[0] == asking[1]
    counted = [name for name in asking[0] if "usage" in name]
    assert counted == []


@every_world
@pytest.mark.parametrize("form", ANSWERS, ids=lambda form: form.name)
@every_kind
def test_a_job_in_each_form(
    kind: Kind, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """A job is the same charge whether the SDK parses what it is answered, or the application reads it itself."""
    for method, path, arguments, answer in (
        (kind.start, kind.start_path, kind.start_arguments, kind.started),
        (kind.poll, kind.poll_path, kind.poll_arguments, kind.ended),
    ):
        provider.answer(path, Reply(json=answer))
        with customer_context("acme", team="acme"):
            make(world, provider, method, form, arguments)
    assert meter.events() == kind.events


@every_kind
def test_a_poll_that_fails(kind: Kind, provider: Provider, meter: Meter) -> None:
    """Not to be told how a job stands is no charge, and no end of it."""
    start(kind, "sync", provider)
    provider.answer(kind.poll_path, Reply(status=500, json={}))
    before = len(meter.events())
    with pytest.raises(openai.InternalServerError):
        make("sync", provider, kind.poll, PLAIN, kind.poll_arguments)
    assert len(meter.events()) == before
    poll(kind, "sync", provider, kind.ended)
    assert meter.events() == kind.events


@every_kind
def test_a_job_in_two_processes(
    kind: Kind, provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever bills a job gives its event the same id, so that who receives both can tell."""
    start(kind, "sync", provider)
    poll(kind, "sync", provider, kind.ended)
    here = list(meter.recorded.bodies)
    meter.recorded.bodies.clear()
    monkeypatch.setattr(jobs, "known", Jobs())
    poll(kind, "sync", provider, kind.ended)
    there = list(meter.recorded.bodies)
    # A process that only asks for a job has not seen its creation.
    assert there == here[-len(there) :]
    assert len(there) == len(kind.events) - (kind.name == "fine-tuning")
    assert {event["customer_id"] for event in meter.events()} == {"other"}
    if kind.poll_only:
        assert meter.events() == kind.poll_only


@every_kind
def test_a_job_that_nobody_here_started(kind: Kind, provider: Provider, meter: Meter) -> None:
    """To ask for a job is not to start it: one of another process is billed to who sees its end."""
    provider.answer(kind.poll_path, Reply(json=kind.started))
    with customer_context("first", team="first"):
        make("sync", provider, kind.poll, PLAIN, kind.poll_arguments)
    poll(kind, "sync", provider, kind.ended)
    assert {event["customer_id"] for event in meter.events()} == {"other"}


@every_kind
def test_two_threads_that_ask(kind: Kind, provider: Provider, meter: Meter) -> None:
    """Of several threads that see a job's end at the same time one bills it."""
    start(kind, "sync", provider)
    provider.answer(kind.poll_path, Reply(json=kind.ended))
    together = threading.Barrier(4)

    def ask() -> None:
        with client(provider) as sdk:
            together.wait()
            PLAIN.run(*method_of(sdk, kind.poll), kind.poll_arguments)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(provider.requests) == 5
    assert meter.events() == kind.events


def test_the_same_id_at_two_hosts(provider: Provider, meter: Meter) -> None:
    """A job is known by its host too: another provider may give the same id."""
    kind = BY_NAME["fine-tuning"]
    poll(kind, "sync", provider, kind.ended)
    elsewhere = provider.url.replace("127.0.0.1", "localhost")
    with openai.OpenAI(base_url=elsewhere, api_key="sk-test") as sdk:
        sdk.fine_tuning.jobs.retrieve("ftjob-1")
        sdk.fine_tuning.jobs.retrieve("ftjob-1")
    assert [event["metadata"]["server_address"] for event in meter.events()] == [
        "127.0.0.1",
        "localhost",
    ]


POLLING = """
import sys
import openai
from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests.metering import RecordedEvents

class Printed(RecordedEvents):
    def record(self, event_id, header, body):
        print(event_id)

CmdrDataInstrumentor().instrument(exporter=CmdrDataSpanExporter(delivery=Printed()))
client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-test")
for _ in range(2):
    client.fine_tuning.jobs.retrieve("ftjob-1")
"""


def test_two_processes(provider: Provider, meter: Meter) -> None:
    """A job billed here and in another process is the same event."""
    kind = BY_NAME["fine-tuning"]
    poll(kind, "sync", provider, kind.ended)
    done = subprocess.run(
        [sys.executable, "-c", POLLING, provider.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.returncode) == (list(meter.recorded.bodies), 0), done.stderr


# --- What is remembered -----------------------------------------------------------------------


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def key(number: int) -> Key:
    """Return the key of one of several jobs."""
    return Key("api.openai.com", f"job_{number}")


def test_a_key() -> None:
    """An event's id depends on the host, the job and its part, and on nothing else."""
    ids = {
        Key(host, job).event_id(part)
        for host in ("a", "b")
        for job in ("a", "b")
        for part in ("", "a", "b")
    }
    assert len(ids) == 12
    assert Key("a", "b").event_id("") == "8fb20ef63ced4145fc2e983ffe597d1d"


ACME = StartedJob({"cmdrdata.customer.id": "acme"}, "gpt-4o-mini", {})
NOBODY = StartedJob({}, None, {})


def test_a_part_is_billed_once() -> None:
    """The right to bill a part of a job is given once, with what the call that started it said."""
    known = Jobs(clock=Clock())
    known.start(key(1), ACME)
    known.start(key(1), NOBODY)
    assert known.claim(key(1), "a") == Job(0.0, ACME, {"a"})
    assert known.claim(key(1), "a") is None
    assert known.claim(key(1), "b") == Job(0.0, ACME, {"a", "b"})
    assert known.claim(key(2), "a") == Job(0.0, None, {"a"})


def test_as_many_as_are_remembered() -> None:
    """The oldest job is forgotten for a new one, and it is told if it was never billed."""
    known = Jobs(capacity=2, clock=Clock())
    known.start(key(1), NOBODY)
    known.claim(key(1), "")
    for number in (2, 3):
        known.start(key(number), NOBODY)
    assert dict(faults.counts) == {}, "the first was billed"
    known.start(key(4), NOBODY)
    assert faults.counts.pop("jobs out of sight") == 1
    assert known.claim(key(2), "") == Job(0.0, None, {""})
    assert faults.counts.pop("jobs out of sight") == 1, "the third went for the second"


def test_as_long_as_is_remembered() -> None:
    """A job is remembered for as long as jobs may take, and no longer."""
    clock = Clock()
    known = Jobs(clock=clock)
    known.start(key(1), ACME)
    clock.now = LONGEST_AGE
    known.start(key(2), NOBODY)
    clock.now = LONGEST_AGE + 1
    known.start(key(3), NOBODY)
    assert faults.counts.pop("jobs out of sight") == 1
    assert known.claim(key(1), "") == Job(LONGEST_AGE + 1, None, {""})
    assert known.claim(key(2), "") == Job(LONGEST_AGE, NOBODY, {""})


# --- Responses --------------------------------------------------------------------------------

if VERSION >= (1, 66):
    BACKGROUND: dict[str, Any] = BY_NAME["background response"].start_arguments

    def background_events() -> list[dict[str, Any]]:
        """Return the events of a background response that is streamed."""
        return [
            {**event, "response": {**event["response"], "background": True}}
            if "response" in event
            else event
            for event in replies.response_events()
        ]

    @every_world
    def test_a_background_stream_that_finishes(
        world: str, provider: Provider, meter: Meter
    ) -> None:
        """A background response whose stream shows its end is billed then, and not again when it is asked for."""
        provider.answer("/v1/responses", Reply(events=background_events()))
        with customer_context("acme", team="acme"):
            make(world, provider, "responses.create", STREAM, BACKGROUND)
        poll(BY_NAME["background response"], world, provider, RESPONDED)
        assert meter.events() == [
            charge(**RESPONSE_CHARGE, request_model="gpt-5-mini", streaming=True)
        ]
        assert list(meter.recorded.bodies) == [Key("127.0.0.1", "resp_1").event_id("")]

    def test_a_background_stream_that_is_cut(provider: Provider, meter: Meter) -> None:
        """A background response goes on without its stream, so it is billed when its end is seen."""
        provider.answer("/v1/responses", Reply(events=background_events(), hold_after=2))
        with client(provider) as sdk, customer_context("acme", team="acme"):
            stream = sdk.responses.create(stream=True, **BACKGROUND)
            next(stream)
            stream.response.close()
        assert meter.events() == []
        assert len(meter.spans()) == 1
        poll(BY_NAME["background response"], "sync", provider, QUEUED, RESPONDED)
        assert meter.events() == BY_NAME["background response"].events

    @every_world
    def test_a_response_that_is_fetched_again(world: str, provider: Provider, meter: Meter) -> None:
        """A finished response was charged when it was made: to fetch it is a span, without usage, and no event."""
        provider.answer("/v1/responses/resp_1", Reply(json=replies.RESPONSE))
        make(world, provider, "responses.retrieve", PLAIN, {"response_id": "resp_1"})
        assert meter.events() == []
        (span,) = meter.spans()
        assert span.name == "fetch_response"
        assert attributes(span) == {
            "gen_ai.operation.name": "fetch_response",
            "gen_ai.provider.name": "openai",
            "openai.api.type": "responses",
            "server.address": "127.0.0.1",
            "server.port": provider.port,
            "gen_ai.response.id": "resp_1",
            "gen_ai.response.model": "gpt-5-mini-2025-08-07",
            "gen_ai.response.status": "completed",
            "gen_ai.response.finish_reasons": ("stop",),
            "openai.response.service_tier": "default",
        }

    def test_a_failed_response_that_is_fetched(provider: Provider, meter: Meter) -> None:
        """That a response failed is no failure of fetching it; what it used is charged, as failed."""
        failed: dict[str, Any] = {
            **RESPONDED,
            "status": "failed",
            "output": [],
            "error": {"code": "server_error", "message": "it broke"},
        }
        provider.answer("/v1/responses/resp_1", Reply(json=failed))
        make("sync", provider, "responses.retrieve", PLAIN, {"response_id": "resp_1"})
        (span,) = meter.spans()
        assert span.status.is_unset
        assert attributes(span)["gen_ai.response.status"] == "failed"
        assert attributes(span)["gen_ai.response.finish_reasons"] == ("error",)
        assert "error.type" not in attributes(span)
        (event,) = meter.events()
        assert event == {
            **charge(**but(RESPONSE_CHARGE, finish_reason=None), customer=None),
            "error": {
                "occurred": True,
                "type": "server_error",
                "code": "server_error",
                "message": "it broke",
            },
            "request": {"streaming": False, "retry_count": 0, "success": False},
        }


if VERSION >= (2, 54):

    @every_world
    def test_a_stream_that_is_fetched_again(world: str, provider: Provider, meter: Meter) -> None:
        """The stream of a background response may be taken up anywhere: its end is the same one charge."""
        start(BY_NAME["background response"], world, provider)
        provider.answer("/v1/responses/resp_1", Reply(events=background_events()[4:]))
        arguments = {"response_id": "resp_1", "starting_after": 3}
        for _ in range(2):
            make(world, provider, "responses.retrieve", STREAM, arguments)
        assert meter.events() == [
            charge(**RESPONSE_CHARGE, request_model="gpt-5-mini", streaming=True)
        ]
        span = meter.spans()[-1]
        assert attributes(span) == {
            "gen_ai.operation.name": "fetch_response",
            "gen_ai.provider.name": "openai",
            "openai.api.type": "responses",
            "server.address": "127.0.0.1",
            "server.port": provider.port,
            "gen_ai.request.stream": True,
            "gen_ai.request.stream_cursor": "3",
            "gen_ai.response.id": "resp_1",
            "gen_ai.response.model": "gpt-5-mini-2025-08-07",
            "gen_ai.response.status": "completed",
            "gen_ai.response.finish_reasons": ("stop",),
            "openai.response.service_tier": "default",
            "first_chunk": True,
        }

    @every_world
    def test_a_response_that_is_cancelled(world: str, provider: Provider, meter: Meter) -> None:
        """Cancelling a response may show its end, with what it used by then."""
        start(BY_NAME["background response"], world, provider)
        cancelled = but(RESPONDED, status="cancelled", output=[])
        provider.answer("/v1/responses/resp_1/cancel", Reply(json=cancelled))
        make(world, provider, "responses.cancel", PLAIN, {"response_id": "resp_1"})
        poll(BY_NAME["background response"], world, provider, cancelled)
        assert meter.events() == [
            charge(**but(RESPONSE_CHARGE, finish_reason=None), request_model="gpt-5-mini")
        ]

    # --- Videos -------------------------------------------------------------------------------

    FILM = b"\x00\x00\x00 ftypisom"
    DOWNLOAD = {"video_id": "video_1"}

    def download(world: str, form: Form, provider: Provider) -> None:
        """Download the film, in the context of another customer."""
        provider.answer(
            "/v1/videos/video_1/content", Reply(content=FILM, headers={"content-type": "video/mp4"})
        )
        with customer_context("other", team="other"):
            film = make(world, provider, "videos.download_content", form, DOWNLOAD)
        assert getattr(film, "content", film) == FILM

    @every_world
    @pytest.mark.parametrize("form", STREAMING_BYTES, ids=lambda form: form.name)
    def test_a_video_that_is_downloaded(
        form: Form, world: str, provider: Provider, meter: Meter
    ) -> None:
        """A film that can be downloaded is completed: it is billed with what its creation said."""
        start(BY_NAME["video"], world, provider)
        download(world, form, provider)
        poll(BY_NAME["video"], world, provider, FILMED)
        assert meter.events() == [
            charge(**but(VIDEO_CHARGE, status="queued"), request_model="sora-2")
        ]

    @every_world
    @pytest.mark.parametrize("form", STREAMING_BYTES, ids=lambda form: form.name)
    def test_a_video_of_another_process(
        form: Form, world: str, provider: Provider, meter: Meter
    ) -> None:
        """The download of a film that nothing is known of is a charge all the same, and says that it knows nothing."""
        download(world, form, provider)
        download(world, form, provider)
        assert meter.events() == [
            charge(
                "videos",
                "unknown",
                (0, 0, 0),
                usage_status="missing",
                customer="other",
                job_id="video_1",
                status=None,
                created=None,
                size=None,
            )
        ]

    def test_a_download_that_fails(provider: Provider, meter: Meter) -> None:
        """A film that cannot be downloaded is not completed."""
        provider.answer("/v1/videos/video_1/content", Reply(status=404, json={}))
        with pytest.raises(openai.NotFoundError):
            make("sync", provider, "videos.download_content", PLAIN, DOWNLOAD)
        assert meter.events() == []


# --- Runs -------------------------------------------------------------------------------------

if VERSION >= (1, 66):
    RUN_EVENTS = [
        ("thread.run.created", RUN),
        ("thread.run.in_progress", {**RUN, "status": "in_progress"}),
        ("thread.run.completed", RAN),
        ("done", "[DONE]"),
    ]
    CREATE_RUN: dict[str, Any] = RUN_KIND.start_arguments
    CREATE_AND_RUN = {"assistant_id": "asst_1"}
    SUBMIT = {**RETRIEVE_RUN, "tool_outputs": [{"tool_call_id": "call_1", "output": "x"}]}
    SUBMIT_PATH = f"{RUN_KIND.poll_path}/submit_tool_outputs"

    @every_world
    @pytest.mark.parametrize(
        "ask",
        [
            ("runs.create", STREAM, CREATE_RUN, RUN_KIND.start_path),
            ("runs.stream", HELPER, CREATE_RUN, RUN_KIND.start_path),
            ("create_and_run", STREAM, CREATE_AND_RUN, "/v1/threads/runs"),
            ("create_and_run_stream", HELPER, CREATE_AND_RUN, "/v1/threads/runs"),
            ("runs.submit_tool_outputs", STREAM, SUBMIT, SUBMIT_PATH),
            ("runs.submit_tool_outputs_stream", HELPER, SUBMIT, SUBMIT_PATH),
        ],
        ids=lambda ask: ask[0],
    )
    def test_a_run_that_is_streamed(
        ask: tuple[str, Any, Any, str], world: str, provider: Provider, meter: Meter
    ) -> None:
        """A stream that shows the end of a run bills it, and asking for it later does not."""
        method, form, arguments, path = ask
        provider.answer(path, Reply(events=RUN_EVENTS, done=False))
        with customer_context("acme", team="acme"):
            make(world, provider, f"beta.threads.{method}", form, arguments)
        poll(RUN_KIND, world, provider, RAN)
        assert meter.events() == [charge(**RUN_CHARGE, streaming=True)]

    @every_world
    @pytest.mark.parametrize(
        "ask",
        [
            ("runs.create_and_poll", CREATE_RUN, RUN_KIND.start_path),
            ("create_and_run_poll", CREATE_AND_RUN, "/v1/threads/runs"),
            ("runs.submit_tool_outputs_and_poll", SUBMIT, SUBMIT_PATH),
        ],
        ids=lambda ask: ask[0],
    )
    def test_a_run_that_the_sdk_polls(
        ask: tuple[str, Any, str], world: str, provider: Provider, meter: Meter
    ) -> None:
        """A run that the SDK waits for is one charge."""
        method, arguments, path = ask
        provider.answer(path, Reply(json=RUN))
        provider.answer(
            RUN_KIND.poll_path,
            Reply(json=RUN, headers={"openai-poll-after-ms": "1"}),
            Reply(json=RAN),
        )
        with customer_context("acme", team="acme"):
            make(world, provider, f"beta.threads.{method}", PLAIN, arguments)
        assert meter.events() == [charge(**RUN_CHARGE)]
        assert len(meter.spans()) == 3

    @every_world
    @pytest.mark.parametrize(
        "ask",
        [
            ("runs.create", CREATE_RUN, RUN_KIND.start_path),
            ("create_and_run", CREATE_AND_RUN, "/v1/threads/runs"),
            ("runs.submit_tool_outputs", SUBMIT, SUBMIT_PATH),
        ],
        ids=lambda ask: ask[0],
    )
    def test_a_run_that_has_ended_at_once(
        ask: tuple[str, Any, str], world: str, provider: Provider, meter: Meter
    ) -> None:
        """A run that has ended when it is answered is billed then."""
        method, arguments, path = ask
        provider.answer(path, Reply(json=RAN))
        with customer_context("acme", team="acme"):
            make(world, provider, f"beta.threads.{method}", PLAIN, arguments)
        poll(RUN_KIND, world, provider, RAN)
        assert meter.events() == [charge(**RUN_CHARGE)]


def test_a_job_that_cannot_be_started(provider: Provider, meter: Meter) -> None:
    """A job that the provider refuses to start is no job: its call is told of like any that fails."""
    kind = BY_NAME["fine-tuning"]
    provider.answer(kind.start_path, Reply(status=401, json=replies.REFUSAL))
    with pytest.raises(openai.AuthenticationError):
        make("sync", provider, kind.start, PLAIN, kind.start_arguments)
    (event,) = meter.events()
    assert event["error"]["code"] == "401"
    assert event["metadata"] == {
        "job_id": None,
        "status": None,
        "model": None,
        "training_file": None,
        "validation_file": None,
        "usage_status": "not_applicable",
        "endpoint": "fine_tuning.jobs",
        "request_model": "gpt-4o-mini",
        "service_tier": None,
        "server_address": "127.0.0.1",
        "usage": {},
    }


# --- Jobs of a page ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """How the jobs of a kind are listed."""

    method: str
    path: str
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])


PAGES = {
    "batch": Page("batches.list", "/v1/batches"),
    "fine-tuning": Page("fine_tuning.jobs.list", "/v1/fine_tuning/jobs"),
    "run": Page("beta.threads.runs.list", "/v1/threads/thread_1/runs", {"thread_id": "thread_1"}),
    "video": Page("videos.list", "/v1/videos"),
    "evaluation": Page("evals.runs.list", "/v1/evals/eval_1/runs", {"eval_id": "eval_1"}),
}
LISTED = [BY_NAME[name] for name in PAGES if name in BY_NAME]
every_listed_kind = pytest.mark.parametrize("kind", LISTED, ids=lambda kind: kind.name)


def show(kind: Kind, form: Form, world: str, provider: Provider, *jobs: dict[str, Any]) -> None:
    """List jobs, in the context of another customer."""
    page = PAGES[kind.name]
    body = {"object": "list", "data": list(jobs), "has_more": False}
    provider.answer(page.path, Reply(json=body))
    with customer_context("other", team="other"):
        make(world, provider, page.method, form, page.arguments)


@every_world
@pytest.mark.parametrize("form", [PLAIN, *ANSWERS], ids=lambda form: form.name)
@every_listed_kind
def test_a_job_on_a_page(
    kind: Kind, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """A job that is only seen to end on a page is one charge, of who started it, also when it is asked for later."""
    start(kind, world, provider)
    show(kind, form, world, provider, kind.started)
    show(kind, form, world, provider, {**kind.ended, "id": "another"}, kind.ended)
    show(kind, form, world, provider, kind.ended)
    poll(kind, world, provider, kind.ended)
    # The other one is too old to be new, and nobody here has started it.
    assert meter.events() == kind.events


@every_listed_kind
def test_a_job_of_a_page_that_nobody_here_started(
    kind: Kind, provider: Provider, meter: Meter
) -> None:
    """A page shows the jobs of all customers, so one that nobody here started is nobody's until somebody says so."""
    recent = {**kind.ended, "created_at": int(time.time()) - 3600}
    show(kind, PLAIN, "sync", provider, recent)
    show(kind, PLAIN, "sync", provider, recent)
    charges = len(kind.events) - (kind.name == "fine-tuning")
    assert [None] * charges == [event["customer_id"] for event in meter.events()]
    assert [None] * charges == [event["metadata"].get("team") for event in meter.events()]


@every_listed_kind
def test_a_page_that_is_not_tracked(kind: Kind, provider: Provider, meter: Meter) -> None:
    """A list that is not to be tracked bills nothing, and a later one does."""
    start(kind, "sync", provider)
    before = len(meter.events())
    page = PAGES[kind.name]
    provider.answer(page.path, Reply(json={"object": "list", "data": [kind.ended]}))
    make("sync", provider, page.method, PLAIN, {**page.arguments, "track_usage": False})
    assert len(meter.events()) == before
    show(kind, PLAIN, "sync", provider, kind.ended)
    assert meter.events() == kind.events


@pytest.mark.parametrize("garbage", [None, 7, {}, [None, 7, {}, {"id": 7, "status": "completed"}]])
@every_listed_kind
def test_a_page_of_anything(kind: Kind, garbage: object, provider: Provider, meter: Meter) -> None:
    """Whatever a page holds, what is no job with an id is no charge."""
    faults.counts.clear()
    page = PAGES[kind.name]
    provider.answer(page.path, Reply(json={"object": "list", "data": garbage}))
    with client(provider) as sdk:
        resource, method = method_of(sdk, page.method)
        getattr(resource.with_raw_response, method)(**page.arguments)
    assert [] == meter.events()
    assert not faults.counts


# --- Jobs that tell no usage ------------------------------------------------------------------

UNTOLD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "batch": ({"usage": None}, {"batch_requests": 4}),
    "run": ({"usage": None}, {}),
    "fine-tuning": ({"trained_tokens": None}, {}),
    "evaluation": ({"per_model_usage": None}, {}),
    "background response": ({"usage": None, "output": []}, {}),
}


@pytest.mark.parametrize(
    "kind", [BY_NAME[name] for name in UNTOLD if name in BY_NAME], ids=lambda kind: kind.name
)
def test_a_job_that_tells_no_usage(kind: Kind, provider: Provider, meter: Meter) -> None:
    """A job that was done without a word of its usage is an event of its own, marked so, once."""
    change, usage = UNTOLD[kind.name]
    start(kind, "sync", provider)
    before = len(meter.events())
    poll(kind, "sync", provider, *[{**kind.ended, **change}] * 2)
    (event,) = meter.events()[before:]
    assert ("acme", 0, 0, "missing", usage) == (
        event["customer_id"],
        event["input_tokens"],
        event["output_tokens"],
        event["metadata"]["usage_status"],
        event["metadata"]["usage"],
    )


NOTHING_DONE: dict[str, dict[str, Any]] = {
    "batch": {
        "usage": None,
        "status": "failed",
        "request_counts": {"total": 5, "completed": 0, "failed": 5},
    },
    "run": {"usage": None, "status": "failed"},
    "video": {"status": "failed"},
    "fine-tuning": {"trained_tokens": None, "status": "failed"},
    "evaluation": {"per_model_usage": None, "status": "failed"},
    "background response": {"usage": None, "output": [], "status": "failed"},
}


@pytest.mark.parametrize(
    "kind", [BY_NAME[name] for name in NOTHING_DONE if name in BY_NAME], ids=lambda kind: kind.name
)
def test_a_job_that_did_nothing(kind: Kind, provider: Provider, meter: Meter) -> None:
    """A job that failed and tells no usage is no charge."""
    start(kind, "sync", provider)
    before = len(meter.events())
    poll(kind, "sync", provider, {**kind.ended, **NOTHING_DONE[kind.name]})
    assert len(meter.events()) == before
