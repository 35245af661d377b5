"""
Make streamed calls beside one other library that wraps the openai SDK, and print what the application got.

A program of its own, since some of these libraries can be switched on, but not off. Its one argument is JSON: the
`peer`; whether ours is switched on `before` it, `after` it, or not at all (null); and where OpenAI is. The application
never asks for usage. Each call is made for a customer of its own, who is named as the call.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import current_exporter, customer_context, faults

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "gpt-4.1-mini", "messages": MESSAGES}
STREAM: dict[str, Any] = {**CHAT, "stream": True}

Wrap = Callable[[Any], Any]


def as_it_is(client: Any) -> Any:
    """Return a client that nothing wraps: the library has wrapped its class."""
    return client


def nothing() -> Wrap:
    """Switch on nothing."""
    return as_it_is


def langfuse() -> Wrap:
    """Switch on Langfuse, as importing its module does."""
    import_module("langfuse.openai")
    return as_it_is


def logfire() -> Wrap:
    """Switch on Logfire."""
    module = import_module("logfire")
    module.configure(send_to_logfire=False, console=False, inspect_arguments=False)
    module.instrument_openai()
    return as_it_is


def openinference() -> Wrap:
    """Switch on OpenInference's instrumentation."""
    import_module("openinference.instrumentation.openai").OpenAIInstrumentor().instrument()
    return as_it_is


def openllmetry() -> Wrap:
    """Switch on OpenLLMetry's instrumentation."""
    import_module("opentelemetry.instrumentation.openai").OpenAIInstrumentor().instrument()
    return as_it_is


def langsmith() -> Wrap:
    """Have clients wrapped by LangSmith."""
    return import_module("langsmith.wrappers").wrap_openai


def braintrust() -> Wrap:
    """Have clients wrapped by Braintrust."""
    return import_module("braintrust").wrap_openai


def datadog() -> Wrap:
    """Switch on Datadog's integration."""
    import_module("ddtrace").patch(openai=True)
    return as_it_is


PEERS: dict[str, Callable[[], Wrap]] = {
    "nothing": nothing,
    "langfuse": langfuse,
    "logfire": logfire,
    "openinference": openinference,
    "openllmetry": openllmetry,
    "langsmith": langsmith,
    "braintrust": braintrust,
    "datadog": datadog,
}


def ours() -> None:
    """Switch on our instrumentor."""
    import_module("opentelemetry_instrumentation_cmdrdata").CmdrDataInstrumentor().instrument()


def shown(chunk: Any) -> Any:
    """Return what a chunk shows."""
    return chunk if isinstance(chunk, str) else chunk.model_dump(mode="json", warnings=False)


def text(chunks: list[Any]) -> str:
    """Return the text of a stream, as every tutorial reads it."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def lines(found: list[str]) -> list[Any]:
    """Return the chunks in the lines of a body; that their usage is null is no difference."""
    parsed = [json.loads(line[6:]) for line in found if line.startswith("data: {")]
    return [{k: v for k, v in chunk.items() if k != "usage" or v} for chunk in parsed]


def sync_calls(client: Any) -> dict[str, Callable[[], Any]]:
    """Return the calls of a client."""
    chat = client.chat.completions

    def streamed() -> Any:
        chunks = list(chat.create(**STREAM))
        return [text(chunks), [shown(chunk) for chunk in chunks]]

    def raw() -> Any:
        chunks = list(chat.with_raw_response.create(**STREAM).parse())
        return [text(chunks), [shown(chunk) for chunk in chunks]]

    def bytes_of_stream() -> Any:
        return lines(list(chat.create(**STREAM).response.iter_lines()))

    def bytes_of_raw() -> Any:
        return lines(list(chat.with_raw_response.create(**STREAM).http_response.iter_lines()))

    def with_block() -> Any:
        with chat.create(**STREAM) as stream:
            return text(list(stream))

    return {
        "plain": lambda: shown(chat.create(**CHAT)),
        "streamed": streamed,
        "raw": raw,
        "bytes of a stream": bytes_of_stream,
        "bytes of a raw response": bytes_of_raw,
        "with": with_block,
    }


def async_calls(client: Any) -> dict[str, Callable[[], Any]]:
    """Return the calls of an asynchronous client."""
    chat = client.chat.completions

    async def plain() -> Any:
        return shown(await chat.create(**CHAT))

    async def streamed() -> Any:
        chunks = [chunk async for chunk in await chat.create(**STREAM)]
        return [text(chunks), [shown(chunk) for chunk in chunks]]

    async def raw() -> Any:
        response = await chat.with_raw_response.create(**STREAM)
        chunks = [chunk async for chunk in response.parse()]
        return [text(chunks), [shown(chunk) for chunk in chunks]]

    async def bytes_of_stream() -> Any:
        stream = await chat.create(**STREAM)
        return lines([line async for line in stream.response.aiter_lines()])

    async def bytes_of_raw() -> Any:
        response = await chat.with_raw_response.create(**STREAM)
        return lines([line async for line in response.http_response.aiter_lines()])

    return {
        f"async {name}": call
        for name, call in {
            "plain": plain,
            "streamed": streamed,
            "raw": raw,
            "bytes of a stream": bytes_of_stream,
            "bytes of a raw response": bytes_of_raw,
        }.items()
    }


def outcome(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the exception that the application gets."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same without us
        return f"{type(error).__name__}: {error}"


def main(peer: str, order: str | None, base_url: str) -> dict[str, Any]:
    """Make the calls, and return what came of them."""
    logging.disable(logging.CRITICAL)  # None of these libraries reaches its backend.
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    if peer in ("openinference", "openllmetry"):
        trace.set_tracer_provider(provider)
    if order == "before":
        ours()
    wrap = PEERS[peer]()
    if order == "after":
        ours()
    openai = import_module("openai")
    options = {"base_url": base_url, "api_key": "sk-standin", "max_retries": 0}
    results: dict[str, Any] = {}
    for name, call in sync_calls(wrap(openai.OpenAI(**options))).items():
        with customer_context(name):
            results[name] = outcome(call)

    async def run() -> None:
        for name, call in async_calls(wrap(openai.AsyncOpenAI(**options))).items():
            with customer_context(name):
                try:
                    results[name] = await call()
                except Exception as error:  # noqa: BLE001 - as above
                    results[name] = f"{type(error).__name__}: {error}"

    asyncio.run(run())
    if order is not None:
        import_module("opentelemetry_instrumentation_cmdrdata.open_calls").end_dropped()
        current_exporter().force_flush()
    names = [
        name
        for span in spans.get_finished_spans()
        if span.instrumentation_scope and "cmdrdata" not in span.instrumentation_scope.name
        for name in span.attributes or {}
    ]
    return {"results": results, "faults": dict(faults.counts), "spans": sorted(names)}


if __name__ == "__main__":
    json.dump(main(**json.loads(sys.argv[1])), sys.stdout)
