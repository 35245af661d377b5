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


def tells_stream_usage(host: str, path: str, api_version: str | None) -> bool:
    """
    Say whether a server is known to understand `stream_options.include_usage`.

    Azure does since the version of 2024-09-01; its `/openai/v1` has no dated versions and always did.

    Args:
        host: the server's name.
        path: of the client's base URL.
        api_version: the `api-version` that the client sends.
    """
    if host == "api.openai.com" or host.endswith(".api.openai.com"):
        return True
    if host.endswith(".openai.azure.com"):
        undated = path.rstrip("/").endswith("/openai/v1")
        return undated or (api_version or "")[:10] >= "2024-09-01"
    return False


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
