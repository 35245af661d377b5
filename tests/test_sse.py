"""Server-sent events are found wherever a body is cut into parts, and nothing but the one that is ours is kept back."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opentelemetry_instrumentation_cmdrdata.openai import sse
from tests import replies

ENDS = ["\n\n", "\r\n\r\n", "\r\r"]
CHUNKS = replies.chat_chunks()
USAGE_ALONE = CHUNKS[-1]


def event(chunk: Any, end: str, *, blanks: bool) -> bytes:
    """Return a chunk as a server sends it."""
    data = json.dumps(chunk, separators=(", ", ": ") if blanks else (",", ":"))
    return f"data: {data}{end}".encode()


def is_ours(found: bytes) -> bool:
    """Say whether an event is the one that is kept back."""
    chunk = sse.json_of(found)
    return chunk is not None and "choices" in chunk and not chunk["choices"]


def fed(parts: list[bytes], *, keep_back: bool) -> tuple[list[bytes], list[bytes]]:
    """Return what the reader gets for each part, and at the end, and the events that were shown."""
    events, shown = sse.Events(keep_back=keep_back), list[bytes]()

    def show(found: bytes) -> bool:
        shown.append(found.strip())
        return is_ours(found)

    out = [events.feed(part, show) for part in parts]
    return [*out, events.finish(show)], [one for one in shown if one]


@given(
    st.lists(st.integers(0, 2000), max_size=12),
    st.sampled_from(ENDS),
    st.booleans(),
    st.booleans(),
)
def test_wherever_a_body_is_cut(cuts: list[int], end: str, blanks: bool, keep_back: bool) -> None:
    """The reader gets every byte but those of our event, and each event is shown once."""
    events = [event(chunk, end, blanks=blanks) for chunk in CHUNKS]
    rest = [f": a comment{end}".encode(), f"data: [DONE]{end}".encode()]
    body = b"".join([*events, *rest])
    edges = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    parts = [body[begin:stop] for begin, stop in pairwise(edges)]
    out, shown = fed(parts, keep_back=keep_back)
    kept = [*events[:-1], *rest] if keep_back else [*events, *rest]
    # A line feed may follow where a carriage return alone could have ended an event.
    assert b"".join(kept).replace(b"\r", b"").replace(b"\n", b"") == b"".join(out).replace(
        b"\r", b""
    ).replace(b"\n", b"")
    if end != "\r\n\r\n":
        assert b"".join(kept) == b"".join(out)
    assert [one.strip() for one in [*events, *rest]] == shown


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_what_is_held_up(end: str) -> None:
    """Byte for byte: held up is an event until it shows that it has choices, or is no chunk at all, and no longer."""
    first = event(CHUNKS[0], end, blanks=False)
    body = first + f"data: [DONE]{end}".encode()
    out, _ = fed([bytes([one]) for one in body], keep_back=True)
    choice = first.index(b'"choices":[{') + len(b'"choices":[{')
    assert [b""] * (choice - 1) == out[: choice - 1]
    assert first[:choice] == out[choice - 1]
    assert [bytes([one]) for one in first[choice:]] == out[choice : len(first)]
    assert body[: len(first) + 7] == b"".join(out[: len(first) + 7])


def test_an_event_longer_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too long to be kept goes by, and the next event is found."""
    monkeypatch.setattr(sse, "LONGEST", 100)
    parts = [b"data: " + b"x" * 80, b"y" * 80, b"z\n", b"\ndata: {}\n\n"]
    out, shown = fed(parts, keep_back=True)
    assert b"".join(parts) == b"".join(out)
    assert b"data: {}" == shown[-1]


def test_data_on_several_lines() -> None:
    """The data of an event is all its lines of data."""
    assert {"a": 1} == sse.json_of(b'event: x\r\ndata: {\r\ndata:"a": 1}\r\n\r\n')
    assert (None, None) == (sse.data(b": only a comment\n\n"), sse.json_of(b"data: [DONE]\n\n"))


