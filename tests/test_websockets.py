"""Whatever is played on a connection, and however it ends: all that the provider told is billed, once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import openai
import pytest
from websockets.exceptions import ConnectionClosedError

from cmdrdata_exporter import customer_context
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, open_calls
from opentelemetry_instrumentation_cmdrdata.openai.websockets.connections import CONNECTIONS
from tests.connections import CASES, CUSTOMER, Case, Part
from tests.delivery.samples import wait_for
from tests.metering import Meter, attributes
from tests.sdk import VERSION
from tests.websocket import End, Session, Standin, close, drop, wait

LOST = "websockets.exceptions.ConnectionClosedError"


class AppError(Exception):
    """What the application raises itself."""


def resource_of(client: Any, name: str) -> Any:
    """Return a resource of a client by its dotted name."""
    for part in name.split("."):
        client = getattr(client, part)
    return client


def send_all(connection: Any, case: Case) -> None:
    """Send what the application asks for."""
    for request in case.requests:
        connection.send(request)


def receive(connection: Any, case: Case, number: int) -> list[Any]:
    """Send what the application asks for, and receive a number of frames."""
    send_all(connection, case)
    return [connection.recv() for _ in range(number)]


def by_with(manager: Any, case: Case, number: int) -> list[Any]:
    """Leave the `with` block."""
    with manager as connection:
        return receive(connection, case, number)


def by_close(manager: Any, case: Case, number: int) -> list[Any]:
    """Close what was entered without a `with`, more than once."""
    connection = manager.enter()
    frames = receive(connection, case, number)
    connection.close()
    connection.close()
    return frames


def by_exception(manager: Any, case: Case, number: int) -> list[Any]:
    """Raise inside the `with` block."""
    frames: list[Any] = []
    with suppress(AppError), manager as connection:
        frames += receive(connection, case, number)
        raise AppError
    return frames


def by_iterating(manager: Any, case: Case, number: int) -> list[Any]:
    """Read until the provider closes."""
    with manager as connection:
        send_all(connection, case)
        return list(connection)


def by_loss(manager: Any, case: Case, number: int) -> list[Any]:
    """Read until the connection is lost."""
    frames: list[Any] = []
    with suppress(ConnectionClosedError), manager as connection:
        send_all(connection, case)
        frames.extend(connection)
    return frames


def by_garbage(manager: Any, case: Case, number: int) -> list[Any]:
    """Drop the connection."""
    connection = manager.enter()
    frames = receive(connection, case, number)
    below = connection._connection
    manager.__dict__.clear()  # A caller's frame may have it still, in Python 3.10.
    del connection, manager
    gc.collect()
    below.close()
    return frames


def by_exit(manager: Any, case: Case, number: int) -> list[Any]:
    """Leave the process while it is open."""
    connection = manager.enter()
    frames = receive(connection, case, number)
    open_calls.end_all()
    connection.close()
    return frames


async def areceive(connection: Any, case: Case, number: int) -> list[Any]:
    """Do as `receive`."""
    for request in case.requests:
        await connection.send(request)
    return [await connection.recv() for _ in range(number)]


async def aby_with(manager: Any, case: Case, number: int) -> list[Any]:
    """Leave the `with` block."""
    async with manager as connection:
        return await areceive(connection, case, number)


async def aby_close(manager: Any, case: Case, number: int) -> list[Any]:
    """Close what was entered without a `with`, more than once."""
    connection = await manager.enter()
    frames = await areceive(connection, case, number)
    await connection.close()
    await connection.close()
    return frames


async def aby_exception(manager: Any, case: Case, number: int) -> list[Any]:
    """Raise inside the `with` block."""
    frames: list[Any] = []
    with suppress(AppError):
        async with manager as connection:
            frames += await areceive(connection, case, number)
            raise AppError
    return frames


async def aby_iterating(manager: Any, case: Case, number: int) -> list[Any]:
    """Read until the provider closes."""
    async with manager as connection:
        await areceive(connection, case, 0)
        return [frame async for frame in connection]


async def aby_loss(manager: Any, case: Case, number: int) -> list[Any]:
    """Read until the connection is lost."""
    frames: list[Any] = []
    with suppress(ConnectionClosedError):
        async with manager as connection:
            await areceive(connection, case, 0)
            async for frame in connection:
                frames.append(frame)  # noqa: PERF401 - those that came before the loss are wanted
    return frames


async def aby_garbage(manager: Any, case: Case, number: int) -> list[Any]:
    """Drop the connection."""
    connection = await manager.enter()
    frames = await areceive(connection, case, number)
    below = connection._connection
    manager.__dict__.clear()  # A caller's frame may have it still, in Python 3.10.
    del connection, manager
    gc.collect()
    await below.close()
    return frames


async def aby_exit(manager: Any, case: Case, number: int) -> list[Any]:
    """Leave the process while it is open."""
    connection = await manager.enter()
    frames = await areceive(connection, case, number)
    open_calls.end_all()
    await connection.close()
    return frames


async def aby_cancellation(manager: Any, case: Case, number: int) -> list[Any]:
    """Cancel the task that waits for the next frame."""
    frames: list[Any] = []
    waits = asyncio.Event()

    async def run() -> None:
        async with manager as connection:
            frames.extend(await areceive(connection, case, number))
            waits.set()
            await connection.recv()

    task = asyncio.create_task(run())
    await waits.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return frames


ENDS: dict[str, tuple[Callable[..., Any], End]] = {
    f"{world}-{run.__name__.removeprefix('a').removeprefix('by_')}": (run, end)
    for world, runs in (
        (
            "sync",
            (by_with, by_close, by_exception, by_iterating, by_loss, by_garbage, by_exit),
        ),
        (
            "async",
            (
                aby_with,
                aby_close,
                aby_exception,
                aby_iterating,
                aby_loss,
                aby_garbage,
                aby_exit,
                aby_cancellation,
            ),
        ),
    )
    for run in runs
    for end in (
        close
        if run.__name__.endswith("iterating")
        else drop
        if run.__name__.endswith("loss")
        else wait,
    )
}
"""Each way that a connection ends, and what the provider does then."""


def play(world: str, run: Callable[..., Any], standin: Standin, case: Case, number: int) -> Any:
    """Make a connection for a customer, and end it in one of the ways."""
    with customer_context(CUSTOMER):
        if world == "sync":
            with openai.OpenAI(api_key="sk-test", websocket_base_url=standin.url) as client:
                return run(resource_of(client, case.name).connect(**case.arguments), case, number)

        async def arun() -> Any:
            async with openai.AsyncOpenAI(
                api_key="sk-test", websocket_base_url=standin.url
            ) as client:
                resource = resource_of(client, case.name)
                return await run(resource.connect(**case.arguments), case, number)

        return asyncio.run(arun())


def spans(meter: Meter, port: int) -> list[tuple[str, dict[str, Any], bool]]:
    """Return name, attributes and whether it failed of each span; all are in the connection's, which is the last."""
    *parts, connection = sorted(meter.spans(), key=lambda span: span.parent is None)
    assert connection.parent is None
    assert connection.context is not None
    assert {part.parent.span_id for part in parts if part.parent} <= {connection.context.span_id}
    found: list[tuple[str, dict[str, Any], bool]] = []
    for span in (*parts, connection):
        told = attributes(span)
        assert told.pop("server.port") == port
        found.append((span.name, told, not span.status.is_unset))
    return found


