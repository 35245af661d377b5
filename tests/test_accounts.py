"""Whom OpenAI charges for a call is on its event, as far as the request and the answer tell; of a key only a hash."""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import openai
import pytest

from cmdrdata_exporter import customer_context, faults
from cmdrdata_exporter.key_hash import key_hash
from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai import providers
from opentelemetry_instrumentation_cmdrdata.openai.account import account
from opentelemetry_instrumentation_cmdrdata.openai.providers import Hosts
from tests import replies
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import FORMS, VERSION, Form, client, make
from tests.test_jobs import BATCHED, BY_NAME, KINDS, Kind
from tests.test_websocket_sessions import created, done, read
from tests.websocket import Await, Session, Standin

CHAT = "/v1/chat/completions"
ARGUMENTS: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
KEY = "sk-proj-Zm9vYmFyYmF6cXV4MDEyMzQ1Njc4OXaBc9"
OTHER_KEY = "sk-svcacct-YmFyYmF6cXV4MDEyMzQ1Njc4OXZZ_-1"
HASH = hashlib.sha256(b"aBc9").hexdigest()[:8]
OTHER_HASH = hashlib.sha256(b"Z_-1").hexdigest()[:8]
ANSWERED = {"openai-organization": "acme-inc", "openai-project": "proj_of_the_key"}

plain = pytest.mark.parametrize("world", ["sync", "async"])


def told(event: dict[str, Any]) -> dict[str, Any]:
    """Return what an event says of the account."""
    return {
        name.removeprefix("openai_"): value
        for name, value in event["metadata"].items()
        if name.startswith("openai_")
    }


def test_the_hash_is_the_same_in_every_release() -> None:
    """A ledger has sums by it, and commands of another release look for them."""
    assert (key_hash("aBc9"), key_hash("")) == ("208a351e", "e3b0c442")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@plain
def test_what_the_answer_names(world: str, form: Form, provider: Provider, meter: Meter) -> None:
    """The answer says who is charged, whatever the request named; the key's hash is there, and nothing else of it."""
    reply: dict[str, Any] = {"json": replies.CHAT}
    if form.streaming:
        reply = {"events": replies.chat_chunks()}
    provider.answer(CHAT, Reply(**reply, headers=ANSWERED))

    make(
        world,
        provider,
        "chat.completions.create",
        form,
        ARGUMENTS,
        default_headers={"Authorization": f"Bearer {KEY}"},
        organization="org-1",
    )

    (event,) = meter.recorded.wire
    assert told(event) == {
        "organization": "acme-inc",
        "project": "proj_of_the_key",
        "key_hash": HASH,
    }
    seen = [*meter.recorded.bodies.values(), *(span.to_json().encode() for span in meter.spans())]
    assert not [text for text in seen if b"aBc9" in text or b"Zm9v" in text]
    assert not [span for span in meter.spans() if "openai_" in span.to_json()]


@plain
def test_what_the_request_names(world: str, provider: Provider, meter: Meter) -> None:
    """Where the answer says nothing, what went out counts: a call's headers before those of the client."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    of_client = {
        "organization": "org-1",
        "default_headers": {"Authorization": f"Bearer {KEY}", "OpenAI-Project": "proj_1"},
    }
    of_call = {
        "extra_headers": {
            "OpenAI-Organization": "org-2",
            "OpenAI-Project": "proj_2",
            "Authorization": f"Bearer {OTHER_KEY}",
        }
    }

    make(world, provider, "chat.completions.create", FORMS[0], ARGUMENTS, **of_client)
    make(
        world, provider, "chat.completions.create", FORMS[0], {**ARGUMENTS, **of_call}, **of_client
    )

    first, second = meter.recorded.wire
    assert told(first) == {"organization": "org-1", "project": "proj_1", "key_hash": HASH}
    assert told(second) == {"organization": "org-2", "project": "proj_2", "key_hash": OTHER_HASH}


def test_a_key_of_the_clients_that_is_replaced(provider: Provider, meter: Meter) -> None:
    """The key that is sent counts, not the one that the client was made with."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with openai.OpenAI(base_url=provider.url, api_key=KEY, max_retries=0) as sdk:
        sdk.chat.completions.create(**ARGUMENTS)
        sdk.api_key = OTHER_KEY
        sdk.chat.completions.create(**ARGUMENTS)
    assert [told(event) for event in meter.recorded.wire] == [
        {"key_hash": HASH},
        {"key_hash": OTHER_HASH},
    ]


