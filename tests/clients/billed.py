"""What the tests of this folder share: how a program runs, and what a call's event must say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tests.standins import CHAT_USAGE, MODEL_DATES

if TYPE_CHECKING:
    from tests.standins import CmdrDataStandIn


class Run(Protocol):
    """Run a command, or one of `programs/`, to its end; return what it printed."""

    def __call__(self, command: str, *arguments: str, in_code: bool = False) -> str:
        """Run it, and return its standard output."""
        ...


@dataclass(frozen=True, kw_only=True)
class Billed:
    """
    The facts of an event that decide the bill.

    The defaults are those of the stand-in's usual answer. Answers of chat completions and of the
    Responses API report the same numbers.
    """

    endpoint: str
    model: str = MODEL_DATES["gpt-4.1-mini"]
    input_tokens: int = CHAT_USAGE["prompt_tokens"]
    output_tokens: int = CHAT_USAGE["completion_tokens"]
    total_tokens: int = CHAT_USAGE["total_tokens"]
    usage_status: str = "reported"
    streaming: bool = False
    success: bool = True
    customer_id: str = "acme"
    provider: str = "openai"


def billed(backend: CmdrDataStandIn) -> list[Billed]:
    """Return the facts of the events that arrived; no two of them may have one id."""
    ids = [event["request"]["id"] for event in backend.events]
    assert sorted(set(ids)) == sorted(ids)
    return [facts(event) for event in backend.events]


def facts(event: dict[str, Any]) -> Billed:
    """Return the facts of one event."""
    metadata, request = event["metadata"], event["request"]
    top_level = ("model", "input_tokens", "output_tokens", "total_tokens")
    return Billed(
        endpoint=metadata["endpoint"],
        usage_status=metadata["usage_status"],
        streaming=request["streaming"],
        success=request["success"],
        customer_id=event["customer_id"],
        provider=event["provider"],
        **{name: event[name] for name in top_level},
    )
