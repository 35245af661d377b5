"""Libraries on openai 2.x that make calls in threads of their own, or wrap a client before us."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.billed import billed

if TYPE_CHECKING:
    from tests.clients.billed import Run
    from tests.standins import CmdrDataStandIn


@pytest.mark.parametrize(
    ("way", "carrier", "payer"),
    [
        ("parallel", "context", "nobody"),
        ("parallel", "threading", "acme"),
        ("evaluate", "context", "nobody"),
        ("evaluate", "threading", "acme"),
        ("batch_completion", "context", "nobody"),
        ("batch_completion", "threading", "acme"),
        ("batch_completion", "bound", "acme"),
    ],
)
def test_threads(  # noqa: PLR0917 - the table and the fixtures
    way: str,
    carrier: str,
    payer: str,
    run: Run,
    environment: dict[str, str],
    backend: CmdrDataStandIn,
) -> None:
    """Calls in a library's own threads have their customer by what the documentation names, and only by that."""
    environment["CMDRDATA_CUSTOMER_ID"] = "nobody"
    if carrier != "threading":
        environment["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"] = "threading"
    run("pooled.py", way, carrier)

    assert [payer, payer] == [event.customer_id for event in billed(backend)]


@pytest.mark.parametrize("library", ["langsmith", "braintrust", "opik"])
def test_wrapped_clients(
    library: str, run: Run, environment: dict[str, str], backend: CmdrDataStandIn
) -> None:
    """A client that was wrapped before us is attributed by its context, and bound without losing the wrapper."""
    environment["OPIK_TRACK_DISABLE"] = "true"

    assert "[True, True, True]\n" == run("wrapped.py", library, in_code=True)
    payers = sorted(event.customer_id for event in billed(backend))
    assert ["bound", "called", "context"] == payers
