"""
What each endpoint answers, read into a `Reading`: one function per shape of an answer.

Pure and tolerant, see `usage`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.openai.usage import (
    Attributes,
    Reading,
    count,
    fields,
    get,
    items,
    put,
    quantity,
    read_usage,
    string,
)


def read_answer(reading: Reading, body: object) -> Mapping[str, Any]:
    """Read what answers have in common: id, model, service tier, time and usage. Return the answer's fields."""
    attributes, values = reading.attributes, fields(body)
    for field, name in _COMMON:
        value = values.get(field)
        if isinstance(value, str) and value:
            attributes[name] = value
    # One or the other; the Responses API and the jobs say `created_at`.
    created = count(values.get("created"))
    if created is None:
        created = count(values.get("created_at"))
    if created is not None:
        attributes[semconv.CREATED] = created
    read_usage(reading, values.get("usage"))
    # Jobs and responses have an error of their own, and a status that says whether they failed.
    if (error := values.get("error")) is not None and values.get("status") is None:
        read_error(reading, error)
    return values


_COMMON = (
    ("id", semconv.RESPONSE_ID),
    ("model", semconv.RESPONSE_MODEL),
    ("service_tier", semconv.RESPONSE_SERVICE_TIER),
    ("system_fingerprint", semconv.SYSTEM_FINGERPRINT),
)


# --- Chat and completions ---------------------------------------------------------------------


def read_chat(reading: Reading, body: object) -> None:
    """
    Read a chat completion or a chunk of one; also a legacy completion, which has the same shape.

    Compatible servers put the usage of a stream elsewhere, too: Groq into `x_groq`, Moonshot into the one choice.
    Whether the usages of several choices are to be added up is not known.
    """
    values = read_answer(reading, body)
    reasons = reading.finish_reasons
    of_only_choice: object = None
    for position, choice in enumerate(items(values.get("choices"))):
        choice_values = fields(choice)
        index, reason = count(choice_values.get("index")), choice_values.get("finish_reason")
        key = position if index is None else index
        if reason is not None or key not in reasons:
            reasons[key] = reason if isinstance(reason, str) else None
        of_only_choice = choice_values.get("usage")
        if (error := choice_values.get("error")) is not None:
            read_error(reading, error)  # OpenRouter's.
    if (of_groq := values.get("x_groq")) is not None:
        read_error(reading, get(of_groq, "error"))
    if values.get("usage") is None:
        if of_only_choice is not None and len(reasons) == 1:
            read_usage(reading, of_only_choice)
        if of_groq is not None:
            read_usage(reading, get(of_groq, "usage"))
        _read_timings(reading, values.get("timings"))


def _read_timings(reading: Reading, timings: object) -> None:
    """
    Read what llama.cpp tells of a stream that was not asked for its usage: the tokens that it timed.

    https://github.com/ggml-org/llama.cpp/blob/b6800/tools/server/README.md#timings-and-context-usage
    """
    if timings is None or reading.has_usage:
        return
    values = fields(timings)
    new, cached, output = (
        count(values.get(name)) for name in ("prompt_n", "cache_n", "predicted_n")
    )
    if new is not None and cached is not None and output is not None:
        usage = {"prompt_tokens": new + cached, "completion_tokens": output}
        read_usage(reading, {**usage, "cached_tokens": cached})


def read_error(reading: Reading, error: object) -> None:
    """Read the error that compatible servers put into an answer whose status says that all is well."""
    if error is None or error in ("", False):
        return
    values = fields(error)
    message = error if isinstance(error, str) else values.get("message")
    code = next((values[name] for name in ("code", "type") if values.get(name)), None)
    if values or isinstance(error, str):
        reading.error = (str(code or "_OTHER"), str(message or "the answer is an error"))


