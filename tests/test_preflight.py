"""The look ahead: an exporter that is not installed is told before it silently switches metering off."""

from __future__ import annotations

import pytest

from opentelemetry_instrumentation_cmdrdata.preflight import missing_exporters, warning

GRPC = "opentelemetry-exporter-otlp-proto-grpc"

HTTP_ONLY = {
    "opentelemetry_configurator": {"configurator"},
    "opentelemetry_traces_exporter": {"otlp_proto_http", "console", "cmdrdata"},
    "opentelemetry_metrics_exporter": {"otlp_proto_http", "console"},
    "opentelemetry_logs_exporter": {"otlp_proto_http", "console"},
}
NO_METRICS_NO_LOGS = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


@pytest.mark.parametrize(
    ("environ", "arguments", "expected"),
    [
        (
            NO_METRICS_NO_LOGS,
            [],
            [
                "the traces exporter otlp_proto_grpc (the default, as OTEL_TRACES_EXPORTER is not set): "
                f"pip install {GRPC}, or set OTEL_TRACES_EXPORTER=none"
            ],
        ),
        (
            {**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": "cmdrdata, zipkin"},
            [],
            [
                "the traces exporter zipkin (OTEL_TRACES_EXPORTER=cmdrdata, zipkin): "
                "install what provides it, or set OTEL_TRACES_EXPORTER=none"
            ],
        ),
        ({**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": "console,cmdrdata"}, [], []),
        ({**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": ""}, [], []),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, [], []),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", **NO_METRICS_NO_LOGS}, [], []),
        ({}, ["--exporter_otlp_protocol=http/protobuf", "app", "--traces_exporter", "zipkin"], []),
        (
            {"OTEL_TRACES_EXPORTER": "none"},
            [
                "--metrics_exporter",
                "none",
                "--logs_exporter=prometheus",
                "--service_name",
                "x",
                "app",
            ],
            [
                "the logs exporter prometheus (OTEL_LOGS_EXPORTER=prometheus): "
                "install what provides it, or set OTEL_LOGS_EXPORTER=none"
            ],
        ),
    ],
)
def test_missing_exporters(
    environ: dict[str, str], arguments: list[str], expected: list[str]
) -> None:
    """Each exporter that OpenTelemetry will look for in vain is named, with its origin and two ways out."""
    assert (
        missing_exporters(environ, arguments, lambda group: HTTP_ONLY.get(group, set())) == expected
    )


def test_without_a_distribution() -> None:
    """Where no OpenTelemetry SDK is set up no exporter is looked for."""
    assert missing_exporters({}, [], lambda _: set()) == []


def test_an_unusable_setting() -> None:
    """A setting with which nothing is metered is told before the application starts, with what comes of it."""
    environ = {**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": "console,cmdrdata"}

    def installed(group: str) -> set[str]:
        return HTTP_ONLY.get(group, set())

    assert warning(environ, [], installed) is None
    assert warning({**environ, "CMDRDATA_API_KEY": "tk-short"}, [], installed) == (
        "CmdrData: NOTHING WILL BE METERED. A setting cannot be used; with `cmdrdata` among OTEL_TRACES_EXPORTER there "
        "will be no traces either:\n"
        "  - CMDRDATA_API_KEY has 8 characters; expected is a CmdrData key: 20 to 500 printable ASCII characters "
        "without spaces, commonly tk-…. Copy it again from your CmdrData account"
    )
    off = {**environ, "CMDRDATA_API_KEY": "tk-short", "CMDRDATA_ENABLED": "false"}
    assert warning(off, [], installed) is None
