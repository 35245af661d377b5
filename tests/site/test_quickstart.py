"""The quickstart works as it is written, from the first command to the report."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.site.conftest import ROOT

PAGE = ROOT / "docs" / "quickstart.md"
NEEDED = ("cmdrdata_exporter", "opentelemetry_instrumentation_cmdrdata", "pyproject.toml")
"""What of a clone an installation needs, besides the README and the licence."""


def blocks() -> list[tuple[str, str]]:
    """Return the blocks of the page, each with its language."""
    return re.findall(
        r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A directory with what an installation needs of this one."""
    path = tmp_path / "clone"
    path.mkdir()
    for name in (*NEEDED, "README.md", "LICENSE"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path / name)
    return path


@pytest.mark.timeout(300)
def test_from_a_clone_to_a_report(clone: Path, tmp_path: Path) -> None:
    """Whoever does what the page says, in a new shell without any setting, sees what the page shows."""
    (application,) = (text for language, text in blocks() if language == "python")
    (clone / "app.py").write_text(application, encoding="utf-8")
    shown = [text for language, text in blocks() if language == "text"]
    commands = [text for language, text in blocks() if language == "console"]
    mark = "--- the next block ---"
    script = f"\necho '{mark}'\n".join(commands)
    ours = r"(CMDRDATA|OTEL|OPENAI|PYTHON|COVERAGE|PYTEST|XDG|VIRTUAL_ENV|COLUMNS)"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=clone,
        env={
            **{name: value for name, value in os.environ.items() if not re.match(ours, name)},
            "HOME": str(tmp_path),
            "PYTHONIOENCODING": "utf-8",
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert 0 == done.returncode, done.stderr

    installed, printed, used, after = done.stdout.split(f"{mark}\n")
    assert ("", shown[0]) == (installed, printed)
    assert shown[1] == "".join(f"{line.rstrip()}\n" for line in used.strip("\n").splitlines())
    # Ids, times and the size of the disk are other ones each time.
    assert 3 == len(re.findall(r"^\d.* local ", after, re.MULTILINE))
    assert "+     3 local" in after
    assert after.rstrip().endswith("Nothing needs you.")
    assert "destination local" in done.stderr
    assert "NOTHING WILL BE METERED" not in done.stderr