def read_chat_chunk(reading: Reading, chunk: object) -> None:
    """Read a chunk of a chat stream; most carry one more piece of text and nothing else, so they cost little."""
    if reading.attributes:
        values = fields(chunk)
        choices = cast("list[object]", values.get("choices"))
        if (
            type(choices) is list
            and len(choices) == 1
            and values.get("usage") is None
            and values.get("error") is None
            and values.get("x_groq") is None
        ):
            choice = fields(choices[0])
            index = choice.get("index")
            # Also a wrong number is one that is known or not; what is no number is looked at in full.
            if (
                choice.get("finish_reason") is None
                and choice.get("usage") is None
                and type(index) is int
                and index in reading.finish_reasons
            ):
                return
    read_chat(reading, chunk)


# --- Responses --------------------------------------------------------------------------------


def read_response(reading: Reading, body: object) -> None:
    """Read an object of the Responses API."""
    read_answer(reading, body)
    attributes = reading.attributes
    status = get(body, "status")
    output = list(items(get(body, "output")))
    if status in ("failed", "cancelled"):
        reading.finish_reasons = {0: "error"}
    elif status == "incomplete":
        reason = get(get(body, "incomplete_details"), "reason")
        reading.finish_reasons = {
            0: "length" if reason == "max_output_tokens" else str(reason or status)
        }
    elif status == "completed":
        kinds = {kind for item in output if isinstance(kind := get(item, "type"), str)}
        reasons = [
            reason
            for reason, types in (
                ("tool_calls", {"function_call", "custom_tool_call"}),
                ("stop", {"message"}),
            )
            if kinds & types
        ]
        reading.finish_reasons = dict(enumerate(reasons or ["stop"]))
    put(attributes, semconv.CONVERSATION_ID, get(get(body, "conversation"), "id"), string)
    if status == "failed":
        error = get(body, "error")
        reading.error = (
            str(get(error, "code") or "_OTHER"),
            str(get(error, "message") or "the response failed"),
        )
    _read_server_tools(reading, get(body, "tool_usage"), output)
    if get(body, "background") is True:
        _name_job(reading, body, ended=status in _RESPONSE_ENDED)
        if status in _RESPONSE_DONE or (reading.has_usage and status in _RESPONSE_ENDED):
            reading.due()


def read_response_event(
    reading: Reading, event: object, read: Callable[[Reading, object], None] = read_response
) -> None:
    """Read an event of a Responses stream: those that carry the response itself."""
    kind = get(event, "type")
    if type(kind) is str and kind in _RESPONSE_EVENTS:
        read(reading, get(event, "response"))
    elif kind == "error":
        reading.error = (
            str(get(event, "code") or "_OTHER"),
            str(get(event, "message") or "the stream failed"),
        )
        read_error(reading, get(event, "error"))
    elif kind is None:
        read_error(reading, get(event, "error"))


def read_fetched_response(reading: Reading, body: object) -> None:
    """Read a response that was asked for again."""
    read_response(reading, body)
    put(reading.attributes, semconv.RESPONSE_STATUS, get(body, "status"), string)


def read_fetched_response_event(reading: Reading, event: object) -> None:
    """Read an event of a response whose stream was asked for again."""
    read_response_event(reading, event, read_fetched_response)


_RESPONSE_EVENTS = frozenset(
    f"response.{state}"
    for state in ("created", "queued", "in_progress", "completed", "incomplete", "failed")
)
_RESPONSE_DONE = ("completed", "incomplete")
_RESPONSE_ENDED = ("completed", "incomplete", "failed", "cancelled")


