"""Streams end on every path, at once where nobody waits for more, and are billed with what was reported."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import openai
import pytest
from opentelemetry.trace import StatusCode

from opentelemetry_instrumentation_cmdrdata import open_calls
from opentelemetry_instrumentation_cmdrdata.open_calls import end_dropped
from tests import replies
from tests.charges import MESSAGES
from tests.metering import Meter, attributes
from tests.provider import Provider, Reply
from tests.sdk import VERSION, async_client, client

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


@contextmanager
def no_garbage_collection() -> Generator[None]:
    """Whatever ends inside, ends because nothing refers to it any more."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def the_event(meter: Meter) -> dict[str, Any]:
    """Return the one event, once the calls that were dropped have ended."""
    end_dropped()
    meter.recorded.wait_for(1)
    (event,) = meter.events()
    return event


def facts(event: dict[str, Any]) -> dict[str, Any]:
    """Return what tells one end of a stream from another."""
    return {
        "tokens": (event["input_tokens"], event["output_tokens"], event["total_tokens"]),
        "status": event["metadata"]["usage_status"],
        "response": event["metadata"]["response_id"],
        "finish": event["metadata"]["finish_reason"],
        "error": event["error"]["type"],
    }


REPORTED = {
    "tokens": (19, 10, 29),
    "status": "reported",
    "response": "chatcmpl-1",
    "finish": "stop",
    "error": None,
}
CUT = {
    "tokens": (0, 0, 0),
    "status": "partial",
    "response": "chatcmpl-1",
    "finish": None,
    "error": None,
}
NEVER_READ = {**CUT, "response": None}


def test_a_stream_that_is_never_read(provider: Provider, meter: Meter) -> None:
    """A stream dropped unread ends its call at once."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=1))
    with no_garbage_collection(), client(provider) as sdk:
        stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
        assert meter.events() == []
        del stream
        assert facts(the_event(meter)) == NEVER_READ


def test_a_stream_left_by_break(provider: Provider, meter: Meter) -> None:
    """A stream left by `break` ends its call as soon as it is dropped, as partial: its usage never came."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=2))
    with no_garbage_collection(), client(provider) as sdk:
        for _ in sdk.chat.completions.create(stream=True, **ARGUMENTS):
            break
        event = the_event(meter)
        assert facts(event) == CUT
        assert event["first_token"]
    (span,) = meter.spans()
    assert span.status.status_code is StatusCode.UNSET, "to stop reading is no error"


@pytest.mark.parametrize("world", ["sync", "async"])
def test_a_chunk_that_is_let_go(world: str, provider: Provider, meter: Meter) -> None:
    """Nothing of ours keeps a chunk that was handed out until the next one comes."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))

    async def first() -> Any:
        async with async_client(provider) as sdk:
            stream = await sdk.chat.completions.create(stream=True, **ARGUMENTS)
            chunk: Any = await stream.__anext__()
            reference = weakref.ref(chunk)
            del chunk
            left = reference()
            await stream.response.aclose()
            return left

    with no_garbage_collection():
        if world == "async":
            assert asyncio.run(first()) is None
        else:
            with client(provider) as sdk:
                stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
                reference = weakref.ref(next(stream))
                assert reference() is None
                del stream
    end_dropped()
    assert facts(the_event(meter)) == CUT


def test_a_stream_left_and_taken_up_again(provider: Provider, meter: Meter) -> None:
    """A stream that is still held after `break` can be read on, so its call has not ended."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    with client(provider) as sdk:
        stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
        for _ in stream:
            break
        end_dropped()
        assert meter.events() == []
        assert len(list(stream)) == len(replies.chat_chunks()) - 1
    assert facts(the_event(meter)) == REPORTED


@pytest.mark.parametrize("pieces", [0, 2])
def test_a_stream_that_is_closed(pieces: int, provider: Provider, meter: Meter) -> None:
    """Closing the response of a stream, which is what every close of the SDK does, ends its call at once."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=pieces + 1))
    with no_garbage_collection(), client(provider) as sdk:
        stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
        for _ in range(pieces):
            next(stream)
        stream.response.close()
        assert facts(the_event(meter)) == (CUT if pieces else NEVER_READ)
        del stream


def test_a_stream_closed_after_its_usage_came(provider: Provider, meter: Meter) -> None:
    """What the provider reported counts, also if the application then leaves."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=5))
    with client(provider) as sdk:
        stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
        for _ in range(5):
            next(stream)
        stream.response.close()
        assert facts(the_event(meter)) == REPORTED


