"""Programs that PyInstaller has built: the modules are there, of the packages' metadata only what it collects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.metering import complaints
from tests.standins import CmdrDataStandIn, OpenAIStandIn

PROGRAM = Path(__file__).with_name("program.py")
# What the tests bring, which the program does not need: without it the build takes half as long.
NOT_NEEDED = ("hypothesis", "pytest", "setuptools", "werkzeug")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built as docs/metering.md says."""
    home = tmp_path_factory.mktemp("build")
    excluded = [word for name in NOT_NEEDED for word in ("--exclude-module", name)]
    subprocess.run(
        [
            *(sys.executable, "-m", "PyInstaller", "--onedir", "--noconfirm", "--log-level"),
            *("ERROR", *excluded, PROGRAM),
        ],
        cwd=home,
        env={**os.environ, "PYINSTALLER_CONFIG_DIR": str(home / "cache")},
        check=True,
        timeout=280,
    )
    return home / "dist" / PROGRAM.stem / PROGRAM.stem


@pytest.mark.timeout(300)
def test_built_program(built: Path, tmp_path: Path) -> None:
    """It is metered without further options: its call is one event, delivered by its end, and nothing is amiss."""
    with OpenAIStandIn() as openai, CmdrDataStandIn() as backend:
        done = subprocess.run(
            [built],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "OPENAI_API_KEY": "sk-standin",
                "OPENAI_BASE_URL": openai.url,
                "CMDRDATA_API_KEY": "tk-0123456789abcdefghij",
                "CMDRDATA_CUSTOMER_ID": "acme",
                "CMDRDATA_ENDPOINT": backend.url,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (0, "", "") == (done.returncode, done.stdout, complaints(done.stderr))
        assert [("acme", "gpt-1", 11, 7, "reported")] == [
            (
                event["customer_id"],
                event["model"],
                event["input_tokens"],
                event["output_tokens"],
                event["metadata"]["usage_status"],
            )
            for event in backend.events
        ]
