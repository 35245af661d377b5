"""Wrap a client by the library that the argument names, then instrument, and have a bound client ask."""

from __future__ import annotations

import sys
from importlib import import_module

import httpx
import openai

from cmdrdata_exporter import customer_context
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, bind_customer

WRAPPERS = {
    "langsmith": ("langsmith.wrappers", "wrap_openai"),
    "braintrust": ("braintrust", "wrap_openai"),
    "opik": ("opik.integrations.openai", "track_openai"),
}
QUESTION = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hello"}]}


def is_wrapped() -> bool:
    """Say whether the library is among what is being called."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == sys.argv[1]:
            return True
        frame = frame.f_back
    return False


seen: list[bool] = []
http = httpx.Client(event_hooks={"request": [lambda _: seen.append(is_wrapped())]})
module, name = WRAPPERS[sys.argv[1]]
client = getattr(import_module(module), name)(openai.OpenAI(http_client=http))
CmdrDataInstrumentor().instrument()
bound = bind_customer(client, "bound")
bound.chat.completions.create(**QUESTION)
bound.chat.completions.create(**QUESTION, customer_id="called")
with customer_context("context"):
    client.chat.completions.create(**QUESTION)
print(seen)
