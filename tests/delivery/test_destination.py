"""A destination: its kind, and what follows from that for files, metrics and logs."""

from __future__ import annotations

import pytest

from cmdrdata_exporter.delivery.destination import HTTP, KAFKA, LOCAL, Destination
from cmdrdata_exporter.runtime import TRANSPORTS


@pytest.mark.parametrize(
    ("destination", "kind", "shown", "server", "text"),
    [
        (Destination(), LOCAL, None, None, "local"),
        (Destination(None, "acme"), LOCAL, None, None, "local"),
        (
            Destination("https://host/events?token=secret#top", "acme"),
            HTTP,
            "https://host/events",
            ("host", 443),
            "acme at https://host/events",
        ),
        (
            Destination("http://127.0.0.1:8080/events"),
            HTTP,
            "http://127.0.0.1:8080/events",
            ("127.0.0.1", 8080),
            "default at http://127.0.0.1:8080/events",
        ),
    ],
    ids=["local", "local of an account", "https", "http"],
)
def test_what_follows_from_a_destination(
    destination: Destination,
    kind: str,
    shown: str | None,
    server: tuple[str, int] | None,
    text: str,
) -> None:
    """Without an endpoint events stay here; of one with a query people are shown what is before that."""
    assert (destination.kind, destination.shown_endpoint) == (kind, shown)
    assert (destination.server, str(destination)) == (server, text)


def test_every_kind_but_local_has_a_transport() -> None:
    """Events of a kind without a transport would stay on this host, unsent."""
    assert set(TRANSPORTS) == {HTTP, KAFKA}
