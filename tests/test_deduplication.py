"""One call is one event, however many instrumentations saw it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from cmdrdata_exporter import CmdrDataSpanExporter, event_from_span
from cmdrdata_exporter.deduplication import (
    Metered,
    OwnCalls,
    own_calls,
)
from cmdrdata_exporter.reports import CAPACITY, Calls, Report, instruments_own_sdk
from tests.metering import RecordedEvents
from tests.test_events import recorded, span

OURS = "opentelemetry_instrumentation_cmdrdata"
OPENAI = "opentelemetry.instrumentation.openai.v1"
OPENINFERENCE = "openinference.instrumentation.openai"
LANGCHAIN = "opentelemetry.instrumentation.langchain"


@pytest.fixture
def active() -> Iterator[OwnCalls]:
    """The seam with our instrumentor at work, as it was afterwards."""
    before = dict(vars(own_calls))
    vars(own_calls).update(vars(OwnCalls()), active=True)
    yield own_calls
    vars(own_calls).update(before)


def chat(response_id: str | None = None, **changes: Any) -> dict[str, Any]:
    """Return the attributes of a chat of 7 tokens."""
    said = {} if response_id is None else {"gen_ai.response.id": response_id}
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
        **said,
        **changes,
    }


def billed(events: RecordedEvents, *batches: list[ReadableSpan]) -> int:
    """Export spans in several batches and return how many events they made."""
    exporter = CmdrDataSpanExporter(delivery=events)
    for batch in batches:
        exporter.export(batch)
    assert sum(exporter.passed_over.values()) + len(events.wire) == sum(
        "gen_ai.usage.input_tokens" in (one.attributes or {})
        and one.instrumentation_scope is not None
        and one.instrumentation_scope.name != OURS
        for batch in batches
        for one in batch
    ), "a span that is passed over is counted"
    return len(events.wire)


def metered(
    response_id: str | None = None,
    *,
    provider: str = "openai",
    endpoint: str = "chat.completions",
    tokens: tuple[int | None, int | None] = (3, 4),
    times: tuple[int, int | None] = (100, 200),
    span_id: int = 1,
) -> Metered:
    """Return what the seam tells of a chat of 7 tokens."""
    return Metered(provider, endpoint, response_id, *tokens, span_id, *times)


def report(
    response_id: str | None = None,
    *,
    scope: str = LANGCHAIN,
    provider: str = "together",
    endpoint: str = "chat.completions",
    tokens: tuple[int, int] = (3, 4),
    times: tuple[int, int] = (90, 210),
    span_id: int = 2,
) -> Report:
    """Return what a span of another instrumentation tells of the same chat."""
    return Report.of(
        span({}, scope=scope, context=(2, span_id), times=times),
        provider=provider,
        endpoint=endpoint,
        response_id=response_id,
        tokens=tokens,
    )


@pytest.mark.parametrize(
    ("scope", "provider", "response_id", "covered"),
    [
        ("opentelemetry.instrumentation.genai.openai", "openai", None, True),
        ("opentelemetry.instrumentation.openai.v1", "openai", None, True),
        ("opentelemetry.instrumentation.openai_v2", "openai", "chatcmpl-9", True),
        ("openinference.instrumentation.openai", "anthropic", None, True),
        ("openinference.instrumentation.openai_agents", "openai", None, True),
        ("openinference.instrumentation.langchain", "openai", None, True),
        ("openinference.instrumentation.langchain", "openai", "chatcmpl-9", False),
        ("openinference.instrumentation.langchain", "groq", None, True),
        ("openinference.instrumentation.langchain", "mistralai", None, True),
        ("openinference.instrumentation.langchain", "anthropic", None, False),
        ("openinference.instrumentation.groq", "groq", None, False),
        ("opentelemetry.instrumentation.mistralai", "mistral_ai", None, False),
        ("opentelemetry.instrumentation.anthropic", "anthropic", None, False),
        ("litellm", "openai", "chatcmpl-9", False),
        ("", "anthropic", None, False),
    ],
)
def test_what_the_seam_covers_at_another_time(
    scope: str, provider: str, response_id: str | None, covered: bool
) -> None:
    """Where no call is found, the scope decides or, without a response id, the provider: not of other SDKs."""
    told = OwnCalls()
    told.metered(metered("chatcmpl-1", provider="groq", times=(1, 2)))
    told.metered(metered("chatcmpl-2", provider="mistral_ai", times=(3, 4)))
    reported = report(response_id, scope=scope, provider=provider)
    assert told.covers(reported) is False, "an instrumentor that is not active covers nothing else"
    told.active = True
    assert told.covers(reported) is covered


def test_before_anything_was_metered() -> None:
    """A framework that calls a provider in its own way is billed until the seam has seen that provider."""
    told = OwnCalls()
    told.active = True
    assert told.covers(report(scope=OPENAI, provider="openai")) is True
    assert told.covers(report(scope=LANGCHAIN, provider="openai")) is False


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize(
    ("call", "reported", "same"),
    [
        (metered("c-1"), report("c-1"), True),
        (metered("c-1"), report("c-1", times=(110, 190), endpoint="x", tokens=(0, 0)), True),
        (metered("c-1", times=(100, None)), report("c-1", times=(150, 160)), True),
        (metered("c-1"), report("c-1", times=(201, 210)), False),
        (metered("c-1"), report("c-1", times=(80, 99)), False),
        (metered("c-1"), report("c-2"), False),
        (metered(), report("made-up"), True),
        (metered("c-1"), report(), True),
        (metered("c-1", times=(100, None)), report(times=(90, 150)), True),
        (metered("c-1"), report(times=(101, 210)), False),
        (metered("c-1"), report(times=(90, 99)), False),
        (metered("c-1"), report(tokens=(3, 5)), False),
        (metered("c-1", tokens=(None, None)), report(tokens=(3, 5)), True),
        (metered("c-1", endpoint="responses"), report(), True),
        (metered("c-1", endpoint="moderations", tokens=(None, None)), report(), False),
        (
            metered(endpoint="embeddings", tokens=(3, None)),
            report("made-up", endpoint="embeddings", tokens=(3, 0)),
            True,
        ),
    ],
    ids=[
        "id-around",
        "id-inside",
        "id-while-open",
        "id-afterwards",
        "id-before",
        "another-id",
        "an-id-that-the-provider-did-not-give",
        "no-id-around",
        "no-id-while-open",
        "no-id-began-later",
        "no-id-before",
        "no-id-other-usage",
        "no-id-estimated-usage",
        "no-id-another-name-of-the-endpoint",
        "no-id-another-endpoint",
        "embeddings",
    ],
)
def test_which_call_a_span_reports(
    call: Metered, reported: Report, same: bool, active: bool
) -> None:
    """Id and time relate a span to a call or, where one has no id, time and usage; the provider's name never does."""
    told = OwnCalls()
    told.active = active
    if call.end is None:
        told.open_calls = lambda: [call]
    else:
        told.metered(call)
    assert told.covers(reported) is same


