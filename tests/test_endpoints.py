"""What is said of an endpoint in several places is the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from cmdrdata_exporter.events import COMMON, RESERVED
from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS, Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.websockets.connections import CONNECTIONS
from tests import endpoints_page

DOCS = Path(__file__).parent.parent / "docs"
OF_CONNECTIONS = {endpoint.name for row in CONNECTIONS for endpoint in row.endpoints}
NAMES = sorted({endpoint.name for endpoint in ENDPOINTS} | OF_CONNECTIONS)


def quoted(text: str) -> tuple[str, ...]:
    """Return what stands in backquotes."""
    return tuple(re.findall(r"`([^`]+)`", text))


def rows(page: str, section: str) -> list[list[tuple[str, ...]]]:
    """Return the rows of the tables in a section of a page, each as what is quoted in each of its cells."""
    _, begun, rest = (DOCS / page).read_text().partition(f"\n{section}\n")
    assert begun, f"{page} has no section {section}"
    lines = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0].splitlines()
    return [list(map(quoted, line.split("|")[1:-1])) for line in lines if line.startswith("| `")]


def test_the_page_of_what_is_metered() -> None:
    """Each endpoint has its row in `docs/metering.md`, under its own name."""
    connections = rows("metering.md", "### WebSocket connections")
    tables = (
        *rows("metering.md", "## Endpoints"),
        *rows("metering.md", "### Jobs"),
        *connections,
    )
    described = {name for row in tables for name in row[0]}
    assert NAMES == sorted(described)
    shown = {(name, resource) for row in connections for name in row[0] for resource in row[1]}
    assert {(endpoint.name, row.name) for row in CONNECTIONS for endpoint in row.endpoints} == shown


def test_the_reserved_keys_of_each_endpoint() -> None:
    """The exporter knows which keys of the metadata the events of each endpoint always have."""
    assert NAMES == sorted(RESERVED)


def test_the_page_of_the_event() -> None:
    """`docs/events.md` has the reserved keys of each endpoint that has any, and of each event."""
    tables = rows("events.md", "## Reserved metadata")
    assert set(COMMON) <= {key for row in tables for key in row[0]}
    documented = {name: row[1] for row in tables for name in row[0] if name in RESERVED}
    # Defaults stand in the cell too, and are no keys.
    assert {name: keys for name, keys in RESERVED.items() if keys} == {
        name: tuple(key for key in keys if key not in {"auto", "json", "null"})
        for name, keys in documented.items()
    }


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.method}-{one.path}")
def test_what_an_endpoint_writes_is_reserved(endpoint: Endpoint) -> None:
    """What an endpoint always tells of its request is reserved, so that no key of the user takes its place."""
    assert [] == unreserved((*endpoint.details, *endpoint.echoes), RESERVED[endpoint.name])


def test_what_is_read_of_answers_is_reserved() -> None:
    """Each detail that is written has its name among the reserved keys, but for those that few events have."""
    prefix = semconv.DETAIL_PREFIX
    details = [
        value.removeprefix(prefix)
        for value in vars(semconv).values()
        if isinstance(value, str) and value.startswith(prefix) and value != prefix
    ]
    reserved = {key for keys in RESERVED.values() for key in keys}
    assert ["svg_model"] == unreserved(details, (*reserved, *COMMON))


def unreserved(keys: Iterable[str], reserved: Iterable[str]) -> list[str]:
    """Return the keys that are not reserved."""
    return sorted(set(keys) - set(reserved))


def test_the_page_of_every_request() -> None:
    """`docs/endpoints.md` is what the tables make of it."""
    assert endpoints_page.page() == endpoints_page.PAGE.read_text(encoding="utf-8"), (
        "run: python -m tests.endpoints_page"
    )
