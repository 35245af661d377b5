"""Who we say we are to the backend."""

from importlib.metadata import version

VERSION = version("opentelemetry-instrumentation-cmdrdata")
USER_AGENT = f"opentelemetry-instrumentation-cmdrdata/{VERSION}"
