"""
An application whose metrics Prometheus scrapes.

It makes calls for a customer and for nobody, prints the port of its metrics, and lives until its input ends.

    python application.py BASE_URL
"""

from __future__ import annotations

import sys
from typing import Any

from openai import OpenAI
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

from cmdrdata_exporter.exporter import current_exporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor, customer_context

QUESTION: dict[str, Any] = {
    "model": "gpt-4.1-mini",
    "messages": [{"role": "user", "content": "hi"}],
}

metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
server, _ = start_http_server(0, "127.0.0.1")
CmdrDataInstrumentor().instrument()
client = OpenAI(base_url=sys.argv[1], api_key="sk-standin")
with customer_context("acme"):
    client.chat.completions.create(**QUESTION)
    for _ in client.chat.completions.create(
        **QUESTION, stream=True, stream_options={"include_usage": True}
    ):
        pass
for _ in range(2):
    client.chat.completions.create(**QUESTION)
current_exporter().force_flush()
sys.stdout.write(f"{server.server_port}\n")
sys.stdout.flush()
sys.stdin.read()
