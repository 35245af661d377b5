"""Whoever reads a stream, and however, gets what he would get without us, and the call is billed with its usage."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import openai
import pytest

from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.open_calls import end_dropped
from tests import replies, sdk
from tests.charges import MESSAGES
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import VERSION

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES, "stream": True}
USAGE = {"stream_options": {"include_usage": True}}


def encoded(chunks: list[dict[str, Any]], end: str = "\n\n") -> bytes:
    """Return chunks as a server sends them, without blanks."""
    data = [json.dumps(chunk, separators=(",", ":")) for chunk in chunks]
    return "".join(f"data: {one}{end}" for one in [*data, "[DONE]"]).encode()


UNTOLD = replies.chat_chunks(usage=None)
TOLD = [*UNTOLD, replies.chat_chunks()[-1]]
"""The same, and the one chunk that has the usage and nothing else."""


def reply(chunks: list[dict[str, Any]], encoding: str, end: str) -> Reply:
    """Return an answer with chunks, compressed or not."""
    content, headers = encoded(chunks, end), {"content-type": "text/event-stream"}
    if encoding == "gzip":
        content, headers = gzip.compress(content), {**headers, "content-encoding": "gzip"}
    return Reply(content=content, headers=headers)


def client(provider: Provider) -> Any:
    """Return a client whose answers are whatever they are."""
    return sdk.client(provider)


def async_client(provider: Provider) -> Any:
    """Return an asynchronous client whose answers are whatever they are."""
    return sdk.async_client(provider)


# --- The ways to read --------------------------------------------------------------------------


def _read(response: Any) -> list[Any]:
    return [response.read()]


async def _aread(response: Any) -> list[Any]:
    return [await response.aread()]


def _all(name: str, *sizes: int) -> Callable[[Any], list[Any]]:
    return lambda response: list(getattr(response, name)(*sizes))


def _aall(name: str, *sizes: int) -> Callable[[Any], Any]:
    async def read(response: Any) -> list[Any]:
        return [one async for one in getattr(response, name)(*sizes)]

    return read


SYNC: dict[str, Callable[[Any], list[Any]]] = {
    "iter_bytes": _all("iter_bytes"),
    "iter_bytes of a size": _all("iter_bytes", 7),
    "iter_text": _all("iter_text"),
    "iter_lines": _all("iter_lines"),
    "iter_raw": _all("iter_raw"),
    "iter_raw of a size": _all("iter_raw", 7),
    "read": _read,
}
ASYNC: dict[str, Callable[[Any], Any]] = {
    "aiter_bytes": _aall("aiter_bytes"),
    "aiter_bytes of a size": _aall("aiter_bytes", 7),
    "aiter_text": _aall("aiter_text"),
    "aiter_lines": _aall("aiter_lines"),
    "aiter_raw": _aall("aiter_raw"),
    "aiter_raw of a size": _aall("aiter_raw", 7),
    "aread": _aread,
}


def joined(parts: list[Any]) -> Any:
    """Return what was read as one, since where parts end is the network's affair."""
    return type(parts[0])().join(parts)


def read(way: str, raw: bool, provider: Provider, arguments: dict[str, Any]) -> Any:
    """Make a streamed call, and read its HTTP response in one of the ways."""
    if way in SYNC:
        with client(provider) as openai_client:
            completions = openai_client.chat.completions
            if raw:
                return joined(
                    SYNC[way](completions.with_raw_response.create(**arguments).http_response)
                )
            stream = completions.create(**arguments)
            return joined(SYNC[way](stream.response))

    async def run() -> Any:
        async with async_client(provider) as openai_client:
            completions: Any = openai_client.chat.completions
            if raw:
                response = await completions.with_raw_response.create(**arguments)
                return joined(await ASYNC[way](response.http_response))
            stream = await completions.create(**arguments)
            return joined(await ASYNC[way](stream.response))

    return asyncio.run(run())


