"""
The tables and links of the documentation say what the code says: a missing or an extra row fails.

The endpoints and their keys are in test_endpoints.py, the hosts in test_stream_usage.py, the numbers of the pacing in
delivery/test_backoff.py, the commands in cli/test_commands_page.py.
"""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path
from unittest.mock import Mock

import pytest

from cmdrdata_exporter import attributes, bodies, deduplication, events, ids, processes, settings
from cmdrdata_exporter import measures as measures_of_destinations
from cmdrdata_exporter.cli import states, status
from cmdrdata_exporter.cli.usage import command, focus, numbers
from cmdrdata_exporter.delivery import KEPT_DAYS, Verdict
from cmdrdata_exporter.delivery.http.answers import classify
from cmdrdata_exporter.delivery.options import LARGEST
from cmdrdata_exporter.settings import Settings
from cmdrdata_exporter.telemetry import ATTEMPTED, Telemetry
from opentelemetry_instrumentation_cmdrdata import capture, jobs, measures, semconv
from opentelemetry_instrumentation_cmdrdata.openai.endpoints import ENDPOINTS
from tests import monitoring_page

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"))
)
GLOSSARY = "docs/glossary.md"


def text_of(page: str) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def headings(page: str) -> list[str]:
    """Return the headings of a page."""
    return re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)


def anchor(heading: str) -> str:
    """Return what a link to a heading names."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def table(page: str, section: str, first: str) -> list[list[str]]:
    """Return the rows of the table in a section of a page whose first column has this head."""
    _, found, rest = text_of(page).partition(f" {section}\n")
    assert found, f"{page} has no section {section}"
    _, found, rest = re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0].partition(
        f"| {first} |"
    )
    assert found, f"{section} in {page} has no table of {first}"
    lines = rest.split("\n\n", 1)[0].splitlines()[2:]
    # A bar inside a cell has a backslash.
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def quoted(text: str) -> list[str]:
    """Return what stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """Every link to another page, or to a place in a page, leads somewhere."""
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, place = target.partition("#")
        to = (ROOT / page).parent / path if path else ROOT / page
        if not to.exists() or (
            place and place not in map(anchor, headings(str(to.resolve().relative_to(ROOT))))
        ):
            broken.append(target)
    assert [] == broken


