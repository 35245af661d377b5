"""Each endpoint, in each form, in both worlds, ending well and badly: the whole span and the whole event."""

from __future__ import annotations

import copy
import re
from typing import Any

import openai
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS
from tests import replies
from tests.charges import CASES, Case
from tests.metering import Meter, attributes
from tests.provider import Provider, Reply, Request
from tests.sdk import VERSION, Form, make

ROWS = [
    pytest.param(
        case,
        form,
        id=f"{case.name}-{form.name}",
        marks=[pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")]
        if VERSION >= case.deprecated_since
        else [],
    )
    for case in CASES
    for form in case.forms
]

JOBS = {
    "agents.sessions",
    "batches",
    "beta.threads.runs",
    "evals.runs",
    "fine_tuning.jobs",
    "videos",
}
"""The endpoints that are charged when a job ends; tests of their own are in `test_jobs` and `test_agents`."""


def test_every_endpoint_is_here() -> None:
    """Each row of the table of endpoints that is charged at once has a case."""
    charged = {row.name for row in ENDPOINTS if not row.polls} - JOBS
    assert {case.endpoint for case in CASES} == charged


def expected_request(case: Case, form: Form, provider: Provider) -> dict[str, Any]:
    """Return the attributes that a span has from its request."""
    streaming = {"gen_ai.request.stream": True} if form.streaming else {}
    model = {} if case.model is None else {"gen_ai.request.model": case.model}
    return {
        "gen_ai.operation.name": case.operation,
        "gen_ai.provider.name": "openai",
        "server.address": "127.0.0.1",
        "server.port": provider.port,
        **model,
        **case.request,
        **streaming,
    }


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("case", "form"), ROWS)
def test_a_call_that_succeeds(
    case: Case, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """A call is one span by the conventions and one event with the provider's numbers, whatever its form."""
    provider.answer(case.path, case.reply(form, **{"x-request-id": "req_1"}))

    make(world, provider, case.method, form, case.arguments)

    (span,) = meter.spans()
    assert (span.name, span.kind) == (case.span_name, SpanKind.CLIENT)
    assert (span.status.status_code, span.status.description) == (StatusCode.UNSET, None)
    first_chunk = {"first_chunk": True} if form.streaming else {}
    assert attributes(span) == {
        **expected_request(case, form, provider),
        **case.response,
        **first_chunk,
    }
    (event,) = meter.events()
    input_tokens, output_tokens, total_tokens = case.tokens
    assert event == {
        "customer_id": None,
        "model": case.response.get("gen_ai.response.model", case.model),
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": total_tokens,
        "provider": "openai",
        "metadata": {
            "service_tier": None,
            **case.metadata,
            "usage_status": case.usage_status,
            "endpoint": case.endpoint,
            "request_model": case.model,
            "server_address": "127.0.0.1",
            "request_id": "req_1",
            "usage": case.usage,
        },
        "version": "0.1.0",
        "error": {"occurred": False, "type": None, "code": None, "message": None},
        "request": {"streaming": form.streaming, "retry_count": 0, "success": True},
        **({"first_token": True} if form.streaming else {}),
    }


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("case", "form"), ROWS)
def test_a_call_that_fails(
    case: Case, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """A call that the provider refuses is an error span and an event that says so, without any key."""
    provider.answer(
        case.path, Reply(status=401, json=replies.REFUSAL, headers={"x-request-id": "req_2"})
    )

    with pytest.raises(openai.AuthenticationError) as raised:
        make(world, provider, case.method, form, case.arguments)

    assert "sk-proj-abcdefgh1234" in str(raised.value), (
        "the application gets the SDK's error as it is"
    )
    message = str(raised.value).replace("sk-proj-abcdefgh1234", "[scrubbed]")
    (span,) = meter.spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, message)
    assert attributes(span) == {
        **expected_request(case, form, provider),
        **case.error_attributes,
        "error.type": "openai.AuthenticationError",
    }
    (event,) = meter.events()
    assert event == {
        "customer_id": None,
        "model": case.model or "unknown",
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "provider": "openai",
        "metadata": {
            **case.error_metadata,
            "service_tier": None,
            "usage_status": "not_applicable",
            "endpoint": case.endpoint,
            "request_model": case.model,
            "server_address": "127.0.0.1",
            "request_id": "req_2",
            "usage": {},
        },
        "version": "0.1.0",
        "error": {"occurred": True, "type": "authentication", "code": "401", "message": message},
        "request": {"streaming": form.streaming, "retry_count": 0, "success": False},
    }


def given(result: Any) -> Any:
    """Return what an application can tell apart of a result: of sound, its bytes."""
    return result.content if hasattr(result, "content") else result


def sent(request: Request) -> tuple[bytes, dict[str, str]]:
    """Return a request as it was sent, without what differs from one sending to the next."""
    content_type = request.headers.get("content-type", "")
    boundary = re.search(r"boundary=(\S+)", content_type)
    ignored = ("host", "x-stainless-raw-response", "idempotency-key")
    headers = {k: v for k, v in request.headers.items() if k not in ignored}
    if boundary is None:
        return request.body, headers
    marker = boundary[1]
    headers["content-type"] = content_type.replace(marker, "boundary")
    return request.body.replace(marker.encode(), b"boundary"), headers


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("case", "form"), ROWS)
def test_what_the_application_gets(
    case: Case, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """With the instrumentor on, the SDK returns equal objects of the same types, and sends the same request."""
    provider.answer(case.path, case.reply(form))
    observed = make(world, provider, case.method, form, copy.deepcopy(case.arguments))
    CmdrDataInstrumentor().uninstrument()
    bare = make(world, provider, case.method, form, copy.deepcopy(case.arguments))
    CmdrDataInstrumentor().instrument()  # For the fixture to undo.

    assert type(observed) is type(bare)
    assert given(observed) == given(bare)
    with_us, without_us = provider.requests
    assert sent(with_us) == sent(without_us)
    assert len(meter.events()) == 1
