"""A program that was frozen into one file, whose packages have lost their metadata, is metered."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests import replies
from tests.provider import Provider, Reply

PROGRAM = """
import importlib.machinery, importlib.metadata, json, sys
# What these need themselves has to be collected with them: httpx2 and httpcore2 read their versions from their
# metadata, and OpenTelemetry's older versions theirs, and their context by an entry point.
import openai
import opentelemetry.context
import opentelemetry.instrumentation.instrumentor
import opentelemetry.sdk.metrics
import opentelemetry.sdk.trace.export

openai.OpenAI(api_key="sk-test").close()

def nothing(*_, **__):
    return iter(())

importlib.machinery.PathFinder.find_distributions = nothing
for finder in sys.meta_path:
    if hasattr(finder, "find_distributions"):
        finder.find_distributions = nothing
try:
    importlib.metadata.version("openai")
except importlib.metadata.PackageNotFoundError:
    pass
else:
    raise SystemExit("there is metadata")

from cmdrdata_exporter import CmdrDataSpanExporter
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor

CmdrDataInstrumentor().instrument()
with openai.OpenAI(base_url=sys.argv[1], api_key="sk-test", max_retries=0) as client:
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
from cmdrdata_exporter import current_exporter
print(current_exporter().force_flush(10_000), CmdrDataInstrumentor().is_instrumented_by_opentelemetry)
"""


def test_without_package_metadata(provider: Provider) -> None:
    """A program without the metadata of any package has its calls billed: no version is read from there alone."""
    provider.answer("/v1/chat/completions", Reply(json=replies.CHAT))
    provider.answer("/events", Reply(json={}))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, provider.url],
        env={
            "CMDRDATA_API_KEY": "tk-" + "x" * 30,
            "CMDRDATA_ENDPOINT": provider.url.replace("/v1", "/events"),
            "CMDRDATA_CUSTOMER_ID": "acme",
            **os.environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "True True\n") == (done.returncode, done.stdout), done.stderr
    (event,) = (json.loads(r.body) for r in provider.requests if r.path == "/events")
    assert ("acme", 29) == (event["customer_id"], event["total_tokens"])