def billed(meter: Meter) -> list[tuple[str, int]]:
    """Return what was billed, once the calls that were dropped have ended."""
    end_dropped()
    meter.recorded.wait_for(1)
    return [(event["metadata"]["usage_status"], event["total_tokens"]) for event in meter.events()]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of every host are asked; a mark, so that it comes before `meter`."""
    monkeypatch.setenv("CMDRDATA_STREAM_USAGE", "always")


Case = tuple[str, bool, str, str]
CASES: list[Case] = [
    (way, raw, encoding, end)
    for way in (*SYNC, *ASYNC)
    for raw in (False, True)
    for encoding in ("identity", "gzip")
    for end in ("\n\n", "\r\n\r\n")
    # Who reads undecoded bytes gets them as they are.
    if not ("raw" in way and encoding == "gzip")
]


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.usefixtures("always")
def test_what_only_we_asked_for(case: Case, provider: Provider, meter: Meter) -> None:
    """The one chunk that came because we asked is billed, and in no way to be seen."""
    way, raw, encoding, end = case
    provider.answer(CHAT, reply(TOLD, encoding, end))
    seen = read(way, raw, provider, ARGUMENTS)
    CmdrDataInstrumentor().uninstrument()
    provider.answer(CHAT, reply(UNTOLD, encoding, end))
    bare = read(way, raw, provider, ARGUMENTS)
    CmdrDataInstrumentor().instrument()  # For the fixture to undo.
    assert USAGE["stream_options"] == provider.requests[0].json["stream_options"]
    assert bare == seen
    assert [("reported", 29)] == billed(meter)


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.usefixtures("always")
def test_what_the_application_asked_for(case: Case, provider: Provider, meter: Meter) -> None:
    """Usage that the application asked for is its own to read, and is billed."""
    way, raw, encoding, end = case
    arguments: dict[str, Any] = {**ARGUMENTS, "extra_body": USAGE}
    provider.answer(CHAT, reply(TOLD, encoding, end))
    seen = read(way, raw, provider, arguments)
    CmdrDataInstrumentor().uninstrument()
    bare = read(way, raw, provider, arguments)
    CmdrDataInstrumentor().instrument()  # For the fixture to undo.
    assert bare == seen
    assert [("reported", 29)] == billed(meter)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
@pytest.mark.parametrize("way", [way for way in (*SYNC, *ASYNC) if "raw" in way])
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.usefixtures("always")
def test_compressed_bytes_as_they_were_sent(
    raw: bool, way: str, compression: str, provider: Provider, meter: Meter
) -> None:
    """Who reads a compressed answer undecoded gets the very bytes, and its usage is billed."""
    compress = gzip.compress if compression == "gzip" else zlib.compress
    content = compress(encoded(TOLD))
    headers = {"content-type": "text/event-stream", "content-encoding": compression}
    provider.answer(CHAT, Reply(content=content, headers=headers))
    assert content == read(way, raw, provider, ARGUMENTS)
    assert [("reported", 29)] == billed(meter)


@pytest.mark.parametrize("way", ["iter_raw", "aiter_raw"])
def test_compressed_bytes_that_are_damaged(way: str, provider: Provider, meter: Meter) -> None:
    """Bytes that are not what their header says are the application's to judge; their usage is unknown."""
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    provider.answer(CHAT, Reply(content=encoded(TOLD), headers=headers))
    assert encoded(TOLD) == read(way, False, provider, ARGUMENTS)
    assert [("missing", 0)] == billed(meter)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"], ids=repr)
@pytest.mark.usefixtures("always")
def test_the_ends_of_lines(end: str, provider: Provider, meter: Meter) -> None:
    """Whichever ends of lines a server uses, the chunks are those that the application asked for."""
    provider.answer(CHAT, reply(TOLD, "identity", end))
    with client(provider) as openai_client:
        chunks = list(openai_client.chat.completions.create(**ARGUMENTS))
    # Versions of the SDK from before it read lone carriage returns see no chunk.
    assert len(chunks) in ({len(UNTOLD)} if "\n" in end else {0, len(UNTOLD)})
    assert [("reported", 29)] == billed(meter)


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-ndjson"])
@pytest.mark.usefixtures("always")
def test_events_that_are_called_something_else(
    content_type: str, provider: Provider, meter: Meter
) -> None:
    """A server may call its events what it likes: asked for a stream, it answers with one."""
    content = encoded(TOLD)
    provider.answer(CHAT, Reply(content=content, headers={"content-type": content_type}))
    with client(provider) as openai_client:
        assert len(list(openai_client.chat.completions.create(**ARGUMENTS))) == len(UNTOLD)
    assert [("reported", 29)] == billed(meter)


# --- Other readers -----------------------------------------------------------------------------