def of_name(span: tuple[str, dict[str, Any], bool]) -> str:
    """Return what spans are sorted by."""
    return repr(sorted(span[1].items(), key=lambda item: item[0]))


@pytest.fixture
def standin() -> Iterator[Standin]:
    """The provider."""
    with Standin() as running:
        yield running


def test_every_row_has_a_case() -> None:
    """What is metered is tested, as far as the installed SDK has it."""
    if VERSION >= (3, 57):
        assert {row.name for row in CONNECTIONS} == {case.name for case in CASES}


if CASES:

    @pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "cut"])
    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_ends(case: Case, end: str, is_whole: bool, standin: Standin, meter: Meter) -> None:
        """Each connection x each world x each end: whole spans, whole events, once."""
        run, ends = ENDS[end]
        number = len(case.frames) if is_whole else case.cut
        steps = case.steps[: len(case.requests) + number]
        standin.sessions = [Session(steps, ends)]
        frames = play(end.partition("-")[0], run, standin, case, number)
        assert [frame["type"] for frame in case.frames[:number]] == [frame.type for frame in frames]
        parts: list[Part] = list(case.parts if is_whole else case.cut_parts)
        is_lost = end.endswith("loss")
        if is_lost:
            parts = [part.lost(LOST) for part in parts]
        # What is dropped is ended by a thread.
        meter.recorded.wait_for(len(parts))
        if end.endswith("garbage"):
            open_calls.end_all()
        assert sorted(map(repr, map(sort, meter.events()))) == sorted(
            repr(sort(part.event)) for part in parts
        )
        name, told = case.span
        if is_lost:
            told = {**told, "error.type": LOST}
        expected = [(*part.span, part.error is not None) for part in parts]
        expected.append((name, told, is_lost))
        # The thread that ends what was dropped may be at the last one.
        wait_for(lambda: len(meter.spans()) >= len(expected))
        port = int(standin.url.split(":")[2].split("/")[0])
        assert sorted(spans(meter, port), key=of_name) == sorted(expected, key=of_name)

    def sort(thing: Any) -> Any:
        """Return a thing with the keys of its dicts in order."""
        if isinstance(thing, dict):
            return {key: sort(thing[key]) for key in sorted(thing)}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return thing

    @pytest.mark.parametrize("world", ["sync", "async"])
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_frames(case: Case, world: str, standin: Standin, meter: Meter) -> None:
        """The application gets the very frames that it gets without us: the same types, values and order."""
        standin.sessions = [Session(case.steps)]
        run = by_with if world == "sync" else aby_with
        observed = play(world, run, standin, case, len(case.frames))
        CmdrDataInstrumentor().uninstrument()
        bare = play(world, run, standin, case, len(case.frames))
        CmdrDataInstrumentor().instrument()  # For the fixture to undo.
        assert [(type(frame), frame) for frame in bare] == [
            (type(frame), frame) for frame in observed
        ]
        first, second = (
            {name: value for name, value in headers.items() if name != "Sec-WebSocket-Key"}
            for headers in standin.headers
        )
        assert first == second
        assert standin.messages[: len(case.requests)] == standin.messages[len(case.requests) :]
