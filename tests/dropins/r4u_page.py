"""What r4u's examples show its users, and what they make of it: only the import line is another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import openai

from opentelemetry_instrumentation_cmdrdata.r4u import AsyncOpenAI, OpenAI
from tests.dropins.spans import write_spans

WHERE: dict[str, Any] = {"base_url": sys.argv[1], "api_key": "your-api-key", "max_retries": 0}
HELLO: Any = [
    {"role": "system", "content": "prompt: be concise"},
    {"role": "user", "content": "prompt: Hello!"},
]
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
]


async def streaming() -> str:
    """Streams without a setting, with tools, aborted; an embedding; a failure."""
    client: Any = AsyncOpenAI(**WHERE)
    stream = await client.chat.completions.create(
        model="stream", messages=HELLO, stream=True, max_tokens=100, temperature=0.5
    )
    collected = ""
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            collected += chunk.choices[0].delta.content
    stream = await client.chat.completions.create(
        model="tool-stream", messages=HELLO, extra_body={"tools": TOOLS}, stream=True
    )
    async for _ in stream:
        pass
    stream = await client.chat.completions.create(model="stream", messages=HELLO, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    # The oldest SDK's have no `close`.
    await (stream.close if hasattr(stream, "close") else stream.response.aclose)()
    await client.embeddings.create(model="text-embedding-3-small", input="prompt: embedded")
    with contextlib.suppress(openai.OpenAIError):
        await client.chat.completions.create(model="refused", messages=HELLO)
    # Of the oldest SDK it is the HTTP client's own error.
    with contextlib.suppress(Exception):
        async for _ in await client.chat.completions.create(
            model="broken-stream", messages=HELLO, stream=True
        ):
            pass
    await client.close()
    return collected


def whole() -> str:
    """Calls of the synchronous client, and one of the SDK's own."""
    client: Any = OpenAI(**WHERE)
    answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    client.with_options(timeout=20).chat.completions.create(
        model="tools", messages=HELLO, extra_body={"tools": TOOLS}
    )
    ordinary: Any = openai.OpenAI(**WHERE)
    ordinary.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert isinstance(client, openai.OpenAI)
    return str(answer.choices[0].message.content)


if __name__ == "__main__":
    write_spans(sys.argv[2])
    sys.stdout.write(json.dumps([asyncio.run(streaming()), whole()]))