if VERSION >= (1, 26):

    class Sync(openai.Stream[Any]):
        """A stream class of the application's own."""

    class Async(openai.AsyncStream[Any]):
        """A stream class of the application's own."""

    @pytest.mark.parametrize("world", ["sync", "async"])
    @pytest.mark.usefixtures("always")
    def test_a_stream_class_of_the_applications_own(
        world: str, provider: Provider, meter: Meter
    ) -> None:
        """A subclass of the SDK's stream, such as logfire's, gets the chunks that it asked for."""
        provider.answer(CHAT, reply(TOLD, "identity", "\n\n"))
        arguments: dict[str, Any] = {"cast_to": object, "body": ARGUMENTS, "stream": True}
        chunks: list[Any]
        if world == "sync":
            with client(provider) as openai_client:
                chunks = list(openai_client.post("/chat/completions", stream_cls=Sync, **arguments))
        else:

            async def run() -> list[Any]:
                async with async_client(provider) as openai_client:
                    stream: Any = await openai_client.post(
                        "/chat/completions", stream_cls=Async, **arguments
                    )
                    return [chunk async for chunk in stream]

            chunks = asyncio.run(run())
        assert UNTOLD == chunks
        assert [("reported", 29)] == billed(meter)


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.usefixtures("always")
def test_events_before_they_are_parsed(world: str, provider: Provider, meter: Meter) -> None:
    """Who takes the events of a stream before it parses them gets those that it asked for."""
    provider.answer(CHAT, reply(TOLD, "identity", "\n\n"))
    if world == "sync":
        with client(provider) as openai_client:
            stream: Any = openai_client.chat.completions.create(**ARGUMENTS)
            events: list[Any] = list(stream._iter_events())
    else:

        async def run() -> list[Any]:
            async with async_client(provider) as openai_client:
                stream: Any = await openai_client.chat.completions.create(**ARGUMENTS)
                return [event async for event in stream._iter_events()]

        events = asyncio.run(run())
    assert [event.json() for event in events[:-1]] == UNTOLD
    assert [("reported", 29)] == billed(meter)


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.usefixtures("always")
def test_a_raw_response_that_somebody_else_parses(
    world: str, provider: Provider, meter: Meter
) -> None:
    """A library that makes its own stream of a raw response's bytes costs no usage."""
    provider.answer(CHAT, reply(TOLD, "identity", "\n\n"))
    if world == "sync":
        with client(provider) as openai_client:
            raw: Any = openai_client.chat.completions.with_raw_response.create(**ARGUMENTS)
            stream: Any = openai.Stream(
                cast_to=object, response=raw.http_response, client=openai_client
            )
            chunks: list[Any] = list(stream)
    else:

        async def run() -> list[Any]:
            async with async_client(provider) as openai_client:
                completions: Any = openai_client.chat.completions
                raw = await completions.with_raw_response.create(**ARGUMENTS)
                stream: Any = openai.AsyncStream(
                    cast_to=object, response=raw.http_response, client=openai_client
                )
                return [chunk async for chunk in stream]

        chunks = asyncio.run(run())
    assert UNTOLD == chunks
    assert [("reported", 29)] == billed(meter)


@pytest.mark.parametrize("reading", ["whole", "text"])
@pytest.mark.usefixtures("always")
def test_a_hook_that_reads_the_answer(reading: str, provider: Provider, meter: Meter) -> None:
    """An answer that a hook has read already holds for everybody after it what the application asked for."""

    def hook(response: Any) -> None:
        response.read()
        if reading == "text":
            assert "prompt_tokens" in response.text

    provider.answer(CHAT, reply(TOLD, "identity", "\n\n"))
    with client(provider) as openai_client:
        openai_client._client.event_hooks = {"response": [hook]}  # pyright: ignore[reportPrivateUsage]
        stream = openai_client.chat.completions.create(**ARGUMENTS)
        assert encoded(UNTOLD).decode() == stream.response.text
        assert len(list(stream)) == len(UNTOLD)
    assert [("reported", 29)] == billed(meter)


def test_bytes_beside_a_stream(provider: Provider, meter: Meter) -> None:
    """Bytes that are read in part, in place of the stream they belong to, are a stream that was left."""
    provider.answer(CHAT, Reply(events=TOLD, hold_after=2))
    with client(provider) as openai_client:
        stream = openai_client.chat.completions.create(**ARGUMENTS)
        for _ in stream.response.iter_lines():
            break
        assert [("partial", 0)] == billed(meter)
    assert "chatcmpl-1" == meter.events()[0]["metadata"]["response_id"]