def test_a_stream_that_is_cut_by_the_provider(provider: Provider, meter: Meter) -> None:
    """A connection that breaks is an error of the call, and the application gets the SDK's own exception."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), cut_after=2))
    with client(provider) as sdk:
        stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the SDK's versions differ, as the next line shows
            list(stream)
    event = the_event(meter)
    assert facts(event) == {**CUT, "error": "connection_error"}
    (span,) = meter.spans()
    assert span.status.status_code is StatusCode.ERROR
    error_type = attributes(span)["error.type"]
    assert error_type == f"{type(raised.value).__module__}.{type(raised.value).__qualname__}"


def test_a_stream_of_garbage(provider: Provider, meter: Meter) -> None:
    """A chunk that is no JSON raises in the application what it would without us, and ends the call."""
    provider.answer(CHAT, Reply(events=["{nonsense"]))
    with client(provider) as sdk, pytest.raises(ValueError, match="Expecting property name"):
        list(sdk.chat.completions.create(stream=True, **ARGUMENTS))
    assert facts(the_event(meter)) == {**NEVER_READ, "error": "unknown_error"}


def test_a_stream_that_reports_an_error(provider: Provider, meter: Meter) -> None:
    """An error event in mid stream is the call's error, with the provider's code."""
    failure = {"error": {"message": "overloaded", "type": "server_error", "code": "server_error"}}
    provider.answer(CHAT, Reply(events=[*replies.chat_chunks()[:2], failure]))
    with client(provider) as sdk, pytest.raises(openai.APIError):
        list(sdk.chat.completions.create(stream=True, **ARGUMENTS))
    event = the_event(meter)
    assert facts(event) == {**CUT, "error": "server_error"}
    assert event["error"]["code"] == "server_error"


def test_a_stream_in_the_hands_of_a_failing_application(provider: Provider, meter: Meter) -> None:
    """An exception of the application between two chunks is not the call's."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=2))

    def application() -> None:
        with client(provider) as sdk:
            for _ in sdk.chat.completions.create(stream=True, **ARGUMENTS):
                raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        application()
    gc.collect()
    assert facts(the_event(meter)) == CUT


