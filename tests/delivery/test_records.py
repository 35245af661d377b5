"""Records: what is written to disk, byte for byte, and what is read from it whatever is there."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdrdata_exporter.delivery import Event, Header
from cmdrdata_exporter.delivery.spool.records import (
    Command,
    UnknownRecordError,
    assigned,
    decode,
    encode_command,
    encode_event,
    key_of,
    line,
)

ID = "00112233445566778899aabbccddeeff"
HEADER = Header(
    "acme", "m", "chat.completions", "reported", {"input_tokens": 3, "seconds": 1.5}, "2026-11-21"
)
LINE = {
    "id": ID,
    "customer": "acme",
    "model": "m",
    "endpoint": "chat.completions",
    "status": "reported",
    "units": {"input_tokens": 3, "seconds": 1.5},
    "day": "2026-11-21",
}


def test_an_event_as_it_is_written() -> None:
    """The record of an event is one line of JSON and its body, as it is sent."""
    written = encode_event(ID, HEADER, b'{"customer_id":"acme"}\n\xff')
    assert written == (
        b'{"id":"00112233445566778899aabbccddeeff","customer":"acme","model":"m","endpoint":"chat.completions",'
        b'"status":"reported","units":{"input_tokens":3,"seconds":1.5},"day":"2026-11-21"}\n'
        b'{"customer_id":"acme"}\n\xff'
    )
    assert decode(written) == Event(ID, HEADER, b'{"customer_id":"acme"}\n\xff')


def test_what_is_held_and_remembered() -> None:
    """An event that waits for its customer says so, and so does one whose id may come again."""
    header = Header(None, "m", "e", "s", {}, "2026-11-21", hold=True, remember=86400)
    written = encode_event(ID, header, b"{}")
    assert json.loads(written.split(b"\n")[0]) == {
        "id": ID,
        "customer": None,
        "model": "m",
        "endpoint": "e",
        "status": "s",
        "units": {},
        "day": "2026-11-21",
        "hold": True,
        "remember": 86400,
    }
    assert decode(written) == Event(ID, header, b"{}")


@pytest.mark.parametrize(
    "command",
    [
        Command("assign", (bytes(16), b"\xff" * 16), "ac\u00e9\nme"),
        Command("replay", (bytes(range(16)),)),
        Command("drop", ()),
    ],
)
def test_commands(command: Command) -> None:
    """A command is a record without a body."""
    written = encode_command(command)
    assert written.endswith(b"}\n")
    assert decode(written) == command


def event_line(**changes: Any) -> bytes:
    """Return the record of an event whose line was changed."""
    return json.dumps({**LINE, **changes}).encode() + b"\n{}"


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"\n",
        b"\xff\xfe\n{}",
        b"[]\n",
        b"7\n",
        b'"command"\n',
        b"null\n",
        b"[" * 100_000,
        b'{"kind":"of a later version"}\n{}',
        event_line(id=7),
        event_line(customer=7),
        event_line(customer=["acme"]),
        event_line(model=None),
        event_line(endpoint={}),
        event_line(status=0),
        event_line(day=20261121),
        event_line(units=[1]),
        event_line(units={"input_tokens": "3"}),
        event_line(units={"input_tokens": None}),
        event_line(units={"input_tokens": float("nan")}),
        event_line(units={"input_tokens": float("inf")}),
        event_line(hold="yes"),
        event_line(customer_at="15"),
        event_line(remember="day"),
        event_line(remember=1.5),
        event_line(remember=-2),
        event_line(remember=2**63),
        b'{"command":"assign","keys":["zz"],"customer":"acme"}\n',
        b'{"command":"assign","keys":[1],"customer":"acme"}\n',
        b'{"command":"assign","keys":["00"],"customer":7}\n',
        b'{"command":"drop","keys":["00"]}\n',
        b'{"command":"forget","keys":["00"],"customer":null}\n',
        b'{"command":["drop"],"keys":["00"],"customer":null}\n',
    ],
    ids=lambda written: repr(written[:70]),
)
def test_what_this_version_does_not_know(written: bytes) -> None:
    """Whatever could not be dealt with is told as such when it is read, so that it holds up nothing later."""
    with pytest.raises(UnknownRecordError):
        decode(written)


def test_what_a_later_version_adds() -> None:
    """Further members of the line are no obstacle."""
    assert decode(event_line(region="eu")) == Event(ID, HEADER, b"{}")


texts = st.text(st.characters(codec=None), max_size=20)


@given(
    texts,
    texts | st.none(),
    st.dictionaries(texts, st.integers())
    | st.dictionaries(texts, st.integers() | st.floats(-1, 1)),
    st.binary(),
)
def test_any_event(
    event_id: str, customer: str | None, units: dict[str, float], body: bytes
) -> None:
    """
    Any event is read as it was written, half surrogate pairs and giant numbers included, and has a key.

    It is the same bytes where orjson is installed and where it is not.
    """
    event = Event(event_id, Header(customer, event_id, event_id, event_id, units, event_id), body)
    written = encode_event(*event)
    assert decode(written) == event
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cmdrdata_exporter.quick_json.orjson", None)
        assert encode_event(*event) == written
    assert len(key_of(event_id)) == 16


@pytest.mark.parametrize(
    "model", ["m", "\u00e9", "\x7f", '\x00\x1f"\\/\u2028', "\U0001f600", "\ud800"], ids=ascii
)
def test_the_same_bytes_with_and_without_orjson(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, of which one has orjson, write the same record of an event."""
    header = Header(None, model, "e", "s", {model: 2**63, "n": True}, "d", hold=True, customer_at=9)
    written = encode_event(ID, header, b"{}")
    monkeypatch.setattr("cmdrdata_exporter.quick_json.orjson", None)
    assert encode_event(ID, header, b"{}") == written