def glossary() -> dict[str, str]:
    """Return the terms of the glossary with what is said of them."""
    parts = re.split(r"^### (.+)\n", text_of(GLOSSARY), flags=re.MULTILINE)[1:]
    return {
        term: said.split("\n## ")[0] for term, said in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_glossary_has_every_word_of_status() -> None:
    """What `cmdrdata status` counts, and how it says that events are sent, is explained."""
    words = {"recorded", *states.STATES, *states.COUNTED, *states.SENDING, states.NO_CUSTOMER}
    words |= {states.DEAD_LETTER, "leader", "journal", "destination", "spool", "sending"}
    assert set() == {states.word(name) for name in words} - set(glossary())


def test_the_glossary_is_short() -> None:
    """A term has a few sentences at most, and stands once."""
    terms = [heading for heading in headings(GLOSSARY) if heading.islower()]
    assert sorted(glossary()) == sorted(terms)
    assert {} == {
        term: said for term, said in glossary().items() if len(re.findall(r"[.!?](?=\s)", said)) > 3
    }


@pytest.mark.parametrize(
    "page",
    [f"docs/{name}.md" for name in ("architecture", "commands", "delivery", "events", "metering")]
    + ["README.md"],
)
def test_pages_lead_to_the_glossary(page: str) -> None:
    """Whoever meets a word for the first time can look it up."""
    assert "glossary.md" in text_of(page)


def test_states() -> None:
    """`docs/delivery.md` has a row for each state."""
    rows = table("docs/delivery.md", "States of an event", "state")
    assert sorted(map(states.word, states.STATES)) == sorted(row[0] for row in rows)
    total = " + ".join(map(states.word, states.STATES))
    for page in ("docs/delivery.md", GLOSSARY):
        assert f"recorded = {total}" in text_of(page)


def test_what_needs_a_person() -> None:
    """`docs/commands.md` has each kind of what `status --watch` tells, with its meaning."""
    rows = table("docs/commands.md", "What needs a person", "kind")
    assert states.NEEDS == {quoted(kind)[0]: meaning for kind, meaning in rows}


def test_settings() -> None:
    """The README's table says what each variable's default is, as the settings are read where nothing is set."""
    read = Settings.read({})
    expected: dict[str, object] = {
        name: getattr(read, name.removeprefix("CMDRDATA_").lower(), None) for name in settings.NAMES
    }
    # What the table says in words, and of what the default depends on something else.
    expected |= {
        "CMDRDATA_ENDPOINT": "with a key, `https://api.cmdrdata.ai/api/events`",
        "CMDRDATA_SPOOL_DIR": "`$XDG_STATE_HOME/cmdrdata`, else `~/.local/state/cmdrdata`",
        "CMDRDATA_CUSTOMER_FROM": "off",
        "CMDRDATA_TOTAL_BY": None,
        "CMDRDATA_ENABLED": "`true`",
        "CMDRDATA_METRICS_CUSTOMER": "`false`",
    }
    assert settings.DEFAULT_ENDPOINT in str(expected["CMDRDATA_ENDPOINT"])
    rows = table("README.md", "Settings", "variable")
    assert {name: written(value) for name, value in expected.items()} == {
        quoted(name)[0]: default for name, _, default in rows
    }
    assert [] == [name for name, meaning, _ in rows if not meaning]


def test_values_of_the_settings() -> None:
    """The README names the same values and limits of a variable as the string after its constant."""
    parsed = ast.parse((ROOT / "cmdrdata_exporter" / "settings.py").read_text(encoding="utf-8"))
    described = {
        name.targets[0].id: ast.literal_eval(text.value)
        for name, text in itertools.pairwise(parsed.body)
        if isinstance(name, ast.Assign) and isinstance(name.targets[0], ast.Name)
        if isinstance(text, ast.Expr)
    }
    wrong: dict[str, set[str]] = {}
    for name, meaning, default in table("README.md", "Settings", "variable"):
        text = described[quoted(name)[0]]
        missing = values(meaning) - values(text)
        # A default may be said by what it does.
        missing |= values(text) - values(meaning) - values(default)
        if missing:
            wrong[name] = missing
    assert {} == wrong


def values(text: str) -> set[str]:
    """Return the numbers in a text, and the words in backquotes."""
    return {*quoted(text), *re.findall(r"\b\d+\b", re.sub(r"`[^`]*`", "", text))}


def written(default: object) -> object:
    """Return how the README writes a default."""
    if default is None:
        return "none"
    if isinstance(default, float):
        default = f"{default:g}"
    return default if re.search(r"`|^off$", str(default)) else f"`{default}`"


def test_content() -> None:
    """`docs/content.md` says where content goes at each setting, and what is read of each endpoint."""
    rows = table("docs/content.md", "What is recorded at each setting", "value")
    said = {quoted(row[0])[0]: (row[1] == "yes", row[2] == "yes") for row in rows}
    assert capture.MODES == said
    assert {"no"} == {row[3] for row in rows}
    assert semconv.DETAILS_EVENT in text_of("docs/content.md")
    names, *_ = re.findall(r"^\| endpoint (.*) \|$", text_of("docs/content.md"), re.MULTILINE)
    fields = [semconv.SYSTEM_INSTRUCTIONS, semconv.INPUT_MESSAGES]
    fields += [semconv.OUTPUT_MESSAGES, semconv.TOOL_DEFINITIONS]
    assert fields == quoted(names)
    documented = {
        quoted(name)[0]
        for name, *_ in table("docs/content.md", "What is recorded of a call", "endpoint")
    }
    assert documented == {
        f"{endpoint.name}.retrieve" if endpoint.polls else endpoint.name
        for endpoint in ENDPOINTS
        if endpoint.content is not None
    }
    bounds = table("docs/content.md", "Length", "variable")
    read = Settings.read({})
    assert {quoted(name)[0]: quoted(default)[0] for name, _, default in bounds} == {
        settings.CMDRDATA_CONTENT_MAX_LENGTH: str(read.content_max_length),
        settings.CMDRDATA_CONTENT_MAX_TOTAL: str(read.content_max_total),
    }


def test_the_page_of_metrics() -> None:
    """The tables of `docs/monitoring.md` are what the code's lists make of them, and all that is made is in them."""
    assert monitoring_page.page() == monitoring_page.PAGE.read_text(encoding="utf-8"), (
        "run: python -m tests.monitoring_page"
    )
    provider = Mock()
    Telemetry(None, "default").report(provider)
    meter = provider.get_meter.return_value
    assert [metric.name for metric in measures_of_destinations.METRICS] == [
        call.args[0] for call in meter.method_calls
    ]


def test_what_every_metric_has() -> None:
    """The attributes that all metrics of a destination have, and the buckets of its attempts, are said in words."""
    text = text_of("docs/monitoring.md")
    telemetry = Telemetry("https://cmdrdata.test/api/events", "default")
    assert list(measures_of_destinations.COMPONENT) == list(telemetry.attributes)
    *most, address, port = (f"`{name}`" for name in telemetry.attributes)
    assert f"{', '.join(most)}, and for a backend {address} and {port}" in text
    boundaries = (f"{boundary:g}" for boundary in measures_of_destinations.ATTEMPTS.boundaries)
    assert f"`{', '.join(boundaries)}` seconds" in text


def test_outcomes_of_events() -> None:
    """What `cmdrdata.outcome` may say is explained."""
    text = text_of("docs/monitoring.md")
    said = {"recorded", "unspooled", "handed_over", "logged", *ATTEMPTED}
    assert set() == {outcome for outcome in said if f"`{outcome}`" not in text}


def test_metrics_of_calls() -> None:
    """`docs/metering.md` has a row for each metric of the calls, with its unit, and the boundaries of the buckets."""
    rows = table("docs/metering.md", "Metrics", "metric")
    assert [(metric.name, metric.unit) for metric in measures.TODAYS.metrics] == [
        (quoted(name)[0], quoted(unit)[0]) for name, unit, _ in rows
    ]
    assert all(metric.boundaries for metric in measures.TODAYS.metrics)
    for boundaries in (measures.SECONDS, measures.TOKENS):
        assert f"`{', '.join(map(str, boundaries))}`" in text_of("docs/metering.md")


def test_latest_metrics_of_calls() -> None:
    """It has the same of those by the conventions' latest names, and says which are counters."""
    rows = table("docs/metering.md", "The latest names", "latest metric")
    assert [
        (metric.name, "histogram" if metric.boundaries else "counter", metric.unit)
        for metric in measures.LATEST.metrics
    ] == [(quoted(name)[0], kind, quoted(unit)[0]) for name, kind, unit, _ in rows]


EVENT = events.UsageEvent(
    id="id",
    customer_id=None,
    provider="openai",
    model="gpt-5",
    endpoint="chat.completions",
    usage_status="reported",
    input_tokens=0,
    output_tokens=0,
    total_tokens=0,
    usage={},
    metadata={},
    timestamp=0,
    start_time=0,
    end_time=0,
    duration_ms=0,
    time_to_first_token_ms=1,
)


def test_fields_of_the_event() -> None:
    """`docs/events.md` has a row for each field, and names what is inside an object."""
    wire = EVENT.to_wire()
    rows = table("docs/events.md", "The usage event", "field")
    assert sorted(wire) == sorted(field for row in rows for field in quoted(row[0]))
    inside = {quoted(row[0])[0]: quoted(row[2]) for row in rows if row[1] == "object"}
    assert {name: sorted(inside[name]) for name in ("latency", "error", "request")} == {
        name: sorted(wire[name]) for name in ("latency", "error", "request")
    }
    [version] = [row[2] for row in rows if row[0] == "`version`"]
    assert quoted(version) == [events.FORMAT_VERSION]


def test_keys_of_the_usage() -> None:
    """`docs/events.md` has a row for each breakdown and each unit that an event may have."""
    prefix = attributes.USAGE_PREFIX
    units = {
        name.removeprefix(prefix)
        for name in vars(semconv).values()
        if isinstance(name, str) and name.startswith(prefix) and name != prefix
    }
    expected = (units | set(attributes.BREAKDOWNS)) - {"total_tokens"}
    rows = table("docs/events.md", "Reserved metadata", "key | what it counts")
    assert sorted(expected) == sorted(key for row in rows for key in quoted(row[0]))


def test_attributes_of_spans_and_metrics() -> None:
    """`docs/metering.md` has every attribute that ours have, those apart that are only the bill's."""
    sections = ("The span", "Metrics")
    documented = {
        name
        for row in itertools.chain.from_iterable(
            table("docs/metering.md", section, "attribute") for section in sections
        )
        for name in itertools.chain.from_iterable(map(expanded, quoted(row[0])))
        if not name.startswith("cmdrdata.")
    }
    ours = {
        value
        for name, value in vars(semconv).items()
        if isinstance(value, str) and name.isupper() and not value.startswith("cmdrdata.")
    }
    ours.remove(semconv.DETAILS_EVENT)  # The name of an event: see docs/content.md.
    assert {name for name in ours if not name.endswith(".")} == documented


def expanded(name: str) -> list[str]:
    """Return the names for which one with braces stands."""
    before, brace, rest = name.partition("{")
    if not brace:
        return [name]
    parts, _, after = rest.partition("}")
    return [full for part in parts.split(",") for full in expanded(before + part + after)]


def test_usage_status() -> None:
    """`docs/events.md` and the glossary have the same four words for what is known of the usage."""
    rows = table("docs/events.md", "Reserved metadata", "status")
    assert [quoted(row[0])[0] for row in rows] == quoted(glossary()["usage status"])


def test_answers_of_the_backend() -> None:
    """`docs/delivery.md` says of each status what is done about it."""
    done = {
        Verdict.DELIVERED: "delivered",
        Verdict.DUPLICATE: "delivered before",
        Verdict.REFUSED: "a dead letter",
        Verdict.FORBIDDEN: "it may be this event or all",
        Verdict.MISCONFIGURED: "delivery pauses",
        Verdict.RETRY: "this event is tried again",
    }
    rows = table("docs/delivery.md", "What the backend's answers mean", "answer")
    documented = {
        int(status): meaning
        for answer, meaning in rows
        if "Retry-After" not in answer
        for status in re.findall(r"\b\d{3}\b", answer.split(";")[0])
    }
    # An answer without a body says nothing of its own.
    expected = {status: done[classify(status, {}, "", 0.0).verdict] for status in documented}
    assert {200, 201, 202, 204, 400, 401, 403, 404, 405, 406} < set(documented)
    assert {408, 409, 413, 422, 425, 429, 431, 451} < set(documented)
    wrong = {s: m for s, m in documented.items() if not m.startswith(expected[s])}
    assert {} == wrong


@pytest.mark.parametrize("page", PAGES)
def test_days(page: str) -> None:
    """How long events are kept is one number, wherever it is said."""
    kept = f"{KEPT_DAYS} days"
    said = re.findall(r"(?:delivered|wait|stay|kept) (?:for|within) (\d+ days)", text_of(page))
    assert said == [kept] * len(said)


def test_messages_of_the_log() -> None:
    """What the log says, as `docs/delivery.md` quotes it, stands in the code."""
    sources = "".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))
        for path in ROOT.glob("cmdrdata_exporter/**/*.py")
    )
    quotes = re.findall(r"log: \*([^*]+)\*", text_of("docs/delivery.md"))
    assert 8 < len(quotes)
    assert [] == [quote for quote in quotes for part in quote.split("…") if part not in sources]


