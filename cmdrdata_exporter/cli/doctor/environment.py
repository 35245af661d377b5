"""Checks of what is installed and set, for the Python that runs the application. Pure: each takes `Surroundings`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from cmdrdata_exporter.cli.doctor.findings import (
    ERROR,
    WARNING,
    Finding,
    Surroundings,
    finding_of,
)
from cmdrdata_exporter.settings import (
    CAPTURE_CONTENT,
    CMDRDATA_API_KEY,
    CMDRDATA_ENABLED,
    CMDRDATA_STREAM_USAGE,
    ConfigurationError,
    Settings,
    unknown_variables,
)
from opentelemetry_instrumentation_cmdrdata import package, preflight
from opentelemetry_instrumentation_cmdrdata.capture import MODES
from opentelemetry_instrumentation_cmdrdata.openai.bypassing import PACKAGES
from opentelemetry_instrumentation_cmdrdata.openai.providers import tells_stream_usage

NEWEST_PYTHON = (3, 13)
"""The newest that this release was tested with."""
OLDEST_OTEL = (1, 28)
ATTRIBUTES = 32
"""Attributes that the span of a call may have."""
OTHERS = re.compile(r"(?:.*\.)?openai(?:_v2|\.v1)?(?:[.:].*)?")
"""Modules that instrument the openai SDK, as their entry points name them."""


def versions(found: Surroundings) -> Iterator[Finding]:
    """Check the versions of Python, openai and OpenTelemetry against those that this release was tested with."""
    if found.python > NEWEST_PYTHON:
        yield Finding.warning(
            "python-untested",
            f"Python {_dotted(found.python)} is newer than what this release was tested with.",
            f"Look for a newer release, or use Python {_dotted(NEWEST_PYTHON)}.",
        )
    openai = _numbers(found.version_of("openai"))
    if openai[:1] > package.NEWEST_TESTED[:1]:
        yield Finding.warning(
            "openai-untested",
            f"openai {_dotted(openai)} is newer than what this release was tested with.",
            f"Look for a newer release, or install openai {_dotted(package.NEWEST_TESTED)}.",
        )
    sdk = _numbers(found.version_of("opentelemetry-sdk"))
    if sdk and sdk < OLDEST_OTEL:
        yield Finding.error(
            "opentelemetry-old",
            f"opentelemetry-sdk {_dotted(sdk)} is too old.",
            f"Run pip install -U 'opentelemetry-sdk>={_dotted(OLDEST_OTEL)}'.",
        )


def loading(found: Surroundings) -> Iterator[Finding]:
    """Check whether `opentelemetry-instrument` would load us, and an SDK of OpenTelemetry."""
    # What settings say is a finding of its own.
    for reason in preflight.reasons_not_loaded(
        found.environ, found.arguments, found.installed, found.version_of("openai")
    ):
        yield finding_of("nothing-metered", ERROR, reason, ": ")
    if not found.installed("opentelemetry_configurator"):
        yield Finding.note(
            "no-distro",
            "No distribution of OpenTelemetry is installed, so opentelemetry-instrument sets up no spans. "
            "Events are made all the same.",
            "For spans, run pip install opentelemetry-distro.",
        )
    options = preflight.options_of(found.arguments)
    default = [
        missing
        for missing in preflight.missing_exporters(found.environ, options, found.installed)
        if missing.chosen is None
    ]
    if default:
        variables = " ".join(f"{missing.variable}=none" for missing in default)
        yield Finding.note(
            "otlp-missing",
            f"{default[0].exporter}, which OpenTelemetry exports to by default, is not installed. "
            "opentelemetry-instrument goes on without it.",
            f"Set {variables}, or {default[0].remedy}.",
        )


def settings(found: Surroundings) -> Iterator[Finding]:
    """Check the settings: those that cannot be used, those that are none, and what they say without a word."""
    for message in unknown_variables(found.environ):
        yield finding_of("unknown-setting", WARNING, message, "; ")
    try:
        read = Settings.read(found.environ)
        if read.enabled:
            read.read_key()
    except ConfigurationError as error:
        yield finding_of("setting", ERROR, str(error), "; ")
        return
    if not read.enabled:
        yield Finding.warning(
            "switched-off",
            f"{CMDRDATA_ENABLED} switches metering off: no call makes an event.",
            f"Unset {CMDRDATA_ENABLED} where calls are to be metered.",
        )
    elif read.endpoint is None:
        yield Finding.note(
            "local",
            "There is neither a key nor an endpoint, so events stay on this host.",
            f"Set {CMDRDATA_API_KEY} where they are to be delivered.",
        )
    content = found.environ.get(CAPTURE_CONTENT, "").strip()
    if content and content.upper() not in MODES:
        yield Finding.warning(
            "content-setting",
            f"{CAPTURE_CONTENT} is {content!r}, which captures nothing.",
            f"Set one of {', '.join(MODES)}.",
        )


def streams(found: Surroundings) -> Iterator[Finding]:
    """Check whether streams are asked for their usage where the application's calls go."""
    said = found.environ.get(CMDRDATA_STREAM_USAGE, "").strip().lower() or "auto"
    try:
        url = urlsplit(found.environ.get("OPENAI_BASE_URL", "").strip())
        host = url.hostname or "api.openai.com"
    except ValueError:
        return  # The SDK says so at the first call.
    known = tells_stream_usage(host, url.path, None)
    if said == "never" or (said == "auto" and not known):
        why = "is never" if said == "never" else f"is auto, and {host} is no host that it asks"
        yield Finding.warning(
            "stream-usage",
            f"{CMDRDATA_STREAM_USAGE} {why}: streams tell no tokens unless the application asks for them.",
            f"Set {CMDRDATA_STREAM_USAGE}=always if the server knows stream_options.include_usage.",
        )


