"""
Every call that is charged when it is answered: how it is made, what it is answered, and what must be recorded of it.

One row per shape of an answer. A method that the installed version of the SDK lacks has no row.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tests import replies
from tests.provider import Reply
from tests.sdk import FORMS, HELPER, VERSION, Form


@dataclass(frozen=True)
class Case:
    """A call: how it is made, what it is answered, and what must be recorded of it."""

    name: str
    """Of the row, in the ids of tests."""
    method: str
    """The SDK's method by its dotted path."""
    path: str
    arguments: dict[str, Any]
    endpoint: str
    operation: str
    model: str | None
    """The model of the request, None where it names none."""
    request: dict[str, Any] = field(default_factory=dict[str, Any])
    """Further span attributes of the request."""
    response: dict[str, Any] = field(default_factory=dict[str, Any])
    """Span attributes of the answer."""
    tokens: tuple[int, int, int] = (0, 0, 0)
    """Of input, of output, and in total."""
    usage: dict[str, int | float | bool] = field(default_factory=dict[str, "int | float | bool"])
    usage_status: str = "reported"
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    """Event metadata of the answer."""
    error_attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    error_metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    answer: Reply | None = None
    """What a call is answered that asks for no stream."""
    chunks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What a call is answered that asks for a stream."""
    without: tuple[str, ...] = ()
    """The forms that do not exist for this method, or that say nothing."""
    since: tuple[int, int] = (1, 0)
    """The oldest of the SDK's versions under test that has the method."""
    deprecated_since: tuple[int, int] = (99, 0)
    """From when on the method warns that it is deprecated."""

    @property
    def span_name(self) -> str:
        """The name of the call's span."""
        return self.operation if self.model is None else f"{self.operation} {self.model}"

    @property
    def forms(self) -> tuple[Form, ...]:
        """The forms in which the installed SDK can make this call."""
        if self.since > VERSION:
            return ()
        if self.method.endswith(".stream"):
            return (HELPER,)
        return tuple(
            form
            for form in FORMS
            if form.name not in self.without and (self.chunks if form.streaming else self.answer)
        )

    def reply(self, form: Form, **headers: str) -> Reply:
        """Return the answer to this call in one of its forms."""
        if form.streaming:
            return Reply(events=self.chunks, headers=headers)
        assert self.answer is not None
        return replace(self.answer, headers={**self.answer.headers, **headers})


MESSAGES = [{"role": "user", "content": "What is the secret?"}]

CHAT = Case(
    name="chat.completions.create",
    method="chat.completions.create",
    path="/v1/chat/completions",
    arguments={
        "model": "gpt-4o-mini",
        "messages": MESSAGES,
        "temperature": 0,
        "top_p": 0.5,
        "max_tokens": 64,
        "frequency_penalty": 0.25,
        "presence_penalty": -0.25,
        "n": 1,
        "stop": "END",
        # What the oldest SDK does not know by name.
        "extra_body": {"seed": 7, "response_format": {"type": "json_object"}},
        "user": "someone",
    },
    answer=Reply(json=replies.CHAT),
    chunks=replies.chat_chunks(),
    endpoint="chat.completions",
    operation="chat",
    model="gpt-4o-mini",
    request={
        "openai.api.type": "chat_completions",
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.frequency_penalty": 0.25,
        "gen_ai.request.presence_penalty": -0.25,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.output.type": "json",
    },
    response={
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.finish_reasons": ("stop",),
        "openai.response.service_tier": "default",
        "openai.response.system_fingerprint": "fp_1",
        "gen_ai.usage.input_tokens": 19,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 7,
        "gen_ai.usage.cache_write.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 4,
    },
    tokens=(19, 10, 29),
    usage={
        "cache_read_input_tokens": 7,
        "cache_write_input_tokens": 3,
        "reasoning_output_tokens": 4,
        "audio_input_tokens": 0,
        "audio_output_tokens": 0,
        "accepted_prediction_tokens": 2,
        "rejected_prediction_tokens": 1,
    },
    metadata={
        "response_id": "chatcmpl-1",
        "created": 1_700_000_001,
        "finish_reason": "stop",
        "service_tier": "default",
    },
    error_attributes={"gen_ai.response.finish_reasons": ("error",)},
    error_metadata={"response_id": None, "created": None, "finish_reason": None},
)

