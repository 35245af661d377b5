"""
The attribute names that this package writes, each spelled once.

The GenAI conventions are in development; these are the names on their main branch in October 2026,
https://github.com/open-telemetry/semantic-conventions-genai/tree/6fd0d763.
They are literals because the constants of opentelemetry-semantic-conventions are deprecated and lack the newer names.
"""

from __future__ import annotations

# The call; the first five are set when the span starts, for samplers
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
OPENAI_API_TYPE = "openai.api.type"
ERROR_TYPE = "error.type"

# Its request
CHOICE_COUNT = "gen_ai.request.choice.count"
CONVERSATION_ID = "gen_ai.conversation.id"
EMBEDDING_DIMENSIONS = "gen_ai.embeddings.dimension.count"
ENCODING_FORMATS = "gen_ai.request.encoding_formats"
FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
MAX_TOKENS = "gen_ai.request.max_tokens"
OUTPUT_TYPE = "gen_ai.output.type"
PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
PREVIOUS_RESPONSE_ID = "gen_ai.request.previous_response.id"
PROMPT_NAME = "gen_ai.prompt.name"
PROMPT_VERSION = "gen_ai.prompt.version"
REASONING_LEVEL = "gen_ai.request.reasoning.level"
REQUEST_SERVICE_TIER = "openai.request.service_tier"
SEED = "gen_ai.request.seed"
STOP_SEQUENCES = "gen_ai.request.stop_sequences"
STREAM = "gen_ai.request.stream"
TEMPERATURE = "gen_ai.request.temperature"
TOP_P = "gen_ai.request.top_p"

# Its response
FINISH_REASONS = "gen_ai.response.finish_reasons"
RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_SERVICE_TIER = "openai.response.service_tier"
SYSTEM_FINGERPRINT = "openai.response.system_fingerprint"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"

# Its usage
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TEXT_INPUT_TOKENS = "gen_ai.usage.text.input_tokens"
IMAGE_INPUT_TOKENS = "gen_ai.usage.image.input_tokens"
AUDIO_INPUT_TOKENS = "gen_ai.usage.audio.input_tokens"
TEXT_OUTPUT_TOKENS = "gen_ai.usage.text.output_tokens"
IMAGE_OUTPUT_TOKENS = "gen_ai.usage.image.output_tokens"
AUDIO_OUTPUT_TOKENS = "gen_ai.usage.audio.output_tokens"

# What only the bill needs, defined by the exporter and kept off the public span
BILLING_PREFIX = "cmdrdata."
ENDPOINT = "cmdrdata.endpoint"
EVENT_ID = "cmdrdata.event.id"
USAGE_STATUS = "cmdrdata.usage_status"
RETRY_COUNT = "cmdrdata.request.retry_count"
ERROR_CODE = "cmdrdata.error.code"
CREATED = "cmdrdata.response.created"
EMBEDDING_COUNT = "cmdrdata.response.embedding_count"
REQUEST_ID = "cmdrdata.response.request_id"
TOTAL_TOKENS = "cmdrdata.usage.total_tokens"
ACCEPTED_PREDICTION_TOKENS = "cmdrdata.usage.accepted_prediction_tokens"
REJECTED_PREDICTION_TOKENS = "cmdrdata.usage.rejected_prediction_tokens"
