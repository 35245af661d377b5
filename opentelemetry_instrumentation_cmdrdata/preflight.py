"""
A look ahead, before `opentelemetry-instrument` starts the application.

Much of what keeps calls from being metered happens before anything of ours is loaded in the application's process:
OpenTelemetry's auto-initialisation fails as a whole where one exporter that it is told to use is not installed, and it
passes over an instrumentation whose SDK is missing. So this is said in the process before that one:
`opentelemetry-instrument` imports the modules of the entry point group `opentelemetry_environment_variables` to learn
of its own options, and this module is one of them. A setting of ours that cannot be used is told here too.

With opentelemetry-distro alone the exporters that it uses unless told otherwise, those of OTLP, are not there, and the
initialisation would fail. Nobody has asked for them, so they are switched off, and that is said.
https://github.com/open-telemetry/opentelemetry-python-contrib/blob/v0.60b0/opentelemetry-instrumentation/src/opentelemetry/instrumentation/auto_instrumentation/__init__.py
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import NamedTuple

from cmdrdata_exporter.announcement import NOTHING_METERED
from cmdrdata_exporter.runtime import prepare_directory
from cmdrdata_exporter.settings import ConfigurationError, Settings
from opentelemetry_instrumentation_cmdrdata import package

_SIGNALS = ("traces", "metrics", "logs")
_OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_PACKAGES = {
    "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "otlp_proto_http": "opentelemetry-exporter-otlp-proto-http",
}
_DISTRO = "opentelemetry.distro:OpenTelemetryDistro"
"""The distribution that uses OTLP unless it is told otherwise. Others choose exporters of their own."""

_LIMIT = re.compile(
    r"OTEL_(?:SPAN_|EVENT_|LINK_)?(?:ATTRIBUTE_|EVENT_|LINK_)?(?:COUNT|VALUE_LENGTH)_LIMIT"
)
"""What limits a span."""

EntryPoints = Callable[[str], Mapping[str, str]]
"""Returns the names of an entry point group, each with its value."""


class Missing(NamedTuple):
    """An exporter that OpenTelemetry will look for in vain."""

    signal: str
    exporter: str
    chosen: str | None
    """What names it; None where that is the distribution's default."""

    @property
    def variable(self) -> str:
        """The variable that names the exporters of its signal."""
        return f"OTEL_{self.signal.upper()}_EXPORTER"

    @property
    def remedy(self) -> str:
        """How to install it."""
        package = _PACKAGES.get(self.exporter)
        return f"pip install {package}" if package else "install what provides it"


def missing_exporters(
    environ: Mapping[str, str], options: Mapping[str, str], installed: EntryPoints
) -> list[Missing]:
    """
    Return each exporter that OpenTelemetry will look for in vain.

    Args:
        environ: the environment of the application.
        options: those of `opentelemetry-instrument`, which prevail over the environment.
        installed: what is there.
    """
    if not installed("opentelemetry_configurator"):
        return []  # Without a distribution no exporter is looked for.
    default = "otlp" if _DISTRO in installed("opentelemetry_distro").values() else "none"
    missing: list[Missing] = []
    for signal in _SIGNALS:
        chosen = options.get(f"{signal}_exporter", environ.get(f"OTEL_{signal.upper()}_EXPORTER"))
        there = installed(f"opentelemetry_{signal}_exporter")
        for name in (default if chosen is None else chosen).split(","):
            exporter = _entry_point(name.strip(), signal, environ, options)
            if exporter not in ("", "none") and exporter not in there:
                missing.append(Missing(signal, exporter, chosen))
    return missing


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


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options before the command (`--name value`, `--name=value`), and the command."""
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("--"):
        name, equals, value = rest.pop(0)[2:].partition("=")
        if not equals and rest:
            value = rest.pop(0)
        options[name] = value
    return options, rest


def options_of(arguments: Sequence[str]) -> dict[str, str]:
    """Return the options of `opentelemetry-instrument`, which come before the command."""
    return _split(arguments)[0]


def command_of(arguments: Sequence[str]) -> list[str]:
    """Return the command that `opentelemetry-instrument` becomes, with its arguments."""
    return _split(arguments)[1]


def reasons(
    environ: Mapping[str, str],
    arguments: Sequence[str],
    installed: EntryPoints,
    openai_version: str | None,
) -> list[str]:
    """
    Return what keeps calls from being metered. With metering switched off there is nothing to be kept from.

    Args:
        environ: the environment of the application.
        arguments: of `opentelemetry-instrument`.
        installed: what is there.
        openai_version: that of the openai package, None where there is none.
    """
    problem: str | None = None
    try:
        settings = Settings.read(environ)
        if not settings.enabled:
            return []
        # Where it cannot be written, or Python has no SQLite, events are kept in memory.
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("sqlite3")
            prepare_directory(settings)
    except ConfigurationError as error:
        problem = str(error)
    found = reasons_not_loaded(environ, arguments, installed, openai_version)
    return found if problem is None else [*found, problem]


def reasons_not_loaded(
    environ: Mapping[str, str],
    arguments: Sequence[str],
    installed: EntryPoints,
    openai_version: str | None,
) -> list[str]:
    """Return what keeps OpenTelemetry from starting, or from loading us, whatever our settings say. See `reasons`."""
    options, command = _split(arguments)
    found = [
        f"OpenTelemetry cannot start: the {missing.signal} exporter {missing.exporter} "
        f"({missing.variable}={missing.chosen}) is not installed: {missing.remedy}, or set {missing.variable}=none"
        for missing in missing_exporters(environ, options, installed)
        if missing.chosen is not None
    ]
    if installed("opentelemetry_configurator"):
        found += _refused_by_the_sdk(environ, options, installed)
    if _is_isolated(command):
        found.append(
            "Python is started with -I, -E or -S, so it does not load OpenTelemetry: leave that option out"
        )
    traces = options.get("traces_exporter", environ.get("OTEL_TRACES_EXPORTER", ""))
    # As an exporter we bill the spans of other instrumentations, without one of our own.
    is_exporter = "cmdrdata" in _names(traces) and installed("opentelemetry_configurator")
    return found if is_exporter else found + _not_instrumented(environ, options, openai_version)


def _refused_by_the_sdk(
    environ: Mapping[str, str], options: Mapping[str, str], installed: EntryPoints
) -> list[str]:
    """Return what else than a missing exporter ends the initialisation of OpenTelemetry's SDK."""
    found: list[str] = []
    variable = "OTEL_PYTHON_ID_GENERATOR"
    generator = options.get("id_generator", environ.get(variable, "")).strip()
    if generator and generator not in installed("opentelemetry_id_generator"):
        found.append(
            f"OpenTelemetry cannot start: the id generator {generator} ({variable}={generator}) is not installed"
        )
    for name, value in environ.items():
        if _LIMIT.fullmatch(name) and value.strip() and not value.strip().isdecimal():
            found.append(
                f"OpenTelemetry cannot start: {name} is {value!r}; expected is a number that is not negative"
            )
    return found


