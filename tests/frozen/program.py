"""A program that switches metering on in code, makes a call and ends."""

from __future__ import annotations

import openai

from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor

CmdrDataInstrumentor().instrument()
with openai.OpenAI(max_retries=0) as client:
    client.chat.completions.create(model="gpt-1", messages=[{"role": "user", "content": "hello"}])
