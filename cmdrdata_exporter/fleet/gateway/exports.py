"""What OTLP over HTTP and over gRPC have in common: who is let in, how much is taken, and what comes of it."""

from __future__ import annotations

from cmdrdata_exporter.fleet.gateway.access import Access
from cmdrdata_exporter.fleet.gateway.answers import NOT_NOW, STRANGER, RefusedError
from cmdrdata_exporter.fleet.gateway.limits import Held, Limits, Room
from cmdrdata_exporter.fleet.gateway.pieces import FIELD, read_json, read_protobuf
from cmdrdata_exporter.fleet.gateway.shelving import AwayError, Shelving
from cmdrdata_exporter.fleet.gateway.spans import SpanRow, batches
from cmdrdata_exporter.fleet.gateway.watching import Counts

_ROW = 600
"""Bytes that what is kept of a span takes, beside the event."""


class Exports:
    """
    Takes requests. Safe to use from several threads.

    Args:
        shelving: what stores spans.
        access: who may send.
        limits: how much is taken.
        counts: where to count.
    """

    def __init__(self, shelving: Shelving, access: Access, limits: Limits, counts: Counts) -> None:
        self._shelving = shelving
        self.access = access
        self.limits = limits
        self.counts = counts
        self.room = Room(limits.in_flight, limits.grace)
        """What is under way, of all intakes."""

    def admit(self, authorization: str | None) -> None:
        """
        Let whoever sends this header send the rest.

        Raises:
            RefusedError: it has not the token.
        """
        if not self.access.admits(authorization):
            raise RefusedError(
                STRANGER, "expected is the gateway's token: authorization: Bearer TOKEN"
            )

    def held(self) -> Held:
        """Return what a request that was let in has of the room."""
        return Held(self.room, self.limits.request)

    def too_slow(self) -> RefusedError:
        """Return the answer to a body that has not come in time."""
        return RefusedError(
            NOT_NOW,
            f"the body did not come within {self.limits.body:g} seconds, or within {self.limits.grace:g} while others "
            "had no room; send it again",
        )

    def take(
        self, body: bytes | bytearray, held: Held, intake: str, *, is_json: bool = False
    ) -> int:
        """
        Store the spans of a request; return how many of them cannot be read.

        Args:
            body: it, inflated.
            held: where room is taken for what is made of it.
            intake: how it came.
            is_json: it is JSON, not protobuf.

        Raises:
            RefusedError: it is not stored, or not all of it.
        """
        self.room.end(held)
        pieces = (
            read_json(body, held) if is_json else read_protobuf(body, self.limits.request // FIELD)
        )
        refused = 0
        for taken in batches(pieces):
            held.add("rows", sum(map(_size, taken.rows)))
            try:
                self._shelving.store(taken.rows)
            except AwayError:
                raise RefusedError(
                    NOT_NOW, "the ledger cannot be written now; send it again"
                ) from None
            held.drop("rows")
            refused += taken.refused
            self.counts.add("spans", taken.spans, intake=intake)
            self.counts.add("spans_refused", taken.refused, intake=intake)
            self.counts.add("spans_without_usage", taken.without_usage, intake=intake)
        return refused


def _size(row: SpanRow) -> int:
    return _ROW + len(row.body or b"")