def _read_server_tools(reading: Reading, tool_usage: object, output: Sequence[object]) -> None:
    """Read what the tools of the provider's own cost: as it tells, else by counting their calls in the output."""
    attributes = reading.attributes
    searches = count(get(get(tool_usage, "web_search"), "num_requests"))
    if searches is not None:
        attributes[semconv.WEB_SEARCH_CALLS] = searches
    image_generation = get(tool_usage, "image_gen")
    for field, name in (
        ("input_tokens", semconv.IMAGE_GENERATION_INPUT_TOKENS),
        ("output_tokens", semconv.IMAGE_GENERATION_OUTPUT_TOKENS),
    ):
        put(attributes, name, get(image_generation, field), count)
    calls: dict[str, int] = {}
    drawings: list[object] = []
    for item in output:
        name = _SERVER_TOOLS.get(str(get(item, "type")))
        if name is not None:
            calls[name] = calls.get(name, 0) + 1
            drawings.append(get(item, "svg_usage"))
    for name, number in calls.items():
        if name != semconv.WEB_SEARCH_CALLS or searches is None:
            attributes[name] = number
            attributes[semconv.COUNTED] = True
    _read_drawings(attributes, drawings)


_SERVER_TOOLS = {
    "web_search_call": semconv.WEB_SEARCH_CALLS,
    "file_search_call": semconv.FILE_SEARCH_CALLS,
    "code_interpreter_call": semconv.CODE_INTERPRETER_CALLS,
    "image_generation_call": semconv.IMAGE_GENERATION_CALLS,
}


def _read_drawings(attributes: Attributes, usages: Sequence[object]) -> None:
    """Read the tokens of drawings, which a model of its own makes and which are in no total."""
    for field, name in (
        ("input_tokens", semconv.SVG_INPUT_TOKENS),
        ("output_tokens", semconv.SVG_OUTPUT_TOKENS),
    ):
        tokens = [number for usage in usages if (number := count(get(usage, field))) is not None]
        if tokens:
            attributes[name] = sum(tokens)
    for usage in usages:
        put(attributes, semconv.SVG_MODEL, get(usage, "model"), string)


# --- Embeddings and moderations ---------------------------------------------------------------


def read_embeddings(reading: Reading, body: object) -> None:
    """Read the answer to an embeddings request. The conventions give its span no response id and no output."""
    attributes = reading.attributes
    put(attributes, semconv.RESPONSE_MODEL, get(body, "model"), string)
    data = get(body, "data")
    if isinstance(data, list):
        embeddings = cast("list[object]", data)
        attributes[semconv.EMBEDDING_COUNT] = len(embeddings)
        if embeddings:
            put(attributes, semconv.EMBEDDING_DIMENSIONS, get(embeddings[0], "embedding"), _length)
    read_usage(reading, get(body, "usage"))
    read_error(reading, get(body, "error"))


def _length(embedding: object) -> int | None:
    """Return how many numbers an embedding has: a list, or base64 of floats of 32 bits."""
    if isinstance(embedding, str):
        return len(embedding.rstrip("=")) * 3 // 16 or None
    return len(cast("list[object]", embedding)) or None if isinstance(embedding, list) else None


def read_moderation(reading: Reading, body: object) -> None:
    """Read the answer to a moderation, which is free."""
    read_answer(reading, body)
    results = list(items(get(body, "results")))
    if results:
        reading.attributes[semconv.FLAGGED] = any(get(item, "flagged") is True for item in results)


# --- Images -----------------------------------------------------------------------------------


def read_images(reading: Reading, body: object) -> None:
    """Read images: how many, and the tokens of those models that count them."""
    read_answer(reading, body)
    attributes = reading.attributes
    _read_look(attributes, body)
    data = get(body, "data")
    if isinstance(data, list):
        _count_images(reading, len(data))  # pyright: ignore[reportUnknownArgumentType]
    _read_drawings(attributes, [get(body, "svg_usage")])


def read_images_event(reading: Reading, event: object) -> None:
    """Read an event of an image stream: the one that brings an image that is finished."""
    if get(event, "type") in ("image_generation.completed", "image_edit.completed"):
        put(reading.attributes, semconv.CREATED, get(event, "created_at"), count)
        _read_look(reading.attributes, event)
        read_usage(reading, get(event, "usage"))
        _count_images(reading, reading.attributes.get(semconv.IMAGES, 0) + 1)
    read_error(reading, get(event, "error"))


