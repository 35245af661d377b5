"""Streams are asked for their usage where they tell it only then, and the application sees nothing of that."""

from __future__ import annotations

import asyncio
import copy
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from opentelemetry import trace

from cmdrdata_exporter import current_exporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, recorder
from opentelemetry_instrumentation_cmdrdata.openai import observation
from opentelemetry_instrumentation_cmdrdata.openai.providers import (
    HOSTS,
    provider_of,
    tells_stream_usage,
)
from tests import replies
from tests.charges import MESSAGES
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import FORMS, HELPER, VERSION, Form, client, make

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o-mini", "messages": MESSAGES}
FORM = {form.name: form for form in (*FORMS, HELPER)}

ASKED = {"stream_options": {"include_usage": True}}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams of every host are asked; a mark, so that it comes before `meter`."""
    monkeypatch.setenv("CMDRDATA_STREAM_USAGE", "always")


# --- Which hosts are asked --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "path", "api_version", "expected"),
    [
        ("api.openai.com", "/v1/", None, True),
        ("eu.api.openai.com", "/v1/", None, True),
        ("us.api.openai.com", "/v1/", None, True),
        ("openai.com", "/v1/", None, False),
        ("notapi.openai.com", "/v1/", None, False),
        ("api.openai.com.evil.test", "/v1/", None, False),
        ("mine.openai.azure.com", "/openai/", "2024-06-01", False),
        ("mine.openai.azure.com", "/openai/", "2024-08-01-preview", False),
        ("mine.openai.azure.com", "/openai/", "2024-09-01-preview", True),
        ("mine.openai.azure.com", "/openai/", "2024-10-21", True),
        ("mine.openai.azure.com", "/openai/deployments/gpt/", "2025-04-01-preview", True),
        ("mine.openai.azure.com", "/openai/v1/", None, True),
        ("mine.openai.azure.com", "/openai/v1/", "preview", True),
        ("mine.openai.azure.com", "/openai/", None, False),
        ("mine.cognitiveservices.azure.com", "/openai/", "2024-10-21", True),
        ("mine.cognitiveservices.azure.com", "/openai/", "2024-06-01", False),
        ("mine.services.ai.azure.com", "/openai/v1/", None, True),
        ("mine.services.ai.azure.com", "/openai/deployments/gpt/", "2024-10-21", True),
        # Models of other makers, with versions of their own.
        ("mine.services.ai.azure.com", "/models/", "2024-05-01-preview", False),
        ("mine.services.ai.azure.com", "/models/", "2025-04-01", False),
        ("mine.openai.azure.com", "/openai/", "latest", False),
        ("mine.openai.azure.us", "/openai/", "2024-10-21", True),
        ("mine.openai.azure.cn", "/openai/v1/", None, True),
        ("mine.openai.azure.evil.test", "/openai/v1/", None, False),
        ("mine.azure-api.net", "/openai/", "2024-10-21", False),
        ("127.0.0.1", "/v1/", None, False),
        ("api.groq.com", "/openai/v1/", None, False),
    ],
)
def test_which_servers_understand(
    host: str, path: str, api_version: str | None, expected: bool
) -> None:
    """Only a server that is known to understand the option is sent it."""
    assert tells_stream_usage(host, path, api_version) is expected


@pytest.mark.parametrize(
    ("api_version", "expected"), [("2024-06-01", False), ("2024-10-21", True), (None, False)]
)
def test_a_gateway_of_azure(api_version: str | None, expected: bool) -> None:
    """A client for Azure talks to Azure, whatever host stands before it."""
    azure = tells_stream_usage("gateway.test", "/openai/", api_version, azure=True)
    assert (azure, provider_of("gateway.test", azure=True)) == (expected, "azure.ai.openai")


@pytest.mark.parametrize(
    "rule",
    [
        (None, True, True),
        (None, False, False),
        ("auto", True, True),
        ("auto", False, False),
        ("always", False, True),
        ("never", True, False),
    ],
)
def test_the_setting(
    rule: tuple[str | None, bool, bool], provider: Provider, request: pytest.FixtureRequest
) -> None:
    """By default servers that understand are asked, on request all or none."""
    setting, known, asked = rule
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    if setting is not None:
        monkeypatch.setenv("CMDRDATA_STREAM_USAGE", setting)

    def rule_of_servers(*_: object, **__: object) -> bool:
        return known

    monkeypatch.setattr(observation, "tells_stream_usage", rule_of_servers)
    meter: Meter = request.getfixturevalue("meter")
    chunks = replies.chat_chunks() if asked else replies.chat_chunks(usage=None)
    provider.answer(CHAT, Reply(events=chunks))

    make("sync", provider, "chat.completions.create", FORM["stream"], ARGUMENTS)

    assert provider.requests[0].json == {**ARGUMENTS, "stream": True, **(ASKED if asked else {})}
    (event,) = meter.events()
    assert event["metadata"]["usage_status"] == ("reported" if asked else "missing")


def seen_by_the_rule(sdk: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return what decides whether a client's server is asked, as it is read from the client."""
    seen: list[tuple[Any, ...]] = []

    def rule(*of: Any, azure: bool) -> bool:
        seen.append((*of, azure))
        return False

    monkeypatch.setattr(observation, "tells_stream_usage", rule)
    assert observation._tells_stream_usage(sdk) is False
    return seen