def test_each_call_is_reported_once_by_a_scope() -> None:
    """A call with the same id, or as many tokens, that did not pass the seam is an event of its own."""
    told = OwnCalls()
    told.metered(metered("c-1"))
    assert told.covers(report("c-1", span_id=2)) is True
    assert told.covers(report("c-1", span_id=3)) is False
    assert told.covers(report(span_id=4)) is False
    assert told.covers(report("c-1", span_id=5, scope="litellm")) is True
    assert told.covers(report("c-1", span_id=2)) is True, "the same span, by another exporter"


def test_calls_at_the_same_time() -> None:
    """Each of several spans finds a call of its own, in whichever order they end."""
    told = OwnCalls()
    told.metered(metered("c-2", times=(110, 190), span_id=2))
    told.metered(metered("c-1", times=(100, 200), span_id=1))
    assert told.covers(report(span_id=3, times=(90, 210))) is True
    assert told.covers(report(span_id=4, times=(105, 220))) is True
    assert told.covers(report(span_id=5, times=(90, 230))) is False


def test_a_server_that_uses_one_id_for_all() -> None:
    """The time tells which of many calls with one response id a span reports."""
    told = OwnCalls()
    for number in range(3):
        told.metered(metered("x", times=(number * 100, number * 100 + 50), span_id=number))
    assert told.covers(report("x", times=(60, 90))) is False
    assert told.covers(report("x", times=(90, 160), span_id=3)) is True
    assert told.covers(report("x", times=(90, 160), span_id=4)) is False


