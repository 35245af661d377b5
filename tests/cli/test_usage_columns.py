"""By what a usage report groups, beyond customer and model: all that events say, and the metadata that was declared."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

from cmdrdata_exporter.cli.usage.numbers import COLUMNS
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.ledger import Ledger
from cmdrdata_exporter.delivery.spool.records import encode_event
from tests.cli.conftest import Run
from tests.ledgers import NOW, SEED, event_id

RunJson = Callable[..., tuple[int, Any]]
OPENAI: dict[str, Any] = {
    "server_address": "api.openai.com",
    "request_model": "gpt-5-mini",
    "service_tier": "default",
    "openai_organization": "org-1",
    "openai_project": "proj_1",
    "openai_key_hash": "9f86d081",
}
FLEX: dict[str, Any] = {**OPENAI, "service_tier": "flex"}


def event(
    number: int, at: str, *, tokens: int = 1000, provider: str = "openai", **metadata: Any
) -> bytes:
    """Return an event of acme as it is in a journal, with all that a body says."""
    then = datetime.fromisoformat(at).replace(tzinfo=timezone.utc)
    units: dict[str, int | float] = {"input_tokens": tokens, "total_tokens": tokens}
    header = Header(
        customer="acme",
        model="gpt-5-mini-2025-08-07",
        endpoint="responses",
        status="reported",
        units=units,
        day=at[:10],
    )
    body = {
        "customer_id": "acme",
        "provider": provider,
        "timestamp": int(then.timestamp()),
        **units,
        "request": {"id": event_id(number)},
        "metadata": metadata,
    }
    return encode_event(event_id(number), header, json.dumps(body).encode())


def keep(directory: Directory, *records: bytes, total_by: tuple[str, ...] = ()) -> None:
    """Put events into a ledger that sums by some metadata keys."""
    ledger = Ledger(directory, total_by=total_by)
    with ledger.transaction():
        ledger.import_records(SEED, 0, records, [], NOW)
        ledger.forget_journals([SEED])
    ledger.close()


@pytest.fixture
def used(remote: Directory) -> Directory:
    """A ledger of calls of two hours, hosts, tiers and plans."""
    keep(
        remote,
        event(1, "2026-11-21T09:59:59", **OPENAI, plan="pro", team=7),
        event(2, "2026-11-21T10:00:00", **FLEX, plan="pro"),
        event(3, "2026-11-21T10:30:00", tokens=200_001, **OPENAI, plan="free"),
        event(4, "2026-11-20T10:00:00", provider="groq", server_address="api.groq.com"),
        total_by=("plan", "team"),
    )
    return remote


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("hour", {"2026-11-20T10": 1, "2026-11-21T09": 1, "2026-11-21T10": 2}),
        ("day", {"2026-11-20": 1, "2026-11-21": 3}),
        ("month", {"2026-11": 4}),
        ("provider", {"groq": 1, "openai": 3}),
        ("host", {"api.groq.com": 1, "api.openai.com": 3}),
        ("service_tier", {"default": 2, "flex": 1, None: 1}),
        ("tier", {"default": 2, "flex": 1, None: 1}),
        ("request_model", {"gpt-5-mini": 3, None: 1}),
        ("context", {"0": 3, "200000": 1}),
        ("organization", {"org-1": 3, None: 1}),
        ("project", {"proj_1": 3, None: 1}),
        ("key", {"9f86d081": 3, None: 1}),
        ("plan", {"free": 1, "pro": 2, None: 1}),
        ("team", {"7": 1, None: 3}),
    ],
)
def test_by(by: str, rows: dict[str | None, int], used: Directory, run_json: RunJson) -> None:
    """Each of them groups, what is not known comes last, and a short name means the same column."""
    _, found = run_json("usage", "--by", by)
    name = {"tier": "service_tier"}.get(by, by)
    assert [name] == found["by"]
    assert list(rows.items()) == [(row[name], row["events"]) for row in found["rows"]]


def test_several(used: Directory, run: Run) -> None:
    """Labels and columns group together, in the order that was asked for."""
    assert (
        """\
