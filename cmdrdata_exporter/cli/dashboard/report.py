"""The report of `cmdrdata usage --html`: one file with all that it needs, to keep or to mail."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from string import Template

from cmdrdata_exporter.cli.dashboard import PAGE
from cmdrdata_exporter.cli.dashboard.over_time import (
    OverTime,
    days_between,
    months_between,
    named,
)
from cmdrdata_exporter.cli.terminal import Json, moment, number, printable, printable_values
from cmdrdata_exporter.cli.usage import costs
from cmdrdata_exporter.cli.usage.numbers import EVENTS
from cmdrdata_exporter.version import VERSION

STYLES = ("uplot/uPlot.min.css", "page.css")
SCRIPTS = ("uplot/uPlot.iife.min.js", "plot.js", "report.js")

TIMES = ("hour", "day", "month")
MOST_DAYS = 92
"""How many days are plotted one by one; more are plotted by month."""


def usage_as_html(found: Json, by_day: Json, notes: Sequence[str], made: float) -> str:
    """
    Return the report, which needs neither the ledger nor a network.

    Its table is plain HTML, for readers that run no scripts, as those of mail do. Its scripts are allowed by their
    hashes, and nothing else is.

    Args:
        found: what is shown: what `usage_of` returns.
        by_day: the same grouped by day, too.
        notes: what is to be known of the numbers.
        made: when, in Unix seconds.
    """
    styles = [(PAGE / name).read_text("utf-8") for name in STYLES]
    licence = (PAGE / "uplot" / "LICENSE").read_text("utf-8")
    scripts = [f"/*\n{licence}\n*/", *((PAGE / name).read_text("utf-8") for name in SCRIPTS)]
    # A script ends at the first `</script`, whatever JSON that is in.
    data = json.dumps(printable_values(_plots(found["by"], by_day))).replace("<", r"\u003c")
    return Template((PAGE / "report.html").read_text("utf-8")).substitute(
        title=_text(f"Usage by {' and '.join(found['by'])}".replace("_", " ")),
        question=_text(_question(found)),
        table=_table(found),
        notes="".join(f"<li>{_text(note)}</li>" for note in notes),
        made=_text(
            f"Made {moment(made).replace('T', ' ').replace('Z', '')} UTC by CmdrData for OpenTelemetry {VERSION}. "
            "All days are of UTC."
        ),
        styles="".join(f"<style>{style}</style>" for style in styles),
        data=data,
        scripts="".join(f"<script>{script}</script>" for script in scripts),
        style_sums=_sums(styles),
        script_sums=_sums(scripts),
    )


def _sums(texts: Sequence[str]) -> str:
    """Return what allows these texts in a policy."""
    # https://www.w3.org/TR/CSP3/#match-element-to-source-list
    hashes = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(one).decode()}'" for one in hashes)


def _text(text: str) -> str:
    return html.escape(printable(text))


def _question(found: Json) -> str:
    since, until = found["since"], found["until"]
    if since is None and until is None:
        when = "All that was recorded"
    elif since is None:
        when = f"Until {until}"
    else:
        when = f"Since {since}" if until is None else f"From {since} to {until}"
    billed = ", of what was delivered alone" if found["only"] else ""
    return f"{when}{billed}; {' and '.join(found['destinations'])}."


def _table(found: Json) -> str:
    by: list[str] = found["by"]
    units: list[str] = list(found["total"]["units"])
    heads = [EVENTS, *([costs.HEADING] if "cost" in found["total"] else []), *units]

    def row(names: Sequence[str], one: Json) -> str:
        amounts = [number(one[EVENTS]), *([costs.shown(one)] if "cost" in one else [])]
        amounts += [number(one["units"].get(unit, 0)) for unit in units]
        cells = [f'<th scope="row" class="name">{names[0]}</th>']
        cells += [f'<td class="name">{name}</td>' for name in names[1:]]
        cells += [f'<td class="number">{_text(amount)}</td>' for amount in amounts]
        return f"<tr>{''.join(cells)}</tr>"

    def name(column: str, value: str | None) -> str:
        shown = named(column, value)
        return "<em>not known</em>" if shown is None else f"<bdi>{_text(shown)}</bdi>"

    head = [f'<th scope="col">{_text(column.replace("_", " "))}</th>' for column in by]
    head += [
        f'<th scope="col" class="number">{_text(unit.replace("_", " "))}</th>' for unit in heads
    ]
    body = [row([name(column, one[column]) for column in by], one) for one in found["rows"]]
    total = row(["Total", *[""] * (len(by) - 1)], found["total"])
    return (
        f"<table><thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(body)}</tbody>"
        f"<tfoot>{total}</tfoot></table>"
    )


def _plots(by: Sequence[str], by_day: Json) -> list[Json]:
    """Return what is plotted: of each unit that was used one."""
    days: list[str] = sorted({row["day"] for row in by_day["rows"]})
    if not days:
        return []
    # Of an old month only its sum is known, as a day that is written like a month.
    monthly = any(len(day) < 10 for day in days)
    periods = [] if monthly else days_between(days[0], days[-1])
    if monthly or len(periods) > MOST_DAYS:
        periods = months_between(days[0][:7], days[-1][:7])
        by_day = {**by_day, "rows": [{**row, "day": row["day"][:7]} for row in by_day["rows"]]}
    groups = [column for column in by if column not in TIMES]
    usage = OverTime(by_day, groups, "day", periods)
    plots = [
        {"unit": unit, "periods": periods, "series": usage.series(unit)} for unit in usage.total()
    ]
    return [plot for plot in plots if plot["series"]]
