"""
Make a family of calls under the instrumentations that the argument names, and print what came of it.

A program of its own, since an instrumentation is switched on once in a process. Its one argument is
JSON: the `family` of calls; the `instrumentors` in the order in which they are switched on; the
`processor` that hands spans to the exporter, or null where the environment has set up everything;
and where OpenAI and Anthropic are. It prints JSON too: the results of the calls by their names, the
scopes of the spans, what the exporter passed over, and the faults. The events go to the backend.
Each call is made for a customer of its own, who is named as the call.
"""

from __future__ import annotations

import asyncio
import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import (
    CmdrDataSpanExporter,
    CmdrDataSpanProcessor,
    customer_context,
    exporter,
    faults,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Iterator

    Calls = Iterator[tuple[str, Callable[[], Any]]]

INSTRUMENTORS = {
    "ours": "opentelemetry_instrumentation_cmdrdata:CmdrDataInstrumentor",
    "official openai": "opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor",
    "openinference openai": "openinference.instrumentation.openai:OpenAIInstrumentor",
    "openllmetry openai": "opentelemetry.instrumentation.openai:OpenAIInstrumentor",
    "openinference langchain": "openinference.instrumentation.langchain:LangChainInstrumentor",
    "openllmetry langchain": "opentelemetry.instrumentation.langchain:LangchainInstrumentor",
    "openinference anthropic": "openinference.instrumentation.anthropic:AnthropicInstrumentor",
    "openllmetry anthropic": "opentelemetry.instrumentation.anthropic:AnthropicInstrumentor",
}
PROCESSORS = {"simple": SimpleSpanProcessor, "batch": BatchSpanProcessor}

HELLO = [{"role": "user", "content": "hello"}]
CHAT: dict[str, Any] = {"model": "gpt-4.1-mini", "messages": HELLO}
STREAM: dict[str, Any] = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
EMBEDDING: dict[str, Any] = {"model": "text-embedding-3-small", "input": "hello"}
RESPONSE: dict[str, Any] = {"model": "o4-mini", "input": "hello"}
MESSAGE: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 20, "messages": HELLO}

# One for all calls, since LangChain keeps its connections for the next.
LOOP = asyncio.new_event_loop()


def wait(result: Awaitable[Any]) -> Any:
    """Return what a coroutine returns."""
    return LOOP.run_until_complete(result)


async def collect(chunks: AsyncIterable[Any]) -> list[Any]:
    """Read a stream to its end."""
    return [chunk async for chunk in chunks]


async def collect_from(stream: Awaitable[AsyncIterable[Any]]) -> list[Any]:
    """Wait for a stream, and read it to its end."""
    return await collect(await stream)


def as_json(result: Any) -> Any:
    """Return what an SDK or a framework returned as JSON has it."""
    if isinstance(result, list):
        return [as_json(one) for one in cast("list[Any]", result)]
    return result.model_dump(mode="json", warnings=False)


def openai_calls(options: dict[str, Any]) -> Calls:
    """Call chat completions, embeddings and responses: plain, streamed, raw, sync and async."""
    openai = import_module("openai")
    client, aclient = openai.OpenAI(**options), openai.AsyncOpenAI(**options)
    chat, achat = client.chat.completions, aclient.chat.completions

    def helper() -> Any:
        with chat.stream(**CHAT, stream_options={"include_usage": True}) as stream:
            return stream.until_done().get_final_completion()

    yield "chat", lambda: chat.create(**CHAT)
    yield "chat raw", lambda: chat.with_raw_response.create(**CHAT).parse()
    yield "chat streamed", lambda: list(chat.create(**STREAM))
    yield "chat helper", helper
    yield "chat async", lambda: wait(achat.create(**CHAT))
    yield "chat async streamed", lambda: wait(collect_from(achat.create(**STREAM)))
    yield "embeddings", lambda: client.embeddings.create(**EMBEDDING)
    yield "embeddings async", lambda: wait(aclient.embeddings.create(**EMBEDDING))
    yield "responses", lambda: client.responses.create(**RESPONSE)
    yield "responses streamed", lambda: list(client.responses.create(**RESPONSE, stream=True))
    yield "responses async", lambda: wait(aclient.responses.create(**RESPONSE))
    yield (
        "responses async streamed",
        lambda: wait(collect_from(aclient.responses.create(**RESPONSE, stream=True))),
    )


