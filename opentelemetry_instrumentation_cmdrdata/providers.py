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


class _Host(NamedTuple):
    """Hosts of one provider."""

    provider: str
    hosts: re.Pattern[str]
    usage_since: str | None = None
    """
    The first `api-version` whose streams tell their usage if asked (`stream_options.include_usage`). Empty: all of them
    do. None: it is not known, and they are not asked unless `CMDRDATA_STREAM_USAGE` says so.
    """


_HOSTS = tuple(
    _Host(provider, re.compile(hosts), *usage_since)
    for provider, hosts, *usage_since in (
        ("openai", r"(.+\.)?api\.openai\.com", ""),
        # The public cloud, and those of the US government and of China.
        (
            "azure.ai.openai",
            r".+\.(openai|cognitiveservices|services\.ai)\.azure\.(com|us|cn)",
            "2024-09-01",
        ),
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
_AZURE = next(row for row in _HOSTS if row.provider == "azure.ai.openai")
_OTHER = _Host("openai", re.compile(""))
"""A host that is not listed is called by the protocol it speaks; `server.address` tells the difference."""


@functools.lru_cache(maxsize=256)
def _row(host: str, azure: bool) -> _Host:
    if azure:
        return _AZURE
    return next((row for row in _HOSTS if row.hosts.fullmatch(host)), _OTHER)


def provider_of(host: str, *, azure: bool = False) -> str:
    """
    Return `gen_ai.provider.name` for a host.

    Args:
        host: the server's name.
        azure: whether the client is one for Azure, whose host may be anybody's gateway.
    """
    return _row(host, azure).provider


def tells_stream_usage(
    host: str, path: str, api_version: str | None, *, azure: bool = False
) -> bool:
    """
    Say whether a server is known to understand `stream_options.include_usage`.

    Azure's `/openai/v1` has no dated versions and always did.

    Args:
        host: the server's name.
        path: of the client's base URL.
        api_version: the `api-version` that the client sends.
        azure: whether the client is one for Azure.
    """
    since = _row(host, azure).usage_since
    if not since:
        return since is not None
    return path.rstrip("/").endswith("/openai/v1") or (api_version or "")[:10] >= since
