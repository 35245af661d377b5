"""Who we say we are to the backend."""

VERSION = "0.1.0"
"""The version of this distribution, read by the build. Not from package metadata: a frozen program may have none."""
USER_AGENT = f"opentelemetry-instrumentation-cmdrdata/{VERSION}"
