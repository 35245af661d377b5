"""Content is recorded where it is asked for, on spans and in events, and goes nowhere else."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as log_export
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import CmdrDataSpanExporter, ConfigurationError, faults
from cmdrdata_exporter.settings import CAPTURE_CONTENT
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, details
from opentelemetry_instrumentation_cmdrdata.content import Content
from opentelemetry_instrumentation_cmdrdata.ended import FinishedCall
from opentelemetry_instrumentation_cmdrdata.openai.content.chat import ChatReader
from opentelemetry_instrumentation_cmdrdata.openai.keywords import HEADER, Attribution
from tests.metering import RecordedEvents
from tests.provider import Provider, Reply
from tests.replies import (
    CHAT,
    COMPLETION,
    RESPONSE,
    chat_chunks,
    completion_chunks,
    response_events,
)
from tests.sdk import FORMS, HELPER, VERSION, Form, client, make

STREAM = next(form for form in FORMS if form.name == "stream")
NAMES = (
    "gen_ai.system_instructions",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.tool.definitions",
)
SECRET = "the prompt that nobody else shall see"


class Recorded:
    """What the calls of a test left behind."""

    def __init__(self) -> None:
        self.span_exporter = InMemorySpanExporter()
        # It was renamed.
        names = ("InMemoryLogRecordExporter", "InMemoryLogExporter")
        [kind, *_] = [vars(log_export)[name] for name in names if hasattr(log_export, name)]
        self.log_exporter: Any = kind()
        self.events = RecordedEvents()

    def spans(self) -> list[dict[str, Any]]:
        """The content on each span, parsed."""
        return [
            content_of(span.attributes or {}) for span in self.span_exporter.get_finished_spans()
        ]

    def records(self) -> list[Any]:
        """The log records."""
        return [data.log_record for data in self.log_exporter.get_finished_logs()]

    def details(self) -> list[dict[str, Any]]:
        """The content of each event."""
        return [content_of(record.attributes) for record in self.records()]


def content_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content among attributes, as JSON that was parsed where it is a string."""
    return {
        name: json.loads(value) if isinstance(value, str) else json.loads(json.dumps(value))
        for name, value in attributes.items()
        if name in NAMES
    }


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    """What the calls leave; `instrument` begins."""
    yield Recorded()
    CmdrDataInstrumentor().uninstrument()


def instrument(recorded: Recorded, monkeypatch: pytest.MonkeyPatch, mode: str, **more: Any) -> None:
    """Instrument with content captured as `mode` says."""
    monkeypatch.setenv(CAPTURE_CONTENT, mode)
    tracer_provider, logger_provider = TracerProvider(), LoggerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(recorded.span_exporter))
    logger_provider.add_log_record_processor(SimpleLogRecordProcessor(recorded.log_exporter))
    given: dict[str, Any] = {
        "tracer_provider": tracer_provider,
        "logger_provider": logger_provider,
        "exporter": CmdrDataSpanExporter(delivery=recorded.events),
        **more,
    }
    CmdrDataInstrumentor().instrument(**given)


MODES = {
    "": (False, False),
    "NO_CONTENT": (False, False),
    "SPAN_ONLY": (True, False),
    "span_only": (True, False),
    "EVENT_ONLY": (False, True),
    "Span_And_Event": (True, True),
}
USER = {"role": "user", "content": SECRET}
ASKED = [{"role": "user", "parts": [{"type": "text", "content": SECRET}]}]


def said(reason: str) -> list[dict[str, Any]]:
    """Return the output that all the stand-in's answers amount to."""
    return [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "hello"}],
            "finish_reason": reason,
        }
    ]


TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
CALLS: dict[str, tuple[str, str, Reply, Reply, dict[str, Any], dict[str, Any]]] = {
    "chat": (
        "chat.completions.create",
        "/v1/chat/completions",
        Reply(json=CHAT),
        Reply(events=chat_chunks()),
        {"model": "gpt-4o", "messages": [USER], "extra_body": {"tools": TOOLS}},
        {
            "gen_ai.input.messages": ASKED,
            "gen_ai.output.messages": said("stop"),
            "gen_ai.tool.definitions": [{"type": "function", "name": "look_up"}],
        },
    ),
    "completions": (
        "completions.create",
        "/v1/completions",
        Reply(json=COMPLETION),
        Reply(events=completion_chunks()),
        {"model": "gpt-3.5-turbo-instruct", "prompt": SECRET},
        {"gen_ai.input.messages": ASKED, "gen_ai.output.messages": said("length")},
    ),
}
if VERSION >= (1, 66):
    CALLS["responses"] = (
        "responses.create",
        "/v1/responses",
        Reply(json=RESPONSE),
        Reply(events=response_events(), done=False),
        {"model": "gpt-5-mini", "input": SECRET, "instructions": "be brief"},
        {
            "gen_ai.system_instructions": [{"type": "text", "content": "be brief"}],
            "gen_ai.input.messages": ASKED,
            "gen_ai.output.messages": said("stop"),
        },
    )


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("call", CALLS)
def test_each_form_of_a_call(  # noqa: PLR0917 - fixtures
    call: str,
    form: Form,
    world: str,
    recorded: Recorded,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the form, content is whole on the span and in the event, and in no usage event and no log."""
    caplog.set_level(logging.DEBUG, "cmdrdata")
    method, path, plain, streamed, arguments, expected = CALLS[call]
    provider.answer(path, streamed if form.streaming else plain)
    instrument(recorded, monkeypatch, "SPAN_AND_EVENT")
    make(world, provider, method, form, arguments)
    assert [expected] == recorded.spans()
    assert [expected] == recorded.details()
    assert len(recorded.events.bodies) == 1
    for body in recorded.events.bodies.values():
        assert SECRET.encode() not in body
        assert b"hello" not in body
    assert SECRET not in caplog.text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("call", CALLS)
def test_each_setting(
    call: str,
    mode: str,
    recorded: Recorded,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The four values of the conventions say where content goes; without a value it goes nowhere."""
    method, path, plain, _, arguments, expected = CALLS[call]
    provider.answer(path, plain)
    instrument(recorded, monkeypatch, mode)
    make("sync", provider, method, FORMS[0], arguments)
    on_spans, in_events = MODES[mode]
    assert [expected if on_spans else {}] == recorded.spans()
    assert ([expected] if in_events else []) == recorded.details()


@pytest.mark.parametrize("mode", ["true", "1", "span"])
def test_an_unknown_setting(
    mode: str,
    recorded: Recorded,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Any other value is none, with one warning."""
    method, path, plain, _, arguments, _ = CALLS["chat"]
    provider.answer(path, plain)
    instrument(recorded, monkeypatch, mode)
    for _ in range(2):
        make("sync", provider, method, FORMS[0], arguments)
    assert [{}, {}] == recorded.spans()
    assert [] == recorded.details()
    [warning] = [r.getMessage() for r in caplog.records if CAPTURE_CONTENT in r.getMessage()]
    assert warning == (
        f"{CAPTURE_CONTENT} is {mode.upper()!r}, so no content is recorded; "
        "expected is one of: NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT"
    )


def test_the_event(recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event has the attributes of the whole span, the ids of the span, severity DEBUG and its name."""
    method, path, plain, _, arguments, expected = CALLS["chat"]
    provider.answer(path, plain)
    instrument(recorded, monkeypatch, "EVENT_ONLY")
    make(
        "sync", provider, method, FORMS[0], {**arguments, "customer_id": "acme", "temperature": 0.5}
    )
    [span], [record] = recorded.span_exporter.get_finished_spans(), recorded.records()
    attributes: dict[str, Any] = dict(record.attributes)
    name = attributes.pop("event.name", None) or record.event_name
    assert name == "gen_ai.client.inference.operation.details"
    assert record.severity_number.value == 5
    assert span.context is not None
    assert (record.trace_id, record.span_id) == (span.context.trace_id, span.context.span_id)
    assert record.timestamp == span.end_time
    assert expected == content_of(attributes)
    assert dict(span.attributes or {}) == {
        name: value for name, value in attributes.items() if name not in NAMES
    }
    assert attributes["cmdrdata.customer.id"] == "acme"
    structured = details._IS_STRUCTURED
    assert isinstance(attributes["gen_ai.input.messages"], str) is not structured


def test_a_cut_stream(
    recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that breaks keeps what came."""
    method, path, _, streamed, arguments, expected = CALLS["chat"]
    provider.answer(path, Reply(events=streamed.events, cut_after=2))
    instrument(recorded, monkeypatch, "SPAN_ONLY")
    with pytest.raises(Exception, match=r".*"):
        make("sync", provider, method, STREAM, arguments)
    said_so_far = [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "hel"}],
            "finish_reason": "error",
        }
    ]
    assert [{**expected, "gen_ai.output.messages": said_so_far}] == recorded.spans()


def test_a_stream_that_is_left(
    recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that the application closes keeps what came."""
    _, path, _, streamed, arguments, _ = CALLS["completions"]
    provider.answer(path, Reply(events=streamed.events, hold_after=1))
    instrument(recorded, monkeypatch, "SPAN_ONLY")
    with client(provider) as sync:
        stream = sync.completions.create(stream=True, **arguments)
        next(iter(stream))
        stream.response.close()
    [span] = recorded.spans()
    assert span["gen_ai.output.messages"] == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "hel"}],
            "finish_reason": "error",
        }
    ]