def langchain_calls(options: dict[str, Any]) -> Calls:
    """Call a ChatOpenAI directly, in a chain, and in an agent with one tool, which calls it twice."""
    chat_model = import_module("langchain_openai").ChatOpenAI
    prompts = import_module("langchain_core.prompts")
    create_agent = import_module("langchain.agents").create_agent
    model = chat_model(model="gpt-4.1-mini", **options)
    responses = chat_model(model="o4-mini", use_responses_api=True, **options)
    chain = prompts.ChatPromptTemplate.from_messages([("user", "{text}")]) | model

    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    yield "invoke", lambda: model.invoke("hello")
    yield "ainvoke", lambda: wait(model.ainvoke("hello"))
    yield "stream", lambda: list(model.stream("hello", stream_usage=True))
    yield "astream", lambda: wait(collect(model.astream("hello", stream_usage=True)))
    yield "responses", lambda: responses.invoke("hello")
    yield "responses stream", lambda: list(responses.stream("hello"))
    yield "chain", lambda: chain.invoke({"text": "hello"})
    yield "agent", lambda: create_agent(model, [weather]).invoke({"messages": HELLO})["messages"]


def batch(model: Any) -> list[Any]:
    """Ask three times at once, and return the answers in the order in which they were given."""
    answers = model.batch(["hello", "hello", "hello"])
    return sorted(answers, key=lambda answer: int(answer.response_metadata["id"].split("-")[1]))


def compatible_calls(options: dict[str, Any]) -> Calls:
    """Call a ChatTogether and a ChatDeepSeek, which reach their providers through the openai SDK."""
    base_url = options.pop("base_url")
    options["stream_usage"] = True
    for name, module, key in (
        ("ChatTogether", "langchain_together", "base_url"),
        ("ChatDeepSeek", "langchain_deepseek", "api_base"),
    ):
        chat_model: Any = getattr(import_module(module), name)
        model = chat_model(model="gpt-4.1-mini", **options, **{key: base_url})
        yield f"{name} invoke", lambda model=model: model.invoke("hello")
        yield f"{name} ainvoke", lambda model=model: wait(model.ainvoke("hello"))
        yield f"{name} stream", lambda model=model: list(model.stream("hello"))
        yield f"{name} astream", lambda model=model: wait(collect(model.astream("hello")))
        yield f"{name} batch", lambda model=model: batch(model)


def anthropic_calls(options: dict[str, Any]) -> Calls:
    """Send a message: plain, streamed in both ways, and async."""
    anthropic = import_module("anthropic")
    client, aclient = anthropic.Anthropic(**options), anthropic.AsyncAnthropic(**options)

    def helper() -> Any:
        with client.messages.stream(**MESSAGE) as stream:
            return stream.get_final_message()

    yield "message", lambda: client.messages.create(**MESSAGE)
    yield "message streamed", lambda: list(client.messages.create(**MESSAGE, stream=True))
    yield "message helper", helper
    yield "message async", lambda: wait(aclient.messages.create(**MESSAGE))


FAMILIES = {
    "openai": openai_calls,
    "langchain": langchain_calls,
    "compatible": compatible_calls,
    "anthropic": anthropic_calls,
}


def main(
    family: str, instrumentors: list[str], processor: str | None, base_url: str
) -> dict[str, Any]:
    """Make the calls, and return what came of them."""
    if processor is None:
        provider = cast("TracerProvider", trace.get_tracer_provider())
    else:
        provider = TracerProvider()
        provider.add_span_processor(PROCESSORS[processor](CmdrDataSpanExporter()))
        trace.set_tracer_provider(provider)
    spans = InMemorySpanExporter()
    provider.add_span_processor(CmdrDataSpanProcessor())
    provider.add_span_processor(SimpleSpanProcessor(spans))
    for name in instrumentors:
        module, instrumentor = INSTRUMENTORS[name].split(":")
        getattr(import_module(module), instrumentor)().instrument(tracer_provider=provider)

    results: dict[str, Any] = {}
    options = {"base_url": base_url, "api_key": "sk-standin", "max_retries": 0}
    for name, call in FAMILIES[family](options):
        with customer_context(name):
            results[name] = as_json(call())
    provider.force_flush()
    exporter.current_exporter().force_flush()
    scopes = [one.instrumentation_scope for one in spans.get_finished_spans()]
    return {
        "results": results,
        "scopes": sorted({scope.name for scope in scopes if scope}),
        "passed_over": dict(exporter.current_exporter().passed_over),
        "faults": dict(faults.counts),
    }


if __name__ == "__main__":
    json.dump(main(**json.loads(sys.argv[1])), sys.stdout)
