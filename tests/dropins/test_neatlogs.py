"""NeatLogs' names: the examples of its page, whole histories, whose key is whose, and nothing printed or written."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import openai
import pytest

from cmdrdata_exporter import ConfigurationError, faults, runtime
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.neatlogs import LLMTracker, OpenAIProvider
from tests import replies
from tests.dropins.conftest import KEY, Run
from tests.dropins.replies import REFUSED, TOOL_CALL
from tests.metering import Meter, RecordedEvents
from tests.provider import Provider, Reply
from tests.sdk import client

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "prompt: Hello!"}]
REASON = "openai.RateLimitError"


def kept(
    model: str,
    prompt: Any,
    completion: str | None,
    tokens: int | None,
    tags: list[str],
    *,
    error: str | None = None,
) -> dict[str, Any]:
    """Return a conversation of the history, without its time."""
    metadata = {"total_tokens": tokens, "tags": tags, **({"error": error} if error else {})}
    return {"model": model, "prompt": prompt, "completion": completion, "metadata": metadata}


def timeless(history: list[Any]) -> list[dict[str, Any]]:
    """Check the times of a history, and return it without them."""
    now = datetime.now(timezone.utc)
    times = [datetime.fromisoformat(conversation["timestamp"]) for conversation in history]
    assert times == sorted(times)
    assert all(now - timedelta(minutes=1) < time <= now for time in times)
    for conversation in history:
        if conversation["metadata"].get("error", "").startswith(f"{REASON}: "):
            # What follows is the SDK's own wording.
            assert "slow down" in conversation["metadata"]["error"]
            conversation["metadata"]["error"] = REASON
    return [{k: v for k, v in one.items() if k != "timestamp"} for one in history]


@pytest.mark.parametrize("instrumented", [False, True])
def test_the_page(instrumented: bool, provider: Provider, run: Run) -> None:
    """Every example of the page works with the import line changed; the whole history and all events are right."""
    chat, streamed = Reply(json=replies.CHAT), Reply(events=replies.chat_chunks())
    tools = Reply(json=TOOL_CALL)
    provider.answer(
        CHAT, chat, chat, tools, streamed, streamed, REFUSED, chat, chat, streamed, REFUSED
    )
    provider.answer("/v1/completions", Reply(json=replies.COMPLETION))
    ran = run("neatlogs_page.py", instrumented=instrumented)
    direct, tracker = ran.printed
    tags = ["production", "openai"]
    weather = {"name": "weather", "arguments": '{"city": "Rome"}'}
    asked = [
        {"role": "system", "content": "prompt: be brief"},
        {"role": "user", "content": "prompt: weather?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_0", "type": "function", "function": weather}],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": "prompt: 30 degrees"},
    ]
    assert [
        kept("gpt-3.5-turbo", HELLO, "hello", 29, tags),
        kept("gpt-3.5-turbo-instruct", "prompt: a poem", "hello", 12, tags),
        kept("tools", asked, None, 29, tags),
        kept("stream", HELLO, "hello", 29, tags),
        kept("stream", HELLO, "hel", None, tags),
        kept("refused", HELLO, None, None, tags, error=REASON),
        kept("elsewhere", "prompt: y", None, None, tags, error="ValueError: ValueError"),
    ] == timeless(direct)
    assert [
        kept("gpt-3.5-turbo", HELLO, "hello", 29, ["production"]),
        kept("stream", HELLO, "hello", 29, ["production"]),
        kept("refused", HELLO, None, None, ["production"], error=REASON),
    ] == timeless(tracker)
    logged = (["production", "openai"], "your-trace-id")
    tracked = (["production"], None)
    others = [("gpt-3.5-turbo", "reported", None, None)] if instrumented else []
    assert [
        *others,
        ("gpt-3.5-turbo", "reported", *logged),
        ("gpt-3.5-turbo-instruct", "reported", *logged),
        ("tools", "reported", *logged),
        ("stream", "reported", *logged),
        ("stream", "partial", *logged),
        ("refused", "not_applicable", *logged),
        *others,
        ("gpt-3.5-turbo", "reported", *tracked),
        ("stream", "reported", *tracked),
        ("refused", "not_applicable", *tracked),
    ] == [
        (
            event["metadata"]["request_model"],
            event["metadata"]["usage_status"],
            event["metadata"].get("tags"),
            event["metadata"].get("user_trace_id"),
        )
        for event in ran.events
    ]
    assert {"acme"} == {event["customer_id"] for event in ran.events}
    assert [*["cmdrdata.metadata.tags" in one for _, one, _ in ran.spans]] == [
        "gen_ai.input.messages" in one for _, one, _ in ran.spans
    ]
    assert len(ran.spans) == len(ran.events)


def ask(provider: Provider, **options: Any) -> None:
    """Make a call with a client of the SDK's own."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sdk:
        create: Any = sdk.chat.completions.create
        create(model="m", messages=HELLO, **options)


