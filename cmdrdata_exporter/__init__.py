"""
Turn GenAI spans, ours or anyone's, into CmdrData usage events and deliver them.

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from cmdrdata_exporter import CmdrDataSpanExporter, CmdrDataSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(CmdrDataSpanProcessor())
    provider.add_span_processor(BatchSpanProcessor(CmdrDataSpanExporter(api_key="tk-...")))

Customers are named by context:

    from cmdrdata_exporter import customer_context

    with customer_context("acme", plan="pro"):
        ...

Every setting is an environment variable too, see `cmdrdata_exporter.settings`.
"""

from cmdrdata_exporter.customer import (
    CmdrDataSpanProcessor,
    carry_customer,
    clear_customer_context,
    customer_context,
    get_customer_context,
    set_customer_context,
)
from cmdrdata_exporter.events import UsageEvent
from cmdrdata_exporter.exporter import CmdrDataSpanExporter, current_exporter
from cmdrdata_exporter.foreign import event_from_span
from cmdrdata_exporter.metadata import (
    clear_metadata_context,
    get_metadata_context,
    metadata_context,
    set_metadata_context,
    update_metadata_context,
)
from cmdrdata_exporter.settings import ConfigurationError, Settings

__all__ = [
    "CmdrDataSpanExporter",
    "CmdrDataSpanProcessor",
    "ConfigurationError",
    "Settings",
    "UsageEvent",
    "carry_customer",
    "clear_customer_context",
    "clear_metadata_context",
    "current_exporter",
    "customer_context",
    "event_from_span",
    "get_customer_context",
    "get_metadata_context",
    "metadata_context",
    "set_customer_context",
    "set_metadata_context",
    "update_metadata_context",
]