def test_errors_have_no_output(
    recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing was produced, there is no output."""
    method, path, _, _, arguments, expected = CALLS["chat"]
    provider.answer(path, Reply(status=500, json={"error": {"message": "no"}}))
    instrument(recorded, monkeypatch, "SPAN_AND_EVENT")
    with pytest.raises(Exception, match="no"):
        make("sync", provider, method, FORMS[0], arguments)
    asked = {k: v for k, v in expected.items() if k != "gen_ai.output.messages"}
    assert [asked] == recorded.spans() == recorded.details()


if VERSION >= (1, 40):  # An older one has no helpers.

    def of_helper(method: str, name: str) -> str:
        """Return where the installed SDK has the helper of a method."""
        helper = method.replace("create", name)
        return f"beta.{helper}" if method.startswith("chat") and VERSION < (1, 92) else helper

    @pytest.mark.parametrize("world", ["sync", "async"])
    @pytest.mark.parametrize("call", [name for name in CALLS if name != "completions"])
    def test_helpers(
        call: str,
        world: str,
        recorded: Recorded,
        provider: Provider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The SDK's `stream` helpers, which read and assemble on their own, change nothing."""
        method, path, _, streamed, arguments, expected = CALLS[call]
        arguments = {name: value for name, value in arguments.items() if name != "extra_body"}
        expected = {k: v for k, v in expected.items() if k != "gen_ai.tool.definitions"}
        provider.answer(path, streamed)
        instrument(recorded, monkeypatch, "SPAN_ONLY")
        make(world, provider, of_helper(method, "stream"), HELPER, arguments)
        assert [expected] == recorded.spans()

    @pytest.mark.parametrize("world", ["sync", "async"])
    @pytest.mark.parametrize("call", [name for name in CALLS if name != "completions"])
    def test_structured_outputs(
        call: str,
        world: str,
        recorded: Recorded,
        provider: Provider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What `parse` makes of an answer is read as it was sent."""
        method, path, plain, _, arguments, expected = CALLS[call]
        arguments = {name: value for name, value in arguments.items() if name != "extra_body"}
        expected = {k: v for k, v in expected.items() if k != "gen_ai.tool.definitions"}
        provider.answer(path, plain)
        instrument(recorded, monkeypatch, "SPAN_ONLY")
        make(world, provider, of_helper(method, "parse"), FORMS[0], arguments)
        assert [expected] == recorded.spans()


def test_a_hook(recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hook returns is what is recorded; it sees the attributes of the span."""
    seen: list[Mapping[str, Any]] = []

    def redacted(content: Content, attributes: Mapping[str, Any]) -> Content:
        seen.append(attributes)
        content.input_messages[0]["parts"][0]["content"] = "***"
        return content._replace(output_messages=[])

    method, path, plain, _, arguments, _ = CALLS["completions"]
    provider.answer(path, plain)
    instrument(recorded, monkeypatch, "SPAN_AND_EVENT", content_hook=redacted)
    make("sync", provider, method, FORMS[0], arguments)
    expected = {
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "***"}]}]
    }
    assert [expected] == recorded.spans() == recorded.details()
    [span] = recorded.span_exporter.get_finished_spans()
    assert seen == [{k: v for k, v in (span.attributes or {}).items() if k not in NAMES}]
    assert arguments["prompt"] == SECRET


