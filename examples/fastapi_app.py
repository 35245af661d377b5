"""
FastAPI: each request's calls belong to the customer whose token it carries.

    pip install opentelemetry-instrumentation-cmdrdata openai fastapi uvicorn
    opentelemetry-instrument uvicorn --app-dir examples fastapi_app:app
    curl -H 'Authorization: Bearer token-of-acme' 'http://127.0.0.1:8000/ask?question=hello'

`app` does it by a dependency, `app_with_middleware` by a middleware, which serves Starlette and any other ASGI
framework as well.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import openai
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException
from fastapi.middleware import Middleware
from fastapi.responses import StreamingResponse

from cmdrdata_exporter import customer_context

# Who pays is what your own login says, never what the request claims.
CUSTOMERS = {"Bearer token-of-acme": "acme", "Bearer token-of-globex": "globex"}

client = openai.AsyncOpenAI()
blocking_client = openai.OpenAI()
router = APIRouter()


@router.get("/ask")
async def ask(question: str, model: str = "gpt-4o-mini") -> str | None:
    """Answer a question."""
    answer = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


@router.get("/ask-blocking")
def ask_blocking(question: str, model: str = "gpt-4o-mini") -> str | None:
    """Answer a question in a thread; FastAPI hands the context to it."""
    answer = blocking_client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


@router.get("/stream")
async def stream(question: str, model: str = "gpt-4o-mini") -> StreamingResponse:
    """Answer a question piece by piece, after this function has returned."""

    async def pieces() -> AsyncIterator[str]:
        chunks = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": question}], stream=True
        )
        async for chunk in chunks:
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    return StreamingResponse(pieces(), media_type="text/plain")


# --- By a dependency --------------------------------------------------------------------------


# It must be `async`: a plain `def` with `yield` is run in a thread, whose context the endpoint does not see.
# Since FastAPI 0.118 it ends after the response was sent. From 0.106 on it ended before, so that a call which begins
# while the response is streamed belongs to nobody there: make the call in the endpoint, or take the middleware.
async def paying_customer(authorization: Annotated[str, Header()] = "") -> AsyncIterator[str]:
    """Attribute the request's calls to the customer of its token."""
    customer_id = CUSTOMERS.get(authorization)
    if customer_id is None:
        raise HTTPException(401)
    with customer_context(customer_id):
        yield customer_id


app = FastAPI(dependencies=[Depends(paying_customer)])
app.include_router(router)


# --- By a middleware --------------------------------------------------------------------------


# A plain ASGI middleware sees the whole response, whatever is streamed and whenever.
class CustomerMiddleware:
    """Attribute the calls of each request to the customer of its token."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        headers = dict(scope.get("headers", ()))
        customer_id = CUSTOMERS.get(headers.get(b"authorization", b"").decode("latin-1"))
        if customer_id is None:
            await self.app(scope, receive, send)
            return
        with customer_context(customer_id):
            await self.app(scope, receive, send)


app_with_middleware = FastAPI(middleware=[Middleware(CustomerMiddleware)])
app_with_middleware.include_router(router)
