"""Every request path that the installed SDK knows is decided on: metered, or known to cost nothing by itself."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Model

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS, find
from opentelemetry_instrumentation_cmdrdata.openai.unbilled import UNBILLED, is_unbilled
from opentelemetry_instrumentation_cmdrdata.openai.websockets.connections import BY_NAME
from tests.metering import Meter
from tests.provider import Provider, Reply
from tests.sdk import VERSION, async_client, client

METHODS = {
    "_get": "get",
    "_post": "post",
    "_put": "put",
    "_patch": "patch",
    "_delete": "delete",
    "_get_api_list": "get",
}
"""The methods of the SDK's resources that make a request, and its HTTP method."""

RESOURCES = Path(openai.__file__).parent / "resources"


def path_of(argument: ast.expr) -> str:
    """Return a path as it is written in the SDK, with `{}` for each segment that is filled in."""
    if isinstance(argument, ast.Call):  # `path_template("/files/{file_id}", file_id=file_id)`
        argument = argument.args[0]
    if isinstance(argument, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in argument.values
        )
    assert isinstance(argument, ast.Constant), (
        f"cannot tell the path of a request: {ast.unparse(argument)}"
    )
    return re.sub(r"\{\w+\}", "{}", str(argument.value))


def requests_of(source: str) -> set[tuple[str, str]]:
    """Return the HTTP methods and paths of the requests that a module of the SDK makes."""
    found: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = METHODS.get(node.func.attr)
            if method is None:
                continue
            for keyword in node.keywords:
                if keyword.arg == "method" and isinstance(keyword.value, ast.Constant):
                    method = str(keyword.value.value)
            found.add((method, path_of(node.args[0])))
    return found


REQUESTS = sorted(
    set[tuple[str, str]]().union(
        *(requests_of(path.read_text()) for path in RESOURCES.rglob("*.py"))
    )
)


def connections_of(source: str) -> set[str]:
    """Return the classes of a module of the SDK that have a `connect`, and those that turn frames into events."""
    return {
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name in ("connect", "parse_event")
    }


CONNECTING = {
    ".".join(path.relative_to(RESOURCES).with_suffix("").parts): found
    for path in sorted(RESOURCES.rglob("*.py"))
    if (found := connections_of(path.read_text()))
}
"""The modules of the SDK that have WebSocket connections, with the classes that make them and those that are some."""


def url_of(path: str) -> str:
    """Return a path with ids filled in."""
    return path.replace("{}", "id_1")


def is_row(path: str) -> bool:
    """Say whether a path is that of a row, with whichever method: what lists or deletes charges is none."""
    return any(find(row.method, url_of(path)) is not None for row in ENDPOINTS)


def test_the_sdk_was_read() -> None:
    """The paths are found in each of the ways that versions of the SDK write them."""
    assert requests_of(
        """
self._get(path_template("/files/{file_id}/content", file_id=file_id), cast_to=X)
self._post(f"/threads/{thread_id}/runs?beta=true", cast_to=X)
self._get_api_list("/searches", method="post")
self._get_api_list("/files")
self.get("/nothing")
"""
    ) == {
        ("get", "/files/{}/content"),
        ("post", "/threads/{}/runs?beta=true"),
        ("post", "/searches"),
        ("get", "/files"),
    }
    assert ("post", "/chat/completions") in REQUESTS
    assert len(REQUESTS) > 20


@pytest.mark.parametrize(
    ("method", "path"), REQUESTS, ids=[f"{method} {path}" for method, path in REQUESTS]
)
def test_every_path_of_the_sdk(method: str, path: str) -> None:
    """A request is metered or listed as unbilled, and none is new to us."""
    decided = find(method, url_of(path)) is not None or is_unbilled(url_of(path))
    # Of a charge, other methods list, read or delete it.
    assert decided or (method != "post" and is_row(path)), (
        f"{method.upper()} {path} is new in openai {openai.__version__}: "
        "meter it with a row in endpoints.py, or list it in unbilled.py"
    )


@pytest.mark.parametrize("row", ENDPOINTS, ids=lambda row: f"{row.method} {row.path}")
def test_no_row_is_unbilled(row: Any) -> None:
    """A row is found by its own path, and what is a charge is not listed as none."""
    found = find(row.method.upper(), url_of(row.path) + "?beta=true")
    assert found == (row, "id_1" if "{}" in row.path else None)
    assert row.method == "get" or row.path not in UNBILLED


