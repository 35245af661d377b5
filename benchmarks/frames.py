"""
What a frame of a WebSocket session costs beside the SDK's own parsing of it, and what a session keeps.

    python benchmarks/frames.py [--frames 10000]

The frames are those of a spoken answer: nearly all of them bring one more piece of sound. They are parsed as the SDK
does when they arrive, without a network. The least of all turns counts.
The SDK's own method and ours take turns, response by response, so that other work on the machine does little to it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import json
import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Generator, Sequence
from itertools import chain
from typing import Any, cast

import openai
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from cmdrdata_exporter import customer_context
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.openai.websockets import patching

PIECES = 98
"""Pieces of sound of each response, beside its begin and its end."""


def session(number: int) -> list[list[bytes]]:
    """Return the frames of a session of `number` frames, response by response."""
    piece: dict[str, Any] = {"type": "response.output_audio.delta", "event_id": "event_1"}
    piece |= {"item_id": "item_1", "output_index": 0, "content_index": 0, "delta": "A" * 4000}
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    responses: list[list[bytes]] = []
    for response in range(number // (PIECES + 2)):
        name = f"resp_{os.getpid()}_{time.monotonic_ns()}_{response}"
        begun: dict[str, Any] = {
            "id": name,
            "object": "realtime.response",
            "status": "in_progress",
            "output": [],
        }
        done: dict[str, Any] = {**begun, "status": "completed", "usage": usage}
        frames: tuple[dict[str, Any], ...] = (
            {"type": "response.created", "event_id": "e", "response": begun},
            *[{**piece, "response_id": name}] * PIECES,
            {"type": "response.done", "event_id": "e", "response": done},
        )
        responses.append([json.dumps(frame).encode() for frame in frames])
    return responses


def play(connection: ServerConnection) -> None:
    """Leave it to the client to close."""
    with contextlib.suppress(ConnectionClosed):
        connection.recv()


@contextlib.contextmanager
def connected() -> Generator[Any]:
    """Return a connection of the SDK to a server that says nothing."""
    with serve(play, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        with (
            openai.OpenAI(api_key="sk-bench", websocket_base_url=url) as client,
            client.realtime.connect(model="gpt-realtime") as connection,
        ):
            yield connection


def seconds(parse: Callable[[bytes], object], frames: Sequence[bytes]) -> float:
    """Return the processor time of this thread that parsing takes, per frame."""
    begin = time.thread_time()
    for frame in frames:
        parse(frame)
    return (time.thread_time() - begin) / len(frames)


def least(connection: Any, responses: list[list[bytes]]) -> tuple[float, float]:
    """Return the least times per frame of the SDK alone and with us."""
    kind = cast("Any", type(connection))
    bare = functools.partial(kind.parse_event.__wrapped__, connection)
    times = [
        (seconds(bare, frames), seconds(connection.parse_event, frames)) for frames in responses
    ]
    return min(alone for alone, _ in times), min(both for _, both in times)


def looking() -> float:
    """Return the seconds that a look at a frame takes which tells nothing new."""
    with connected() as connection:
        frame = connection.parse_event(session(100)[0][1])

        def returning(*_: object) -> object:
            return frame

        observed = patching.parsing(returning)
        bare = functools.partial(returning, connection)
        ours = functools.partial(observed, connection)
        empty = [b""] * 1000
        return min(seconds(ours, empty) for _ in range(99)) - min(
            seconds(bare, empty) for _ in range(99)
        )


def kept(number: int) -> int:
    """Return the bytes that a session holds after so many frames, beyond those after as many before."""
    with connected() as connection:
        seconds(connection.parse_event, list(chain.from_iterable(session(number))))
        tracemalloc.start()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        seconds(connection.parse_event, list(chain.from_iterable(session(number))))
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    return held


def main() -> None:
    """Measure, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    number: int = parser.parse_args().frames
    with tempfile.TemporaryDirectory() as directory:
        os.environ["CMDRDATA_SPOOL_DIR"] = directory
        os.environ["CMDRDATA_DRAIN"] = "none"
        CmdrDataInstrumentor().instrument()
        with connected() as connection, customer_context("acme"):
            responses = session(number)
            pieces = least(connection, [frames[1:-1] for frames in responses])
            whole = least(connection, responses)
        look, held = looking(), kept(number)
        CmdrDataInstrumentor().uninstrument()
    print("| frames | the SDK's parsing | added by us | ratio |")
    print("|---|---:|---:|---:|")
    for name, alone, added in (
        ("a piece of sound", pieces[0], look),
        ("all, with 1 response in 100 frames", whole[0], whole[1] - whole[0]),
    ):
        print(f"| {name} | {alone * 1e6:.1f} µs | {added * 1e6:.2f} µs | {added / alone:.3f} |")
    print(f"\nkept by {number} more frames: {held} bytes")


if __name__ == "__main__":
    main()
