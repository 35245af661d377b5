"""What a check finds, and what all checks look at. Without click and rich, which an application's Python may lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = {
    ERROR: "calls are not metered, or events are not delivered",
    WARNING: "some calls are not metered in full, or a person is needed",
    NOTE: "as it is meant to be, if you know about it",
}
"""What each severity says, the worst first."""


class Finding(NamedTuple):
    """One thing that a check has found. Its texts hold no key, and nothing else that is secret."""

    id: str
    """Its name in docs/troubleshooting.md."""
    severity: str
    what: str
    remedy: str

    @classmethod
    def error(cls, name: str, what: str, remedy: str) -> Self:
        """Return one for which calls are not metered, or events not delivered."""
        return cls(name, ERROR, what, remedy)

    @classmethod
    def warning(cls, name: str, what: str, remedy: str) -> Self:
        """Return one of the second severity."""
        return cls(name, WARNING, what, remedy)

    @classmethod
    def note(cls, name: str, what: str, remedy: str) -> Self:
        """Return one that is as it is meant to be, perhaps."""
        return cls(name, NOTE, what, remedy)


def finding_of(name: str, severity: str, message: str, at: str) -> Finding:
    """Return the finding of a message that says what is wrong and then, after the last mark `at`, what to do."""
    what, mark, remedy = message.rpartition(at)
    if not mark:
        what, remedy = remedy, "mend that and look again"
    return Finding(name, severity, _sentence(what), _sentence(remedy))


_COMMANDS = ("pip ", "cmdrdata ")
_NAMES = ("openai ", "opentelemetry")
"""What is written as it is also where a sentence begins."""


def _sentence(text: str) -> str:
    if text.startswith(_COMMANDS):
        text = f"Run {text}"
    elif not text.startswith(_NAMES):
        text = f"{text[:1].upper()}{text[1:]}"
    return text if text.endswith((".", "?")) else f"{text}."


class Surroundings(NamedTuple):
    """What an application finds where it is started."""

    environ: Mapping[str, str]
    arguments: Sequence[str]
    """Of `opentelemetry-instrument`: its options and the command; empty where nothing is known of them."""
    installed: Callable[[str], Mapping[str, str]]
    """Returns the names of an entry point group, each with its value."""
    version_of: Callable[[str], str | None]
    """Returns the version of a distribution, None where it is not installed."""
    python: tuple[int, int]
