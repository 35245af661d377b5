"""The recent conversations: what is kept of each call, of which calls, how many, and that nobody else gets it."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter import CmdrDataSpanExporter, ConfigurationError, customer_context
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.conversations import Conversation, Conversations
from tests import replies
from tests.dropins.replies import REFUSED, TOOL_CALL
from tests.files import contents
from tests.metering import Meter, RecordedEvents
from tests.provider import Provider, Reply
from tests.sdk import VERSION, async_client, client

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "prompt: Hello!"}]
ASKED = [{"role": "user", "parts": [{"type": "text", "content": "prompt: Hello!"}]}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def steady(conversation: Conversation) -> dict[str, Any]:
    """Check time and trace of a conversation, and return it without them."""
    time = datetime.fromisoformat(conversation["timestamp"])
    now = datetime.now(timezone.utc)
    assert now - timedelta(minutes=1) < time <= now
    assert len(conversation["trace_id"]) == 32
    return {k: v for k, v in conversation.items() if k not in ("timestamp", "trace_id")}


def expected(model: str = "m", **changes: Any) -> dict[str, Any]:
    """Return a conversation as the stand-in has it, with changes."""
    said = {"role": "assistant", "parts": [{"type": "text", "content": "hello"}]}
    return {
        "operation": "chat",
        "model": model,
        "messages": ASKED,
        "completion": "hello",
        "output": [{**said, "finish_reason": "stop"}],
        "tools": [],
        "tokens": {"input": 19, "output": 10, "total": 29},
        "tags": [],
        "customer": None,
        "error": None,
    } | changes


def chat(sdk: Any, **options: Any) -> Any:
    """Make a call."""
    return sdk.chat.completions.create(**{"model": "m", "messages": HELLO, **options})


def test_what_is_kept(provider: Provider, meter: Meter) -> None:
    """Whole conversations: answered, with tools, failed; who pays, how much; and no call before or after."""
    provider.answer(CHAT, *[Reply(json=replies.CHAT)] * 2, Reply(json=TOOL_CALL), REFUSED)
    with client(provider) as sdk:
        chat(sdk)
        with Conversations(tags=["support"]) as conversations:
            with customer_context("acme"):
                chat(sdk)
            chat(sdk, extra_body={"tools": TOOLS})
            with pytest.raises(Exception, match="slow down"):
                chat(sdk)
        with pytest.raises(Exception, match="slow down"):
            chat(sdk)
    kept = conversations.get_conversation_history()
    error = kept[2]["error"]
    assert error is not None
    assert "slow down" in str(error.pop("message"))
    weather = {
        "type": "tool_call",
        "id": "call_1",
        "name": "weather",
        "arguments": {"city": "Paris"},
    }
    called = {"role": "assistant", "parts": [weather], "finish_reason": "tool_call"}
    unknown = {"input": None, "output": None, "total": None}
    tags = ["support"]
    assert [
        expected(customer="acme", tags=tags),
        expected(
            tags=tags,
            completion=None,
            output=[called],
            tools=[{"type": "function", "name": "weather"}],
        ),
        expected(
            tags=tags,
            completion=None,
            output=[],
            tokens=unknown,
            error={"type": "openai.RateLimitError", "code": "429"},
        ),
    ] == [steady(one) for one in kept]
    traces = [event["metadata"]["trace_id"] for event in meter.recorded.wire]
    assert traces[1:4] == [one["trace_id"] for one in kept]
    assert [None, tags, tags, tags, None] == [
        event["metadata"].get("tags") for event in meter.recorded.wire
    ]
    assert b"prompt: " not in b"".join(meter.recorded.bodies.values())


@pytest.mark.parametrize("world", ["sync", "async"])
def test_streams(world: str, provider: Provider, meter: Meter) -> None:
    """A stream is kept when it ends; of one that is left, what came."""
    del meter
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    conversations = Conversations()

    async def aread() -> None:
        async with async_client(provider) as sdk:
            async for _ in await chat(sdk, stream=True):
                assert conversations.get_conversation_history() == []
            stream = await chat(sdk, stream=True)
            await stream.__anext__()
            await stream.__anext__()
            # The oldest SDK's have no `close`.
            await (stream.close if hasattr(stream, "close") else stream.response.aclose)()

    def read() -> None:
        with client(provider) as sdk:
            list(chat(sdk, stream=True))
            stream = chat(sdk, stream=True)
            next(stream)
            next(stream)
            (stream.close if hasattr(stream, "close") else stream.response.close)()

    with conversations:
        asyncio.run(aread()) if world == "async" else read()
    cut = {"role": "assistant", "parts": [{"type": "text", "content": "hel"}]}
    assert [
        expected(),
        expected(
            completion="hel",
            output=[{**cut, "finish_reason": "error"}],
            tokens={"input": None, "output": None, "total": None},
        ),
    ] == [steady(one) for one in conversations.get_conversation_history()]


def test_other_endpoints(provider: Provider, meter: Meter) -> None:
    """Completions and responses are conversations, embeddings are none."""
    del meter
    provider.answer("/v1/completions", Reply(json=replies.COMPLETION))
    provider.answer("/v1/embeddings", Reply(json=replies.EMBEDDINGS))
    provider.answer("/v1/responses", Reply(json=replies.RESPONSE))
    with client(provider) as sdk, Conversations() as conversations:
        sdk.completions.create(model="c", prompt="prompt: a poem")
        sdk.embeddings.create(model="e", input="prompt: x")
        if VERSION >= (1, 66):
            responses: Any = sdk.responses
            responses.create(model="r", input="prompt: Hello!", instructions="prompt: be brief")
    first, *rest = conversations.get_conversation_history()
    assert ("text_completion", "c", "hello") == (
        first["operation"],
        first["model"],
        first["completion"],
    )
    system = {"role": "system", "parts": [{"type": "text", "content": "prompt: be brief"}]}
    assert [("chat", [system, *ASKED], "hello")] * (VERSION >= (1, 66)) == [
        (one["operation"], one["messages"], one["completion"]) for one in rest
    ]


def test_only_the_last_are_kept(provider: Provider, meter: Meter) -> None:
    """The history is bounded; a limit takes its newest; what is returned is the caller's to change."""
    del meter
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sdk, Conversations(most=3) as conversations:
        for number in range(5):
            chat(sdk, model=f"m{number}")

    def models(limit: int | None) -> list[str | None]:
        return [one["model"] for one in conversations.get_conversation_history(limit)]

    assert ["m2", "m3", "m4"] == models(None) == models(9)
    assert (["m4"], []) == (models(1), models(0))
    conversations.get_conversation_history()[0]["messages"].clear()
    assert ASKED == conversations.get_conversation_history()[0]["messages"]
    with pytest.raises(ValueError, match="limit is -1"):
        conversations.get_conversation_history(-1)


