"""
Every setting of this distribution: environment variables in, one frozen `Settings` out.

Nothing else reads the environment.
Each variable's name is a constant below, with what it means and what it accepts in the string after it.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmdrdata_exporter import setting_urls as urls
from cmdrdata_exporter import setting_values as values
from cmdrdata_exporter.delivery.backoff import LONGEST_PAUSE, PROBE_INTERVAL
from cmdrdata_exporter.delivery.destination import KAFKA, Destination
from cmdrdata_exporter.setting_urls import DEFAULT_ENDPOINT
from cmdrdata_exporter.setting_values import ConfigurationError, check_text

CMDRDATA_API_KEY = "CMDRDATA_API_KEY"
"""The CmdrData key: 20 to 500 characters without whitespace or control characters, commonly `tk-…`."""

CMDRDATA_API_KEY_FILE = "CMDRDATA_API_KEY_FILE"
"""A file that holds the key, read again after the backend refused it. Not together with `CMDRDATA_API_KEY`."""

CMDRDATA_ENDPOINT = "CMDRDATA_ENDPOINT"
"""
The full URL to POST events to, `http://` for a loopback host only, or a topic of Kafka, `kafka://HOST:PORT/TOPIC`.
Default, with a key: CmdrData's own.
"""

CMDRDATA_ACCOUNT = "CMDRDATA_ACCOUNT"
"""A name for the account behind the key, so that a rotated key finds its events again. Default: `default`."""

CMDRDATA_ENABLED = "CMDRDATA_ENABLED"
"""
`true` (or `1`) or `false` (or `0`). `false` turns metering off: spans are made, no usage event is, and what only events
need, key and endpoint for instance, is not looked at. Default: `true`.
"""

CMDRDATA_CUSTOMER_ID = "CMDRDATA_CUSTOMER_ID"
"""The customer of every call that names none. Default: none, such calls are unattributed."""

CMDRDATA_CUSTOMER_FROM = "CMDRDATA_CUSTOMER_FROM"
"""
`baggage:<key>` takes the customer from the OpenTelemetry Baggage where the code sets none. Default: off, since Baggage
comes with incoming requests: whoever calls the application may name any customer.
"""

CMDRDATA_UNATTRIBUTED = "CMDRDATA_UNATTRIBUTED"
"""`hold` keeps events without a customer, `send` posts them with `customer_id: null`. Default: `hold`."""

CMDRDATA_AMBIGUOUS = "CMDRDATA_AMBIGUOUS"
"""
What becomes of an event that the backend may have accepted unseen, because the answer was lost: `retry` sends it again
under the same key, `hold` keeps it until someone decides. Default: `retry`.
"""

CMDRDATA_SPOOL_DIR = "CMDRDATA_SPOOL_DIR"
"""
Where events are kept until they are delivered: a directory on a local disk that belongs to this user. Default:
`$XDG_STATE_HOME/cmdrdata`, else `~/.local/state/cmdrdata`.
"""

CMDRDATA_DURABILITY = "CMDRDATA_DURABILITY"
"""
What a call waits for: `process` keeps its event when the process dies, and all but those of the last quarter of a
second when the host does; `fsync` keeps it in both cases, for the time that the disk takes. Default: `process`.
"""

CMDRDATA_DRAIN = "CMDRDATA_DRAIN"
"""
Who delivers: `thread`, a thread of the application, if no other process does; `none`, never the application, whose
events wait for a process that runs `cmdrdata drain`. Default: `thread`.
"""

CMDRDATA_PROBE_INTERVAL = "CMDRDATA_PROBE_INTERVAL"
"""
Seconds until a backend that refuses the key is asked again; each further time it is asked later, up to five minutes.
1 to 300. Default: 60.
"""

CMDRDATA_TOTALS_BY_DAY_FOR = "CMDRDATA_TOTALS_BY_DAY_FOR"
"""
For how many days usage totals are kept by the day; once all days of a month are older, the month has one total.
31 to 36500. Default: 92.
"""

CMDRDATA_KAFKA_OPTIONS = "CMDRDATA_KAFKA_OPTIONS"
"""
A file of librdkafka's options, `NAME=VALUE` on a line each, where events go to a topic of Kafka: TLS and who the
producer is, for instance. It is read again after a refusal.
"""

CMDRDATA_TOTAL_BY = "CMDRDATA_TOTAL_BY"
"""
Metadata keys of yours by which usage is summed, too: up to 8 names with commas between them, such as `plan,team`. Each
may have 1,000 values, others count as `(other)`. Default: none.
"""

CMDRDATA_INDEX_EVENTS = "CMDRDATA_INDEX_EVENTS"
"""
How many events of the last 30 days `cmdrdata events` finds that have been delivered; each takes about 250 bytes.
0 to 100000000; 0 keeps no index. Default: 1000000.
"""

CMDRDATA_STREAM_USAGE = "CMDRDATA_STREAM_USAGE"
"""
Whether streamed chats and completions are asked to tell their usage (`stream_options.include_usage`), where the
application does not say: `auto` where the host is known to understand it, `always`, or `never`. Default: `auto`.
"""

CMDRDATA_METRICS_CUSTOMER = "CMDRDATA_METRICS_CUSTOMER"
"""
`true` (or `1`) puts the customer on the metric of the tokens, `false` (or `0`) does not: each customer makes time
series of its own. Default: `false`.
"""

CMDRDATA_CALL_SITE = "CMDRDATA_CALL_SITE"
"""
Whether `metadata.call_site` says which line of the application made a call: `unattributed` of calls without a customer,
`true` (or `1`) of all, and on their spans too, `false` (or `0`) of none. Default: `unattributed`.
"""

CMDRDATA_LEDGER = "CMDRDATA_LEDGER"
"""
The ledger of a fleet that the commands ask instead of this host's, `postgresql://USER@HOST:PORT/DATABASE`.
"""

CMDRDATA_CONTENT_MAX_LENGTH = "CMDRDATA_CONTENT_MAX_LENGTH"
"""
How many characters of one part of a message are recorded, where content is. 1 to 100000000.
Default: 16384.
"""

CMDRDATA_CONTENT_MAX_TOTAL = "CMDRDATA_CONTENT_MAX_TOTAL"
"""
How many characters of all messages of one call are recorded, where content is. 1 to 100000000. Default: 131072.
"""

CAPTURE_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""
Whether prompts and completions are recorded, by the GenAI conventions: `NO_CONTENT`, `SPAN_ONLY`, `EVENT_ONLY` or
`SPAN_AND_EVENT`. Default: `NO_CONTENT`, also for a value that is none of these, which is logged.
"""

