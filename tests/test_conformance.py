"""
Spans keep to the rules that the GenAI conventions' own checks have for them.

The checks are policies of OpenTelemetry Weaver, which is in no package index; their rules are written down here:
https://github.com/open-telemetry/semantic-conventions-genai/tree/6fd0d763
"""

from __future__ import annotations

import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from tests import replies
from tests.charges import CASES, Case
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import Form, make

AT_START = {
    "gen_ai.operation.name": str,
    "gen_ai.provider.name": str,
    "gen_ai.request.model": str,
    "server.address": str,
    "server.port": int,
}
"""What samplers are to see."""
OF_ANSWER = {"gen_ai.response.model": str, "gen_ai.usage.input_tokens": int}
OF_EMBEDDINGS = {
    "gen_ai.embeddings.dimension.count": int,
    "gen_ai.request.encoding_formats": tuple,
}
OF_INFERENCE = {
    "gen_ai.response.id": str,
    "gen_ai.usage.output_tokens": int,
}
REASONS = {"gen_ai.response.finish_reasons": tuple}
OF_STREAM = {"gen_ai.request.stream": bool, "gen_ai.response.time_to_first_chunk": float}
WHERE_THEY_ARE = {
    "error.type": str,
    "gen_ai.conversation.id": str,
    "gen_ai.output.type": str,
    "gen_ai.prompt.name": str,
    "gen_ai.prompt.version": str,
    "gen_ai.request.choice.count": int,
    "gen_ai.request.frequency_penalty": float,
    "gen_ai.request.max_tokens": int,
    "gen_ai.request.presence_penalty": float,
    "gen_ai.request.previous_response.id": str,
    "gen_ai.request.reasoning.level": str,
    "gen_ai.request.seed": int,
    "gen_ai.request.stop_sequences": tuple,
    "gen_ai.request.temperature": float,
    "gen_ai.request.top_p": float,
    "gen_ai.usage.audio.input_tokens": int,
    "gen_ai.usage.audio.output_tokens": int,
    "gen_ai.usage.cache_read.input_tokens": int,
    "gen_ai.usage.cache_write.input_tokens": int,
    "gen_ai.usage.image.input_tokens": int,
    "gen_ai.usage.image.output_tokens": int,
    "gen_ai.usage.reasoning.output_tokens": int,
    "gen_ai.usage.text.input_tokens": int,
    "gen_ai.usage.text.output_tokens": int,
    "openai.api.type": str,
    "openai.request.service_tier": str,
    "openai.response.service_tier": str,
    "openai.response.system_fingerprint": str,
}
REGISTRY: dict[str, type] = {
    **AT_START,
    **OF_ANSWER,
    **OF_EMBEDDINGS,
    **OF_INFERENCE,
    **REASONS,
    **OF_STREAM,
    **WHERE_THEY_ARE,
}
"""The attributes that the conventions define for these spans, with their types."""

CONVENTIONAL = ("chat", "text_completion", "embeddings")


def check(span: ReadableSpan) -> None:
    """See that a span has a name, a kind, a status and attributes as the conventions have them."""
    attributes = dict(span.attributes or {})
    assert {} == {
        name: value
        for name, value in attributes.items()
        if name not in REGISTRY or type(value) is not REGISTRY[name]
    }
    assert set() == AT_START.keys() - attributes.keys()
    operation, model = attributes["gen_ai.operation.name"], attributes["gen_ai.request.model"]
    assert operation in CONVENTIONAL
    assert span.name == f"{operation} {model}"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is not StatusCode.OK
    assert ("error.type" in attributes) == (span.status.status_code is StatusCode.ERROR)
    # What is false, one, zero or the default is left out.
    assert attributes.get("gen_ai.request.stream") is not False
    assert attributes.get("gen_ai.request.choice.count") != 1
    assert attributes.get("openai.request.service_tier") != "auto"
    totals = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
    assert [] == [
        name
        for name, value in attributes.items()
        if name.startswith("gen_ai.usage.") and not value and name not in totals
    ]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("case", "form"),
    [
        pytest.param(case, form, id=f"{case.name}-{form.name}")
        for case in CASES
        for form in case.forms
        if case.operation in CONVENTIONAL
    ],
)
def test_a_call(case: Case, form: Form, provider: Provider, meter: Meter) -> None:
    """A call that is answered has all that the conventions require or recommend; one that fails says how."""
    provider.answer(case.path, case.reply(form))
    make("sync", provider, case.method, form, case.arguments)
    provider.answer(case.path, Reply(status=401, json=replies.REFUSAL))
    with pytest.raises(openai.AuthenticationError):
        make("sync", provider, case.method, form, case.arguments)

    answered, failed = meter.spans()
    check(answered)
    check(failed)
    expected = {*OF_ANSWER, *(OF_EMBEDDINGS if case.operation == "embeddings" else OF_INFERENCE)}
    if case.endpoint == "responses.compact":
        # Its answer tells no model, and no reason for its end.
        expected.remove("gen_ai.response.model")
    elif case.operation != "embeddings":
        expected |= REASONS.keys()
        assert (failed.attributes or {})["gen_ai.response.finish_reasons"] == ("error",)
    if form.streaming:
        expected |= OF_STREAM.keys()
    assert set() == expected - (answered.attributes or {}).keys()
    assert form.streaming == ("gen_ai.request.stream" in (answered.attributes or {}))
    assert answered.status.status_code is StatusCode.UNSET
    assert (failed.attributes or {})["error.type"] == "openai.AuthenticationError"
