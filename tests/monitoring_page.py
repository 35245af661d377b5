"""
Writes the tables of `docs/monitoring.md` from the code's lists of metrics, each with its name in Prometheus.

    python -m tests.monitoring_page
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmdrdata_exporter.measures import METRICS, Kind, Metric
from opentelemetry_instrumentation_cmdrdata.measures import LATEST, TODAYS

PAGE = Path(__file__).parent.parent / "docs" / "monitoring.md"
TABLES: dict[str, Sequence[Metric]] = {
    "destinations": METRICS,
    "calls": TODAYS.metrics,
    "calls, latest names": LATEST.metrics,
}
"""What each table shows, by the name in its marks."""

_UNITS = {"s": "seconds", "By": "bytes"}
"""How Prometheus calls the units that are not in braces; a name ends in its unit."""


def prometheus_name(metric: Metric) -> str:
    """
    Return the name of a metric in Prometheus; of a histogram that of all its series, without `_bucket` and the like.

    https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
    """
    name = re.sub(r"[^a-zA-Z0-9:]+", "_", metric.name)
    if unit := _UNITS.get(metric.unit):
        name = f"{name}_{unit}"
    return f"{name}_total" if metric.kind is Kind.COUNTER else name


def prometheus_label(attribute: str) -> str:
    """Return the name of an attribute in Prometheus."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", attribute)


def series_of(metric: Metric) -> tuple[str, ...]:
    """Return the names of a metric's series in Prometheus."""
    name = prometheus_name(metric)
    if metric.kind is Kind.HISTOGRAM:
        return tuple(f"{name}_{part}" for part in ("bucket", "sum", "count"))
    return (name,)


def page() -> str:
    """Return the page, with its tables made anew."""
    text = PAGE.read_text(encoding="utf-8")
    for name, metrics in TABLES.items():
        begin, end = f"<!-- metrics of {name} -->\n", f"<!-- end of {name} -->\n"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not (begun and ended):
            raise ValueError(f"{PAGE} lacks the marks of the table {name!r}")
        table = "".join(f"{line}\n" for line in _table(metrics))
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def _table(metrics: Sequence[Metric]) -> Iterator[str]:
    has_attributes = any(metric.attributes for metric in metrics)
    heads = ["metric", "in Prometheus", "kind", "unit", "what it says"]
    if has_attributes:
        heads.append("attributes of its own")
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for metric in metrics:
        name = prometheus_name(metric)
        cells = [f"`{metric.name}`", f"`{name}`", metric.kind.value, f"`{metric.unit}`"]
        cells.append(metric.description)
        if has_attributes:
            cells.append(", ".join(f"`{attribute}`" for attribute in metric.attributes))
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
