"""An application of Celery whose worker gives each task a process of its own: forked from one that meters already."""

from __future__ import annotations

import os
import time
from typing import Any

import openai
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor

app = Celery("prefork_app", broker="filesystem://")
app.conf.update(
    broker_transport_options=dict.fromkeys(
        ("data_folder_in", "data_folder_out", "control_folder"), os.environ["QUEUE"]
    ),
    task_ignore_result=True,
    worker_hijack_root_logger=False,
)
CmdrDataInstrumentor().instrument()


@app.task(name="ask")
def ask(model: str) -> None:
    """Ask once, and end."""
    with openai.OpenAI(max_retries=0) as client:
        messages: Any = [{"role": "user", "content": "hello"}]
        client.chat.completions.create(model=model, messages=messages)


@app.task(name="ask_and_hang")
def ask_and_hang(model: str) -> None:
    """Ask once, and never end."""
    ask(model)
    time.sleep(60)


@app.task(name="ask_until_the_limit")
def ask_until_the_limit(model: str) -> None:
    """Ask again and again, until the soft time limit ends it, wherever it is met."""
    messages: Any = [{"role": "user", "content": "hello"}]
    try:
        with openai.OpenAI(max_retries=0) as client:
            while True:
                client.chat.completions.create(model=model, messages=messages)
    except SoftTimeLimitExceeded:
        return
