"""
Writes `docs/endpoints.md` from the tables of what is metered and of what is not.

    python -m tests.endpoints_page
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS, Endpoint
from opentelemetry_instrumentation_cmdrdata.openai.unbilled import GROUPS
from opentelemetry_instrumentation_cmdrdata.openai.websockets.connections import CONNECTIONS

PAGE = Path(__file__).parent.parent / "docs" / "endpoints.md"


def page() -> str:
    """Return the page."""
    return "\n".join([*_beginning(), *_requests(), *_connections(), *_unbilled()]) + "\n"


def _beginning() -> Iterator[str]:
    yield "# Every request of the SDK: what is metered, and what is not"
    yield "`python -m tests.endpoints_page` makes this page from the tables of the code; a test says when it is old."
    yield "What is charged of each endpoint is in [metering](metering.md#endpoints), with the calls of the SDK."
    yield "A test over the installed SDK fails for a request or a connection that is in none of these tables."
    yield ""


def _requests() -> Iterator[str]:
    yield "## Requests that are metered"
    yield "| request | endpoint of the event | when it is charged |"
    yield "|---|---|---|"
    for row in ENDPOINTS:
        yield f"| `{row.method.upper()} {row.path}` | `{row.name}` | {_when(row)} |"
    yield ""


def _when(row: Endpoint) -> str:
    if row.is_free:
        return "never: it is free, and makes an event that says so"
    if row.lists:
        return "for each job on the page that has ended, unless it was billed before"
    if row.goes_on:
        return "when the job that goes on is seen to end"
    if row.polls:
        return "if the job has ended, unless it was billed before"
    if row.backgrounds:
        return "at once; with `background`, when the end of the job is seen"
    if row.polled_at is not None:
        return f"when the end of the job is seen, at `GET {row.polled_at}` for instance"
    return "at once"


def _connections() -> Iterator[str]:
    yield "## WebSocket connections that are metered"
    yield "| connection | endpoints of the events | what is charged |"
    yield "|---|---|---|"
    for row in CONNECTIONS:
        names = ", ".join(f"`{endpoint.name}`" for endpoint in row.endpoints)
        yield f"| `{row.name}.connect` | {names} | {row.bills} |"
    yield ""


def _unbilled() -> Iterator[str]:
    yield "## What is not metered"
    yield "These requests pass untouched. `{}` is one segment of a path, `**` any number of them."
    for title, cost, paths in GROUPS:
        yield ""
        yield f"### {title}"
        yield f"They cost {cost}." if cost.startswith("nothing") else f"Their cost: {cost}."
        yield ""
        yield from (f"- `{path}`" for path in paths)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