def resource_of(module: str) -> str:
    """Return how a client reaches the resource of a module: one with resources below it is in a package of its name."""
    *parts, name = module.split(".")
    return ".".join(parts if parts[-1:] == [name] else [*parts, name])


def test_connections_are_found() -> None:
    """Both kinds of class are found in what the SDK writes."""
    source = """
class Realtime:
    def connect(self): ...
class RealtimeConnection:
    def recv(self): ...
    def parse_event(self, data): ...
class RealtimeConnectionManager: ...
"""
    assert connections_of(source) == {"Realtime", "RealtimeConnection"}


def test_every_connection_of_the_sdk() -> None:
    """Whatever can connect, and each class that turns frames into events, is in a row, and none is new to us."""
    unknown = {
        f"{module}: {', '.join(sorted(classes))}"
        for module, classes in CONNECTING.items()
        if resource_of(module) not in BY_NAME
    }
    assert unknown == set(), (
        f"new WebSocket connections in openai {openai.__version__}: meter them with a row in connections.py"
    )
    # Of each resource a class that connects and a connection, in both worlds.
    assert {module: len(classes) for module, classes in CONNECTING.items()} == dict.fromkeys(
        CONNECTING, 4
    )


if VERSION >= (3, 57):

    def test_every_row_of_connections_exists() -> None:
        """A row is a resource that the newest SDK has, so none is misspelled."""
        assert {resource_of(module) for module in CONNECTING} == set(BY_NAME)


if VERSION >= (3, 54):

    def test_every_row_exists() -> None:
        """A row's request is one that the newest SDK makes, so none is misspelled."""
        made = {(method, path.partition("?")[0]) for method, path in REQUESTS}
        assert [row for row in ENDPOINTS if (row.method, row.path) not in made] == []

    def test_every_unbilled_path_exists() -> None:
        """An unbilled path is one that the newest SDK has, or the oldest had, so none is misspelled."""
        paths = {url_of(path.partition("?")[0]) for _, path in REQUESTS}
        unused = [
            entry
            for entry in UNBILLED
            if not any(path.startswith(url_of(entry.removesuffix("/**"))) for path in paths)
        ]
        assert [entry for entry in unused if not entry.startswith(("/edits", "/fine-tunes"))] == []


THING: dict[str, Any] = {"id": "thing_1", "usage": {"prompt_tokens": 5}}
BODY = {"model": "m"}


def ask(world: str, provider: Provider, method: str, path: str) -> Any:
    """Make a request that no resource of the SDK makes, as applications may."""
    arguments: dict[str, Any] = {"body": BODY} if method == "post" else {}
    if world == "sync":
        with client(provider) as sdk:
            return getattr(sdk, method)(path, cast_to=Model, **arguments)

    async def run() -> Any:
        async with async_client(provider) as sdk:
            return await getattr(sdk, method)(path, cast_to=Model, **arguments)

    return asyncio.run(run())


@pytest.mark.parametrize("world", ["sync", "async"])
@pytest.mark.parametrize(
    ("request_line", "told"),
    [
        ("post /unheard/of", 2),
        ("get /unheard/of", 0),
        ("post /vector_stores", 0),
        ("post /realtime/client_secrets", 0),
        ("post /threads/thread_1/runs/run_1", 0),
    ],
)
def test_a_request_that_is_not_metered(
    request_line: str, told: int, world: str, provider: Provider, meter: Meter
) -> None:
    """What is not metered passes untouched; of what may cost something and is not known, the operator is told."""
    method, path = request_line.split()
    provider.answer(f"/v1{path}", Reply(json=THING))
    observed = [ask(world, provider, method, path) for _ in range(2)]
    CmdrDataInstrumentor().uninstrument()
    bare = ask(world, provider, method, path)
    CmdrDataInstrumentor().instrument()  # For the fixture to undo.

    assert observed == [bare, bare]
    assert (type(bare), bare.id) == (Model, "thing_1")
    assert len({request.body for request in provider.requests}) == 1
    assert (meter.spans(), meter.events()) == ([], [])
    assert faults.counts.pop("unknown request path", 0) == told