def _read_look(attributes: Attributes, body: object) -> None:
    for field, name in (("size", semconv.SIZE), ("quality", semconv.QUALITY)):
        put(attributes, name, get(body, field), string)


def _count_images(reading: Reading, number: int) -> None:
    reading.attributes[semconv.IMAGES] = number
    reading.attributes[semconv.IMAGE_COUNT] = number
    reading.has_usage = True


# --- Audio ------------------------------------------------------------------------------------


def read_transcription(reading: Reading, body: object) -> None:
    """Read a transcription or translation. Of its text only the length; of a plain text there is nothing else."""
    attributes = reading.attributes
    text = body if isinstance(body, str) else get(body, "text")
    if isinstance(text, str):
        attributes[semconv.TEXT_LENGTH] = len(text)
    put(attributes, semconv.LANGUAGE, get(body, "language"), string)
    read_usage(reading, get(body, "usage"))
    read_error(reading, get(body, "error"))
    if not reading.has_usage and (seconds := quantity(get(body, "duration"))) is not None:
        attributes[semconv.AUDIO_SECONDS] = seconds
        reading.has_usage = True


def read_transcription_event(reading: Reading, event: object) -> None:
    """Read an event of a transcription stream: the one that has all of the text."""
    if get(event, "type") == "transcript.text.done":
        read_transcription(reading, event)
    read_error(reading, get(event, "error"))


def read_speech(reading: Reading, body: object) -> None:  # noqa: ARG001 - it is sound
    """Read nothing: a recording says nothing about itself. It costs the characters that were requested."""
    reading.has_usage = True


def read_speech_event(reading: Reading, event: object) -> None:
    """Read an event of a streamed recording: the last one."""
    if get(event, "type") == "speech.audio.done":
        read_usage(reading, get(event, "usage"))
    read_error(reading, get(event, "error"))


# --- Jobs -------------------------------------------------------------------------------------


def read_batch(reading: Reading, body: object) -> None:
    """Read a batch, which costs what it says once it has ended; one of which nothing was done costs nothing."""
    _read_job(reading, body, ("id", semconv.JOB_ID), ("status", semconv.STATUS))
    status = get(body, "status")
    completed = count(get(get(body, "request_counts"), "completed"))
    if status == "completed" or (
        status in ("expired", "cancelled", "failed") and (reading.has_usage or completed)
    ):
        put(reading.attributes, semconv.BATCH_REQUESTS, completed, count)
        # How many requests it was is no usage.
        reading.due(only=None if reading.has_usage else {semconv.USAGE_STATUS: "missing"})


def read_fine_tuning_created(reading: Reading, body: object) -> None:
    """Read a fine-tuning job that was just created: an event of its own, which costs nothing yet."""
    read_fine_tuning(reading, body)
    if reading.job is not None:
        reading.due("created", {semconv.USAGE_STATUS: "not_applicable"})


def read_fine_tuning(reading: Reading, body: object) -> None:
    """Read a fine-tuning job, which costs the tokens it trained with once it has succeeded."""
    _read_job(
        reading,
        body,
        ("id", semconv.JOB_ID),
        ("status", semconv.STATUS),
        ("model", semconv.MODEL),
        ("training_file", semconv.TRAINING_FILE),
        ("validation_file", semconv.VALIDATION_FILE),
    )
    if get(body, "status") == "succeeded":
        trained = reading.due("succeeded")
        put(trained, semconv.TRAINED_TOKENS, get(body, "trained_tokens"), count)
        reading.has_usage = bool(trained)


def read_run(reading: Reading, body: object) -> None:
    """Read a run of an assistant, which has usage once it has ended."""
    _read_job(
        reading,
        body,
        ("id", semconv.RUN_ID),
        ("thread_id", semconv.THREAD_ID),
        ("assistant_id", semconv.ASSISTANT_ID),
        ("status", semconv.STATUS),
    )
    status = get(body, "status")
    if status in ("completed", "incomplete") or (
        status in ("failed", "cancelled", "expired") and reading.has_usage
    ):
        reading.due()


