"""Calls of openai-node that its official instrumentation tells, from the application to usage events."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.fleet.gateway.spans import resource_spans_of_record, take
from tests import replies
from tests.delivery.samples import wait_for
from tests.engines import node
from tests.engines.collector import Collector
from tests.engines.kafka import Broker
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
def collector(broker: Broker, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Collector]:
    """A Collector with a topic of its own."""
    topic = broker.topic(f"node-{request.node.name}"[:60])
    collector = Collector(tmp_path, broker.servers, topic)
    collector.topic = topic
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
