"""What applications do with the SDK that is rare, and must work and be billed all the same."""

from __future__ import annotations

import _thread
import asyncio
import gc
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from opentelemetry_instrumentation_cmdrdata import open_calls
from tests import replies
from tests.charges import MESSAGES
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import VERSION, async_client, client

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


class Answer(BaseModel):
    """What a chat is asked to answer with."""

    secret: str


def statuses(meter: Meter) -> list[tuple[str, int]]:
    """Return what each event says of its usage."""
    return [(event["metadata"]["usage_status"], event["total_tokens"]) for event in meter.events()]


@pytest.fixture
def chat(provider: Provider) -> Provider:
    """A provider that answers a chat."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    return provider


if VERSION >= (1, 92):

    def test_an_answer_that_cannot_be_parsed(chat: Provider, meter: Meter) -> None:
        """The provider charges what the SDK then cannot parse; what the model wrote stays out of span and event."""
        with client(chat) as sync, pytest.raises(ValueError, match="hello"):
            sync.chat.completions.parse(response_format=Answer, **ARGUMENTS)

        assert statuses(meter) == [("reported", 29)]
        (event,) = meter.events()
        assert event["error"]["message"] == "ValidationError"
        assert "hello" not in str(event)
        (span,) = meter.spans()
        assert "hello" not in f"{span.attributes} {span.status.description}"

    def test_an_answer_that_was_cut(provider: Provider, meter: Meter) -> None:
        """An exception about the answer's length is the application's, its tokens are charged."""
        cut = {**replies.CHAT["choices"][0], "finish_reason": "length"}
        provider.answer(CHAT, Reply(json={**replies.CHAT, "choices": [cut]}))
        with client(provider) as sync, pytest.raises(openai.LengthFinishReasonError):
            sync.chat.completions.parse(response_format=Answer, **ARGUMENTS)
        assert statuses(meter) == [("reported", 29)]


def test_an_answer_of_another_shape(provider: Provider, meter: Meter) -> None:
    """With strict validation the SDK refuses an answer that the provider charged."""
    provider.answer(CHAT, Reply(json={**replies.CHAT, "choices": "none"}))
    with (
        client(provider, _strict_response_validation=True) as sync,
        pytest.raises(openai.APIResponseValidationError),
    ):
        sync.chat.completions.create(**ARGUMENTS)
    assert statuses(meter) == [("reported", 29)]


def test_answers_that_are_asked_for_as_something_else(chat: Provider, meter: Meter) -> None:
    """Whatever an answer is cast to, its usage is read."""
    with client(chat) as sync:
        create: Any = sync.chat.completions.with_raw_response.create
        kinds: list[Any] = [
            str,
            type(create(**ARGUMENTS).http_response),
            ChatCompletion,
            type(None),
        ]
        for kind in kinds:
            sync.post("/chat/completions", cast_to=kind, body=ARGUMENTS)
    assert statuses(meter) == [("reported", 29)] * 5


@pytest.mark.parametrize(
    "path", ["chat/completions", "{base}/chat/completions", "/chat/completions?x=1"]
)
def test_paths_as_the_sdk_takes_them(path: str, chat: Provider, meter: Meter) -> None:
    """A request is known by its path, however it was written."""
    with client(chat) as sync:
        sync.post(path.format(base=chat.url), cast_to=ChatCompletion, body=ARGUMENTS)
    assert statuses(meter) == [("reported", 29)]


def test_a_body_that_a_hook_has_read(provider: Provider, meter: Meter) -> None:
    """A hook that reads every answer, for a log, costs no usage of raw streams."""

    def read(response: Any) -> None:
        response.read()

    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    with client(provider) as sync:
        sync._client.event_hooks = {"response": [read]}  # pyright: ignore[reportPrivateUsage]
        raw = sync.chat.completions.with_raw_response.create(stream=True, **ARGUMENTS)
        assert len(list(raw.parse())) == len(replies.chat_chunks())
    assert statuses(meter) == [("reported", 29)]


# Before, the SDK took no subclasses.
if VERSION >= (1, 26):

    class CountingStream(openai.Stream[Any]):
        """Counts on itself what it hands out."""

        def __stream__(self) -> Iterator[Any]:
            """Count."""
            self.count = 0
            for chunk in super().__stream__():
                self.count += 1
                yield chunk

    class ReplacedStream(openai.Stream[Any]):
        """Hands out something else than chunks, from an iterator of its own."""

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            chunks = self._iterator
            self._iterator = (f"chunk {number}" for number, _ in enumerate(chunks))

    @pytest.mark.parametrize("stream_cls", [CountingStream, ReplacedStream])
    def test_a_stream_class_of_the_applications_own(
        stream_cls: Any, provider: Provider, meter: Meter
    ) -> None:
        """A subclass of the SDK's stream is not touched; what it reads is watched."""
        provider.answer(CHAT, Reply(events=replies.chat_chunks()))
        body = {**ARGUMENTS, "stream": True}
        with client(provider) as sync:
            stream = sync.post(
                "/chat/completions", cast_to=object, body=body, stream=True, stream_cls=stream_cls
            )
            chunks = list(stream)
        expected = len(replies.chat_chunks())
        assert len(chunks) == expected
        assert getattr(stream, "count", expected) == expected
        assert isinstance(chunks[0], str) is (stream_cls is ReplacedStream)
        assert statuses(meter) == [("reported", 29)]