RESPONSES = Case(
    name="responses.create",
    method="responses.create",
    path="/v1/responses",
    arguments={
        "model": "gpt-5-mini",
        "input": "What is the secret?",
        "max_output_tokens": 64,
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "text"}},
        "previous_response_id": "resp_0",
        "extra_body": {"service_tier": "flex"},
        "metadata": {"theirs": "untouched"},
    },
    answer=Reply(json=replies.RESPONSE),
    chunks=replies.response_events(),
    endpoint="responses",
    operation="chat",
    model="gpt-5-mini",
    request={
        "openai.api.type": "responses",
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.request.previous_response.id": "resp_0",
        "gen_ai.output.type": "text",
        "openai.request.service_tier": "flex",
    },
    response={
        "gen_ai.response.id": "resp_1",
        "gen_ai.response.model": "gpt-5-mini-2025-08-07",
        "gen_ai.response.finish_reasons": ("stop",),
        "openai.response.service_tier": "default",
        "gen_ai.usage.input_tokens": 23,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.usage.reasoning.output_tokens": 5,
    },
    tokens=(23, 12, 35),
    usage={
        "cache_read_input_tokens": 8,
        "cache_write_input_tokens": 0,
        "reasoning_output_tokens": 5,
    },
    metadata={
        "response_id": "resp_1",
        "created": 1_700_000_002,
        "finish_reason": "stop",
        "service_tier": "default",
    },
    error_attributes={"gen_ai.response.finish_reasons": ("error",)},
    error_metadata={"response_id": None, "created": None, "finish_reason": None},
    since=(1, 66),
)

PICTURE = ("picture.png", b"\x89PNG\r\n", "image/png")
RECORDING = ("recording.wav", b"RIFF", "audio/wav")

IMAGES = Case(
    name="images.generate",
    method="images.generate",
    path="/v1/images/generations",
    arguments={
        "prompt": "a secret",
        "n": 2,
        "size": "1024x1024",
        # What the oldest SDK does not know by name.
        "extra_body": {"model": "gpt-image-1", "quality": "auto"},
    },
    answer=Reply(json=replies.IMAGES),
    endpoint="images.generate",
    operation="images.generate",
    model="gpt-image-1",
    response={
        "gen_ai.usage.input_tokens": 50,
        "gen_ai.usage.output_tokens": 1056,
        "gen_ai.usage.text.input_tokens": 10,
        "gen_ai.usage.image.input_tokens": 40,
        "gen_ai.usage.text.output_tokens": 16,
        "gen_ai.usage.image.output_tokens": 1040,
        "cmdrdata.usage.images": 2,
    },
    tokens=(50, 1056, 1106),
    usage={
        "text_input_tokens": 10,
        "image_input_tokens": 40,
        "text_output_tokens": 16,
        "image_output_tokens": 1040,
        "images": 2,
    },
    metadata={
        # As returned, which is more than what was requested.
        "created": 1_700_000_006,
        "image_count": 2,
        "size": "1024x1536",
        "quality": "high",
        "style": None,
        "operation": "generate",
    },
    error_metadata={
        "created": None,
        "image_count": 0,
        "size": "1024x1024",
        "quality": "auto",
        "style": None,
        "operation": "generate",
    },
)

IMAGES_STREAMED = replace(
    IMAGES,
    name="images.generate-streamed",
    answer=None,
    chunks=replies.image_events("image_generation"),
    response={**IMAGES.response, "cmdrdata.usage.images": 1},
    usage={**IMAGES.usage, "images": 1},
    metadata={**IMAGES.metadata, "image_count": 1},
    since=(2, 54),
)

