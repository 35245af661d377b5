"""
The calls that are measured, and the process of one contender, which makes them.

The SDK is the real one and has real bytes to parse; only the network is replaced, by answers from memory.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
import tracemalloc
import warnings
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
from contenders import CONTENDERS, DELIVERING, Installed


@dataclass(frozen=True)
class Scenario:
    """A way to call, and how often it is done at a time."""

    name: str
    calls: int
    chunks: int = 0
    """Of the streamed answer, which is read to its end; 0 for a whole answer."""
    raw: bool = False
    concurrent: int = 0
    """How many calls a loop of asyncio has under way at once; 0 for the synchronous client."""
    share: int = 1
    """It takes one turn in so many rounds, where a turn takes long."""

    @property
    def has_target(self) -> bool:
        """Whether a quick look measures it."""
        return self.share <= 2 and self.concurrent <= 1


SCENARIOS = (
    Scenario("plain", 8),
    Scenario("raw", 8, raw=True),
    Scenario("stream of 100", 2, chunks=100),
    Scenario("stream of 1,000", 1, chunks=1000, share=8),
    Scenario("async", 8, concurrent=1),
    Scenario("async, 10 at once", 20, concurrent=10, share=2),
    Scenario("async, 100 at once", 100, concurrent=100, share=4),
)

CALL: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Say hello to everyone who reads this."}],
    "temperature": 0.2,
    "max_tokens": 256,
}
_STREAM: dict[str, Any] = {**CALL, "stream": True, "stream_options": {"include_usage": True}}

_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0},
}
_HEAD = {
    "id": "chatcmpl-1",
    "created": 1_700_000_001,
    "model": "gpt-4o-mini-2024-07-18",
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}


def _answer(chunks: int) -> list[bytes]:
    """Return the parts of an answer: one for a whole one, else one for each chunk, as a provider sends them."""
    if not chunks:
        message = {"role": "assistant", "content": "Hello, everyone who reads this!"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE}
        return [json.dumps(body).encode()]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f" word{number}"} for number in range(chunks - 3)]
    choices: list[list[Any]] = [
        [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
    ]
    choices += [[{"index": 0, "delta": {}, "finish_reason": "stop"}], []]
    head = {**_HEAD, "object": "chat.completion.chunk"}
    bodies = [{**head, "choices": each, "usage": None if each else _USAGE} for each in choices]
    # Without blanks, as OpenAI's.
    lines = [json.dumps(body, separators=(",", ":")) for body in bodies]
    return [f"data: {line}\n\n".encode() for line in (*lines, "[DONE]")]


class _Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """The parts of an answer, one by one."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