@given(st.binary())
def test_any_bytes(written: bytes) -> None:
    """Bytes that are no record are told as such, and nothing else happens."""
    with pytest.raises(UnknownRecordError):
        decode(written)


@pytest.mark.parametrize(
    ("event_id", "key"),
    [
        (ID, bytes.fromhex(ID)),
        (ID.upper(), hashlib.sha256(ID.upper().encode()).digest()[:16]),
        (" " + ID[1:], hashlib.sha256((" " + ID[1:]).encode()).digest()[:16]),
        ("g" * 32, hashlib.sha256(b"g" * 32).digest()[:16]),
        ("\u0663" * 32, hashlib.sha256(("\u0663" * 32).encode()).digest()[:16]),
        ("req_1", hashlib.sha256(b"req_1").digest()[:16]),
        ("Req_1", hashlib.sha256(b"Req_1").digest()[:16]),
        ("\ud800", hashlib.sha256(b"\xed\xa0\x80").digest()[:16]),
    ],
)
def test_keys(event_id: str, key: bytes) -> None:
    """The key of one of our own ids is its 16 bytes, that of any other a hash: two ids never share one."""
    assert key_of(event_id) == key


def test_assigning_a_customer() -> None:
    """The customer takes the place of the null that the record names, and nothing else of the body changes."""
    body = b'{"a":null,"customer_id":null,"b":"\xc3\xa9","customer_id2":null}'
    at = body.index(b"null", 9)
    header = Header(None, "m", "e", "s", {"n": 1}, "d", hold=True, customer_at=at, remember=5)
    written = encode_event(ID, header, body)
    assert Event(ID, header, body) == decode(written)
    new = assigned(written, 'A"c\u00e9\n')
    assert new is not None
    assert decode(new) == Event(
        ID,
        Header('A"c\u00e9\n', "m", "e", "s", {"n": 1}, "d", hold=False, remember=5),
        b'{"a":null,"customer_id":"A\\"c\xc3\xa9\\n","b":"\xc3\xa9","customer_id2":null}',
    )
    assert assigned(new, "another") is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"customer_id":null,"a":1}', b'{"customer_id":"acme","a":1}'),
        (b'{"a":1,"customer_id":null}', None),
    ],
)
def test_a_record_that_does_not_say_where_the_customer_goes(
    body: bytes, expected: bytes | None
) -> None:
    """A version before wrote no place: it is at the beginning of the body, or there is none."""
    header = Header(None, "m", "e", "s", {}, "2026-11-21", hold=True)
    new = assigned(encode_event(ID, header, body), "acme")
    assert expected == (None if new is None else new.partition(b"\n")[2])


@pytest.mark.parametrize("at", [0, 16, 400])
def test_a_place_that_is_none(at: int) -> None:
    """Where the record names a place without a null, nothing is assigned rather than the body broken."""
    header = Header(None, "m", "e", "s", {}, "2026-11-21", hold=True, customer_at=at)
    assert assigned(encode_event(ID, header, b'{"customer_id":null,"a":1}'), "acme") is None


def test_a_line_for_the_log() -> None:
    """The line of an event is JSON, whatever its id is; bytes that are no text do not keep it from being written."""
    assert json.loads(line("unspooled", 'a"\n\ud800', b'{"a":1}')) == {
        "cmdrdata": "unspooled",
        "id": 'a"\n\ud800',
        "event": {"a": 1},
    }
    assert json.loads(line("unspooled", "1", b'{"a":"\xff"}'))["event"] == {"a": "\ufffd"}