def _said(number: int, text: str) -> Conversation:
    said: Any = {"role": "user", "parts": [{"type": "text", "content": text}]}
    given: Any = expected(f"m{number}", messages=[said], completion=text, output=[said])
    whole: Any = {"timestamp": "", "trace_id": "", **given}
    return whole


def test_their_bytes_are_bounded() -> None:
    """However long they are: the oldest go first, and one that is too long by itself is shortened."""
    conversations = Conversations(most_bytes=120_000)
    for number in range(10):
        conversations.add(_said(number, f"{number}" * 10_000))
    models = [one["model"] for one in conversations.get_conversation_history()]
    # Each takes some 30 kB, with the text in three places.
    assert ["m7", "m8", "m9"] == models
    conversations.add(_said(10, "x" * 1_000_000))
    conversations.add(_said(11, "short"))
    *_, long, short = conversations.get_conversation_history()
    assert ("m10", "m11", "short") == (long["model"], short["model"], short["completion"])
    assert long["completion"] == long["output"][0]["parts"][0]["content"]
    assert (long["completion"] or "").endswith(" of 1000000 characters]")
    assert len(repr(long)) < 120_000


def test_one_that_cannot_be_shortened() -> None:
    """What it is about is kept all the same."""
    conversations = Conversations(most_bytes=10)
    conversations.add(_said(1, "x" * 1000))
    [kept] = conversations.get_conversation_history()
    assert expected("m1", messages=[], output=[], completion=None) == {
        name: value for name, value in kept.items() if name not in ("timestamp", "trace_id")
    }


def test_many_threads(provider: Provider, meter: Meter) -> None:
    """Calls of several threads are all kept, while another reads the history."""
    del meter
    provider.answer(CHAT, Reply(json=replies.CHAT))
    done = threading.Event()

    def ask() -> None:
        with client(provider) as sdk:
            for _ in range(10):
                chat(sdk)

    with Conversations() as conversations:

        def read() -> None:
            while not done.is_set():
                conversations.get_conversation_history()

        reader = threading.Thread(target=read)
        reader.start()
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        reader.join()
    assert [expected()] * 40 == [steady(one) for one in conversations.get_conversation_history()]


def test_the_spool(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said is in no file."""
    monkeypatch.setenv("CMDRDATA_SPOOL_DIR", str(tmp_path))
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sdk, Conversations() as conversations, customer_context("acme"):
        chat(sdk)
    assert len(conversations.get_conversation_history()) == 1
    files = contents(tmp_path).values()
    assert any(b"chat.completions" in content for content in files)
    assert not any(b"prompt: " in content or b"hello" in content for content in files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"most": 0}, "most is 0"),
        ({"most_bytes": 0}, "most_bytes is 0"),
        ({"tags": "support"}, "tags is of type str"),
    ],
)
def test_what_cannot_be_used(arguments: dict[str, Any], message: str) -> None:
    """A history of nothing, and tags that are no list, are refused at once."""
    with pytest.raises(ConfigurationError, match=message):
        Conversations(**arguments)


def test_an_environment_that_cannot_be_used(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, events: RecordedEvents
) -> None:
    """Who begins to listen is told of a setting that cannot be used, and does not listen then."""
    monkeypatch.setenv("CMDRDATA_API_KEY", "tk-short")
    with pytest.raises(ConfigurationError):
        Conversations().start()
    monkeypatch.delenv("CMDRDATA_API_KEY")
    provider.answer(CHAT, Reply(json=replies.CHAT))
    CmdrDataInstrumentor().instrument(exporter=CmdrDataSpanExporter(delivery=events))
    with client(provider) as sdk:
        chat(sdk)
    CmdrDataInstrumentor().uninstrument()
    assert len(events.wire) == 1
