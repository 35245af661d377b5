"""The recipes with a tracer provider at work, which frameworks and their instrumentations attach contexts of."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.frameworks.conftest import EXAMPLES
from tests.metering import complaints
from tests.standins import CmdrDataStandIn, OpenAIStandIn

PROGRAM = Path(__file__).with_name("served.py")
OPENTELEMETRY_INSTRUMENT = Path(sysconfig.get_path("scripts"), "opentelemetry-instrument")

ORDERS = {
    "provider alone": "{ours}",
    "before": "{framework} threading {ours}",
    "after": "{ours} threading {framework}",
    "opentelemetry-instrument": "",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("framework", ["fastapi", "flask", "django"])
def test_every_recipe(framework: str, order: str, tmp_path: Path) -> None:
    """Each request is billed to its customer, whichever instrumentations are at work, in whichever order."""
    instrumentors = ORDERS[order].format(framework=framework, ours="ours").split()
    with OpenAIStandIn() as openai, CmdrDataStandIn() as backend:
        finished = subprocess.run(
            [
                *(() if instrumentors else (OPENTELEMETRY_INSTRUMENT,)),
                *(sys.executable, PROGRAM, f"{framework}_app", *instrumentors),
            ],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "PYTHONPATH": str(EXAMPLES),
                "DJANGO_SETTINGS_MODULE": "django_settings",
                "OPENAI_API_KEY": "sk-standin",
                "OPENAI_BASE_URL": openai.url,
                "CMDRDATA_API_KEY": "tk-0123456789abcdefghij",
                "CMDRDATA_ENDPOINT": backend.url,
                "CMDRDATA_STREAM_USAGE": "always",
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
            },
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
        )
        assert (0, "") == (finished.returncode, complaints(finished.stderr))
        asked = json.loads(finished.stdout)
        assert asked == sorted(
            [event["metadata"]["request_model"], event["customer_id"]] for event in backend.events
        )
