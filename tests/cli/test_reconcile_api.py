"""`cmdrdata reconcile --from-api`: the usage API is asked patiently, and its key goes nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cmdrdata_exporter.cli.reconcile import api
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.cli.conftest import Run
from tests.cli.test_reconcile import CALLS, differing, record_in
from tests.usage_api import KEY, UsageServer
from tests.usage_months import FIRST, GAPS, LAST, MINI, Call, Month, Provider

RunJson = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def month() -> Month:
    """A month with gaps."""
    return Month(CALLS)


@pytest.fixture
def recorded(local: Directory, month: Month) -> None:
    """The month is in the ledger."""
    record_in(local, month)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited, by a clock that needs no time for it."""
    waited: list[float] = []
    monkeypatch.setattr(api.UsageApi.__init__, "__defaults__", (None, None, waited.append))
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    return waited


def test_the_same_from_the_api(
    local: Directory, month: Month, run_json: RunJson, waits: list[float]
) -> None:
    """The API tells the same as its files, page by page, and each wait is as long as it asks for."""
    record_in(local, month)
    with UsageServer(month.provider, limits_each=5) as server:
        code, found = run_json(
            "reconcile", "--from-api", "--base-url", server.url, "--since", FIRST, "--until", LAST
        )
    assert (0, list(GAPS)) == (code, differing(found))
    assert {7.0} == set(waits)
    # Eleven surfaces of five pages each, and one request more for each that was refused.
    assert 55 + len(waits) == len(server.requests)
    assert not [path for path in server.requests if KEY in path]


def test_by_key_from_the_api(local: Directory, run_json: RunJson, waits: list[float]) -> None:
    """By key the API is asked which keys there are."""
    month = Month(CALLS, gaps=False)
    record_in(local, month)
    with UsageServer(month.provider) as server:
        _, found = run_json(
            "reconcile",
            "--from-api",
            "--base-url",
            server.url,
            "--by",
            "key",
            "--since",
            FIRST,
            "--until",
            LAST,
        )
    assert {"key_shop", "key_lab"} == {row["key"] for row in found["rows"]}
    assert {1} == {pair["covered"] for row in found["rows"] for pair in row["units"].values()}
    assert [] == waits


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("http://usage.test/v1", KEY, "--base-url is http://, which would show the key"),
        ("usage.test", KEY, "--base-url is no URL; expected is one like https://api.openai.com/v1"),
        ("https://usage.test", f"{KEY}\u2026", "OPENAI_ADMIN_KEY holds characters that no key has"),
    ],
)
def test_where_the_admin_key_is_sent(
    url: str, key: str, message: str, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    """An admin key goes nowhere in the clear, and is in no message."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", key)
    done = run("reconcile", "--from-api", "--base-url", url)
    assert (2, True) == (done.returncode, message in done.stderr)
    assert KEY not in done.stderr


@pytest.mark.usefixtures("recorded")
def test_the_gateway_of_the_application_gets_no_admin_key(
    month: Month, monkeypatch: pytest.MonkeyPatch, waits: list[float], run: Run
) -> None:
    """Where the application's calls go is not where its organization's usage is asked for."""
    with UsageServer(month.provider) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setattr(api, "OPENAI", "http://127.0.0.1:9/v1")
        done = run("reconcile", "--from-api", "--since", FIRST, "--until", LAST)
    assert (2, []) == (done.returncode, server.requests)
    assert "the usage API gives no usage of completions: APIConnectionError" in done.stderr
    assert [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0] == waits


FAILING: list[tuple[tuple[int, dict[str, str]], str, list[float]]] = [
    ((500, {}), "no usage of completions: HTTP 500; try again later", [1, 2, 4, 8, 16, 32, 60]),
    ((429, {"Retry-After": "3"}), "HTTP 429; try again later", [3.0] * 7),
    ((429, {"Retry-After-Ms": "250"}), "HTTP 429; try again later", [0.25] * 7),
    ((429, {"Retry-After": "601"}), "to be tried again in 601 s only", []),
    ((400, {}), "no usage of completions: HTTP 400", []),
    ((403, {}), "refuses OPENAI_ADMIN_KEY (403); expected is an admin key", []),
    ((200, {}), 'has no list "data"', []),
]
"""What the API answers with, what is said of it, and how long was waited in between."""


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(("limit", "message", "expected"), FAILING)
def test_an_api_that_gives_nothing(
    limit: tuple[int, dict[str, str]],
    message: str,
    expected: list[float],
    waits: list[float],
    run: Run,
) -> None:
    """It is asked again as long as that may help, waits as long as it says, and ends with what it said."""
    with UsageServer(Provider(), limits_each=1, limit=limit) as server:
        done = run(
            "reconcile", "--from-api", "--base-url", server.url, "--since", FIRST, "--until", LAST
        )
    assert (2, "") == (done.returncode, done.stdout)
    assert message in " ".join(done.stderr.split())
    assert expected == waits
    assert KEY not in done.stderr


@pytest.mark.usefixtures("recorded", "waits")
def test_a_key_that_is_refused(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Another key than one of an administrator is refused at once, and is in no message."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-proj-AbCdEfGhIjKlMnOp")
    with UsageServer(Provider()) as server:
        done = run("reconcile", "--from-api", "--base-url", server.url)
    assert (2, 1) == (done.returncode, len(server.requests))
    assert "refuses OPENAI_ADMIN_KEY (401); expected is an admin key" in done.stderr
    assert "AbCd" not in done.stderr


def test_a_surface_that_the_server_lacks(
    month: Month, local: Directory, waits: list[float], run_json: RunJson
) -> None:
    """What cannot be asked for is left out on both sides, and said."""
    record_in(local, month)
    with UsageServer(month.provider, lacks=("embeddings", "decisions")) as server:
        _, found = run_json(
            "reconcile", "--from-api", "--base-url", server.url, "--since", FIRST, "--until", LAST
        )
    assert [
        "Usage of decisions is not known to this server (404): it is left out.",
        "Usage of embeddings is not known to this server (404): it is left out.",
    ] == found["notes"]
    assert "text-embedding-3-small" not in {row["model"] for row in found["rows"]}
    assert ("embeddings", "no usage of it was given") in [
        (one["surface"], one["reason"]) for one in found["not_compared"]
    ]
    assert [] == waits


@pytest.mark.usefixtures("waits")
def test_usage_without_a_key(local: Directory, run_json: RunJson) -> None:
    """What the API groups by is compared, also where none of its lines has a key or a project."""
    month = Month(0, gaps=False)
    call = Call(5, MINI, "chat.completions", 100, 10, project="", key="")
    month.provider.count(call)
    record_in(local, month)
    with UsageServer(month.provider) as server:
        code, found = run_json(
            *("reconcile", "--from-api", "--base-url", server.url, "--by", "project,key"),
            *("--since", FIRST, "--until", LAST),
        )
    assert (0, [(None, None, 100)]) == (
        code,
        [
            (row["project"], row["key"], row["units"]["input_tokens"]["theirs"])
            for row in found["rows"]
        ],
    )
