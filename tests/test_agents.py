"""A turn of an agent session is billed once, by its own id, to who started the session."""

from __future__ import annotations

from typing import Any

import pytest

from cmdrdata_exporter import customer_context
from opentelemetry_instrumentation_cmdrdata import jobs
from opentelemetry_instrumentation_cmdrdata.jobs import Jobs, Key
from tests.metering import Meter, attributes
from tests.provider import Provider, Reply
from tests.sdk import FORMS, HELPER, VERSION, Form, client, make
from tests.test_jobs import charge

PLAIN, STREAM = (next(form for form in FORMS if form.name == name) for name in ("plain", "stream"))


def _follow(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return list(getattr(resource, method)(**arguments))


async def _afollow(resource: Any, method: str, arguments: dict[str, Any]) -> Any:
    return [event async for event in await getattr(resource, method)(**arguments)]


FOLLOW = Form("follow", _follow, _afollow, streaming=True)
"""The form of a method that always streams."""
every_world = pytest.mark.parametrize("world", ["sync", "async"])

SESSION: dict[str, Any] = {
    "id": "sess_1",
    "object": "agent.session",
    "created_at": 1_700_000_020,
    "last_active_at": 1_700_000_020,
    "status": "in_progress",
    "agent": {"id": "agent_1", "model": "gpt-5-2026-08-07", "service_tier": "default"},
    "metadata": {},
    "required_actions": [],
    "vault_ids": [],
    "usage": None,
}


def usage(tokens: int) -> dict[str, Any]:
    """Return what the provider tells of so many tokens of input, and a tenth of output."""
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 10},
        "output_tokens": tokens // 10,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": tokens + tokens // 10,
    }


def turn(number: int = 1, status: str = "completed", **changes: Any) -> dict[str, Any]:
    """Return a turn; the usage of one that has ended has its subagents' in it."""
    return {
        "id": f"turn_{number}",
        "object": "agent.session.turn",
        "session_id": "sess_1",
        "agent_id": "agent_1",
        "subagent_id": None,
        "created_at": 1_700_000_021,
        "status": status,
        "usage": usage(200 * number) if status in ("completed", "failed", "cancelled") else None,
        **changes,
    }


