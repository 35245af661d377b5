"""
Every setting of this distribution: environment variables in, one frozen `Settings` out.

Nothing else reads the environment.
Each variable's name is a constant below, with what it means and what it accepts in the string after it.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from urllib3.util import parse_url

from cmdrdata_exporter.delivery.backoff import LONGEST_PAUSE, PROBE_INTERVAL
from cmdrdata_exporter.delivery.destination import Destination
from cmdrdata_exporter.ids import complaint
from cmdrdata_exporter.scrubbing import issuer

CMDRDATA_API_KEY = "CMDRDATA_API_KEY"
"""The CmdrData key: 20 to 500 characters without whitespace or control characters, commonly `tk-…`."""

CMDRDATA_API_KEY_FILE = "CMDRDATA_API_KEY_FILE"
"""A file that holds the key, read again after the backend refused it. Not together with `CMDRDATA_API_KEY`."""

CMDRDATA_ENDPOINT = "CMDRDATA_ENDPOINT"
"""The full URL to POST events to, `http://` for a loopback host only. Default, with a key: CmdrData's own."""

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

_FORMER = {
    "CMDRDATA_URL": f"{CMDRDATA_ENDPOINT}, which takes the full URL to POST events to",
}
"""What names that others had for a setting are called here."""
_OF_KUBERNETES = re.compile(r"\w*_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_\d+_\w+)")
"""What Kubernetes sets in each container for a service that is called `cmdrdata`."""

DEFAULT_ENDPOINT = "https://api.cmdrdata.ai/api/events"

_DRAIN = ("thread", "none")
_SWITCH = {"true": True, "1": True, "false": False, "0": False}


class ConfigurationError(ValueError):
    """
    A setting that cannot be used.

    The message names the setting, says what is wrong with it, what is expected and how to mend it.
    It never holds a key.
    """


@dataclass(frozen=True, slots=True)
class Settings:
    """What one exporter was configured with, checked. Made by `Settings.read`."""

    api_key: str | None = field(default=None, repr=False)
    api_key_file: Path | None = None
    endpoint: str | None = None
    """Where events are posted; None is the destination `local`."""
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
        return _read_key_file(CMDRDATA_API_KEY_FILE, str(self.api_key_file))

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
        variables = os.environ if environ is None else environ

        def given(name: str, argument: object = None) -> tuple[str, str | None]:
            """The value to use, and the name under which its user knows it."""
            value: object = argument
            if argument is None:
                variable = variables.get(name, "")
                value = variable if variable.strip() else None
            else:
                name = name.removeprefix("CMDRDATA_").lower()
            if value is None:
                return name, None
            if not isinstance(value, str):
                raise ConfigurationError(
                    f"{name} is of type {type(value).__name__}; a string is expected"
                )
            check_text(name, value)
            return name, value

        stream_usage = _choice(given(CMDRDATA_STREAM_USAGE), ("auto", "always", "never"))
        baggage_key = _baggage_key(given(CMDRDATA_CUSTOMER_FROM))
        metrics_customer = _SWITCH[
            _choice(given(CMDRDATA_METRICS_CUSTOMER), ("false", "0", "true", "1"))
        ]
        call_site = _choice(given(CMDRDATA_CALL_SITE), ("unattributed", *_SWITCH))
        if call_site in _SWITCH:
            call_site = str(_SWITCH[call_site]).lower()
        content = (variables.get(CAPTURE_CONTENT, "").strip() or "NO_CONTENT").upper()
        max_length = _characters(given(CMDRDATA_CONTENT_MAX_LENGTH), 16384)
        max_total = _characters(given(CMDRDATA_CONTENT_MAX_TOTAL), 131072)
        if not _SWITCH[_choice(given(CMDRDATA_ENABLED), tuple(_SWITCH))]:
            return cls(
                enabled=False,
                stream_usage=stream_usage,
                metrics_customer=metrics_customer,
                call_site=call_site,
                content=content,
                content_max_length=max_length,
                content_max_total=max_total,
                baggage_key=baggage_key,
            )

        key_name, key = given(CMDRDATA_API_KEY, api_key)
        if api_key is None and key is not None:
            key = key.strip()  # A secret mounted into the environment often ends in a newline.
        _, key_file = given(CMDRDATA_API_KEY_FILE)
        if api_key is not None:
            key_file = None
        if key is not None and key_file is not None:
            raise ConfigurationError(
                f"{CMDRDATA_API_KEY} and {CMDRDATA_API_KEY_FILE} are both set; "
                "one key is expected: unset one of them"
            )
        if key is not None:
            _check_key(key_name, key)
        if key_file is not None:
            _read_key_file(CMDRDATA_API_KEY_FILE, key_file)

        url_name, url = given(CMDRDATA_ENDPOINT, endpoint)
        if url is not None:
            _check_endpoint(url_name, url)
        elif key is not None or key_file is not None:
            url = DEFAULT_ENDPOINT

        account_name, account = given(CMDRDATA_ACCOUNT, account)
        if account is not None:
            _check_id(account_name, account)
        elif api_key is not None:
            # A key passed in code without a name: two such keys are two accounts.
            account = hashlib.sha256(api_key.encode()).hexdigest()[:12]

        # Byte for byte, as every customer id.
        customer_name, customer = given(CMDRDATA_CUSTOMER_ID, customer_id)
        if customer is not None:
            _check_id(customer_name, customer)

        if isinstance(spool_dir, os.PathLike):
            spool_dir = os.fspath(spool_dir)
        spool_name, spool = given(CMDRDATA_SPOOL_DIR, spool_dir)
        if spool is not None and (not spool.strip() or "\0" in spool):
            raise ConfigurationError(
                f"{spool_name} is {spool!r}; expected is the path of a directory on a local disk"
            )
        spool_path = _default_spool(variables) if spool is None else _absolute(spool_name, spool)
        _check_place("the default spool directory" if spool is None else spool_name, spool_path)
        return cls(
            api_key=key,
            api_key_file=None if key_file is None else Path(key_file),
            endpoint=url,
            proxy=None if url is None else _proxy(url, variables),
            account=account or "default",
            customer_id=customer,
            unattributed=_choice(given(CMDRDATA_UNATTRIBUTED, unattributed), ("hold", "send")),
            ambiguous=_choice(given(CMDRDATA_AMBIGUOUS), ("retry", "hold")),
            spool_dir=spool_path,
            durability=_choice(given(CMDRDATA_DURABILITY), ("process", "fsync")),
            drain=_choice(given(CMDRDATA_DRAIN), _DRAIN),
            probe_interval=_seconds(
                given(CMDRDATA_PROBE_INTERVAL), PROBE_INTERVAL, 1.0, LONGEST_PAUSE
            ),
            totals_by_day_for=_days(given(CMDRDATA_TOTALS_BY_DAY_FOR), 92, 31, 36500),
            stream_usage=stream_usage,
            metrics_customer=metrics_customer,
            call_site=call_site,
            content=content,
            content_max_length=max_length,
            content_max_total=max_total,
            baggage_key=baggage_key,
        )


