"""A program of gevent that asks a few times and ends, and a WSGI application that asks once for each request."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

# After the patch, as gevent asks for.
import sys  # noqa: E402
from collections.abc import Callable, Iterable  # noqa: E402
from typing import Any  # noqa: E402

import openai  # noqa: E402

from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor  # noqa: E402


def ask(number: int) -> None:
    """Ask once."""
    with openai.OpenAI(max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        client.chat.completions.create(model=f"gpt-{number}", messages=messages)


def application(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Ask once."""
    ask(0)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


if "--bare" not in sys.argv:
    CmdrDataInstrumentor().instrument()
if __name__ == "__main__":
    for one in range(int(sys.argv[1])):
        ask(one)
