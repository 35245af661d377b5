"""r4u's clients: its examples, whole spans and events, content on the spans of these clients and of no other."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from cmdrdata_exporter import ConfigurationError
from opentelemetry_instrumentation_cmdrdata import bind_customer, r4u
from tests import replies
from tests.dropins.conftest import Run
from tests.dropins.replies import REFUSED, TOOL_CALL, tool_chunks
from tests.metering import Meter, attributes
from tests.provider import Provider, Reply
from tests.sdk import client

CHAT = "/v1/chat/completions"
HELLO: Any = [
    {"role": "system", "content": "prompt: be concise"},
    {"role": "user", "content": "prompt: Hello!"},
]
ASKED = [
    {"role": "system", "parts": [{"type": "text", "content": "prompt: be concise"}]},
    {"role": "user", "parts": [{"type": "text", "content": "prompt: Hello!"}]},
]
WEATHER = {
    "type": "tool_call",
    "name": "weather",
    "id": "call_1",
    "arguments": {"city": "Paris"},
}
DEFINITIONS = [{"type": "function", "name": "weather"}]
CODE = ("code.file.path", "code.function.name")


def said(text: str, reason: str = "stop") -> dict[str, Any]:
    """Return what a span has of an answer of text."""
    parts = [{"type": "text", "content": text}]
    return {"role": "assistant", "parts": parts, "finish_reason": reason}


def shown(one: dict[str, Any]) -> dict[str, Any]:
    """Return what a span says of content and code."""
    found = {
        name.removeprefix("gen_ai."): json.loads(one[name])
        for name in ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions")
        if name in one
    }
    return {**found, **{name: one[name] for name in CODE if name in one}}


@pytest.mark.parametrize("instrumented", [False, True])
def test_the_examples(instrumented: bool, provider: Provider, run: Run) -> None:
    """Streams, tools, an aborted stream, an embedding, failures: spans with whole content, each metered once."""
    streamed = Reply(events=replies.chat_chunks())
    chat, tools = Reply(json=replies.CHAT), Reply(json=TOOL_CALL)
    broken = Reply(events=replies.chat_chunks(), cut_after=2)
    tool_stream = Reply(events=tool_chunks())
    provider.answer(CHAT, streamed, tool_stream, streamed, REFUSED, broken, chat, tools, chat)
    provider.answer("/v1/embeddings", Reply(json=replies.EMBEDDINGS))
    ran = run("r4u_page.py", instrumented=instrumented)
    assert ["hello", "hello"] == ran.printed
    others = [("gpt-4o-mini", False, "reported", 29)] if instrumented else []
    assert [
        ("stream", True, "reported", 29),
        ("tool-stream", True, "reported", 29),
        ("stream", True, "partial", 0),
        ("text-embedding-3-small", False, "reported", 9),
        ("refused", False, "not_applicable", 0),
        ("broken-stream", True, "partial", 0),
        ("gpt-4o-mini", False, "reported", 29),
        ("tools", False, "reported", 29),
        *others,
    ] == [
        (
            event["metadata"]["request_model"],
            event["request"]["streaming"],
            event["metadata"]["usage_status"],
            event["total_tokens"],
        )
        for event in ran.events
    ]
    # As a script its directory is the first in `sys.path`.
    file = "tests/dropins/r4u_page.py" if instrumented else "r4u_page.py"
    streaming, whole = (
        dict(zip(CODE, (file, function), strict=True)) for function in ("streaming", "whole")
    )
    call = {"role": "assistant", "parts": [WEATHER], "finish_reason": "tool_call"}
    asked = {"input.messages": ASKED, "tool.definitions": DEFINITIONS}
    assert [
        {"input.messages": ASKED, "output.messages": [said("hello")], **streaming},
        {**asked, "output.messages": [call], **streaming},
        {"input.messages": ASKED, "output.messages": [said("hel", "error")], **streaming},
        streaming,
        {"input.messages": ASKED, **streaming},
        {"input.messages": ASKED, "output.messages": [said("hel", "error")], **streaming},
        {"input.messages": ASKED, "output.messages": [said("hello")], **whole},
        {**asked, "output.messages": [call], **whole},
        *({} for _ in others),
    ] == [shown(one) for _, one, _ in ran.spans]


def drop_in(provider: Provider, **options: Any) -> Any:
    """Return a client of r4u's name."""
    return r4u.OpenAI(base_url=provider.url, api_key="sk-test", max_retries=0, **options)


@pytest.fixture
def chat(provider: Provider) -> Provider:
    """A provider that answers every chat."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    return provider


def test_whose_content_is_shown(chat: Provider, meter: Meter) -> None:
    """Copies of such a client show content, whatever is said on the call; clients of the SDK's own do not."""
    with drop_in(chat) as sdk, client(chat) as ordinary:
        for one in (sdk, sdk.with_options(timeout=3), bind_customer(sdk, "acme")):
            one.chat.completions.create(model="m", messages=HELLO)
        sdk.chat.completions.create(model="m", messages=HELLO, customer_id="globex")
        sdk.chat.completions.create(model="m", messages=HELLO, track_usage=False)
        create: Any = ordinary.chat.completions.create
        create(model="m", messages=HELLO)
    spans = [attributes(span) for span in meter.spans()]
    assert ["gen_ai.input.messages" in span for span in spans] == [True] * 5 + [False]
    assert ["code.file.path" in span for span in spans] == [True] * 5 + [False]
    assert [None, None, "acme", "globex", None] == [
        event["customer_id"] for event in meter.recorded.wire
    ]
    assert "prompt: " not in str(meter.recorded.bodies)


def test_timed_to_the_end(provider: Provider, meter: Meter) -> None:
    """The span of a stream lasts until its last chunk, not until it was begun."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=2))

    async def run() -> float:
        async with r4u.AsyncOpenAI(base_url=provider.url, api_key="sk-test") as sdk:
            create: Any = sdk.chat.completions.create
            stream = await create(model="m", messages=HELLO, stream=True)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            threading.Timer(0.2, provider.release).start()
            async for _ in stream:
                pass
            return loop.time() - begun

    seconds = asyncio.run(run())
    (span,) = meter.spans()
    assert span.end_time is not None
    assert span.start_time is not None
    assert seconds >= 0.2
    assert (span.end_time - span.start_time) / 1e9 >= 0.2


def test_a_key_that_cannot_be_used() -> None:
    """A malformed CmdrData key is refused when the client is made, and not shown."""
    for kind in (r4u.OpenAI, r4u.AsyncOpenAI):
        with pytest.raises(ConfigurationError, match="20 to 500") as raised:
            kind(api_key="sk-test", tracker_key="tk-short-secret")
        assert "secret" not in str(raised.value)