def test_what_a_client_says_of_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is given the host, the path and the api-version of every kind of client."""
    azure = openai.AzureOpenAI(
        api_key="k", api_version="2024-10-21", azure_endpoint="https://mine.openai.azure.com"
    )
    undated = openai.OpenAI(api_key="k", base_url="https://mine.openai.azure.com/openai/v1")
    dated = openai.OpenAI(
        api_key="k",
        base_url="https://mine.openai.azure.com/openai",
        default_query={"api-version": "2025-01-01"},
    )
    assert [
        seen_by_the_rule(sdk, monkeypatch)
        for sdk in (openai.OpenAI(api_key="k"), azure, undated, dated)
    ] == [
        [("api.openai.com", "/v1/", None, False)],
        [("mine.openai.azure.com", "/openai/", "2024-10-21", True)],
        [("mine.openai.azure.com", "/openai/v1/", None, False)],
        [("mine.openai.azure.com", "/openai/", "2025-01-01", False)],
    ]


def test_the_documented_hosts() -> None:
    """The table of hosts in the documentation is the one that is used, for the name and for the asking."""
    text = (Path(__file__).parents[1] / "docs" / "metering.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| provider | hosts | streams are asked |\n|---|---|---|\n")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.partition("\n\n")[0].splitlines()
    ]

    assert [(row.provider, row.names, row.usage_since is not None) for row in HOSTS] == [
        (provider.strip("`"), tuple(re.findall(r"`([^`]+)`", hosts)), asked != "no")
        for provider, hosts, asked in rows
    ]
    for row in HOSTS:
        for name in row.names:
            host = name.replace("*", "mine")
            asked = tells_stream_usage(host, "/openai/v1/", None)
            assert (row.provider, row.usage_since is not None) == (provider_of(host), asked)


# --- Streams that tell none -------------------------------------------------------------------

UNASKED = (
    "a stream of 127.0.0.1 told no usage. Set CMDRDATA_STREAM_USAGE=always to ask every host for it, or pass "
    "stream_options={'include_usage': True}; such calls are recorded with usage_status missing, without tokens"
)
IN_VAIN = (
    "a stream of 127.0.0.1 told no usage although it was asked for; such calls are recorded with usage_status "
    "missing, without tokens"
)


def silent(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged of hosts that tell no usage."""
    return [r.getMessage() for r in caplog.records if "told no usage" in r.getMessage()]