PLAIN = {**CHUNKS[1]}
CHOICE = PLAIN["choices"][0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"choices": [{**CHOICE, "delta": {"content": '"usage":{} "finish_reason":"x"'}}]}, True),
        ({"choices": [{**CHOICE, "finish_reason": "stop"}]}, False),
        ({"choices": [{**CHOICE, "index": 1}]}, False),
        ({"choices": []}, False),
        ({"usage": {"prompt_tokens": 1}}, False),
        ({"id": "another"}, False),
        ({"error": {"message": "x"}, "choices": None}, False),
        ({"error": {"message": "x"}}, False),
        ({"x_groq": {"error": "x"}}, False),
        ({"choices": [{**CHOICE, "usage": {"prompt_tokens": 1}}]}, False),
    ],
    ids=str,
)
def test_what_need_not_be_parsed(changes: dict[str, Any], expected: bool) -> None:
    """Only a chunk that tells nothing new goes by unparsed."""
    pieces = sse.Pieces(of_choices=True)
    first = event(PLAIN, "\n\n", blanks=False)
    assert pieces.is_another(first) is False
    pieces.learn(first, PLAIN)
    changed = event({**PLAIN, **changes}, "\n\n", blanks=False)
    assert pieces.is_another(changed) is expected
    assert pieces.is_another(changed[:-1]) is False
    assert pieces.is_another(changed + changed) is False
    assert pieces.is_another(changed + b"d") is False


def test_deltas_need_not_be_parsed() -> None:
    """Of the newer endpoints' events those of one more delta go by unparsed, and no others."""
    events = [
        f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode()
        for one in replies.response_events()
    ]
    pieces = sse.Pieces(of_choices=False)
    unparsed = [
        number
        for number, one in enumerate(events)
        if pieces.is_another(one) or pieces.learn(one, sse.json_of(one))
    ]
    assert [5] == unparsed


_HEAD = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"'
_TAIL = b'"},"finish_reason":null}],"usage":null}\n\n'


@pytest.mark.parametrize(
    "event",
    [
        _HEAD + b"more" + _TAIL,
        _HEAD + _TAIL,
        _HEAD + b"more" + _TAIL + b"\n",
        _HEAD + b"one" + _TAIL + _HEAD + b"two" + _TAIL,
        _HEAD + b'"},"finish_reason":"stop"}],"usage":null}\n\n',
        _HEAD + b'"},"finish_reason":null}],"usage":{"total_tokens":1}}\n\n',
        _HEAD + b'"},"finish_reason":null}],"usage":null,"obfuscation":"x"}\n\n',
        _HEAD[:-9] + _TAIL,
        _TAIL,
        b"",
    ],
)
def test_a_beginning_and_an_ending_that_suffice(event: bytes) -> None:
    """What begins and ends as an event that brought only text is another one, and so are some that end otherwise."""
    pieces = sse.Pieces(of_choices=True)
    first = _HEAD + b"text" + _TAIL
    pieces.learn(first, json.loads(first[6:]))
    beginning, begins, ending, ends, _ = pieces.known
    assert (beginning, ending) == (first[:begins], _TAIL[3:])
    is_known = event[:begins] == beginning and event[event.find(b"\n", begins) - ends :] == ending
    assert is_known or event not in {_HEAD + b"more" + _TAIL, _HEAD + _TAIL}
    assert not is_known or pieces.is_another(event)


def test_an_ending_that_changes() -> None:
    """What OpenAI adds to each chunk against who measures its length keeps no chunk from going by unparsed."""
    pieces = sse.Pieces(of_choices=True)
    tail = _TAIL.replace(b"}\n\n", b',"obfuscation":"%b"}\n\n')
    first = _HEAD + b"text" + tail % b"Kx"
    pieces.learn(first, json.loads(first[6:]))
    assert pieces.is_another(_HEAD + b"more" + tail % b"p0QbY")
    assert not pieces.is_another(_HEAD + b"more" + tail.replace(b"null", b'"stop"', 1) % b"p")
