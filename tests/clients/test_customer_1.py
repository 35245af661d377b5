"""Libraries on openai 1.x that make calls in threads of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.billed import billed

if TYPE_CHECKING:
    from tests.clients.billed import Run
    from tests.standins import CmdrDataStandIn


@pytest.mark.parametrize("way", ["run", "agent"])
@pytest.mark.parametrize(
    ("carrier", "payer"), [("context", "nobody"), ("threading", "acme"), ("bound", "acme")]
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

    assert [payer] == [event.customer_id for event in billed(backend)]
