"""What certainly did not leave the process was charged by nobody, and is `not_applicable`; nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.charges import MESSAGES
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import VERSION, async_client, client

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    name = "openai._base_client.BaseClient._calculate_retry_timeout"

    def no_time(*_: object) -> float:
        return 0.0

    monkeypatch.setattr(name, no_time)


def nobody(provider: Provider) -> dict[str, Any]:
    """Return options of a client that calls a port on which nobody listens."""
    del provider
    return {"base_url": "http://127.0.0.1:1/v1"}


def nothing(_: Provider) -> dict[str, Any]:
    """Return no options."""
    return {}


def unknown_protocol(_: Provider) -> dict[str, Any]:
    """Return options of a client whose server no transport reaches."""
    return {"base_url": "gopher://127.0.0.1/v1"}


Row = tuple[str, Callable[[Provider], dict[str, Any]], dict[str, Any], bool]
ROWS: list[Row] = [
    ("a header that cannot be written", nothing, {"extra_headers": {"X-Broken": "a\nb"}}, False),
    ("a body that is no JSON", nothing, {"extra_body": {"metadata": {"x": object()}}}, False),
    ("a closed client", nothing, {}, True),
    ("nobody listens", nobody, {}, False),
    ("an unknown protocol", unknown_protocol, {}, False),
]
if VERSION >= (2, 0):
    # Before, NaN was sent.
    ROWS.append(("a number that is none", nothing, {"temperature": float("nan")}, False))


def statuses(meter: Meter) -> list[str]:
    """Return what each event says of its usage."""
    return [event["metadata"]["usage_status"] for event in meter.events()]


def send(world: str, provider: Provider, row: Row, arguments: dict[str, Any]) -> None:
    """Make a call in one of the worlds."""
    _, options, extra, is_closed = row
    if world == "sync":
        sdk = client(provider, max_retries=1).with_options(**options(provider))
        if is_closed:
            sdk.close()
        sdk.chat.completions.create(**arguments, **extra)
        return

    async def run() -> None:
        asynchronous = async_client(provider, max_retries=1).with_options(**options(provider))
        if is_closed:
            await asynchronous.close()
        await asynchronous.chat.completions.create(**arguments, **extra)

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("row", ROWS, ids=[name for name, *_ in ROWS])
@pytest.mark.usefixtures("at_once")
def test_what_was_not_sent(
    row: Row, world: str, stream: bool, provider: Provider, meter: Meter
) -> None:
    """What fails before anything is sent, in each attempt, was not charged."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the SDK's version makes of it
        send(world, provider, row, {**ARGUMENTS, "stream": stream})
    assert provider.requests == []
    assert statuses(meter) == ["not_applicable"]


# In the oldest versions a client keeps the address that it was made with.
if VERSION >= (2, 0):

    @pytest.mark.usefixtures("at_once")
    def test_an_attempt_that_was_sent_before(
        provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of several attempts one that may have reached the provider is enough."""
        provider.answer(CHAT, Reply(silent=True))
        with client(provider, timeout=0.3, max_retries=1) as sdk:
            sleep = sdk._calculate_retry_timeout  # pyright: ignore[reportPrivateUsage]

            def unreachable(*args: Any, **kwargs: Any) -> float:
                sdk.base_url = "http://127.0.0.1:1/v1/"
                return sleep(*args, **kwargs)

            monkeypatch.setattr(sdk, "_calculate_retry_timeout", unreachable)
            with pytest.raises(openai.APIConnectionError):
                sdk.chat.completions.create(**ARGUMENTS)
        assert len(provider.requests) == 1
        assert statuses(meter) == ["missing"]


def test_a_hook_that_fails_after_the_answer(provider: Provider, meter: Meter) -> None:
    """An exception of the application's own says nothing of what was sent."""
    provider.answer(CHAT, Reply(json={}))

    def hook(_: object) -> None:
        raise RuntimeError("mine")

    with client(provider) as sdk:
        sdk._client.event_hooks = {"response": [hook]}  # pyright: ignore[reportPrivateUsage]
        with pytest.raises((openai.APIConnectionError, RuntimeError)):
            sdk.chat.completions.create(**ARGUMENTS)
    assert len(provider.requests) == 1
    assert statuses(meter) == ["missing"]


def test_a_ring_of_causes(provider: Provider, meter: Meter) -> None:
    """An exception that is the cause of its own cause comes out as it is, and says nothing of what was sent."""
    provider.answer(CHAT, Reply(json={}))

    def hook(_: object) -> None:
        mine = RuntimeError("mine")
        try:
            raise mine
        except RuntimeError as error:
            wrapper = ValueError("wrapped")
            wrapper.__cause__ = error
            raise mine from wrapper

    with client(provider, max_retries=0) as sdk:
        sdk._client.event_hooks = {"response": [hook]}  # pyright: ignore[reportPrivateUsage]
        with pytest.raises((openai.APIConnectionError, RuntimeError)):
            sdk.chat.completions.create(**ARGUMENTS)
    assert len(provider.requests) == 1
    assert statuses(meter) == ["missing"]
