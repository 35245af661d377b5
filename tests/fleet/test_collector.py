"""The example's Collector: what it has acknowledged is in the topic, whatever is killed; the rest it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from tests.delivery.samples import wait_for
from tests.engines.collector import Collector
from tests.engines.kafka import Broker
from tests.fleet import otlp
from tests.fleet.topics import messages

pytestmark = pytest.mark.timeout(180)

_LARGEST = {"max.message.bytes": "6291456"}
"""Of the topic, as docs/fleet.md says: more than the Collector produces at once."""


@pytest.fixture
def http() -> Iterator[urllib3.PoolManager]:
    """A client that tries nothing again."""
    with urllib3.PoolManager(retries=False, timeout=30.0) as pool:
        yield pool


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a Collector keeps its queue."""
    return tmp_path


def post(http: urllib3.PoolManager, collector: Collector, body: bytes) -> int | None:
    """Return the status of the answer, None where there was none."""
    try:
        answer = http.request(
            "POST",
            f"{collector.url}/v1/traces",
            body=body,
            headers={"Content-Type": "application/x-protobuf"},
        )
    except urllib3.exceptions.HTTPError:
        return None
    return answer.status


def one_span(number: int, size: int = 0) -> bytes:
    """Return a request with one span of a trace of its own, of about `size` bytes."""
    attributes = otlp.CHAT | ({"filling": "x" * size} if size else {})
    return otlp.request(
        ("scope", otlp.span(number, number + 1, attributes=attributes))
    ).SerializeToString()


def found(broker: Broker, topic: str) -> Counter[bytes]:
    """Return how often each trace is in the topic."""
    return Counter(
        span.trace_id for message in messages(broker.servers, topic) for span in message.spans()
    )


def test_spans_of_a_trace_stay_together(
    broker: Broker, directory: Path, http: urllib3.PoolManager
) -> None:
    """Each record has the spans of one trace, its key is the trace, and a trace has one partition."""
    topic = broker.topic("together", config=_LARGEST)
    collector = Collector(directory, broker.servers, topic)
    collector.start()
    try:
        for first in (0, 100):
            request = otlp.request(
                *(("scope", otlp.span(trace, first + trace + 1)) for trace in range(20))
            )
            assert 200 == post(http, collector, request.SerializeToString())
        wait_for(lambda: len(messages(broker.servers, topic)) == 40, timeout=60)
    finally:
        collector.stop()
    partitions: dict[bytes, set[int]] = {}
    for message in messages(broker.servers, topic):
        [span] = message.spans()
        assert message.key == span.trace_id.hex().encode()
        partitions.setdefault(span.trace_id, set()).add(message.partition)
    assert {otlp.trace_of(trace) for trace in range(20)} == set(partitions)
    assert {1} == {len(each) for each in partitions.values()}
    assert 1 < len({number for each in partitions.values() for number in each})


def test_what_is_too_large_is_refused_when_it_is_sent(
    broker: Broker, directory: Path, http: urllib3.PoolManager
) -> None:
    """A span is refused by its request's answer, or else it fits into the topic: none is taken and then dropped."""
    topic = broker.topic("sizes", config=_LARGEST)
    collector = Collector(directory, broker.servers, topic)
    collector.start()
    mebibytes = {0: 1.0, 1: 2.0, 2: 3.9, 3: 3.999, 4: 4.001, 5: 5.0, 6: 8.0}
    try:
        answers = {
            number: post(http, collector, one_span(number, int(size * 1024 * 1024) - 600))
            for number, size in mebibytes.items()
        }
        taken = {otlp.trace_of(number) for number, status in answers.items() if status == 200}
        wait_for(lambda: taken <= set(found(broker, topic)), timeout=60)
    finally:
        collector.stop()
    assert {0: 200, 1: 200, 2: 200, 3: 200} == {
        number: status for number, status in answers.items() if number < 4
    }
    assert all(status != 200 for number, status in answers.items() if number >= 4), answers
    assert Counter(taken) == found(broker, topic)
    assert "Dropping data" not in collector.log()


def test_killed_while_the_broker_is_away(
    mortal: Broker, directory: Path, http: urllib3.PoolManager
) -> None:
    """Spans that were acknowledged while no broker answered are produced by the next Collector, after kill -9 too."""
    topic = mortal.topic("away", config=_LARGEST)
    mortal.kill()
    collector = Collector(directory, mortal.servers, topic)
    collector.start()
    acknowledged = set[bytes]()
    try:
        for number in range(60):
            assert 200 == post(http, collector, one_span(number))
            acknowledged.add(otlp.trace_of(number))
            if number % 20 == 19:
                collector.kill()
                collector.start()
        mortal.start()
        wait_for(lambda: acknowledged <= set(found(mortal, topic)), timeout=90)
    finally:
        collector.kill()
    assert acknowledged == set(found(mortal, topic))


def test_two_collectors_do_not_share_a_queue(broker: Broker, directory: Path) -> None:
    """A second Collector with the directory of one that runs does not start, rather than take its spans."""
    first = Collector(directory, broker.servers, broker.topic("shared", config=_LARGEST))
    first.start()
    second = Collector(directory, broker.servers, "shared")
    try:
        with pytest.raises(AssertionError, match="timeout"):
            second.start()
    finally:
        second.kill()
        first.kill()
