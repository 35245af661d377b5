"""Each call is one event with the right tokens, whichever other instrumentations see it too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest

from tests.clients.billed import Billed
from tests.instrumentations.conftest import Run
from tests.standins import EMBEDDINGS_USAGE, MODEL_DATES

SCOPES = {
    "ours": "opentelemetry_instrumentation_cmdrdata",
    "official openai": "opentelemetry.instrumentation.genai.openai",
    "openinference openai": "openinference.instrumentation.openai",
    "openllmetry openai": "opentelemetry.instrumentation.openai.v1",
    "openinference langchain": "openinference.instrumentation.langchain",
    "openllmetry langchain": "opentelemetry.instrumentation.langchain",
    "anthropic itself": "com.anthropic.sdk.python",
    "openinference anthropic": "openinference.instrumentation.anthropic",
    "openllmetry anthropic": "opentelemetry.instrumentation.anthropic",
}
OPENAI = ("official openai", "openinference openai", "openllmetry openai")
LANGCHAIN = ("openinference langchain", "openllmetry langchain")
ANTHROPIC = ("openinference anthropic", "openllmetry anthropic")
EVERYTHING = {"openai": OPENAI, "langchain": (*OPENAI, *LANGCHAIN)}


def chat(call: str, *, streaming: bool = False) -> Billed:
    """Return the event of a chat completion."""
    return Billed(endpoint="chat.completions", customer_id=call, streaming=streaming)


def embedding(call: str) -> Billed:
    """Return the event of an embedding."""
    return Billed(
        endpoint="embeddings",
        customer_id=call,
        model="text-embedding-3-small",
        input_tokens=EMBEDDINGS_USAGE["prompt_tokens"],
        output_tokens=0,
        total_tokens=EMBEDDINGS_USAGE["total_tokens"],
    )


def response(call: str, *, streaming: bool = False) -> Billed:
    """Return the event of a response."""
    return Billed(
        endpoint="responses", customer_id=call, model=MODEL_DATES["o4-mini"], streaming=streaming
    )


# The events of each family's calls as our own instrumentor makes them, by the calls' names.
EVENTS = {
    "openai": [
        chat("chat"),
        chat("chat async"),
        chat("chat async streamed", streaming=True),
        chat("chat helper", streaming=True),
        chat("chat raw"),
        chat("chat streamed", streaming=True),
        embedding("embeddings"),
        embedding("embeddings async"),
        response("responses"),
        response("responses async"),
        response("responses async streamed", streaming=True),
        response("responses streamed", streaming=True),
    ],
    "langchain": [
        chat("agent"),
        chat("agent"),
        chat("ainvoke"),
        chat("astream", streaming=True),
        chat("chain"),
        chat("invoke"),
        response("responses"),
        response("responses stream", streaming=True),
        chat("stream", streaming=True),
    ],
}
# Who pays for which tokens; spans of others tell these of each call, and not always the rest.
TOKENS = {
    **{
        family: [
            (event.customer_id, event.input_tokens, event.output_tokens, event.total_tokens)
            for event in events
        ]
        for family, events in EVENTS.items()
    },
    "anthropic": [
        (call, 18, 7, 25)
        for call in ("message", "message async", "message helper", "message streamed")
    ],
}


def scopes(*names: str) -> set[str]:
    """Return the scopes of instrumentations, each of which must have made spans."""
    return {SCOPES[name] for name in names}


def around_ours(others: Sequence[str]) -> list[tuple[str, ...]]:
    """Return both orders: ours before the others, and after them."""
    return [("ours", *others), (*others, "ours")]


def named(value: str | tuple[str, ...]) -> str:
    """Return what a case is called."""
    return value if isinstance(value, str) else ", ".join(value)


class TestBesideOurs:
    """With our instrumentor at work, it alone bills what goes through the openai SDK."""

    @pytest.mark.parametrize(
        ("family", "instrumentors"),
        [
            *(("openai", order) for other in OPENAI for order in around_ours((other,))),
            *(("langchain", order) for other in LANGCHAIN for order in around_ours((other,))),
        ],
        ids=named,
    )
    def test_one(self, family: str, instrumentors: tuple[str, ...], run: Run) -> None:
        """Another instrumentation changes no event, wherever it is in the order, and is passed over."""
        outcome = run(family, instrumentors)
        assert EVENTS[family] == outcome.events
        assert scopes(*instrumentors) == outcome.scopes
        (other,) = set(instrumentors) - {"ours"}
        assert {SCOPES[other]: len(EVENTS[family])} == outcome.passed_over

    @pytest.mark.parametrize("processor", ["simple", "batch"])
    @pytest.mark.parametrize(
        ("family", "instrumentors"),
        [(family, order) for family, all_ in EVERYTHING.items() for order in around_ours(all_)],
        ids=named,
    )
    def test_several(
        self, family: str, instrumentors: tuple[str, ...], processor: str, run: Run
    ) -> None:
        """Several others at once change no event, however the pipeline hands spans on."""
        outcome = run(family, instrumentors, processor)
        assert EVENTS[family] == outcome.events
        assert scopes(*instrumentors) == outcome.scopes
        assert scopes(*EVERYTHING[family]) == set(outcome.passed_over)

    @pytest.mark.parametrize("family", ["openai", "langchain"])
    def test_zero_code(self, family: str, run: Run) -> None:
        """`opentelemetry-instrument` with all that is installed, and with us as an exporter too, bills once."""
        outcome = run(
            family,
            processor=None,
            OTEL_TRACES_EXPORTER="cmdrdata",
            OTEL_METRICS_EXPORTER="none",
            OTEL_LOGS_EXPORTER="none",
            # Those of HTTP are here for another test; they see the request, and no call.
            OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="httpx,httpx2,requests,urllib,urllib3",
        )
        assert EVENTS[family] == outcome.events
        # Of two that have one name for their entry points, only one may be loaded.
        assert {SCOPES["ours"]} < outcome.scopes
        assert outcome.scopes == {SCOPES["ours"], *outcome.passed_over}

    @pytest.mark.parametrize(
        "instrumentors", [order for one in ANTHROPIC for order in around_ours((one,))], ids=named
    )
    def test_another_provider(self, instrumentors: tuple[str, ...], run: Run) -> None:
        """What does not go through the openai SDK is billed from its own instrumentation, once."""
        outcome = run("anthropic", instrumentors)
        assert TOKENS["anthropic"] == outcome.tokens()
        expected = {*instrumentors, "anthropic itself"} - {"ours"}
        assert scopes(*expected) == outcome.scopes


class TestExporterAlone:
    """Without our instrumentor, each call is billed from the first span that tells what it used."""

    @pytest.mark.parametrize("processor", ["simple", "batch"])
    @pytest.mark.parametrize(
        ("family", "instrumentor"),
        [*(("openai", one) for one in OPENAI), *(("langchain", one) for one in LANGCHAIN)],
    )
    def test_one(self, family: str, instrumentor: str, processor: str, run: Run) -> None:
        """Any one instrumentation is enough to bill each call."""
        outcome = run(family, (instrumentor,), processor)
        assert TOKENS[family] == outcome.tokens()
        assert scopes(instrumentor) == outcome.scopes
        assert outcome.passed_over == {}

    @pytest.mark.parametrize("instrumentors", list(permutations(OPENAI)), ids=named)
    def test_several_of_one_sdk(self, instrumentors: tuple[str, ...], run: Run) -> None:
        """Several that instrument the openai SDK, in any order, report one call: the first of them is billed."""
        outcome = run("openai", instrumentors)
        assert TOKENS["openai"] == outcome.tokens()
        assert scopes(*instrumentors) == outcome.scopes
        assert 2 * len(EVENTS["openai"]) == sum(outcome.passed_over.values())

    def test_several_in_batches(self, run: Run) -> None:
        """Which spans are one call is known across the batches of a pipeline."""
        outcome = run("openai", OPENAI, "batch", OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2")
        assert TOKENS["openai"] == outcome.tokens()


class TestAnthropic:
    """The anthropic SDK, which reports its calls itself, whatever instruments it besides."""

    @pytest.mark.parametrize(
        "instrumentors",
        [(), *((one,) for one in ANTHROPIC), ANTHROPIC, ANTHROPIC[::-1]],
        ids=named,
    )
    @pytest.mark.parametrize("processor", ["simple", "batch"])
    def test_reports_itself(self, instrumentors: tuple[str, ...], processor: str, run: Run) -> None:
        """What the SDK reports is billed, and what its instrumentations report besides is not."""
        outcome = run("anthropic", instrumentors, processor)
        assert TOKENS["anthropic"] == outcome.tokens()
        assert scopes("anthropic itself", *instrumentors) == outcome.scopes
        assert scopes(*instrumentors) == set(outcome.passed_over)

    @pytest.mark.parametrize("instrumentor", ANTHROPIC)
    def test_is_told_not_to(self, instrumentor: str, run: Run) -> None:
        """Where the SDK reports nothing, each call is billed from its instrumentation."""
        outcome = run("anthropic", (instrumentor,), ANTHROPIC_OPEN_TELEMETRY="false")
        # OpenLLMetry adds up the output tokens that a stream reports at its start and at its end.
        assert [call for call, *_ in TOKENS["anthropic"]] == [call for call, *_ in outcome.tokens()]
        assert TOKENS["anthropic"][:2] == outcome.tokens()[:2]
        assert scopes(instrumentor) == outcome.scopes