def spool_directory(environ: Mapping[str, str] | None = None) -> Path:
    """Return where the directories of all destinations are, whatever the other settings say."""
    variables = os.environ if environ is None else environ
    given = variables.get(CMDRDATA_SPOOL_DIR, "")
    return Path(given) if given.strip() else _default_spool(variables)


def applications_drain(environ: Mapping[str, str] | None = None) -> bool:
    """Return whether the applications of this environment deliver themselves, whatever the other settings say."""
    variables = os.environ if environ is None else environ
    return variables.get(CMDRDATA_DRAIN, "").strip().lower() != "none"


def unknown_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return a message for each variable that is meant for us by its name and is no setting: it is misspelt, or old."""
    variables = os.environ if environ is None else environ
    return [
        f"{name} is no setting and has no effect; {_meant(name)}"
        for name, value in sorted(variables.items())
        if name not in NAMES
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


def check_text(name: str, value: str) -> None:
    """
    Make sure that a setting can be written down, as a path or in a request.

    Raises:
        ConfigurationError: it holds bytes that are no UTF-8, which Python reads as surrogates. The value is not shown.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(
            f"{name} holds bytes that are not UTF-8; expected is text in UTF-8"
        ) from None


def is_loopback(host: str) -> bool:
    """Say whether `host` (a name or an address, without brackets) can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _choice(setting: tuple[str, str | None], choices: tuple[str, ...]) -> str:
    """Return the choice that was made, the first one where none was."""
    name, value = setting
    if value is None:
        return choices[0]
    choice = value.strip().lower()
    if choice not in choices:
        raise ConfigurationError(f"{name} is {value!r}; expected one of: {', '.join(choices)}")
    return choice


def _seconds(setting: tuple[str, str | None], default: float, least: float, most: float) -> float:
    name, value = setting
    if value is None:
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not least <= seconds <= most:
        raise ConfigurationError(
            f"{name} is {value!r}; expected is a number of seconds from {least:.0f} to {most:.0f}"
        )
    return seconds


def _absolute(name: str, path: str) -> Path:
    """Return a path that stays the same where the program changes its working directory."""
    # A home directory is named by its user, wherever the program is.
    if path.startswith("~"):
        return Path(path)
    try:
        return Path(path).absolute()
    except OSError as error:
        raise ConfigurationError(
            f"{name} is {path!r}, which cannot be made absolute: the working directory cannot be read "
            f"({error.strerror}); expected is the absolute path of a directory on a local disk"
        ) from None


def _days(setting: tuple[str, str | None], default: int, least: int, most: int) -> int:
    return _whole(setting, default, least, most, "days")


def _characters(setting: tuple[str, str | None], default: int) -> int:
    return _whole(setting, default, 1, 100_000_000, "characters")


def _whole(setting: tuple[str, str | None], default: int, least: int, most: int, what: str) -> int:
    name, value = setting
    if value is None:
        return default
    text = value.strip()
    if text.isascii() and text.isdigit() and least <= int(text[:10]) <= most:
        return int(text)
    raise ConfigurationError(
        f"{name} is {value!r}; expected is a whole number of {what} from {least} to {most}"
    )


def _default_spool(variables: Mapping[str, str]) -> Path:
    """Return where the state of programs belongs: https://specifications.freedesktop.org/basedir-spec/latest/."""
    state = variables.get("XDG_STATE_HOME", "")
    # A relative path is to be ignored.
    base = Path(state) if state.startswith("/") else Path("~/.local/state")
    return base / "cmdrdata"


