"""The page of the gateway has all of it."""

from __future__ import annotations

import re
from pathlib import Path

import click

from cmdrdata_exporter.cli.gateway import gateway
from cmdrdata_exporter.fleet.gateway.gateway import Plan
from cmdrdata_exporter.fleet.gateway.grpc_calls import STREAMS
from cmdrdata_exporter.fleet.gateway.limits import MIB, Limits
from cmdrdata_exporter.fleet.gateway.otlp_grpc import CALLS
from cmdrdata_exporter.fleet.gateway.pieces import FIELD, LARGEST
from cmdrdata_exporter.fleet.gateway.watching import COUNTERS, GAUGES

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")


def test_metrics() -> None:
    """Every metric is in the table, with what its help says."""
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([A-Z][^|]*\.) \|$", PAGE, re.MULTILINE))
    assert rows == {f"{name}_total": meaning for name, meaning in COUNTERS.items()} | GAUGES


def test_options() -> None:
    """Every option is told of, with its default where that is a limit."""
    options = [
        parameter.opts[0] for parameter in gateway.params if isinstance(parameter, click.Option)
    ]
    assert [option for option in options if option not in PAGE and option != "--ledger"] == []
    limits = Limits()
    for said in (
        f"`--max-request`, {limits.request // MIB} MiB",
        f"`--max-in-flight`, {limits.in_flight // MIB} MiB",
        f"`--max-connections`, {limits.connections} ",
        f"resources, scopes and spans of a request | {limits.request // FIELD:,} ",
        f"what is read of a span | {LARGEST // MIB} MiB",
        f"longer than {limits.grace:g} s",
        f"whose message has not come | {CALLS:,}, {STREAMS} in a connection ",
        f"or of a handshake | {limits.header:g} s",
        f"time of a body | {limits.body:g} s",
        f"a connection without a request | {limits.idle:g} s",
        f"(default: {Plan('').window:g})",
    ):
        assert said in PAGE
