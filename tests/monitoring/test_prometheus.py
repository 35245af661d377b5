"""The rules, the dashboard and the names of the page in a real Prometheus that scrapes a real application."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from cmdrdata_exporter.measures import COMPONENT, METRICS
from opentelemetry_instrumentation_cmdrdata import semconv
from opentelemetry_instrumentation_cmdrdata.measures import TODAYS
from tests import monitoring_page
from tests.monitoring.conftest import EXAMPLES, Json, Prometheus, promtool, wait_for

# A busy machine may take a minute until an application and Prometheus are there.
pytestmark = pytest.mark.timeout(300)

COMMAND = Path(sys.executable).with_name("cmdrdata")
PAGE = monitoring_page.PAGE.read_text(encoding="utf-8")
DASHBOARD: Json = json.loads((EXAMPLES / "grafana-dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SERIES = {
    name for metric in (*METRICS, *TODAYS.metrics) for name in monitoring_page.series_of(metric)
}
LABELS = {
    *map(monitoring_page.prometheus_label, COMPONENT),
    *(monitoring_page.prometheus_label(name) for metric in METRICS for name in metric.attributes),
    *map(monitoring_page.prometheus_label, (semconv.OPERATION, semconv.REQUEST_MODEL)),
    *("job", "instance", "le"),
}
_IN_BRACES, _GROUPED = r"\{([^}]*)\}", r"by \(([^)]*)\)"


def names(expression: str) -> set[str]:
    """Return the names of ours in an expression that are no labels."""
    rest = re.sub(f"{_IN_BRACES}|{_GROUPED}", "", expression)
    return set(re.findall(r"\b(?:cmdrdata|gen_ai|otel)_\w+", rest))


def labels(expression: str) -> set[str]:
    """Return the labels in an expression."""
    asked = [
        label
        for group in re.findall(_IN_BRACES, expression)
        for label in re.findall(r"(\w+)\s*(?:=|!)", group)
    ]
    grouped = [
        label.strip() for group in re.findall(_GROUPED, expression) for label in group.split(",")
    ]
    return {*asked, *grouped}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield what the dashboard asks for, with the title of the panel."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def exposed(address: str) -> set[str]:
    """Return the names of the series that an application shows, but for those of Python and of its process."""
    text = urllib3.request("GET", address).data.decode()
    found = set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    # prometheus_client has the time of each counter beside it.
    return {
        name
        for name in found
        if not re.match(r"python_|process_|target_info$|otel_sdk_(?!exporter_)", name)
        and not name.endswith("_created")
    }


def test_the_files_are_sound() -> None:
    """The configuration and the rules are valid for promtool, and each rule fires when it should."""
    promtool("check", "config", EXAMPLES / "prometheus.yml")
    promtool("check", "rules", EXAMPLES / "rules.yml")
    promtool("test", "rules", Path(__file__).parent / "rules_test.yml")


def test_every_name_is_as_the_page_says(prometheus: Prometheus) -> None:
    """What the application shows is what the page has, name by name."""
    assert SERIES == exposed(prometheus.application)


def test_the_rules_ask_for_what_there_is(prometheus: Prometheus) -> None:
    """Prometheus has every rule of the page, in its order; each names series and labels that exist."""
    (group,) = prometheus.get("rules")["groups"]
    rules: list[Json] = group["rules"]
    assert re.findall(r"^\| `(CmdrData\w+)` \|", PAGE, re.MULTILINE) == [
        rule["name"] for rule in rules
    ]
    assert set() == {name for rule in rules for name in names(rule["query"])} - SERIES
    assert set() == {label for rule in rules for label in labels(rule["query"])} - LABELS
    # What stays when it sums up is what may be told of it.
    assert set() == {
        label
        for rule in rules
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
        if label not in labels(rule["query"])
    }
    assert ["ok"] * len(rules) == [rule["health"] for rule in rules]


def test_every_panel_has_something_to_show(prometheus: Prometheus) -> None:
    """Each expression of the dashboard is one, names what there is, and finds it but where nothing has failed."""
    asked = list(expressions())
    assert set() == {name for _, expression in asked for name in names(expression)} - SERIES
    assert set() == {label for _, expression in asked for label in labels(expression)} - LABELS
    empty = [title for title, expression in asked if not prometheus.query(_filled_in(expression))]
    assert ["Failed attempts"] == empty


def _filled_in(expression: str) -> str:
    """Return an expression as Grafana asks for it where all is chosen."""
    filled = expression.replace("$__rate_interval", "1m")
    filled = re.sub(r"\$(?:job|account)\b", ".*", filled)
    assert "$" not in filled
    return filled


def test_the_dashboard_is_one_of_grafana() -> None:
    """It has what Grafana imports: a data source that is chosen, panels that do not overlap, ids of their own."""
    variables: dict[str, Any] = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert ["datasource", "job", "account"] == list(variables)
    assert ("datasource", "prometheus") == (
        variables["datasource"]["type"],
        variables["datasource"]["query"],
    )
    source = {"type": "prometheus", "uid": "${datasource}"}
    asking = [*PANELS, variables["job"], variables["account"]]
    asking += [target for panel in PANELS for target in panel["targets"]]
    assert [source] * len(asking) == [each["datasource"] for each in asking]
    for name in ("job", "account"):
        asked = variables[name]["query"]["query"]
        ((series, label),) = re.findall(r"^label_values\((.+), (\w+)\)$", asked)
        assert names(series) <= SERIES
        assert label in LABELS
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert sorted(set(ids)) == sorted(ids)
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        x, y, width, height = (panel["gridPos"][side] for side in "xywh")
        assert x + width <= 24
        taken = {(column, line) for column in range(x, x + width) for line in range(y, y + height)}
        assert set() == taken & cells, panel["title"]
        cells |= taken
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["title"]
        assert panel["description"]
        references = [target["refId"] for target in panel["targets"]]
        assert sorted(set(references)) == references


def test_held_events_are_an_alert(prometheus: Prometheus) -> None:
    """Events that are held reach whoever is on call, and so does that it is over once they have a customer."""
    (firing, *_) = wait_for(lambda: prometheus.alerts("CmdrDataEventsHeld"))
    assert {
        "alertname": "CmdrDataEventsHeld",
        "job": "app",
        "cmdrdata_account": "default",
        "severity": "warning",
    } == firing["labels"]
    assert "2 usage events of default wait for a decision" == firing["annotations"]["summary"]
    (destination,) = prometheus.spool.iterdir()
    where = ("--spool-dir", prometheus.spool, "--destination", destination.name)
    subprocess.run(
        [COMMAND, "assign", "--all", "--customer", "acme", *where],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    # One that fires ends in the future, as far as Alertmanager is told.
    wait_for(
        lambda: [
            alert
            for alert in prometheus.alerts("CmdrDataEventsHeld")
            if alert["endsAt"] < firing["endsAt"]
        ]
    )
    assert [0.0] == [float(each["value"][1]) for each in prometheus.query("cmdrdata_events_held")]
