"""
Who listens to all calls of the process, whichever client makes them.

Each has their content read, is told of their ends, and adds its metadata to theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cmdrdata_exporter import CmdrDataSpanExporter
from cmdrdata_exporter.customer import MetadataValue, metadata_attributes
from opentelemetry_instrumentation_cmdrdata.capture import told
from opentelemetry_instrumentation_cmdrdata.ended import CallAttribution, FinishedCall


class Listener(Protocol):
    """What is known of a listener here."""

    @property
    def metadata(self) -> Mapping[str, MetadataValue]:
        """What goes into the events' metadata; what a call says itself prevails."""
        ...

    @property
    def exporter(self) -> CmdrDataSpanExporter | None:
        """What meters the calls that nobody names another exporter for; None for the process's own."""
        ...

    def observe(self, finished: FinishedCall) -> None:
        """Take note of a call that has ended."""
        ...


listeners: dict[int, Listener] = {}
"""Those that listen now, the newest last. A dict is changed in one step, in whichever thread."""


def join(attribution: CallAttribution) -> CallAttribution:
    """Return what is said of a call that starts now, with what the listeners add to it."""
    observers: list[Callable[[FinishedCall], object]] = []
    attributes, exporter = attribution.attributes, attribution.exporter
    for listener in reversed(list(listeners.values())):
        attributes = {**metadata_attributes(listener.metadata), **attributes}
        exporter = exporter or listener.exporter
        observers.append(listener.observe)
    if attribution.observer is not None:
        observers.append(attribution.observer)

    def tell_all(finished: FinishedCall) -> None:
        for observer in observers:
            told(observer, finished)

    return attribution._replace(
        attributes=attributes, exporter=exporter, capture=True, observer=tell_all
    )