@plain
def test_a_call_that_is_refused(world: str, provider: Provider, meter: Meter) -> None:
    """Of a refusal both sides are known."""
    provider.answer(CHAT, Reply(status=429, json=replies.REFUSAL, headers=ANSWERED))
    with pytest.raises(openai.RateLimitError):
        make(
            world,
            provider,
            "chat.completions.create",
            FORMS[0],
            ARGUMENTS,
            default_headers={"Authorization": f"Bearer {KEY}", "OpenAI-Project": "proj_1"},
        )
    (event,) = meter.recorded.wire
    assert told(event) == {
        "organization": "acme-inc",
        "project": "proj_of_the_key",
        "key_hash": HASH,
    }


def test_a_call_that_nobody_answers(provider: Provider, meter: Meter) -> None:
    """What was sent is known also where no answer came."""
    provider.answer(CHAT, Reply(silent=True))
    headers = {"Authorization": f"Bearer {KEY}", "OpenAI-Project": "proj_1"}
    with (
        client(provider, timeout=0.05, default_headers=headers) as sdk,
        pytest.raises(openai.APITimeoutError),
    ):
        sdk.chat.completions.create(**ARGUMENTS)
    (event,) = meter.recorded.wire
    assert told(event) == {"project": "proj_1", "key_hash": HASH}


