"""
Where events may go: the URL of an endpoint or a topic, the options of Kafka, and the proxy on the way.

As those of `setting_values` do, each function returns what is used, or says in a `ConfigurationError` what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from urllib3.util import parse_url

from cmdrdata_exporter.setting_values import ConfigurationError, check_text, is_loopback, text_of

DEFAULT_ENDPOINT = "https://api.cmdrdata.ai/api/events"


def endpoint_url(name: str, url: str) -> str:
    """Have the URL given that events are posted to."""
    if url.lower().startswith("kafka:"):
        return topic_url(name, url)
    expected = f"expected is the full https:// URL to POST events to, such as {DEFAULT_ENDPOINT}"
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ConfigurationError(f"{name} holds whitespace or control characters; {expected}")
    if "\\" in url:
        # Where the host ends before it is a matter of opinion among parsers.
        raise ConfigurationError(f"{name} holds a backslash; {expected}")
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port
        has_user = "@" in parts.netloc
        host = "" if has_user else _host(url)
    except ValueError as error:
        raise ConfigurationError(f"{name} is not a URL ({error}); {expected}") from None
    if has_user:
        raise ConfigurationError(
            f"{name} holds a user name or password; {expected}. The key belongs in CMDRDATA_API_KEY"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{name} is {url!r}; {expected}")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            f"{name} is {url!r}: http:// would send the key in the clear to {host}; use https:// "
            "(http:// is accepted for a loopback host only)"
        )
    return url


_TOPIC_URL = re.compile(r"kafka://(?P<servers>[^/\s@?#]+)/(?P<topic>[A-Za-z0-9._-]{1,249})")
_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")


def topic_url(name: str, url: str) -> str:
    """Have a topic of Kafka given that events are produced to."""
    expected = (
        "expected is kafka://HOST:PORT/TOPIC, with several hosts kafka://HOST:PORT,HOST:PORT/TOPIC"
    )
    if "@" in url:
        raise ConfigurationError(
            f"{name} holds a user name or password; {expected}. These belong in the file of CMDRDATA_KAFKA_OPTIONS"
        )
    found = _TOPIC_URL.fullmatch(url)
    servers = found["servers"].split(",") if found else []
    if not servers or not all(
        (port := _SERVER.fullmatch(server)) and 0 < int(port[1]) < 65536 for server in servers
    ):
        raise ConfigurationError(f"{name} is {url!r}; {expected}")
    if find_spec("confluent_kafka") is None:
        raise ConfigurationError(
            f"{name} is {url!r}, and confluent-kafka is not installed; "
            "run: pip install 'opentelemetry-instrumentation-cmdrdata[kafka]'"
        )
    return url


# Options of Kafka

_OURS = (
    "bootstrap.servers",
    "metadata.broker.list",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "message.timeout.ms",
    "delivery.timeout.ms",
    "transactional.id",
    "batch.num.messages",
)
"""Options that no event may be without, or that the endpoint says."""


def kafka_options(name: str, path: str) -> dict[str, str]:
    """
    Read a file of options of librdkafka: a line for each, `sasl.username=meter`; `#` begins a comment.

    https://github.com/confluentinc/librdkafka/blob/v2.10.0/CONFIGURATION.md

    Raises:
        ConfigurationError: it cannot be read, or has an option that must not be set.
    """
    expected = "expected is a file with a line for each option of librdkafka, NAME=VALUE"
    found: dict[str, str] = {}
    for number, line in enumerate(text_of(name, path, expected).splitlines(), 1):
        option, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or option.startswith("#"):
            continue
        if not equals or not re.fullmatch(r"[a-z0-9_.]+", option):
            raise ConfigurationError(f"{name}: line {number} of {path!r} is no option; {expected}")
        if option in _OURS:
            raise ConfigurationError(
                f"{name}: line {number} of {path!r} sets {option}, which is not for the user: "
                "the endpoint says the servers, and an event is delivered once all replicas in sync have it"
            )
        found[option] = value
    return found


def options_file(name: str, path: str) -> Path:
    """Have a file given that holds options of Kafka."""
    kafka_options(name, path)
    return Path(path)


def require_safe(name: str, options: Mapping[str, str], url: str) -> None:
    """
    Make sure that a password goes to no other host in the clear.

    Raises:
        ConfigurationError: it would.
    """
    protocol = options.get("security.protocol", "plaintext").lower()
    if protocol.endswith("ssl") or not any(option.startswith("sasl.") for option in options):
        return
    hosts = [server.rpartition(":")[0].strip("[]") for server in urlsplit(url).netloc.split(",")]
    if not all(map(is_loopback, hosts)):
        raise ConfigurationError(
            f"{name} names a user, and security.protocol={protocol} would send the password in the clear; "
            "expected is security.protocol=sasl_ssl"
        )


def _host(url: str) -> str:
    """Return the host that a request to `url` connects to, as the library reads it that connects."""
    return (parse_url(url).host or "").strip("[]")


def proxy_for(url: str, variables: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy that the environment asks for, as for any other client; never for a loopback host."""
    proxy = variables.get("https_proxy") or variables.get("HTTPS_PROXY")
    if not proxy or urlsplit(url).scheme != "https" or _is_direct(url, variables):
        return None
    check_text("HTTPS_PROXY", proxy)
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    expected = (
        "expected is the URL of an HTTP proxy, such as http://proxy.example:3128. "
        f"With {_host(url)} in NO_PROXY events take no proxy"
    )
    scheme = proxy.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        raise ConfigurationError(
            f"HTTPS_PROXY names a {scheme}:// proxy, which events cannot take; {expected}"
        )
    try:
        usable = bool(urlsplit(proxy).hostname and urlsplit(proxy).port != 0 and _host(proxy))
    except ValueError:
        usable = False
    if not usable:
        # Without its value, which may hold a password.
        raise ConfigurationError(f"HTTPS_PROXY is not a URL; {expected}")
    return proxy


def _is_direct(url: str, variables: Mapping[str, str]) -> bool:
    """Say whether `NO_PROXY` names the host of `url`, or a domain that it is in."""
    host = _host(url).lower()
    hosts = host, f"{host}:{urlsplit(url).port or 443}"
    names = (variables.get("no_proxy") or variables.get("NO_PROXY") or "").lower().split(",")
    return any(
        name == "*" or name in hosts or any(host.endswith(f".{name}") for host in hosts)
        for name in (name.strip().lstrip(".") for name in names)
        if name
    )
