"""Other libraries wrap the SDK's methods too, before us or after us: that stays, and each call is one event."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, cast

import openai
import pytest
from openai.resources.chat.completions import AsyncCompletions, Completions

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.openai import clients, seam
from tests import replies, sdk
from tests.charges import MESSAGES
from tests.metering import RecordedEvents
from tests.provider import Provider, Reply

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}


class Wrapper:
    """A wrapper as wrapt makes them: it learns of the instance only by being bound, and cannot be called unbound."""

    def __init__(self, wrapped: Any, seen: list[object]) -> None:
        self.__wrapped__ = wrapped
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - as wrapt does
        return cast("Any", type(self.__wrapped__))

    def __get__(self, instance: object, owner: type[Any]) -> Any:
        if instance is None:
            return self
        bound = self.__wrapped__.__get__(instance, owner)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._seen.append(instance)
            return bound(*args, **kwargs)

        return call

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Fail as wrapt does where it does not know the instance."""
        raise TypeError("the instance is missing")


METHODS = [
    (Completions, "create", "sync"),
    (AsyncCompletions, "create", "async"),
    (openai.OpenAI, "request", "sync"),
    (openai.AsyncOpenAI, "request", "async"),
    (openai.OpenAI, "_process_response", "sync"),
    (openai.AsyncOpenAI, "_process_response", "async"),
]
Method = tuple[type[Any], str, str]


def wrapped(owner: type[Any], name: str, seen: list[object]) -> Wrapper:
    """Put a wrapper around a method, in place of what the class has."""
    wrapper = Wrapper(vars(owner).get(name) or getattr(owner, name), seen)
    setattr(owner, name, wrapper)
    return wrapper


def _give_back() -> None:
    """Take the keywords away, which go on for good once there has been a tracked client."""
    seam._tracked_clients = False
    seam.unpatch()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """The SDK's own classes, whatever a test has left, or leaves."""
    _give_back()
    before = [(owner, name, vars(owner).get(name)) for owner, name, _ in METHODS]
    yield
    CmdrDataInstrumentor().uninstrument()
    _give_back()
    for owner, name, method in before:
        if method is not None:
            setattr(owner, name, method)
        elif name in vars(owner):
            delattr(owner, name)


@pytest.fixture
def chat(provider: Provider) -> Callable[[str], None]:
    """Return a function that makes a call."""
    provider.answer(CHAT, Reply(json=replies.CHAT))

    def call(world: str) -> None:
        sdk.make(world, provider, "chat.completions.create", sdk.FORMS[0], dict(ARGUMENTS))

    return call


@pytest.mark.parametrize("method", METHODS, ids=lambda row: f"{row[0].__name__}.{row[1]}")
def test_a_wrapper_that_was_there_before(
    method: Method, events: RecordedEvents, chat: Callable[[str], None]
) -> None:
    """It is called with its instance, and is there again, the very object, when we have gone."""
    owner, name, world = method
    seen: list[object] = []
    wrapper = wrapped(owner, name, seen)
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(exporter=CmdrDataSpanExporter(delivery=events))
    chat(world)
    assert [True] == [isinstance(instance, owner) for instance in seen]
    assert 1 == len(events.bodies)
    instrumentor.uninstrument()
    assert wrapper is vars(owner)[name]
    chat(world)
    assert (2, 1) == (len(seen), len(events.bodies))


@pytest.mark.parametrize("method", METHODS, ids=lambda row: f"{row[0].__name__}.{row[1]}")
def test_a_wrapper_that_came_after(
    method: Method, events: RecordedEvents, chat: Callable[[str], None]
) -> None:
    """It stays when we go, and ours inside of it is quiet; when we come again, each call is one event again."""
    owner, name, world = method
    seen: list[object] = []
    exporter = CmdrDataSpanExporter(delivery=events)
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(exporter=exporter)
    wrapper = wrapped(owner, name, seen)
    chat(world)
    instrumentor.uninstrument()
    assert wrapper is vars(owner)[name]
    chat(world)
    assert (2, 1) == (len(seen), len(events.bodies))
    for number in (2, 3):
        instrumentor.instrument(exporter=exporter)
        chat(world)
        instrumentor.uninstrument()
        assert wrapper is vars(owner)[name]
        assert number == len(events.bodies)
    assert 4 == len(seen)


PROGRAM = """
import importlib, sys
import openai
from tests import metering

recorded = metering.RecordedEvents()

def instrument():
    from cmdrdata_exporter import CmdrDataSpanExporter
    from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
    CmdrDataInstrumentor().instrument(exporter=CmdrDataSpanExporter(delivery=recorded))

def client():
    import openai
    return openai.OpenAI(base_url=sys.argv[1], api_key="sk-test", max_retries=0)

def call(client):
    client.chat.completions.create(model="gpt-4o-mini", messages=[])
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=[], stream=True)
    list(stream)

def purge(*packages):
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            del sys.modules[name]

OURS = "opentelemetry_instrumentation_cmdrdata"
instrument()
early = client()
call(early)
assert len(recorded.bodies) == 2, len(recorded.bodies)
"""

