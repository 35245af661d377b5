"""The two products of one reading: the event of a call is the one that a span with all its facts would make."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Status, StatusCode

from cmdrdata_exporter import UsageEvent, customer_context, event_from_span, faults
from cmdrdata_exporter.attributes import OUR_SCOPE
from cmdrdata_exporter.events import encode
from opentelemetry_instrumentation_cmdrdata import charges, random_ids, semconv
from opentelemetry_instrumentation_cmdrdata.ended import CallAttribution, EndedCall, Failure
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS
from opentelemetry_instrumentation_cmdrdata.openai.providers import Server
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes, Reading
from opentelemetry_instrumentation_cmdrdata.random_ids import RandomIds
from tests import replies
from tests.charges import CASES, Case
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import Form, make
from tests.test_events import span
from tests.test_jobs import KINDS, Kind, poll, start

SERVER = Server("azure.ai.openai", "house.openai.azure.com", 443)
SECOND = 1_000_000_000


def span_of(
    call: EndedCall,
    facts: Attributes,
    attribution: Any,
    usage_status: str,
    event_id: str,
    **more: Any,
) -> ReadableSpan:
    """Return a span that has, as attributes, all that a charge is made of."""
    attributes: dict[str, Any] = {
        semconv.OPERATION: call.endpoint.span_operation,
        semconv.PROVIDER: call.server.provider,
        semconv.SERVER_ADDRESS: call.server.address,
        semconv.REQUEST_MODEL: call.request_model,
        semconv.RESPONSE_ID: call.response_id,
        semconv.STREAM: call.streaming,
        **attribution,
        **call.account,
        **facts,
        semconv.USAGE_STATUS: usage_status,
        semconv.EVENT_ID: event_id,
        semconv.EVENT_REMEMBER: more.get("remember", 0),
        semconv.ENDPOINT: call.endpoint.name,
        semconv.RETRY_COUNT: call.retry_count,
        semconv.REQUEST_ID: call.request_id,
    }
    status = Status()
    if call.failure is not None:
        attributes[semconv.ERROR_CODE] = call.failure.code
        status = Status(StatusCode.ERROR, call.failure.message)
    return span(
        attributes,
        scope=OUR_SCOPE,
        status=status,
        context=(call.trace_id, call.span_id),
        times=(call.start_time, call.end_time),
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[UsageEvent, UsageEvent | None]]:
    """Of each charge, the event that was made of it, and the one that a span makes."""
    pairs: list[tuple[UsageEvent, UsageEvent | None]] = []
    make_event = charges.usage_event

    def both(call: EndedCall, *arguments: Any, **more: Any) -> UsageEvent:
        event = make_event(call, *arguments, **more)
        whole = span_of(call, *arguments, **more)
        pairs.append((event, event_from_span(whole, customer_id=call.default_customer)))
        return event

    monkeypatch.setattr(charges, "usage_event", both)
    return pairs


def check(pairs: list[tuple[UsageEvent, UsageEvent | None]]) -> None:
    """See that both events are the same, to the byte."""
    assert pairs
    for event, of_span in pairs:
        assert of_span is not None
        assert event == of_span
        assert encode(event) == encode(of_span)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("case", "form"),
    [
        pytest.param(case, form, id=f"{case.name}-{form.name}")
        for case in CASES
        for form in case.forms
    ],
)
def test_a_call(
    case: Case,
    form: Form,
    provider: Provider,
    meter: Meter,
    made: list[tuple[UsageEvent, UsageEvent | None]],
) -> None:
    """A call that succeeds and one that fails make the events that their spans would make."""
    of_account = {"openai-organization": "acme-inc", "openai-project": "proj_1"}
    provider.answer(case.path, case.reply(form, **{"x-request-id": "req_1"}, **of_account))
    with customer_context("acme", plan="pro", endpoint="theirs", ratio=float("inf"), tags=["a"]):
        make("sync", provider, case.method, form, case.arguments)
    provider.answer(case.path, Reply(status=401, json=replies.REFUSAL))
    with pytest.raises(openai.AuthenticationError):
        make("sync", provider, case.method, form, case.arguments)
    assert len(meter.recorded.bodies) == len(made) == 2
    check(made)
    assert faults.counts.pop("metadata key endpoint") == 1


@pytest.mark.filterwarnings("ignore:The (Assistants|Sora) API:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_job(
    kind: Kind,
    provider: Provider,
    meter: Meter,
    made: list[tuple[UsageEvent, UsageEvent | None]],
) -> None:
    """So does a job that has ended, which is billed to who started it."""
    start(kind, "sync", provider)
    poll(kind, "sync", provider, kind.started, kind.ended)
    assert len(meter.recorded.bodies) == len(made)
    check(made)


def ended(**changes: Any) -> EndedCall:
    """Return a chat that has ended."""
    return EndedCall(
        endpoint=ENDPOINTS[0],
        server=SERVER,
        attribution=CallAttribution(),
        request_model="gpt-4o",
        response_id=None,
        trace_id=0xABC,
        span_id=0xDEF,
        start_time=1_700_000_000 * SECOND,
        end_time=1_700_000_001 * SECOND + 250_499_999,
        streaming=False,
        retry_count=1,
        request_id=None,
        failure=None,
        event_id="0" * 32,
    )._replace(**changes)


REFUSED = {"cmdrdata.customer.refused": "empty", "cmdrdata.customer.refused_value": "''"}


@pytest.mark.parametrize("customer", [None, "default"])
@pytest.mark.parametrize(
    "attribution",
    [
        {},
        {"cmdrdata.customer.id": "acme"},
        {"cmdrdata.metadata.plan": "pro"},
        {"cmdrdata.customer.id": "acme", "cmdrdata.metadata.usage": 1},
        REFUSED,
        {**REFUSED, "cmdrdata.metadata.plan": "pro"},
    ],
    ids=lambda attribution: "+".join(name.rsplit(".", 1)[1] for name in attribution) or "nobody",
)
@pytest.mark.parametrize(
    "failure",
    [
        None,
        Failure("openai.RateLimitError", "429", "slow down"),
        Failure("ValueError", None, None),
        Failure("server_error", "server_error", "the key sk-proj-abcdefgh1234 was refused"),
        Failure("ValueError", "", ""),
    ],
    ids=lambda failure: "well" if failure is None else f"{failure.type}-{failure.code}",
)
def test_who_pays(
    customer: str | None,
    attribution: dict[str, Any],
    failure: Failure | None,
    made: list[tuple[UsageEvent, UsageEvent | None]],
) -> None:
    """Whoever is named or refused, and however the call failed, both products say the same."""
    reading = Reading()
    facts: Attributes = {
        "gen_ai.response.model": "gpt-4o-2024",
        "gen_ai.response.finish_reasons": ("error", "stop"),
        "gen_ai.response.time_to_first_chunk": 0.1235,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "cmdrdata.usage.audio_seconds": 8.5,
        "cmdrdata.usage.counted": True,
        "cmdrdata.detail.created": 1_700_000_000,
    }
    if failure is not None:
        facts["error.type"] = failure.type
    call = ended(
        attribution=CallAttribution(attribution), failure=failure, default_customer=customer
    )
    ((event, recorded),) = charges.charges(call, reading, facts, "partial", charges.Recorded(list))
    assert (event.timestamp, event.duration_ms) == (1_700_000_001, 1250)
    assert recorded == []
    check(made)


def test_a_job_whose_end_names_neither_model_nor_customer() -> None:
    """The end of a job is billed with what the call that started it said, whoever asks."""
    start, poll = (
        next(row for row in ENDPOINTS if (row.name, row.method) == ("videos", method))
        for method in ("post", "get")
    )
    started, shown = Reading(), Reading()
    started.job = shown.job = "video_1"
    shown.due()
    begun = ended(
        endpoint=start,
        request_model="sora-2-pro",
        attribution=CallAttribution({"cmdrdata.customer.id": "acme"}),
    )
    asked = ended(
        endpoint=poll,
        request_model=None,
        attribution=CallAttribution({"cmdrdata.customer.id": "other"}),
    )
    facts: Attributes = {"gen_ai.response.model": "sora-2", "cmdrdata.detail.size": "1x1"}

    recorded = charges.Recorded(list)
    assert [] == list(charges.charges(begun, started, facts, "missing", recorded))
    seconds: Attributes = {"cmdrdata.usage.video_seconds": 4}
    ((event, _),) = charges.charges(asked, shown, seconds, "missing", recorded)

    assert ("acme", "sora-2", "reported", {"video_seconds": 4}, "1x1", "sora-2-pro") == (
        event.customer_id,
        event.model,
        event.usage_status,
        event.usage,
        event.metadata["size"],
        event.metadata["request_model"],
    )


def test_no_id_is_given_twice() -> None:
    """Each id is one of 128 bits, and another one than all before."""
    ids = RandomIds()
    taken = [ids.take(1) for _ in range(3 * random_ids.BATCH)]
    assert len(set(taken)) == len(taken)
    assert {len(bytes.fromhex(one)) for one in taken} == {16}


def test_a_forked_child_has_ids_of_its_own() -> None:
    """What a process has fetched is not used by another one, which has the same memory."""
    ids = RandomIds()
    ids.take(1)
    left: Any = ids._ids  # pyright: ignore[reportPrivateUsage]
    parents = set(left)
    assert len(parents) == random_ids.BATCH - 1
    assert parents.isdisjoint(ids.take(2) for _ in range(random_ids.BATCH))
