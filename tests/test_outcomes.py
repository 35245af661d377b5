"""What the comparison of openai's own tests, bare and metered, would notice."""

from __future__ import annotations

from pathlib import Path

from tests.openai_suite.outcomes import Difference, Outcome, counts, differences, read

REPORT = """\
<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest">
<testcase classname="tests.test_client" name="test_passes" />
<testcase classname="tests.test_client" name="test_fails"><failure message="no">why</failure></testcase>
<testcase classname="tests.test_client" name="test_skipped"><skipped type="pytest.skip" message="old" /></testcase>
<testcase classname="tests.test_client" name="test_known"><skipped type="pytest.xfail" message="bug" /></testcase>
<testcase classname="tests.test_client" name="test_leaves"><failure>this</failure></testcase>
<testcase classname="tests.test_client" name="test_leaves"><error>and that</error></testcase>
</testsuite></testsuites>
"""


class TestRead:
    """Reading a JUnit report."""

    def test_outcomes(self, tmp_path: Path) -> None:
        """Each test has one outcome, in which a failure of its teardown shows."""
        report = tmp_path / "report.xml"
        report.write_text(REPORT)

        outcomes = read(report)

        assert {
            "tests.test_client::test_passes": Outcome("passed"),
            "tests.test_client::test_fails": Outcome("failed", "why"),
            "tests.test_client::test_skipped": Outcome("skipped"),
            "tests.test_client::test_known": Outcome("xfailed"),
            "tests.test_client::test_leaves": Outcome("failed, error", "thisand that"),
        } == outcomes
        assert {"passed": 1, "failed": 1, "skipped": 1, "xfailed": 1, "failed, error": 1} == counts(
            outcomes
        )


class TestDifferences:
    """Comparing two runs."""

    def test_same(self) -> None:
        """What fails both times, for whatever reason, fails without us too."""
        bare = {"a": Outcome("passed"), "b": Outcome("failed", "once")}
        metered = {"a": Outcome("passed"), "b": Outcome("failed", "again")}

        assert [] == differences(bare, metered)

    def test_different(self) -> None:
        """A test that fails, is skipped, or is missing in one of the runs only, is told, whichever run it is."""
        bare = {"a": Outcome("passed"), "b": Outcome("failed", "why"), "c": Outcome("passed")}
        metered = {"a": Outcome("failed", "how"), "b": Outcome("passed"), "d": Outcome("skipped")}

        assert [
            Difference("a", "passed", "failed", "how"),
            Difference("b", "failed", "passed", "why"),
            Difference("c", "passed", "not run", ""),
            Difference("d", "not run", "skipped", ""),
        ] == differences(bare, metered)
