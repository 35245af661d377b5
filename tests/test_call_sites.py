"""Which line of the application makes a call, who is told, and what is never told."""

from __future__ import annotations

import asyncio
import json
import os
import site
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cmdrdata_exporter import CmdrDataSpanExporter, call_sites, customer_context, faults
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, TrackedOpenAI
from tests import replies
from tests.metering import Meter, RecordedEvents, attributes
from tests.provider import Provider, Reply
from tests.sdk import async_client, client
from tests.test_jobs import TUNED, TUNING

CHAT = "/v1/chat/completions"
QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
FILE = "tests/test_call_sites.py"
CODE = ("code.file.path", "code.line.number", "code.function.name")
QUALIFIED = sys.version_info >= (3, 11)


class Shop:
    """An application."""

    def ask(self, sdk: Any, **options: Any) -> Any:
        """Make a call."""
        return sdk.chat.completions.create(**QUESTION, **options)

    async def aask(self, sdk: Any) -> Any:
        """Make a call."""
        return await sdk.chat.completions.create(**QUESTION)


def line_of(function: Any, offset: int = 2) -> str:
    """Return what an event says of the line `offset` lines below a function's first."""
    code = function.__code__
    name: str = getattr(code, "co_qualname", code.co_name)
    return f"{FILE}:{code.co_firstlineno + offset} {name}"


ASK, AASK = line_of(Shop.ask), line_of(Shop.aask)


def sites(events: RecordedEvents) -> list[str | None]:
    """Return what the events say."""
    return [event["metadata"].get("call_site") for event in events.wire]


@pytest.fixture
def chat(provider: Provider) -> Provider:
    """A provider that answers every chat."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    return provider


def metered(
    chat: Provider, events: RecordedEvents, run: Callable[[Provider], None]
) -> list[dict[str, Any]]:
    """Meter what a function does; return the attributes of the spans that say where calls are made."""
    spans = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(spans))
    CmdrDataInstrumentor().instrument(
        tracer_provider=tracer_provider, exporter=CmdrDataSpanExporter(delivery=events)
    )
    try:
        run(chat)
    finally:
        CmdrDataInstrumentor().uninstrument()
    return [
        {name: value for name, value in attributes(span).items() if name in CODE}
        for span in spans.get_finished_spans()
    ]


def ask_for_all_kinds(chat: Provider) -> None:
    """Make calls of nobody, of a customer, of someone who cannot be billed, and one that is not tracked."""
    with client(chat) as sdk:
        Shop().ask(sdk)
        Shop().ask(sdk, customer_id="acme")
        Shop().ask(sdk, customer_id="")
        Shop().ask(sdk, track_usage=False)
    faults.counts.clear()  # That nobody can bill the empty customer is reported.


@pytest.mark.parametrize(
    ("setting", "expected", "on_spans"),
    [
        (None, [ASK, None, ASK], False),
        ("unattributed", [ASK, None, ASK], False),
        ("true", [ASK] * 3, True),
        ("1", [ASK] * 3, True),
        ("false", [None] * 3, False),
        ("0", [None] * 3, False),
    ],
)
def test_who_is_told(
    setting: str | None,
    expected: list[str | None],
    *,
    on_spans: bool,
    chat: Provider,
    events: RecordedEvents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default the events of calls that nobody pays for; all events and spans where asked for; else nobody."""
    if setting is not None:
        monkeypatch.setenv("CMDRDATA_CALL_SITE", setting)
    spans = metered(chat, events, ask_for_all_kinds)
    assert expected == sites(events)
    function = "Shop.ask" if QUALIFIED else "ask"
    line = int(ASK.partition(":")[2].partition(" ")[0])
    told = dict(zip(CODE, (FILE, line, function), strict=True)) if on_spans else {}
    assert [told] * 4 == spans


