"""
What the text of a setting may be.

Each function returns what is used in its place, or says in a `ConfigurationError` what is wrong with it.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from cmdrdata_exporter.delivery.groups import COLUMNS, MOST_LABELS
from cmdrdata_exporter.events import OURS
from cmdrdata_exporter.ids import complaint
from cmdrdata_exporter.scrubbing import issuer

_PLACE = "the path of a directory on a local disk"
LONGEST_KEY = 100
"""Characters of a metadata key by which usage is summed, at most."""


class ConfigurationError(ValueError):
    """
    A setting that cannot be used.

    The message names the setting, says what is wrong with it, what is expected and how to mend it.
    It never holds a key.
    """


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


def choice(*choices: str) -> Callable[[str, str], str]:
    """Have one of these chosen, of which `1` and `0` are other words for `true` and `false`."""

    def parse(name: str, value: str) -> str:
        if (chosen := value.strip().lower()) not in choices:
            raise ConfigurationError(f"{name} is {value!r}; expected one of: {', '.join(choices)}")
        return {"1": "true", "0": "false"}.get(chosen, chosen)

    return parse


def switch(*choices: str) -> Callable[[str, str], bool]:
    """Have one of these chosen, as what is true or false."""
    parse = choice(*choices)
    return lambda name, value: parse(name, value) == "true"


def seconds(least: float, most: float) -> Callable[[str, str], float]:
    """Have a number of seconds given, within limits."""

    def parse(name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if least <= number <= most:
            return number
        raise ConfigurationError(
            f"{name} is {value!r}; expected is a number of seconds from {least:.0f} to {most:.0f}"
        )

    return parse


def whole(least: int, most: int, what: str) -> Callable[[str, str], int]:
    """Have a whole number of something given, within limits."""

    def parse(name: str, value: str) -> int:
        text = value.strip()
        if text.isascii() and text.isdigit() and least <= int(text[:10]) <= most:
            return int(text)
        raise ConfigurationError(
            f"{name} is {value!r}; expected is a whole number of {what} from {least} to {most}"
        )

    return parse


def identifier(name: str, value: str) -> str:
    """Have an id given, which stays byte for byte what it is."""
    if message := complaint(name, value):
        raise ConfigurationError(message)
    return value


def baggage_key(name: str, value: str) -> str:
    """Have `baggage:<key>` given; return the key."""
    source, _, key = value.strip().partition(":")
    if source != "baggage" or not key or not key.isprintable() or " " in key:
        raise ConfigurationError(
            f"{name} is {value!r}; expected is baggage:<key>, where <key> is a key of the OpenTelemetry Baggage"
        )
    return key


def metadata_keys(name: str, value: str) -> tuple[str, ...]:
    """Have metadata keys given that are the user's own, separated by commas."""
    keys = tuple(dict.fromkeys(key.strip() for key in value.split(",")))
    problem = next((found for key in keys if (found := _key_problem(key))), None)
    if problem is None and len(keys) > MOST_LABELS:
        problem = f"{len(keys)} keys"
    if problem:
        raise ConfigurationError(
            f"{name} is {value!r}, which has {problem}; expected are up to {MOST_LABELS} metadata keys of your own "
            "with commas between them, such as plan,team"
        )
    return keys


def _key_problem(key: str) -> str | None:
    if not key:
        return "an empty name"
    if len(key) > LONGEST_KEY or not key.isprintable():
        return f"a name that is not 1 to {LONGEST_KEY} printable characters"
    if key in OURS:
        return f"{key}, a key that events have themselves"
    if key in COLUMNS:
        return f"{key}, by which usage can be summed already under that name"
    return None


# Directories


def directory(name: str, path: str) -> Path:
    """Have a directory given; return a path that stays the same where the program changes its working directory."""
    if not path.strip() or "\0" in path:
        raise ConfigurationError(f"{name} is {path!r}; expected is {_PLACE}")
    try:
        # A home directory is named by its user, wherever the program is.
        place = Path(path) if path.startswith("~") else Path(path).absolute()
    except OSError as error:
        raise ConfigurationError(
            f"{name} is {path!r}, which cannot be made absolute: the working directory cannot be read "
            f"({error.strerror}); expected is the absolute path of a directory on a local disk"
        ) from None
    return written_place(name, place)


def default_spool(variables: Mapping[str, str]) -> Path:
    """Return where the state of programs belongs: https://specifications.freedesktop.org/basedir-spec/latest/."""
    state = variables.get("XDG_STATE_HOME", "")
    # A relative path is to be ignored.
    base = Path(state) if state.startswith("/") else Path("~/.local/state")
    return base / "cmdrdata"


def written_place(name: str, path: Path) -> Path:
    """Return a path, if the place that it stands for, in the home perhaps, can be written down."""
    try:
        check_text(name, str(path.expanduser().absolute()))
    except (OSError, RuntimeError):
        pass  # There is no such place: the delivery says so.
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}. Set CMDRDATA_SPOOL_DIR to a directory whose path is"
        ) from None
    return path


# Keys


def key_text(name: str, value: str) -> str:
    """Have a key given."""
    # A secret mounted into the environment often ends in a newline.
    key = value.strip() if name.isupper() else value
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
    return key


def text_of(name: str, path: str, expected: str) -> str:
    """Return the text of a file, without the byte order mark with which some editors begin it."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = (
            "it is not UTF-8 text"
            if isinstance(error, UnicodeDecodeError)
            else getattr(error, "strerror", None) or "that is no path"
        )
        raise ConfigurationError(f"{name}: cannot read {path!r}: {reason}; {expected}") from None


def key_in_file(name: str, path: str) -> str:
    """Return the key that a file holds."""
    expected = "expected is a file that holds only the key and that this process may read"
    key = text_of(name, path, expected).strip()
    return key_text(f"{name}: the content of {path!r}", key)


def key_file(name: str, path: str) -> Path:
    """Have a file given that holds a key."""
    key_in_file(name, path)
    return Path(path)


# Hosts


def is_loopback(host: str) -> bool:
    """Say whether `host` (a name or an address, without brackets) can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