def others(found: Surroundings) -> Iterator[Finding]:
    """Check for other instrumentations of the same calls, and for packages that go past the SDK."""
    disabled = {
        name.strip()
        for name in found.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")
    }
    for name, module in found.installed("opentelemetry_instrumentor").items():
        if name not in disabled and OTHERS.fullmatch(module.partition(":")[0]):
            yield Finding.note(
                "two-instrumentations",
                f"{module.partition(':')[0]} makes spans of the same calls. Each call is billed once all the same.",
                f"For one span a call, set OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={name}.",
            )
    exporters = found.environ.get("OTEL_TRACES_EXPORTER", "")
    if "cmdrdata" not in (name.strip() for name in exporters.split(",")):
        for name in PACKAGES:
            if found.version_of(name.replace("_", "-")) is not None:
                yield Finding.warning(
                    "past-the-sdk",
                    f"{name} is installed, whose calls do not all go through the openai SDK.",
                    "If the application uses it, see docs/metering.md, Packages that go past the SDK.",
                )


def spans(found: Surroundings) -> Iterator[Finding]:
    """Check what keeps spans back. Billing does not depend on it."""
    environ = found.environ
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip()
    limit = environ.get("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "").strip()
    limits = {
        "OTEL_SDK_DISABLED": environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true",
        "OTEL_TRACES_SAMPLER": sampler not in ("", "always_on", "parentbased_always_on"),
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": limit.isdecimal() and int(limit) < ATTRIBUTES,
    }
    for name, is_limit in limits.items():
        if is_limit:
            yield Finding.note(
                "spans-limited",
                f"{name} is {environ[name]!r}, so not every span is made whole. Events are made of every call.",
                f"Unset {name} if spans are missed.",
            )


CHECKS = (versions, loading, settings, streams, others, spans)


def check(found: Surroundings) -> list[Finding]:
    """Return what all of these checks find."""
    return [finding for each in CHECKS for finding in each(found)]


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version or "")[:2])


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
