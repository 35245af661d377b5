"""
A signal handler that raises in the middle of our code: its exception comes out once, and the call is billed once.

Python runs a handler between any two instructions of the main thread, so each of ours is tried in turn: a trace
function sends the signal there.
"""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import openai
import opentelemetry.context
import pytest
from openai.resources.chat.completions import Completions
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import cmdrdata_exporter
import opentelemetry_instrumentation_cmdrdata
from cmdrdata_exporter import CmdrDataSpanExporter, customer_context
from cmdrdata_exporter.delivery import Event
from cmdrdata_exporter.delivery.drainer import Options
from cmdrdata_exporter.delivery.durable import DurableDelivery
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.frames import scan
from cmdrdata_exporter.delivery.spool.records import decode
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, open_calls, random_ids
from tests import replies
from tests.charges import MESSAGES
from tests.provider import Provider, Reply
from tests.sdk import VERSION, client

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES, "customer_id": "acme"}
OURS = tuple(
    str(Path(package.__file__ or "").parent)
    for package in (cmdrdata_exporter, opentelemetry_instrumentation_cmdrdata)
)


class SoftTimeLimit(Exception):  # noqa: N818 - named as Celery's
    """What the handler of a task queue raises."""


class Host:
    """
    A delivery to a journal that nobody drains, and the calls that are recorded in it.

    Args:
        spool: where the journal is.
    """

    def __init__(self, spool: Path) -> None:
        self._directory = Directory.prepare(spool, None, "default")
        self.delivery = DurableDelivery(self._directory, Options(post=None))
        self.delivery.drainer.running = True  # No thread of it disturbs the count.
        self._read: dict[Path, int] = {}

    def events(self) -> list[dict[str, Any]]:
        """Return the events that were recorded since this was asked last."""
        found: list[dict[str, Any]] = []
        for path in self._directory.journals():
            data = path.read_bytes()
            records = scan(data[self._read.get(path, 0) :], final=True)
            assert [] == records.damaged
            self._read[path] = len(data)
            for record in records.records:
                event = decode(record)
                assert isinstance(event, Event)
                found.append(json.loads(event.body))
        return found


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose calls are metered."""
    host = Host(tmp_path / "spool")
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(exporter=CmdrDataSpanExporter(delivery=host.delivery))
    yield host
    instrumentor.uninstrument()
    host.delivery.drainer.running = False


class Interruption:
    """
    Sends a signal before one of our instructions, whose handler raises.

    Args:
        number: which of those that are executed, from 0 on.
        opcodes: whether each bytecode counts, or each line.
    """

    def __init__(self, number: int, *, opcodes: bool) -> None:
        self._left = number
        self._opcodes = opcodes
        self.place: tuple[CodeType, int | None] | None = None
        """Where it was sent, once it was."""

    def __enter__(self) -> None:
        # Python 3.12 tells of bytecodes only if a frame had asked for it before.
        sys._getframe().f_trace_opcodes = self._opcodes
        # Coverage is measured in the same way.
        self._before = sys.gettrace()
        sys.settrace(self._enter)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _enter(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = self._opcodes
        return self._step

    def _step(self, frame: FrameType, event: str, _: object) -> Any:
        # Without a line it is what a generator does when it goes, where Python looks for no signal.
        due = event == ("opcode" if self._opcodes else "line") and frame.f_lineno is not None
        if due and self.place is None:
            self._left -= 1
            if self._left < 0:
                self.place = frame.f_code, frame.f_lineno
                signal.raise_signal(signal.SIGUSR2)
        return self._step


@pytest.fixture
def handler() -> Iterator[Callable[[BaseException], None]]:
    """Have the handler of the signal raise an exception."""
    before = signal.getsignal(signal.SIGUSR2)

    def install(error: BaseException) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            raise error.with_traceback(None)

        signal.signal(signal.SIGUSR2, handle)

    yield install
    signal.signal(signal.SIGUSR2, before)


def _chat(sync: openai.OpenAI) -> None:
    sync.chat.completions.create(**ARGUMENTS)


def _raw(sync: openai.OpenAI) -> None:
    sync.chat.completions.with_raw_response.create(**ARGUMENTS)


def _stream(sync: openai.OpenAI) -> None:
    list(sync.chat.completions.create(stream=True, **ARGUMENTS))


def _bytes(sync: openai.OpenAI) -> None:
    completions: Any = sync.chat.completions
    with completions.with_streaming_response.create(**ARGUMENTS) as response:
        b"".join(response.iter_bytes())


def _refused(sync: openai.OpenAI) -> None:
    with contextlib.suppress(openai.BadRequestError):
        sync.chat.completions.create(**ARGUMENTS)


SHAPES: dict[str, tuple[Callable[[openai.OpenAI], None], Reply]] = {
    "chat": (_chat, Reply(json=replies.CHAT)),
    "raw": (_raw, Reply(json=replies.CHAT)),
    "stream": (_stream, Reply(events=replies.chat_chunks())),
    "bytes": (_bytes, Reply(json=replies.CHAT)),
    "refused": (_refused, Reply(status=400, json={"error": {"message": "no", "code": "x"}})),
}


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        *(
            (shape, SoftTimeLimit())
            for shape in SHAPES
            if shape != "bytes" or hasattr(Completions, "with_streaming_response")
        ),
        # A kind of OSError, which much of our code expects, and no kind of Exception.
        *(("chat", error) for error in (TimeoutError(), KeyboardInterrupt())),
    ],
    ids=repr,
)
@pytest.mark.timeout(300)
def test_at_every_line(  # noqa: PLR0917 - fixtures
    shape: str,
    error: BaseException,
    provider: Provider,
    host: Host,
    handler: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exception comes out once, and the call is billed once, with what the provider reported."""
    steps = interrupted_everywhere(
        shape, error, provider, host, handler, monkeypatch, opcodes=False
    )
    assert steps > 100


