"""Who pays for what happens on a WebSocket connection, and what others see of it: once each, whoever shows it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any, cast

import openai
import pytest
from opentelemetry.sdk.trace import TracerProvider
from websockets.exceptions import InvalidStatus

from cmdrdata_exporter import (
    CmdrDataSpanExporter,
    customer_context,
    faults,
    metadata_context,
)
from opentelemetry_instrumentation_cmdrdata import (
    CmdrDataInstrumentor,
    TrackedOpenAI,
    bind_customer,
    jobs,
    shared,
)
from opentelemetry_instrumentation_cmdrdata.openai.websockets import connections
from opentelemetry_instrumentation_cmdrdata.openai.websockets import session as sessions
from tests.connections import (
    LIVE_SESSION,
    REALTIME,
    REALTIME_SESSION,
    RESPONSES,
    answer,
    completed,
    created,
    used,
)
from tests.metering import Meter, RecordedEvents
from tests.sdk import VERSION
from tests.websocket import Await, Frame, Session, Standin, drop


def done(response_id: str, tokens: int = 100, **fields: Any) -> Frame:
    """Return the frame with which a response of the Realtime API ends."""
    usage = {"input_tokens": tokens, "output_tokens": 20, "total_tokens": tokens + 20}
    response: dict[str, Any] = {
        "id": response_id,
        "status": "completed",
        "output": [],
        "usage": usage,
        **fields,
    }
    return {"type": "response.done", "event_id": "event_1", "response": response}


def told(meter: Meter, *keys: str) -> list[tuple[Any, ...]]:
    """Return of each event what stands under these keys, be it in its metadata."""
    return [
        tuple(event.get(key, event["metadata"].get(key)) for key in keys)
        for event in meter.recorded.wire
    ]


@pytest.fixture
def standin() -> Iterator[Standin]:
    """The provider."""
    with Standin() as running:
        yield running


def client(standin: Standin, **options: Any) -> Any:
    """Return a client of the provider."""
    return openai.OpenAI(api_key="sk-test", websocket_base_url=standin.url, **options)


def read(connection: Any, number: int) -> list[Any]:
    """Receive so many frames."""
    return [connection.recv() for _ in range(number)]


if VERSION >= (2, 54):

    def test_who_pays(standin: Standin, meter: Meter) -> None:
        """A response is paid by the context that it was asked for in, where that is another than the connection's."""
        asked = [Await("response.create"), created("resp_1"), done("resp_1")]
        by_itself = [created("resp_2"), done("resp_2")]
        again = [Await("response.create"), created("resp_3"), done("resp_3")]
        standin.sessions = [Session([*asked, *by_itself, *again])]
        with (
            customer_context("acme", plan="pro"),
            client(standin) as sdk,
            sdk.realtime.connect(model="gpt-realtime", usage_metadata={"call": 7}) as connection,
        ):
            with customer_context("zeta"):
                connection.response.create()
            with customer_context("nobody asked"):
                read(connection, 4)
            connection.send({"type": "response.create"})
            read(connection, 2)
        assert told(meter, "response_id", "customer_id", "plan", "call") == [
            ("resp_1", "zeta", None, 7),
            ("resp_2", "acme", "pro", 7),
            ("resp_3", "acme", "pro", 7),
        ]

    @pytest.mark.parametrize("world", ["sync", "async"])
    def test_what_was_asked_for_before_there_was_a_connection(
        world: str, standin: Standin, meter: Meter
    ) -> None:
        """What a manager is given to send is paid by the context in which it was given."""
        standin.sessions = [Session([Await("response.create"), created("resp_1"), done("resp_1")])]
        options: Any = {"api_key": "sk-test", "websocket_base_url": standin.url}

        def manager_of(sdk: Any) -> Any:
            manager = sdk.realtime.connect(model="gpt-realtime")
            with customer_context("zeta"):
                manager.send({"type": "response.create"})
            return manager

        async def run() -> None:
            async with openai.AsyncOpenAI(**options) as sdk, manager_of(sdk) as connection:
                for _ in range(2):
                    await connection.recv()

        with customer_context("acme"):
            if world == "async":
                asyncio.run(run())
            else:
                with openai.OpenAI(**options) as sdk, manager_of(sdk) as connection:
                    read(connection, 2)
        assert told(meter, "response_id", "customer_id") == [("resp_1", "zeta")]

    def test_keywords(standin: Standin, meter: Meter) -> None:
        """The keywords of `connect` prevail over the client's customer, that over the context; none is sent."""
        standin.sessions = [Session([created(f"resp_{n}"), done(f"resp_{n}")]) for n in range(5)]
        with customer_context("context"), client(standin) as sdk:
            bound = bind_customer(sdk, "client", plan="pro")
            for one, keywords in (
                (sdk, {}),
                (bound, {}),
                (bound, {"customer_id": "call", "usage_metadata": {"a": 1}}),
                (sdk, {"track_usage": False}),
                (sdk, {"extra_headers": {"X-Theirs": "1"}, "customer_id": "call"}),
            ):
                arguments: Any = keywords
                with one.realtime.connect(model="m", **arguments) as connection:
                    read(connection, 2)
        assert told(meter, "response_id", "customer_id", "plan", "a") == [
            ("resp_0", "context", None, None),
            ("resp_1", "client", "pro", None),
            ("resp_2", "call", None, 1),
            ("resp_4", "call", None, None),
        ]
        names = {name.lower() for headers in standin.headers for name in headers}
        assert not [name for name in names if "cmdrdata" in name]
        assert standin.headers[4]["X-Theirs"] == "1"

    def test_responses_are_related_by_metadata(standin: Standin, meter: Meter) -> None:
        """A request with metadata is answered by the response that has it, in whichever order they come."""
        frames = [
            created("resp_1"),
            {**created("resp_2"), "response": {"id": "resp_2", "metadata": {"for": "b"}}},
            {**created("resp_3"), "response": {"id": "resp_3", "metadata": {"for": "a"}}},
        ]
        standin.sessions = [Session([Await("response.create")] * 2 + frames)]
        with (
            customer_context("acme"),
            client(standin) as sdk,
            sdk.realtime.connect(model="m") as connection,
        ):
            for name in ("a", "b"):
                with customer_context(name):
                    connection.response.create(response={"metadata": {"for": name}})
            read(connection, 3)
        assert sorted(told(meter, "response_id", "customer_id", "usage_status")) == [
            ("resp_1", "acme", "partial"),
            ("resp_2", "b", "partial"),
            ("resp_3", "a", "partial"),
        ]

    def test_a_refused_request(standin: Standin, meter: Meter) -> None:
        """What the provider refuses is an event without a charge, and takes no other response's place."""
        error = {
            "type": "invalid_request_error",
            "code": "bad",
            "message": "no",
            "event_id": "ev_1",
        }
        steps = [
            Await("response.create"),
            {"type": "error", "event_id": "event_0", "error": error},
            Await("response.create"),
            created("resp_1"),
            done("resp_1"),
        ]
        standin.sessions = [Session(steps)]
        with (
            customer_context("acme"),
            client(standin) as sdk,
            sdk.realtime.connect(model="m") as connection,
        ):
            with customer_context("zeta"):
                connection.response.create(event_id="ev_1")
            read(connection, 1)
            connection.response.create(event_id="ev_2")
            read(connection, 2)
        assert told(meter, "customer_id", "usage_status", "response_id") == [
            ("zeta", "not_applicable", None),
            ("acme", "reported", "resp_1"),
        ]
        assert meter.recorded.wire[0]["error"] == {
            "occurred": True,
            "type": "unknown_error",
            "code": "bad",
            "message": "no",
        }

    def test_a_refused_connection(standin: Standin, meter: Meter) -> None:
        """What was never made is a span that failed, and costs nothing."""
        standin.refuses = 403
        with client(standin) as sdk, pytest.raises(InvalidStatus):
            sdk.realtime.connect(model="m").enter()
        (span,) = meter.spans()
        assert (span.name, span.status.is_unset) == ("realtime.connect m", False)
        assert (span.attributes or {})["error.type"] == "websockets.exceptions.InvalidStatus"
        assert meter.events() == []

    def test_a_frame_that_cannot_be_parsed(standin: Standin, meter: Meter) -> None:
        """It raises what the SDK raises, and what follows is metered."""
        standin.sessions = [Session([created("resp_1"), done("resp_1")])]
        with client(standin) as sdk, sdk.realtime.connect(model="m") as connection:
            with pytest.raises(json.JSONDecodeError):
                connection.parse_event(b"no JSON")
            assert connection.parse_event(b"[1]") == [1]
            assert connection.parse_event(b'{"type": ["odd"]}') is not None
            connection.parse_event(b'{"type": "response.done"}')
            connection.parse_event(b'{"type": "error", "error": 7}')
            read(connection, 2)
        assert [one for one in told(meter, "response_id", "usage_status") if one[0]] == [
            ("resp_1", "reported")
        ]

    def test_a_fault_of_ours(
        standin: Standin, meter: Meter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is counted, and the application gets its frames."""

        def broken(*_: object) -> None:
            raise ValueError("ours")

        row = connections.BY_NAME["realtime"]
        monkeypatch.setitem(row.frames, "response.created", broken)  # pyright: ignore[reportArgumentType] - it is a dict
        standin.sessions = [Session([created("resp_1"), done("resp_1")])]
        with client(standin) as sdk, sdk.realtime.connect(model="m") as connection:
            assert [frame.type for frame in read(connection, 2)] == [
                "response.created",
                "response.done",
            ]
        assert sum(faults.counts.values()) == 1
        faults.counts.clear()
        assert told(meter, "response_id", "usage_status") == [("resp_1", "reported")]

    class Alarm(Exception):  # noqa: N818 - no error
        """What a signal handler raises."""

    @pytest.mark.parametrize("at", ["before", "after"])
    def test_an_interruption(
        at: str, standin: Standin, meter: Meter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a signal handler raises while a frame is observed comes out once, and the response is billed once."""
        row = connections.BY_NAME["realtime"]
        observe, raised = row.frames["response.done"], [KeyboardInterrupt()]

        def interrupted(session: Any, frame: object) -> None:
            if at == "after":
                observe(session, frame)
            if raised:
                raise raised.pop()
            observe(session, frame)

        monkeypatch.setitem(row.frames, "response.done", interrupted)  # pyright: ignore[reportArgumentType] - it is a dict
        standin.sessions = [Session([created("resp_1"), done("resp_1")])]
        with client(standin) as sdk, sdk.realtime.connect(model="m") as connection:
            connection.recv()
            with pytest.raises(KeyboardInterrupt):
                connection.recv()
        assert told(meter, "response_id", "usage_status") == [("resp_1", "reported")]

    def reconnecting(_: object) -> Any:
        """Have the SDK connect anew."""
        return {}

    @pytest.mark.parametrize("world", ["sync", "async"])
    def test_the_sdk_connects_anew(world: str, standin: Standin, meter: Meter) -> None:
        """What was under way is lost with the first connection, and what was billed is not billed again."""
        second = {
            **REALTIME_SESSION,
            "session": {"type": "realtime", "id": "sess_2", "model": "m2"},
        }
        standin.sessions = [
            Session([REALTIME_SESSION, created("resp_1"), done("resp_1"), created("resp_2")], drop),
            Session([second, done("resp_1"), created("resp_3"), done("resp_3")]),
        ]
        options: Any = {"on_reconnecting": reconnecting, "initial_delay": 0.001}

        def collect(frames: Iterator[Any]) -> list[str]:
            return [next(frames).type for _ in range(8)]

        if world == "sync":
            with client(standin) as sdk, sdk.realtime.connect(model="m", **options) as one:
                collect(iter(one))
        else:

            async def run() -> None:
                async with (
                    openai.AsyncOpenAI(api_key="k", websocket_base_url=standin.url) as sdk,
                    sdk.realtime.connect(model="m", **options) as connection,
                ):
                    frames = connection.__aiter__()
                    for _ in range(8):
                        await frames.__anext__()

            asyncio.run(run())
        assert told(meter, "response_id", "usage_status", "session_id", "model") == [
            ("resp_1", "reported", "sess_1", "gpt-realtime-2025-08-28"),
            ("resp_2", "partial", "sess_1", "gpt-realtime-2025-08-28"),
            ("resp_3", "reported", "sess_2", "m2"),
        ]
        assert [span.name for span in meter.spans()].count("realtime.connect m") == 1

    def test_the_application_connects_anew(standin: Standin, meter: Meter) -> None:
        """What another connection of this process has billed is not billed again."""
        frames = [REALTIME_SESSION, created("resp_1"), done("resp_1")]
        standin.sessions = [Session(frames)]
        with client(standin) as sdk:
            for _ in range(2):
                with sdk.realtime.connect(model="m") as connection:
                    read(connection, 3)
        assert told(meter, "response_id", "usage_status") == [("resp_1", "reported")]

    def test_two_processes(standin: Standin, meter: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two processes that see the same response, transcript or session make the same event."""
        standin.sessions = [Session(REALTIME.frames)]
        ids: list[list[str]] = []
        for _ in range(2):
            monkeypatch.setattr(shared, "parts", shared.Parts())
            with client(standin) as sdk, sdk.realtime.connect(model="m") as connection:
                read(connection, len(REALTIME.frames))
            ids.append(list(meter.recorded.bodies))
            meter.recorded.bodies.clear()
        assert ids[0] == ids[1]
        assert len(set(ids[0])) == 4
        assert {header.remember for header in meter.recorded.headers} == {shared.REMEMBERED}

    def test_responses_of_the_responses_api(standin: Standin, meter: Meter) -> None:
        """They are what they are over HTTP: only their own connection shows them, so that their ids are random."""
        standin.sessions = [Session([*RESPONSES.frames, completed()])]
        for _ in range(2):
            with client(standin) as sdk, sdk.responses.connect() as connection:
                read(connection, len(RESPONSES.frames) + 1)
        assert [one for (one,) in told(meter, "response_id")] == ["resp_1", "resp_2"] * 2

    def test_a_background_response(standin: Standin, meter: Meter) -> None:
        """It is a job, billed once under the job's own id, whoever shows its end."""
        steps = [
            answer("created", status="queued", background=True),
            completed(background=True),
        ]
        standin.sessions = [Session(steps)]
        for _ in range(2):
            with client(standin) as sdk, sdk.responses.connect() as connection:
                read(connection, 2)
        assert list(meter.recorded.bodies) == [jobs.Key("127.0.0.1", "resp_1").event_id("")]

    def test_an_error_of_the_responses_api(standin: Standin, meter: Meter) -> None:
        """It ends the response of its lane; where there is none it refuses what was asked for there."""
        error: Any = {
            "type": "error",
            "error": {"type": "server_error", "code": "oops", "message": "m"},
        }
        steps = [
            Await("response.create"),
            error,
            Await("response.create"),
            answer("created", "resp_2", status="in_progress"),
            error,
            answer("created", "resp_3", status="in_progress"),
            completed("resp_3"),
        ]
        standin.sessions = [Session(steps)]
        with client(standin) as sdk, sdk.responses.connect() as connection:
            connection.response.create(model="gpt-5-mini")
            read(connection, 1)
            connection.response.create(model="gpt-5-mini")
            read(connection, 4)
        assert told(meter, "response_id", "usage_status", "request_model") == [
            (None, "not_applicable", "gpt-5-mini"),
            ("resp_2", "partial", "gpt-5-mini"),
            ("resp_3", "reported", "gpt-5-mini-2025-08-07"),
        ]
        assert [event["error"]["code"] for event in meter.recorded.wire] == ["oops", "oops", None]

    def test_an_open_background_response_is_kept(standin: Standin, meter: Meter) -> None:
        """As soon as its id is told it outlives this process, whatever becomes of the connection."""
        standin.sessions = [Session([answer("created", status="queued", background=True)])]
        with (
            customer_context("acme"),
            client(standin) as sdk,
            sdk.responses.connect() as connection,
        ):
            read(connection, 1)
            [kept] = meter.recorded.open_jobs()
        assert (kept.job_id, kept.path, kept.payer) == (
            "resp_1",
            "/responses/resp_1",
            {"cmdrdata.customer.id": "acme"},
        )
        assert meter.events() == []

    def test_an_error_about_what_was_sent_meanwhile(standin: Standin, meter: Meter) -> None:
        """It ends no response that goes on: an error of a response's own stream has a number in it."""
        error: Any = {"type": "invalid_request_error", "code": "bad", "message": "m"}
        of_request = {"type": "error", "status": 400, "error": error}
        of_stream = {"type": "error", "sequence_number": 7, "error": error}
        steps = [
            Await("response.create"),
            answer("created", status="in_progress"),
            of_request,
            Await("response.create"),
            of_request,
            completed(),
            answer("created", "resp_2", status="in_progress"),
            of_stream,
        ]
        standin.sessions = [Session(steps)]
        with client(standin) as sdk, sdk.responses.connect() as connection:
            connection.response.create(model="one")
            read(connection, 2)
            connection.response.create(model="two")
            read(connection, 4)
        assert told(meter, "response_id", "usage_status", "total_tokens", "request_model") == [
            (None, "not_applicable", 0, "two"),
            ("resp_1", "reported", 35, "one"),
            ("resp_2", "partial", 0, "gpt-5-mini-2025-08-07"),
        ]

    def test_a_response_that_goes_on_by_itself(standin: Standin, meter: Meter) -> None:
        """Who asked for a response pays for its successors, which the provider begins where it was steered."""
        steps = [
            Await("response.create"),
            answer("created", "resp_1", status="in_progress"),
            completed("resp_1"),
            answer("created", "resp_2", status="in_progress", previous_response_id="resp_1"),
            completed("resp_2", previous_response_id="resp_1"),
            answer("created", "resp_3", status="in_progress", previous_response_id="resp_2"),
            completed("resp_3", previous_response_id="resp_2"),
            answer("created", "resp_4", status="in_progress", previous_response_id="unknown"),
            completed("resp_4", previous_response_id="unknown"),
        ]
        standin.sessions = [Session(steps)]
        with (
            customer_context("acme"),
            client(standin) as sdk,
            sdk.responses.connect() as connection,
        ):
            with customer_context("zeta"):
                connection.response.create(model="gpt-5-mini")
            read(connection, 8)
        assert told(meter, "response_id", "customer_id") == [
            ("resp_1", "zeta"),
            ("resp_2", "zeta"),
            ("resp_3", "zeta"),
            ("resp_4", "acme"),
        ]

    def test_zeros_at_the_beginning(standin: Standin, meter: Meter) -> None:
        """What a server tells before anything was used is not the usage of a response that was cut."""
        zeros = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
        standin.sessions = [Session([answer("created", status="in_progress", usage=zeros)], drop)]
        with client(standin) as sdk, sdk.responses.connect() as connection:
            read(connection, 1)
        assert told(meter, "usage_status") == [("partial",)]

    def test_servers_that_tell_no_ids(standin: Standin, meter: Meter) -> None:
        """Each response and each transcript is billed; only what has an id is known when it comes again."""
        nameless: Any = {"type": "response.done", "response": {"usage": {"input_tokens": 5}}}
        heard: Any = {
            "type": "conversation.item.input_audio_transcription.completed",
            "usage": {"type": "duration", "seconds": 2},
        }
        standin.sessions = [Session([nameless, heard] * 2)]
        with client(standin) as sdk, sdk.realtime.connect(model="m") as connection:
            read(connection, 4)
        assert (
            told(meter, "endpoint", "input_tokens")
            == [
                ("realtime", 5),
                ("realtime.transcription", 0),
            ]
            * 2
        )

    def test_metadata_of_contexts(standin: Standin, meter: Meter) -> None:
        """What is asked for in a metadata context has that metadata, whoever pays."""
        steps: list[Any] = []
        for number in range(4):
            steps += [Await("response.create"), done(f"resp_{number}")]
        standin.sessions = [Session(steps)]
        with (
            customer_context("acme", plan="pro"),
            metadata_context({"team": "core"}),
            client(standin) as sdk,
            sdk.realtime.connect(model="m", usage_metadata={"call": 7}) as connection,
        ):
            connection.response.create()
            read(connection, 1)
            with metadata_context({"team": "web", "call": 8}):
                connection.response.create()
            read(connection, 1)
            with customer_context("zeta"):
                connection.response.create()
                read(connection, 1)
                with metadata_context({"team": "web"}):
                    connection.response.create()
            read(connection, 1)
        assert told(meter, "customer_id", "plan", "team", "call") == [
            ("acme", "pro", "core", 7),
            ("acme", "pro", "web", 7),
            ("zeta", None, "core", 7),
            ("zeta", None, "web", 7),
        ]

    def test_what_was_asked_for_on_a_lost_connection(standin: Standin, meter: Meter) -> None:
        """It is answered no more: who asked for it pays for nothing that the next session begins by itself."""
        second = {**REALTIME_SESSION, "session": {"id": "sess_2", "model": "m2"}}
        standin.sessions = [
            Session([REALTIME_SESSION, Await("response.create")], drop),
            Session([second, done("resp_1"), Await("response.create"), done("resp_2")]),
        ]
        options: Any = {"on_reconnecting": reconnecting, "initial_delay": 0.001}
        with (
            customer_context("acme"),
            client(standin) as sdk,
            sdk.realtime.connect(model="m", **options) as connection,
        ):
            frames = iter(connection)
            next(frames)
            with customer_context("zeta"):
                connection.response.create()
            next(frames)
            next(frames)
            with customer_context("beta"):
                connection.response.create()
            next(frames)
        assert told(meter, "response_id", "customer_id") == [
            ("resp_1", "acme"),
            ("resp_2", "beta"),
        ]

    def test_responses_that_never_end(
        standin: Standin, meter: Meter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory is bounded: of many that began the oldest is cut, and what ends all the same is billed."""
        monkeypatch.setattr(sessions, "MOST_OPEN", 2)
        standin.sessions = [Session([*(created(f"resp_{n}") for n in range(4)), done("resp_3")])]
        with client(standin) as sdk, sdk.realtime.connect(model="m") as connection:
            read(connection, 5)
            assert told(meter, "response_id", "usage_status") == [
                ("resp_0", "partial"),
                ("resp_1", "partial"),
                ("resp_3", "reported"),
            ]
        assert told(meter, "response_id", "usage_status")[3:] == [("resp_2", "partial")]

    def test_two_threads_that_see_a_part_at_once() -> None:
        """A part has one call, however many connections are told of it at the same time."""
        parts = shared.Parts()
        identity = shared.Identity("host", "live", "live_1")
        begins, goes_on = threading.Event(), threading.Event()
        calls: list[Any] = []

        class Begun:
            has_ended = False

        def begin() -> Any:
            begins.set()
            assert goes_on.wait(10)
            return Begun()

        def join() -> None:
            calls.append(parts.join(identity, begin))

        first = threading.Thread(target=join)
        first.start()
        assert begins.wait(10)
        second = threading.Thread(target=join)
        second.start()
        goes_on.set()
        first.join()
        second.join()
        assert calls[0] is calls[1]
        assert parts.leave(identity, calls[0], is_whole=False)
        assert not parts.leave(identity, calls[0], is_whole=False)

    def test_a_response_that_is_lost(standin: Standin, meter: Meter) -> None:
        """A lane has one response at a time: where another begins, the end of the first one was lost."""
        steps = [answer("created", f"resp_{n}", status="in_progress") for n in (1, 2)]
        standin.sessions = [Session([*steps, completed("resp_2")])]
        with client(standin) as sdk, sdk.responses.connect() as connection:
            read(connection, 2)
            assert told(meter, "response_id", "usage_status") == [("resp_1", "partial")]
            read(connection, 1)
        assert told(meter, "response_id", "usage_status")[1:] == [("resp_2", "reported")]

    def test_bytes_are_not_seen(standin: Standin, meter: Meter) -> None:
        """What the application receives as bytes is metered when it has them parsed, and not before."""
        standin.sessions = [Session([created("resp_1"), done("resp_1")])]
        with client(standin) as sdk, sdk.realtime.connect(model="m") as connection:
            first, second = connection.recv_bytes(), connection.recv_bytes()
            assert meter.events() == []
            connection.parse_event(first)
            connection.parse_event(second)
            assert told(meter, "response_id", "usage_status") == [("resp_1", "reported")]

    def test_uninstrument(standin: Standin, meter: Meter) -> None:
        """All classes have their own methods again; what is open ends with what it has told."""
        realtime = cast("Any", type(client(standin).realtime))
        standin.sessions = [Session([created("resp_1"), done("resp_1")])]
        patched = realtime.connect
        with client(standin) as sdk, sdk.realtime.connect(model="m") as connection:
            manager = sdk.realtime.connect(model="m")
            kinds: list[Any] = [type(connection), type(manager)]
            read(connection, 1)
            CmdrDataInstrumentor().uninstrument()
            assert told(meter, "response_id", "usage_status") == [("resp_1", "partial")]
            read(connection, 1)
            with pytest.raises(TypeError):
                sdk.realtime.connect(model="m", customer_id="acme")
        CmdrDataInstrumentor().instrument()  # For the fixture to undo.
        CmdrDataInstrumentor().uninstrument()
        assert realtime.connect is patched.__wrapped__
        for kind in kinds:
            own: dict[str, Any] = dict(kind.__dict__)
            wrapped = [name for name, value in own.items() if hasattr(value, "__wrapped__")]
            assert wrapped == []
        assert len(told(meter, "response_id")) == 1
        CmdrDataInstrumentor().instrument()

    @pytest.mark.parametrize("is_instrumented", [True, False])
    def test_tracked_clients(
        is_instrumented: bool, standin: Standin, events: RecordedEvents, monkeypatch: Any
    ) -> None:
        """Their connections are metered, whether or not anything is instrumented, and once."""
        module = "opentelemetry_instrumentation_cmdrdata.openai.seam.current_exporter"
        exporter = CmdrDataSpanExporter(delivery=events)
        monkeypatch.setattr(module, lambda: exporter)
        from opentelemetry_instrumentation_cmdrdata.openai import seam

        seam._alone.cache_clear()
        if is_instrumented:
            CmdrDataInstrumentor().instrument(exporter=exporter, tracer_provider=TracerProvider())
        standin.sessions = [Session([created("resp_1"), done("resp_1")])]
        tracked = TrackedOpenAI(
            api_key="sk-test", websocket_base_url=standin.url, customer_id="acme"
        )
        with tracked, tracked.realtime.connect(model="m") as connection:
            read(connection, 2)
        CmdrDataInstrumentor().uninstrument()
        seam._alone.cache_clear()
        assert [event["customer_id"] for event in events.wire] == ["acme"]


if VERSION >= (3, 57):

    def live(session_id: str = "live_1") -> Frame:
        """Return the frame with which a Live session begins."""
        session = {**LIVE_SESSION, "id": session_id}
        return {"type": "session.started", "event_id": "event_1", "session": session}

    def closed(seconds: float) -> Frame:
        """Return the frame with which a Live session ends."""
        frame = {**used(seconds), "type": "session.closed", "reason": "expired"}
        return {**frame, "session": LIVE_SESSION}

    def seconds(meter: Meter) -> list[tuple[Any, ...]]:
        """Return session, seconds and status of each event."""
        return [
            (session, usage.get("session_seconds"), status)
            for session, usage, status in told(meter, "session_id", "usage", "usage_status")
        ]

    def test_two_connections_of_one_session(standin: Standin, meter: Meter) -> None:
        """A session that two connections show is billed once, when its end is told; who leaves bills nothing."""
        standin.sessions = [Session([live(), used(3), closed(21)]), Session([used(12), closed(21)])]
        with client(standin) as sdk, sdk.live.connect() as primary:
            read(primary, 2)
            with sdk.live.sideband.connect(session_id="live_1") as sideband:
                read(sideband, 1)
            assert meter.events() == []
            read(primary, 1)
        assert seconds(meter) == [("live_1", 21, "reported")]

    def test_a_session_that_goes_on(standin: Standin, meter: Meter) -> None:
        """What was billed when its only connection broke is not billed again; that there is more is said."""
        standin.sessions = [Session([live(), used(12)]), Session([closed(21)])]
        with client(standin) as sdk:
            with sdk.live.connect() as primary:
                read(primary, 2)
            with sdk.live.sideband.connect(session_id="live_1") as sideband:
                read(sideband, 1)
        assert seconds(meter) == [("live_1", 12, "partial")]
        assert faults.counts.pop("billed before its end") == 1

    def test_live_connects_anew(standin: Standin, meter: Meter) -> None:
        """After the SDK has connected anew it is another session, with seconds of its own."""
        standin.sessions = [
            Session([live(), used(12)], drop),
            Session([live("live_2"), used(4)]),
        ]
        options: Any = {"on_reconnecting": reconnecting, "initial_delay": 0.001}
        with client(standin) as sdk, sdk.live.connect(**options) as connection:
            frames = iter(connection)
            for _ in range(4):
                next(frames)
        assert seconds(meter) == [("live_1", 12, "partial"), ("live_2", 4, "partial")]

    def test_no_session_no_charge(standin: Standin, meter: Meter) -> None:
        """A connection on which no session begins makes no event."""
        standin.sessions = [Session([])]
        with client(standin) as sdk, sdk.live.connect():
            pass
        with client(standin) as sdk, sdk.realtime.translations.connect(model="m"):
            pass
        assert meter.events() == []
        assert len(meter.spans()) == 2

    @pytest.mark.parametrize("world", ["sync", "async"])
    def test_lanes(world: str, standin: Standin, meter: Meter) -> None:
        """What a lane asks for is paid by the context that it was asked for in."""
        from openai.lib.responses_websocket import (
            AsyncResponsesWebSocketSession,
            ResponsesWebSocketLimits,
            ResponsesWebSocketSession,
        )

        limits = ResponsesWebSocketLimits(4, 64, 64, 2**20, 2**20)
        steps: list[Any] = [Await("response.create"), Await("response.create")]
        steps += [answer("created", f"resp_{lane}", stream_id=lane) for lane in ("b", "a")]
        steps += [completed(f"resp_{lane}", stream_id=lane) for lane in ("a", "b")]
        standin.sessions = [Session(steps)]
        request: Any = {"type": "response.create", "model": "gpt-5-mini", "input": "secret"}

        def run() -> None:
            with (
                client(standin) as sdk,
                sdk.responses.connect() as connection,
                ResponsesWebSocketSession(connection, limits=limits) as session,
            ):
                lanes = [session.lane(name) for name in ("a", "b")]
                for name, lane in zip("ab", lanes, strict=True):
                    with customer_context(name):
                        lane.send(request)
                for lane in lanes:
                    lane.get_final_response(timeout=10)

        async def arun() -> None:
            async with (
                openai.AsyncOpenAI(api_key="k", websocket_base_url=standin.url) as sdk,
                sdk.responses.connect() as connection,
                AsyncResponsesWebSocketSession(connection, limits=limits) as session,
            ):
                lanes = [session.lane(name) for name in ("a", "b")]
                for name, lane in zip("ab", lanes, strict=True):
                    with customer_context(name):
                        await lane.send(request)
                for lane in lanes:
                    await lane.get_final_response()

        with customer_context("acme"):
            run() if world == "sync" else asyncio.run(arun())
        assert told(meter, "response_id", "customer_id", "request_model") == [
            ("resp_a", "a", "gpt-5-mini"),
            ("resp_b", "b", "gpt-5-mini"),
        ]

    def test_a_decision_that_was_asked_for(standin: Standin, meter: Meter) -> None:
        """It is paid by the context that asked; what the session decides by itself is the connection's."""
        decision: dict[str, Any] = {
            "answers": [],
            "model": "d",
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }
        event = {"type": "decision.completed", "decision": decision}
        steps: list[Any] = [live(), Await("decision.create")]
        for number, delegation in enumerate(("delegation_1", None)):
            frame = {"type": "decision.event", "event_id": f"e{number}", "event": event}
            steps.append({**frame, "delegation_id": delegation, "trigger_id": None})
        standin.sessions = [Session(steps)]
        with (
            customer_context("acme"),
            client(standin) as sdk,
            sdk.live.connect() as connection,
        ):
            with customer_context("zeta"):
                connection.decision.create(event_id="mine")
            read(connection, 3)
        of_decisions = [one for one in told(meter, "endpoint", "customer_id") if "dec" in one[0]]
        assert of_decisions == [("live.decisions", "acme"), ("live.decisions", "zeta")]

    def test_a_refused_delegation(standin: Standin, meter: Meter) -> None:
        """What is refused is an event of what was asked for, and takes no later decision's place."""
        decision: dict[str, Any] = {"answers": [], "model": "d", "usage": {"input_tokens": 1}}
        told_of = {
            "type": "decision.event",
            "event_id": "e1",
            "event": {"type": "decision.completed", "decision": decision},
        }
        error: Any = {"type": "invalid_request_error", "code": "bad", "message": "no"}
        steps = [
            Await("decision.create"),
            {"type": "error", "event_id": "e0", "error": {**error, "client_event_id": "mine"}},
            Await("response.create"),
            {"type": "error", "event_id": "e2", "client_event_id": "mine too", "error": error},
            Await("decision.create"),
            told_of,
        ]
        standin.sessions = [Session(steps)]
        with (
            customer_context("acme"),
            client(standin) as sdk,
            sdk.live.connect() as connection,
        ):
            for customer, event in (
                ("zeta", {"type": "decision.create", "event_id": "mine"}),
                ("zeta", {"type": "response.create", "event_id": "mine too"}),
                ("beta", {"type": "decision.create", "event_id": "another"}),
            ):
                with customer_context(customer):
                    connection.send(event)
                read(connection, 1)
        assert told(meter, "endpoint", "customer_id", "usage_status") == [
            ("live.decisions", "zeta", "not_applicable"),
            ("live.responses", "zeta", "not_applicable"),
            ("live.decisions", "beta", "reported"),
        ]
