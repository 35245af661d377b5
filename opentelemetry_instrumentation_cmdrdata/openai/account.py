"""
To which organization, project and key of OpenAI's a call is charged, as its request and its answer say. Pure.

All is read where it is known for sure: of the request as it went out, whatever a client, a call, a token provider or an
HTTP client put into it. A key leaves nothing here but the hash of the characters that OpenAI shows of it.
"""

from __future__ import annotations

from typing import Protocol

from cmdrdata_exporter.key_hash import SHOWN, key_hash
from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.usage import Attributes

_BEARER = "Bearer sk-"
"""What an API key begins with. Other bearers last for an hour or a session, so a hash of theirs would find nothing."""
_SHORTEST = 20
"""Characters of an API key: of a shorter one the last four are too much of it, and it is none of OpenAI's."""
_LONGEST = 200
"""Characters of an id, or of the name of an organization."""


class Headers(Protocol):
    """Headers of whichever HTTP client."""

    def get(self, key: str, /) -> str | None:
        """Return the value of a header, in whichever case its name is written; None where it is not there."""
        ...


def account(sent: Headers | None, answered: Headers | None) -> Attributes:
    """
    Return the attributes of who is charged at OpenAI: those that are known.

    The answer prevails: it names the organization and project that are charged, also where the request named none.

    Args:
        sent: the headers of the request; None where it is not known.
        answered: the headers of the answer; None where there is none.
    """
    found: Attributes = {}
    for name, header in (
        (semconv.OPENAI_ORGANIZATION, "openai-organization"),
        (semconv.OPENAI_PROJECT, "openai-project"),
    ):
        value = None if answered is None else answered.get(header)
        if not value and sent is not None:
            value = sent.get(header)
        if value and len(value) <= _LONGEST:
            found[name] = value
    credentials = None if sent is None else sent.get("authorization")
    if (
        credentials is not None
        and credentials.startswith(_BEARER)
        and len(credentials) >= len("Bearer ") + _SHORTEST
    ):
        found[semconv.OPENAI_KEY_HASH] = key_hash(credentials[-SHOWN:])
    return found