@pytest.mark.long
def test_at_every_instruction(
    provider: Provider,
    host: Host,
    handler: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor is anything lost or billed twice between two bytecodes of a line."""
    steps = interrupted_everywhere(
        "chat", SoftTimeLimit(), provider, host, handler, monkeypatch, opcodes=True
    )
    assert steps > 1000


def test_where_the_span_of_a_call_is_current(
    provider: Provider,
    host: Host,
    handler: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So it is in OpenTelemetry's functions that we call for that, which drop what is raised in some of them."""
    instrumentor = CmdrDataInstrumentor()
    instrumentor.uninstrument()
    exporter = CmdrDataSpanExporter(delivery=host.delivery)
    instrumentor.instrument(tracer_provider=TracerProvider(), exporter=exporter)
    package = str(Path(opentelemetry.context.__file__).parent)
    monkeypatch.setattr(sys.modules[__name__], "OURS", (package,))
    steps = interrupted_everywhere(
        "chat", SoftTimeLimit(), provider, host, handler, monkeypatch, opcodes=False
    )
    assert steps > 5


def interrupted_everywhere(  # noqa: PLR0917 - what the tests have
    shape: str,
    error: BaseException,
    provider: Provider,
    host: Host,
    handler: Callable[[BaseException], None],
    monkeypatch: pytest.MonkeyPatch,
    *,
    opcodes: bool,
) -> int:
    """
    Make a call again and again, each time interrupted one step later; return at how many.

    Python itself swallows, with a word to `sys.unraisablehook`, what is raised while it closes a generator that was
    left: the SDK leaves that of an answer's bytes once it has read `[DONE]`.
    """
    run, reply = SHAPES[shape]
    swallowed: list[BaseException | None] = []

    def note(found: sys.UnraisableHookArgs) -> None:
        swallowed.append(found.exc_value)

    monkeypatch.setattr(sys, "unraisablehook", note)
    # Each id is fetched alone: a step is the same one each time.
    monkeypatch.setattr(random_ids, "BATCH", 1)
    monkeypatch.setattr(random_ids.random_ids, "_pid", None)  # It forgets those of before.
    provider.answer(CHAT, reply)
    handler(error)
    wrong: list[str] = []
    with contextlib.ExitStack() as clients:
        sync = clients.enter_context(client(provider))
        run(sync)
        (whole,) = host.events()
        reported = whole["metadata"]["usage_status"], whole["total_tokens"]
        number = 0
        arrived = False  # Whether the step is later than one at which the usage was known.
        while True:
            before = len(provider.requests)
            interruption = Interruption(number, opcodes=opcodes)
            raised: BaseException | None = None
            gc.disable()
            try:
                with interruption:
                    run(sync)
            except type(error) as caught:
                raised = caught
            finally:
                gc.enable()
            came_out = raised is error or swallowed == [error]
            swallowed.clear()
            error.__traceback__ = error.__context__ = raised = None
            if interruption.place is None:
                break
            code, line = interruption.place
            place = f"{number}: {Path(code.co_filename).name}:{line} {code.co_name}"
            open_calls.end_all()  # What was dropped before its end is ended by another thread.
            found = host.events()
            requests = len(provider.requests) - before
            if not came_out:
                wrong.append(f"{place}: lost")
            if len(found) != requests and not (requests == 0 and len(found) == 1):
                wrong.append(f"{place}: {len(found)} events of {requests} requests")
            for event in found[:requests]:
                told = event["metadata"]["usage_status"], event["total_tokens"]
                if told == reported:
                    arrived = True
                # In how many parts an answer comes that is read in parts is not the same each time.
                elif (arrived and shape not in ("stream", "bytes")) or told not in (
                    ("missing", 0),
                    ("partial", 0),
                ):
                    wrong.append(f"{place}: {told}")
            number += 1
            if number % 50 == 0:
                # The older HTTP client keeps the connection of an answer that was left, and has a hundred.
                sync = clients.enter_context(client(provider))
                run(sync)  # What is found out about a client is found once.
                host.events()
    assert [] == wrong, "\n".join(wrong)
    return number


if VERSION >= (3, 57):
    from tests.connections import LIVE_SESSION, answer, completed, created, used
    from tests.test_websocket_sessions import done
    from tests.websocket import Session, Standin

    def _of_realtime(number: int) -> list[Any]:
        return [created(f"resp_{number}"), done(f"resp_{number}")]

    def _of_responses(number: int) -> list[Any]:
        begun = answer("created", f"resp_{number}", status="in_progress")
        return [begun, completed(f"resp_{number}")]

    def _of_live(number: int) -> list[Any]:
        session = {**LIVE_SESSION, "id": f"live_{number}"}
        begun: Any = {"type": "session.started", "event_id": "e", "session": session}
        return [begun, used(3), {**used(21), "type": "session.closed", "reason": "expired"}]

    def _raises(error: BaseException, connection: Any, frame: str) -> bool:
        try:
            connection.parse_event(frame)
        except type(error):
            return True
        return False

    @pytest.mark.parametrize(
        ("name", "frames_of", "customer", "units"),
        [
            ("realtime", _of_realtime, "zeta", 120),
            ("responses", _of_responses, "zeta", 35),
            ("live", _of_live, "acme", 21),
        ],
    )
    @pytest.mark.parametrize("error", [SoftTimeLimit(), KeyboardInterrupt()], ids=repr)
    @pytest.mark.timeout(300)
    def test_frames_at_every_line(  # noqa: PLR0917 - fixtures
        name: str,
        frames_of: Callable[[int], list[Any]],
        customer: str,
        units: int,
        error: BaseException,
        host: Host,
        handler: Callable[[BaseException], None],
    ) -> None:
        """
        The exception comes out once, and what the frames tell is billed once, to who asked for it.

        No span of ours stays the current one, of which all later ones would be a part.
        """
        handler(error)
        wrong: list[str] = []
        arguments: Any = {"model": "m"} if name == "realtime" else {}
        with (
            Standin([Session([])]) as standin,
            openai.OpenAI(api_key="sk-test", websocket_base_url=standin.url) as sdk,
            customer_context("acme"),
            getattr(sdk, name).connect(**arguments) as connection,
        ):
            number = 0
            while True:
                if name != "live":
                    with customer_context("zeta"):
                        connection.send({"type": "response.create"})
                frames = [json.dumps(frame) for frame in frames_of(number)]
                interruption = Interruption(number, opcodes=False)
                with interruption:
                    raised = sum(_raises(error, connection, frame) for frame in frames)
                error.__traceback__ = error.__context__ = None
                assert not trace.get_current_span().get_span_context().is_valid
                if interruption.place is None:
                    break
                open_calls.end_dropped()
                code, line = interruption.place
                found = [
                    (
                        event["metadata"]["usage_status"],
                        event["total_tokens"] or event["metadata"]["usage"].get("session_seconds"),
                        event["customer_id"],
                    )
                    for event in host.events()
                ]
                # In its first line nothing has been parsed: the SDK has lost that frame, too.
                first = code.co_name == "parse_event" and line == code.co_firstlineno + 1
                if (raised, found) != (1, [("reported", units, customer)]) and not first:
                    wrong.append(f"{number}: {code.co_name}:{line} {raised} {found}")
                if first:
                    connection.parse_event(frames[-1])  # For the next one to find all in order.
                    host.events()
                number += 1
                assert number < 2000
        assert [] == wrong, "\n".join(wrong)
        assert number > 200
