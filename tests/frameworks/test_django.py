"""The recipe for Django: threads and the event loop, whole answers and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import httpx
import pytest
from django.conf import empty, settings
from django.core.handlers.wsgi import WSGIHandler
from django.urls import clear_url_caches

from cmdrdata_exporter import customer
from tests.frameworks.conftest import EXAMPLES, MeetingProvider
from tests.frameworks.payers import REQUESTS, TOKENS, ask_asgi, ask_wsgi, asked, billed, paid
from tests.metering import Meter


@pytest.fixture
def project(example: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example's project; Django has one configuration for each process."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "django_settings")
    yield example("django_app")
    clear_url_caches()
    settings._wrapped = empty


@pytest.mark.parametrize("path", ["/ask", "/stream"])
def test_threads(
    path: str, project: Any, provider: MeetingProvider, meter: Meter, request: Any
) -> None:
    """Requests that threads serve at the same time are billed each to its customer, streams too."""
    if path == "/stream":
        request.getfixturevalue("streaming")
    provider.expect(len(REQUESTS))

    assert ["hello"] * 4 == ask_wsgi(WSGIHandler(), path, REQUESTS)
    assert paid(*REQUESTS) == billed(meter)


@pytest.mark.parametrize("path", ["/ask-async", "/stream-async"])
def test_event_loop(
    path: str, project: Any, provider: MeetingProvider, meter: Meter, request: Any
) -> None:
    """Requests that tasks serve at the same time are billed each to its customer, streams too."""
    if path == "/stream-async":
        request.getfixturevalue("streaming")
    provider.expect(len(REQUESTS))

    assert ["hello"] * 4 == ask_asgi(project.app, path, REQUESTS, project.async_client)
    assert paid(*REQUESTS) == billed(meter)


def test_sync_view_below_the_event_loop(
    project: Any, provider: MeetingProvider, meter: Meter
) -> None:
    """A sync view that the event loop has run by a thread sees the customer of its own request."""
    assert ["hello"] * 4 == ask_asgi(project.app, "/ask", REQUESTS)
    assert paid(*REQUESTS) == billed(meter)


def test_one_thread(project: Any, provider: MeetingProvider, meter: Meter) -> None:
    """A thread that serves one request after the other keeps nothing of any, also where a view fails."""
    with httpx.Client(transport=httpx.WSGITransport(WSGIHandler())) as http:
        for model, payer in REQUESTS:
            assert 200 == http.get(**asked("/ask", model, TOKENS[payer])).status_code
            assert customer.current() is None
        assert 404 == http.get(**asked("/nowhere", "gpt-1", TOKENS["acme"])).status_code
        assert 401 == http.get(**asked("/ask", "gpt-5", "Bearer nobody's")).status_code
        assert customer.current() is None

    assert paid(*REQUESTS) == billed(meter)
