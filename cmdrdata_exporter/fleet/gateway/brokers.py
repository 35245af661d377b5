"""What brokers tell of a topic: which one it is, and what its partitions have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import IsolationLevel, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - as its documentation has it
)

from cmdrdata_exporter.fleet.positions import Bounds

PATIENCE = 5.0
"""Seconds for which an answer is waited for."""
_NONE = "A" * 22
"""The id of a topic where brokers have none, those before Kafka 2.8: 16 zeros, in base 64."""


class Topic(NamedTuple):
    """What is read."""

    servers: str
    name: str
    group: str


class Brokers:
    """
    Asks brokers of a topic. What it raises is a `KafkaException`.

    Args:
        topic: which.
        options: those of librdkafka that the user has set.
    """

    def __init__(self, topic: Topic, options: Mapping[str, str]) -> None:
        self._name = topic.name
        fixed = {"bootstrap.servers": topic.servers, "log_level": 0}
        self._admin: Any = AdminClient({"client.id": "cmdrdata-gateway", **options, **fixed})

    def topic_id(self) -> str:
        """Return the id of the topic, another one once it was made anew; empty where brokers have none."""
        found = self._admin.describe_topics(TopicCollection([self._name]), request_timeout=PATIENCE)
        name = str(found[self._name].result().topic_id)
        return "" if name == _NONE else name

    def bounds(self, partitions: Sequence[int]) -> dict[int, Bounds]:
        """Return what partitions have."""
        places = [TopicPartition(self._name, number) for number in partitions]
        first, end = (
            self._admin.list_offsets(
                dict.fromkeys(places, spec),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=PATIENCE,
            )
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        )
        return {
            place.partition: Bounds(first[place].result().offset, end[place].result().offset)
            for place in places
        }