EDIT = replace(
    IMAGES,
    name="images.edit",
    method="images.edit",
    path="/v1/images/edits",
    arguments={**IMAGES.arguments, "image": PICTURE},
    endpoint="images.edit",
    operation="images.edit",
    metadata={**IMAGES.metadata, "operation": "edit"},
    error_metadata={**IMAGES.error_metadata, "operation": "edit"},
)

TRANSCRIPTION = Case(
    name="audio.transcriptions.create",
    method="audio.transcriptions.create",
    path="/v1/audio/transcriptions",
    arguments={"file": RECORDING, "model": "gpt-4o-transcribe", "prompt": "the secret"},
    answer=Reply(json={"text": "hello there", "usage": replies.TRANSCRIPTION_USAGE}),
    endpoint="audio.transcriptions",
    operation="audio.transcriptions",
    model="gpt-4o-transcribe",
    response={
        "gen_ai.usage.input_tokens": 14,
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.usage.text.input_tokens": 4,
        "gen_ai.usage.audio.input_tokens": 10,
    },
    tokens=(14, 6, 20),
    usage={"text_input_tokens": 4, "audio_input_tokens": 10},
    metadata={
        "operation": "transcription",
        "language": "auto",
        "response_format": "json",
        "text_length": 11,
    },
    error_metadata={
        "operation": "transcription",
        "language": "auto",
        "response_format": "json",
        "text_length": None,
    },
)

TRANSCRIPTION_VERBOSE = replace(
    TRANSCRIPTION,
    name="audio.transcriptions.create-verbose",
    arguments={"file": RECORDING, "model": "whisper-1", "response_format": "verbose_json"},
    answer=Reply(
        json={
            "task": "transcribe",
            "language": "english",
            "duration": 8.5,
            "text": "hello",
            "segments": [],
        }
    ),
    model="whisper-1",
    response={"cmdrdata.usage.audio_seconds": 8.5},
    tokens=(0, 0, 0),
    usage={"audio_seconds": 8.5},
    metadata={
        **TRANSCRIPTION.metadata,
        "language": "english",
        "response_format": "verbose_json",
        "text_length": 5,
    },
    error_metadata={**TRANSCRIPTION.error_metadata, "response_format": "verbose_json"},
)

SPEECH = Case(
    name="audio.speech.create",
    method="audio.speech.create",
    path="/v1/audio/speech",
    arguments={
        "model": "tts-1",
        "voice": "alloy",
        "input": "hello there",
        "response_format": "mp3",
    },
    # What looks like usage in sound is none.
    answer=Reply(
        content=b'\xff\xfbdata: {"type": "speech.audio.done", "usage": {"input_tokens": 5}}\n\n',
        headers={"content-type": "audio/mpeg"},
    ),
    endpoint="audio.speech",
    operation="audio.speech",
    model="tts-1",
    response={"cmdrdata.usage.characters": 11},
    usage={"characters": 11},
    metadata={"operation": "speech", "voice": "alloy", "response_format": "mp3"},
    error_metadata={"operation": "speech", "voice": "alloy", "response_format": "mp3"},
    # An unread sound that is parsed is a sound that is still unread.
    without=("streaming-raw",),
    since=(1, 66),
)