def _check_place(name: str, path: Path) -> None:
    """Make sure that the place a path stands for, in the home or the working directory, can be written down."""
    try:
        place = str(path.expanduser().absolute())
    except (OSError, RuntimeError):
        return  # There is no such place: the delivery says so.
    try:
        check_text(name, place)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}. Set {CMDRDATA_SPOOL_DIR} to a directory whose path is"
        ) from None


def _baggage_key(setting: tuple[str, str | None]) -> str | None:
    name, value = setting
    if value is None:
        return None
    source, _, key = value.strip().partition(":")
    if source != "baggage" or not key or not key.isprintable() or " " in key:
        raise ConfigurationError(
            f"{name} is {value!r}; expected is baggage:<key>, where <key> is a key of the OpenTelemetry Baggage"
        )
    return key


def _check_key(name: str, key: str) -> None:
    problem = (
        "is in quotes, which are no part of a key"
        if key[:1] in ("'", '"')
        else f"begins like a key of {owner}, which nobody else shall get"
        if (owner := issuer(key))
        else f"has {len(key)} characters"
        if not 20 <= len(key) <= 500
        else "holds whitespace"
        if any(character.isspace() for character in key)
        else "holds characters that are not ASCII"
        if not key.isascii()
        else "holds control characters"
        if not key.isprintable()
        else None
    )
    if problem:
        raise ConfigurationError(
            f"{name} {problem}; expected is a CmdrData key: 20 to 500 printable ASCII characters "
            "without spaces, commonly with tk- at the beginning. Copy it again from your CmdrData account"
        )


def _read_key_file(name: str, path: str) -> str:
    try:
        # Some editors begin a file with a byte order mark.
        key = Path(path).read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = (
            "it is not UTF-8 text"
            if isinstance(error, UnicodeDecodeError)
            else getattr(error, "strerror", None) or "that is no path"
        )
        raise ConfigurationError(
            f"{name}: cannot read {path!r}: {reason}; expected is a file that holds only the key "
            "and that this process may read"
        ) from None
    _check_key(f"{name}: the content of {path!r}", key)
    return key


def _check_endpoint(name: str, url: str) -> None:
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
            f"{name} holds a user name or password; {expected}. The key belongs in {CMDRDATA_API_KEY}"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"{name} is {url!r}; {expected}")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            f"{name} is {url!r}: http:// would send the key in the clear to {host}; use https:// "
            "(http:// is accepted for a loopback host only)"
        )


def _host(url: str) -> str:
    """Return the host that a request to `url` connects to, as the library reads it that connects."""
    return (parse_url(url).host or "").strip("[]")


def _proxy(url: str, variables: Mapping[str, str]) -> str | None:
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


def _check_id(name: str, value: str) -> None:
    if message := complaint(name, value):
        raise ConfigurationError(message)
