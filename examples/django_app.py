"""
Django: each request's calls belong to the customer whose token it carries.

    pip install opentelemetry-instrumentation-cmdrdata openai django uvicorn
    export PYTHONPATH=examples DJANGO_SETTINGS_MODULE=django_settings
    opentelemetry-instrument uvicorn django_app:app
    curl -H 'Authorization: Bearer token-of-acme' 'http://127.0.0.1:8000/ask?question=hello'

A whole project but for its settings; what matters is `customer_middleware` and its line in MIDDLEWARE, which are the
same for WSGI. `opentelemetry-instrumentation-django` needs the variable before the application is there.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import iscoroutinefunction
from typing import Any

import openai
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.utils.decorators import sync_and_async_middleware

from cmdrdata_exporter import customer_context

# Who pays is what your own login says, never what the request claims.
CUSTOMERS = {"Bearer token-of-acme": "acme", "Bearer token-of-globex": "globex"}

client = openai.OpenAI()
# Its connections belong to one event loop, which an ASGI server keeps; WSGI makes a new one for each async view.
async_client = openai.AsyncOpenAI()


# Of both kinds, so that Django need not change between threads and the event loop for it.
@sync_and_async_middleware
def customer_middleware(get_response: Callable[[HttpRequest], Any]) -> Callable[..., Any]:
    """Attribute the calls of each request to the customer of its token."""
    if iscoroutinefunction(get_response):

        async def serve_async(request: HttpRequest) -> HttpResponse:
            customer_id = CUSTOMERS.get(request.headers.get("Authorization", ""))
            if customer_id is None:
                return HttpResponse(status=401)
            with customer_context(customer_id):
                return await get_response(request)

        return serve_async

    def serve(request: HttpRequest) -> HttpResponse:
        customer_id = CUSTOMERS.get(request.headers.get("Authorization", ""))
        if customer_id is None:
            return HttpResponse(status=401)
        with customer_context(customer_id):
            return get_response(request)

    return serve


def asked(request: HttpRequest) -> dict[str, Any]:
    """Return the arguments of the call that a request asks for."""
    return {
        "model": request.GET.get("model", "gpt-4o-mini"),
        "messages": [{"role": "user", "content": request.GET["question"]}],
    }


def ask(request: HttpRequest) -> HttpResponse:
    """Answer a question."""
    answer = client.chat.completions.create(**asked(request))
    return HttpResponse(answer.choices[0].message.content)


async def ask_async(request: HttpRequest) -> HttpResponse:
    """Answer a question from the event loop."""
    answer = await async_client.chat.completions.create(**asked(request))
    return HttpResponse(answer.choices[0].message.content)


# Django makes a streamed body after all middleware has ended. A call belongs to the customer of the moment it starts,
# wherever its stream is read: so start it in the view. Then an error of the provider is an error of the view, too.
def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Answer a question piece by piece, after this function has returned."""
    chunks = client.chat.completions.create(**asked(request), stream=True)

    def pieces() -> Iterator[str]:
        for chunk in chunks:
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    return StreamingHttpResponse(pieces(), content_type="text/plain")


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    """Answer a question piece by piece from the event loop."""
    chunks = await async_client.chat.completions.create(**asked(request), stream=True)

    async def pieces() -> AsyncIterator[str]:
        async for chunk in chunks:
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    return StreamingHttpResponse(pieces(), content_type="text/plain")


urlpatterns = [
    path(view.__name__.replace("_", "-"), view) for view in (ask, ask_async, stream, stream_async)
]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")

app = get_asgi_application()
