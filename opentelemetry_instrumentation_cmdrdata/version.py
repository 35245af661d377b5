"""The version of this distribution, where OpenTelemetry's tools look for it."""

from cmdrdata_exporter.version import VERSION

__version__ = VERSION