def test_two_providers(provider: Provider, meter: Meter) -> None:
    """Both keep the call, its event has what both say, the newer first; after one stops, the other goes on."""
    first = OpenAIProvider("one", client="web", tags=["a"])
    second = OpenAIProvider("two", tags=["b"])
    first.override()
    first.override()
    second.override()
    ask(provider)
    second.undo_override()
    ask(provider, usage_metadata={"client": "call"}, customer_id="acme")
    first.undo_override()
    first.undo_override()
    ask(provider)
    assert [["a"], ["a"]] == [c["metadata"]["tags"] for c in first.get_conversation_history()]
    assert [["b"]] == [c["metadata"]["tags"] for c in second.get_conversation_history()]
    assert [("two", ["b"], "web"), ("one", ["a"], "call"), (None, None, None)] == [
        tuple(event["metadata"].get(key) for key in ("user_trace_id", "tags", "client"))
        for event in meter.recorded.wire
    ]


def test_limits(provider: Provider, meter: Meter) -> None:
    """The last hundred are kept; a limit takes the newest of them, and none takes all."""
    kept = OpenAIProvider("t")
    for number in range(102):
        kept.handle_error(ValueError(), {"model": f"m{number}", "messages": HELLO})
    models = [conversation["model"] for conversation in kept.get_conversation_history()]
    assert models == [f"m{number}" for number in range(2, 102)]
    assert ["m100", "m101"] == [c["model"] for c in kept.get_conversation_history(limit=2)]
    assert len(kept.get_conversation_history(0)) == 100
    assert meter.events() == []
    assert provider.requests == []


def test_errors_of_elsewhere() -> None:
    """Odd arguments of a call that failed are kept as far as they can be; the same error is not kept twice."""
    kept = OpenAIProvider("t", tags=["x"])
    error = KeyError("secret")
    for arguments in (
        {"model": "m", "messages": HELLO},
        {"model": "m", "messages": HELLO},
        {"messages": "none", "model": 7},
        {},
    ):
        assert kept.handle_error(error, arguments) is None
    assert [("m", HELLO), (None, None)] == [
        (c["model"], c["prompt"]) for c in kept.get_conversation_history()
    ]
    assert "secret" not in str(kept.get_conversation_history())


def test_whose_key(caplog: pytest.LogCaptureFixture) -> None:
    """A key of NeatLogs is neither used nor kept, and that is told; one of ours must be usable; neither is shown."""
    with caplog.at_level(logging.INFO, "cmdrdata"):
        provider = OpenAIProvider("t", api_key="your-neatlogs-api-key")
    assert "NeatLogs has no use here" in caplog.text
    assert "your-neatlogs" not in caplog.text + repr(vars(provider))
    for make in (OpenAIProvider, LLMTracker):
        with pytest.raises(ConfigurationError, match="20 to 500") as raised:
            make(api_key="tk-short-secret")
        assert "secret" not in str(raised.value)


def test_a_key_of_ours(provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its account meters what it overrides, and no other call."""
    own = RecordedEvents()
    monkeypatch.setattr(runtime, "announce_destination", lambda *_, **__: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(runtime.process, "delivery", lambda _: (own, None))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    tracker = LLMTracker(api_key=KEY)
    tracker.override_api()
    ask(provider)
    tracker.stop_instrumenting()
    ask(provider)
    assert (1, 1) == (len(own.wire), len(meter.recorded.wire))


@pytest.mark.parametrize("tags", ["production", 7, [7], {"a": 1}])
def test_tags_that_are_none(tags: Any) -> None:
    """Tags that are no list of texts are refused at once."""
    with pytest.raises(ConfigurationError, match="expected is a list of texts"):
        OpenAIProvider("t", tags=tags)
    with pytest.raises(ConfigurationError, match="expected is a list of texts"):
        LLMTracker().add_tags(tags)


def test_the_sdk_is_as_it_was() -> None:
    """Who overrides without an instrumentor leaves none behind; who finds one, or is followed by one, leaves it."""
    instrumentor, logged = CmdrDataInstrumentor(), OpenAIProvider("t")
    before = vars(openai.OpenAI).get("request")
    logged.override()
    assert instrumentor.is_instrumented_by_opentelemetry
    logged.undo_override()
    assert not instrumentor.is_instrumented_by_opentelemetry
    assert before is vars(openai.OpenAI).get("request")
    for order in ("before", "after"):
        if order == "before":
            instrumentor.instrument()
        logged.override()
        if order == "after":
            instrumentor.instrument()
        logged.undo_override()
        assert instrumentor.is_instrumented_by_opentelemetry
        instrumentor.uninstrument()
    assert faults.counts == {}
