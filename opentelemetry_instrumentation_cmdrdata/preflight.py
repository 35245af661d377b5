"""
A look ahead, before `opentelemetry-instrument` starts the application.

OpenTelemetry's auto-initialisation fails as a whole, with a line in the log and before it loads any instrumentor, where
one exporter that it is told to use is not installed; and with opentelemetry-distro it is told to use OTLP unless told
otherwise. The application then runs unmetered. Nothing of ours is loaded in that process, so this is said in the one
before it: `opentelemetry-instrument` imports the modules of the entry point group `opentelemetry_environment_variables`
to learn of its own options, and this module is one of them.
A setting of ours that cannot be used is told here too: with it nothing is metered, and where `cmdrdata` is one of the
exporters, nothing is initialised.
https://github.com/open-telemetry/opentelemetry-python-contrib/blob/v0.60b0/opentelemetry-instrumentation/src/opentelemetry/instrumentation/auto_instrumentation/__init__.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from cmdrdata_exporter import ConfigurationError, Settings

_SIGNALS = ("traces", "metrics", "logs")
_OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_PACKAGES = {
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "otlp_proto_http": "opentelemetry-exporter-otlp-proto-http",
}


def missing_exporters(
    environ: Mapping[str, str], arguments: Sequence[str], installed: Callable[[str], set[str]]
) -> list[str]:
    """
    Return a message for each exporter that OpenTelemetry will look for in vain.

    Args:
        environ: the environment of the application.
        arguments: of `opentelemetry-instrument`, whose options prevail over the environment.
        installed: returns the names of an entry point group.
    """
    if not installed("opentelemetry_configurator"):
        return []  # Without a distribution no exporter is looked for.
    options = _options(arguments)
    messages: list[str] = []
    for signal in _SIGNALS:
        variable = f"OTEL_{signal.upper()}_EXPORTER"
        chosen = options.get(f"{signal}_exporter", environ.get(variable))
        for name in (chosen if chosen is not None else "otlp").split(","):
            exporter = _entry_point(name.strip(), signal, environ, options)
            if exporter not in ("", "none") and exporter not in installed(
                f"opentelemetry_{signal}_exporter"
            ):
                origin = (
                    f"{variable}={chosen}"
                    if chosen is not None
                    else f"the default, as {variable} is not set"
                )
                install = (
                    f"pip install {_PACKAGES[exporter]}"
                    if exporter in _PACKAGES
                    else "install what provides it"
                )
                messages.append(
                    f"the {signal} exporter {exporter} ({origin}): {install}, or set {variable}=none"
                )
    return messages


def _entry_point(
    name: str, signal: str, environ: Mapping[str, str], options: Mapping[str, str]
) -> str:
    """Return the entry point that the SDK loads for the name of an exporter."""
    if name != "otlp":
        return name
    for option in (f"exporter_otlp_{signal}_protocol", "exporter_otlp_protocol"):
        protocol = options.get(option) or environ.get(f"OTEL_{option.upper()}")
        if protocol:
            return _OTLP.get(protocol.strip(), name)
    return _OTLP["grpc"]


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """Return the options before the command, each of which has a value: `--name value` or `--name=value`."""
    options: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("--"):
            break
        name, equals, value = argument[2:].partition("=")
        options[name] = value if equals else next(rest, "")
    return options


def warning(
    environ: Mapping[str, str], arguments: Sequence[str], installed: Callable[[str], set[str]]
) -> str | None:
    """Return what keeps calls from being metered, None where nothing does. The arguments are as above."""
    messages = missing_exporters(environ, arguments, installed)
    if messages:
        problem = "OpenTelemetry's auto-initialisation is about to fail, because an exporter is not installed:"
    else:
        try:
            Settings.read(environ)
        except ConfigurationError as error:
            messages = [str(error)]
        problem = "A setting cannot be used; with `cmdrdata` among OTEL_TRACES_EXPORTER there will be no traces either:"
    return (
        "\n  - ".join([f"CmdrData: NOTHING WILL BE METERED. {problem}", *messages])
        if messages
        else None
    )


def _warn() -> None:
    def installed(group: str) -> set[str]:
        return {entry_point.name for entry_point in entry_points(group=group)}

    message = warning(os.environ, sys.argv[1:], installed)
    if message:
        print(message, file=sys.stderr, flush=True)  # noqa: T201 - no logging is set up yet


if sys.argv and Path(sys.argv[0]).name.startswith("opentelemetry-instrument"):
    _warn()