def test_what_the_seam_remembers_is_bounded() -> None:
    """The oldest calls are forgotten first, with their ids, whether or not anything asks."""
    told = OwnCalls()
    for number in range(CAPACITY + 2):
        told.metered(metered(f"c-{number}", span_id=number))
    assert len(told._ended) == CAPACITY
    assert told.covers(report("c-1")) is False
    for number in range(2):
        told.metered(metered(f"d-{number}", span_id=number))
    assert told.covers(report("d-1")) is True
    assert told.covers(report("c-3", span_id=3)) is False
    assert {
        "noted": len(told._ended),
        "calls": len(told._calls),
        "free ids": [len(free._by_id) for free in told._free.values()],
        "claims": len(told._claims),
    } == {"noted": 0, "calls": CAPACITY, "free ids": [CAPACITY - 1], "claims": 1}


@pytest.mark.parametrize(
    "name", ["genai_openai", "openai_v2", "openinference_openai", "openllmetry_openai"]
)
def test_beside_ours(name: str, active: OwnCalls, events: RecordedEvents) -> None:
    """With our instrumentor at work, no instrumentation of the openai SDK makes events."""
    assert active.active
    exporter = CmdrDataSpanExporter(delivery=events)
    exporter.export(recorded(name))
    assert events.wire == []
    assert sum(exporter.passed_over.values()) > 0


@pytest.mark.parametrize("name", ["openinference_anthropic", "openllmetry_anthropic"])
def test_other_providers_beside_ours(name: str, active: OwnCalls, events: RecordedEvents) -> None:
    """What our seam does not see is billed as ever."""
    active.metered(metered("chatcmpl-1"))
    exporter = CmdrDataSpanExporter(delivery=events)
    exporter.export(recorded(name))
    assert {event["provider"] for event in events.wire} == {"anthropic"}


@pytest.mark.parametrize("name", ["openinference_langchain", "openllmetry_langchain"])
def test_frameworks_beside_ours(name: str, active: OwnCalls, events: RecordedEvents) -> None:
    """A framework's spans of calls that passed the seam are passed over, in whichever trace they are."""
    spans = recorded(name)
    for one in spans:
        event = event_from_span(one)
        if event is not None:
            times = (one.start_time or 0) + 1, (one.end_time or 0) - 1
            response_id, tokens = event.metadata["response_id"], (event.input_tokens, 7)
            active.metered(metered(response_id, tokens=tokens, times=times))
    CmdrDataSpanExporter(delivery=events).export(spans)
    assert events.wire == []


def test_the_innermost_is_the_charge(events: RecordedEvents) -> None:
    """A span that contains a billed one is the same call, also through spans that are no calls."""
    inner = span(chat(), scope=OPENAI, context=(1, 4), parent=3)
    step = span({}, scope=LANGCHAIN, context=(1, 3), parent=2)
    outer = span(chat(), scope=LANGCHAIN, context=(1, 2), parent=1)
    agent = span({"gen_ai.operation.name": "invoke_agent"}, scope=LANGCHAIN, context=(1, 1))
    assert billed(events, [inner, step], [outer], [agent]) == 1


def test_siblings_are_calls_of_their_own(events: RecordedEvents) -> None:
    """Two calls in one workflow are two charges, and so is a third beside the workflow."""
    workflow = span({"gen_ai.operation.name": "invoke_workflow"}, context=(1, 1))
    calls = [span(chat(), scope=OPENAI, context=(1, number), parent=1) for number in (2, 3)]
    other = span(chat(), scope=OPENAI, context=(2, 1))
    assert billed(events, [*calls, workflow, other]) == 3


def test_ours_inside_a_framework(events: RecordedEvents) -> None:
    """Our own span in the pipeline shows which spans contain what was metered directly."""
    ours = span(chat(), scope=OURS, context=(1, 2), parent=1)
    outer = span(chat(**{"gen_ai.provider.name": "langchain"}), scope=LANGCHAIN, context=(1, 1))
    assert billed(events, [ours, outer]) == 0


def test_the_same_span_twice(events: RecordedEvents) -> None:
    """A span that two processors hand over is one charge."""
    once = span(chat("chatcmpl-1"), scope=OPENAI)
    assert billed(events, [once], [once]) == 1


def test_a_stream_that_outlives_what_contains_it(events: RecordedEvents) -> None:
    """Of two instrumentations that report one response at one time, the later span is the same call."""
    outer = span(chat("chatcmpl-1"), scope=LANGCHAIN, context=(1, 1), times=(100, 200))
    inner = span(chat("chatcmpl-1"), scope=OPENAI, context=(1, 2), parent=1, times=(150, 300))
    assert billed(events, [outer, inner]) == 1


