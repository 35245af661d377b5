"""What an exception of the SDK, or of the application, says about a call. Pure."""

from __future__ import annotations

import traceback

from cmdrdata_exporter.scrubbing import scrubbed
from opentelemetry_instrumentation_cmdrdata.openai.copies import is_instance


def message(error: BaseException) -> str:
    """
    Return what an exception says, as far as it may be recorded.

    Only the SDK's own errors about an exchange: others may quote what the model wrote, as pydantic's do.
    """
    return scrubbed(str(error)) if is_instance(error, "APIError") else type(error).__name__


def qualified_name(error: BaseException) -> str:
    """Return the name of the exception's class with its module, as `error.type` has it."""
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def status_code(error: BaseException | None) -> int | None:
    """Return the HTTP status that the provider refused a request with."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) and status >= 400 else None


def code(error: BaseException) -> str | None:
    """Return the HTTP status of an error as a string, else the provider's code."""
    status = status_code(error)
    # Those of `websockets` warn that theirs is no longer to be asked for.
    is_asked = not type(error).__module__.startswith("websockets.")
    provider_code = getattr(error, "code", None) if is_asked else None
    return (
        str(status)
        if status is not None
        else provider_code
        if isinstance(provider_code, str)
        else None
    )


_UNCONNECTED = (
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "UnsupportedProtocol",
)
"""Exceptions of httpx of a request that had no connection to be sent on."""

_BEFORE_SENDING = ("_prepare_options", "_build_request", "_prepare_request")
"""Functions of the SDK in which a request is made, not sent."""


def never_left(error: BaseException | None) -> bool:
    """
    Say whether a request that failed with `error` certainly was not sent.

    That is read from where the exception comes from, so that no success pays for it. What is not known may have left.
    """
    # Causes may form a ring: test doubles raise what they caught from what they made of it.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if _failed_before_sending(error):
            return True
        seen.add(id(error))
        error = error.__cause__
    return False


def _failed_before_sending(error: BaseException) -> bool:
    package, name = type(error).__module__.partition(".")[0], type(error).__name__
    where = [
        (str(frame.f_globals.get("__name__")).partition(".")[0], frame.f_code.co_name)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    if package in _HTTPX and name in _UNCONNECTED:
        return True
    if name == "LocalProtocolError":
        # A header that cannot be written; later on it is a protocol that has lost its way.
        return any(function == "_send_request_headers" for _, function in where)
    if isinstance(error, RuntimeError) and where[-1:] in [[(one, "send")] for one in _HTTPX]:
        return True  # A client that is closed.
    return any(one == "openai" and function in _BEFORE_SENDING for one, function in where)


_HTTPX = ("httpx", "httpx2")
