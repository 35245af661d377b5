"""
Which spans of a trace are one and the same call, so that it is one event. Pure.

As in one process, see `reports`, where the spans come in the order of their ends. To a gateway they come in any
order, some of them late: what was decided stays decided, and is what later ones are compared with.
"""

from __future__ import annotations

from collections.abc import Iterable

from cmdrdata_exporter.fleet.gateway.spans import Relation, SpanRow, relation_of, report_of, span_of
from cmdrdata_exporter.reports import Calls


def settle(
    settled: Iterable[SpanRow], waiting: Iterable[SpanRow]
) -> tuple[list[SpanRow], set[bytes]]:
    """
    Decide which spans of one trace are charges.

    Args:
        settled: the spans of the trace that were decided before, in the order in which they were.
        waiting: those that were not.

    Returns:
        `waiting`, in the order in which they were decided, and the ids of those that are charges.
    """
    calls = Calls()
    for row in settled:
        _is_charge(calls, row, relation_of(row))
    related = [(row, relation_of(row)) for row in waiting]
    # Our own spans first, whose calls are metered where they were made, whatever others tell of them.
    related.sort(key=lambda each: (not each[1].is_ours, each[1].end, -each[1].start, each[0].span))
    charges = {row.span for row, relation in related if _is_charge(calls, row, relation)}
    return [row for row, _ in related], charges


def _is_charge(calls: Calls, row: SpanRow, relation: Relation) -> bool:
    span = span_of(row, relation)
    if relation.provider is None:
        calls.propagate(span)
        return False
    return calls.claim(span, report_of(span, relation)) and row.event is not None
