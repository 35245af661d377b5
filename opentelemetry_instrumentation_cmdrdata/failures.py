"""What an exception of the SDK, or of the application, says about a call. Pure."""

from __future__ import annotations

from cmdrdata_exporter.scrubbing import scrubbed


def message(error: BaseException) -> str:
    """
    Return what an exception says, as far as it may be recorded.

    Only the SDK's own errors about an exchange: others may quote what the model wrote, as pydantic's do.
    """
    from openai import APIError  # Late: without openai the instrumentor is there to say so.

    return scrubbed(str(error)) if isinstance(error, APIError) else type(error).__name__


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
    provider_code = getattr(error, "code", None)
    return (
        str(status)
        if status is not None
        else provider_code
        if isinstance(provider_code, str)
        else None
    )
