"""Call LiteLLM with its own spans on: in the way that the first argument names, each model of the others."""

import asyncio
import logging
import os
import sys

import litellm
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import CmdrDataSpanProcessor, customer_context

# It misses its proxy, which is not needed.
logging.getLogger("LiteLLM").setLevel(logging.ERROR)
spans = InMemorySpanExporter()
trace.get_tracer_provider().add_span_processor(CmdrDataSpanProcessor())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
litellm.callbacks = ["otel"]
litellm.suppress_debug_info = True

base_url = os.environ["OPENAI_BASE_URL"]
options = {"api_base": base_url, "api_key": "sk-standin"}
hello = {"messages": [{"role": "user", "content": "hello"}]}
usage = {"stream": True, "stream_options": {"include_usage": True}}


def text(answer):
    """Return what a chat says."""
    return answer.choices[0].message.content


def joined(chunks):
    """Return what the chunks of a chat say; the one with the usage has no choices."""
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def reports():
    """Return the spans of LiteLLM that report a call."""
    return [one for one in spans.get_finished_spans() if one.name == "litellm_request"]


async def each(calls):
    """Wait for each answer, and for LiteLLM to have made its span."""
    answers = [await call for call in calls]
    while len(reports()) < len(answers):  # noqa: ASYNC110 - they end in any thread
        await asyncio.sleep(0.01)
    return answers


way, *models = sys.argv[1:]
with customer_context("acme"):
    match way:
        case "completion":
            said = [text(litellm.completion(model=model, **hello, **options)) for model in models]
        case "acompletion":
            calls = (litellm.acompletion(model=model, **hello, **options) for model in models)
            said = [text(answer) for answer in asyncio.run(each(calls))]
        case "stream":
            said = [
                joined(litellm.completion(model=model, **hello, **usage, **options))
                for model in models
            ]
        case "embedding":
            said = [
                litellm.embedding(model=model, input=["hello"], **options).data[0]["embedding"]
                for model in models
            ]
        case "responses":
            answers = [litellm.responses(model=model, input="hello", **options) for model in models]
            said = [answer.output[0].content[0].text for answer in answers]
        case "aresponses":
            calls = (litellm.aresponses(model=model, input="hello", **options) for model in models)
            said = [answer.output[0].content[0].text for answer in asyncio.run(each(calls))]
        case _:
            sys.exit(f"unknown way {way!r}")
for one in said:
    print(one)
