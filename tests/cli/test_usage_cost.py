"""`cmdrdata usage --cost`: what usage costs, and what is not in that."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cmdrdata_exporter.cli.usage import command
from cmdrdata_exporter.cli.usage.costs import Sum, shown
from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.delivery.spool.records import encode_event
from tests.cli.conftest import Run
from tests.ledgers import DELIVERED, NOW, event_id, fill

RunJson = Callable[..., tuple[int, Any]]
PAGE = Path(__file__).parents[2] / "docs" / "money.md"
EXAMPLE = Path(__file__).parents[2] / "examples" / "prices.toml"

needs_table = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="genai-prices needs Python 3.11"
)


def call(
    number: int,
    customer: str,
    model: str,
    units: dict[str, int | float],
    *,
    at: str = "2026-11-20T09:30:00",
    provider: str = "openai",
    host: str = "api.openai.com",
    tier: str | None = "default",
    endpoint: str = "chat.completions",
    status: str = "reported",
) -> bytes:
    """Return an event as it is in a journal, with what its price depends on."""
    header = Header(customer, model, endpoint, status, units, at[:10], hold=False)
    body = {
        "customer_id": customer,
        "provider": provider,
        "timestamp": int(datetime.fromisoformat(at).replace(tzinfo=timezone.utc).timestamp()),
        "input_tokens": units.get("input_tokens", 0),
        "request": {"id": event_id(number)},
        "metadata": {"server_address": host, "service_tier": tier},
    }
    return encode_event(event_id(number), header, json.dumps(body).encode())


def tokens(input_tokens: int, output_tokens: int, **parts: int) -> dict[str, int | float]:
    """Return the units of a chat."""
    total = input_tokens + output_tokens
    return {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": total,
        **parts,
    }


# 120,000 in, a third of it cached, and 30,000 out: 0.02 + 0.001 + 0.06.
MINI = tokens(120_000, 30_000, cache_read_input_tokens=40_000)


@pytest.fixture
def used(remote: Directory) -> Directory:
    """A ledger of calls whose prices are certain, and of some whose are not."""
    calls = [
        call(1, "acme", "gpt-5-mini", MINI),
        # The one costs by another price than the other: 1.50 + 0.0225, and 0.075 + 0.015.
        call(2, "acme", "gpt-5.4", tokens(300_000, 1000)),
        call(3, "acme", "gpt-5.4", tokens(30_000, 1000)),
        # 0.075 + 0.02 + 0.03, and what the table has no price for.
        call(
            4,
            "acme",
            "gpt-5",
            tokens(30_000, 1000, web_search_calls=3, code_interpreter_calls=1),
            tier="priority",
        ),
        call(5, "globex", "llama-4", tokens(30_000, 1000), host="llm.internal", tier=None),
        # 3.75 + 0.005; which of its calls were large is not known, and does not matter.
        call(6, "globex", "gpt-4o", tokens(3_000_000, 1000), endpoint="batches", tier=None),
        call(7, "globex", "gpt-5-mini", {}, status="missing"),
        # 0.0081 + 0.0011 by day, 0.00405 + 0.00055 at night.
        call(8, "initech", "deepseek-chat", tokens(30_000, 1000), provider="deepseek"),
        call(
            9,
            "initech",
            "deepseek-chat",
            tokens(30_000, 1000),
            provider="deepseek",
            at="2026-11-20T20:30:00",
        ),
    ]
    fill(remote, calls, [DELIVERED] * len(calls), now=NOW - 60)
    return remote


COSTS = {
    ("acme", "gpt-5"): ("0.125", True),
    ("acme", "gpt-5-mini"): ("0.081", False),
    ("acme", "gpt-5.4"): ("1.6125", False),
    ("globex", "gpt-4o"): ("3.755", False),
    ("globex", "gpt-5-mini"): (None, True),
    ("globex", "llama-4"): (None, True),
    ("initech", "deepseek-chat"): ("0.0138", False),
}
UNPRICED = [
    {
        "provider": "openai",
        "host": "api.openai.com",
        "model": "gpt-5",
        "endpoint": "chat.completions",
        "service_tier": "priority",
        "unit": "code_interpreter_calls",
        "amount": 1,
        "reason": "it has no price",
    },
    *(
        {
            "provider": "openai",
            "host": "llm.internal",
            "model": "llama-4",
            "endpoint": "chat.completions",
            "service_tier": "",
            "unit": unit,
            "amount": amount,
            "reason": "the table has no host llm.internal",
        }
        for unit, amount in (("input_tokens", 30_000), ("output_tokens", 1000))
    ),
]


@needs_table
def test_json(used: Directory, run_json: RunJson) -> None:
    """Each row has its cost, exact, and whether it is only the least; what has no certain price is listed."""
    _, without = run_json("usage", "--by", "customer,model")
    code, found = run_json("usage", "--by", "customer,model", "--cost")
    assert 0 == code
    assert COSTS == {
        (row["customer"], row["model"]): (row.pop("cost"), row.pop("cost_is_least"))
        for row in found["rows"]
    }
    assert ("5.5873", True) == (found["total"].pop("cost"), found["total"].pop("cost_is_least"))
    assert UNPRICED == found.pop("unpriced")
    assert "USD" == found.pop("currency")
    assert re.fullmatch(
        r"genai-prices [\d.]+ \(latest change of a price: [\d-]+\)", found.pop("prices")
    )
    assert without == found


@needs_table
@pytest.mark.parametrize("by", ["customer", "day", "hour", "service_tier,endpoint", "status"])
def test_rows_add_up(by: str, used: Directory, run_json: RunJson) -> None:
    """However usage is grouped, the rows cost what the total costs."""
    _, found = run_json("usage", "--by", by, "--cost")
    assert Decimal("5.5873") == sum(Decimal(row["cost"] or 0) for row in found["rows"])
    assert "5.5873" == found["total"]["cost"]


@needs_table
def test_certain(used: Directory, run_json: RunJson) -> None:
    """Where everything has a price, nothing is said to be the least."""
    _, found = run_json("usage", "--cost", "--customer", "initech")
    assert ("0.0138", False, []) == (
        found["total"]["cost"],
        found["total"]["cost_is_least"],
        found["unpriced"],
    )


@needs_table
def test_csv(used: Directory, run: Run) -> None:
    """The cost is one unit more, whose name says whether it is only the least; the notes are beside it."""
    done = run("usage", "--by", "model", "--csv", "--cost", "--customer", "acme")
    assert [
        "gpt-5,cost_usd_at_least,0.125",
        "gpt-5-mini,cost_usd,0.081",
        "gpt-5.4,cost_usd,1.6125",
    ] == [line for line in done.stdout.splitlines() if "cost" in line]
    assert re.fullmatch(
        r"Note: Cost in US dollars, without taxes, by genai-prices [^\n]*\.\n"
        r"Note: [^\n]+\n"
        r"Note: No certain price: gpt-5 \(openai, api\.openai\.com, priority\): 1 code interpreter call:"
        r" it has no price\.\n"
        r"Note: Prices of your own: --prices FILE\.\n",
        done.stderr,
    )


@needs_table
def test_own_prices(used: Directory, run_json: RunJson) -> None:
    """A file prices what the table does not know, comes before it, and is named on the report."""
    _, found = run_json("usage", "--by", "customer,model", "--cost", "--prices", str(EXAMPLE))
    costs = {(row["customer"], row["model"]): row["cost"] for row in found["rows"]}
    # 80,000 at 0.20, 40,000 at 0.02 and 30,000 at 1.60, by the million; 30,000 at 0.05 and 1,000 at 0.15.
    assert ("0.0648", "0.00165") == (costs["acme", "gpt-5-mini"], costs["globex", "llama-4"])
    assert UNPRICED[:1] == found["unpriced"]
    assert found["prices"].startswith("prices.toml contract of 2026-11 (sha256 ")


@needs_table
def test_focus(used: Directory, run: Run, run_json: RunJson) -> None:
    """Lines of FOCUS cost what the usage costs; where no price is certain the columns are empty, never 0."""
    done = run("usage", "--focus", "--cost", "--prices", str(EXAMPLE))
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    paid = {
        (line["x_Model"], line["SkuMeter"]): (
            line["BilledCost"],
            line["ListCost"],
            line["ListUnitPrice"],
            line["SkuPriceId"],
        )
        for line in lines
        if line["x_InputTokensAbove"] != "272000" and line["x_Model"] != "deepseek-chat"
    }
    assert {
        ("gpt-5", "Input Tokens"): (
            "0.075",
            "0.075",
            "0.0000025",
            "gpt-5/input_tokens/priority/0",
        ),
        ("gpt-5", "Output Tokens"): ("0.02", "0.02", "0.00002", "gpt-5/output_tokens/priority/0"),
        ("gpt-5", "Web Search Calls"): (
            "0.03",
            "0.03",
            "0.01",
            "gpt-5/web_search_calls/priority/0",
        ),
        ("gpt-5", "Code Interpreter Calls"): ("", "", "", ""),
        ("gpt-5-mini", "Input Tokens"): (
            "0.016",
            "0.02",
            "0.00000025",
            "gpt-5-mini/input_tokens/default/100000",
        ),
        ("gpt-5-mini", "Cached Input Tokens"): (
            "0.0008",
            "0.001",
            "0.000000025",
            "gpt-5-mini/cache_read_input_tokens/default/100000",
        ),
        ("gpt-5-mini", "Output Tokens"): (
            "0.048",
            "0.06",
            "0.000002",
            "gpt-5-mini/output_tokens/default/100000",
        ),
        ("gpt-5.4", "Input Tokens"): (
            "0.075",
            "0.075",
            "0.0000025",
            "gpt-5.4/input_tokens/default/0",
        ),
        ("gpt-5.4", "Output Tokens"): (
            "0.015",
            "0.015",
            "0.000015",
            "gpt-5.4/output_tokens/default/0",
        ),
        ("gpt-4o", "Input Tokens"): (
            "3.75",
            "3.75",
            "0.00000125",
            "gpt-4o/input_tokens/default/524288",
        ),
        ("gpt-4o", "Output Tokens"): (
            "0.005",
            "0.005",
            "0.000005",
            "gpt-4o/output_tokens/default/524288",
        ),
        # The file has a price of one's own, which no list has.
        ("llama-4", "Input Tokens"): ("0.0015", "", "", ""),
        ("llama-4", "Output Tokens"): ("0.00015", "", "", ""),
    } == paid
    for line in lines:
        assert line["BilledCost"] == line["EffectiveCost"] == line["ContractedCost"]
        assert ("USD" if line["BilledCost"] else "") == line["BillingCurrency"]
        assert line["PricingQuantity"] in ("", line["ConsumedQuantity"])
    _, found = run_json("usage", "--cost", "--prices", str(EXAMPLE))
    billed = sum(Decimal(line["BilledCost"] or 0) for line in lines)
    assert found["total"]["cost"] == str(billed)
    long = [line["BilledCost"] for line in lines if line["x_InputTokensAbove"] == "272000"]
    assert ["1.5", "0.0225"] == long


@needs_table
def test_focus_knows_the_size_of_calls(remote: Directory, run: Run) -> None:
    """A line has no price where that of the whole is not certain: the output of a batch that may have large calls."""
    fill(
        remote,
        [
            call(1, "acme", "gpt-5.4", tokens(300_000, 1000), endpoint="batches"),
            call(2, "acme", "gpt-5.4", tokens(200_000, 1000), endpoint="batches"),
            # Together they have more than a large call, and none of them has.
            call(3, "globex", "gpt-5.4", tokens(270_000, 1000), endpoint="batches"),
            call(4, "globex", "gpt-5.4", tokens(270_000, 1000), endpoint="batches"),
        ],
    )
    done = run("usage", "--focus", "--cost")
    assert {
        ("acme", "Input Tokens", "272000"): "",
        ("acme", "Output Tokens", "272000"): "",
        ("acme", "Input Tokens", "199999"): "0.25",
        ("acme", "Output Tokens", "199999"): "0.0075",
        ("globex", "Input Tokens", "256000"): "0.675",
        ("globex", "Output Tokens", "256000"): "0.015",
    } == {
        (
            json.loads(line["Tags"])["customer"],
            line["SkuMeter"],
            line["x_InputTokensAbove"],
        ): line["BilledCost"]
        for line in csv.DictReader(io.StringIO(done.stdout))
    }


@needs_table
def test_focus_prices_nothing_that_has_no_price_as_a_whole(
    remote: Directory, tmp_path: Path, run: Run, run_json: RunJson
) -> None:
    """Of tokens that may be cached and sound at once no line has a price, since all of them together have none."""
    prices = tmp_path / "prices.toml"
    prices.write_text(
        '[[prices]]\nprovider = "openai"\nmodel = "voice"\n[prices.per_million]\ninput_tokens = 1\n'
        "cache_read_input_tokens = 0.1\naudio_input_tokens = 10\naudio_cache_read_input_tokens = 0.4\n"
        "output_tokens = 2\n"
    )
    used = tokens(100_000, 1000, cache_read_input_tokens=30_000, audio_input_tokens=20_000)
    fill(remote, [call(1, "acme", "voice", used)])
    _, found = run_json("usage", "--cost", "--prices", str(prices))
    assert ("0.002", True) == (found["total"]["cost"], found["total"]["cost_is_least"])
    done = run("usage", "--focus", "--cost", "--prices", str(prices))
    assert {
        "Audio Input Tokens": "",
        "Cached Input Tokens": "",
        "Input Tokens": "",
        "Output Tokens": "0.002",
    } == {line["SkuMeter"]: line["BilledCost"] for line in csv.DictReader(io.StringIO(done.stdout))}


@needs_table
@pytest.mark.parametrize("form", [(), ("--csv",), ("--focus",)], ids=str)
def test_text_of_others(form: tuple[str, ...], remote: Directory, run: Run) -> None:
    """What a footnote says of a model and a host cannot command a terminal."""
    fill(remote, [call(1, "acme", "a\x1b[31m", tokens(1, 1), host="b\u202ec")])
    done = run("usage", "--cost", *form)
    said = done.stderr if form else done.stdout
    assert "No certain price: a\\x1b[31m (openai, b\\u202ec, default): 1 input token" in " ".join(
        said.split()
    )
    assert not re.search("[\x1b\u202e]", said)


@needs_table
def test_nothing_was_used(remote: Directory, run_json: RunJson) -> None:
    """Nothing has no cost; it is not zero dollars that were charged."""
    _, found = run_json("usage", "--cost")
    assert ([], None, []) == (found["rows"], found["total"]["cost"], found["unpriced"])


class Screen(Console):
    """A terminal of 80 columns that shows no colors."""

    def __init__(self) -> None:
        super().__init__(width=80, force_terminal=True, color_system=None, highlight=False)


@needs_table
def test_the_page(used: Directory, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/money.md shows is what is printed; the table has another version every few days."""
    monkeypatch.setattr(command, "Terminal", Screen)
    ((said, shown),) = re.findall(
        r"^```console\n\$ cmdrdata ([^\n]*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    done = run(*said.split())
    version = re.compile(r"\s+genai-prices[^)]*\)")
    assert version.sub("", shown) == version.sub("", done.stdout)
    assert EXAMPLE.read_text() in PAGE.read_text()


@needs_table
def test_a_file_that_cannot_be_used(remote: Directory, tmp_path: Path, run: Run) -> None:
    """What is wrong with it is said, and where; nothing is priced."""
    path = tmp_path / "prices.json"
    path.write_text('{"prices": [{"provider": "openai", "modle": "gpt-4o"}]}')
    done = run("usage", "--cost", "--prices", str(path))
    assert (2, "") == (done.returncode, done.stdout)
    assert f"{path}: prices[1]: 'modle' is not known; did you mean model?" in done.stderr


def test_prices_without_cost(remote: Directory, run: Run) -> None:
    """A file that would have no effect is an error."""
    done = run("usage", "--prices", str(EXAMPLE))
    assert (2, "") == (done.returncode, done.stdout)
    assert "--prices has an effect only with --cost" in done.stderr


def test_python_is_too_old(remote: Directory, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there can be no table the command says what is needed."""
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    done = run("usage", "--cost")
    assert (2, "") == (done.returncode, done.stdout)
    assert "prices need Python 3.11 or newer, and this is 3.10" in done.stderr


@pytest.mark.parametrize(
    ("amount", "is_least", "cost", "expected"),
    [
        (None, True, None, "-"),
        ("0", True, None, "-"),
        ("0", False, "0", "0.0000"),
        ("0.00001", False, "0.00001", "<0.0001"),
        ("1.5", True, "1.5", "≥1.5000"),
        ("1.5", False, "1.5", "1.5000"),
    ],
)
def test_the_least_that_says_nothing(
    amount: str | None, is_least: bool, cost: str | None, expected: str
) -> None:
    """A cost of which nothing is known is not known, to a script and to a reader: never at least zero."""
    found = Sum(None if amount is None else Decimal(amount), is_least).document()
    assert {"cost": cost, "cost_is_least": is_least} == found
    assert expected == shown(found)
