"""Which provider answers behind the SDK, by the host it talks to."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple


class Server(NamedTuple):
    """What a client's base URL says about the server."""

    provider: str
    address: str
    port: int


@functools.lru_cache(maxsize=256)
def provider_of(host: str) -> str:
    """
    Return `gen_ai.provider.name` for a host.

    A host that is not listed is `openai`, the protocol it speaks; `server.address` tells the difference.
    """
    for provider, hosts in _PROVIDERS:
        if hosts.fullmatch(host):
            return provider
    return "openai"


_PROVIDERS = tuple(
    (provider, re.compile(hosts))
    for provider, hosts in (
        ("azure.ai.openai", r".+\.(openai|cognitiveservices|services\.ai)\.azure\.com"),
        (
            "aws.bedrock",
            r"bedrock-(runtime|mantle)\..*(amazonaws\.com|amazonaws\.com\.cn|amazonaws\.eu|api\.aws)",
        ),
        ("gcp.gemini", r"generativelanguage\.googleapis\.com"),
        ("gcp.vertex_ai", r".*aiplatform\.googleapis\.com"),
        ("groq", r"api\.groq\.com"),
        ("deepseek", r"api\.deepseek\.com"),
        ("mistral_ai", r"api\.mistral\.ai"),
        ("x_ai", r"api\.x\.ai"),
        ("perplexity", r"api\.perplexity\.ai"),
    )
)