CALLS = """
call(early)
call(client())
print(len(recorded.bodies))
"""

RELOADS = {
    "our package": "import opentelemetry_instrumentation_cmdrdata as ours; importlib.reload(ours); instrument()",
    "our patches": "importlib.reload(sys.modules[OURS + '.openai.seam']);"
    "importlib.reload(sys.modules[OURS]); instrument()",
    "our modules": "purge(OURS); instrument()",
    "all of ours": "purge(OURS, 'cmdrdata_exporter'); instrument()",
    "the SDK's package": "importlib.reload(openai)",
}


PURGES = {
    "the SDK": "purge('openai')",
    "the SDK, twice": "purge('openai'); client(); purge('openai')",
    "the SDK and our package": "purge('openai', OURS); instrument()",
    "the SDK, then our package": "purge('openai'); import openai; purge(OURS); instrument()",
}

CALLS_OF_BOTH = """
fresh = client()
assert type(fresh) is not type(early)
for one in (early, fresh):
    one.chat.completions.create(model="gpt-4o-mini", messages=[], customer_id="acme")
list(fresh.chat.completions.create(model="gpt-4o-mini", messages=[], stream=True))
fresh.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=[], stream=True).parse().response.close()
metered = len(recorded.bodies)

from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
CmdrDataInstrumentor().uninstrument()
for one in (early, fresh):
    one.chat.completions.create(model="gpt-4o-mini", messages=[])
left = [finder for finder in sys.meta_path if type(finder).__module__.startswith(OURS)]
print(metered, len(recorded.bodies), left)
"""


def _output(provider: Provider, *parts: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", "\n".join((PROGRAM, *parts)), provider.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return finished.stdout or finished.stderr


@pytest.mark.parametrize("reload", RELOADS)
def test_modules_that_are_loaded_again(reload: str, provider: Provider) -> None:
    """Whatever is loaded again, each call is one event: never two, never none."""
    provider.answer(CHAT, *[Reply(json=replies.CHAT), Reply(events=replies.chat_chunks())] * 3)
    assert "6\n" == _output(provider, RELOADS[reload], CALLS)


@pytest.mark.parametrize("purge", PURGES)
def test_an_sdk_that_is_purged_and_imported_again(purge: str, provider: Provider) -> None:
    """Clients of the old copy and of the new one are metered alike, and nothing is left when we go."""
    chat, stream = Reply(json=replies.CHAT), Reply(events=replies.chat_chunks())
    provider.answer(CHAT, chat, stream, chat, chat, stream, stream, chat, chat)
    assert "6 6 []\n" == _output(provider, PURGES[purge], CALLS_OF_BOTH)


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("setting", "asked"), [("always", True), ("never", False), (None, False)])
def test_tracked_clients_obey_the_setting(
    setting: str | None,
    asked: bool,
    world: str,
    provider: Provider,
    request: pytest.FixtureRequest,
) -> None:
    """A tracked client asks for the usage of streams as the environment says, instrumented or not."""
    import asyncio

    from opentelemetry_instrumentation_cmdrdata import AsyncTrackedOpenAI, TrackedOpenAI

    if setting is not None:
        request.getfixturevalue("monkeypatch").setenv("CMDRDATA_STREAM_USAGE", setting)
    events: RecordedEvents = request.getfixturevalue("events")
    CmdrDataSpanExporter(delivery=events)  # Built last, so it meters.
    chunks = replies.chat_chunks() if asked else replies.chat_chunks(usage=None)
    provider.answer(CHAT, Reply(events=chunks))
    options: dict[str, Any] = {"base_url": provider.url, "api_key": "sk-test", "max_retries": 0}
    arguments: dict[str, Any] = {**ARGUMENTS, "stream": True}
    if world == "sync":
        with TrackedOpenAI(**options) as tracked:
            completions: Any = tracked.chat.completions
            seen: list[Any] = list(completions.create(**arguments))
    else:

        async def run() -> list[Any]:
            async with AsyncTrackedOpenAI(**options) as tracked:
                completions: Any = tracked.chat.completions
                return [chunk async for chunk in await completions.create(**arguments)]

        seen = asyncio.run(run())
    assert asked is ("stream_options" in provider.requests[0].json)
    assert len(replies.chat_chunks(usage=None)) == len(seen)
    assert ["reported" if asked else "missing"] == [
        event["metadata"]["usage_status"] for event in events.wire
    ]


def test_a_method_that_somebody_has_put_back(provider: Provider, events: RecordedEvents) -> None:
    """Whoever puts the SDK's own method in the place of ours keeps nobody from instrumenting again."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    resource: Any = Completions
    methods: dict[str, Any] = dict(vars(Completions))
    clients.TrackedOpenAI(base_url=provider.url, api_key="sk-test").close()
    resource.create = methods["create"]
    CmdrDataInstrumentor().instrument(exporter=CmdrDataSpanExporter(delivery=events))
    arguments = {**ARGUMENTS, "customer_id": "acme"}
    sdk.make("sync", provider, "chat.completions.create", sdk.FORMS[0], arguments)
    assert ["acme"] == [event["customer_id"] for event in events.wire]
