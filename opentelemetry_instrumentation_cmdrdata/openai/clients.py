"""
Drop-in clients that are metered by themselves.

    from opentelemetry_instrumentation_cmdrdata import TrackedOpenAI

    client = TrackedOpenAI(tracker_key="tk-...")
    client.chat.completions.create(model="gpt-4o-mini", messages=[...], customer_id="acme")

They are the SDK's own clients, of subclasses of theirs, and take all of the SDK's arguments. Their calls go the way of
every other call, and are metered once, whether or not `CmdrDataInstrumentor` is active. Clients with keys of their own
deliver to accounts of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata.openai import seam
from opentelemetry_instrumentation_cmdrdata.openai.keywords import (
    HEADER,
    Attribution,
    Tracked,
    keep,
)


class _TrackedClient(Tracked):
    _shows: ClassVar[bool] = False
    """Whether the spans of its calls have their content, and tell which line of the application makes them."""

    def __init__(
        self,
        *,
        tracker_key: str | None = None,
        tracker_endpoint: str | None = None,
        tracker_timeout: float | None = None,  # noqa: ARG002 - taken for those who come from cmdrdata-openai
        track_usage: bool = True,
        customer_id: str | None = None,
        default_headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        seam.take_keywords_of_tracked_clients()
        headers: dict[str, Any] = dict(default_headers or {})
        # A copy of a client, as `with_options` makes it, has got it with the headers.
        if HEADER not in headers:
            exporter = None
            if tracker_key is not None or tracker_endpoint is not None:
                exporter = CmdrDataSpanExporter(tracker_key, tracker_endpoint, of_process=False)
            headers[HEADER] = Attribution(
                customer_id,
                track_usage,
                exporter=exporter,
                capture=self._shows,
                shows_call_site=self._shows,
            )
        super().__init__(default_headers=headers, **options)  # pyright: ignore[reportCallIssue] - the SDK's client
        keep(self)


class _Sync(_TrackedClient):
    pass


class _Async(_TrackedClient):
    pass


seam.observe_always(_Sync, OpenAI)
seam.observe_always(_Async, AsyncOpenAI)


class TrackedOpenAI(_Sync, OpenAI):
    """
    An `OpenAI` client whose calls are metered; it takes the SDK's own arguments too.

    Args:
        tracker_key: the CmdrData key. Default: what meters the process meters this client too.
        tracker_endpoint: the full URL to POST events to.
        tracker_timeout: has no effect: no call waits for the delivery of its event, which times itself.
        track_usage: False makes no events.
        customer_id: who pays for calls that name nobody.

    Raises:
        ConfigurationError: the CmdrData key or endpoint cannot be used.
    """


class AsyncTrackedOpenAI(_Async, AsyncOpenAI):
    """An `AsyncOpenAI` client whose calls are metered. See `TrackedOpenAI`."""


class TrackedAzureOpenAI(_Sync, AzureOpenAI):
    """An `AzureOpenAI` client whose calls are metered. See `TrackedOpenAI`."""


class AsyncTrackedAzureOpenAI(_Async, AsyncAzureOpenAI):
    """An `AsyncAzureOpenAI` client whose calls are metered. See `TrackedOpenAI`."""
