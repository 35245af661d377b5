"""Which provider answers behind the SDK, by the host it talks to."""

from __future__ import annotations

import functools
import re
from fnmatch import translate
from typing import NamedTuple


class Server(NamedTuple):
    """What a client's base URL says about the server."""

    provider: str
    address: str
    port: int


class Hosts(NamedTuple):
    """Hosts of one provider."""

    provider: str
    names: tuple[str, ...]
    """`*` is any part of a name."""
    usage_since: str | None = None
    """
    The first `api-version` whose streams tell their usage if asked (`stream_options.include_usage`). Empty: all of them
    do. None: it is not known, and they are not asked unless `CMDRDATA_STREAM_USAGE` says so.
    """


OPENAI = "openai"
"""OpenAI itself, and whoever else speaks its protocol at a host that is not listed."""
_AZURE = Hosts(
    "azure.ai.openai",
    tuple(
        f"*.{service}.azure.{cloud}"
        for service in ("openai", "cognitiveservices", "services.ai")
        # The public one, and those of the US government and of China.
        for cloud in ("com", "us", "cn")
    ),
    "2024-09-01",
)
HOSTS = (
    Hosts(OPENAI, ("api.openai.com", "*.api.openai.com"), ""),
    _AZURE,
    Hosts(
        "aws.bedrock",
        tuple(
            f"bedrock-{service}.*.{domain}"
            for service in ("runtime", "mantle")
            for domain in ("amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "api.aws")
        ),
    ),
    Hosts("gcp.gemini", ("generativelanguage.googleapis.com",)),
    Hosts("gcp.vertex_ai", ("aiplatform.googleapis.com", "*-aiplatform.googleapis.com")),
    Hosts("groq", ("api.groq.com",)),
    Hosts("deepseek", ("api.deepseek.com",)),
    Hosts("mistral_ai", ("api.mistral.ai",)),
    Hosts("x_ai", ("api.x.ai",)),
    Hosts("perplexity", ("api.perplexity.ai",)),
)
"""The hosts that we know; docs/metering.md has the same table."""

_OTHER = Hosts(OPENAI, ())
"""A host that is not listed is called by the protocol it speaks; `server.address` tells the difference."""
_PATTERNS = tuple((re.compile("|".join(map(translate, row.names))), row) for row in HOSTS)


@functools.lru_cache(maxsize=256)
def _row(host: str, azure: bool) -> Hosts:
    if azure:
        return _AZURE
    return next((row for pattern, row in _PATTERNS if pattern.fullmatch(host)), _OTHER)


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

    Azure's `/openai/v1` has no dated versions and always did. Of what its `/models` understands nothing is known.

    Args:
        host: the server's name.
        path: of the client's base URL.
        api_version: the `api-version` that the client sends.
        azure: whether the client is one for Azure.
    """
    since = _row(host, azure).usage_since
    if not since:
        return since is not None
    path, version = path.rstrip("/"), api_version or ""
    dated = version.startswith("20") and version[:10] >= since
    return path.endswith("/openai/v1") or (dated and not path.endswith("/models"))
