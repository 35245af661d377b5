"""Calls of openai-node that its official instrumentation tells, from the application to usage events."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.fleet.gateway.pieces import read_protobuf
from cmdrdata_exporter.fleet.gateway.spans import Taken, take
from tests import replies
from tests.delivery.samples import wait_for
from tests.engines import node
from tests.engines.collector import Collector
from tests.engines.kafka import Broker
from tests.fleet.gateways import GatewayProcess, recorded, usage
from tests.fleet.topics import messages
from tests.provider import Provider, Reply

pytestmark = pytest.mark.timeout(300)

_WITHOUT_USAGE = """
import OpenAI from 'openai';
import { billedTo } from './metering.mjs';

const messages = [{ role: 'user', content: 'Hello' }];
await billedTo('acme', async () => {
  const stream = await new OpenAI().chat.completions.create({ model: 'gpt-4o-mini', messages, stream: true });
  for await (const chunk of stream);
});
"""
"""A stream as most applications ask for it."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A stand-in that answers what the example asks for."""
    with Provider() as provider:
        provider.answer(
            "/v1/chat/completions", Reply(json=replies.CHAT), Reply(events=replies.chat_chunks())
        )
        provider.answer("/v1/embeddings", Reply(json=replies.EMBEDDINGS))
        provider.answer("/v1/responses", Reply(json=replies.RESPONSE))
        yield provider


@pytest.fixture
def collector(
    broker: Broker, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Collector]:
    """A Collector with a topic of its own."""
    topic = broker.topic(request.node.name)
    collector = Collector(tmp_path, broker.servers, topic)
    collector.start()
    try:
        yield collector
    finally:
        collector.kill()


def run(program: str, provider: Provider, collector: Collector) -> None:
    """Run a program of the example as docs/other-languages.md says."""
    done = subprocess.run(
        ["node", "--import", "./metering.mjs", program],
        cwd=node.installed(),
        env=os.environ
        | {
            "OPENAI_API_KEY": "sk-standin",
            "OPENAI_BASE_URL": provider.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (0, "") == (done.returncode, done.stderr)


def read(collector: Collector, spans: int) -> list[Taken]:
    """Return what a gateway reads of each record of a topic, once so many spans are there."""
    found: list[Taken] = []

    def are_there() -> bool:
        found[:] = [
            take(read_protobuf(message.value))
            for message in messages(collector.brokers, collector.topic)
        ]
        return sum(taken.spans for taken in found) >= spans

    wait_for(are_there, timeout=60)
    return found


def test_calls_of_each_kind(provider: Provider, collector: Collector) -> None:
    """Each call is one event with who pays, model and totals; what the spans do not tell is not made up."""
    run("app.mjs", provider, collector)
    found = read(collector, 4)
    assert 0 == sum(taken.without_usage for taken in found)
    events: list[Any] = [json.loads(row.body or b"{}") for taken in found for row in taken.rows]
    told = sorted(
        (
            event["metadata"]["endpoint"],
            event["request"]["streaming"],
            event["customer_id"],
            event["provider"],
            event["model"],
            (event["input_tokens"], event["output_tokens"], event["total_tokens"]),
            event["metadata"]["usage_status"],
            event["metadata"]["response_id"],
            event["metadata"]["source"],
            event["metadata"]["usage"],
        )
        for event in events
    )
    chat, response = replies.CHAT, replies.RESPONSE
    used, answered = chat["usage"], response["usage"]
    tokens = (used["prompt_tokens"], used["completion_tokens"], used["total_tokens"])
    of_chat: tuple[Any, ...] = (
        "acme",
        "openai",
        chat["model"],
        tokens,
        "reported",
        chat["id"],
        "span",
        {},
    )
    assert [
        # A span does not say that it is one of a stream.
        ("chat.completions", False, *of_chat),
        ("chat.completions", False, *of_chat),
        (
            *("embeddings", False, "globex", "openai", replies.EMBEDDINGS["model"]),
            *((9, 0, 9), "reported", None, "span", {}),
        ),
        (
            *("responses", False, "globex", "openai", response["model"]),
            (answered["input_tokens"], answered["output_tokens"], answered["total_tokens"]),
            *("reported", response["id"], "span", {}),
        ),
    ] == told
    assert 4 == len({event["request"]["id"] for event in events})
    # What the provider said, and its spans do not.
    assert used["prompt_tokens_details"]["cached_tokens"]
    assert used["completion_tokens_details"]["reasoning_tokens"]


def test_usage_of_the_calls(
    provider: Provider, collector: Collector, database: str, tmp_path: Path
) -> None:
    """From the application to `cmdrdata usage`: each customer's tokens, told apart as those of spans."""
    run("app.mjs", provider, collector)
    topic = f"kafka://{collector.brokers}/{collector.topic}"
    gateway = GatewayProcess(
        database, tmp_path / "gateway.log", "--spans-topic", topic, "--window", "0.2"
    )
    try:
        wait_for(lambda: recorded(database) == 4, timeout=60)
    finally:
        gateway.kill()
    told = {
        (row["customer"], row["endpoint"], row["source"]): (
            row["events"],
            {unit: amount for unit, amount in row["units"].items() if amount},
        )
        for row in usage(database, "customer,endpoint,source")
    }
    used, answered = replies.CHAT["usage"], replies.RESPONSE["usage"]
    assert {
        ("acme", "chat.completions", "span"): (
            2,
            {
                "input_tokens": 2 * used["prompt_tokens"],
                "output_tokens": 2 * used["completion_tokens"],
                "total_tokens": 2 * used["total_tokens"],
            },
        ),
        ("globex", "embeddings", "span"): (1, {"input_tokens": 9, "total_tokens": 9}),
        ("globex", "responses", "span"): (
            1,
            {
                "input_tokens": answered["input_tokens"],
                "output_tokens": answered["output_tokens"],
                "total_tokens": answered["total_tokens"],
            },
        ),
    } == told


def test_a_stream_without_usage(provider: Provider, collector: Collector) -> None:
    """A stream that was not asked for its usage is no event, but is counted: its span tells nothing to bill."""
    provider.answer("/v1/chat/completions", Reply(events=replies.chat_chunks(usage=None)))
    program = node.installed() / f"stream-{os.getpid()}.mjs"
    program.write_text(_WITHOUT_USAGE)
    try:
        run(program.name, provider, collector)
    finally:
        program.unlink()
    [taken] = read(collector, 1)
    assert 1 == taken.without_usage
    assert [(False, None)] == [(row.is_call, row.body) for row in taken.rows]
