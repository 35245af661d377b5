"""What the tests of a run came to, read from its JUnit report, and how two runs of the same tests differ."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

NOT_RUN = "not run"
"""The outcome of a test that only the other run has."""


@dataclass(frozen=True)
class Difference:
    """A test that came to one outcome bare, and to another with the instrumentor at work."""

    test: str
    bare: str
    metered: str
    told: str
    """What pytest told of whichever of them failed."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test."""

    name: str
    """`passed`, `failed`, `error`, `skipped`, `xfailed`, or several where the teardown failed as well."""
    told: str = ""


def read(report: Path) -> dict[str, Outcome]:
    """Return the outcome of each test of a JUnit report, by the test's id."""
    outcomes: dict[str, Outcome] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it, a moment ago
        test = f"{case.get('classname')}::{case.get('name')}"
        outcome = _outcome(case)
        earlier = outcomes.get(test)
        # A test whose teardown failed has two entries.
        outcomes[test] = (
            outcome
            if earlier is None
            else Outcome(f"{earlier.name}, {outcome.name}", earlier.told + outcome.told)
        )
    return outcomes


def _outcome(case: ET.Element) -> Outcome:
    names = {"failure": "failed", "error": "error", "skipped": "skipped"}
    found = [element for element in case if element.tag in names]
    if not found:
        return Outcome("passed")
    return Outcome(
        ", ".join(
            "xfailed" if element.get("type") == "pytest.xfail" else names[element.tag]
            for element in found
        ),
        "\n".join(element.text or "" for element in found if element.tag != "skipped"),
    )


def counts(outcomes: dict[str, Outcome]) -> Counter[str]:
    """Return how many tests came to which outcome."""
    return Counter(outcome.name for outcome in outcomes.values())


def differences(bare: dict[str, Outcome], metered: dict[str, Outcome]) -> list[Difference]:
    """Return the tests that came to different outcomes, those that only one of the runs has among them."""
    pairs = (
        (test, bare.get(test, Outcome(NOT_RUN)), metered.get(test, Outcome(NOT_RUN)))
        for test in sorted(bare.keys() | metered.keys())
    )
    return [
        Difference(test, without.name, with_us.name, without.told + with_us.told)
        for test, without, with_us in pairs
        if without.name != with_us.name
    ]