def fails(content: Content, attributes: Mapping[str, Any]) -> Content:
    """Fail as a hook may, with content in the message."""
    raise ValueError(str(content))


def returning(value: Any) -> Any:
    """Return a hook that returns a value."""

    def hook(content: Content, attributes: Mapping[str, Any]) -> Any:
        return value

    return hook


@pytest.mark.parametrize("hook", [fails, returning("text"), returning(Content([], [{}], [], []))])
def test_a_hook_that_fails(
    hook: Any,
    recorded: Recorded,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A hook that raises, or returns what is no content, drops the content, not the span; that is said once."""
    method, path, plain, _, arguments, _ = CALLS["chat"]
    provider.answer(path, plain)
    instrument(recorded, monkeypatch, "SPAN_AND_EVENT", content_hook=hook)
    for _ in range(2):
        make("sync", provider, method, FORMS[0], arguments)
    assert [{}, {}] == recorded.spans() == recorded.details()
    assert len(recorded.events.bodies) == 2
    assert caplog.text.count("the content_hook raised") == 1
    assert SECRET not in caplog.text
    assert faults.counts.pop("content_hook") == 2


def test_a_hook_that_drops(
    recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None drops the content; the event without it is there all the same."""
    method, path, plain, _, arguments, _ = CALLS["chat"]
    provider.answer(path, plain)
    instrument(recorded, monkeypatch, "SPAN_AND_EVENT", content_hook=returning(None))
    make("sync", provider, method, FORMS[0], arguments)
    assert [{}] == recorded.spans() == recorded.details()


def test_what_is_no_hook(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be called is refused when it is configured."""
    with pytest.raises(ConfigurationError, match=r"content_hook is of type str; expected is"):
        instrument(recorded, monkeypatch, "SPAN_ONLY", content_hook="text")


def test_lengths(recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that is too long is cut, and says so."""
    method, path, plain, _, arguments, _ = CALLS["completions"]
    provider.answer(path, plain)
    monkeypatch.setenv("CMDRDATA_CONTENT_MAX_LENGTH", "10")
    instrument(recorded, monkeypatch, "SPAN_ONLY")
    make("sync", provider, method, FORMS[0], arguments)
    [span] = recorded.spans()
    [asked] = span["gen_ai.input.messages"]
    mark = f"{SECRET[:10]}[cut: {len(SECRET) - 10} of {len(SECRET)} characters]"
    assert asked["parts"] == [{"type": "text", "content": mark}]


@pytest.mark.parametrize("name", ["CMDRDATA_CONTENT_MAX_LENGTH", "CMDRDATA_CONTENT_MAX_TOTAL"])
def test_bounds_that_are_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that is no number is refused when it is configured."""
    monkeypatch.setenv(name, "much")
    expected = f"{name} is 'much'; expected is a whole number of characters from 1 to 100000000"
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        CmdrDataSpanExporter(delivery=RecordedEvents())


@pytest.mark.parametrize("streaming", [False, True])
def test_one_client_asks(
    streaming: bool, recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may ask for the content of its own calls, and be told of their end once; of no other client's."""
    finished: list[FinishedCall] = []
    method, path, plain, streamed, arguments, expected = CALLS["completions"]
    provider.answer(path, streamed if streaming else plain)
    instrument(recorded, monkeypatch, "NO_CONTENT")
    form = next(form for form in FORMS if form.name == ("stream" if streaming else "plain"))
    said = Attribution(capture=True, observer=finished.append)
    make("sync", provider, method, form, arguments, default_headers={HEADER: said})
    make("sync", provider, method, form, arguments)
    assert [expected, {}] == recorded.spans()
    [call] = finished
    assert call.content == Content(
        [], expected["gen_ai.input.messages"], expected["gen_ai.output.messages"], []
    )
    [span, _] = recorded.span_exporter.get_finished_spans()
    assert span.context is not None
    assert (call.call.streaming, call.call.failure) == (streaming, None)
    assert (call.call.trace_id, call.call.end_time) == (span.context.trace_id, span.end_time)
    assert (call.call.request_model, call.facts["gen_ai.usage.input_tokens"]) == (
        arguments["model"],
        5,
    )


def test_an_observer_that_fails(
    recorded: Recorded,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What an observer raises is logged without its message, and changes nothing."""

    def failing(call: FinishedCall) -> None:
        raise ValueError(SECRET)

    method, path, plain, _, arguments, _ = CALLS["chat"]
    provider.answer(path, plain)
    instrument(recorded, monkeypatch, "NO_CONTENT")
    said = Attribution(capture=True, observer=failing)
    make("sync", provider, method, FORMS[0], arguments, default_headers={HEADER: said})
    assert len(recorded.events.bodies) == 1
    assert "the observer of a call raised ValueError" in caplog.text
    assert SECRET not in caplog.text
    assert faults.counts.pop("observer") == 1


def test_a_reader_that_fails(
    recorded: Recorded,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault of ours while content is read is logged without the message of the exception, which may quote it."""

    def failing(*_: object) -> None:
        raise ValueError(SECRET)

    method, path, plain, _, arguments, expected = CALLS["chat"]
    provider.answer(path, plain)
    instrument(recorded, monkeypatch, "SPAN_ONLY")
    monkeypatch.setattr(ChatReader, "answer", failing)
    make("sync", provider, method, FORMS[0], arguments)
    assert [{k: v for k, v in expected.items() if "output" not in k}] == recorded.spans()
    assert SECRET not in caplog.text
    assert len(recorded.events.bodies) == 1
    faults.counts.clear()


def test_the_spool_has_no_content(
    recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No file of ours holds what was said."""
    method, path, plain, _, arguments, _ = CALLS["chat"]
    provider.answer(path, plain)
    spooling = CmdrDataSpanExporter(spool_dir=tmp_path)
    instrument(recorded, monkeypatch, "SPAN_AND_EVENT", exporter=spooling)
    make("sync", provider, method, FORMS[0], arguments)
    spooling.force_flush()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    for file in files:
        found = file.read_bytes()
        assert SECRET.encode() not in found
        assert b"hello" not in found


@pytest.mark.parametrize("call", CALLS)
def test_compact_streams(
    call: str, recorded: Recorded, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events that need not be parsed for metering, as providers send them, are read for their content."""
    method, path, _, streamed, arguments, expected = CALLS[call]
    assert streamed.events is not None
    compact = [json.dumps(event, separators=(",", ":")) for event in streamed.events]
    if call == "responses":  # What came by pieces, which the response at the end would hide.
        compact = compact[:-1]
    provider.answer(path, Reply(events=compact, done=call != "responses"))
    instrument(recorded, monkeypatch, "SPAN_ONLY")
    make("sync", provider, method, STREAM, arguments)
    if call == "responses":
        [span] = recorded.spans()
        [output] = span["gen_ai.output.messages"]
        assert output["parts"] == said("")[0]["parts"]
    else:
        assert [expected] == recorded.spans()
