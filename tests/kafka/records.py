"""What is in a topic, but for what hosts say of themselves."""

from __future__ import annotations

import itertools
import json
import socket
import time
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, TopicPartition

_groups = itertools.count()


class Record(NamedTuple):
    """A record of a topic."""

    key: bytes | None
    id: str
    body: bytes

    @property
    def event(self) -> Any:
        """The event that was sent."""
        return json.loads(self.body)


def records(servers: str, topic: str, *, seconds: float = 30.0) -> list[Record]:
    """Return all records of a topic, those of each partition in their order."""
    options = {
        "bootstrap.servers": servers,
        "group.id": f"reader-{time.time_ns()}-{next(_groups)}",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 0,
    }
    found: list[Record] = []
    consumer = Consumer(options)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        open_ones, deadline = set(partitions), time.monotonic() + seconds
        while open_ones:
            assert time.monotonic() < deadline, "the topic cannot be read to its end"
            message = consumer.poll(1.0)
            if message is None:
                continue
            if (error := message.error()) is not None:
                # Of others the client recovers.
                if error.code() == KafkaError._PARTITION_EOF:
                    open_ones.remove(message.partition())
                continue
            headers: Any = message.headers()
            if headers == [("CmdrData-Report", b"1")]:
                continue
            [(name, event_id), host] = headers
            assert name == "Idempotency-Key"
            assert host == ("CmdrData-Host", socket.gethostname().encode())
            key: Any = message.key()
            body: Any = message.value()
            found.append(Record(key, event_id.decode(), body))
        return found
    finally:
        consumer.close()