def read_run_event(reading: Reading, event: object) -> None:
    """Read an event of a run's stream, as the SDK has it or as its bare data: those that are the run."""
    run = get(event, "data") or event
    if get(run, "object") == "thread.run":
        read_run(reading, run)


def read_video(reading: Reading, body: object) -> None:
    """Read a video, which costs its seconds once it is completed."""
    _read_job(
        reading,
        body,
        ("id", semconv.JOB_ID),
        ("status", semconv.STATUS),
        ("size", semconv.SIZE),
    )
    seconds = quantity(get(body, "seconds"))
    if seconds is not None:
        reading.attributes[semconv.VIDEO_SECONDS] = seconds
        reading.has_usage = True
    if get(body, "status") == "completed":
        reading.due()


def read_video_download(reading: Reading, body: object) -> None:  # noqa: ARG001 - it is the film
    """Read nothing: what can be downloaded is completed."""
    put(reading.attributes, semconv.JOB_ID, reading.job, string)
    reading.due()
    reading.has_ended = True


def read_eval_run(reading: Reading, body: object) -> None:
    """Read a run of an evaluation, which costs what each of its models used once it has ended."""
    _read_job(
        reading,
        body,
        ("id", semconv.RUN_ID),
        ("eval_id", semconv.EVAL_ID),
        ("status", semconv.STATUS),
    )
    if get(body, "status") not in ("completed", "failed", "canceled", "cancelled"):
        return
    for usage in items(get(body, "per_model_usage")):
        # In the SDK's object the field has another name than in JSON.
        model = string(get(usage, "model_name")) or string(get(usage, "run_model_name"))
        part = Reading()
        read_usage(part, usage)
        put(part.attributes, semconv.CACHE_READ_TOKENS, get(usage, "cached_tokens"), count)
        if model is not None and part.has_usage:
            reading.due(model, {**part.attributes, semconv.RESPONSE_MODEL: model})
            reading.has_usage = True
    if get(body, "status") == "completed" and not reading.charges:
        reading.due()


def read_grader_run(reading: Reading, body: object) -> None:
    """Read a trial of a grader, which tells the tokens of its model as one number."""
    metadata = get(body, "metadata")
    put(reading.attributes, semconv.RESPONSE_MODEL, get(metadata, "sampled_model_name"), string)
    if (tokens := count(get(metadata, "token_usage"))) is not None:
        reading.attributes[semconv.TOTAL_TOKENS] = tokens
        reading.has_usage = True


def pages_of(read: Callable[[Reading, object], None]) -> Callable[[Reading, object], None]:
    """Return what reads a page of jobs, each as `read` reads one: those that have ended are `listed`."""

    def read_page(reading: Reading, body: object) -> None:
        for job in items(get(body, "data")):
            read(one := Reading(), job)
            if one.charges:
                reading.show(one)

    read_page.__name__ = f"{read.__name__}_pages"
    return read_page


def _read_job(reading: Reading, body: object, *details: tuple[str, str]) -> None:
    read_answer(reading, body)
    # What the job is known by is in its own details; a response it is not.
    reading.attributes.pop(semconv.RESPONSE_ID, None)
    _name_job(reading, body, ended=get(body, "status") in _ENDED)
    for field, name in details:
        put(reading.attributes, name, get(body, field), string)


_ENDED = ("completed", "succeeded", "incomplete", "failed", "cancelled", "canceled", "expired")
"""The states in which a job stays. A tuple, since what a server sends for a state need not be hashable."""


def _name_job(reading: Reading, body: object, *, ended: bool) -> None:
    """Read which job an answer is about, and whether it has ended."""
    known, reading.job = reading.job, string(get(body, "id")) or reading.job
    reading.is_news |= known is None
    reading.has_ended = ended
