"""The layout keeps its promises: who imports whom, and what is public."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cmdrdata_exporter", "opentelemetry_instrumentation_cmdrdata")

EXPORTER = "cmdrdata_exporter"
INSTRUMENTOR = "opentelemetry_instrumentation_cmdrdata"

# Each room: the modules in it, and the rooms whose modules they may import besides their own.
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "base": (
        {
            f"{EXPORTER}.{name}"
            for name in (
                "announcement",
                "attributes",
                "call_sites",
                "clocks",
                "descriptors",
                "faults",
                "ids",
                "key_hash",
                "measures",
                "processes",
                "quick_json",
                "scrubbing",
                "version",
                "wording",
            )
        },
        set(),
    ),
    "pacing": ({f"{EXPORTER}.delivery.backoff"}, set()),
    "settings": (
        {f"{EXPORTER}.{name}" for name in ("settings", "setting_urls", "setting_values")},
        {"base", "pacing", "event", "events"},
    ),
    "customer": (
        {f"{EXPORTER}.{name}" for name in ("customer", "metadata", "unattributed")},
        {"base"},
    ),
    "events": (
        {
            f"{EXPORTER}.{name}"
            for name in ("bodies", "events", "foreign", "deduplication", "reports")
        },
        {"base", "customer"},
    ),
    "event": (
        {
            f"{EXPORTER}.delivery",
            f"{EXPORTER}.delivery.attempts",
            f"{EXPORTER}.delivery.destination",
            f"{EXPORTER}.delivery.groups",
            f"{EXPORTER}.delivery.open_jobs",
            f"{EXPORTER}.delivery.usage",
        },
        set(),
    ),
    "spool": ({f"{EXPORTER}.delivery.spool.*"}, {"base", "pacing", "event"}),
    "http": ({f"{EXPORTER}.delivery.http.*"}, {"base", "pacing", "event"}),
    "kafka": ({f"{EXPORTER}.delivery.kafka.*"}, {"base", "pacing", "event"}),
    "delivery": ({f"{EXPORTER}.delivery.*"}, {"base", "pacing", "event", "spool", "http"}),
    # Nothing of the others imports it.
    "fleet": ({f"{EXPORTER}.fleet.*"}, {"base", "pacing", "events", "event", "spool"}),
    "gateway": (
        {f"{EXPORTER}.fleet.gateway", f"{EXPORTER}.fleet.gateway.*"},
        {"base", "pacing", "settings", "events", "event", "delivery", "kafka", "fleet"},
    ),
    # Nothing imports it but the command line: what usage costs is no part of an event.
    "prices": ({f"{EXPORTER}.prices", f"{EXPORTER}.prices.*"}, {"base", "spool"}),
    "exporter": (
        {f"{EXPORTER}.{name}" for name in ("exporter", "runtime", "telemetry")} | {EXPORTER},
        {"base", "settings", "customer", "events", "event", "delivery", "spool", "http", "kafka"},
    ),
    "openai": ({f"{INSTRUMENTOR}.openai.*"}, {"base", "customer", "events", "exporter", "call"}),
    "call": (
        {INSTRUMENTOR, f"{INSTRUMENTOR}.*"},
        {"base", "settings", "events", "event", "exporter", "openai"},
    ),
}


def room_of(module: str) -> str:
    """Return the room of a module: the one that names it, else the one with the longest name for all below it."""
    for room, (modules, _) in ROOMS.items():
        if module in modules:
            return room
    below = [
        (len(name), room)
        for room, (modules, _) in ROOMS.items()
        for name in modules
        if name.endswith("*") and f"{module}.".startswith(name[:-1])
    ]
    return max(below)[1]


MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, each `from a import b` as what `b` is."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module or "")
    return found


def ours(module: str) -> set[str]:
    """Return the modules of ours that a module imports."""
    return {name for name in imports(MODULES[module]) if name.split(".")[0] in PACKAGES}


NOT_CLI = [module for module in MODULES if not module.startswith(f"{EXPORTER}.cli")]


@pytest.mark.parametrize("module", NOT_CLI)
def test_who_imports_whom(module: str) -> None:
    """Every module imports what its room is allowed, and nothing imports the command line."""
    room = room_of(module)
    assert {room_of(name) for name in ours(module)} <= {room} | ROOMS[room][1]
    assert not [name for name in ours(module) if name.startswith(f"{EXPORTER}.cli")]


def test_no_module_imports_itself() -> None:
    """Imports form no ring; what a function imports when it runs does not count."""
    graph = {
        module: {
            name
            for node in ast.parse(MODULES[module].read_text()).body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            for name in [f"{node.module}.{alias.name}"]
            for name in [name if name in MODULES else node.module or ""]
            if name in MODULES
        }
        for module in MODULES
    }
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("module", MODULES)
def test_no_http_client_of_the_sdk(module: str) -> None:
    """Neither httpx nor httpx2 is imported: the SDK has the one or the other."""
    assert not {name.split(".")[0] for name in imports(MODULES[module])} & {"httpx", "httpx2"}


@pytest.mark.parametrize("module", [name for name in MODULES if "cli" not in name])
def test_the_core_needs_no_extra(module: str) -> None:
    """Outside the command line only what the core depends on is imported; prices have an extra of their own."""
    extras = {"click", "rich", "genai_prices"}
    if room_of(module) == "prices":
        extras.remove("genai_prices")
    assert not {name.split(".")[0] for name in imports(MODULES[module])} & extras


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_public(package: str) -> None:
    """`__all__` is sorted and names what is there."""
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def attribute_names(path: Path) -> list[str]:
    """Return the strings of a module that are names of attributes."""
    return [
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(
            r"(gen_ai|cmdrdata|openai\.request|openai\.response|server|error)\.[\w.]*", node.value
        )
    ]


def test_attribute_names_are_spelled_in_one_place() -> None:
    """A name of an attribute is spelled once: what the exporter reads there, what is only written in `semconv`."""
    places = (f"{EXPORTER}.attributes", f"{INSTRUMENTOR}.semconv")
    spelled = [name for place in places for name in attribute_names(MODULES[place])]
    assert sorted(set(spelled)) == sorted(spelled)
    for module, path in MODULES.items():
        # The names of metrics are in a place of their own.
        if (
            module
            not in {
                *places,
                *(f"{EXPORTER}.{name}" for name in ("measures", "telemetry")),
                f"{INSTRUMENTOR}.measures",
            }
            and ".cli" not in module
        ):
            assert [] == attribute_names(path), module


def test_the_entry_points() -> None:
    """What OpenTelemetry and the shell look for is there and can be loaded."""
    distribution = importlib.metadata.distribution("opentelemetry-instrumentation-cmdrdata")
    found = {(entry.group, entry.name): entry.value for entry in distribution.entry_points}
    assert found == {
        ("opentelemetry_instrumentor", "cmdrdata"): f"{INSTRUMENTOR}:CmdrDataInstrumentor",
        (
            "opentelemetry_traces_exporter",
            "cmdrdata",
        ): f"{EXPORTER}.exporter:EnvironmentSpanExporter",
        ("opentelemetry_environment_variables", "cmdrdata"): f"{INSTRUMENTOR}.preflight",
        ("console_scripts", "cmdrdata"): f"{EXPORTER}.cli:main",
    }
    for entry in distribution.entry_points:
        assert entry.load() is not None


def test_one_place_starts_threads() -> None:
    """Every thread of ours comes from where it is kept from taking the application's signals."""
    starting = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"Thread", "Timer", "start_new_thread"}
    }
    assert starting == {f"{EXPORTER}.processes"}


def test_deliveries_go_by_their_own_clocks() -> None:
    """A test of the application that stops or moves the clocks of `time` neither stops nor moves a delivery."""
    readings = {"time", "time_ns", "monotonic", "monotonic_ns"}
    asking = {
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in readings
        if isinstance(node.value, ast.Name) and node.value.id == "time"
        if module.startswith(EXPORTER) and ".cli" not in module
    }
    assert asking == {f"{EXPORTER}.clocks"}
