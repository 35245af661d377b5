"""The page about reconciling: its example is run, and its tables are those of the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cmdrdata_exporter.cli.reconcile import causes
from cmdrdata_exporter.cli.reconcile.surfaces import SURFACES
from cmdrdata_exporter.delivery.spool.directory import Directory
from tests.cli.conftest import Run
from tests.cli.test_reconcile import record_in
from tests.usage_months import MINI, OMNI, Call, Month

PAGE = Path(__file__).parents[2] / "docs" / "reconcile.md"


def example() -> Month:
    """Return the month of the page."""
    month = Month(0, gaps=False)
    for day in (1, 2, 3):
        for _ in range(40):
            month.both(Call(day, MINI, "chat.completions", 1200, 90, 1024))
            month.both(Call(day, OMNI, "responses", 800, 60))
    for _ in range(7):
        month.provider.count(Call(2, MINI, "chat.completions", 1200, 90, 1024))
    for _ in range(2):
        month.provider.count(Call(3, OMNI, "responses", 800, 60))
        month.event(Call(3, OMNI, "responses"), status="missing")
    return month


def test_the_example(
    local: Directory, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page shows is what is printed."""
    month = example()
    record_in(local, month)
    (tmp_path / "completions.json").write_text(month.documents()[0])
    monkeypatch.chdir(tmp_path)
    ((command, shown),) = re.findall(
        r"^```console\n\$ cmdrdata ([^\n]*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    done = run(*shlex.split(command))
    assert (shown, "", 0) == (done.stdout, done.stderr, done.returncode)


def test_the_units_and_the_causes() -> None:
    """Each rule of the conversion and each cause has its row."""
    text = PAGE.read_text()
    rules = {
        (surface.name, rule.unit): " + ".join(rule.fields)
        for surface in SURFACES
        for rule in surface.rules
        if rule.unit != "requests" and not surface.uncompared and surface.name != "decisions"
    }
    told = {
        (surface, unit): fields.replace("`", "")
        for surface, unit, fields in re.findall(
            r"^\| `(\w+)`(?:, `decisions`)? \| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE
        )
    }
    assert rules == told
    codes = {
        value
        for name, value in vars(causes).items()
        if name[0] != "_" and name.isupper() and isinstance(value, str)
    } - {causes.REQUESTS}
    assert codes == set(re.findall(r"^\| `(\w+)` \| [^|`]*\|$", text, re.MULTILINE))
