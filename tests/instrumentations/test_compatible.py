"""A framework that names another provider than the host does, for calls that pass the seam, bills nothing twice."""

from __future__ import annotations

import pytest

from tests.clients.billed import Billed
from tests.instrumentations.conftest import Run
from tests.instrumentations.test_instrumentations import LANGCHAIN, SCOPES, around_ours, named

WAYS = ("ainvoke", "astream", "batch", "batch", "batch", "invoke", "stream")
EVENTS = [
    Billed(
        endpoint="chat.completions",
        customer_id=f"{model} {way}",
        streaming=way.endswith("stream"),
    )
    for model in ("ChatDeepSeek", "ChatTogether")
    for way in WAYS
]


@pytest.mark.parametrize("processor", ["simple", "batch"])
@pytest.mark.parametrize(
    "instrumentors", [order for one in LANGCHAIN for order in around_ours((one,))], ids=named
)
def test_another_name_for_the_provider(
    instrumentors: tuple[str, ...], processor: str, run: Run
) -> None:
    """`together` and `deepseek` are what LangChain calls them, by their host they are none: each call is one event."""
    outcome = run("compatible", instrumentors, processor)
    assert EVENTS == outcome.events
    (other,) = set(instrumentors) - {"ours"}
    assert {SCOPES[other]: len(EVENTS)} == outcome.passed_over


@pytest.mark.parametrize("instrumentor", LANGCHAIN)
def test_the_exporter_alone(instrumentor: str, run: Run) -> None:
    """Without our instrumentor each call is billed from the framework's span."""
    outcome = run("compatible", (instrumentor,))
    assert [event.customer_id for event in EVENTS] == [
        event.customer_id for event in outcome.events
    ]
    assert {} == outcome.passed_over