def test_keyboard_interrupt_while_waiting(
    provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KeyboardInterrupt while a chunk is waited for goes through unchanged, and the call ends as cancelled."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    interrupt = KeyboardInterrupt()

    with client(provider) as sdk:
        stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
        next(stream)

        def interrupted(**_: object) -> None:
            raise interrupt

        monkeypatch.setattr(sdk, "_process_response_data", interrupted)
        with pytest.raises(KeyboardInterrupt) as raised:
            # The chunks' source looked the method up when it began: a new stream finds the one that raises.
            next(sdk.chat.completions.create(stream=True, **ARGUMENTS))
        assert raised.value is interrupt
        stream.response.close()
    end_dropped()
    meter.recorded.wait_for(2)
    assert sorted(str(event["error"]["type"]) for event in meter.events()) == ["None", "cancelled"]


def test_a_cancelled_task(provider: Provider, meter: Meter) -> None:
    """Cancelling the task that waits for a chunk ends the call as cancelled."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=1))

    async def application() -> None:
        async with async_client(provider) as sdk:
            stream = await sdk.chat.completions.create(stream=True, **ARGUMENTS)
            arrived = asyncio.Event()

            async def read() -> None:
                async for _ in stream:
                    arrived.set()

            task = asyncio.create_task(read())
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await stream.response.aclose()

    asyncio.run(application())
    assert facts(the_event(meter)) == {**CUT, "error": "cancelled"}


def test_a_cancelled_request(provider: Provider, meter: Meter) -> None:
    """Cancelling a request that waits for its answer ends the call as cancelled: the provider may charge it."""
    provider.answer(
        CHAT, Reply(events=[], hold_after=0, headers={"content-type": "application/json"})
    )

    async def application() -> None:
        async with async_client(provider) as sdk:
            completions: Any = sdk.chat.completions
            task = asyncio.create_task(completions.create(**ARGUMENTS))
            while not provider.requests:  # noqa: ASYNC110 - another thread fills the list
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(application())
    assert facts(the_event(meter)) == {**NEVER_READ, "status": "missing", "error": "cancelled"}


def test_an_async_stream_left_by_break(provider: Provider, meter: Meter) -> None:
    """An asynchronous stream left by `break` ends its call once it is dropped and the loop has closed it."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=2))

    async def application() -> None:
        async with async_client(provider) as sdk:
            stream = await sdk.chat.completions.create(stream=True, **ARGUMENTS)
            async for _ in stream:
                break
            await stream.response.aclose()
            del stream
            assert facts(the_event(meter)) == CUT

    asyncio.run(application())


def test_a_raw_response_whose_stream_is_never_parsed(provider: Provider, meter: Meter) -> None:
    """A raw response that is closed unread ends its call."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=1))
    with client(provider) as sdk:
        response = sdk.chat.completions.with_raw_response.create(stream=True, **ARGUMENTS)
        response.http_response.close()
        assert facts(the_event(meter)) == NEVER_READ


def test_a_parsed_raw_stream_that_is_dropped(provider: Provider, meter: Meter) -> None:
    """A raw response and its parsed stream, dropped together, end their call at once."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=2))
    with no_garbage_collection(), client(provider) as sdk:
        stream = sdk.chat.completions.with_raw_response.create(stream=True, **ARGUMENTS).parse()
        next(iter(stream))
        del stream
        assert facts(the_event(meter)) == CUT


def test_an_answer_that_is_no_stream(provider: Provider, meter: Meter) -> None:
    """A server that answers a request for a stream with one whole answer is billed from that, whoever reads it."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with client(provider) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(stream=True, **ARGUMENTS)
        assert b"".join(raw.http_response.iter_raw())
    assert facts(the_event(meter)) == REPORTED


def test_the_undecoded_bytes_of_a_raw_response(provider: Provider, meter: Meter) -> None:
    """Bytes that are read undecoded, in an encoding that we cannot read, leave the usage unknown."""
    headers = {"content-encoding": "br", "content-type": "text/event-stream"}
    provider.answer(CHAT, Reply(content=b"\x0b\x02\x80data: {}\n\n\x03", headers=headers))
    with client(provider) as sdk:
        raw = sdk.chat.completions.with_raw_response.create(stream=True, **ARGUMENTS)
        assert b"".join(raw.http_response.iter_raw())
    assert facts(the_event(meter)) == {**NEVER_READ, "status": "missing"}


def test_a_stream_without_usage(provider: Provider, meter: Meter) -> None:
    """A stream read to its end that never told its usage is `missing`, not zero."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(usage=None)))
    with client(provider) as sdk:
        list(sdk.chat.completions.create(stream=True, **ARGUMENTS))
    assert facts(the_event(meter)) == {**REPORTED, "tokens": (0, 0, 0), "status": "missing"}


def test_usage_on_several_chunks(provider: Provider, meter: Meter) -> None:
    """Some servers report usage so far on every chunk: the last report counts, whole."""
    chunks = replies.chat_chunks(usage=None)
    for number, chunk in enumerate(chunks):
        details = {"completion_tokens_details": {"reasoning_tokens": 1}} if number == 0 else {}
        chunk["usage"] = {
            "prompt_tokens": 5,
            "completion_tokens": number,
            "total_tokens": 5 + number,
            **details,
        }
    provider.answer(CHAT, Reply(events=chunks))
    with client(provider) as sdk:
        list(sdk.chat.completions.create(stream=True, **ARGUMENTS))
    event = the_event(meter)
    assert facts(event) == {**REPORTED, "tokens": (5, 3, 8)}
    assert event["metadata"]["usage"] == {}


@pytest.mark.parametrize(
    ("usages", "read", "expected"),
    [
        (True, 2, {**CUT, "tokens": (5, 2, 7)}),
        (True, 4, {**REPORTED, "tokens": (5, 4, 9)}),
        (False, 2, CUT),
    ],
    ids=["left in the middle", "left once every choice had ended", "never told"],
)
def test_usage_so_far_of_a_stream_that_is_left(
    usages: bool, read: int, expected: dict[str, Any], provider: Provider, meter: Meter
) -> None:
    """The last figures that came of a stream that was left count, and are marked as what was used so far."""
    chunks = replies.chat_chunks(usage=None)
    for number, chunk in enumerate(chunks if usages else [], 1):
        chunk["usage"] = {
            "prompt_tokens": 5,
            "completion_tokens": number,
            "total_tokens": 5 + number,
        }
    provider.answer(CHAT, Reply(events=chunks, hold_after=read))
    with client(provider) as sdk:
        stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
        for _ in range(read):
            next(stream)
        stream.response.close()
    assert facts(the_event(meter)) == expected


@pytest.mark.parametrize("usages", [True, False])
def test_usage_so_far_of_a_stream_that_breaks(
    usages: bool, provider: Provider, meter: Meter
) -> None:
    """A connection that is lost leaves what was used so far, if that is known, as `partial`."""
    chunks = replies.chat_chunks(usage=None)
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    chunks = [{**chunk, "usage": usage if usages else None} for chunk in chunks]
    provider.answer(CHAT, Reply(events=chunks, cut_after=2))
    with (
        client(provider) as sdk,
        pytest.raises(Exception, match=r"peer closed|incomplete|onnection"),
    ):
        list(sdk.chat.completions.create(stream=True, **ARGUMENTS))
    event = facts(the_event(meter))
    assert event == {
        **CUT,
        "tokens": (5, 1, 6) if usages else (0, 0, 0),
        "error": "connection_error",
    }


def test_a_stream_that_times_out(provider: Provider, meter: Meter) -> None:
    """A stream in which nothing more comes in time is `partial`; one that was never answered is `missing`."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=1), Reply(silent=True))
    with client(provider, timeout=0.3) as sdk:
        for _ in range(2):
            with pytest.raises(Exception, match=r"[Tt]ime"):
                list(sdk.chat.completions.create(stream=True, **ARGUMENTS))
    meter.recorded.wait_for(2)
    assert [facts(event) for event in meter.events()] == [
        {**CUT, "error": "timeout"},
        {**NEVER_READ, "status": "missing", "error": "timeout"},
    ]


def test_several_choices(provider: Provider, meter: Meter) -> None:
    """Finish reasons are told for each choice, in the order of the choices, however their chunks interleave."""
    head: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
    }
    chunks: list[dict[str, Any]] = [
        {**head, "choices": [{"index": index, "delta": {}, "finish_reason": reason}]}
        for index, reason in ((0, None), (1, None), (2, None), (1, "length"), (0, "stop"))
    ]
    provider.answer(CHAT, Reply(events=chunks))
    with client(provider) as sdk:
        list(sdk.chat.completions.create(stream=True, n=3, **ARGUMENTS))
    end_dropped()
    (span,) = meter.spans()
    assert attributes(span)["gen_ai.response.finish_reasons"] == ("stop", "length", "error")


def test_the_time_of_the_last_chunk(provider: Provider, meter: Meter) -> None:
    """A call ends when its last chunk arrives, not when the application comes back for more."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=6, done=False))
    with client(provider) as sdk:
        stream = sdk.chat.completions.create(stream=True, **ARGUMENTS)
        for _ in range(5):
            next(stream)
        pause = threading.Event()
        pause.wait(0.3)
        stream.response.close()
    end_dropped()
    (span,) = meter.spans()
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < span.end_time - span.start_time < 0.3e9


EXIT = """
import sys
import openai
from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from tests.metering import RecordedEvents

class Printed(RecordedEvents):
    def record(self, event_id, header, body):
        print(header.status)

CmdrDataInstrumentor().instrument(exporter=CmdrDataSpanExporter(delivery=Printed()))
client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-test")
stream = client.chat.completions.create(stream=True, model="m", messages=[])
next(stream)
"""


def test_the_exit_of_the_process(provider: Provider) -> None:
    """A stream that is still open when the process exits is billed then."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=2))
    done = subprocess.run(
        [sys.executable, "-c", EXIT, provider.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("partial\n", 0), done.stderr


if VERSION >= (1, 40):

    def test_a_stream_helper_left_in_the_middle(provider: Provider, meter: Meter) -> None:
        """The SDK's stream helper closes the response alone, and that ends the call at once."""
        provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=2))
        chat = client(provider)
        completions: Any = (
            chat.chat.completions
            if hasattr(chat.chat.completions, "stream")
            else chat.beta.chat.completions
        )
        with no_garbage_collection():
            with completions.stream(**ARGUMENTS) as stream:
                for _ in stream:
                    break
            assert facts(the_event(meter)) == CUT
            del stream
        chat.close()

    def test_a_stream_helper_read_to_its_end(provider: Provider, meter: Meter) -> None:
        """A call through the stream helper is one call."""
        provider.answer(CHAT, Reply(events=replies.chat_chunks()))
        with client(provider) as sdk:
            completions: Any = (
                sdk.chat.completions
                if hasattr(sdk.chat.completions, "stream")
                else sdk.beta.chat.completions
            )
            with completions.stream(**ARGUMENTS) as stream:
                final = stream.get_final_completion()
        assert final.choices[0].message.content == "hello"
        assert facts(the_event(meter)) == REPORTED

    def test_parse(provider: Provider, meter: Meter) -> None:
        """`parse` is one call."""
        provider.answer(CHAT, Reply(json=replies.CHAT))
        with client(provider) as sdk:
            completions: Any = (
                sdk.chat.completions
                if hasattr(sdk.chat.completions, "parse")
                else sdk.beta.chat.completions
            )
            completions.parse(**ARGUMENTS)
        assert facts(the_event(meter)) == REPORTED


