"""What a destination's senders and a transport's loop say to each other: attempts to deliver, many at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cmdrdata_exporter.delivery import Handed, Outcome

Put = Callable[[Callable[[], None]], bool]
"""Has a thread do something, and says whether there is one."""


class Source(Protocol):
    """What has attempts to make. Called in the loop's thread."""

    @property
    def has_waiting(self) -> bool:
        """Whether an event waits for the end of an attempt."""
        ...

    def next_attempt(self) -> Attempt | None:
        """Return one that may begin now."""
        ...

    def finish(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take note of what came of one."""
        ...

    def hand_over(self) -> None:
        """Pass on all outcomes since the last time."""
        ...


class Loop(Protocol):
    """What makes the attempts of its sources in one thread."""

    def serve(self, source: Source, put: Put) -> bool:
        """Ask a source for attempts until it has none; say whether there is a thread that does. From any thread."""
        ...

    def end(self, client: Any) -> None:
        """Take note that no further attempts are asked of a client."""
        ...


# Not compared: each is another one.
@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt to deliver an event."""

    source: Source
    """Where it comes from."""
    client: Any
    """Makes it: what the loop's transport has of a destination."""
    event: Handed
    entry: Any
    """What the source wants to know of it at its end."""
    began: float
    deadline: float
    """In monotonic seconds."""