class Memory(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Answers every request alike, from memory."""

    def __init__(self, chunks: int, latency: float = 0.0) -> None:
        self._parts = _answer(chunks)
        self._latency = latency
        self._headers = {"content-type": "text/event-stream" if chunks else "application/json"}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002 - the base's
        """See `httpx2.BaseTransport.handle_request`."""
        return httpx2.Response(200, headers=self._headers, stream=_Body(self._parts))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See `httpx2.AsyncBaseTransport.handle_async_request`."""
        # At least lets the others send theirs, so that all are under way at once.
        await asyncio.sleep(self._latency)
        return self.handle_request(request)


class Worker:
    """A contender, installed in this process, and a client for each scenario."""

    def __init__(self, contender: str) -> None:
        self._installed: Installed = (CONTENDERS | DELIVERING)[contender]()
        self._loop = asyncio.new_event_loop()
        self._clients = {scenario.name: self._client(scenario) for scenario in SCENARIOS}

    def time(self, scenario: Scenario) -> tuple[float, float]:
        """Return microseconds and records per call: processor time of all threads, so that waiting does not count."""
        # The other processes had the caches since the last turn.
        self.run(scenario, max(1, scenario.calls // 4))
        self._installed.settle()
        before = self._installed.recorded()
        start = time.process_time_ns()
        self.run(scenario, scenario.calls)
        self._installed.settle()
        elapsed = time.process_time_ns() - start
        records = self._installed.recorded() - before
        return elapsed / 1000 / scenario.calls, records / scenario.calls

    def beside(self, seconds: float) -> tuple[float, float]:
        """
        Return microseconds of processor time per plain call, of the calling thread and of all threads.

        The calls are made in a row. The calling thread's time is that of the second half, in which whatever a
        contender does in the background is at work. That of all threads begins with the first call, and ends when
        nothing is left to deliver.
        """
        create = self._clients["plain"].chat.completions.create

        def calls() -> int:
            number, until = 0, time.monotonic() + seconds / 2
            while time.monotonic() < until:
                create(**CALL, **self._installed.arguments)
                number += 1
            return number

        process = time.process_time_ns()
        before = calls()
        thread = time.thread_time_ns()
        counted = calls()
        thread = time.thread_time_ns() - thread
        self._installed.rest()
        process = time.process_time_ns() - process
        return thread / 1000 / counted, process / 1000 / (before + counted)

    def at_a_rate(self, rate: float, latency: float, seconds: float) -> tuple[float, list[float]]:
        """
        Return what an application of asyncio takes that makes `rate` calls a second of `latency` seconds each.

        That is microseconds of processor time per call, of all threads, and each call's milliseconds beyond `latency`.
        What counts begins after half a second of such calls: as many of their events are delivered in the time that
        counts as are left when it ends.
        """
        http_client = httpx2.AsyncClient(transport=Memory(0, latency))
        client = self._installed.async_client(api_key="sk-bench", http_client=http_client)
        late: list[float] = []

        async def call() -> None:
            began = time.perf_counter()
            await client.chat.completions.create(**CALL, **self._installed.arguments)
            late.append((time.perf_counter() - began - latency) * 1000)

        async def calls(number: int) -> None:
            begun: list[asyncio.Task[None]] = []
            first = time.perf_counter()
            for n in range(number):
                await asyncio.sleep(max(0.0, first + n / rate - time.perf_counter()))
                begun.append(asyncio.create_task(call()))
            await asyncio.gather(*begun)

        self._loop.run_until_complete(calls(int(rate / 2)))
        late.clear()
        used = time.process_time_ns()
        self._loop.run_until_complete(calls(int(rate * seconds)))
        used = time.process_time_ns() - used
        return used / 1000 / len(late), late

    def open_streams(self, number: int) -> float:
        """Return the bytes in use for each of `number` streams that are read halfway at the same time."""
        create = self._clients["stream of 100"].chat.completions.create
        opened = [self._begun(create) for _ in range(10)]
        gc.collect()
        tracemalloc.start()
        opened += [self._begun(create) for _ in range(number)]
        gc.collect()
        bytes_in_use, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return bytes_in_use / number

    def growth(self, calls: int) -> list[int]:
        """Return the bytes in use, ten times while so many calls are made, each tenth a stream that is left halfway."""
        plain = self._clients["plain"].chat.completions.create
        stream = self._clients["stream of 100"].chat.completions.create
        in_use: list[int] = []
        for done in range(calls + 1):
            # After the first thousand, by which everything is there that is made once.
            if done == 1000:
                tracemalloc.start()
            if done and done % (calls // 10) == 0:
                time.sleep(0.1)  # A stream that was left ends in a thread.
                gc.collect()
                in_use.append(tracemalloc.get_traced_memory()[0])
            if done % 10:
                plain(**CALL)
            else:
                self._begun(stream)
        tracemalloc.stop()
        return in_use

    @staticmethod
    def _begun(create: Any) -> Any:
        stream = create(**_STREAM)
        next(stream)
        next(stream)
        return stream

    def _client(self, scenario: Scenario) -> Any:
        installed, transport = self._installed, Memory(scenario.chunks)
        if scenario.concurrent:
            http_client = httpx2.AsyncClient(transport=transport)
            return installed.async_client(api_key="sk-bench", http_client=http_client)
        return installed.client(api_key="sk-bench", http_client=httpx2.Client(transport=transport))

    def run(self, scenario: Scenario, calls: int) -> None:
        """Make so many calls."""
        completions = self._clients[scenario.name].chat.completions
        arguments: dict[str, Any] = _STREAM if scenario.chunks else CALL
        if not scenario.raw:
            arguments = {**arguments, **self._installed.arguments}
        if scenario.concurrent:
            for _ in range(0, calls, scenario.concurrent):
                run = _at_once(completions.create, arguments, scenario.concurrent)
                self._loop.run_until_complete(run)
            return
        for _ in range(calls):
            if scenario.raw:
                completions.with_raw_response.create(**arguments).parse()
            elif scenario.chunks:
                deque(completions.create(**arguments), maxlen=0)
            else:
                completions.create(**arguments)


async def _at_once(create: Any, arguments: dict[str, Any], calls: int) -> None:
    await asyncio.gather(*(create(**arguments) for _ in range(calls)))


def ready(contender: str) -> Worker:
    """Return the worker of a contender, for a process of its own."""
    # What a contender has to say of versions or failures shows in what it records.
    logging.disable()
    warnings.simplefilter("ignore")
    worker = Worker(contender)
    for scenario in SCENARIOS:
        worker.time(scenario)
    # What is there now stays: the garbage collector would pass over it at odd times, and take longer than a call.
    gc.collect()
    gc.freeze()
    return worker
