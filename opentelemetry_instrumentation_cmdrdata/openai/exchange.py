"""What the SDK says of the HTTP exchange behind a call, attempt by attempt."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from cmdrdata_exporter import faults
from opentelemetry_instrumentation_cmdrdata.openai import failures
from opentelemetry_instrumentation_cmdrdata.openai.account import account
from opentelemetry_instrumentation_cmdrdata.openai.usage import NOTHING, count

if TYPE_CHECKING:
    from opentelemetry_instrumentation_cmdrdata.call import Call


class Exchange:
    """
    The exchange of one call.

    Kept out of `Call`: contexts are copied into long-lived objects (a connection that is kept alive, for instance),
    which would keep the call alive. It must go when its stream goes.
    """

    # What is known before anything has happened is the same of every exchange, so it stands in the class.
    reads_account = False
    """Whether the other side may be OpenAI, so that it matters whom it charges there."""
    account: Mapping[str, Any] = NOTHING
    """Who is charged at OpenAI, by the names of attributes: what is known of it."""
    asked: weakref.ref[Call] | None = None
    """The call, if its usage was asked for by us: what is answered because of that must be kept back."""
    is_answered = False
    has_left = False
    """Whether an attempt that failed may have reached the provider."""
    request_id: str | None = None
    retry_count = 0
    response: Any = None
    """The answer, until the SDK's method returns: what it reports counts also where the SDK cannot parse it."""

    @faults.guarded
    def attempt_failed(self, error: BaseException | None) -> None:
        """Note what an attempt failed with that the SDK makes again."""
        self.has_left = self.has_left or not failures.never_left(error)

    def answered(self, response: Any, retries_taken: Any) -> None:
        """Note an answer, and how many attempts failed before it (None where the SDK does not tell)."""
        try:
            self.response = response
            self.is_answered = True
            request_id = response.headers.get("x-request-id")
            self.request_id = request_id if isinstance(request_id, str) else None
            if isinstance(retries_taken, int):
                self.retry_count = retries_taken
            if self.reads_account:
                self.account = account(response.request.headers, response.headers)
        except Exception as error:  # noqa: BLE001 - the call is billed all the same
            faults.absorb(error, "the note of an answer")

    @faults.guarded
    def call_failed(self, error: BaseException) -> None:
        """Note what the exception that ends the call says of its last attempt."""
        request = getattr(error, "request", None)
        if request is not None:
            retries = count(request.headers.get("x-stainless-retry-count"))
            self.retry_count = self.retry_count if retries is None else retries
        response = getattr(error, "response", None)
        if response is not None:
            self.request_id = response.headers.get("x-request-id") or self.request_id
        if self.reads_account and not self.account:
            self.account = account(
                None if request is None else request.headers,
                None if response is None else response.headers,
            )


running: ContextVar[Exchange | None] = ContextVar("cmdrdata_exchange", default=None)
"""The exchange of the request that is under way in this context."""
