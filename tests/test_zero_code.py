"""A program that knows nothing of us, under `opentelemetry-instrument`, as its users run it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation import auto_instrumentation
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_httpserver import HTTPServer

from tests import replies
from tests.provider import Provider, Reply

KEY = "tk-0123456789abcdefghij"

PROGRAM = """
import sys
import openai

client = openai.OpenAI(base_url=sys.argv[1], api_key="sk-test", max_retries=0)
client.chat.completions.create(model="gpt-4o-mini", messages=[])
list(client.chat.completions.create(model="gpt-4o-mini", messages=[], stream=True))
client.embeddings.create(model="text-embedding-3-small", input="hello")
print("done")
"""


NO_METRICS_NO_LOGS = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
LAUNCHER = "opentelemetry-instrument"


def run(
    provider: Provider, tmp_path: Path, *launcher: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, started by `launcher`, with neither metrics nor logs."""
    return run_as_it_is(provider, tmp_path, *launcher, **{**NO_METRICS_NO_LOGS, **environ})


def run_as_it_is(
    provider: Provider, tmp_path: Path, *launcher: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the program with no more of an environment than this."""
    provider.answer(
        "/v1/chat/completions", Reply(json=replies.CHAT), Reply(events=replies.chat_chunks())
    )
    provider.answer("/v1/embeddings", Reply(json=replies.EMBEDDINGS))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    bin_directory = Path(sys.executable).parent
    done = subprocess.run(
        [*(launcher or (bin_directory / LAUNCHER,)), sys.executable, program, provider.url],
        env={
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("OTEL_", "CMDRDATA_"))
            },
            "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
            **environ,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    return done


def events(backend: HTTPServer) -> list[dict[str, Any]]:
    """Return the events that arrived, in the order in which their calls ended."""
    found: list[dict[str, Any]] = [
        json.loads(request.get_data())
        for request, _ in backend.log
        if request.path == "/api/events"
    ]
    return sorted(
        found, key=lambda event: event["metadata"]["endpoint"] + str(event["request"]["streaming"])
    )


FACTS = [
    ("acme", "chat.completions", 29),
    ("acme", "chat.completions", 29),
    ("acme", "embeddings", 9),
]


def facts(backend: HTTPServer) -> list[tuple[object, object, object]]:
    """Return what was billed."""
    return [
        (event["customer_id"], event["metadata"]["endpoint"], event["total_tokens"])
        for event in events(backend)
    ]


@pytest.fixture
def backend(httpserver: HTTPServer) -> HTTPServer:
    """A CmdrData backend that is an OTLP/HTTP receiver too."""
    httpserver.expect_request("/api/events", method="POST").respond_with_data(status=202)
    httpserver.expect_request("/v1/traces", method="POST").respond_with_data(status=200)
    return httpserver


def test_beside_otlp(provider: Provider, backend: HTTPServer, tmp_path: Path) -> None:
    """With `otlp,cmdrdata` each call is one span at the collector and one event at CmdrData, with the same ids."""
    done = run(
        provider,
        tmp_path,
        OTEL_TRACES_EXPORTER="otlp,cmdrdata",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_ENDPOINT=backend.url_for("").rstrip("/"),
        CMDRDATA_API_KEY=KEY,
        CMDRDATA_ENDPOINT=backend.url_for("/api/events"),
        CMDRDATA_CUSTOMER_ID="acme",
    )
    assert KEY not in done.stderr
    spans: set[tuple[str, str]] = set()
    for request, _ in backend.log:
        if request.path == "/v1/traces":
            body = request.get_data()
            if request.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            message = ExportTraceServiceRequest.FromString(body)
            spans.update(
                (span.trace_id.hex(), span.span_id.hex())
                for resource in message.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
                if scope.scope.name == "opentelemetry_instrumentation_cmdrdata"
            )
    found = {
        (event["metadata"]["trace_id"], event["metadata"]["span_id"]) for event in events(backend)
    }
    assert len(spans) == 3
    assert found == spans
    assert facts(backend) == FACTS


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "cmdrdata"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "cmdrdata", "OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_TRACES_EXPORTER": "cmdrdata", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "1"},
    ],
    ids=lambda environ: ",".join(environ) if len(environ) > 1 else environ["OTEL_TRACES_EXPORTER"],
)
def test_metering_is_direct(
    environ: dict[str, str], provider: Provider, backend: HTTPServer, tmp_path: Path
) -> None:
    """The bill is the same whatever the environment makes of telemetry."""
    done = run(
        provider,
        tmp_path,
        CMDRDATA_API_KEY=KEY,
        CMDRDATA_ENDPOINT=backend.url_for("/api/events"),
        CMDRDATA_CUSTOMER_ID="acme",
        **environ,
    )
    assert facts(backend) == FACTS
    assert "Traceback" not in done.stderr


def test_a_missing_exporter_is_told_loudly(
    provider: Provider, backend: HTTPServer, tmp_path: Path
) -> None:
    """Where OpenTelemetry fails to start, before it loads us, the first thing on stderr says what that means."""
    done = run(
        provider,
        tmp_path,
        OTEL_TRACES_EXPORTER="no-such-exporter",
        CMDRDATA_API_KEY=KEY,
        CMDRDATA_ENDPOINT=backend.url_for("/api/events"),
    )
    assert done.stderr.startswith(
        "CmdrData: NOTHING WILL BE METERED:\n  - OpenTelemetry cannot start: the traces exporter no-such-exporter "
        "(OTEL_TRACES_EXPORTER=no-such-exporter) is not installed: install what provides it, or set "
        "OTEL_TRACES_EXPORTER=none\n"
    )
    assert events(backend) == []


def test_beside_a_distribution_alone(
    provider: Provider, backend: HTTPServer, tmp_path: Path
) -> None:
    """With opentelemetry-distro, as the demo brings it, and no exporter of OTLP, the zero-code command meters."""
    done = run_as_it_is(
        provider,
        tmp_path,
        CMDRDATA_API_KEY=KEY,
        CMDRDATA_ENDPOINT=backend.url_for("/api/events"),
        CMDRDATA_CUSTOMER_ID="acme",
    )
    assert facts(backend) == FACTS
    note, start = done.stderr.splitlines()
    assert note.startswith(
        "CmdrData: otlp_proto_grpc, which OpenTelemetry would use by default, is not installed, "
    )
    assert start.startswith("CmdrData usage metering: destination default at http://localhost:")


MISTAKES = [
    ({"CMDRDATA_API_KEY": "tk-too-short"}, "CMDRDATA_API_KEY has 12 characters; expected is a "),
    (
        {"CMDRDATA_SPOOL_DIR": "{link}"},
        "the spool directory cannot be used: '{link}' is a symbolic link; ",
    ),
    ({"CMDRDATA_SPOOL_DIR": "/spool-\udcff"}, "CMDRDATA_SPOOL_DIR holds bytes that are not UTF-8"),
]


@pytest.mark.parametrize("exporters", ["none", "console,cmdrdata"])
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: next(iter(mistake[0])))
def test_a_wrong_setting(
    mistake: tuple[dict[str, str], str], exporters: str, provider: Provider, tmp_path: Path
) -> None:
    """What cannot be used is told first of all, without a key or a traceback; application and other traces go on."""
    (tmp_path / "link").symlink_to(tmp_path)
    link = str(tmp_path / "link")
    environ = {name: value.format(link=link) for name, value in mistake[0].items()}
    done = run_as_it_is(
        provider,
        tmp_path,
        **{**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": exporters, **environ},
    )
    expected = mistake[1].format(link=link)
    before, child = done.stderr.split("CmdrData: NOTHING WILL BE METERED:")[1:]
    assert done.stderr.startswith("CmdrData: NOTHING")
    assert before.startswith(f"\n  - {expected}")
    assert child.startswith(f" {expected}")
    assert "Traceback" not in done.stderr
    assert "tk-too-short" not in done.stderr


def test_a_wrong_setting_without_the_launcher(provider: Provider, tmp_path: Path) -> None:
    """Where OpenTelemetry is loaded by `sitecustomize` alone, as the Kubernetes operator does, it is told too."""
    directory = Path(auto_instrumentation.__file__).parent
    done = run(
        provider,
        tmp_path,
        "env",
        PYTHONPATH=str(directory),
        OTEL_TRACES_EXPORTER="none",
        CMDRDATA_API_KEY="tk-too-short",
    )
    [line] = done.stderr.splitlines()
    assert line.startswith("CmdrData: NOTHING WILL BE METERED: CMDRDATA_API_KEY has 12 characters;")


def test_a_python_without_sqlite(provider: Provider, backend: HTTPServer, tmp_path: Path) -> None:
    """Without SQLite the application runs; its events are sent from memory, and the log says so."""
    (tmp_path / "_sqlite3.py").write_text("raise ImportError('No module named _sqlite3')\n")
    done = run(
        provider,
        tmp_path,
        PYTHONPATH=str(tmp_path),
        CMDRDATA_API_KEY=KEY,
        CMDRDATA_ENDPOINT=backend.url_for("/api/events"),
        CMDRDATA_CUSTOMER_ID="acme",
        CMDRDATA_SPOOL_DIR=str(tmp_path / "spool"),
        OTEL_TRACES_EXPORTER="none",
    )
    assert facts(backend) == FACTS
    assert "this Python was built without SQLite" in done.stderr
    assert not (tmp_path / "spool").exists()