@pytest.mark.parametrize("form", [FORM["stream"], FORM["raw-stream"]], ids=lambda form: form.name)
def test_a_host_that_tells_no_usage(
    form: Form, provider: Provider, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a host whose streams tell no usage the operator hears once, with what can be done; each event says so."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(usage=None)))

    for _ in range(2):
        make("sync", provider, "chat.completions.create", form, ARGUMENTS)

    assert [UNASKED] == silent(caplog)
    assert ["missing"] * 2 == [event["metadata"]["usage_status"] for event in meter.events()]


@pytest.mark.usefixtures("always")
def test_a_host_that_was_asked_by_us(
    provider: Provider, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has every host asked already is not told to ask."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(usage=None)))

    make("sync", provider, "chat.completions.create", FORM["stream"], ARGUMENTS)

    assert [IN_VAIN] == silent(caplog)
    assert ["missing"] == [event["metadata"]["usage_status"] for event in meter.events()]


def test_a_host_that_was_asked_by_the_application(
    provider: Provider, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks is not told to ask."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(usage=None)))
    asking: dict[str, Any] = {**ARGUMENTS, "extra_body": ASKED}

    make("sync", provider, "chat.completions.create", FORM["stream"], asking)

    assert [IN_VAIN] == silent(caplog)
    assert ["missing"] == [event["metadata"]["usage_status"] for event in meter.events()]


def test_a_host_that_may_have_more_to_tell(
    provider: Provider, meter: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that is left might have told its usage at its end; an answer that is no stream needs no asking."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(usage=None)))
    with client(provider) as sdk:
        create: Any = sdk.chat.completions.create
        stream = create(stream=True, **ARGUMENTS)
        next(iter(stream))
        stream.response.close()
        provider.answer(CHAT, Reply(json={**replies.CHAT, "usage": None}))
        create(**ARGUMENTS)

    assert [] == silent(caplog)
    assert ["partial", "missing"] == [event["metadata"]["usage_status"] for event in meter.events()]


def test_as_many_hosts_as_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """The hosts that are named in the log have an end."""
    recording = recorder.Recorder(trace.get_tracer("x"), current_exporter)

    for number in range(recorder.MOST_SILENT_HOSTS + 5):
        recording.report_silent(f"host{number}", asked=False)

    messages = silent(caplog)
    assert recorder.MOST_SILENT_HOSTS == len(messages)
    assert [False, True] == [m.endswith("(further hosts are not named)") for m in messages[-2:]]


# --- What is asked, and what comes of it ------------------------------------------------------

ROWS: list[Any] = [
    pytest.param(method, FORM[form], id=f"{method}-{form}")
    for method, form, since in (
        ("chat.completions.create", "stream", (1, 0)),
        ("chat.completions.create", "raw-stream", (1, 0)),
        ("beta.chat.completions.stream", "helper", (1, 66)),
        ("chat.completions.stream", "helper", (2, 54)),
        ("completions.create", "stream", (1, 0)),
        ("completions.create", "raw-stream", (1, 0)),
    )
    if since <= VERSION
]


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(("method", "form"), ROWS)
@pytest.mark.usefixtures("always")
def test_a_stream_that_is_asked(
    method: str, form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """The provider is asked, the event has the usage, and the application sees what it would see without us."""
    legacy = method.startswith("completions")
    path = "/v1/completions" if legacy else CHAT
    arguments: dict[str, Any] = (
        {"model": "gpt-3.5-turbo-instruct", "prompt": "x"} if legacy else ARGUMENTS
    )
    told = replies.completion_chunks() if legacy else replies.chat_chunks()
    untold = [
        {k: v for k, v in chunk.items() if k != "usage"} for chunk in told if chunk["choices"]
    ]

    # A server that is asked has `usage` in every chunk, null but for the last.
    provider.answer(path, Reply(events=told))
    observed = make(world, provider, method, form, copy.deepcopy(arguments))
    CmdrDataInstrumentor().uninstrument()
    provider.answer(path, Reply(events=untold))
    bare = make(world, provider, method, form, copy.deepcopy(arguments))
    CmdrDataInstrumentor().instrument()  # For the fixture to undo.

    with_us, without_us = (request.json for request in provider.requests)
    assert with_us == {**without_us, **ASKED}
    assert "stream_options" not in without_us
    assert [shown(chunk) for chunk in observed] == [shown(chunk) for chunk in bare]
    (event,) = meter.events()
    assert (
        event["input_tokens"],
        event["output_tokens"],
        event["total_tokens"],
        event["metadata"]["usage_status"],
    ) == ((5, 7, 12, "reported") if legacy else (19, 10, 29, "reported"))


def shown(chunk: Any) -> dict[str, Any]:
    """Return what a chunk, or an event made of chunks, shows; that its usage is null is in some versions a field."""
    dump = getattr(chunk, "model_dump", None) or chunk.dict
    return without_null_usage(dump())


def without_null_usage(value: Any) -> Any:
    """Return a value without any `usage` that is null."""
    if isinstance(value, dict):
        return {
            k: without_null_usage(v)
            for k, v in value.items()  # pyright: ignore[reportUnknownVariableType]
            if not (k == "usage" and v is None)
        }
    if isinstance(value, list):
        return [without_null_usage(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize("form", [FORM["stream"], FORM["raw-stream"]], ids=lambda form: form.name)
@pytest.mark.parametrize(
    "said",
    [
        ({"include_usage": True}, "extra_body"),
        ({"include_usage": False}, "extra_body"),
        ({"include_obfuscation": False}, "extra_body"),
        (None, "extra_body"),
        *(
            [({"include_usage": True}, "argument"), ({"include_usage": False}, "argument")]
            if VERSION >= (1, 66)
            else []
        ),
    ],
    ids=str,
)
@pytest.mark.usefixtures("always")
def test_what_the_caller_chose(
    said: tuple[Any, str], form: Form, world: str, provider: Provider, meter: Meter
) -> None:
    """Who says anything of the usage, even no, is obeyed; every chunk that comes then is theirs."""
    choice, through = said
    chosen: dict[str, Any] = {"stream_options": choice}
    arguments: dict[str, Any] = {
        **ARGUMENTS,
        **(chosen if through == "argument" else {"extra_body": chosen}),
    }
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))

    chunks = make(world, provider, "chat.completions.create", form, arguments)

    assert provider.requests[0].json == {**ARGUMENTS, "stream": True, **chosen}
    assert len(chunks) == len(replies.chat_chunks())
    assert meter.events()[0]["metadata"]["usage_status"] == "reported"


if VERSION >= (1, 66):

    @pytest.mark.usefixtures("always")
    def test_other_options_are_kept(provider: Provider, meter: Meter) -> None:
        """Options beside the one that is added go out as they came, and the caller's own objects stay unchanged."""
        options = {"include_obfuscation": False}
        messages = [dict(message) for message in MESSAGES]
        arguments: dict[str, Any] = {
            "model": "gpt-4o-mini",
            "messages": messages,
            "stream_options": options,
        }
        provider.answer(CHAT, Reply(events=replies.chat_chunks()))
        chunks = make("sync", provider, "chat.completions.create", FORM["stream"], arguments)
        assert provider.requests[0].json["stream_options"] == {
            "include_obfuscation": False,
            "include_usage": True,
        }
        assert len(chunks) == len(replies.chat_chunks()) - 1
        assert options == {"include_obfuscation": False}
        assert messages == MESSAGES
        assert meter.events()[0]["total_tokens"] == 29


@pytest.mark.usefixtures("always")
def test_the_body_of_the_application_is_its_own(provider: Provider, meter: Meter) -> None:
    """What is added to a request is added to a copy: an application may send its own body, again and again."""
    body: dict[str, Any] = {**ARGUMENTS, "stream": True}
    provider.answer(CHAT, Reply(events=replies.chat_chunks()))
    chunk: Any = ChatCompletionChunk
    with client(provider) as sdk:
        stream: Any = sdk.post(
            "/chat/completions",
            cast_to=chunk,
            body=body,
            stream=True,
            stream_cls=openai.Stream[chunk],
        )
        assert len(list(stream)) == len(replies.chat_chunks()) - 1
    assert body == {**ARGUMENTS, "stream": True}
    assert provider.requests[0].json == {**body, **ASKED}
    assert [event["total_tokens"] for event in meter.events()] == [29]


if VERSION >= (1, 6):

    @pytest.mark.parametrize("world", ["sync", "async"])
    @pytest.mark.parametrize(
        "form",
        [form for form in FORMS if "streaming-raw-" in form.name and form.streaming],
        ids=lambda form: form.name,
    )
    @pytest.mark.usefixtures("always")
    def test_a_stream_that_the_application_reads_itself(
        form: Form, world: str, provider: Provider, meter: Meter
    ) -> None:
        """`with_streaming_response` gives the application the very bytes, so nothing is asked."""
        provider.answer(CHAT, Reply(events=replies.chat_chunks(usage=None)))
        make(world, provider, "chat.completions.create", form, ARGUMENTS)
        assert provider.requests[0].json == {**ARGUMENTS, "stream": True}
        assert meter.events()[0]["metadata"]["usage_status"] == "missing"


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.usefixtures("always")
def test_calls_that_are_no_stream(world: str, provider: Provider, meter: Meter) -> None:
    """A plain answer tells its usage unasked."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    make(world, provider, "chat.completions.create", FORM["plain"], ARGUMENTS)
    assert provider.requests[0].json == ARGUMENTS
    assert meter.events()[0]["total_tokens"] == 29


# --- Chunks that look alike -------------------------------------------------------------------


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.usefixtures("always")
def test_a_chunk_without_choices(world: str, provider: Provider, meter: Meter) -> None:
    """Azure's first chunk has no choices and no usage: it is the application's."""
    first: dict[str, Any] = {
        "id": "",
        "object": "",
        "created": 0,
        "model": "",
        "choices": [],
        "prompt_filter_results": [{"prompt_index": 0}],
        "usage": None,
    }
    provider.answer(CHAT, Reply(events=[first, *replies.chat_chunks()]))
    chunks = make(world, provider, "chat.completions.create", FORM["stream"], ARGUMENTS)
    assert len(chunks) == len(replies.chat_chunks())
    assert chunks[0].choices == []
    (event,) = meter.events()
    assert (event["model"], event["total_tokens"]) == ("gpt-4o-mini-2024-07-18", 29)
    assert event["metadata"]["response_id"] == "chatcmpl-1"


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.usefixtures("always")
def test_usage_on_every_chunk(world: str, provider: Provider, meter: Meter) -> None:
    """Chunks with choices are the application's, whatever else they have; of their usages the last counts."""
    chunks = replies.chat_chunks(usage=None)
    for number, chunk in enumerate(chunks):
        chunk["usage"] = {
            "prompt_tokens": 5,
            "completion_tokens": number,
            "total_tokens": 5 + number,
        }
    provider.answer(CHAT, Reply(events=chunks))
    seen = make(world, provider, "chat.completions.create", FORM["stream"], ARGUMENTS)
    assert len(seen) == len(chunks)
    (event,) = meter.events()
    assert (event["input_tokens"], event["output_tokens"], event["total_tokens"]) == (5, 3, 8)
    assert event["metadata"]["usage_status"] == "reported"


@pytest.mark.usefixtures("always")
def test_a_stream_that_is_closed_before_its_usage(provider: Provider, meter: Meter) -> None:
    """To ask is not to get: a stream that is cut has no usage."""
    provider.answer(CHAT, Reply(events=replies.chat_chunks(), hold_after=2))

    async def application() -> None:
        async with openai.AsyncOpenAI(base_url=provider.url, api_key="sk-test") as sdk:
            stream = await sdk.chat.completions.create(stream=True, **ARGUMENTS)
            async for _ in stream:
                break
            await stream.response.aclose()

    asyncio.run(application())
    (event,) = meter.events()
    assert event["metadata"]["usage_status"] == "partial"
