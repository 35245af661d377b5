"""Who pays, as a call, its client or its context says; and that nothing of it reaches the provider."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.resources.chat import Completions
from openai.types.chat import ChatCompletion

from cmdrdata_exporter import CmdrDataSpanExporter, Settings, customer_context, faults, runtime
from opentelemetry_instrumentation_cmdrdata import (
    AsyncTrackedAzureOpenAI,
    AsyncTrackedOpenAI,
    CmdrDataInstrumentor,
    TrackedAzureOpenAI,
    TrackedOpenAI,
    bind_customer,
)
from opentelemetry_instrumentation_cmdrdata.openai import keywords
from tests import replies
from tests.charges import MESSAGES, Case
from tests.conftest import nothing
from tests.metering import Meter, RecordedEvents, attributes
from tests.provider import Provider, Reply
from tests.sdk import FORMS, VERSION, Form, async_client, client, make
from tests.test_calls import ROWS

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}
KEYWORDS: dict[str, Any] = {"customer_id": "acme", "usage_metadata": {"plan": "pro"}}


def create_of(client: Any) -> Any:
    """Return a client's `chat.completions.create`; the SDK's types do not know the keywords."""
    return client.chat.completions.create


def who(events: list[dict[str, Any]]) -> list[tuple[Any, Any]]:
    """Return the customer and plan of each event."""
    return [(event["customer_id"], event["metadata"].get("plan")) for event in events]


@pytest.fixture
def chat(provider: Provider) -> Provider:
    """A provider that answers a chat."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    return provider


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("case", "form"), ROWS)
def test_keywords_on_every_method(
    case: Case, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """Every metered method takes the keywords in each of its forms, and the provider sees nothing of them."""
    provider.answer(case.path, case.reply(form))
    make(world, provider, case.method, form, {**case.arguments, **KEYWORDS})
    make(world, provider, case.method, form, dict(case.arguments))

    assert who(meter.events()) == [("acme", "pro"), (None, None)]
    span = meter.spans()[0]
    assert {
        k: v for k, v in attributes(span).items() if k.startswith("cmdrdata.") and "usage" not in k
    } == {
        "cmdrdata.customer.id": "acme",
        "cmdrdata.metadata.plan": "pro",
    }
    with_us, without_us = (sent(request) for request in provider.requests)
    assert with_us == without_us
    assert "acme" not in str(provider.requests)
    assert "CmdrData".lower() not in str(provider.requests).lower()


def sent(request: Any) -> tuple[Any, ...]:
    """Return what the provider received, without what differs between any two requests."""
    headers = {k: v for k, v in request.headers.items() if k not in ("host", "idempotency-key")}
    body = request.body
    _, found, boundary = headers.get("content-type", "").partition("boundary=")
    if found:
        body = body.replace(boundary.encode(), b"BOUNDARY")
        headers["content-type"] = "multipart"
        headers.pop("content-length", None)
    return request.method, request.path, headers, body


@pytest.mark.parametrize("world", ["sync", "async"])
def test_what_prevails(world: str, chat: Provider, meter: Meter) -> None:
    """The call's own keyword, then the client's customer, then the context's; metadata goes with its customer."""

    def calls(sdk: Any) -> list[tuple[Any, dict[str, Any]]]:
        bound = bind_customer(sdk, "bound", plan="of bound")
        return [
            (sdk, {}),
            (sdk, {"customer_id": "called"}),
            (sdk, {"usage_metadata": {"plan": "of call"}}),
            (bound, {}),
            (bound, {"customer_id": "called"}),
            (bound, {"customer_id": None, "usage_metadata": {"plan": "of call"}}),
            (bound.with_options(max_retries=1), {}),
            (bound.copy(), {}),
        ]

    with customer_context("context", plan="of context"):
        if world == "sync":
            with client(chat) as sync:
                for sdk, keywords in calls(sync):
                    create_of(sdk)(**ARGUMENTS, **keywords)
        else:

            async def run() -> None:
                async with async_client(chat) as asynchronous:
                    for sdk, keywords in calls(asynchronous):
                        await create_of(sdk)(**ARGUMENTS, **keywords)

            asyncio.run(run())
    assert who(meter.events()) == [
        ("context", "of context"),
        ("called", None),
        ("context", "of call"),
        ("bound", "of bound"),
        ("called", None),
        ("bound", "of call"),
        ("bound", "of bound"),
        ("bound", "of bound"),
    ]


def test_a_bound_client(chat: Provider, meter: Meter) -> None:
    """A bound client is of the same type, and neither it nor its headers tell the customer to anyone."""
    with client(chat) as sync:
        bound = bind_customer(sync, "secret-customer")
        assert type(bound) is type(sync)
        assert "secret-customer" not in repr(bound.default_headers)
        create_of(bound)(**ARGUMENTS)
        create_of(sync)(**ARGUMENTS)
    assert who(meter.events()) == [("secret-customer", None), (None, None)]
    assert "secret-customer" not in str(chat.requests)


COPIES: dict[str, Callable[[Any], Any]] = {
    "with_options": lambda sdk: sdk.with_options(set_default_headers={"x-mine": "1"}),
    "copy": lambda sdk: sdk.copy(set_default_headers={}),
    "of a copy": lambda sdk: sdk.copy(max_retries=1).copy(set_default_headers={}),
    "with more headers": lambda sdk: sdk.with_options(default_headers={"x-mine": "1"}),
}
"""Ways to copy a client, by what is done."""


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_of_bound_clients(copy: Callable[[Any], Any], chat: Provider, meter: Meter) -> None:
    """A copy of a bound client keeps its customer, whichever headers it is given; bound anew, it has another."""
    with client(chat) as sync:
        bound = copy(bind_customer(sync, "acme", plan="pro"))
        again = copy(bind_customer(bound, "globex"))
        for sdk in (bound, again, bound, copy(sync)):
            create_of(sdk)(**ARGUMENTS)
        assert type(sync) is type(bound) is type(again)
    assert who(meter.events()) == [("acme", "pro"), ("globex", None), ("acme", "pro"), (None, None)]
    assert "acme" not in str(chat.requests)


def test_copies_of_async_and_azure_clients(
    provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of the other clients of the SDK."""
    # Copies of the oldest Azure clients do not know the version.
    monkeypatch.setenv("OPENAI_API_VERSION", "2024-10-21")
    provider.answer(CHAT, Reply(json=replies.CHAT))
    provider.answer("/openai/deployments/mine/chat/completions", Reply(json=replies.CHAT))

    async def run() -> None:
        async with async_client(provider) as asynchronous:
            bound = bind_customer(asynchronous, "acme").with_options(set_default_headers={})
            await create_of(bound)(**ARGUMENTS)

    asyncio.run(run())
    with openai.AzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{provider.port}",
        api_key="azure",
        api_version="2024-10-21",
    ) as azure:
        bound = bind_customer(azure, "globex").with_options(set_default_headers={})
        create_of(bound)(model="mine", messages=[])
    assert who(meter.events()) == [("acme", None), ("globex", None)]


def wrap(client: Any) -> list[tuple[Any, ...]]:
    """Replace a method on a client's resource, as LangSmith and others do, and return what it is called with."""
    calls: list[tuple[Any, ...]] = []
    original = client.chat.completions.create

    def create(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, {name: value for name, value in kwargs.items() if name in ARGUMENTS}))
        return original(*args, **kwargs)

    client.chat.completions.create = create
    return calls


def test_bound_clients_that_others_have_wrapped(chat: Provider, events: RecordedEvents) -> None:
    """What others have put on a client before us is on its bound client too, which takes the keywords."""
    with client(chat) as sync:
        calls = wrap(sync)
        CmdrDataInstrumentor().instrument(exporter=CmdrDataSpanExporter(delivery=events))
        try:
            bound = bind_customer(sync, "acme", plan="pro")
            again = bind_customer(bound, "globex")
            create_of(bound)(**ARGUMENTS)
            create_of(bound)(**ARGUMENTS, customer_id="called")
            create_of(bound)(**ARGUMENTS, usage_metadata={"plan": "of call"})
            create_of(bound)(**ARGUMENTS, track_usage=False)
            create_of(again)(**ARGUMENTS)
            create_of(sync)(**ARGUMENTS)
            with customer_context("context"):
                create_of(sync)(**ARGUMENTS)
        finally:
            CmdrDataInstrumentor().uninstrument()
        with pytest.raises(TypeError, match="customer_id"):
            create_of(bound)(**ARGUMENTS, customer_id="acme")
    assert [((), ARGUMENTS)] * 8 == calls
    assert who(events.wire) == [
        ("acme", "pro"),
        ("called", None),
        ("acme", "of call"),
        ("globex", None),
        (None, None),
        ("context", None),
    ]
    assert "acme" not in str(chat.requests)


def test_async_bound_clients_that_others_have_wrapped(
    chat: Provider, events: RecordedEvents
) -> None:
    """The same of coroutine functions, which stay such."""

    async def run() -> None:
        async with async_client(chat) as sdk:
            original = sdk.chat.completions.create

            async def create(*args: Any, **kwargs: Any) -> Any:
                return await original(*args, **kwargs)

            setattr(sdk.chat.completions, "create", create)  # noqa: B010 - as others do
            bound = bind_customer(sdk, "acme")
            assert inspect.iscoroutinefunction(create_of(bound))
            CmdrDataInstrumentor().instrument(exporter=CmdrDataSpanExporter(delivery=events))
            await create_of(bound)(**ARGUMENTS)
            await create_of(bound)(**ARGUMENTS, customer_id="called")

    try:
        asyncio.run(run())
    finally:
        CmdrDataInstrumentor().uninstrument()
    assert who(events.wire) == [("acme", None), ("called", None)]


class Alike(openai.OpenAI):
    """A client that is equal to every other, and has no hash where the SDK needs none."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike)

    if VERSION >= (2, 0):
        __hash__ = None  # pyright: ignore[reportAssignmentType]
    else:

        def __hash__(self) -> int:
            """Be the same too: the SDK itself needs a hash."""
            return 0


def test_clients_without_a_hash(chat: Provider, meter: Meter) -> None:
    """A client is metered whatever its class takes for equal, each with its own server."""
    with Provider() as other:
        other.answer(CHAT, Reply(json=replies.CHAT))
        for provider in (chat, other):
            with Alike(base_url=provider.url, api_key="sk-test") as sdk:
                create_of(sdk)(**ARGUMENTS)
        assert [chat.port, other.port] == [
            attributes(span)["server.port"] for span in meter.spans()
        ]
    assert 2 == len(meter.events())


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("world", ["sync", "async"])
def test_calls_that_are_not_tracked(
    form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """`track_usage=False` leaves the span, which says so, and makes no event."""
    reply = Reply(events=replies.chat_chunks()) if form.streaming else Reply(json=replies.CHAT)
    provider.answer(CHAT, reply)
    arguments = {**ARGUMENTS, "track_usage": False}
    make(world, provider, "chat.completions.create", form, arguments)
    assert meter.events() == []
    (span,) = meter.spans()
    assert attributes(span)["cmdrdata.tracked"] is False


def test_openais_own_arguments(provider: Provider, meter: Meter) -> None:
    """`metadata` and `user` are OpenAI's, and go to it."""
    provider.answer("/v1/chat/completions", Reply(json=replies.CHAT))
    extra = {"metadata": {"theirs": "x"}}
    with client(provider) as sync:
        create_of(sync)(**ARGUMENTS, user="u", extra_body=extra, **KEYWORDS)
    body = provider.requests[0].json
    assert (body["user"], body["metadata"]) == ("u", {"theirs": "x"})
    assert "theirs" not in str(meter.events())


def test_calls_that_fail_and_calls_that_are_retried(provider: Provider, meter: Meter) -> None:
    """Nothing of the keywords is in a request that fails, nor in one that is tried again."""
    provider.answer(
        CHAT,
        Reply(status=500, json={}, headers={"retry-after-ms": "1"}),
        Reply(status=401, json=replies.REFUSAL),
    )
    with client(provider, max_retries=1) as sync, pytest.raises(openai.AuthenticationError):
        create_of(sync)(**ARGUMENTS, **KEYWORDS)
    assert len(provider.requests) == 2
    assert "acme" not in str(provider.requests)
    assert who(meter.events()) == [("acme", "pro")]


@pytest.mark.parametrize(
    ("customer_id", "reason", "written"),
    [
        (7, "not a string", "7"),
        ("", "empty", "''"),
        ("a\r\nb", "holds control characters", r"'a\r\nb'"),
        ("x" * 257, "longer than 256 characters", f"'{'x' * 256}'…"),
    ],
)
def test_odd_customers(
    customer_id: Any, reason: str, written: str, chat: Provider, meter: Meter
) -> None:
    """A customer that cannot be billed never fails a call; its event belongs to nobody."""
    with client(chat) as sync, customer_context("context"):
        create_of(sync)(**ARGUMENTS, customer_id=customer_id)
        assert create_of(bind_customer(sync, customer_id))(**ARGUMENTS)
    events = meter.events()
    assert who(events) == [(None, None), (None, None)]
    assert [(reason, written)] * 2 == [
        (event["metadata"]["customer_refused"], event["metadata"]["customer_refused_value"])
        for event in events
    ]
    assert dict(faults.counts) == {f"customer id {reason}": 2}
    faults.counts.clear()


@pytest.mark.parametrize("customer_id", ["someone@example.com", "org:1", "ü 漢 / #", "x" * 256])
def test_customers_as_they_are(customer_id: str, chat: Provider, meter: Meter) -> None:
    """Any string is a customer, byte for byte."""
    with client(chat) as sync:
        create_of(sync)(**ARGUMENTS, customer_id=customer_id)
    assert who(meter.events()) == [(customer_id, None)]


def test_odd_metadata(chat: Provider, meter: Meter) -> None:
    """Metadata of any kind is kept as far as it can be; the log says once what was cut."""
    metadata = {
        "number": 1.5,
        "flag": True,
        "list": ["a", "b"],
        "long": "x" * 2000,
        "object": {"a": 1},
        **{f"key{number}": number for number in range(70)},
    }
    with client(chat) as sync:
        create_of(sync)(**ARGUMENTS, usage_metadata=metadata)
        create_of(sync)(**ARGUMENTS, usage_metadata="none")
    kept = meter.events()[0]["metadata"]
    assert [kept[key] for key in ("number", "flag", "list", "object")] == [
        1.5,
        True,
        ["a", "b"],
        "{'a': 1}",
    ]
    assert kept["long"] == "x" * 1024
    assert sum(key.startswith("key") for key in kept) == 64 - 5
    assert dict(faults.counts) == {
        "long metadata": 1,
        "metadata of another type": 1,
        "too much metadata": 1,
        "usage_metadata": 1,
    }
    faults.counts.clear()


def test_integers_of_any_length(meter: Meter, chat: Provider) -> None:
    """What has more than 64 bits goes as text: OTLP has no room for it, and Python writes no 5,000 digits."""
    metadata: dict[str, Any] = {
        "largest": 2**63 - 1,
        "least": -(2**63) + 1,
        "larger": 2**63,
        "list": [1, 2**70],
        "huge": 10**5000,
    }
    with client(chat) as sync:
        create_of(sync)(**ARGUMENTS, usage_metadata=metadata)
    [event] = meter.events()
    assert {
        "largest": 2**63 - 1,
        "least": -(2**63) + 1,
        "larger": "9223372036854775808",
        "list": ["1", "1180591620717411303424"],
        "huge": hex(10**5000)[:1024],
    } == {key: event["metadata"][key] for key in metadata}
    for finished in meter.spans():
        for name, value in (finished.attributes or {}).items():
            assert not isinstance(value, int) or value.bit_length() < 64, name
    assert {"long metadata": 1} == dict(faults.counts)
    faults.counts.clear()


def test_without_the_instrumentor(chat: Provider) -> None:
    """Without us the keywords are the SDK's to refuse, and its methods are its own."""
    before = vars(Completions)["create"]
    CmdrDataInstrumentor().instrument()
    during = vars(Completions)["create"]
    assert during is not before
    assert inspect.signature(during) == inspect.signature(before)
    CmdrDataInstrumentor().uninstrument()
    assert vars(Completions)["create"] is before
    with client(chat) as sync, pytest.raises(TypeError, match="customer_id"):
        create_of(sync)(**ARGUMENTS, customer_id="acme")


def test_requests_that_are_not_metered(provider: Provider, meter: Meter) -> None:
    """The keywords are dropped also where the endpoint is unknown to us."""
    provider.answer("/v1/chat/completions/chatcmpl-1", Reply(json={**replies.CHAT, "metadata": {}}))
    attributed: Any = {keywords.HEADER: keywords.Attribution("acme")}
    with client(provider) as sync:
        sync.get(
            "/chat/completions/chatcmpl-1", cast_to=ChatCompletion, options={"headers": attributed}
        )
    assert "acme" not in str(provider.requests)
    assert keywords.HEADER.lower() not in provider.requests[0].headers
    assert meter.events() == []


def test_many_customers_at_once(provider: Provider, meter: Meter) -> None:
    """Tasks and threads with customers of their own, streams read elsewhere: every event has its own customer."""
    chunks = replies.chat_chunks()
    provider.answer(CHAT, Reply(events=chunks))

    async def run() -> None:
        # Several clients: the oldest SDK opens a hundred connections at most.
        async with (
            async_client(provider) as one,
            async_client(provider) as other,
            async_client(provider) as third,
        ):
            creates = [create_of(sdk) for sdk in (one, other, third)]

            async def task(number: int) -> Any:
                with customer_context(f"task-{number}", plan=f"plan-{number}"):
                    return await creates[number % 3](stream=True, **ARGUMENTS)

            streams = await asyncio.gather(*(task(number) for number in range(200)))
            with customer_context("reader"):
                iterators = [stream.__aiter__() for stream in streams]
                for _ in chunks:
                    for iterator in iterators:
                        await anext(iterator)
                for iterator in iterators:
                    assert await anext(iterator, None) is None

    asyncio.run(run())

    opened: list[Any] = []

    def work(number: int) -> None:
        with customer_context(f"thread-{number}", plan=f"plan-{number}"):
            create = create_of(sync)
            opened.append(create(stream=True, **ARGUMENTS))

    with client(provider) as sync:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for stream in opened:
            assert len(list(stream)) == len(chunks)
    assert sorted(who(meter.events())) == sorted(
        [(f"task-{number}", f"plan-{number}") for number in range(200)]
        + [(f"thread-{number}", f"plan-{number}") for number in range(16)]
    )


# --- Clients that are tracked by themselves ---------------------------------------------------


def tracked(provider: Provider, events: RecordedEvents, **options: Any) -> TrackedOpenAI:
    """Return a client of the stand-in that is metered by itself."""
    CmdrDataSpanExporter(delivery=events)  # Built last, so it meters.
    return TrackedOpenAI(base_url=provider.url, api_key="sk-test", max_retries=0, **options)


@pytest.mark.parametrize("instrumented", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_tracked_client(
    form: Form, instrumented: bool, provider: Provider, events: RecordedEvents
) -> None:
    """A drop-in client is an OpenAI client whose calls are metered once, with the instrumentor or without it."""
    reply = Reply(events=replies.chat_chunks()) if form.streaming else Reply(json=replies.CHAT)
    provider.answer(CHAT, reply)
    if instrumented:
        CmdrDataInstrumentor().instrument()
    try:
        with tracked(provider, events, customer_id="mine") as sdk:
            assert isinstance(sdk, openai.OpenAI)
            for one, keywords in (
                (sdk, {}),
                (sdk, KEYWORDS),
                (sdk.with_options(max_retries=1), {}),
                (sdk, {"track_usage": False}),
            ):
                form.run(one.chat.completions, "create", {**ARGUMENTS, **keywords})
    finally:
        CmdrDataInstrumentor().uninstrument()
    assert who(events.wire) == [("mine", None), ("acme", "pro"), ("mine", None)]
    assert "acme" not in str(provider.requests)


@pytest.mark.parametrize("instrumented", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_an_async_tracked_client(
    form: Form, instrumented: bool, provider: Provider, events: RecordedEvents
) -> None:
    """The asynchronous drop-in behaves as the other."""
    reply = Reply(events=replies.chat_chunks()) if form.streaming else Reply(json=replies.CHAT)
    provider.answer(CHAT, reply)
    CmdrDataSpanExporter(delivery=events)
    if instrumented:
        CmdrDataInstrumentor().instrument()

    async def run() -> None:
        options: Any = {"base_url": provider.url, "api_key": "sk-test", "max_retries": 0}
        async with AsyncTrackedOpenAI(**options) as sdk:
            assert isinstance(sdk, openai.AsyncOpenAI)
            await form.arun(sdk.chat.completions, "create", {**ARGUMENTS, **KEYWORDS})

    try:
        asyncio.run(run())
    finally:
        CmdrDataInstrumentor().uninstrument()
    assert who(events.wire) == [("acme", "pro")]


def test_ordinary_clients_beside_tracked_ones(chat: Provider, events: RecordedEvents) -> None:
    """A drop-in client changes nothing for the SDK's own clients: no events, and no keywords."""
    with tracked(chat, events) as sdk, client(chat) as sync:
        create_of(sdk)(**ARGUMENTS)
        create_of(sync)(**ARGUMENTS)
        with pytest.raises(TypeError, match="customer_id"):
            create_of(sync)(**ARGUMENTS, customer_id="acme")
    assert len(events.wire) == 1


def test_azure_clients(provider: Provider, events: RecordedEvents) -> None:
    """There are Azure counterparts, sync and async."""
    path = "/openai/deployments/mine/chat/completions"
    provider.answer(path, Reply(json=replies.CHAT))
    CmdrDataSpanExporter(delivery=events)
    options: Any = {
        "azure_endpoint": f"http://127.0.0.1:{provider.port}",
        "api_key": "azure",
        "api_version": "2024-10-21",
        "customer_id": "acme",
    }
    with TrackedAzureOpenAI(**options) as sdk:
        create_of(sdk)(model="mine", messages=[])

    async def run() -> None:
        async with AsyncTrackedAzureOpenAI(**options) as sdk:
            await create_of(sdk)(model="mine", messages=[])

    asyncio.run(run())
    assert [(e["customer_id"], e["provider"]) for e in events.wire] == [
        ("acme", "azure.ai.openai")
    ] * 2


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_copies_of_tracked_clients(
    copy: Callable[[Any], Any],
    chat: Provider,
    events: RecordedEvents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy of a drop-in client keeps its account, its customer, and that it is not tracked."""
    own = RecordedEvents()
    monkeypatch.setattr(runtime, "announce_destination", nothing)
    monkeypatch.setattr(runtime.process, "delivery", lambda _: (own, None))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with (
        tracked(chat, events, customer_id="mine", tracker_key="tk-0123456789abcdefghij") as sdk,
        tracked(chat, events, track_usage=False) as untracked,
    ):
        create_of(copy(sdk))(**ARGUMENTS)
        create_of(copy(bind_customer(copy(sdk), "acme")))(**ARGUMENTS)
        create_of(copy(untracked))(**ARGUMENTS)
        create_of(bind_customer(copy(untracked), "acme"))(**ARGUMENTS)
    assert ([("mine", None), ("acme", None)], []) == (who(own.wire), who(events.wire))


def test_two_accounts(chat: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two clients with two keys deliver to two accounts, and neither meters the rest of the process."""
    deliveries: dict[str, RecordedEvents] = {}

    def delivery_of(settings: Settings) -> tuple[RecordedEvents, None]:
        return deliveries.setdefault(settings.account, RecordedEvents()), None

    monkeypatch.setattr(runtime, "announce_destination", nothing)
    monkeypatch.setattr(runtime.process, "delivery", delivery_of)
    for number in (1, 2, 2):
        options: Any = {"base_url": chat.url, "api_key": "sk-test"}
        with TrackedOpenAI(tracker_key=f"tk-0123456789abcdefgh{number}", **options) as sdk:
            create_of(sdk)(**ARGUMENTS, customer_id="acme")
    assert sorted(len(events.wire) for events in deliveries.values()) == [1, 2]


def test_arguments_of_the_predecessor(chat: Provider, events: RecordedEvents) -> None:
    """What `cmdrdata-openai` took makes a client here too, also of copies, and never reaches the SDK."""
    with tracked(chat, events, tracker_timeout=10.0, track_usage=True, timeout=20.0) as sdk:
        copy = sdk.with_options(max_retries=1)
        create_of(copy)(**ARGUMENTS, customer_id="acme")
        assert (20.0, 20.0) == (sdk.timeout, copy.timeout)
    assert who(events.wire) == [("acme", None)]


def test_a_tracker_key_that_cannot_be_used() -> None:
    """A malformed CmdrData key is refused when the client is made, and not printed."""
    from cmdrdata_exporter import ConfigurationError

    with pytest.raises(ConfigurationError, match="characters") as raised:
        TrackedOpenAI(api_key="sk-test", tracker_key="tk-short-secret")
    assert "secret" not in str(raised.value)


WAYS = ("keyword", "client", "context", "default")


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("case", "form"), [row for row in ROWS if str(row.id).endswith("-plain")])
def test_every_way_for_every_method(  # noqa: PLR0917 - the matrix
    case: Case, form: Form, way: str, world: str, provider: Provider, events: RecordedEvents
) -> None:
    """Each method is attributed by each of the ways, in both worlds."""
    provider.answer(case.path, case.reply(form))
    default = "acme" if way == "default" else None
    exporter = CmdrDataSpanExporter(customer_id=default, delivery=events)
    CmdrDataInstrumentor().instrument(exporter=exporter)
    arguments = {**case.arguments, **({"customer_id": "acme"} if way == "keyword" else {})}
    bound: Any = {keywords.HEADER: keywords.Attribution("acme")}
    options = {"default_headers": bound} if way == "client" else {}
    try:
        if way == "context":
            with customer_context("acme"):
                make(world, provider, case.method, form, arguments, **options)
        else:
            make(world, provider, case.method, form, arguments, **options)
    finally:
        CmdrDataInstrumentor().uninstrument()
    assert [event["customer_id"] for event in events.wire] == ["acme"]
    assert "acme" not in str(provider.requests)
