"""What NeatLogs' page shows its users, and what they make of it: only the import lines are others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from openai import AsyncOpenAI, OpenAI

from opentelemetry_instrumentation_cmdrdata.neatlogs import LLMTracker, OpenAIProvider
from tests.dropins.spans import write_spans

WHERE: dict[str, Any] = {
    "base_url": sys.argv[1],
    "api_key": "your-openai-api-key",
    "max_retries": 0,
}
HELLO: Any = [{"role": "user", "content": "prompt: Hello!"}]
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
]


def close(stream: Any) -> None:
    """Leave a stream; the oldest SDK's have no method for it."""
    (stream.close if hasattr(stream, "close") else stream.response.close)()


def existing_code() -> Any:
    """A client that was made before anything else."""
    return OpenAI(**WHERE)


def direct(early: Any) -> Any:
    """The provider itself: chats, legacy completions, tools, streams and failures."""
    provider = OpenAIProvider(
        trace_id="your-trace-id", api_key="your-neatlogs-api-key", tags=["production", "openai"]
    )
    early.chat.completions.create(model="gpt-3.5-turbo", messages=HELLO)
    provider.override()
    early.chat.completions.create(model="gpt-3.5-turbo", messages=HELLO)
    client: Any = OpenAI(**WHERE)
    client.completions.create(model="gpt-3.5-turbo-instruct", prompt="prompt: a poem", max_tokens=9)
    client.chat.completions.create(
        model="tools",
        messages=[
            {"role": "system", "content": "prompt: be brief"},
            {"role": "user", "content": [{"type": "text", "text": "prompt: weather?"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_0",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_0", "content": "prompt: 30 degrees"},
        ],
        extra_body={"tools": TOOLS},
    )
    for _ in client.chat.completions.create(model="stream", messages=HELLO, stream=True):
        pass
    stream = client.chat.completions.create(model="stream", messages=HELLO, stream=True)
    next(stream)
    next(stream)
    close(stream)
    try:
        client.chat.completions.create(model="refused", messages=HELLO)
    except Exception as error:  # noqa: BLE001 - as users do
        provider.handle_error(error, {"model": "refused", "messages": HELLO})
    provider.handle_error(ValueError("prompt: x"), {"model": "elsewhere", "prompt": "prompt: y"})
    provider.undo_override()
    client.chat.completions.create(model="gpt-3.5-turbo", messages=HELLO)
    assert len(provider.get_conversation_history(limit=2)) == 2
    return provider.get_conversation_history()


def tracker() -> Any:
    """The tracker: an asynchronous client, and a stream that is cancelled."""
    tracked = LLMTracker(api_key="your-neatlogs-api-key")
    tracked.add_tags(["production"])
    tracked.override_api()
    asyncio.run(ask())
    tracked.stop_instrumenting()
    return tracked.get_conversation_history()


async def ask() -> None:
    """Make asynchronous calls."""
    async with AsyncOpenAI(**WHERE) as client:
        chat: Any = client.chat.completions
        await chat.create(model="gpt-3.5-turbo", messages=HELLO)
        async for _ in await chat.create(model="stream", messages=HELLO, stream=True):
            pass
        with contextlib.suppress(Exception):
            await chat.create(model="refused", messages=HELLO)


if __name__ == "__main__":
    write_spans(sys.argv[2])
    sys.stdout.write(json.dumps([direct(existing_code()), tracker()]))