def turn_event(status: str, of_turn: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an event of a turn."""
    return {
        "type": f"agent.session.turn.{status}",
        "event_id": f"{of_turn['id']}_{status}",
        "session_id": "sess_1",
        "turn_id": of_turn["id"],
        "turn": of_turn,
        **more,
    }


def session_event(status: str, **changes: Any) -> dict[str, Any]:
    """Return an event of the session."""
    session = {**SESSION, "status": status, **changes}
    return {"type": f"agent.session.{status}", "event_id": f"evt_{status}", "session": session}


OF_SUBAGENT = turn(7, subagent_id="sub_1")
ENDED = turn_event("completed", turn(), usage=usage(50))
EVENTS = [
    {"type": "agent.session.created", "event_id": "evt_0", "session": SESSION},
    turn_event("created", turn(status="queued")),
    turn_event("completed", OF_SUBAGENT, usage=usage(20)),
    ENDED,
    session_event("idle", usage=usage(200)),
]
"""What a session tells whose agent has a subagent: its turn is in the usage of the agent's own."""

CREATE: dict[str, Any] = {
    "environment": {"type": "none"},
    "agent": {"model": "gpt-5"},
    "input": "the secret",
}
TURN = {"session_id": "sess_1", "turn_id": "turn_1"}


def charge_of(number: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the event of a turn."""
    tokens = 200 * number
    facts: dict[str, Any] = {
        "endpoint": "agents.sessions",
        "served_by": "gpt-5-2026-08-07",
        "tokens": (tokens, tokens // 10, tokens + tokens // 10),
        "usage": {
            "cache_read_input_tokens": 10,
            "reasoning_output_tokens": 4,
            "provisional": True,
        },
        "request_model": "gpt-5",
        "turn_id": f"turn_{number}",
        "session_id": "sess_1",
        "agent_id": "agent_1",
        "status": "completed",
        "created": 1_700_000_021,
        **changes,
    }
    event = charge(**facts)
    # When a stream began says nothing of its turns.
    event.pop("first_token", None)
    return event


def ask(  # noqa: PLR0917 - what is asked, how and by whom
    world: str,
    provider: Provider,
    method: str,
    form: Form,
    arguments: dict[str, Any],
    payer: str = "other",
) -> Any:
    """Call a method of the sessions in the context of a customer."""
    with customer_context(payer, team=payer):
        return make(world, provider, f"beta.agents.sessions.{method}", form, arguments)


def create(world: str, provider: Provider) -> None:
    """Create a session of acme, which is told nothing of its turns."""
    provider.answer("/v1/agents/sessions", Reply(json=SESSION))
    ask(world, provider, "create", PLAIN, CREATE, "acme")


def retrieve(world: str, provider: Provider, of_turn: dict[str, Any] | None = None) -> None:
    """Ask for a turn."""
    provider.answer("/v1/agents/sessions/sess_1/turns/turn_1", Reply(json=of_turn or turn()))
    ask(world, provider, "turns.retrieve", PLAIN, TURN)


def list_turns(provider: Provider, *turns: dict[str, Any]) -> list[str]:
    """List the turns of a session."""
    page = {"object": "list", "data": list(turns), "has_more": False}
    provider.answer("/v1/agents/sessions/sess_1/turns", Reply(json=page))
    with client(provider) as sdk, customer_context("other", team="other"):
        return [one.id for one in sdk.beta.agents.sessions.turns.list("sess_1")]


STREAMING = [form for form in FORMS if form.streaming]

if VERSION >= (3, 54):

    @every_world
    @pytest.mark.parametrize("form", STREAMING, ids=lambda form: form.name)
    def test_a_session_that_is_streamed(
        form: Form, world: str, provider: Provider, meter: Meter
    ) -> None:
        """Each turn that a stream shows to end is one event, of its widest figure, in every form."""
        provider.answer("/v1/agents/sessions", Reply(events=EVENTS))
        ask(world, provider, "create", form, CREATE, "acme")
        assert meter.events() == [charge_of(streaming=True)]
        assert list(meter.recorded.bodies) == [Key("127.0.0.1", "turn_1").event_id("")]
        assert meter.recorded.jobs == {}, "the session is at rest"
        (span,) = meter.spans()
        assert span.name == "agents.sessions.create gpt-5"
        assert attributes(span) == {
            "gen_ai.operation.name": "agents.sessions.create",
            "gen_ai.provider.name": "openai",
            "server.address": "127.0.0.1",
            "server.port": provider.port,
            "gen_ai.request.model": "gpt-5",
            "gen_ai.request.stream": True,
            "gen_ai.response.model": "gpt-5-2026-08-07",
            "openai.response.service_tier": "default",
            "cmdrdata.customer.id": "acme",
            "cmdrdata.metadata.team": "acme",
            "first_chunk": True,
        }

    @every_world
    def test_wherever_a_turn_is_seen(world: str, provider: Provider, meter: Meter) -> None:
        """A turn that a stream, a retrieve and a page show is one event, of who started the session."""
        create(world, provider)
        assert meter.events() == []
        assert [job.path for job in meter.recorded.jobs.values()] == [
            "/agents/sessions/sess_1/turns"
        ]
        provider.answer("/v1/agents/sessions/sess_1/events", Reply(events=EVENTS[1:]))
        ask(world, provider, "events.stream", FOLLOW, {"session_id": "sess_1"})
        retrieve(world, provider)
        assert list_turns(provider, turn(2), turn()) == ["turn_2", "turn_1"]
        assert meter.events() == [charge_of(streaming=True), charge_of(2)]
        assert meter.recorded.jobs == {}

    @every_world
    def test_a_turn_that_is_asked_for(world: str, provider: Provider, meter: Meter) -> None:
        """A turn that goes on costs nothing yet, and a span that asks for it shows no usage."""
        create(world, provider)
        retrieve(world, provider, turn(status="in_progress"))
        assert meter.events() == []
        retrieve(world, provider)
        assert meter.events() == [charge_of()]
        assert attributes(meter.spans()[-1]) == {
            "gen_ai.operation.name": "agents.sessions.turn",
            "gen_ai.provider.name": "openai",
            "server.address": "127.0.0.1",
            "server.port": provider.port,
            "cmdrdata.customer.id": "other",
            "cmdrdata.metadata.team": "other",
        }

    @every_world
    def test_the_helper(world: str, provider: Provider, meter: Meter) -> None:
        """Input that `sessions.stream` sends has the session go on; its turn is billed to its starter."""
        create(world, provider)
        provider.answer("/v1/agents/sessions/sess_1", Reply(json={**SESSION, "status": "idle"}))
        provider.answer(
            "/v1/agents/sessions/sess_1/events",
            Reply(events=[{**session_event("idle"), "event_id": "evt_rest"}, *EVENTS[1:]]),
            Reply(status=204, content=b""),
        )
        helper = {"session_id": "sess_1", "input": "another secret"}
        ask(world, provider, "stream", HELPER, helper)
        assert meter.events() == [charge_of(streaming=True)]
        assert meter.recorded.jobs == {}

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            ({"usage": None}, (50, 5, 55, "partial")),
            ({}, (200, 20, 220, "reported")),
        ],
        ids=["of the root agent", "of all"],
    )
    def test_the_widest_figure(
        told: dict[str, Any], expected: Any, provider: Provider, meter: Meter
    ) -> None:
        """Where only the root agent's usage is told, the event says that it is a part."""
        event = turn_event("completed", turn(**told), usage=usage(50))
        provider.answer("/v1/agents/sessions", Reply(events=[EVENTS[0], event]))
        ask("sync", provider, "create", STREAM, CREATE, "acme")
        *tokens, status = expected
        assert meter.events() == [
            charge_of(tokens=tuple(tokens), usage_status=status, streaming=True)
        ]

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_a_turn_that_does_not_complete(status: str, provider: Provider, meter: Meter) -> None:
        """What a turn used before it failed is charged; one that used nothing is not."""
        create("sync", provider)
        list_turns(provider, turn(1, status), turn(2, status, usage=None))
        assert meter.events() == [charge_of(status=status)]

    def test_a_turn_without_usage(provider: Provider, meter: Meter) -> None:
        """A turn that is completed costs something, also where nothing is told of it."""
        create("sync", provider)
        list_turns(provider, turn(usage=None))
        assert meter.events() == [charge_of(tokens=(0, 0, 0), usage={}, usage_status="missing")]

    def test_a_turn_is_billed_before_the_stream_ends(provider: Provider, meter: Meter) -> None:
        """A session may be followed for days: what has ended is recorded at once."""
        provider.answer("/v1/agents/sessions", Reply(events=EVENTS, hold_after=4))
        with client(provider) as sdk, customer_context("acme", team="acme"):
            stream: Any = sdk.beta.agents.sessions.create(stream=True, **CREATE)
            for event in stream:
                if event.type == ENDED["type"] and event.turn_id == "turn_1":
                    break
            assert meter.events() == [charge_of(streaming=True)]
            assert meter.spans() == []
            assert len(meter.recorded.jobs) == 1
            stream.close()
        assert len(meter.recorded.bodies) == 1
        assert len(meter.spans()) == 1

    def test_two_processes(
        provider: Provider, meter: Meter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process that sees a turn makes the same event, of who started the session."""
        create("sync", provider)
        retrieve("sync", provider)
        here = dict(meter.recorded.bodies)
        meter.recorded.bodies.clear()
        monkeypatch.setattr(jobs, "known", Jobs())
        retrieve("sync", provider)
        assert list(meter.recorded.bodies) == list(here)
        assert meter.events() == [charge_of()]

    def test_a_session_of_nobody_here(provider: Provider, meter: Meter) -> None:
        """A page of turns shows those of others: without knowing whose they are nobody pays."""
        old, new = turn(1), turn(2, created_at=2**31)
        list_turns(provider, old, new)
        (event,) = meter.events()
        assert (event["customer_id"], event["metadata"]["turn_id"]) == (None, "turn_2")

    def test_a_session_that_is_not_tracked(provider: Provider, meter: Meter) -> None:
        """Turns of a session that is not to be billed are not, whoever asks for them."""
        provider.answer("/v1/agents/sessions", Reply(json=SESSION))
        with client(provider) as sdk:
            untracked: dict[str, Any] = {**CREATE, "track_usage": False}
            sdk.beta.agents.sessions.create(**untracked)
        retrieve("sync", provider)
        assert (meter.events(), meter.recorded.jobs) == ([], {})

    def test_input_that_is_refused(provider: Provider, meter: Meter) -> None:
        """Input that the provider refuses starts nothing."""
        import openai

        provider.answer("/v1/agents/sessions/sess_1/events", Reply(status=400, json={}))
        with pytest.raises(openai.BadRequestError):
            ask("sync", provider, "events.create", PLAIN, {"session_id": "sess_1", "events": []})
        assert (meter.events(), meter.recorded.jobs) == ([], {})
