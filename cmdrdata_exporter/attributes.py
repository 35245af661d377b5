"""
The attribute names that the exporter reads, each spelled once: our own instrumentation takes them from here.

`gen_ai.*` names are literals: the constants of opentelemetry-semantic-conventions are all deprecated, and lack the
newer names.
Where instrumentations spell one fact differently, a tuple lists the spellings, ours first.
The `cmdrdata.*` names belong to this package: set them on any span and it is billed accordingly.
"""

from __future__ import annotations

OUR_SCOPE = "opentelemetry_instrumentation_cmdrdata"
"""The instrumentation scope of our own spans, which are metered when their call ends and never again."""

OWN_PREFIX = "cmdrdata."

# Who pays
CUSTOMER_PREFIX = "cmdrdata.customer."
CUSTOMER_ID = CUSTOMER_PREFIX + "id"
CUSTOMER_REFUSED = CUSTOMER_PREFIX + "refused"
"""Why the customer that was named cannot be billed. Such a call has no customer, whatever the default is."""
CUSTOMER_REFUSED_VALUE = "cmdrdata.customer.refused_value"
"""What was named in its place, quoted where it is a text."""
METADATA_PREFIX = "cmdrdata.metadata."
"""`cmdrdata.metadata.<key>`: the user's own keys of the event's metadata."""

# What was called
OPERATION = "gen_ai.operation.name"
OPENINFERENCE_KIND = "openinference.span.kind"
OPENLLMETRY_REQUEST_TYPE = "llm.request.type"
OPENAI_API_TYPE = "openai.api.type"
CACHE_HIT = "litellm.cache_hit"
"""True where LiteLLM answered from its own cache, with the usage of the call that it remembers: no charge."""
ENDPOINT = "cmdrdata.endpoint"
"""`metadata.endpoint` of the event, such as `chat.completions`. A span that has it is billed whatever else it is."""

PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system")
REQUEST_MODEL = ("gen_ai.request.model", "llm.request.model_name")
RESPONSE_MODEL = (
    "gen_ai.response.model",
    "llm.response.model_name",
    "llm.model_name",
    "embedding.model_name",
)
RESPONSE_ID = ("gen_ai.response.id", "llm.response.id")
FINISH_REASONS = ("gen_ai.response.finish_reasons", "llm.finish_reason")
SERVICE_TIER = ("openai.response.service_tier", "gen_ai.openai.response.service_tier")
SERVER_ADDRESS = ("server.address",)
STREAMING = ("gen_ai.request.stream", "gen_ai.is_streaming", "llm.is_streaming")
TIME_TO_FIRST_CHUNK = ("gen_ai.response.time_to_first_chunk",)
"""Seconds."""

ERROR_TYPE = ("error.type",)
ERROR_CODE = "cmdrdata.error.code"
"""The HTTP status as a string where there was one, else the provider's code."""

# What was used: totals
INPUT_TOKENS = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
)
OUTPUT_TOKENS = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
)
TOTAL_TOKENS = (
    "cmdrdata.usage.total_tokens",
    "gen_ai.usage.total_tokens",
    "llm.token_count.total",
    "llm.usage.total_tokens",
)

# What was used: subsets of the totals, by their key in the event's `metadata.usage`
BREAKDOWNS = {
    "cache_read_input_tokens": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write_input_tokens": (
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning_output_tokens": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "text_input_tokens": ("gen_ai.usage.text.input_tokens",),
    "image_input_tokens": ("gen_ai.usage.image.input_tokens",),
    "audio_input_tokens": (
        "gen_ai.usage.audio.input_tokens",
        "llm.token_count.prompt_details.audio",
    ),
    "text_cache_read_input_tokens": ("gen_ai.usage.text.cache_read.input_tokens",),
    "image_cache_read_input_tokens": ("gen_ai.usage.image.cache_read.input_tokens",),
    "audio_cache_read_input_tokens": ("gen_ai.usage.audio.cache_read.input_tokens",),
    "text_output_tokens": ("gen_ai.usage.text.output_tokens",),
    "image_output_tokens": ("gen_ai.usage.image.output_tokens",),
    "audio_output_tokens": (
        "gen_ai.usage.audio.output_tokens",
        "llm.token_count.completion_details.audio",
    ),
}
USAGE_PREFIX = "cmdrdata.usage."
"""`cmdrdata.usage.<unit>`: every unit that has no name in the conventions, such as `images` or `characters`."""

# What only the bill needs
EVENT_ID = "cmdrdata.event.id"
EVENT_REMEMBER = "cmdrdata.event.remember"
"""Seconds in which an event of this id may come again, after its delivery too, and is the same one."""
USAGE_STATUS = "cmdrdata.usage_status"
RETRY_COUNT = "cmdrdata.request.retry_count"
DETAIL_PREFIX = "cmdrdata.detail."
"""`cmdrdata.detail.<key>`: a reserved key of the event's metadata, such as `created` or `voice`."""

FIELDS: dict[str, tuple[str, ...]] = {
    "provider": PROVIDER,
    "request_model": REQUEST_MODEL,
    "response_model": RESPONSE_MODEL,
    "response_id": RESPONSE_ID,
    "finish_reasons": FINISH_REASONS,
    "service_tier": SERVICE_TIER,
    "server_address": SERVER_ADDRESS,
    "streaming": STREAMING,
    "first_chunk": TIME_TO_FIRST_CHUNK,
    "error_type": ERROR_TYPE,
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "total_tokens": TOTAL_TOKENS,
    "customer": (CUSTOMER_ID,),
    "refused": (CUSTOMER_REFUSED,),
    "refused_value": (CUSTOMER_REFUSED_VALUE,),
    "error_code": (ERROR_CODE,),
    "event_id": (EVENT_ID,),
    "remember": (EVENT_REMEMBER,),
    "usage_status": (USAGE_STATUS,),
    "retry_count": (RETRY_COUNT,),
}
"""The facts of a call that have one value each, by what they are, with the attributes they are read from."""