def test_what_ended_inside_a_call_that_ended_first(events: RecordedEvents) -> None:
    """A stream's span right below another instrumentation's that was billed is the same call, without a response id."""
    outer = span(chat("resp_1"), scope=OPENAI, context=(1, 1), times=(100, 200))
    inner = span(chat(), scope=OPENINFERENCE, context=(1, 2), parent=1, times=(150, 210))
    assert billed(events, [outer, inner]) == 1


@pytest.mark.parametrize(
    ("scope", "times"),
    [(OPENINFERENCE, (201, 300)), (OPENAI, (150, 210))],
    ids=["later", "the-same-instrumentation"],
)
def test_calls_below_a_call(scope: str, times: tuple[int, int], events: RecordedEvents) -> None:
    """A span whose parent was left current is no part of that call, nor is a second call of one instrumentation."""
    outer = span(chat(), scope=OPENAI, context=(1, 1), times=(100, 200))
    inner = span(chat(), scope=scope, context=(1, 2), parent=1, times=times)
    assert billed(events, [outer, inner]) == 2


def test_a_response_in_a_trace_of_its_own(events: RecordedEvents) -> None:
    """An instrumentation around another is the same call in whichever trace, where response id and time agree."""
    inner = span(chat("resp_1"), scope=OPENAI, context=(1, 1), times=(100, 200))
    outer = span(chat("resp_1"), scope=LANGCHAIN, context=(2, 1), times=(90, 210))
    assert billed(events, [inner, outer]) == 1


def test_a_response_that_was_told_by_a_span_passed_over(events: RecordedEvents) -> None:
    """What is passed over still tells which response the call had."""
    innermost = span(chat(), scope=OPENINFERENCE, context=(1, 2), parent=1, times=(100, 200))
    around = span(chat("resp_1"), scope=OPENAI, context=(1, 1), times=(90, 210))
    outermost = span(chat("resp_1"), scope=LANGCHAIN, context=(2, 1), times=(80, 220))
    assert billed(events, [innermost, around, outermost]) == 1


CLAUDE = {"gen_ai.provider.name": "anthropic"}
ANTHROPIC_ITSELF = "com.anthropic.sdk.python"
OPENINFERENCE_ANTHROPIC = "openinference.instrumentation.anthropic"


def test_side_by_side(events: RecordedEvents) -> None:
    """Of two that report one SDK, neither inside the other and one without a response id, the outer in time repeats."""
    report = span(chat("msg_1", **CLAUDE), scope=ANTHROPIC_ITSELF, context=(1, 1), times=(100, 200))
    around = span(chat(**CLAUDE), scope=OPENINFERENCE_ANTHROPIC, context=(2, 1), times=(90, 210))
    assert billed(events, [report, around]) == 1


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 1, 3, 2), (1, 0, 2, 3), (0, 2, 1, 3)])
def test_many_side_by_side(order: tuple[int, ...], events: RecordedEvents) -> None:
    """Each of several calls at the same time finds one report of its own, in whichever order they end."""
    starts = {0: (10, ANTHROPIC_ITSELF), 1: (12, ANTHROPIC_ITSELF)}
    starts |= {2: (9, OPENINFERENCE_ANTHROPIC), 3: (11, OPENINFERENCE_ANTHROPIC)}
    spans = [
        span(
            chat(f"msg_{number}" if number < 2 else None, **CLAUDE),
            scope=starts[number][1],
            context=(number + 1, 1),
            times=(starts[number][0], 20 + position),
        )
        for position, number in enumerate(order)
    ]
    assert billed(events, spans) == 2


@pytest.mark.parametrize(
    ("around", "trace_and_parent", "times"),
    [
        (chat("msg_2", **CLAUDE), (2, None), (90, 210)),
        (chat(**CLAUDE), (1, 7), (90, 210)),
        (chat(**CLAUDE), (2, None), (101, 210)),
        (chat(**CLAUDE), (2, None), (201, 210)),
        (chat(), (2, None), (90, 210)),
    ],
    ids=["another-response", "elsewhere", "began-later", "afterwards", "another-provider"],
)
def test_calls_of_their_own_side_by_side(
    around: dict[str, Any],
    trace_and_parent: tuple[int, int | None],
    times: tuple[int, int],
    events: RecordedEvents,
) -> None:
    """Time alone relates nothing: the SDK, the place in the trace and the response must agree."""
    report = span(chat("msg_1", **CLAUDE), scope=ANTHROPIC_ITSELF, context=(1, 1), times=(100, 200))
    trace_id, parent = trace_and_parent
    other = span(
        around,
        scope=OPENINFERENCE_ANTHROPIC,
        context=(trace_id, 2),
        parent=parent,
        times=times,
    )
    assert billed(events, [report, other]) == 2