@pytest.mark.parametrize("asked", [True, False], ids=["ours", "theirs"])
@pytest.mark.usefixtures("always")
def test_lines_that_are_read_until_the_end_is_told(
    asked: bool, provider: Provider, meter: Meter
) -> None:
    """Who stops at `[DONE]` has left nothing."""
    provider.answer(CHAT, Reply(events=TOLD if asked else UNTOLD, hold_after=9))
    with client(provider) as openai_client:
        raw = openai_client.chat.completions.with_raw_response.create(**ARGUMENTS)
        for line in raw.http_response.iter_lines():
            if line == "data: [DONE]":
                break
        assert [("reported", 29) if asked else ("missing", 0)] == billed(meter)


@pytest.mark.usefixtures("always")
def test_nothing_is_held_up(provider: Provider, meter: Meter) -> None:
    """An event is handed on when it has come, though the next one is not there."""
    provider.answer(CHAT, Reply(events=TOLD, hold_after=2))
    with client(provider) as openai_client:
        raw = openai_client.chat.completions.with_raw_response.create(**ARGUMENTS)
        lines: Iterator[str] = raw.http_response.iter_lines()
        seen = [next(lines) for _ in range(4)]
        provider.release()
        seen += list(lines)
    assert [json.loads(line[6:]) for line in seen if "{" in line] == UNTOLD
    assert [("reported", 29)] == billed(meter)


def test_a_chunk_like_ours_that_nobody_asked_for(provider: Provider, meter: Meter) -> None:
    """Usage without choices that comes although nobody asked is the application's to see."""
    provider.answer(CHAT, reply(TOLD, "identity", "\n\n"))
    with client(provider) as openai_client:
        assert len(list(openai_client.chat.completions.create(**ARGUMENTS))) == len(TOLD)
    assert [("reported", 29)] == billed(meter)


# --- A stream that only the body asks for ------------------------------------------------------


BODY = {k: v for k, v in ARGUMENTS.items() if k != "stream"}


def _by_create(openai_client: Any) -> Any:
    return openai_client.chat.completions.create(**BODY, extra_body={"stream": True})


def _by_raw(openai_client: Any) -> Any:
    raw = openai_client.chat.completions.with_raw_response.create(
        **BODY, extra_body={"stream": True}
    )
    return raw.http_response.text


def _by_post(openai_client: Any) -> Any:
    return openai_client.post("/chat/completions", cast_to=str, body=dict(ARGUMENTS))


@pytest.mark.parametrize("make", [_by_create, _by_raw, _by_post], ids=lambda make: make.__name__)
@pytest.mark.parametrize("asked", [True, False], ids=["asked", "unasked"])
def test_a_stream_of_the_body_alone(
    make: Callable[[Any], Any],
    asked: bool,
    provider: Provider,
    request: pytest.FixtureRequest,
) -> None:
    """A body with `stream: true` is answered with a stream, whatever the SDK takes it for, and is billed as one."""
    if asked:
        request.getfixturevalue("always")
    meter: Meter = request.getfixturevalue("meter")
    provider.answer(CHAT, reply(TOLD if asked else UNTOLD, "identity", "\n\n"))
    with client(provider) as openai_client:
        text = make(openai_client)
    assert encoded(UNTOLD).decode() == text
    assert {**ARGUMENTS, **(USAGE if asked else {})} == provider.requests[0].json
    assert [("reported", 29) if asked else ("missing", 0)] == billed(meter)
    assert [True] == [event["request"]["streaming"] for event in meter.events()]


@pytest.mark.usefixtures("always")
def test_a_stream_that_the_body_declines(provider: Provider, meter: Meter) -> None:
    """A body that declines to be streamed is not asked for the usage of a stream, which the provider would refuse."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as openai_client:
        assert [] == list(
            openai_client.chat.completions.create(**ARGUMENTS, extra_body={"stream": False})
        )
    assert {**ARGUMENTS, "stream": False} == provider.requests[0].json
    assert [("reported", 29)] == billed(meter)


def test_async_bytes_of_a_cancelled_task(provider: Provider, meter: Meter) -> None:
    """A task that is cancelled while it reads bytes ends its call as cancelled, with the usage so far unknown."""
    provider.answer(CHAT, Reply(events=TOLD, hold_after=1))

    async def application() -> None:
        async with async_client(provider) as openai_client:
            completions: Any = openai_client.chat.completions
            raw = await completions.with_raw_response.create(**ARGUMENTS)
            arrived = asyncio.Event()

            async def reading() -> None:
                parts: AsyncIterator[bytes] = raw.http_response.aiter_bytes()
                async for _ in parts:
                    arrived.set()

            task = asyncio.create_task(reading())
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(application())
    assert [("partial", 0)] == billed(meter)
    assert "cancelled" == meter.events()[0]["error"]["type"]
