"""
Celery: a task's calls belong to the customer for whom the task was sent.

    pip install opentelemetry-instrumentation-cmdrdata openai celery
    export CELERY_BROKER_URL=...
    opentelemetry-instrument celery --workdir examples --app celery_app worker

and, in whatever sends tasks:

    with customer_context("acme"):
        celery_app.ask.delay("hello")

The customer's id travels in the task's headers, so whoever reads the broker sees it. It does only because of the three
functions below; without them no customer leaves the process, and each task can name its own:
`with customer_context(customer_id):` around its work.
"""

from __future__ import annotations

from typing import Any

import openai
from celery import Celery, Task
from celery.signals import before_task_publish, task_postrun, task_prerun

from cmdrdata_exporter import customer_context, get_customer_context

HEADER = "cmdrdata_customer_id"

app = Celery("celery_app")
client = openai.OpenAI()
_running: dict[str, customer_context] = {}


@before_task_publish.connect
def send_customer(headers: dict[str, Any], **_: Any) -> None:
    """Give a task that is sent the customer of the context it is sent from."""
    customer_id = get_customer_context()
    if customer_id is not None:
        headers.setdefault(HEADER, customer_id)


# These two enter and leave, rather than set and clear: a task that runs eagerly is in its sender's context, and what
# that says shall be there after it.
@task_prerun.connect
def attribute_to_customer(task_id: str, task: Task, **_: Any) -> None:
    """Attribute the calls of a task that begins."""
    customer_id = task.request.get(HEADER)
    if customer_id is not None:
        _running[task_id] = customer_context(customer_id)
        _running[task_id].__enter__()


@task_postrun.connect
def attribute_to_nobody(task_id: str, **_: Any) -> None:
    """Leave the worker as it was: its next task may be another customer's."""
    entered = _running.pop(task_id, None)
    if entered is not None:
        entered.__exit__()


@app.task
def ask(question: str, model: str = "gpt-4o-mini") -> str | None:
    """Answer a question."""
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}]
    )
    return answer.choices[0].message.content


@app.task
def ask_later(question: str, model: str = "gpt-4o-mini") -> None:
    """Have a question answered by a task of its own, which belongs to the same customer."""
    ask.delay(question, model)