plan,tier,unit,amount
free,default,events,1
free,default,input_tokens,200001
free,default,total_tokens,200001
pro,default,events,1
pro,default,input_tokens,1000
pro,default,total_tokens,1000
pro,flex,events,1
pro,flex,input_tokens,1000
pro,flex,total_tokens,1000
"""
    ).replace("tier", "service_tier", 1) == run(
        "usage", "--by", "plan,tier", "--since", "2026-11-21", "--csv"
    ).stdout


def test_an_unknown_name(used: Directory, local: Directory, run: Run) -> None:
    """What this ledger knows is listed, its labels too; another ledger has others."""
    for name, known in ((used.path.name, (*COLUMNS, "plan", "team")), ("local", COLUMNS)):
        done = run("usage", "--by", "customer,colour", "--destination", name)
        assert (2, f"'colour' is none of: {', '.join(known)}") == (
            done.returncode,
            done.stderr.strip().partition("'--by': ")[2],
        )


def test_a_label_of_one_ledger(used: Directory, local: Directory, run_json: RunJson) -> None:
    """Among several ledgers, what only one sums by is empty in the others."""
    keep(local, event(9, "2026-11-21T11:00:00"), total_by=())
    _, found = run_json("usage", "--by", "plan", "--destination", "all")
    assert {"free": 1, "pro": 2, None: 2} == {row["plan"]: row["events"] for row in found["rows"]}


def test_a_label_that_is_called_like_a_column(remote: Directory, run_json: RunJson) -> None:
    """A short name of a column is the label's where there is one."""
    keep(remote, event(1, "2026-11-21T09:00:00", **OPENAI, tier="gold"), total_by=("tier",))
    _, found = run_json("usage", "--by", "tier")
    assert [{"tier": "gold", "events": 1}] == [
        {name: row[name] for name in ("tier", "events")} for row in found["rows"]
    ]


@pytest.mark.parametrize("name", ["events", "units", "unit", "amount"])
def test_a_label_that_no_row_could_tell(name: str, remote: Directory, run: Run) -> None:
    """What is called like a field of a row is not grouped by, so that no number stands for it."""
    labelled: dict[str, Any] = {name: "x"}
    keep(remote, event(1, "2026-11-21T09:00:00", **labelled), total_by=(name,))
    done = run("usage", "--by", name)
    assert (2, True) == (done.returncode, f"'{name}' is none of: " in done.stderr)


def test_focus_has_all_of_it(used: Directory, run: Run) -> None:
    """A line of FOCUS says what is known of its charges, and has the labels as tags."""
    lines = csv.DictReader(io.StringIO(run("usage", "--focus").stdout))
    [line] = [line for line in lines if line["x_InputTokensAbove"] == "200000"]
    assert {
        "BillingAccountId": "org-1",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z",
        "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeDescription": "Input Tokens, gpt-5-mini-2025-08-07, responses",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": "2026-11-22T00:00:00Z",
        "ChargePeriodStart": "2026-11-21T00:00:00Z",
        "ConsumedQuantity": "200001.0",
        "ConsumedUnit": "Tokens",
        "InvoiceIssuerName": "OpenAI",
        "ProviderName": "OpenAI",
        "PublisherName": "OpenAI",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "OpenAI API",
        "ServiceSubcategory": "Generative AI",
        "SkuId": "gpt-5-mini-2025-08-07/input_tokens",
        "SkuMeter": "Input Tokens",
        "SubAccountId": "proj_1",
        "Tags": '{"customer": "acme", "plan": "free"}',
        "x_Destination": used.path.name,
        "x_Endpoint": "responses",
        "x_Host": "api.openai.com",
        "x_InputTokensAbove": "200000",
        "x_KeyHash": "9f86d081",
        "x_Model": "gpt-5-mini-2025-08-07",
        "x_ServiceTier": "default",
        "x_UsageStatus": "reported",
    } == {name: value for name, value in line.items() if value}
