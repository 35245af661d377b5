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

USAGE_PREFIX = "gen_ai.usage."

# A response that is asked for again
RESPONSE_STATUS = "gen_ai.response.status"
STREAM_CURSOR = "gen_ai.request.stream_cursor"

# What the conventions have no name for, defined by the exporter: what the charge is about
BILLING_PREFIX = "cmdrdata."
ENDPOINT = "cmdrdata.endpoint"
EVENT_ID = "cmdrdata.event.id"
EVENT_REMEMBER = "cmdrdata.event.remember"
USAGE_STATUS = "cmdrdata.usage_status"
RETRY_COUNT = "cmdrdata.request.retry_count"
ERROR_CODE = "cmdrdata.error.code"
TRACKED = "cmdrdata.tracked"
ATTRIBUTION_PREFIXES = ("cmdrdata.customer.", "cmdrdata.metadata.")

# Units of usage
UNIT_PREFIX = "cmdrdata.usage."
TOTAL_TOKENS = "cmdrdata.usage.total_tokens"
ACCEPTED_PREDICTION_TOKENS = "cmdrdata.usage.accepted_prediction_tokens"
REJECTED_PREDICTION_TOKENS = "cmdrdata.usage.rejected_prediction_tokens"
AUDIO_SECONDS = "cmdrdata.usage.audio_seconds"
BATCH_REQUESTS = "cmdrdata.usage.batch_requests"
CHARACTERS = "cmdrdata.usage.characters"
CODE_INTERPRETER_CALLS = "cmdrdata.usage.code_interpreter_calls"
COUNTED = "cmdrdata.usage.counted"
FILE_SEARCH_CALLS = "cmdrdata.usage.file_search_calls"
IMAGES = "cmdrdata.usage.images"
IMAGE_GENERATION_CALLS = "cmdrdata.usage.image_generation_calls"
IMAGE_GENERATION_INPUT_TOKENS = "cmdrdata.usage.image_generation_input_tokens"
IMAGE_GENERATION_OUTPUT_TOKENS = "cmdrdata.usage.image_generation_output_tokens"
SVG_INPUT_TOKENS = "cmdrdata.usage.svg_input_tokens"
SVG_OUTPUT_TOKENS = "cmdrdata.usage.svg_output_tokens"
TRAINED_TOKENS = "cmdrdata.usage.trained_tokens"
VIDEO_SECONDS = "cmdrdata.usage.video_seconds"
WEB_SEARCH_CALLS = "cmdrdata.usage.web_search_calls"

# Details: each is a key of the event's metadata
DETAIL_PREFIX = "cmdrdata.detail."
ASSISTANT_ID = "cmdrdata.detail.assistant_id"
CREATED = "cmdrdata.detail.created"
EMBEDDING_COUNT = "cmdrdata.detail.embedding_count"
EVAL_ID = "cmdrdata.detail.eval_id"
FLAGGED = "cmdrdata.detail.flagged"
IMAGE_COUNT = "cmdrdata.detail.image_count"
JOB_ID = "cmdrdata.detail.job_id"
LANGUAGE = "cmdrdata.detail.language"
MODEL = "cmdrdata.detail.model"
QUALITY = "cmdrdata.detail.quality"
REQUEST_ID = "cmdrdata.detail.request_id"
RUN_ID = "cmdrdata.detail.run_id"
SIZE = "cmdrdata.detail.size"
STATUS = "cmdrdata.detail.status"
SVG_MODEL = "cmdrdata.detail.svg_model"
TEXT_LENGTH = "cmdrdata.detail.text_length"
THREAD_ID = "cmdrdata.detail.thread_id"
TRAINING_FILE = "cmdrdata.detail.training_file"
VALIDATION_FILE = "cmdrdata.detail.validation_file"
