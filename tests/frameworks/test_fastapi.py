"""The recipes for FastAPI, and for any ASGI framework."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.frameworks.conftest import MeetingProvider
from tests.frameworks.payers import REQUESTS, ask_asgi, asked, billed, paid
from tests.metering import Meter

WAYS = pytest.mark.parametrize("way", ["app", "app_with_middleware"])
Example = Callable[[str], ModuleType]


@WAYS
@pytest.mark.parametrize("path", ["/ask", "/ask-blocking"])
def test_interleaved_requests(
    way: str, path: str, example: Example, provider: MeetingProvider, meter: Meter
) -> None:
    """Requests that are served at the same time are billed each to its customer, in tasks and in threads."""
    module = example("fastapi_app")
    provider.expect(len(REQUESTS))

    assert ['"hello"'] * 4 == ask_asgi(getattr(module, way), path, REQUESTS, module.client)
    assert paid(*REQUESTS) == billed(meter)


@WAYS
def test_stream_begun_after_the_handler(
    way: str, example: Example, streaming: MeetingProvider, meter: Meter
) -> None:
    """A call that begins while the response is streamed belongs to the request's customer."""
    module = example("fastapi_app")
    streaming.expect(len(REQUESTS))

    assert ["hello"] * 4 == ask_asgi(getattr(module, way), "/stream", REQUESTS, module.client)
    assert paid(*REQUESTS) == billed(meter)


@WAYS
def test_stream_begun_in_the_handler(
    way: str, example: Example, streaming: MeetingProvider, meter: Meter
) -> None:
    """A stream that is read after the handler has ended belongs to the customer of its beginning, sync and async."""
    module = example("fastapi_app")
    app = getattr(module, way)

    @app.get("/blocking")
    def blocking(model: str) -> StreamingResponse:
        chunks = module.blocking_client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "hello"}], stream=True
        )
        return StreamingResponse(
            chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices
        )

    streaming.expect(len(REQUESTS))
    assert ["hello"] * 4 == ask_asgi(app, "/blocking", REQUESTS, module.client)
    assert paid(*REQUESTS) == billed(meter)


@WAYS
def test_background_task(
    way: str, example: Example, provider: MeetingProvider, meter: Meter
) -> None:
    """What a request leaves to be done after its response is its customer's."""
    module = example("fastapi_app")
    app = getattr(module, way)

    @app.get("/later")
    def later(model: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(module.ask, "hello", model)
        tasks.add_task(module.ask_blocking, "hello", f"{model}-blocking")

    ask_asgi(app, "/later", REQUESTS, module.client)
    assert paid(*REQUESTS, *((f"{model}-blocking", payer) for model, payer in REQUESTS)) == billed(
        meter
    )


def test_nobody(example: Example, provider: MeetingProvider, meter: Meter) -> None:
    """A request whose customer is unknown is refused by the dependency, and is nobody's with the middleware."""
    module = example("fastapi_app")

    async def main() -> list[int]:
        statuses: list[int] = []
        for app in (module.app, module.app_with_middleware):
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
                answer = await http.get(**asked("/ask", "gpt-1", "Bearer nobody's"))
                statuses.append(answer.status_code)
        await module.client.close()
        return statuses

    assert [401, 200] == asyncio.run(main())
    assert [("gpt-1", None, 29, "reported")] == billed(meter)


def test_starlette(example: Example, provider: MeetingProvider, meter: Meter) -> None:
    """The middleware serves Starlette itself."""
    module = example("fastapi_app")

    async def ask(request: Request) -> Any:
        return PlainTextResponse(await module.ask("hello", request.query_params["model"]))

    app = module.CustomerMiddleware(Starlette(routes=[Route("/ask", ask)]))
    provider.expect(len(REQUESTS))
    assert ["hello"] * 4 == ask_asgi(app, "/ask", REQUESTS, module.client)
    assert paid(*REQUESTS) == billed(meter)