def test_one_report_is_repeated_once_by_each(events: RecordedEvents) -> None:
    """Two calls that one instrumentation saw are two, though only one of them was reported by the SDK."""
    report = span(chat("msg_1", **CLAUDE), scope=ANTHROPIC_ITSELF, context=(1, 1), times=(100, 200))
    around = [
        span(chat(**CLAUDE), scope=OPENINFERENCE_ANTHROPIC, context=(number, 1), times=(90, 210))
        for number in (2, 3)
    ]
    assert billed(events, [report, *around]) == 2


@pytest.mark.parametrize(
    ("context", "scope", "times"),
    [
        ((2, 2), LANGCHAIN, (150, 300)),
        ((2, 2), LANGCHAIN, (90, 190)),
        ((1, 2), LANGCHAIN, (201, 300)),
        ((1, 2), OPENAI, (150, 300)),
    ],
    ids=["another-trace", "another-trace-before", "later", "the-same-instrumentation"],
)
def test_servers_that_reuse_ids(
    context: tuple[int, int], scope: str, times: tuple[int, int], events: RecordedEvents
) -> None:
    """A response id alone proves nothing."""
    first = span(chat("chatcmpl-1"), scope=OPENAI, context=(1, 1), times=(100, 200))
    second = span(chat("chatcmpl-1"), scope=scope, context=context, times=times)
    assert billed(events, [first, second]) == 2


class Naive(Calls):
    """The rule of `_is_beside` as it is written down: each span is compared with all that were billed before it."""

    def after_fork_child(self) -> None:
        """Begin anew."""
        super().after_fork_child()
        self._reports: list[tuple[Report, set[str]]] = []

    def _bill(self, call: Report) -> None:
        self._reports = [*self._reports, (call, set[str]())][-self._capacity :]

    def _is_beside(self, call: Report) -> bool:
        found = [
            (other.start, -number, taken)
            for number, (other, taken) in enumerate(self._reports)
            if instruments_own_sdk(call.scope, call.provider)
            and other.parent == call.parent
            and other.provider == call.provider
            and other.scope != call.scope
            and call.scope not in taken
            and None in (other.response_id, call.response_id)
            and call.contains(other)
        ]
        if found:
            min(found, key=lambda each: each[:2])[2].add(call.scope)
        return bool(found)


@pytest.mark.parametrize("capacity", [10, CAPACITY])
@pytest.mark.parametrize("order", ["by their ends", "any"])
def test_spans_beside_each_other_as_the_rule_has_it(capacity: int, order: str) -> None:
    """Which spans side by side are one call is found as if each was compared with each, in whatever traces."""
    source = random.Random(f"{capacity} {order}")
    scopes = ("a.openai", "b.openai", "c.openai.v1", "d.anthropic", "framework")
    billed = 0
    for _ in range(300):
        times = [sorted(source.choices(range(30), k=2)) for _ in range(40)]
        if order == "by their ends":
            times.sort(key=lambda time: time[1])
        quick, naive = Calls(capacity), Naive(capacity)
        for number, (start, end) in enumerate(times, 1):
            its = span(
                {},
                scope=source.choice(scopes),
                context=(1, number),
                times=(start, end),
            )
            report = replace(
                Report.of(
                    its,
                    provider=source.choice(("openai", "openai", "anthropic")),
                    endpoint="chat.completions",
                    response_id=source.choice((None, None, f"r{source.randrange(9)}")),
                    tokens=(1, 1),
                ),
                parent=source.choice((None, (1, 99))),
            )
            expected = naive.claim(its, replace(report))
            assert quick.claim(its, report) == expected
            billed += expected
    assert 2000 < billed < 10000