NAMES = tuple(name for name in list(globals()) if name.startswith("CMDRDATA_"))
"""Every variable: the constants above."""

OF_COMMANDS = frozenset({"CMDRDATA_GATEWAY_TOKEN", "CMDRDATA_LEDGER"})
"""Variables that commands read, in the place of options, and no application does."""

_FORMER = {
    "CMDRDATA_URL": f"{CMDRDATA_ENDPOINT}, which takes the full URL to POST events to",
}
"""What names that others had for a setting are called here."""
_OF_KUBERNETES = re.compile(r"\w*_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_\d+_\w+)")
"""What Kubernetes sets in each container for a service that is called `cmdrdata`."""

_ALWAYS: dict[str, Callable[[str, str], Any]] = {
    CMDRDATA_ENABLED: values.switch("true", "1", "false", "0"),
    CMDRDATA_STREAM_USAGE: values.choice("auto", "always", "never"),
    CMDRDATA_CUSTOMER_FROM: values.baggage_key,
    CMDRDATA_METRICS_CUSTOMER: values.switch("false", "0", "true", "1"),
    CMDRDATA_CALL_SITE: values.choice("unattributed", "true", "1", "false", "0"),
    CMDRDATA_CONTENT_MAX_LENGTH: values.whole(1, 100_000_000, "characters"),
    CMDRDATA_CONTENT_MAX_TOTAL: values.whole(1, 100_000_000, "characters"),
}
_OF_EVENTS: dict[str, Callable[[str, str], Any]] = {
    CMDRDATA_API_KEY: values.key_text,
    CMDRDATA_API_KEY_FILE: values.key_file,
    CMDRDATA_ENDPOINT: urls.endpoint_url,
    CMDRDATA_ACCOUNT: values.identifier,
    CMDRDATA_CUSTOMER_ID: values.identifier,
    CMDRDATA_SPOOL_DIR: values.directory,
    CMDRDATA_UNATTRIBUTED: values.choice("hold", "send"),
    CMDRDATA_AMBIGUOUS: values.choice("retry", "hold"),
    CMDRDATA_DURABILITY: values.choice("process", "fsync"),
    CMDRDATA_DRAIN: values.choice("thread", "none"),
    CMDRDATA_PROBE_INTERVAL: values.seconds(1.0, LONGEST_PAUSE),
    CMDRDATA_TOTALS_BY_DAY_FOR: values.whole(31, 36500, "days"),
    CMDRDATA_KAFKA_OPTIONS: urls.options_file,
    CMDRDATA_TOTAL_BY: values.metadata_keys,
    CMDRDATA_INDEX_EVENTS: values.whole(0, 100_000_000, "events"),
}
"""
What makes of each setting's text what is used, or refuses it; the second ones only where metering is on.

A setting's field in `Settings`, which has its default, and its argument have its name without the beginning.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What one exporter was configured with, checked. Made by `Settings.read`."""

    api_key: str | None = field(default=None, repr=False)
    api_key_file: Path | None = None
    endpoint: str | None = None
    """Where events are posted, or the topic of Kafka; None is the destination `local`."""
    proxy: str | None = field(default=None, repr=False)
    """The URL of the HTTP proxy that the environment asks for, with the password it may have."""
    account: str = "default"
    enabled: bool = True
    customer_id: str | None = None
    unattributed: str = "hold"
    ambiguous: str = "retry"
    spool_dir: Path | None = None
    """Where the directories of all destinations are; None where metering is switched off."""
    durability: str = "process"
    drain: str = "thread"
    probe_interval: float = PROBE_INTERVAL
    totals_by_day_for: int = 92
    kafka_options: Path | None = None
    total_by: tuple[str, ...] = ()
    """The user's metadata keys by which usage is summed."""
    index_events: int = 1_000_000
    """How many events the index of a destination has, at most; 0: there is none."""
    stream_usage: str = "auto"
    metrics_customer: bool = False
    """Whether the metric of the tokens tells the customer."""
    call_site: str = "unattributed"
    """Of which calls it is told where in the application they are made: `unattributed`, `true` or `false`."""
    content: str = "NO_CONTENT"
    """Whether content is recorded, as the environment says it, in upper case: perhaps by no name that there is."""
    content_max_length: int = 16384
    content_max_total: int = 131072
    baggage_key: str | None = None
    """Where in the Baggage the customer is, if it is to be taken from there."""

    @property
    def target(self) -> Destination:
        """Where events go."""
        return Destination(self.endpoint, self.account)

    @property
    def destination(self) -> str:
        """A name of the destination for logs: `local`, or account and endpoint without any query."""
        return str(self.target)

    def read_key(self) -> str | None:
        """
        Return the key to send, read anew where it comes from a file.

        Raises:
            ConfigurationError: the file cannot be read or holds no usable key.
        """
        if self.api_key_file is None:
            return self.api_key
        return values.key_in_file(CMDRDATA_API_KEY_FILE, str(self.api_key_file))

    def read_kafka_options(self) -> dict[str, str]:
        """
        Return the options of Kafka to use, read anew.

        Raises:
            ConfigurationError: the file cannot be read, or has what must not be set.
        """
        if self.kafka_options is None:
            return {}
        options = urls.kafka_options(CMDRDATA_KAFKA_OPTIONS, str(self.kafka_options))
        urls.require_safe(CMDRDATA_KAFKA_OPTIONS, options, self.endpoint or "")
        return options

    @classmethod
    def of_content(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """
        Return what the environment says of content, and nothing of events, which are metered by settings of their own.

        Raises:
            ConfigurationError: a setting cannot be used.
        """
        variables = os.environ if environ is None else environ
        return cls.read({**variables, CMDRDATA_ENABLED: "false"})

    @classmethod
    def read(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        api_key: str | None = None,
        endpoint: str | None = None,
        account: str | None = None,
        customer_id: str | None = None,
        unattributed: str | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
    ) -> Settings:
        """
        Read the settings from `environ` (default: the process's environment); arguments prevail.

        An empty variable counts as unset, as everywhere in OpenTelemetry.

        Raises:
            ConfigurationError: a setting cannot be used.
        """
        variables = dict(os.environ if environ is None else environ)
        arguments = {
            "api_key": api_key,
            "endpoint": endpoint,
            "account": account,
            "customer_id": customer_id,
            "unattributed": unattributed,
            "spool_dir": os.fspath(spool_dir) if isinstance(spool_dir, os.PathLike) else spool_dir,
        }
        found = _read(_ALWAYS, variables, {})
        found["baggage_key"] = found.pop("customer_from", None)
        found["content"] = (variables.get(CAPTURE_CONTENT, "").strip() or "NO_CONTENT").upper()
        if not found.get("enabled", True):
            return cls(**found)
        if api_key is not None:
            variables.pop(CMDRDATA_API_KEY_FILE, None)
        elif all(
            variables.get(name, "").strip() for name in (CMDRDATA_API_KEY, CMDRDATA_API_KEY_FILE)
        ):
            raise ConfigurationError(
                f"{CMDRDATA_API_KEY} and {CMDRDATA_API_KEY_FILE} are both set; "
                "one key is expected: unset one of them"
            )
        found |= _read(_OF_EVENTS, variables, arguments)
        if "api_key" in found or "api_key_file" in found:
            found.setdefault("endpoint", DEFAULT_ENDPOINT)
        if api_key is not None:
            # A key passed in code without a name: two such keys are two accounts.
            found.setdefault("account", hashlib.sha256(api_key.encode()).hexdigest()[:12])
        if "spool_dir" not in found:
            default = values.default_spool(variables)
            found["spool_dir"] = values.written_place("the default spool directory", default)
        if "endpoint" in found:
            found["proxy"] = urls.proxy_for(found["endpoint"], variables)
        settings = cls(**found)
        if settings.target.kind == KAFKA:
            settings.read_kafka_options()
        return settings


def _field(variable: str) -> str:
    return variable.removeprefix("CMDRDATA_").lower()


def _read(
    rows: Mapping[str, Callable[[str, str], Any]],
    variables: Mapping[str, str],
    arguments: Mapping[str, object],
) -> dict[str, Any]:
    """Return what was given of some settings, by their fields."""
    found: dict[str, Any] = {}
    for variable, parse in rows.items():
        argument = arguments.get(_field(variable))
        # The name under which its user knows it.
        name = variable if argument is None else _field(variable)
        value = variables.get(variable, "") if argument is None else argument
        if not isinstance(value, str):
            raise ConfigurationError(
                f"{name} is of type {type(value).__name__}; a string is expected"
            )
        if value.strip() or argument is not None:
            check_text(name, value)
            found[_field(variable)] = parse(name, value)
    return found


def spool_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return where the directories of all destinations are, whatever the other settings say."""
    variables = os.environ if environ is None else environ
    given = variables.get(CMDRDATA_SPOOL_DIR, "")
    return Path(given) if given.strip() else values.default_spool(variables)


def applications_drain(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether the applications of this environment deliver themselves, whatever the other settings say."""
    variables = os.environ if environ is None else environ
    return variables.get(CMDRDATA_DRAIN, "").strip().lower() != "none"


def asks_for_latest_genai(environ: Mapping[str, str] | None = None) -> bool:
    """
    Return whether the environment asks for the latest names of the GenAI conventions, by OpenTelemetry's own variable.

    It is a list of what is asked for, separated by commas. GenAI has no value for the old and the new names at once.
    https://github.com/open-telemetry/opentelemetry-python-contrib/blob/v0.60b0/opentelemetry-instrumentation/src/opentelemetry/instrumentation/_semconv.py
    """
    variables = os.environ if environ is None else environ
    asked = variables.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
    return "gen_ai_latest_experimental" in (token.strip() for token in asked)


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a message for each variable that is meant for us by its name and is no setting: it is misspelt, or old."""
    variables = os.environ if environ is None else environ
    return [
        f"{name} is no setting and has no effect; {_meant(name)}"
        for name, value in sorted(variables.items())
        if name not in NAMES
        and name not in OF_COMMANDS
        and re.sub(r"[\W_]", "", name).upper().startswith("CMDRDATA")
        and value.strip()
        and not _OF_KUBERNETES.fullmatch(name)
    ]


def _meant(name: str) -> str:
    """Say which setting a name may stand for."""
    upper = name.upper()
    if upper in _FORMER:
        return f"here it is called {_FORMER[upper]}"
    # Compared without underscores, which are what is misplaced most often.
    names = {_letters(known): known for known in NAMES}
    [nearest] = difflib.get_close_matches(_letters(name), names, 1, 0.75) or [None]
    if nearest is None:
        return f"the settings are {', '.join(NAMES)}"
    return f"did you mean {names[nearest]}?"


def _letters(name: str) -> str:
    """Return what tells one setting from the others."""
    return re.sub(r"[\W_]", "", name).upper().removeprefix("CMDRDATA")
