"""
Run openai's own tests, as shipped with the version that is installed, bare and with the instrumentor at work.

    python tests/openai_suite/run.py FOLDER [PYTEST ARGUMENTS]

The source distribution is downloaded and unpacked into the folder, which is made anew and afterwards has the output and
the JUnit report of both runs.
It is a failure if a test comes to another outcome with the instrumentor than without, if a fault of ours was logged, or
if there were too few tests or events for the comparison to mean much.
Arguments for pytest choose among the tests; then any number will do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from outcomes import Outcome, counts, differences, read

PLUGINS = Path(__file__).resolve().parent

EXCLUDED = {
    "tests/api_resources": "asks a stand-in for the API that is not shipped",
    "tests/lib/test_fine_tuning_positional_arguments.py": "asks the same stand-in",
    "tests/lib/chat/test_completions_streaming.py": "reads recorded answers that are not shipped",
    "tests/test_uv_workflows.py": "is about the SDK's repository, most of which is not shipped",
    "tests/lib/test_realtime_example_keepalive.py": "runs examples in processes of their own, not instrumented",
    "tests/test_lazy_imports.py": "imports the SDK in processes of their own, not instrumented",
    "tests/lib/live/test_transcript_grouping.py::test_fractional_source_deadlines": (
        "gives a process of its own five seconds, too few on a busy machine"
    ),
    "tests/test_mtls_http_client.py::test_mtls_example_presents_full_client_chain": (
        "gives a process of its own fifteen seconds, too few on a busy machine"
    ),
}
"""What is not run, and why. It may be there in some versions only."""

EXPECTED_FAULTS = {"unknown request path": "the tests send requests to paths of their invention"}
"""What our side may have to say of these tests, and why."""


@dataclass(frozen=True)
class Floor:
    """How much must have happened for a comparison to mean something."""

    passed: int
    events: int


FLOORS = {"2": Floor(passed=750, events=75), "3": Floor(passed=9000, events=3000)}
"""By the major version of openai; somewhat less than what there was when this was written."""


class SuiteError(Exception):
    """The suite could not be run."""


def main(folder: Path, arguments: list[str]) -> int:
    """Run the suite twice, print what came of it, and return the exit status."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    installed = version("openai")
    print(f"openai {installed}: its own tests, but for")
    for what, why in EXCLUDED.items():
        print(f"  {what}: {why}")
    suite = unpacked(download(installed, folder), folder)

    bare = run("bare", suite, folder, arguments)
    folder_of_counts = folder / "counts"
    folder_of_counts.mkdir()
    plugin = ["-p", "metered", f"--metered-counts={folder_of_counts}"]
    metered = run("metered", suite, folder, [*plugin, *arguments])

    events, faults = read_counts(folder_of_counts)
    print(f"events: {events.total()} ({told(events)})")
    complaints = [
        f"{difference.test}: {difference.bare} bare, {difference.metered} metered\n{difference.told}"
        for difference in differences(bare, metered)
    ]
    for kind in EXPECTED_FAULTS:
        faults.pop(kind, None)
    if faults:
        complaints.append(f"faults of ours were logged: {told(faults)}")
    if not arguments:
        floor = FLOORS[installed.partition(".")[0]]
        passed = counts(bare)["passed"]
        if passed < floor.passed:
            complaints.append(f"{passed} tests passed, fewer than {floor.passed}")
        if events.total() < floor.events:
            complaints.append(f"{events.total()} events, fewer than {floor.events}")
    for test, outcome in bare.items():
        if outcome.name not in ("passed", "skipped", "xfailed"):
            print(f"fails without us too: {test}")
    print("\n".join(complaints) or f"same outcome of {len(bare)} tests, bare and metered")
    return 1 if complaints else 0


def download(installed: str, folder: Path) -> Path:
    """Return the source distribution of a version of openai, from the index that uv or pip is set to."""
    index = os.environ.get("UV_DEFAULT_INDEX")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-binary=openai", f"--dest={folder}", f"openai=={installed}"),
            *([f"--index-url={index}"] if index else []),
        ],
        check=True,
    )
    (archive,) = folder.glob("openai-*.tar.gz")
    return archive


def unpacked(archive: Path, folder: Path) -> Path:
    """Unpack a source distribution, and return its folder. The package in its `src` is on nobody's path."""
    with tarfile.open(archive) as members:
        members.extractall(folder, filter="data")
    suite = folder / archive.name.removesuffix(".tar.gz")
    if not (suite / "tests").is_dir():
        raise SuiteError(f"{archive.name} has no tests")
    return suite


def run(name: str, suite: Path, folder: Path, arguments: list[str]) -> dict[str, Outcome]:
    """Run the tests, and return the outcome of each."""
    report, output = folder / f"{name}.xml", folder / f"{name}.txt"
    exclusions = [f"--{'deselect' if '::' in what else 'ignore'}={what}" for what in EXCLUDED]
    with output.open("w", encoding="utf-8") as file:
        finished = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
                *(f"--junitxml={report}", *exclusions, *arguments),
            ],
            cwd=suite,
            env={**os.environ, "PYTHONPATH": str(PLUGINS)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    # 1 says that tests failed, which is for the comparison to judge; anything else, that they were not all run.
    if finished.returncode not in (0, 1):
        raise SuiteError(f"pytest ended with {finished.returncode}:\n{output.read_text()[-5000:]}")
    outcomes = read(report)
    print(f"{name}: {told(counts(outcomes))}", flush=True)
    return outcomes


def read_counts(folder: Path) -> tuple[Counter[str], Counter[str]]:
    """Return the events and the faults of all processes that ran tests."""
    events, faults = Counter[str](), Counter[str]()
    for file in folder.iterdir():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        events.update(found["events"])
        faults.update(found["faults"])
    return events, faults


def told(numbers: Counter[str]) -> str:
    """Return counts as text, the most frequent first."""
    return ", ".join(f"{number} {what}" for what, number in numbers.most_common()) or "none"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
