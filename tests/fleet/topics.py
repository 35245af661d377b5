"""What is in a topic of spans."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData


class Message(NamedTuple):
    """A record of the topic."""

    partition: int
    key: bytes | None
    value: bytes

    def spans(self) -> Iterator[Span]:
        """Return its spans."""
        for batch in TracesData.FromString(self.value).resource_spans:
            for scope in batch.scope_spans:
                yield from scope.spans


def messages(servers: str, topic: str, *, seconds: float = 60.0) -> list[Message]:
    """Return all that is in a topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"reader-{time.time_ns()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    found: list[Message] = []
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        unread, deadline = set(partitions), time.monotonic() + seconds
        while unread:
            assert time.monotonic() < deadline, "the topic cannot be read to its end"
            message = consumer.poll(1.0)
            if message is None:
                continue
            partition: Any = message.partition()
            if (error := message.error()) is not None:
                # Of others the client recovers.
                if error.code() == KafkaError._PARTITION_EOF:
                    # It may be told twice, after a broker was away.
                    unread.discard(partition)
                continue
            key: Any = message.key()
            value: Any = message.value()
            found.append(Message(partition, key, value))
        return found
    finally:
        consumer.close()
