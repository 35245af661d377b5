"""What our own calls tell of themselves, so that the spans of others about them make no second event."""

from __future__ import annotations

import time
from typing import Any

import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import TrackedOpenAI
from tests import replies
from tests.charges import MESSAGES
from tests.metering import Meter, RecordedEvents
from tests.provider import Provider, Reply
from tests.sdk import client
from tests.test_events import span

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


def around(begin: int, number: int, *, told: bool = True, **changes: Any) -> ReadableSpan:
    """Return a framework's span about a call that began after `begin`, with the response id where it is told."""
    usage = replies.CHAT["usage"]
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "together",
        "gen_ai.usage.input_tokens": usage["prompt_tokens"],
        "gen_ai.usage.output_tokens": usage["completion_tokens"],
        **({"gen_ai.response.id": replies.CHAT["id"]} if told else {}),
        **changes,
    }
    times = (begin, time.time_ns())
    return span(attributes, scope="a framework", context=(number, 1), times=times)


@pytest.fixture
def billed() -> RecordedEvents:
    """What the exporter of a span pipeline bills."""
    return RecordedEvents()


@pytest.fixture
def pipeline(billed: RecordedEvents) -> CmdrDataSpanExporter:
    """An exporter beside the one that meters our calls."""
    return CmdrDataSpanExporter(delivery=billed, of_process=False)


@pytest.mark.parametrize("told", [True, False], ids=["with-id", "without-id"])
@pytest.mark.parametrize("tracked", [True, False], ids=["tracked", "untracked"])
@pytest.mark.usefixtures("meter")
def test_a_call(
    told: bool,
    tracked: bool,
    provider: Provider,
    pipeline: CmdrDataSpanExporter,
    billed: RecordedEvents,
) -> None:
    """A framework's span about a call is passed over, also where the call is to make no event; a second one is not."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    begin = time.time_ns()
    with client(provider) as sdk:
        completions: Any = sdk.chat.completions
        completions.create(**ARGUMENTS, track_usage=tracked)
    pipeline.export([around(begin, 1, told=told)])
    assert [] == billed.wire
    pipeline.export([around(begin, 2)])
    assert 1 == len(billed.wire)


@pytest.mark.parametrize("told", [True, False], ids=["with-id", "without-id"])
def test_an_open_stream(
    told: bool,
    provider: Provider,
    meter: Meter,
    pipeline: CmdrDataSpanExporter,
    billed: RecordedEvents,
) -> None:
    """A framework's span that ends before the stream it is about is passed over."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    begin = time.time_ns()
    with client(provider) as sdk:
        completions: Any = sdk.chat.completions
        stream = completions.create(**ARGUMENTS, stream=True)
        next(iter(stream))
        assert [] == meter.events()
        pipeline.export([around(begin, 1, told=told)])
        stream.response.close()
    assert [] == billed.wire
    assert 1 == len(meter.events())


@pytest.mark.usefixtures("meter")
def test_an_attempt_that_failed(
    provider: Provider, pipeline: CmdrDataSpanExporter, billed: RecordedEvents
) -> None:
    """A span about what was done instead of a call that failed is billed."""
    provider.answer(CHAT, Reply(json={"error": {"message": "no"}}, status=400))
    begin = time.time_ns()
    with client(provider) as sdk, pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(**ARGUMENTS)
    pipeline.export([around(begin, 1)])
    assert 1 == len(billed.wire)


def test_a_tracked_client_alone(
    provider: Provider,
    events: RecordedEvents,
    pipeline: CmdrDataSpanExporter,
    billed: RecordedEvents,
) -> None:
    """The calls of a tracked client are known without the instrumentor."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    CmdrDataSpanExporter(delivery=events)
    begin = time.time_ns()
    with TrackedOpenAI(base_url=provider.url, api_key="sk-standin") as sdk:
        sdk.chat.completions.create(**ARGUMENTS)
    pipeline.export([around(begin, 1)])
    assert (1, 0) == (len(events.wire), len(billed.wire))
