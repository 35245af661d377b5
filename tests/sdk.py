"""
Every way to make a call with the installed SDK, as one table.

A `Form` is a way to ask for the answer; it exists for both worlds, and is in the table only where the installed version
of the SDK has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import openai

from tests.provider import Provider

VERSION = tuple(int(part) for part in openai.__version__.split(".")[:2])


@dataclass(frozen=True)
class Form:
    """A way to make a call and read its answer to the end, in both worlds."""

    name: str
    run: Callable[[Any, str, dict[str, Any]], Any]
    """Calls a method of a synchronous resource."""
    arun: Callable[[Any, str, dict[str, Any]], Coroutine[Any, Any, Any]]
    """Calls a method of an asynchronous resource."""
    streaming: bool = False
    parsed: bool = True
    """Whether the SDK's objects are read, rather than bytes."""
    since: tuple[int, int] = (1, 0)


def _plain(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return getattr(resource, method)(**arguments)


async def _aplain(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return await getattr(resource, method)(**arguments)


def _raw(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return getattr(resource.with_raw_response, method)(**arguments).parse()


async def _araw(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return (await getattr(resource.with_raw_response, method)(**arguments)).parse()


def _unparsed(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return getattr(resource.with_raw_response, method)(**arguments).content


async def _aunparsed(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return (await getattr(resource.with_raw_response, method)(**arguments)).content


def _streaming_raw(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    with getattr(resource.with_streaming_response, method)(**arguments) as response:
        return response.parse()


async def _astreaming_raw(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    async with getattr(resource.with_streaming_response, method)(**arguments) as response:
        return await response.parse()


def _streaming_raw_bytes(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    with getattr(resource.with_streaming_response, method)(**arguments) as response:
        return b"".join(response.iter_bytes())


async def _astreaming_raw_bytes(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    async with getattr(resource.with_streaming_response, method)(**arguments) as response:
        return b"".join([part async for part in response.iter_bytes()])


def _stream(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return list(getattr(resource, method)(stream=True, **arguments))


async def _astream(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return [chunk async for chunk in await getattr(resource, method)(stream=True, **arguments)]


def _raw_stream(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return list(getattr(resource.with_raw_response, method)(stream=True, **arguments).parse())


async def _araw_stream(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    response = await getattr(resource.with_raw_response, method)(stream=True, **arguments)
    return [chunk async for chunk in response.parse()]


def _streaming_raw_stream(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    with getattr(resource.with_streaming_response, method)(stream=True, **arguments) as response:
        return list(response.parse())


async def _astreaming_raw_stream(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    async with getattr(resource.with_streaming_response, method)(
        stream=True, **arguments
    ) as response:
        return [chunk async for chunk in await response.parse()]


def _streaming_raw_lines(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    with getattr(resource.with_streaming_response, method)(stream=True, **arguments) as response:
        return list(response.iter_lines())


async def _astreaming_raw_lines(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    async with getattr(resource.with_streaming_response, method)(
        stream=True, **arguments
    ) as response:
        return [line async for line in response.iter_lines()]


def _helper(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    with getattr(resource, method)(**arguments) as stream:
        return list(stream)


async def _ahelper(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    async with getattr(resource, method)(**arguments) as stream:
        return [event async for event in stream]


HELPER = Form("helper", _helper, _ahelper, streaming=True)
"""The form of the SDK's `stream` methods, which are managers of a stream of events."""

FORMS = tuple(
    form
    for form in (
        Form("plain", _plain, _aplain),
        Form("raw", _raw, _araw),
        Form("raw-unparsed", _unparsed, _aunparsed, parsed=False),
        Form("streaming-raw", _streaming_raw, _astreaming_raw, since=(1, 6)),
        Form(
            "streaming-raw-bytes",
            _streaming_raw_bytes,
            _astreaming_raw_bytes,
            parsed=False,
            since=(1, 6),
        ),
        Form("stream", _stream, _astream, streaming=True),
        Form("raw-stream", _raw_stream, _araw_stream, streaming=True),
        Form(
            "streaming-raw-stream",
            _streaming_raw_stream,
            _astreaming_raw_stream,
            streaming=True,
            since=(1, 6),
        ),
        Form(
            "streaming-raw-lines",
            _streaming_raw_lines,
            _astreaming_raw_lines,
            streaming=True,
            parsed=False,
            since=(1, 6),
        ),
    )
    if VERSION >= form.since
)
"""The forms that the installed SDK has."""


def client(provider: Provider, **options: Any) -> openai.OpenAI:
    """Return a client of the stand-in provider."""
    given: dict[str, Any] = {"max_retries": 0, **options}
    return openai.OpenAI(base_url=provider.url, api_key="sk-test", **given)


def async_client(provider: Provider, **options: Any) -> openai.AsyncOpenAI:
    """Return an asynchronous client of the stand-in provider."""
    given: dict[str, Any] = {"max_retries": 0, **options}
    return openai.AsyncOpenAI(base_url=provider.url, api_key="sk-test", **given)


def method_of(client: Any, path: str) -> tuple[Any, str]:
    """Return the resource and the name of a method by its dotted path, such as `chat.completions.create`."""
    *resources, method = path.split(".")
    for name in resources:
        client = getattr(client, name)
    return client, method


def make(
    world: str, provider: Provider, path: str, form: Form, arguments: dict[str, Any], **options: Any
) -> Any:
    """Call the method at `path` in one of the worlds `sync` and `async`; return what the application got."""
    if world == "sync":
        with client(provider, **options) as sync:
            return form.run(*method_of(sync, path), arguments)

    async def run() -> Any:
        async with async_client(provider, **options) as asynchronous:
            return await form.arun(*method_of(asynchronous, path), arguments)

    return asyncio.run(run())
