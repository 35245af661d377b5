"""The recipes for Flask, and for any WSGI framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import pytest
from flask import Response, request
from werkzeug.test import create_environ

from cmdrdata_exporter import customer
from tests.frameworks.conftest import MeetingProvider
from tests.frameworks.payers import REQUESTS, TOKENS, ask_wsgi, asked, billed, paid
from tests.metering import Meter

WAYS = pytest.mark.parametrize("way", ["app", "app_with_middleware"])
Example = Callable[[str], ModuleType]


@WAYS
def test_interleaved_requests(
    way: str, example: Example, provider: MeetingProvider, meter: Meter
) -> None:
    """Requests that threads serve at the same time are billed each to its customer."""
    module = example("flask_app")
    provider.expect(len(REQUESTS))

    assert ["hello"] * 4 == ask_wsgi(getattr(module, way), "/ask", REQUESTS)
    assert paid(*REQUESTS) == billed(meter)


@WAYS
def test_stream(way: str, example: Example, streaming: MeetingProvider, meter: Meter) -> None:
    """A stream that is read after the view has ended belongs to the customer of its beginning."""
    module = example("flask_app")
    streaming.expect(len(REQUESTS))

    assert ["hello"] * 4 == ask_wsgi(getattr(module, way), "/stream", REQUESTS)
    assert paid(*REQUESTS) == billed(meter)


@WAYS
def test_one_thread(way: str, example: Example, provider: MeetingProvider, meter: Meter) -> None:
    """A thread that serves one request after the other keeps nothing of any, also where a view fails."""
    module = example("flask_app")
    app = getattr(module, way)
    with httpx.Client(transport=httpx.WSGITransport(app)) as http:
        for model, payer in REQUESTS:
            assert 200 == http.get(**asked("/ask", model, TOKENS[payer])).status_code
            assert customer.current() is None
        arguments = asked("/ask", "gpt-1", TOKENS["acme"])
        del arguments["params"]["question"]
        assert 400 == http.get(**arguments).status_code
        assert customer.current() is None
        nobody = http.get(**asked("/ask", "gpt-5", "Bearer nobody's"))
        assert (401 if way == "app" else 200) == nobody.status_code
        assert customer.current() is None

    # The function refuses what names no customer; the middleware lets it through as nobody's.
    unattributed = [] if way == "app" else [("gpt-5", None, 29, "reported")]
    assert [*paid(*REQUESTS), *unattributed] == billed(meter)


def test_calls_of_bodies_that_one_thread_makes_by_turns(
    example: Example, streaming: MeetingProvider, meter: Meter
) -> None:
    """With the middleware, a call that begins while a response is streamed belongs to that request's customer."""
    module = example("flask_app")
    app = module.app_with_middleware

    @app.get("/late")
    def late() -> Response:
        def pieces() -> Iterator[str]:
            yield "("
            chunks = module.client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "hello"}], stream=True
            )
            yield from (chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            yield ")"

        model = request.args["model"]
        return Response(pieces())

    bodies: list[Any] = []
    for model, payer in REQUESTS:
        arguments = asked("/late", model, TOKENS[payer])
        environ = create_environ(
            "/late", query_string=arguments["params"], headers=arguments["headers"]
        )
        bodies.append(app.wsgi_app(environ, lambda status, headers, error=None: None))
        assert customer.current() is None
    turns = list(zip(*bodies, strict=True))
    for body in bodies:
        body.close()

    assert [b"(hello)"] * 4 == [b"".join(pieces) for pieces in zip(*turns, strict=True)]
    assert customer.current() is None
    assert paid(*REQUESTS) == billed(meter)
