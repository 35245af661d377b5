"""
The attribute names that this package writes.

Those that the exporter reads are spelled there, in `cmdrdata_exporter.attributes`, and only there: of several
spellings the first is ours. The others are spelled here.
The GenAI conventions are in development; these are the names on their main branch in October 2026,
https://github.com/open-telemetry/semantic-conventions-genai/tree/6fd0d763.
They are literals because the constants of opentelemetry-semantic-conventions are deprecated and lack the newer names.
"""

from __future__ import annotations

from cmdrdata_exporter import attributes as read

# The call; the first five are set when the span starts, for samplers
OPERATION = read.OPERATION
PROVIDER = read.PROVIDER[0]
REQUEST_MODEL = read.REQUEST_MODEL[0]
SERVER_ADDRESS = read.SERVER_ADDRESS[0]
SERVER_PORT = "server.port"
OPENAI_API_TYPE = read.OPENAI_API_TYPE
ERROR_TYPE = read.ERROR_TYPE[0]

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
STREAM = read.STREAMING[0]
TEMPERATURE = "gen_ai.request.temperature"
TOP_P = "gen_ai.request.top_p"

# Its response
FINISH_REASONS = read.FINISH_REASONS[0]
RESPONSE_ID = read.RESPONSE_ID[0]
RESPONSE_MODEL = read.RESPONSE_MODEL[0]
RESPONSE_SERVICE_TIER = read.SERVICE_TIER[0]
SYSTEM_FINGERPRINT = "openai.response.system_fingerprint"
TIME_TO_FIRST_CHUNK = read.TIME_TO_FIRST_CHUNK[0]

# Its content, which is recorded only where that is asked for
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
DETAILS_EVENT = "gen_ai.client.inference.operation.details"

# Its usage
INPUT_TOKENS = read.INPUT_TOKENS[0]
OUTPUT_TOKENS = read.OUTPUT_TOKENS[0]
CACHE_READ_TOKENS = read.BREAKDOWNS["cache_read_input_tokens"][0]
CACHE_WRITE_TOKENS = read.BREAKDOWNS["cache_write_input_tokens"][0]
REASONING_TOKENS = read.BREAKDOWNS["reasoning_output_tokens"][0]
TEXT_INPUT_TOKENS = read.BREAKDOWNS["text_input_tokens"][0]
IMAGE_INPUT_TOKENS = read.BREAKDOWNS["image_input_tokens"][0]
AUDIO_INPUT_TOKENS = read.BREAKDOWNS["audio_input_tokens"][0]
TEXT_CACHE_READ_TOKENS = read.BREAKDOWNS["text_cache_read_input_tokens"][0]
IMAGE_CACHE_READ_TOKENS = read.BREAKDOWNS["image_cache_read_input_tokens"][0]
AUDIO_CACHE_READ_TOKENS = read.BREAKDOWNS["audio_cache_read_input_tokens"][0]
TEXT_OUTPUT_TOKENS = read.BREAKDOWNS["text_output_tokens"][0]
IMAGE_OUTPUT_TOKENS = read.BREAKDOWNS["image_output_tokens"][0]
AUDIO_OUTPUT_TOKENS = read.BREAKDOWNS["audio_output_tokens"][0]

USAGE_PREFIX = "gen_ai.usage."

# On its metrics only
TOKEN_MODALITY = "gen_ai.token.modality"  # noqa: S105 - of the language model's
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - of the language model's

# Where in the application it is made
CODE_FILE_PATH = "code.file.path"
CODE_FUNCTION_NAME = "code.function.name"
CODE_LINE_NUMBER = "code.line.number"

# A response that is asked for again
RESPONSE_STATUS = "gen_ai.response.status"
STREAM_CURSOR = "gen_ai.request.stream_cursor"

# What the conventions have no name for, defined by the exporter: what the charge is about
BILLING_PREFIX = read.OWN_PREFIX
ENDPOINT = read.ENDPOINT
EVENT_ID = read.EVENT_ID
EVENT_REMEMBER = read.EVENT_REMEMBER
USAGE_STATUS = read.USAGE_STATUS
RETRY_COUNT = read.RETRY_COUNT
ERROR_CODE = read.ERROR_CODE
TRACKED = BILLING_PREFIX + "tracked"