def _not_instrumented(
    environ: Mapping[str, str], options: Mapping[str, str], openai_version: str | None
) -> list[str]:
    """Return what keeps the openai SDK from being instrumented."""
    variable = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    disabled = options.get("disabled_instrumentations", environ.get(variable, ""))
    if {"cmdrdata", "*"} & _names(disabled):
        return [f"{variable} is {disabled}, which switches cmdrdata off: take it out of there"]
    oldest = ".".join(map(str, package.OLDEST_TESTED))
    if openai_version is None:
        return [f"openai is not installed in this environment: pip install 'openai>={oldest}'"]
    if openai_version.partition(".")[0] == "0":
        return [f"openai {openai_version} is too old to be metered: pip install 'openai>={oldest}'"]
    return []


def _names(value: str) -> set[str]:
    return {name.strip() for name in value.split(",")}


def _is_isolated(command: Sequence[str]) -> bool:
    """Say whether a command runs Python with an option that keeps it from loading OpenTelemetry."""
    if not command or not Path(command[0]).name.startswith(("python", "pypy")):
        return False
    rest = iter(command[1:])
    for argument in rest:
        if not argument.startswith("-") or argument.startswith("--"):
            return False
        for place, letter in enumerate(argument[1:], 2):
            if letter in "IES":
                return True
            if letter in "WX":
                if place == len(argument):
                    next(rest, None)  # its value
                break
            if letter in "cm":
                return False
    return False


def switched_off(
    environ: MutableMapping[str, str], options: Mapping[str, str], installed: EntryPoints
) -> str | None:
    """Switch off the exporters that nobody asked for and that are not there; return what to say of it."""
    missing = [
        exporter
        for exporter in missing_exporters(environ, options, installed)
        if exporter.chosen is None
    ]
    if not missing:
        return None
    for exporter in missing:
        environ[exporter.variable] = "none"
    variables = " ".join(f"{exporter.variable}=none" for exporter in missing)
    return (
        f"CmdrData: {missing[0].exporter}, which OpenTelemetry would use by default, is not installed, and without it "
        f"nothing would start. So this is set: {variables}. Set them yourself, or {missing[0].remedy}"
    )


def entry_points_of(group: str) -> dict[str, str]:
    """Return the entry points of a group that are installed here."""
    return {found.name: found.value for found in entry_points(group=group)}


def version_of(distribution: str) -> str | None:
    """Return the version of a distribution that is installed here."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _look_ahead() -> None:
    arguments = sys.argv[1:]
    found = reasons(os.environ, arguments, entry_points_of, version_of("openai"))
    lines: list[str] = []
    if found:
        lines.append("\n  - ".join([NOTHING_METERED, *found]))
    if note := switched_off(os.environ, options_of(arguments), entry_points_of):
        lines.append(note)
    for line in lines:
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - no logging is set up yet


# What fails here must not keep the application from starting.
if sys.argv and Path(sys.argv[0]).name.startswith("opentelemetry-instrument"):
    with contextlib.suppress(Exception):
        _look_ahead()