def test_another_provider(
    provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At another provider nobody of OpenAI is charged, whatever headers the client sends there."""

    def row(_host: str, _azure: bool) -> Hosts:
        return Hosts("groq", ("127.0.0.1",))

    monkeypatch.setattr(providers, "_row", row)
    provider.answer(CHAT, Reply(json=replies.CHAT, headers=ANSWERED))
    with openai.OpenAI(base_url=provider.url, api_key=KEY, organization="org-1") as sdk:
        sdk.chat.completions.create(**ARGUMENTS)
    (event,) = meter.recorded.wire
    assert (event["provider"], told(event)) == ("groq", {})


@pytest.mark.parametrize(
    ("sent", "answered", "expected"),
    [
        pytest.param(None, None, {}, id="nothing-known"),
        pytest.param({"authorization": "Bearer sk-short"}, {}, {}, id="a-short-key"),
        pytest.param({"authorization": "Bearer sk-" + "x" * 16}, {}, {}, id="19-characters"),
        pytest.param(
            {"authorization": "Bearer sk-" + "x" * 17}, {}, {"key_hash": key_hash("xxxx")}, id="20"
        ),
        pytest.param({"authorization": "Bearer eyJ" + "x" * 90}, {}, {}, id="a-token-of-an-hour"),
        pytest.param({"authorization": "Basic c2stdXNlcjpwYXNzd29yZA=="}, {}, {}, id="basic"),
        pytest.param(
            {"openai-project": "proj_1"}, {"openai-project": ""}, {"project": "proj_1"}, id="empty"
        ),
        pytest.param({}, {"openai-project": "p" * 201}, {}, id="no-id-is-so-long"),
    ],
)
def test_what_is_read_of_headers(
    sent: dict[str, str] | None, answered: dict[str, str] | None, expected: dict[str, str]
) -> None:
    """What may be no key has no hash, and what may be no id is none."""
    prefix = semconv.DETAIL_PREFIX + "openai_"
    assert {
        name.removeprefix(prefix): value for name, value in account(sent, answered).items()
    } == expected


@pytest.mark.filterwarnings("ignore:The (Assistants|Sora) API:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_job(kind: Kind, provider: Provider, meter: Meter) -> None:
    """A job is charged to the key that started it, whichever asks for it, and to its project."""
    provider.answer(kind.start_path, Reply(json=kind.started, headers=ANSWERED))
    provider.answer(kind.poll_path, Reply(json=kind.ended, headers={"openai-project": "proj_2"}))
    for method, arguments, key in (
        (kind.start, kind.start_arguments, KEY),
        (kind.poll, kind.poll_arguments, OTHER_KEY),
    ):
        make(
            "sync",
            provider,
            method,
            FORMS[0],
            arguments,
            default_headers={"Authorization": f"Bearer {key}"},
        )
    assert meter.recorded.wire
    for event in meter.recorded.wire:
        assert told(event) == {
            "organization": "acme-inc",
            "project": "proj_of_the_key",
            "key_hash": HASH,
        }


if "batch" in BY_NAME:

    def test_a_listed_job(provider: Provider, meter: Meter) -> None:
        """A job that nobody here started, and that a page shows, is of the account that the page is of."""
        page = {
            "object": "list",
            "data": [{**BATCHED, "created_at": 4_000_000_000}],
            "has_more": False,
        }
        provider.answer("/v1/batches", Reply(json=page, headers=ANSWERED))
        with client(provider) as sdk:
            list(sdk.batches.list())
        (event,) = meter.recorded.wire
        assert told(event) == {"organization": "acme-inc", "project": "proj_of_the_key"}


def test_the_users_own_keys(provider: Provider, meter: Meter) -> None:
    """The names are reserved: what the application says under them goes by another name."""
    provider.answer(CHAT, Reply(json=replies.CHAT))
    with customer_context("acme", openai_project="theirs"), client(provider) as sdk:
        sdk.chat.completions.create(**ARGUMENTS)
    (event,) = meter.recorded.wire
    assert (event["metadata"]["user_openai_project"], told(event)) == ("theirs", {})
    assert faults.counts.pop("metadata key openai_project") == 1


if "project" in inspect.signature(openai.OpenAI).parameters:

    def test_the_project_of_a_client(provider: Provider, meter: Meter) -> None:
        """A client's project is what it sends."""
        provider.answer(CHAT, Reply(json=replies.CHAT))
        with client(provider, project="proj_1") as sdk:
            sdk.chat.completions.create(**ARGUMENTS)
        (event,) = meter.recorded.wire
        assert told(event) == {"project": "proj_1"}


if VERSION >= (2, 54):

    @pytest.mark.parametrize(
        ("answered", "expected"),
        [
            pytest.param(ANSWERED, ANSWERED, id="what-the-answer-names"),
            pytest.param(
                {},
                {"openai-organization": "org-1", "openai-project": "proj_1"},
                id="what-was-sent",
            ),
        ],
    )
    def test_a_connection(answered: dict[str, str], expected: dict[str, str], meter: Meter) -> None:
        """What a connection was made with holds for all that is charged in it."""
        frames = [Await("response.create"), created("resp_1"), done("resp_1")]
        with (
            Standin([Session(frames)], answered=answered) as standin,
            openai.OpenAI(
                api_key=KEY,
                organization="org-1",
                project="proj_1",
                websocket_base_url=standin.url,
            ) as sdk,
            sdk.realtime.connect(model="gpt-realtime") as connection,
        ):
            connection.response.create()
            read(connection, 2)
        (event,) = meter.recorded.wire
        names = {"organization": "openai-organization", "project": "openai-project"}
        # Earlier ones send these with requests, and with no handshake.
        is_told = answered or VERSION >= (3,)
        account = {name: expected[header] for name, header in names.items() if is_told}
        assert told(event) == {**account, "key_hash": HASH}
