"""Say hello through NeMo Guardrails, with its tracing on."""

import os

from nemoguardrails import LLMRails, RailsConfig

CONFIG = f"""
models:
  - type: main
    engine: openai
    model: gpt-4.1-mini
    parameters:
      base_url: {os.environ["OPENAI_BASE_URL"]}
tracing:
  enabled: true
  adapters:
    - name: OpenTelemetry
"""

rails = LLMRails(RailsConfig.from_content(yaml_content=CONFIG))
answer = rails.generate(messages=[{"role": "user", "content": "hello"}])
print(answer.response[0]["content"])
