"""
Record the spans that other instrumentations make, as fixtures for the exporter's tests.

Each fixture is `<name>.json` beside this file: the finished spans of one instrumentation, in the
order in which they ended, around the same few calls of a stand-in provider. Make one again, from
the root of the repository and with the newest versions, by

    with=$(python -m tests.recorded.record --requirements <name>)
    uv run --no-project --prerelease allow $with python -m tests.recorded.record <name>

or, in any environment that has the recording's requirements, by the last line alone. The names
are the keys of `RECORDINGS`. The version of an instrumentation stands in the `scope` of each of its
spans (`openai_v2`, 2.1b0, leaves it empty). The present files were made with anthropic 2.12.0 and
openai 3.54.0 (1.109.1 for `openai_v2` and `openllmetry_openai_0_40`).
"""

from __future__ import annotations

import argparse
import itertools
import json
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.standins import REFUSED_KEY, AnthropicStandIn, OpenAIStandIn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.sdk.trace import ReadableSpan

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


# --- The calls --------------------------------------------------------------------------------


def call_openai() -> None:
    """Call each endpoint plainly, streamed, and in the ways that leave other traces on the span."""
    openai = import_module("openai")
    with OpenAIStandIn() as server:
        client = openai.OpenAI(base_url=server.url, api_key="sk-standin", max_retries=0)
        refused = client.with_options(api_key=REFUSED_KEY)

        chat = {"model": "gpt-4.1-mini", "messages": HELLO}
        client.chat.completions.create(
            **chat,
            reasoning_effort="low",
            response_format={"type": "json_object"},
            service_tier="auto",
        )
        list(client.chat.completions.create(**chat, stream=True))
        usage = {"include_usage": True}
        list(client.chat.completions.create(**chat, stream=True, stream_options=usage))
        client.chat.completions.create(**chat, tools=[{"type": "function", "function": TOOL}])
        with suppress(openai.AuthenticationError):
            refused.chat.completions.create(**chat)

        client.embeddings.create(model="text-embedding-3-small", input="hello")

        response = {"model": "o4-mini", "input": "hello"}
        client.responses.create(
            **response,
            conversation="conv_1",
            reasoning={"effort": "low"},
            service_tier="auto",
            text={"format": {"type": "json_object"}},
        )
        list(client.responses.create(**response, stream=True))
        client.responses.create(**response, tools=[{"type": "function", "strict": True, **TOOL}])
        client.responses.create(**{**response, "model": "incomplete"})
        client.responses.create(**{**response, "model": "failed"})
        with suppress(openai.AuthenticationError):
            refused.responses.create(**response)


def call_anthropic() -> None:
    """Send a message plainly, streamed in both ways, and with a refused key."""
    anthropic = import_module("anthropic")
    with AnthropicStandIn() as server:
        client = anthropic.Anthropic(base_url=server.origin, api_key="sk-standin", max_retries=0)
        message = {"model": "claude-sonnet-4-6", "max_tokens": 20, "messages": HELLO}
        client.messages.create(**message)
        list(client.messages.create(**message, stream=True))
        with client.messages.stream(**message) as stream:
            stream.until_done()
        with suppress(anthropic.AuthenticationError):
            client.with_options(api_key=REFUSED_KEY).messages.create(**message)


def call_langchain() -> None:
    """Run a chain, then an agent with one tool: one call of the model, then two."""
    chat_model = import_module("langchain_openai").ChatOpenAI
    prompts = import_module("langchain_core.prompts")
    create_agent = import_module("langchain.agents").create_agent

    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    with OpenAIStandIn() as server:
        model = chat_model(
            model="gpt-4.1-mini", base_url=server.url, api_key="sk-standin", max_retries=0
        )
        (prompts.ChatPromptTemplate.from_messages([("user", "{text}")]) | model).invoke(
            {"text": "hello"}
        )
        create_agent(model, [weather], name="forecaster").invoke({"messages": HELLO})


# --- The instrumentations ---------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    """Which instrumentors to switch on ("module:class"), what to call, and what both need."""

    instrumentors: tuple[str, ...]
    call: Callable[[], None]
    requirements: tuple[str, ...]


LANGCHAIN = ("langchain", "langchain-openai")
OPENINFERENCE_LANGCHAIN = "openinference.instrumentation.langchain:LangChainInstrumentor"
OPENINFERENCE_OPENAI = "openinference.instrumentation.openai:OpenAIInstrumentor"
OPENLLMETRY_LANGCHAIN = "opentelemetry.instrumentation.langchain:LangchainInstrumentor"
OPENLLMETRY_OPENAI = "opentelemetry.instrumentation.openai:OpenAIInstrumentor"

