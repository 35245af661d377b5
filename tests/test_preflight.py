"""The look ahead: what keeps calls from being metered is told before the application starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from opentelemetry_instrumentation_cmdrdata.preflight import (
    Missing,
    missing_exporters,
    reasons,
    switched_off,
)

GRPC = "opentelemetry-exporter-otlp-proto-grpc"
KEY = "tk-0123456789abcdefghij"
OPENAI = "3.57.0"

DISTRO: dict[str, Mapping[str, str]] = {
    "opentelemetry_distro": {"distro": "opentelemetry.distro:OpenTelemetryDistro"},
    "opentelemetry_configurator": {
        "configurator": "opentelemetry.distro:OpenTelemetryConfigurator"
    },
    "opentelemetry_traces_exporter": dict.fromkeys(("otlp_proto_http", "console", "cmdrdata"), ""),
    "opentelemetry_metrics_exporter": dict.fromkeys(("otlp_proto_http", "console"), ""),
    "opentelemetry_logs_exporter": dict.fromkeys(("otlp_proto_http", "console"), ""),
    "opentelemetry_id_generator": {"random": ""},
}
OF_A_VENDOR: dict[str, Mapping[str, str]] = {
    **DISTRO,
    "opentelemetry_distro": {"vendor": "vendor.distro:Distro"},
}
NO_METRICS_NO_LOGS = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


def distro(group: str) -> Mapping[str, str]:
    """What opentelemetry-distro has, with the exporters of OTLP over HTTP alone."""
    return DISTRO.get(group, {})


def vendor(group: str) -> Mapping[str, str]:
    """What the distribution of a vendor has."""
    return OF_A_VENDOR.get(group, {})


def nothing(_: str) -> Mapping[str, str]:
    """No distribution at all."""
    return {}


DEFAULTS = [Missing(signal, "otlp_proto_grpc", None) for signal in ("traces", "metrics", "logs")]


@pytest.mark.parametrize(
    ("environ", "options", "expected"),
    [
        ({}, {}, DEFAULTS),
        (NO_METRICS_NO_LOGS, {}, DEFAULTS[:1]),
        (
            {**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": "cmdrdata, zipkin"},
            {},
            [Missing("traces", "zipkin", "cmdrdata, zipkin")],
        ),
        ({**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": "console,cmdrdata"}, {}, []),
        ({**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": ""}, {}, []),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, {}, []),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", **NO_METRICS_NO_LOGS}, {}, []),
        ({}, {"exporter_otlp_protocol": "http/protobuf"}, []),
        (
            {"OTEL_TRACES_EXPORTER": "none"},
            {"metrics_exporter": "none", "logs_exporter": "prometheus"},
            [Missing("logs", "prometheus", "prometheus")],
        ),
    ],
)
def test_missing_exporters(
    environ: dict[str, str], options: dict[str, str], expected: list[Missing]
) -> None:
    """Each exporter that OpenTelemetry will look for in vain is found, with what names it."""
    assert expected == missing_exporters(environ, options, distro)


def test_other_distributions() -> None:
    """Without a distribution no exporter is looked for; that of a vendor has defaults of its own."""
    assert [] == missing_exporters({"OTEL_TRACES_EXPORTER": "zipkin"}, {}, nothing)
    assert [] == missing_exporters({}, {}, vendor)
    assert [Missing("logs", "zipkin", "zipkin")] == missing_exporters(
        {"OTEL_LOGS_EXPORTER": "zipkin"}, {}, vendor
    )


def test_exporters_that_nobody_asked_for() -> None:
    """A default that is not there is switched off, so that metering starts, and that is said with two ways out."""
    environ = {"OTEL_LOGS_EXPORTER": "console"}
    assert (
        "CmdrData: otlp_proto_grpc, which OpenTelemetry would use by default, is not installed, and without it nothing "
        "would start. So this is set: OTEL_TRACES_EXPORTER=none OTEL_METRICS_EXPORTER=none. Set them yourself, or pip "
        f"install {GRPC}" == switched_off(environ, {}, distro)
    )
    assert {
        "OTEL_LOGS_EXPORTER": "console",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
    } == environ


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        {**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": "zipkin"},
    ],
)
def test_exporters_that_were_asked_for(environ: dict[str, str]) -> None:
    """What is there, and what somebody has named, is left as it is."""
    before = dict(environ)
    assert switched_off(environ, {}, distro) is None
    assert before == environ


INSTRUMENTED = {**NO_METRICS_NO_LOGS, "OTEL_TRACES_EXPORTER": "console"}


@pytest.mark.parametrize(
    ("environ", "arguments", "openai", "expected"),
    [
        ({}, [], OPENAI, None),
        (
            {},
            ["--traces_exporter", "zipkin", "python", "app.py"],
            OPENAI,
            "OpenTelemetry cannot start: the traces exporter zipkin (OTEL_TRACES_EXPORTER=zipkin) "
            "is not installed: install what provides it, or set OTEL_TRACES_EXPORTER=none",
        ),
        (
            {"OTEL_LOGS_EXPORTER": "otlp"},
            ["app"],
            OPENAI,
            f"OpenTelemetry cannot start: the logs exporter otlp_proto_grpc (OTEL_LOGS_EXPORTER=otlp) "
            f"is not installed: pip install {GRPC}, or set OTEL_LOGS_EXPORTER=none",
        ),
        (
            {"CMDRDATA_API_KEY": "tk-short"},
            [],
            OPENAI,
            "CMDRDATA_API_KEY has 8 characters; expected is a CmdrData key: ",
        ),
        (
            {"CMDRDATA_API_KEY": "sk-proj-0123456789abcdefghij"},
            [],
            OPENAI,
            "CMDRDATA_API_KEY begins like a key of OpenAI, ",
        ),
        (
            {"CMDRDATA_API_KEY_FILE": "/no/such/file"},
            [],
            OPENAI,
            "CMDRDATA_API_KEY_FILE: cannot read '/no/such/file'",
        ),
        (
            {"CMDRDATA_SPOOL_DIR": "{link}"},
            [],
            OPENAI,
            "the spool directory cannot be used: '{link}' is a symbolic link",
        ),
        (
            {"CMDRDATA_SPOOL_DIR": "{shared}"},
            [],
            OPENAI,
            "the spool directory cannot be used: '{shared}' can be written by other users",
        ),
        ({"CMDRDATA_SPOOL_DIR": "{file}/below"}, [], OPENAI, None),
        (
            {"OTEL_PYTHON_ID_GENERATOR": "nope"},
            [],
            OPENAI,
            "OpenTelemetry cannot start: the id generator nope (OTEL_PYTHON_ID_GENERATOR=nope) is not installed",
        ),
        ({"OTEL_PYTHON_ID_GENERATOR": "random"}, [], OPENAI, None),
        (
            {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "many"},
            [],
            OPENAI,
            "OpenTelemetry cannot start: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT is 'many'; expected is a number",
        ),
        ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "12"}, [], OPENAI, None),
        (
            {"CMDRDATA_SPOOL_DIR": "/spool-\udcff"},
            [],
            OPENAI,
            "CMDRDATA_SPOOL_DIR holds bytes that are not UTF-8",
        ),
        ({}, [], None, "openai is not installed in this environment: pip install 'openai>=1.0'"),
        ({}, [], "0.28.1", "openai 0.28.1 is too old to be metered: pip install 'openai>=1.0'"),
        ({"OTEL_TRACES_EXPORTER": "cmdrdata"}, [], None, None),
        ({}, ["--traces_exporter=console,cmdrdata", "app"], None, None),
        (
            {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis, cmdrdata"},
            [],
            OPENAI,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS is redis, cmdrdata, which switches cmdrdata off: ",
        ),
        (
            {},
            ["--disabled_instrumentations", "*", "app"],
            OPENAI,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS is *, which ",
        ),
        (
            {},
            ["python3.12", "-I", "app.py"],
            OPENAI,
            "Python is started with -I, -E or -S, so it does not load OpenTelemetry",
        ),
        (
            {},
            ["/usr/bin/python", "-W", "error", "-uE", "app.py"],
            OPENAI,
            "Python is started with -I, -E or -S",
        ),
        ({}, ["python", "-u", "-Werror", "-m", "app", "-I"], OPENAI, None),
        ({}, ["python", "app.py", "-S"], OPENAI, None),
        ({}, ["gunicorn", "-I"], OPENAI, None),
        ({"CMDRDATA_ENABLED": "false", "CMDRDATA_API_KEY": "tk-short"}, [], None, None),
    ],
)
def test_what_keeps_calls_from_being_metered(
    environ: dict[str, str],
    arguments: list[str],
    openai: str | None,
    expected: str | None,
    tmp_path: Path,
) -> None:
    """Whatever it is, a person reads it first of all; what only telemetry lacks, and what is wanted so, is not told."""
    places = {name: str(tmp_path / name) for name in ("link", "shared", "file")}
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    (tmp_path / "file").touch()
    given = {
        **INSTRUMENTED,
        "CMDRDATA_SPOOL_DIR": str(tmp_path / "spool"),
        **{name: value.format(**places) for name, value in environ.items()},
    }
    found = reasons(given, arguments, distro, openai)
    if expected is None:
        assert [] == found
    else:
        [reason] = found
        assert reason.startswith(expected.format(**places))


def test_several_reasons(tmp_path: Path) -> None:
    """All that must be mended is told at once."""
    environ = {
        "CMDRDATA_API_KEY": "tk-short",
        "OTEL_TRACES_EXPORTER": "zipkin",
        **NO_METRICS_NO_LOGS,
    }
    assert 3 == len(reasons(environ, [], distro, None))
