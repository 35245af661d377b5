"""
The clients of r4u's tracing package, by the same names.

    from opentelemetry_instrumentation_cmdrdata.r4u import AsyncOpenAI, OpenAI

in place of `from r4u.tracing.openai import AsyncOpenAI, OpenAI`.
Each call is metered once, whether or not `CmdrDataInstrumentor` is active, and makes a span on the application's
TracerProvider with its whole content (what was asked, what was answered, the tools) and the line of the application
that makes it. Streams are recognised by themselves, and timed to their end. The calls of other clients show neither.
"""

from __future__ import annotations

from opentelemetry_instrumentation_cmdrdata.openai.clients import AsyncTrackedOpenAI, TrackedOpenAI


class OpenAI(TrackedOpenAI):
    """
    An `openai.OpenAI` client whose calls are metered, and are on spans with their content.

    It takes the arguments of the SDK and of `TrackedOpenAI`: `customer_id=` and `tracker_key=`, for instance.

    Raises:
        ConfigurationError: the CmdrData key or endpoint cannot be used.
    """

    _shows = True


class AsyncOpenAI(AsyncTrackedOpenAI):
    """The asynchronous `OpenAI`."""

    _shows = True