CASES = (
    CHAT,
    replace(
        CHAT,
        name="beta.chat.completions.parse",
        method="beta.chat.completions.parse",
        chunks=[],
        without=("streaming-raw", "streaming-raw-bytes"),
        since=(1, 66),
    ),
    replace(
        CHAT,
        name="chat.completions.parse",
        method="chat.completions.parse",
        chunks=[],
        since=(2, 54),
    ),
    replace(
        CHAT,
        name="beta.chat.completions.stream",
        method="beta.chat.completions.stream",
        since=(1, 66),
    ),
    replace(CHAT, name="chat.completions.stream", method="chat.completions.stream", since=(2, 54)),
    Case(
        name="completions.create",
        method="completions.create",
        path="/v1/completions",
        arguments={
            "model": "gpt-3.5-turbo-instruct",
            "prompt": "What is the secret?",
            "n": 2,
            "extra_body": {"seed": 7},
        },
        answer=Reply(json=replies.COMPLETION),
        chunks=replies.completion_chunks(),
        endpoint="completions",
        operation="text_completion",
        model="gpt-3.5-turbo-instruct",
        request={"gen_ai.request.choice.count": 2, "gen_ai.request.seed": 7},
        response={
            "gen_ai.response.id": "cmpl-1",
            "gen_ai.response.model": "gpt-3.5-turbo-instruct:20230824-v2",
            "gen_ai.response.finish_reasons": ("length",),
            "gen_ai.usage.input_tokens": 5,
            "gen_ai.usage.output_tokens": 7,
        },
        tokens=(5, 7, 12),
        metadata={"response_id": "cmpl-1", "created": 1_700_000_003, "finish_reason": "length"},
        error_attributes={"gen_ai.response.finish_reasons": ("error",)},
        error_metadata={"response_id": None, "created": None},
    ),
    RESPONSES,
    replace(
        RESPONSES,
        name="responses.parse",
        method="responses.parse",
        chunks=[],
        without=("raw", "raw-unparsed", "streaming-raw", "streaming-raw-bytes"),
    ),
    replace(
        RESPONSES,
        name="responses.parse-later",
        method="responses.parse",
        chunks=[],
        without=("plain", "streaming-raw", "streaming-raw-bytes"),
        since=(2, 54),
    ),
    replace(RESPONSES, name="responses.stream", method="responses.stream"),
    replace(
        RESPONSES,
        name="beta.responses.create",
        method="beta.responses.create",
        since=(2, 54),
    ),
    Case(
        name="responses.compact",
        method="responses.compact",
        path="/v1/responses/compact",
        arguments={
            "model": "gpt-5-mini",
            "input": "What is the secret?",
            "previous_response_id": "resp_0",
        },
        answer=Reply(json=replies.COMPACTION),
        endpoint="responses.compact",
        operation="chat",
        model="gpt-5-mini",
        request={
            "openai.api.type": "responses",
            "gen_ai.request.previous_response.id": "resp_0",
        },
        response={
            "gen_ai.response.id": "resp_2",
            "gen_ai.usage.input_tokens": 139,
            "gen_ai.usage.output_tokens": 43,
            "gen_ai.usage.cache_read.input_tokens": 11,
            "gen_ai.usage.reasoning.output_tokens": 6,
        },
        tokens=(139, 43, 182),
        usage={
            "cache_read_input_tokens": 11,
            "cache_write_input_tokens": 0,
            "reasoning_output_tokens": 6,
        },
        metadata={"response_id": "resp_2", "created": 1_700_000_004},
        error_metadata={"response_id": None, "created": None},
        since=(2, 54),
    ),
    Case(
        name="embeddings.create",
        method="embeddings.create",
        path="/v1/embeddings",
        arguments={
            "model": "text-embedding-3-small",
            "input": ["a", "b"],
            "encoding_format": "float",
            "extra_body": {"dimensions": 2},
        },
        answer=Reply(json=replies.EMBEDDINGS),
        endpoint="embeddings",
        operation="embeddings",
        model="text-embedding-3-small",
        request={
            "gen_ai.request.encoding_formats": ("float",),
            "gen_ai.embeddings.dimension.count": 2,
        },
        response={
            "gen_ai.response.model": "text-embedding-3-small-v2",
            "gen_ai.usage.input_tokens": 9,
        },
        tokens=(9, 0, 9),
        metadata={"response_id": None, "created": None, "embedding_count": 2},
        error_metadata={"response_id": None, "created": None, "embedding_count": None},
    ),
    Case(
        name="decisions.create",
        method="decisions.create",
        path="/v1/decisions",
        arguments={
            "model": "gpt-6-luna",
            "input": "What is the secret?",
            "questions": [{"type": "predicate", "name": "spam", "question": "Is it spam?"}],
        },
        answer=Reply(json=replies.DECISION),
        endpoint="decisions",
        operation="decisions",
        model="gpt-6-luna",
        response={
            "gen_ai.response.id": "decision_1",
            "gen_ai.response.model": "gpt-6-luna-2026-10-01",
            "gen_ai.usage.input_tokens": 31,
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.usage.cache_read.input_tokens": 13,
            "gen_ai.usage.reasoning.output_tokens": 1,
        },
        tokens=(31, 3, 34),
        usage={
            "cache_read_input_tokens": 13,
            "cache_write_input_tokens": 0,
            "reasoning_output_tokens": 1,
        },
        metadata={"response_id": "decision_1", "created": 1_700_000_005},
        since=(3, 54),
    ),
    Case(
        name="moderations.create",
        method="moderations.create",
        path="/v1/moderations",
        arguments={"model": "omni-moderation-latest", "input": ["a secret", "another"]},
        answer=Reply(json=replies.MODERATION),
        endpoint="moderations",
        operation="moderations",
        model="omni-moderation-latest",
        response={
            "gen_ai.response.id": "modr-1",
            "gen_ai.response.model": "omni-moderation-2024-09-26",
        },
        usage_status="not_applicable",
        metadata={"response_id": "modr-1", "flagged": True},
        error_metadata={"response_id": None, "flagged": None},
    ),
    IMAGES,
    replace(
        IMAGES,
        name="images.generate-drawn",
        answer=Reply(
            json={
                **replies.IMAGES,
                "svg_usage": {
                    "model": "gpt-6-draw",
                    "input_tokens": 71,
                    "output_tokens": 73,
                    "reasoning_tokens": 2,
                    "total_tokens": 144,
                },
            }
        ),
        # Drawing is charged beside the images, with tokens of a model of its own.
        response={
            **IMAGES.response,
            "cmdrdata.usage.svg_input_tokens": 71,
            "cmdrdata.usage.svg_output_tokens": 73,
        },
        usage={**IMAGES.usage, "svg_input_tokens": 71, "svg_output_tokens": 73},
        metadata={**IMAGES.metadata, "svg_model": "gpt-6-draw"},
    ),
    replace(
        IMAGES,
        name="images.generate-uncounted",
        arguments={
            "prompt": "a secret",
            "extra_body": {"model": "dall-e-3", "style": "vivid"},
        },
        answer=Reply(json=replies.PAINTED),
        model="dall-e-3",
        response={"cmdrdata.usage.images": 1},
        tokens=(0, 0, 0),
        usage={"images": 1},
        metadata={
            "created": 1_700_000_007,
            "image_count": 1,
            "size": None,
            "quality": None,
            "style": "vivid",
            "operation": "generate",
        },
        error_metadata={
            "created": None,
            "image_count": 0,
            "size": None,
            "quality": None,
            "style": "vivid",
            "operation": "generate",
        },
    ),
    IMAGES_STREAMED,
    EDIT,
    replace(
        IMAGES_STREAMED,
        name="images.edit-streamed",
        method="images.edit",
        path="/v1/images/edits",
        arguments=EDIT.arguments,
        chunks=replies.image_events("image_edit"),
        endpoint="images.edit",
        operation="images.edit",
        metadata={**IMAGES_STREAMED.metadata, "operation": "edit"},
        error_metadata=EDIT.error_metadata,
    ),
    Case(
        name="images.create_variation",
        method="images.create_variation",
        path="/v1/images/variations",
        arguments={"image": PICTURE, "size": "512x512"},
        answer=Reply(json=replies.PAINTED),
        endpoint="images.create_variation",
        operation="images.create_variation",
        model="dall-e-2",
        response={"cmdrdata.usage.images": 1},
        usage={"images": 1},
        metadata={
            "created": 1_700_000_007,
            "image_count": 1,
            "size": "512x512",
            "quality": None,
            "style": None,
            "operation": "create_variation",
        },
        error_metadata={
            "created": None,
            "image_count": 0,
            "size": "512x512",
            "quality": None,
            "style": None,
            "operation": "create_variation",
        },
        deprecated_since=(3, 54),
    ),
    TRANSCRIPTION,
    replace(
        TRANSCRIPTION,
        name="audio.transcriptions.create-duration",
        arguments={**TRANSCRIPTION.arguments, "language": "de"},
        answer=Reply(json={"text": "hello", "usage": {"type": "duration", "seconds": 3.5}}),
        response={"cmdrdata.usage.audio_seconds": 3.5},
        tokens=(0, 0, 0),
        usage={"audio_seconds": 3.5},
        metadata={**TRANSCRIPTION.metadata, "language": "de", "text_length": 5},
        error_metadata={**TRANSCRIPTION.error_metadata, "language": "de"},
    ),
    TRANSCRIPTION_VERBOSE,
    replace(
        TRANSCRIPTION,
        name="audio.transcriptions.create-text",
        arguments={**TRANSCRIPTION.arguments, "response_format": "text"},
        answer=Reply(content=b"hello\n", headers={"content-type": "text/plain"}),
        response={},
        tokens=(0, 0, 0),
        usage={},
        usage_status="missing",
        metadata={**TRANSCRIPTION.metadata, "response_format": "text", "text_length": 6},
        error_metadata={**TRANSCRIPTION.error_metadata, "response_format": "text"},
    ),
    replace(
        TRANSCRIPTION,
        name="audio.transcriptions.create-streamed",
        answer=None,
        chunks=replies.transcription_events(),
        since=(2, 54),
    ),
    replace(
        TRANSCRIPTION_VERBOSE,
        name="audio.translations.create-verbose",
        method="audio.translations.create",
        path="/v1/audio/translations",
        endpoint="audio.translations",
        operation="audio.translations",
        metadata={**TRANSCRIPTION_VERBOSE.metadata, "operation": "translation"},
        error_metadata={**TRANSCRIPTION_VERBOSE.error_metadata, "operation": "translation"},
        deprecated_since=(3, 54),
    ),
    Case(
        name="audio.translations.create",
        method="audio.translations.create",
        path="/v1/audio/translations",
        arguments={"file": RECORDING, "model": "whisper-1"},
        answer=Reply(json={"text": "hello"}),
        endpoint="audio.translations",
        operation="audio.translations",
        model="whisper-1",
        usage_status="missing",
        metadata={
            "operation": "translation",
            "language": "auto",
            "response_format": "json",
            "text_length": 5,
        },
        error_metadata={
            "operation": "translation",
            "language": "auto",
            "response_format": "json",
            "text_length": None,
        },
        deprecated_since=(3, 54),
    ),
    SPEECH,
    replace(
        SPEECH,
        name="audio.speech.create-events",
        arguments={
            "model": "gpt-4o-mini-tts",
            "voice": "alloy",
            "input": "hello there",
            "extra_body": {"stream_format": "sse"},
        },
        answer=Reply(events=replies.SPEECH_EVENTS),
        model="gpt-4o-mini-tts",
        response={
            "gen_ai.usage.input_tokens": 8,
            "gen_ai.usage.output_tokens": 101,
            "cmdrdata.usage.characters": 11,
        },
        tokens=(8, 101, 109),
        metadata={"operation": "speech", "voice": "alloy", "response_format": None},
        error_metadata={"operation": "speech", "voice": "alloy", "response_format": None},
    ),
    Case(
        name="fine_tuning.alpha.graders.run",
        method="fine_tuning.alpha.graders.run",
        path="/v1/fine_tuning/alpha/graders/run",
        arguments={
            "grader": {"type": "score_model", "name": "grader", "model": "gpt-4o", "input": []},
            "model_sample": "a secret",
        },
        answer=Reply(json=replies.GRADER_RUN),
        endpoint="fine_tuning.alpha.graders",
        operation="fine_tuning.alpha.graders",
        model=None,
        response={"gen_ai.response.model": "gpt-4o-2024-08-06"},
        tokens=(0, 0, 77),
        since=(2, 54),
    ),
)