RECORDINGS = {
    "genai_openai": Recording(
        ("opentelemetry.instrumentation.genai.openai:OpenAIInstrumentor",),
        call_openai,
        ("opentelemetry-instrumentation-genai-openai==1.3b0", "openai"),
    ),
    # The official instrumentation's predecessor, which has no Responses API.
    "openai_v2": Recording(
        ("opentelemetry.instrumentation.openai_v2:OpenAIInstrumentor",),
        call_openai,
        ("opentelemetry-instrumentation-openai-v2==2.1b0", "openai<2", "opentelemetry-api==1.36.0"),
    ),
    "openinference_openai": Recording(
        (OPENINFERENCE_OPENAI,),
        call_openai,
        ("openinference-instrumentation-openai", "openai"),
    ),
    "openllmetry_openai": Recording(
        (OPENLLMETRY_OPENAI,),
        call_openai,
        ("opentelemetry-instrumentation-openai", "openai"),
    ),
    # The last but one set of attribute names, still widely installed.
    "openllmetry_openai_0_40": Recording(
        (OPENLLMETRY_OPENAI,),
        call_openai,
        ("opentelemetry-instrumentation-openai==0.40.14", "openai<2"),
    ),
    "openinference_langchain": Recording(
        (OPENINFERENCE_LANGCHAIN,),
        call_langchain,
        ("openinference-instrumentation-langchain", *LANGCHAIN),
    ),
    "openinference_langchain_and_openai": Recording(
        (OPENINFERENCE_LANGCHAIN, OPENINFERENCE_OPENAI),
        call_langchain,
        (
            "openinference-instrumentation-langchain",
            "openinference-instrumentation-openai",
            *LANGCHAIN,
        ),
    ),
    "openllmetry_langchain": Recording(
        (OPENLLMETRY_LANGCHAIN,),
        call_langchain,
        ("opentelemetry-instrumentation-langchain", *LANGCHAIN),
    ),
    "openinference_anthropic": Recording(
        ("openinference.instrumentation.anthropic:AnthropicInstrumentor",),
        call_anthropic,
        ("openinference-instrumentation-anthropic", "anthropic"),
    ),
    "openllmetry_anthropic": Recording(
        ("opentelemetry.instrumentation.anthropic:AnthropicInstrumentor",),
        call_anthropic,
        ("opentelemetry-instrumentation-anthropic", "anthropic"),
    ),
}


# --- The recording ----------------------------------------------------------------------------


def spans_of(recording: Recording) -> list[dict[str, Any]]:
    """Make the recording's calls under its instrumentors, and return the finished spans."""
    # Imported here, so that `--requirements` needs the standard library only.
    trace = import_module("opentelemetry.sdk.trace")
    export = import_module("opentelemetry.sdk.trace.export")
    in_memory = import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    resources = import_module("opentelemetry.sdk.resources")
    id_generator = import_module("opentelemetry.sdk.trace.id_generator")

    class CountingIds(id_generator.IdGenerator):
        """Number traces and spans, so that a new recording differs only where it does."""

        def __init__(self) -> None:
            self._trace_ids = itertools.count(1)
            self._span_ids = itertools.count(1)

        def generate_trace_id(self) -> int:
            return next(self._trace_ids)

        def generate_span_id(self) -> int:
            return next(self._span_ids)

    exporter = in_memory.InMemorySpanExporter()
    provider = trace.TracerProvider(
        id_generator=CountingIds(), resource=resources.Resource({"service.name": "recorded"})
    )
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    for instrumentor in recording.instrumentors:
        module, name = instrumentor.split(":")
        getattr(import_module(module), name)().instrument(tracer_provider=provider)
    recording.call()
    return [as_json(span) for span in exporter.get_finished_spans()]


def as_json(span: ReadableSpan) -> dict[str, Any]:
    """Return what the exporter may read of a span, ids in hexadecimal."""
    context, scope = span.get_span_context(), span.instrumentation_scope
    assert context is not None
    assert scope is not None
    return {
        "scope": {"name": scope.name, "version": scope.version},
        "name": span.name,
        "kind": span.kind.name,
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_span_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "start_time": span.start_time,
        "end_time": span.end_time,
        "status": {"code": span.status.status_code.name, "description": span.status.description},
        "attributes": dict(span.attributes or {}),
        "resource": dict(span.resource.attributes),
    }


def with_options(requirements: Iterable[str]) -> str:
    """Return the options that give `uv run` the requirements and the SDK."""
    return " ".join(f"--with {requirement}" for requirement in (*requirements, "opentelemetry-sdk"))


def main() -> None:
    """Write one fixture, or print what it needs."""
    parser = argparse.ArgumentParser(description="Record the spans of another instrumentation.")
    parser.add_argument("name", choices=RECORDINGS)
    parser.add_argument("--requirements", action="store_true", help="only print uv's options")
    arguments = parser.parse_args()
    recording = RECORDINGS[arguments.name]
    if arguments.requirements:
        print(with_options(recording.requirements))
        return
    path = Path(__file__).with_name(f"{arguments.name}.json")
    path.write_text(json.dumps(spans_of(recording), indent=1) + "\n")
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main()