def test_a_response_that_is_used_late(provider: Provider, meter: Meter) -> None:
    """A method that was taken from a response while it was open still works when it is read."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    with client(provider) as sync:
        stream = sync.chat.completions.create(stream=True, **ARGUMENTS)
        response = stream.response
        late = response.iter_bytes
        assert len(list(stream)) == len(replies.chat_chunks())
        with pytest.raises(Exception, match=r"stream|content") as raised:
            list(late())
    assert type(raised.value).__module__.startswith("httpx")
    assert statuses(meter) == [("reported", 29)]


def test_a_response_that_is_pickled(provider: Provider, meter: Meter) -> None:
    """While it is observed a response can be pickled, as an instance of the class that it has for the application."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    with client(provider) as sync:
        stream = sync.chat.completions.create(stream=True, **ARGUMENTS)
        copy = pickle.loads(pickle.dumps(stream.response))  # noqa: S301 - our own
        assert copy.status_code == 200
        list(stream)
        assert type(copy) in type(stream.response).__mro__
    assert len(meter.events()) == 1


def test_numbers_that_no_attribute_can_be(chat: Provider, meter: Meter) -> None:
    """A parameter that is no number of this world costs its attribute alone."""
    with client(chat) as sync:
        sync.chat.completions.create(**ARGUMENTS, temperature=10**400)
    (span,) = meter.spans()
    assert span.name == "chat gpt-4o-mini"
    assert statuses(meter) == [("reported", 29)]


def test_exceptions_that_cannot_be_asked(chat: Provider, meter: Meter) -> None:
    """An exception of the application whose attributes raise ends the call like any other."""

    class Odd(BaseException):
        @property
        def code(self) -> str:
            raise RuntimeError("not now")

    def hook(_: object) -> None:
        raise Odd

    with client(chat) as sync:
        sync._client.event_hooks = {"request": [hook]}  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Odd):
            sync.chat.completions.create(**ARGUMENTS)
    assert statuses(meter) == [("missing", 0)]
    assert len(meter.spans()) == 1
    from cmdrdata_exporter import faults

    assert sum(faults.counts.values()) == 1
    faults.counts.clear()


def test_a_coroutine_that_is_thrown_away(provider: Provider, meter: Meter) -> None:
    """A call whose coroutine nobody finishes ends as cancelled, not in the finalizer but after it."""
    provider.answer(CHAT, Reply(silent=True))
    ended_in: list[str] = []
    record = meter.recorded.record

    def recording(*arguments: Any) -> None:
        ended_in.append(threading.current_thread().name)
        record(*arguments)

    meter.recorded.record = recording  # pyright: ignore[reportAttributeAccessIssue]
    asynchronous = async_client(provider)

    async def begin() -> None:
        create: Any = asynchronous.chat.completions.create
        call = create(**ARGUMENTS)
        waiting = call.__await__()
        next(waiting)
        waiting.close()

    asyncio.run(begin())
    gc.collect()
    meter.recorded.wait_for(1)
    provider.release()
    assert ended_in == ["cmdrdata-reaper"]
    (event,) = meter.events()
    assert (event["error"]["type"], event["metadata"]["usage_status"]) == ("cancelled", "missing")


def test_a_thread_that_cannot_be_started(
    provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no thread can be started now, the next stream tries again."""
    from cmdrdata_exporter import faults

    def none(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(open_calls, "_reaper_of", None)
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    with client(provider) as sync:
        with monkeypatch.context() as patch:
            patch.setattr(_thread, "start_new_thread", none)
            list(sync.chat.completions.create(stream=True, **ARGUMENTS))
        assert len(faults.counts) == 1
        faults.counts.clear()
        sync.chat.completions.create(stream=True, **ARGUMENTS)
        gc.collect()
        meter.recorded.wait_for(2)
    assert statuses(meter) == [("reported", 29), ("partial", 0)]


def test_an_exit_while_a_call_is_being_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit waits for the end of a dropped call that is under way."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    class Slow:
        def end(self, error: BaseException | None = None, *, cut: bool = False) -> None:
            begun.set()
            assert go_on.wait(10)
            ended.set()

    monkeypatch.setattr(open_calls, "_reaper_of", None)
    monkeypatch.setattr(open_calls, "_dropped", None)
    open_calls.start_reaper()
    open_calls.dropped(Slow())
    assert begun.wait(10)
    exit_thread = threading.Thread(
        target=lambda: (open_calls.end_all(), order.append(ended.is_set()))
    )
    order: list[bool] = []
    exit_thread.start()
    go_on.set()
    exit_thread.join(10)
    assert order == [True]
