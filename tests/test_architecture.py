"""The layout keeps its promises: who imports whom, and what is public."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cmdrdata_exporter", "opentelemetry_instrumentation_cmdrdata")

EXPORTER = "cmdrdata_exporter"
INSTRUMENTOR = "opentelemetry_instrumentation_cmdrdata"

# Each module and the modules of ours that it may import.
ALLOWED: dict[str, set[str]] = {
    f"{EXPORTER}.announcement": set(),
    f"{EXPORTER}.attributes": set(),
    f"{EXPORTER}.clocks": set(),
    f"{EXPORTER}.faults": set(),
    f"{EXPORTER}.ids": set(),
    f"{EXPORTER}.processes": set(),
    f"{EXPORTER}.identity": {f"{EXPORTER}.processes"},
    f"{EXPORTER}.settings": {
        f"{EXPORTER}.{name}" for name in ("delivery.backoff", "ids", "scrubbing")
    },
    f"{EXPORTER}.version": set(),
    f"{EXPORTER}.unattributed": {f"{EXPORTER}.wording"},
    f"{EXPORTER}.wording": set(),
    f"{EXPORTER}.customer": {f"{EXPORTER}.{name}" for name in ("attributes", "faults", "ids")},
    f"{EXPORTER}.scrubbing": set(),
    f"{EXPORTER}.events": {
        f"{EXPORTER}.{name}" for name in ("attributes", "customer", "ids", "scrubbing")
    },
    f"{EXPORTER}.delivery": set(),
    f"{EXPORTER}.delivery.backoff": set(),
    f"{EXPORTER}.delivery.connections": set(),
    f"{EXPORTER}.delivery.http": {
        f"{EXPORTER}.{name}"
        for name in ("delivery.backoff", "delivery.connections", "faults", "scrubbing")
    },
    f"{EXPORTER}.delivery.local": {f"{EXPORTER}.delivery", f"{EXPORTER}.processes"},
    f"{EXPORTER}.delivery.memory": {
        f"{EXPORTER}.{name}"
        for name in (
            "delivery",
            "delivery.backoff",
            "delivery.gate",
            "delivery.http",
            "delivery.records",
            "delivery.senders",
            "delivery.trouble",
            "faults",
            "processes",
        )
    },
    f"{EXPORTER}.delivery.records": {f"{EXPORTER}.delivery"},
    f"{EXPORTER}.delivery.directory": {f"{EXPORTER}.faults"},
    f"{EXPORTER}.delivery.journal": {
        f"{EXPORTER}.{name}" for name in ("delivery.directory", "faults")
    },
    f"{EXPORTER}.delivery.options": {f"{EXPORTER}.delivery.{name}" for name in ("backoff", "http")},
    f"{EXPORTER}.delivery.readings": {
        f"{EXPORTER}.{name}" for name in ("delivery.directory", "delivery.journal", "faults")
    },
    f"{EXPORTER}.delivery.ledger": {
        f"{EXPORTER}.{name}"
        for name in (
            "delivery",
            "delivery.backoff",
            "delivery.directory",
            "delivery.http",
            "delivery.records",
        )
    },
    f"{EXPORTER}.delivery.salvage": {
        f"{EXPORTER}.{name}"
        for name in ("delivery", "delivery.directory", "delivery.leaves", "delivery.ledger")
    },
    f"{EXPORTER}.delivery.leaves": {f"{EXPORTER}.delivery.ledger"},
    f"{EXPORTER}.delivery.reading": {
        f"{EXPORTER}.{name}"
        for name in (
            "delivery",
            "delivery.directory",
            "delivery.journal",
            "delivery.ledger",
            "delivery.records",
        )
    },
    f"{EXPORTER}.delivery.gate": {f"{EXPORTER}.delivery.{name}" for name in ("backoff", "http")},
    f"{EXPORTER}.delivery.senders": {
        f"{EXPORTER}.{name}"
        for name in (
            "delivery",
            "delivery.gate",
            "delivery.http",
            "faults",
            "processes",
        )
    },
    f"{EXPORTER}.delivery.watch": {f"{EXPORTER}.faults", f"{EXPORTER}.processes"},
    f"{EXPORTER}.delivery.trouble": {
        f"{EXPORTER}.{name}"
        for name in (
            "delivery.backoff",
            "delivery.directory",
            "delivery.gate",
            "delivery.http",
            "delivery.senders",
            "faults",
        )
    },
    f"{EXPORTER}.delivery.drainer": {
        f"{EXPORTER}.{name}"
        for name in (
            "delivery",
            "delivery.backoff",
            "delivery.directory",
            "delivery.gate",
            "delivery.journal",
            "delivery.ledger",
            "delivery.options",
            "delivery.reading",
            "delivery.readings",
            "delivery.salvage",
            "delivery.senders",
            "delivery.trouble",
            "delivery.watch",
            "faults",
            "processes",
        )
    },
    f"{EXPORTER}.delivery.control": {
        f"{EXPORTER}.delivery.{name}"
        for name in (
            "directory",
            "journal",
            "ledger",
            "reading",
            "readings",
            "records",
            "salvage",
        )
    },
    f"{EXPORTER}.delivery.durable": {
        f"{EXPORTER}.{name}"
        for name in (
            "delivery.control",
            "delivery",
            "delivery.directory",
            "delivery.drainer",
            "delivery.journal",
            "delivery.reading",
            "delivery.records",
            "faults",
            "processes",
        )
    },
    f"{EXPORTER}.exporter": {
        f"{EXPORTER}.{name}"
        for name in (
            "announcement",
            "attributes",
            "customer",
            "delivery",
            "delivery.directory",
            "delivery.durable",
            "delivery.http",
            "delivery.local",
            "delivery.memory",
            "delivery.options",
            "events",
            "faults",
            "identity",
            "processes",
            "settings",
            "telemetry",
            "unattributed",
            "version",
            "wording",
        )
    },
    f"{EXPORTER}.telemetry": {
        f"{EXPORTER}.{name}" for name in ("delivery.http", "faults", "processes", "version")
    },
    EXPORTER: {f"{EXPORTER}.{name}" for name in ("customer", "events", "exporter", "settings")},
    f"{INSTRUMENTOR}.version": {f"{EXPORTER}.version"},
    f"{INSTRUMENTOR}.package": set(),
    f"{INSTRUMENTOR}.preflight": {
        f"{EXPORTER}.{name}" for name in ("announcement", "exporter", "settings")
    }
    | {f"{INSTRUMENTOR}.package"},
    f"{INSTRUMENTOR}.semconv": {f"{EXPORTER}.attributes"},
    f"{INSTRUMENTOR}.sse": set(),
    f"{INSTRUMENTOR}.copies": set(),
    f"{INSTRUMENTOR}.failures": {f"{EXPORTER}.scrubbing", f"{INSTRUMENTOR}.copies"},
    f"{INSTRUMENTOR}.bypassing": {f"{EXPORTER}.faults"},
    f"{INSTRUMENTOR}.open_calls": {f"{EXPORTER}.faults", f"{EXPORTER}.processes"},
    f"{INSTRUMENTOR}.providers": set(),
    f"{INSTRUMENTOR}.unbilled": set(),
    f"{INSTRUMENTOR}.usage": {f"{INSTRUMENTOR}.semconv"},
    f"{INSTRUMENTOR}.answers": {f"{INSTRUMENTOR}.semconv", f"{INSTRUMENTOR}.usage"},
    f"{INSTRUMENTOR}.endpoints": {f"{INSTRUMENTOR}.answers", f"{INSTRUMENTOR}.usage"},
    f"{INSTRUMENTOR}.parameters": {
        f"{INSTRUMENTOR}.{name}" for name in ("endpoints", "semconv", "usage")
    },
    f"{INSTRUMENTOR}.jobs": {
        f"{EXPORTER}.faults",
        f"{EXPORTER}.processes",
        f"{INSTRUMENTOR}.usage",
    },
    f"{INSTRUMENTOR}.attribution": {
        EXPORTER,
        f"{EXPORTER}.customer",
        f"{EXPORTER}.faults",
        f"{EXPORTER}.identity",
        f"{INSTRUMENTOR}.copies",
        f"{INSTRUMENTOR}.endpoints",
    },
    f"{INSTRUMENTOR}.clients": {
        EXPORTER,
        f"{INSTRUMENTOR}.attribution",
        f"{INSTRUMENTOR}.patching",
    },
    f"{INSTRUMENTOR}.calls": {
        EXPORTER,
        f"{EXPORTER}.attributes",
        f"{EXPORTER}.exporter",
        f"{EXPORTER}.faults",
        f"{EXPORTER}.identity",
        f"{EXPORTER}.scrubbing",
        *(
            f"{INSTRUMENTOR}.{name}"
            for name in (
                "endpoints",
                "failures",
                "jobs",
                "open_calls",
                "parameters",
                "providers",
                "semconv",
                "sse",
                "unbilled",
                "usage",
            )
        ),
    },
    f"{INSTRUMENTOR}.streams": {
        f"{EXPORTER}.faults",
        *(f"{INSTRUMENTOR}.{name}" for name in ("calls", "copies", "open_calls", "sse", "usage")),
    },
    f"{INSTRUMENTOR}.observation": {
        f"{EXPORTER}.faults",
        *(
            f"{INSTRUMENTOR}.{name}"
            for name in ("attribution", "calls", "copies", "open_calls", "providers", "streams")
        ),
    },
    f"{INSTRUMENTOR}.patching": {
        EXPORTER,
        f"{EXPORTER}.faults",
        *(
            f"{INSTRUMENTOR}.{name}"
            for name in ("attribution", "calls", "copies", "observation", "open_calls", "version")
        ),
    },
    INSTRUMENTOR: {
        EXPORTER,
        f"{EXPORTER}.announcement",
        f"{EXPORTER}.identity",
        f"{EXPORTER}.processes",
        *(
            f"{INSTRUMENTOR}.{name}"
            for name in (
                "attribution",
                "bypassing",
                "calls",
                "clients",
                "open_calls",
                "package",
                "patching",
                "version",
            )
        ),
    },
}

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


@pytest.mark.parametrize("module", MODULES)
def test_who_imports_whom(module: str) -> None:
    """Every module imports what the architecture allows it, and nothing imports the command line."""
    ours = {name for name in imports(MODULES[module]) if name.split(".")[0] in PACKAGES}
    if not module.startswith(f"{EXPORTER}.cli"):
        assert ours <= {f"{EXPORTER}.clocks"} | ALLOWED[module]


@pytest.mark.parametrize("module", MODULES)
def test_no_http_client_of_the_sdk(module: str) -> None:
    """Neither httpx nor httpx2 is imported: the SDK has the one or the other."""
    assert not {name.split(".")[0] for name in imports(MODULES[module])} & {"httpx", "httpx2"}


@pytest.mark.parametrize("module", [name for name in MODULES if "cli" not in name])
def test_the_core_needs_no_extra(module: str) -> None:
    """Outside the command line only what the core depends on is imported."""
    extras = {"click", "rich"}
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
        if module not in {*places, f"{EXPORTER}.telemetry"} and ".cli" not in module:
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