# Units of usage
UNIT_PREFIX = read.USAGE_PREFIX
TOTAL_TOKENS = read.TOTAL_TOKENS[0]
ACCEPTED_PREDICTION_TOKENS = UNIT_PREFIX + "accepted_prediction_tokens"
REJECTED_PREDICTION_TOKENS = UNIT_PREFIX + "rejected_prediction_tokens"
ACTIVE_SECONDS = UNIT_PREFIX + "active_seconds"
AUDIO_SECONDS = UNIT_PREFIX + "audio_seconds"
BATCH_REQUESTS = UNIT_PREFIX + "batch_requests"
CHARACTERS = UNIT_PREFIX + "characters"
CODE_INTERPRETER_CALLS = UNIT_PREFIX + "code_interpreter_calls"
COUNTED = UNIT_PREFIX + "counted"
FILE_SEARCH_CALLS = UNIT_PREFIX + "file_search_calls"
IMAGES = UNIT_PREFIX + "images"
IMAGE_GENERATION_CALLS = UNIT_PREFIX + "image_generation_calls"
IMAGE_GENERATION_INPUT_TOKENS = UNIT_PREFIX + "image_generation_input_tokens"
IMAGE_GENERATION_OUTPUT_TOKENS = UNIT_PREFIX + "image_generation_output_tokens"
PROVISIONAL = UNIT_PREFIX + "provisional"
PAUSED_SECONDS = UNIT_PREFIX + "paused_seconds"
SESSION_SECONDS = UNIT_PREFIX + "session_seconds"
SVG_INPUT_TOKENS = UNIT_PREFIX + "svg_input_tokens"
SVG_OUTPUT_TOKENS = UNIT_PREFIX + "svg_output_tokens"
TRAINED_TOKENS = UNIT_PREFIX + "trained_tokens"
VIDEO_SECONDS = UNIT_PREFIX + "video_seconds"
WEB_SEARCH_CALLS = UNIT_PREFIX + "web_search_calls"

# Details: each is a key of the event's metadata
DETAIL_PREFIX = read.DETAIL_PREFIX
AGENT_ID = DETAIL_PREFIX + "agent_id"
ASSISTANT_ID = DETAIL_PREFIX + "assistant_id"
CALL_SITE = DETAIL_PREFIX + "call_site"
CREATED = DETAIL_PREFIX + "created"
EMBEDDING_COUNT = DETAIL_PREFIX + "embedding_count"
EVAL_ID = DETAIL_PREFIX + "eval_id"
FLAGGED = DETAIL_PREFIX + "flagged"
IMAGE_COUNT = DETAIL_PREFIX + "image_count"
ITEM_ID = DETAIL_PREFIX + "item_id"
JOB_ID = DETAIL_PREFIX + "job_id"
LANGUAGE = DETAIL_PREFIX + "language"
MODEL = DETAIL_PREFIX + "model"
OPENAI_KEY_HASH = DETAIL_PREFIX + "openai_key_hash"
OPENAI_ORGANIZATION = DETAIL_PREFIX + "openai_organization"
OPENAI_PROJECT = DETAIL_PREFIX + "openai_project"
QUALITY = DETAIL_PREFIX + "quality"
REQUEST_ID = DETAIL_PREFIX + "request_id"
RUN_ID = DETAIL_PREFIX + "run_id"
SESSION_ID = DETAIL_PREFIX + "session_id"
SIZE = DETAIL_PREFIX + "size"
STATUS = DETAIL_PREFIX + "status"
SVG_MODEL = DETAIL_PREFIX + "svg_model"
TEXT_LENGTH = DETAIL_PREFIX + "text_length"
THREAD_ID = DETAIL_PREFIX + "thread_id"
TURN_ID = DETAIL_PREFIX + "turn_id"
TRAINING_FILE = DETAIL_PREFIX + "training_file"
VALIDATION_FILE = DETAIL_PREFIX + "validation_file"