def test_the_default_customer_pays(
    chat: Provider, events: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that the default customer pays for is no call of nobody; one whose customer was refused is."""
    monkeypatch.setenv("CMDRDATA_CUSTOMER_ID", "initech")
    metered(chat, events, ask_for_all_kinds)
    assert [None, None, ASK] == sites(events)


def test_a_tracked_client_alone(
    chat: Provider, events: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call of a process tells it, too, though no exporter has read the setting before."""
    monkeypatch.setenv("CMDRDATA_CALL_SITE", "true")
    with TrackedOpenAI(base_url=chat.url, api_key="sk-test") as sdk:
        CmdrDataSpanExporter(delivery=events)
        monkeypatch.setattr(call_sites, "of_all", None)
        Shop().ask(sdk, customer_id="acme")
    assert [ASK] == sites(events)


def test_a_key_of_the_users_own(chat: Provider, meter: Meter) -> None:
    """Whoever has a key of this name finds it renamed, whether or not there is a call site."""
    with client(chat) as sdk, customer_context("acme", call_site="mine"):
        Shop().ask(sdk)
    assert faults.counts.pop("metadata key call_site") == 1
    (event,) = meter.recorded.wire
    assert "call_site" not in event["metadata"]
    assert event["metadata"]["user_call_site"] == "mine"


def test_awaited(chat: Provider, meter: Meter) -> None:
    """A coroutine is made by the line that awaits it, however the task was started."""

    async def run() -> None:
        async with async_client(chat) as sdk:
            await Shop().aask(sdk)
            await asyncio.gather(Shop().aask(sdk), asyncio.create_task(Shop().aask(sdk)))

    asyncio.run(run())
    assert [AASK] * 3 == sites(meter.recorded)


def test_a_task_of_the_sdks_own_coroutine(chat: Provider, meter: Meter) -> None:
    """Where a task was made of the SDK's coroutine, the application's frame is the one that runs the loop."""

    async def run() -> None:
        async with async_client(chat) as sdk:
            create: Any = sdk.chat.completions.create
            await asyncio.gather(create(**QUESTION))

    asyncio.run(run())
    (found,) = sites(meter.recorded)
    assert found is not None
    assert found.startswith(f"{FILE}:")
    assert found.endswith(" test_a_task_of_the_sdks_own_coroutine")


def test_streams(provider: Provider, meter: Meter) -> None:
    """A stream is put down to the line that began it, not to the one that reads it."""
    provider.answer(CHAT, Reply(events=[]))
    with client(provider) as sdk:
        stream = Shop().ask(sdk, stream=True)
        list(stream)
    assert [ASK] == sites(meter.recorded)


def test_threads(chat: Provider, meter: Meter) -> None:
    """In a thread the application's frame is told where there is one, and nothing where there is none."""
    with client(chat) as sdk:
        create: Any = sdk.chat.completions.create
        with ThreadPoolExecutor(1) as pool:
            pool.submit(Shop().ask, sdk).result()
            pool.submit(create, **QUESTION).result()
        thread = threading.Thread(target=create, kwargs=QUESTION)
        thread.start()
        thread.join()
    assert [ASK, None, None] == sites(meter.recorded)


def run_in(path: Path | str, module: str, call: Callable[[], Any], lines: int = 0) -> Any:
    """Call a function from the code of a file, as which it is compiled."""
    source = "\n" * lines + "def outer():\n    return call()\n"
    namespace: dict[str, Any] = {"call": call, "__name__": module}
    exec(compile(source, str(path), "exec"), namespace)  # noqa: S102 - the test's own
    return namespace["outer"]()


PACKAGES = Path(site.getsitepackages()[0])


@pytest.mark.parametrize(
    ("path", "module", "expected"),
    [
        (PACKAGES / "langchain" / "chat.py", "langchain.chat", None),
        (PACKAGES / "tenacity" / "__init__.py", "tenacity", None),
        (Path(os.__file__).parent / "contextlib.py", "contextlib", None),
        (Path(sys.executable).parent / "gunicorn", "__main__", None),
        ("/opt/venv/lib/python3/dist-packages/llama/a.py", "llama.a", None),
        ("<frozen importlib._bootstrap>", "importlib._bootstrap", None),
        (Path.cwd() / "shop" / "chat.py", "shop.chat", "shop/chat.py"),
        (Path.cwd() / "statistics.py", "statistics", "statistics.py"),
        ("/srv/elsewhere/deep/chat.py", "chat", "deep/chat.py"),
        ("/srv/Kundendaten ä/x y.py", "x", "Kundendaten ä/x y.py"),
        ("shop/chat.py", "shop.chat", "shop/chat.py"),
        ("asyncio/events.py", "asyncio.events", None),
        ("<stdin>", "__main__", "<stdin>"),
        ("/srv/sk-0123456789abcdefghijklmnopqrstuv/a.py", "a", "[scrubbed]/a.py"),
        (Path.cwd() / ("d" * 200) / "a.py", "a", "…" + "d" * 154 + "/a.py"),
    ],
    ids=lambda value: str(value)[-24:],
)
def test_whose_frame(path: Path | str, module: str, expected: str | None) -> None:
    """The application's own files are told, by paths without what differs from host to host; others are passed over."""
    found = run_in(path, module, call_sites.find, lines=6)
    if expected is None:
        assert found is not None
        assert found.path == FILE
    else:
        assert (expected, 8, "outer") == found


def test_an_installed_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all code is installed, the innermost package counts that does not only pass calls on."""

    def passed() -> Any:
        return run_in(PACKAGES / "tenacity" / "x.py", "tenacity.x", call_sites.find)

    def called() -> Any:
        return run_in(PACKAGES / "shop" / "chat.py", "shop.chat", passed)

    # Else this file is the application's.
    monkeypatch.setattr(call_sites, "_files", {__file__: None})
    found = run_in(PACKAGES / "shop" / "server.py", "shop.server", called)
    assert ("shop/chat.py", 2, "outer") == found


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory that was removed is none to be relative to."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    found = run_in("/srv/shop/late.py", "late", call_sites.find)
    assert ("shop/late.py", 2, "outer") == found


def test_long_names() -> None:
    """A function's name is cut, so that an event stays small."""
    name = "f" * 300
    namespace: dict[str, Any] = {"find": call_sites.find, "__name__": "long"}
    exec(compile(f"def {name}():\n    return find()\n", "/srv/a/long.py", "exec"), namespace)  # noqa: S102
    assert ("a/long.py", 2, "f" * 100) == namespace[name]()


def test_files_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes code all the time does not fill the memory with the names of its files."""
    monkeypatch.setattr(call_sites, "_MOST_FILES", 4)
    monkeypatch.setattr(call_sites, "_files", known := dict[str, Any]())
    for number in range(20):
        found = run_in(f"/srv/cell/{number}.py", "cell", call_sites.find)
        assert (f"cell/{number}.py", 2, "outer") == found
        assert len(known) <= 4
    run_in("<string>", "made", call_sites.find)
    assert "<string>" not in known


def test_a_job(provider: Provider, meter: Meter) -> None:
    """A job is put down to the line that started it, not to the one that asks how it goes."""
    path = "/v1/fine_tuning/jobs"
    for number in (1, 2):
        provider.answer(f"{path}/ftjob-{number}", Reply(json={**TUNED, "id": f"ftjob-{number}"}))

    def start(sdk: Any, number: int) -> None:
        provider.answer(path, Reply(json={**TUNING, "id": f"ftjob-{number}"}))
        sdk.fine_tuning.jobs.create(model="gpt-4o-mini", training_file="file-1")

    with client(provider) as sdk:
        start(sdk, 1)
        with customer_context("acme"):
            start(sdk, 2)
            sdk.fine_tuning.jobs.retrieve("ftjob-1")
        sdk.fine_tuning.jobs.retrieve("ftjob-2")
    site = line_of(start)
    assert [(None, site), ("acme", None), (None, site), ("acme", None)] == [
        (event["customer_id"], event["metadata"].get("call_site")) for event in meter.recorded.wire
    ]


def test_an_event_says_it_once(chat: Provider, meter: Meter) -> None:
    """It is in the event's metadata and nowhere else, and the whole event is a few bytes longer."""
    with client(chat) as sdk:
        Shop().ask(sdk)
    (body,) = meter.recorded.bodies.values()
    assert body.count(b"test_call_sites") == 1
    assert json.loads(body)["metadata"]["call_site"] == ASK