def sentences(page: str) -> list[str]:
    """Return the sentences of a page; a cell of a table and a point of a list are some of their own."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "x", text_of(page)))
    return re.split(r"(?<=[.!?:])\s+|\n+(?=[-#|*A-Z\d])|\|", text)


# Not the lists of changes and of figures.
@pytest.mark.parametrize("page", sorted({*PAGES} - {"CHANGELOG.md", "docs/performance.md"}))
def test_sentences(page: str) -> None:
    """Sentences are short: below 15 words in the mean, and none has more than 40."""
    lengths = [len(re.findall(r"[\w'-]+", sentence)) for sentence in sentences(page)]
    lengths = [length for length in lengths if length > 2]
    assert 15 > sum(lengths) / len(lengths)
    assert 40 >= max(lengths)


NUMBERS = [
    ("README.md", f"any string of 1 to {ids.LONGEST} characters"),
    ("docs/customers.md", f"a string of 1 to {ids.LONGEST} characters"),
    ("docs/migration.md", f"any string of 1 to {ids.LONGEST} characters"),
    ("docs/delivery.md", f"at {LARGEST >> 30} GiB new events go to the log"),
    ("docs/delivery.md", f"by the day for {Settings.read({}).totals_by_day_for} days"),
    ("docs/delivery.md", f"a body of more than {bodies.LARGEST_BODY >> 10} KiB"),
    ("docs/delivery.md", f"for {jobs.REMEMBERED // 86400} days for each job"),
    ("docs/delivery.md", f"above {status.LATE / 60:.0f} minutes"),
    ("docs/commands.md", f"until an event has waited for {status.LATE / 60:.0f} minutes"),
    ("docs/metering.md", f"The last {deduplication.CAPACITY:,} calls are remembered"),
    ("docs/metering.md", f"The last {jobs.CAPACITY:,} jobs are remembered"),
]
"""What pages say of limits, made of the limits."""


@pytest.mark.parametrize(("page", "said"), NUMBERS)
def test_numbers(page: str, said: str) -> None:
    """A limit that the code changes is changed in the documentation, too."""
    assert said in text_of(page)


def test_the_exit() -> None:
    """How long an exit waits is one number, wherever it is said."""
    assert 5.0 == processes.SHUTDOWN_TIMEOUT
    for page in ("README.md", "docs/delivery.md"):
        assert "waits at most five seconds" in text_of(page)


def test_what_usage_is_grouped_by() -> None:
    """`docs/commands.md` has each column by which usage is grouped, and each short name of one."""
    said = [
        name for row in table("docs/commands.md", "By what", "column") for name in quoted(row[0])
    ]
    assert sorted([*numbers.COLUMNS, *command.SHORT]) == sorted(said)


def test_columns_of_focus() -> None:
    """It says of each column of FOCUS what is in it."""
    rows = table("docs/commands.md", "As FOCUS", "columns")
    assert sorted(focus.COLUMNS) == sorted(name for row in rows for name in quoted(row[0]))
