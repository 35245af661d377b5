"""
Check of a topic of Kafka: whether a broker answers, knows the user, and has the topic.

It is asked for the topic's partitions, which produces nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmdrdata_exporter.cli.doctor.findings import Finding
from cmdrdata_exporter.delivery import Verdict
from cmdrdata_exporter.runtime import options
from cmdrdata_exporter.settings import (
    CMDRDATA_ENDPOINT,
    CMDRDATA_KAFKA_OPTIONS,
    ConfigurationError,
    Settings,
)


def check(settings: Settings, *, timeout: float) -> Iterator[Finding]:
    """
    Yield what is wrong with the topic of these settings.

    Args:
        settings: of the application.
        timeout: seconds that it may take.
    """
    # What it needs is an extra.
    from cmdrdata_exporter.delivery.kafka.answers import classify
    from cmdrdata_exporter.delivery.kafka.client import Client

    where = settings.target.shown_endpoint
    try:
        post = options(settings).post
    except ConfigurationError as error:
        yield Finding.error("setting", str(error), f"Mend the file of {CMDRDATA_KAFKA_OPTIONS}.")
        return
    client = getattr(post, "__self__", None)
    if not isinstance(client, Client) or (error := client.ask(timeout)) is None:
        return
    outcome = classify(error, None)
    if outcome.verdict is Verdict.MISCONFIGURED:
        yield Finding.error(
            "topic-refused",
            f"{where} takes no events ({outcome.explanation}).",
            f"Check the topic in {CMDRDATA_ENDPOINT}, and who the producer is by {CMDRDATA_KAFKA_OPTIONS}. "
            "Events are kept until it does.",
        )
    else:
        yield Finding.error(
            "unreachable",
            f"{where} cannot be reached: {outcome.reason}.",
            f"Check the servers in {CMDRDATA_ENDPOINT} and the network.",
        )
