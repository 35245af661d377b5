"""Have a library make calls in threads of its own, for the customer of the context or of a client that it is given."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from importlib import import_module
from typing import Any

import openai

from cmdrdata_exporter import customer_context
from opentelemetry_instrumentation_cmdrdata import bind_customer

HELLO = [{"role": "user", "content": "hello"}]
MODEL = "gpt-4.1-mini"


def dspy_module(dspy: Any) -> Any:
    """Return a module that asks the model."""
    logging.getLogger("dspy").setLevel(logging.ERROR)
    model = dspy.LM(f"openai/{MODEL}", api_base=os.environ["OPENAI_BASE_URL"], cache=False)
    dspy.configure(lm=model)

    class Ask(dspy.Module):
        def forward(self, question: str) -> Any:
            return model(question)

    return Ask()


def parallel(bound: bool) -> None:
    """Run a module of dspy twice."""
    dspy = import_module("dspy")
    module = dspy_module(dspy)
    pairs = [(module, {"question": question}) for question in ("one", "two")]
    dspy.Parallel(num_threads=2, disable_progress_bar=True)(pairs)


def evaluate(bound: bool) -> None:
    """Evaluate a module of dspy on two examples."""
    dspy = import_module("dspy")
    examples = [dspy.Example(question=text).with_inputs("question") for text in ("one", "two")]
    dspy.Evaluate(devset=examples, metric=lambda *_: 1.0, num_threads=2, display_progress=False)(
        dspy_module(dspy)
    )


def batch_completion(bound: bool) -> None:
    """Make two completions with LiteLLM."""
    client = {"client": bind_customer(openai.OpenAI(), "acme")} if bound else {}
    import_module("litellm").batch_completion(f"openai/{MODEL}", [HELLO, HELLO], **client)


def run(bound: bool) -> None:
    """Have an agent of ag2 answer once."""
    autogen = import_module("autogen")
    agent = autogen.ConversableAgent(
        "agent",
        llm_config=autogen.LLMConfig({"api_type": "openai", "model": MODEL}),
        human_input_mode="NEVER",
    )
    if bound:
        for each in agent.client._clients:
            each._oai_client = bind_customer(each._oai_client, "acme")
    for _ in agent.run(message="hello", max_turns=1, user_input=False).events:
        pass


def agent(bound: bool) -> None:
    """Have an agent of strands stream an answer."""
    models = import_module("strands.models.openai")
    model = models.OpenAIModel(model_id=MODEL)
    if bound:
        model.client = bind_customer(model.client, "acme")

    async def answer() -> None:
        async for _ in import_module("strands").Agent(model=model).stream_async("hello"):
            pass

    asyncio.run(answer())


WAYS = {one.__name__: one for one in (parallel, evaluate, batch_completion, run, agent)}

if __name__ == "__main__":
    way, carrier = sys.argv[1:]
    if carrier == "bound":
        WAYS[way](True)
    else:
        with customer_context("acme"):
            WAYS[way](False)
