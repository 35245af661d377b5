"""What the tests of this folder share: what was billed to whom, and requests that are served at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx

from cmdrdata_exporter import customer
from tests.metering import Meter

TOKENS = {"acme": "Bearer token-of-acme", "globex": "Bearer token-of-globex"}
REQUESTS = [("gpt-1", "acme"), ("gpt-2", "globex"), ("gpt-3", "globex"), ("gpt-4", "acme")]
"""Models that are asked for, each by whom."""


def billed(meter: Meter) -> list[tuple[str, str, int, str]]:
    """Return for each event the model that its request asked for, who pays, how many tokens, and their status."""
    return sorted(
        (
            event["metadata"]["request_model"],
            event["customer_id"],
            event["total_tokens"],
            event["metadata"]["usage_status"],
        )
        for event in meter.events()
    )


def paid(*requests: tuple[str, str]) -> list[tuple[str, str, int, str]]:
    """Return what `billed` says where each request, a model and its customer, was answered."""
    return sorted((model, customer, 29, "reported") for model, customer in requests)


def asked(path: str, model: str, token: str) -> dict[str, Any]:
    """Return the arguments of a request to an example's application."""
    return {
        "url": f"http://127.0.0.1{path}",
        "params": {"question": "hello", "model": model},
        "headers": {"Authorization": token} if token else {},
    }


def ask_asgi(app: Any, path: str, requests: list[tuple[str, str]], *clients: Any) -> list[str]:
    """
    Ask an ASGI application, all requests at once, and return the answers.

    The application runs in the tasks that ask, and must leave nothing in them. `clients` are closed in the end.
    """

    async def ask(http: httpx.AsyncClient, model: str, payer: str) -> str:
        answer = await http.get(**asked(path, model, TOKENS[payer]))
        assert (200, None) == (answer.status_code, customer.current())
        return answer.text

    async def main() -> list[str]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            answers = await asyncio.gather(*(ask(http, *request) for request in requests))
        for client in clients:
            await client.close()
        return answers

    return asyncio.run(main())


def ask_wsgi(app: Any, path: str, requests: list[tuple[str, str]]) -> list[str]:
    """
    Ask a WSGI application, all requests at once, and return the answers.

    The application runs in the threads that ask, and must leave nothing in them.
    """

    def ask(model: str, payer: str) -> str:
        with httpx.Client(transport=httpx.WSGITransport(app)) as http:
            answer = http.get(**asked(path, model, TOKENS[payer]))
        assert (200, None) == (answer.status_code, customer.current())
        return answer.text

    return in_threads([lambda request=request: ask(*request) for request in requests])


def in_threads(functions: list[Callable[[], str]]) -> list[str]:
    """Run functions, each in a thread of its own, and return their results."""
    results: dict[int, str] = {}

    def run(number: int) -> None:
        results[number] = functions[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(functions))]