def test_what_is_remembered_is_bounded() -> None:
    """The oldest is forgotten first."""
    calls = Calls(capacity=4)
    spans = [span({}, context=(1, number)) for number in range(1, 6)]
    for one in spans:
        calls.cover(one)
    assert [calls._contains(one) for one in spans] == [False, True, True, True, True]
    calls = Calls(capacity=2)

    def claims(one: ReadableSpan, response_id: str) -> bool:
        reported = Report.of(
            one, provider="openai", endpoint="x", response_id=response_id, tokens=(3, 4)
        )
        return calls.claim(one, reported)

    for number in range(6):
        one = span({}, scope=OPENAI, context=(number + 1, 1))
        assert claims(one, f"chatcmpl-{number}") is True
    assert {
        "covered": len(calls._covered),
        "responses": len(calls._responses),
        "billed": len(calls._billed),
    } == {"covered": 2, "responses": 4, "billed": 2}
    assert claims(span({}, scope="x", context=(8, 1)), "chatcmpl-0") is True
    assert claims(span({}, scope="x", context=(9, 1)), "chatcmpl-5") is False


def test_a_call_that_ends_in_the_middle_of_another_one(events: RecordedEvents) -> None:
    """A finalizer or signal handler may export while its own thread does: neither waits, and both are billed."""
    exporter = CmdrDataSpanExporter(delivery=events)
    outer = span(chat(), scope="openai", context=(1, 1))
    other = iter([span(chat(), scope="openai", context=(2, 2))])

    def interrupted() -> SpanContext:
        exporter.export(list(other))
        return SpanContext(1, 1, is_remote=False)

    vars(outer)["get_span_context"] = interrupted
    exporter.export([outer])
    assert 2 == len(events.wire)


class NaiveOwnCalls(OwnCalls):
    """The rule of `covers` as it is written down: each span is compared with all calls."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[tuple[int, str], tuple[tuple[int, int], str]] = {}

    def _claim(self, report: Report) -> bool:
        asks = (report.span, report.scope)
        if asks in self.taken.values():
            return True
        calls = [
            call
            for call in self._calls
            if call.may_be(report) and (call.span_id, report.scope) not in self.taken
        ]
        same_id = [call for call in calls if call.response_id == report.response_id is not None]
        if not calls:
            return False
        call = min(same_id or calls, key=lambda call: (call.start, call.span_id))
        self.taken[call.span_id, report.scope] = asks
        return True


def test_spans_of_our_calls_as_the_rule_has_it() -> None:
    """Which spans are calls of ours is what a comparison with every call would say."""
    chosen = random.Random(5)
    found = 0
    for _ in range(60):
        indexed, naive = OwnCalls(), NaiveOwnCalls()
        reports: list[Report] = []
        for number in range(80):
            start = chosen.randrange(60)
            response_id = chosen.choice([None, None, "a", "b"])
            tokens = chosen.choice([(3, 4), (1, 0)])
            endpoint = chosen.choice(["responses", "chat.completions", "embeddings"])
            end = start + chosen.randrange(20)
            if chosen.random() < 0.5:
                used = chosen.choice([tokens, (None, None)])
                call = Metered("openai", endpoint, response_id, *used, number, start, end)
                indexed.metered(call)
                naive.metered(call)
                continue
            if reports and chosen.random() < 0.2:
                report = chosen.choice(reports)
            else:
                scope = chosen.choice([LANGCHAIN, "litellm"])
                report = Report(
                    scope, "openai", endpoint, response_id, tokens, (1, number), None, start, end
                )
                reports.append(report)
            assert indexed.covers(report) is naive.covers(report)
            found += naive._claim(report)
    assert found > 300


def test_a_span_is_compared_with_few_of_many_calls_at_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a span costs does not grow with the calls at its time, whether others have taken them or not."""
    compared = 0
    may_be = Metered.may_be

    def counted(call: Metered, report: Report) -> bool:
        nonlocal compared
        compared += 1
        return may_be(call, report)

    monkeypatch.setattr(Metered, "may_be", counted)
    told = OwnCalls()
    told.active = True
    for number in range(CAPACITY):
        told.metered(
            Metered("openai", "chat.completions", None, 3, 4, number, number, 2 * CAPACITY)
        )
    for number in range(1_000):
        report = Report(
            LANGCHAIN,
            "openai",
            "chat.completions",
            None,
            (3, 4),
            (1, number),
            None,
            0,
            3 * CAPACITY,
        )
        assert told.covers(report)
    assert compared <= 4_000
