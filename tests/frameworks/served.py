"""
Serve the applications of an example beside instrumentations, and ask each for several customers at once.

A program of its own, since a tracer provider is set once in a process, and an instrumentation switched on once. Its
arguments are the example and the instrumentors in the order in which they are switched on; none where
`opentelemetry-instrument` has switched on all. It prints the requests as JSON: the model that each asked for, which
says which request it was, and who is to pay.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from importlib import import_module
from typing import Any

import httpx
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from cmdrdata_exporter import CmdrDataSpanProcessor, customer, exporter, faults

INSTRUMENTORS = {
    "ours": "opentelemetry_instrumentation_cmdrdata:CmdrDataInstrumentor",
    "fastapi": "opentelemetry.instrumentation.fastapi:FastAPIInstrumentor",
    "flask": "opentelemetry.instrumentation.flask:FlaskInstrumentor",
    "django": "opentelemetry.instrumentation.django:DjangoInstrumentor",
    "threading": "opentelemetry.instrumentation.threading:ThreadingInstrumentor",
}
PAYERS = ("acme", "globex", "acme", "globex")


Apps = dict[str, tuple[Any, tuple[str, ...]]]
"""Applications by what they are, each with the paths that are asked for."""


def fastapi_apps(example: Any) -> Apps:
    """Return the recipes, and each middleware outside of all else and within others."""
    fastapi = import_module("fastapi")
    asgi = import_module("opentelemetry.instrumentation.asgi").OpenTelemetryMiddleware

    def plain() -> Any:
        app = fastapi.FastAPI()
        app.include_router(example.router)
        return app

    apps = {
        "dependency": example.app,
        "middleware": example.app_with_middleware,
        "middleware outside": example.CustomerMiddleware(plain()),
        "middleware outside of asgi": example.CustomerMiddleware(asgi(plain())),
        "middleware inside of asgi": asgi(example.CustomerMiddleware(plain())),
    }
    return {kind: (app, ("/ask", "/ask-blocking", "/stream")) for kind, app in apps.items()}


def flask_apps(example: Any) -> Apps:
    """Return the recipes, and each middleware outside of all else and within others."""
    flask = import_module("flask")
    wsgi = import_module("opentelemetry.instrumentation.wsgi").OpenTelemetryMiddleware

    def plain() -> Any:
        app = flask.Flask("plain")
        app.register_blueprint(example.views)
        return app

    apps = {
        "functions": example.app,
        "middleware": example.app_with_middleware,
        "middleware outside of wsgi": example.CustomerMiddleware(wsgi(plain())),
        "middleware inside of wsgi": wsgi(example.CustomerMiddleware(plain())),
    }
    return {kind: (app, ("/ask", "/stream")) for kind, app in apps.items()}


def django_apps(example: Any) -> Apps:
    """Return the recipe for ASGI and WSGI."""
    get_wsgi_application = import_module("django.core.wsgi").get_wsgi_application
    return {
        "asgi": (example.app, ("/ask", "/ask-async", "/stream-async")),
        "wsgi": (get_wsgi_application(), ("/ask", "/stream")),
    }


APPS = {"fastapi_app": fastapi_apps, "flask_app": flask_apps, "django_app": django_apps}


def request(path: str, model: str, payer: str) -> dict[str, Any]:
    """Return the arguments of a request."""
    return {
        "url": f"http://127.0.0.1{path}",
        "params": {"question": "hello", "model": model},
        "headers": {"Authorization": f"Bearer token-of-{payer}"},
    }


def check(answer: httpx.Response) -> None:
    """Check that a request was answered and left nothing in the task or thread that served it."""
    assert answer.status_code == 200, answer.text
    assert answer.text.strip('"') == "hello"
    assert customer.current() is None
    assert trace.get_current_span() is trace.INVALID_SPAN


def ask_asgi(app: Any, requests: list[dict[str, Any]], clients: list[Any]) -> None:
    """Ask an ASGI application, all requests at once."""

    async def ask(http: httpx.AsyncClient, arguments: dict[str, Any]) -> None:
        check(await http.get(**arguments))

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            await asyncio.gather(*(ask(http, arguments) for arguments in requests))
        for client in clients:
            # Its connections belong to this event loop.
            await client._client.aclose()
            client._client = type(client._client)()

    asyncio.run(main())


def ask_wsgi(app: Any, requests: list[dict[str, Any]]) -> None:
    """Ask a WSGI application: half of the requests in each of two threads, one after the other."""
    failures: list[BaseException] = []

    def ask(mine: list[dict[str, Any]]) -> None:
        try:
            for arguments in mine:
                with httpx.Client(transport=httpx.WSGITransport(app)) as http:
                    check(http.get(**arguments))
        except BaseException as failure:  # noqa: BLE001 - it is raised where it is seen
            failures.append(failure)

    half = len(requests) // 2
    threads = [
        threading.Thread(target=ask, args=(part,)) for part in (requests[:half], requests[half:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def main(name: str, *instrumentors: str) -> None:
    """Serve and ask."""
    if instrumentors:
        provider = TracerProvider()
        provider.add_span_processor(CmdrDataSpanProcessor())
        trace.set_tracer_provider(provider)
    for instrumentor in instrumentors:
        module, _, attribute = INSTRUMENTORS[instrumentor].partition(":")
        getattr(import_module(module), attribute)().instrument()
    example = import_module(name)
    asked: list[tuple[str, str]] = []
    for kind, (app, paths) in APPS[name](example).items():
        requests: list[dict[str, Any]] = []
        for path in paths:
            for number, payer in enumerate(PAYERS):
                asked.append((f"{kind} {path} {number}", payer))
                requests.append(request(path, *asked[-1]))
        if name == "flask_app" or kind == "wsgi":
            ask_wsgi(app, requests)
        else:
            ask_asgi(
                app,
                requests,
                [one for one in vars(example).values() if type(one).__name__ == "AsyncOpenAI"],
            )
    exporter.current_exporter().force_flush()
    assert not faults.counts, faults.counts
    json.dump(sorted(asked), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
