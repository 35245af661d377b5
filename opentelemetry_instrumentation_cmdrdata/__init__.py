"""
Meter every call that an application makes through the official OpenAI SDK.

    from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor

    CmdrDataInstrumentor().instrument()

or, without a line of code, `opentelemetry-instrument python app.py`.

Each call makes a span by the GenAI conventions of OpenTelemetry on the application's TracerProvider, and, whatever
becomes of that span, one usage event through `cmdrdata_exporter.CmdrDataSpanExporter`.
Where events go is said by `CMDRDATA_API_KEY` and the other variables of `cmdrdata_exporter.settings`; who pays, by
`cmdrdata_exporter.customer_context`.
Prompts and completions are neither read nor kept, unless `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` asks for
them: see docs/content.md.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from cmdrdata_exporter import (
    CmdrDataSpanExporter,
    ConfigurationError,
    clear_customer_context,
    clear_metadata_context,
    current_exporter,
    customer_context,
    get_customer_context,
    get_metadata_context,
    metadata_context,
    processes,
    set_customer_context,
    set_metadata_context,
    update_metadata_context,
)
from cmdrdata_exporter.announcement import NOTHING_METERED
from cmdrdata_exporter.deduplication import own_calls
from cmdrdata_exporter.runtime import announce
from opentelemetry_instrumentation_cmdrdata import open_calls, package
from opentelemetry_instrumentation_cmdrdata.capture import Capture
from opentelemetry_instrumentation_cmdrdata.metrics import ClientMetrics
from opentelemetry_instrumentation_cmdrdata.openai import bypassing
from opentelemetry_instrumentation_cmdrdata.recorder import SCOPE, Recorder
from opentelemetry_instrumentation_cmdrdata.version import __version__

if TYPE_CHECKING:
    from opentelemetry_instrumentation_cmdrdata.openai.clients import (
        AsyncTrackedAzureOpenAI,
        AsyncTrackedOpenAI,
        TrackedAzureOpenAI,
        TrackedOpenAI,
    )
    from opentelemetry_instrumentation_cmdrdata.openai.keywords import bind_customer

__all__ = [
    "AsyncTrackedAzureOpenAI",
    "AsyncTrackedOpenAI",
    "CmdrDataInstrumentor",
    "TrackedAzureOpenAI",
    "TrackedOpenAI",
    "__version__",
    "bind_customer",
    # Of `cmdrdata_exporter`, so that who comes from cmdrdata-openai or cmdrdata changes one line.
    "clear_customer_context",
    "clear_metadata_context",
    "customer_context",
    "get_customer_context",
    "get_metadata_context",
    "metadata_context",
    "set_customer_context",
    "set_metadata_context",
    "update_metadata_context",
]


def __getattr__(name: str) -> Any:
    """Import what needs openai only when it is asked for: without openai the instrumentor is there to say so."""
    if name == "bind_customer":
        from opentelemetry_instrumentation_cmdrdata.openai import keywords

        return keywords.bind_customer
    if name in __all__:
        from opentelemetry_instrumentation_cmdrdata.openai import clients

        return getattr(clients, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_logger = logging.getLogger("cmdrdata")


class CmdrDataInstrumentor(BaseInstrumentor):
    """
    Observes the openai SDK: `OpenAI`, `AsyncOpenAI`, their Azure and other subclasses, and what is built on them.

    `instrument()` takes, each of them by its name and none by need,

    - `tracer_provider`: where spans go, default the global one;
    - `meter_provider`: where the metrics of the calls (`metrics`) and of the delivery (`cmdrdata_exporter.telemetry`)
      go, default the global one, which may be set later;
    - `exporter`: the `CmdrDataSpanExporter` that meters the calls. Default: the one that the application built last,
      else one configured by the environment;
    - `logger_provider`: where the events with content go, if they are asked for, default the global one;
    - `content_hook`: a function of a call's `content.Content` and its span's attributes that returns what may be
      recorded, None for nothing. If it raises, the content is dropped.

    and raises `cmdrdata_exporter.ConfigurationError` where a setting of the environment cannot be used.
    Clients made before and after are observed alike. `uninstrument()` leaves the SDK as it was.
    """

    stands_in = False
    """Whether it is active only because somebody listens to all calls (`conversations`), until it is asked for."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the versions of the SDK that are instrumented."""
        return package._instruments  # pyright: ignore[reportPrivateUsage] # noqa: SLF001 - contrib's name

    def instrument(self, **kwargs: Any) -> None:
        """Start observing. See the class for the arguments."""
        if self.stands_in:
            self.uninstrument()
        if _openai_version() is None:
            _logger.error(
                "openai is not installed in this environment, so there is nothing to instrument; "
                "install it with: pip install 'openai>=1.0.0'"
            )
            return
        # OpenTelemetry's own loader passes one of them. An exception makes it give up all other instrumentations too.
        is_automatic = not kwargs.keys().isdisjoint(
            ("skip_dep_check", "raise_exception_on_conflict")
        )
        if _metadata_version() is None:
            # The base asks for the metadata, and takes an SDK without it for one that is not there.
            kwargs["skip_dep_check"] = True
        try:
            super().instrument(**kwargs)
        except Exception as error:
            if not is_automatic:
                raise
            reason = error if isinstance(error, ConfigurationError) else repr(error)
            announce(logging.ERROR, "%s %s", NOTHING_METERED, reason)

    def _instrument(self, **kwargs: Any) -> None:
        from opentelemetry_instrumentation_cmdrdata.openai import seam

        _warn_of_untested(_openai_version())
        if (hook := kwargs.get("content_hook")) is not None and not callable(hook):
            raise ConfigurationError(
                f"content_hook is of type {type(hook).__name__}; expected is a function that takes the content of a "
                "call and the attributes of its span, and returns what may be recorded, or None"
            )
        exporter: CmdrDataSpanExporter | None = kwargs.get("exporter")
        # Whether the environment is usable shall be known now, not at the end of the first call.
        metering = current_exporter() if exporter is None else exporter
        if (meter_provider := kwargs.get("meter_provider")) is not None:
            metering.report_to(meter_provider)

        def metering_now() -> CmdrDataSpanExporter:
            return exporter or current_exporter()

        tracer = trace.get_tracer(SCOPE, __version__, kwargs.get("tracer_provider"))
        recorder = Recorder(tracer, metering_now, ClientMetrics(meter_provider))
        recorder.content = Capture(
            metering.settings, kwargs.get("content_hook"), kwargs.get("logger_provider")
        )

        def metering_first() -> CmdrDataSpanExporter:
            recorder.exporter = metering_now
            bypassing.report()
            return metering_now()

        recorder.exporter = metering_first
        seam.patch(recorder)
        own_calls.active = True
        bypassing.report()
        processes.at_exit(bypassing.report, priority=300)
        # Streams that are open now or later are ended by the exit at the latest, also after `uninstrument`.
        # First: what they lead to is delivered afterwards.
        processes.at_exit(open_calls.end_all, priority=200)

    def _uninstrument(self, **kwargs: Any) -> None:  # noqa: ARG002 - the base passes them
        from opentelemetry_instrumentation_cmdrdata.openai import seam

        seam.unpatch()
        self.stands_in = own_calls.active = False


def _openai_version() -> str | None:
    """Return the version of the SDK, None where there is none. Frozen programs have it without its metadata."""
    version = _metadata_version()
    if version is None:
        with contextlib.suppress(ImportError):
            import openai

            version = openai.__version__
    return version


def _metadata_version() -> str | None:
    try:
        return installed_version("openai")
    except PackageNotFoundError:
        return None


def _warn_of_untested(version: str | None) -> None:
    """Say so, once per instrumenting, where the SDK is none that this release was tested with."""
    numbers = tuple(int(part) for part in (version or "").split(".")[:2] if part.isdecimal())
    newest_major = package.NEWEST_TESTED[0]
    if len(numbers) == 2 and numbers >= package.OLDEST_TESTED and numbers[0] <= newest_major:
        return
    _logger.warning(
        "openai %s is not among the versions this release was tested with (%d.%d to %d.%d); metering goes on, "
        "look for a newer opentelemetry-instrumentation-cmdrdata",
        version,
        *package.OLDEST_TESTED,
        *package.NEWEST_TESTED,
    )