if VERSION >= (1, 66):

    @pytest.mark.parametrize("last", ["failed", "incomplete"])
    def test_a_response_that_did_not_complete(last: str, provider: Provider, meter: Meter) -> None:
        """A response that failed or stopped early is billed with the usage it reports; only a failure is an error."""
        changes: dict[str, Any] = (
            {"error": {"code": "server_error", "message": "it broke"}}
            if last == "failed"
            else {"incomplete_details": {"reason": "max_output_tokens"}}
        )
        provider.answer("/v1/responses", Reply(events=replies.response_events(last, **changes)))
        with client(provider) as sdk:
            list(sdk.responses.create(stream=True, model="gpt-5-mini", input="hello"))
        event = the_event(meter)
        assert facts(event) == {
            "tokens": (23, 12, 35),
            "status": "reported",
            "response": "resp_1",
            "finish": None if last == "failed" else "length",
            "error": "server_error" if last == "failed" else None,
        }

    def test_function_calls_of_a_response(provider: Provider, meter: Meter) -> None:
        """A response that calls functions finishes for that reason."""
        call = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "c",
            "name": "f",
            "arguments": "{}",
        }
        provider.answer("/v1/responses", Reply(json={**replies.RESPONSE, "output": [call]}))
        with client(provider) as sdk:
            sdk.responses.create(model="gpt-5-mini", input="hello")
        assert facts(the_event(meter))["finish"] == "tool_calls"


@pytest.mark.parametrize("world", ["sync", "async"])
def test_the_end_of_a_stream_is_no_other_threads(
    world: str, provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that is read to its end is billed by the thread that read it, before it goes on."""
    dropped: list[object] = []

    def note(call: object, error: BaseException | None = None) -> None:
        dropped.append(call)

    monkeypatch.setattr(open_calls, "dropped", note)
    provider.answer("/v1/chat/completions", Reply(events=replies.chat_chunks()))
    arguments: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES, "stream": True}
    if world == "sync":
        with client(provider) as sdk:
            create: Any = sdk.chat.completions.create
            assert list(create(**arguments))
    else:

        async def read() -> None:
            async with async_client(provider) as sdk:
                create: Any = sdk.chat.completions.create
                chunks: list[Any] = [chunk async for chunk in await create(**arguments)]
                assert chunks

        asyncio.run(read())
    assert "reported" == the_event(meter)["metadata"]["usage_status"]
    assert [] == dropped
