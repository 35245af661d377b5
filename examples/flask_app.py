"""
Flask: each request's calls belong to the customer whose token it carries.

    pip install opentelemetry-instrumentation-cmdrdata openai flask
    opentelemetry-instrument flask --app examples/flask_app.py run
    curl -H 'Authorization: Bearer token-of-acme' 'http://127.0.0.1:5000/ask?question=hello'

`app` does it by functions around each request, `app_with_middleware` by a middleware, which serves any other WSGI
framework as well, and holds also while a response is streamed.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import openai
from flask import Blueprint, Flask, Response, abort, request

from cmdrdata_exporter import clear_customer_context, set_customer_context

# Who pays is what your own login says, never what the request claims.
CUSTOMERS = {"Bearer token-of-acme": "acme", "Bearer token-of-globex": "globex"}

client = openai.OpenAI()
views = Blueprint("views", __name__)


@views.get("/ask")
def ask() -> str:
    """Answer a question."""
    answer = client.chat.completions.create(
        model=request.args.get("model", "gpt-4o-mini"),
        messages=[{"role": "user", "content": request.args["question"]}],
    )
    return answer.choices[0].message.content or ""


# Flask makes a streamed body after the request was torn down. A call belongs to the customer of the moment it starts,
# wherever its stream is read: so start it in the view. Then an error of the provider is an error of the view, too.
@views.get("/stream")
def stream() -> Response:
    """Answer a question piece by piece, after this function has returned."""
    chunks = client.chat.completions.create(
        model=request.args.get("model", "gpt-4o-mini"),
        messages=[{"role": "user", "content": request.args["question"]}],
        stream=True,
    )

    def pieces() -> Iterator[str]:
        for chunk in chunks:
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    return Response(pieces(), mimetype="text/plain")


# --- By functions around each request ---------------------------------------------------------

app = Flask(__name__)
app.register_blueprint(views)


@app.before_request
def attribute_to_customer() -> None:
    """Attribute the request's calls to the customer of its token."""
    customer_id = CUSTOMERS.get(request.headers.get("Authorization", ""))
    if customer_id is None:
        abort(401)
    set_customer_context(customer_id)


@app.teardown_request
def attribute_to_nobody(_error: BaseException | None = None) -> None:
    """Leave the thread as it was: its next request may be another customer's."""
    clear_customer_context()


# --- By a middleware --------------------------------------------------------------------------


class CustomerMiddleware:
    """Attribute the calls of each request to the customer of its token."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Serve a request."""
        customer_id = CUSTOMERS.get(environ.get("HTTP_AUTHORIZATION", ""))
        if customer_id is None:
            return self.app(environ, start_response)
        # A context of the request's own: the body is made after this has returned, and a `with` around its pieces
        # would hold for whatever the thread does in between.
        context = contextvars.copy_context()
        context.run(set_customer_context, customer_id)
        return _Body(context.run(self.app, environ, start_response), context)


class _Body:
    """A response's body, each piece of which is made in the request's context."""

    def __init__(self, body: Iterable[bytes], context: contextvars.Context) -> None:
        self._body = body
        self._pieces = context.run(iter, body)
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._pieces)

    def close(self) -> None:
        """Close the body, as WSGI asks for."""
        if hasattr(self._body, "close"):
            self._context.run(self._body.close)


app_with_middleware = Flask(__name__)
app_with_middleware.register_blueprint(views)
app_with_middleware.wsgi_app = CustomerMiddleware(app_with_middleware.wsgi_app)
