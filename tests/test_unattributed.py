"""Events that name no customer: who is told, how often, and where from."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry import context as otel_context

from cmdrdata_exporter import (
    CmdrDataSpanExporter,
    ConfigurationError,
    Settings,
    carry_customer,
    customer_context,
    get_customer_context,
    unattributed,
)
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests import replies
from tests.metering import Meter, RecordedEvents
from tests.provider import Provider, Reply
from tests.sdk import client
from tests.test_exporter import KEY

CHAT = "/v1/chat/completions"


def ask(provider: Provider) -> None:
    """Make a call for nobody in particular."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sync:
        create: Any = sync.chat.completions.create
        create(model="m", messages=[])


def test_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """The log tells of the first, then at most once a minute how many there are."""
    events = unattributed.Unattributed()
    for now in (0.0, 1.0, 59.0, 60.0, 61.0):
        events.note(held=True, now=now)
    assert events.count == 5
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("1 usage event without a customer, held. This one is from ")
    assert second.startswith("4 usage events without a customer, 3 of them new, held. ")
    assert "This one is from tests/test_unattributed.py:" in first


def test_where_a_call_comes_from(
    provider: Provider, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """The message says which line of the application made the call."""
    ask(provider)
    (record,) = caplog.records
    site = meter.recorded.wire[0]["metadata"]["call_site"]
    assert f" {site}. " in record.getMessage()
    assert site.startswith("tests/test_unattributed.py:")
    assert site.endswith(" ask")


def test_customers_in_a_pool(provider: Provider, meter: Meter) -> None:
    """A function that is carried runs for the customer of the moment, in every thread and at once."""
    with ThreadPoolExecutor(4) as pool:
        futures: list[Any] = []
        for number in range(8):
            with customer_context(f"customer-{number}"):
                futures.append(pool.submit(carry_customer(ask), provider))
        for future in futures:
            future.result()
        assert pool.submit(get_customer_context).result() is None
    assert sorted(event["customer_id"] for event in meter.events()) == [
        f"customer-{number}" for number in range(8)
    ]


@pytest.mark.parametrize("key", ["customer", None])
def test_customers_from_the_baggage(
    key: str | None,
    provider: Provider,
    events: RecordedEvents,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Only where that is asked for does Baggage name a customer, and never one that the code has set."""
    if key is not None:
        monkeypatch.setenv("CMDRDATA_CUSTOMER_FROM", f"baggage:{key}")
    with caplog.at_level(logging.WARNING, "cmdrdata"):
        exporter = CmdrDataSpanExporter(delivery=events)
    assert ("can set it" in caplog.text) is (key is not None)
    CmdrDataInstrumentor().instrument(exporter=exporter)
    token = otel_context.attach(baggage.set_baggage("customer", "from-outside"))
    try:
        ask(provider)
        with customer_context("acme"):
            ask(provider)
    finally:
        otel_context.detach(token)
        CmdrDataInstrumentor().uninstrument()
    taken = "from-outside" if key is not None else None
    assert [event["customer_id"] for event in events.wire] == [taken, "acme"]


@pytest.mark.parametrize("value", ["header:x", "baggage", "baggage:", "baggage:a b", "x"])
def test_where_customers_cannot_be_taken_from(value: str) -> None:
    """What is no place to take a customer from is refused, with what is expected."""
    with pytest.raises(ConfigurationError, match="expected is baggage:<key>"):
        Settings.read({"CMDRDATA_CUSTOMER_FROM": value, "CMDRDATA_API_KEY": KEY})
