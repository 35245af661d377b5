"""Who we say we are to the backend."""

from importlib.metadata import version

USER_AGENT = (
    f"opentelemetry-instrumentation-cmdrdata/{version('opentelemetry-instrumentation-cmdrdata')}"
)
