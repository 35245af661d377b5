"""What a request takes of the memory, however it is made: no more than a part of what may be under way."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.fleet.gateway.access import Access
from cmdrdata_exporter.fleet.gateway.answers import RefusedError
from cmdrdata_exporter.fleet.gateway.exports import Exports
from cmdrdata_exporter.fleet.gateway.limits import Limits
from cmdrdata_exporter.fleet.gateway.spans import SpanRow
from cmdrdata_exporter.fleet.gateway.watching import Counts
from tests.fleet.otlp import span

pytestmark = pytest.mark.timeout(300)


def field(number: int, content: bytes) -> bytes:
    """Return a field of protobuf."""
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes((number << 3 | 2,)) + length + content


def nested(*path: int, unit: bytes) -> bytes:
    """Return a request that has a tiny field as often as it may, in messages of these numbers."""
    found = unit * ((Limits().request - 64) // len(unit))
    for number in reversed(path):
        found = field(number, found)
    return found


def span_bytes(**changes: Any) -> bytes:
    """Return a span in its list."""
    return field(2, span(1, 1, **changes).SerializeToString())


REQUESTS: dict[str, dict[str, Callable[[], bytes]]] = {
    "protobuf": {
        "batches": lambda: nested(unit=b"\x0a\0"),
        "scopes": lambda: nested(1, unit=b"\x12\0"),
        "spans": lambda: nested(1, 2, unit=b"\x12\0"),
        "spans with ids": lambda: nested(1, 2, unit=span_bytes(attributes={})),
        "charges": lambda: nested(1, 2, unit=span_bytes()),
        "attributes": lambda: nested(1, 2, 2, unit=b"\x4a\0"),
        "events": lambda: nested(1, 2, 2, unit=b"\x5a\0"),
        "links": lambda: nested(1, 2, 2, unit=b"\x6a\0"),
        "values": lambda: nested(1, 2, 2, 9, 2, 5, unit=b"\x0a\0"),
        "spans of values": lambda: nested(
            1, 2, unit=field(2, field(9, field(2, field(5, b"\x0a\0" * 500_000))))
        ),
        "resource": lambda: nested(1, 1, unit=b"\x0a\0"),
    },
    "json": {
        "objects": lambda: b'{"resourceSpans":[' + b"{}," * 5_000_000 + b"{}]}",
        "lists": lambda: b'{"a":[' + b"[]," * 5_000_000 + b"[]]}",
        "keys": lambda: b'{"a":[' + b'{"a":{"b":0}},' * 1_000_000 + b"0]}",
        "numbers": lambda: b'{"a":[' + b"1000," * 3_000_000 + b"0]}",
        "wide text": ('{"a":"' + "x" * 15_000_000 + '\N{PILE OF POO}"}').encode,
        "fits": lambda: b'{"resourceSpans":[' + b"{}," * 450_000 + b"{}]}",
        "wide text that fits": ('{"a":"' + "x" * 7_000_000 + '\N{PILE OF POO}"}').encode,
    },
}


class Shelf:
    """Keeps nothing."""

    def store(self, rows: Sequence[SpanRow]) -> None:
        """Keep nothing."""


def main() -> None:
    """Take a request, and print by how many bytes this process has grown meanwhile."""
    kind, case = sys.argv[1:]
    body = bytearray(REQUESTS[kind][case]())
    shelf: Any = Shelf()
    exports = Exports(shelf, Access(), Limits(), Counts())
    # From here on the largest size is noted anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = size("VmRSS")
    said = "taken"
    with exports.held() as held:
        try:
            exports.take(body, held, "test", is_json=kind == "json")
        except RefusedError as error:
            said = error.answer.http.phrase
    sys.stdout.write(f"{size('VmHWM') - before} {said}")


def size(name: str) -> int:
    """Return a size of this process."""
    [found] = re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) * 1024


@pytest.mark.parametrize(
    ("kind", "case"), [(kind, case) for kind, cases in REQUESTS.items() for case in cases]
)
def test_tiny_fields(kind: str, case: str) -> None:
    """The largest request, of nothing but tiny fields, takes no multiple of its bytes when it is read."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, kind, case],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    # The log may say that a span cannot be read.
    assert done.returncode == 0, done.stderr
    grown, _, said = done.stdout.partition(" ")
    assert int(grown) < Limits().in_flight, said


if __name__ == "__main__":
    main()
