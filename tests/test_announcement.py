"""The start of metering is said once, where somebody reads it, whatever the application does with its logging."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cmdrdata_exporter import CmdrDataSpanExporter, ConfigurationError
from cmdrdata_exporter.runtime import announce
from opentelemetry_instrumentation_cmdrdata import CmdrDataInstrumentor

KEY = "tk-0123456789abcdefghij"
START = (
    "CmdrData usage metering: destination default at https://api.cmdrdata.ai/api/events, kept in "
)
DICT_CONFIG = """
logging.config.dictConfig({"version": 1, "disable_existing_loggers": True,
    "formatters": {"f": {"format": "LOG %(levelname)s %(message)s"}},
    "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
    "root": {"handlers": ["h"], "level": "WARNING"}})
"""
BASIC = 'logging.basicConfig(format="LOG %(levelname)s %(message)s", level=logging.{})\n'
BUILD = "cmdrdata_exporter.CmdrDataSpanExporter()\n" * 2

SET_UPS = {
    "none at all": (BUILD, "CmdrData"),
    "at INFO before": (BASIC.format("INFO") + BUILD, "LOG INFO CmdrData"),
    "at WARNING before": (BASIC.format("WARNING") + BUILD, "LOG INFO CmdrData"),
    "at WARNING afterwards": (BUILD + BASIC.format("WARNING"), "CmdrData"),
    "existing loggers disabled before": (DICT_CONFIG + BUILD, "CmdrData"),
    "existing loggers disabled afterwards": (BUILD + DICT_CONFIG, "CmdrData"),
    "a handler that shows warnings only": (
        "handler = logging.StreamHandler()\nhandler.setLevel(logging.WARNING)\n"
        f"logging.getLogger().addHandler(handler)\n{BUILD}",
        "CmdrData",
    ),
    "a handler that shows nothing": (
        f"logging.getLogger('cmdrdata').addHandler(logging.NullHandler())\n{BUILD}",
        "CmdrData",
    ),
    "a logger that is cut off": (
        f"{BASIC.format('INFO')}logging.getLogger('cmdrdata').propagate = False\n{BUILD}",
        "CmdrData",
    ),
    "logging switched off": (
        f"{BASIC.format('INFO')}logging.disable(logging.CRITICAL)\n{BUILD}",
        "CmdrData",
    ),
    "a filter that fails": (
        f"{BASIC.format('INFO')}logging.getLogger('cmdrdata').addFilter(lambda record: 1 / 0)\n{BUILD}",
        "CmdrData",
    ),
}


def run(program: str, tmp_path: Path, **environ: str) -> str:
    """Run a program in a process of its own, and return what is on its stderr."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import logging, logging.config, sys\nimport cmdrdata_exporter\n{program}",
        ],
        env={
            **os.environ,
            "CMDRDATA_SPOOL_DIR": str(tmp_path / "spool"),
            "CMDRDATA_API_KEY": KEY,
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stderr


@pytest.mark.parametrize("set_up", SET_UPS)
def test_every_logging_set_up(set_up: str, tmp_path: Path) -> None:
    """The line is there exactly once: in the application's log if it has one that shows it, else on stderr."""
    program, begins = SET_UPS[set_up]
    lines = [
        line for line in run(program, tmp_path).splitlines() if "destination default at" in line
    ]
    assert 1 == len(lines)
    assert lines[0].startswith(begins + START.removeprefix("CmdrData"))


def test_no_stderr(tmp_path: Path) -> None:
    """Where there is no stderr, or a closed one, the application goes on."""
    closed = f"sys.stderr.close()\n{BUILD}sys.stderr = None\ncmdrdata_exporter.CmdrDataSpanExporter(account='b')"
    assert "" == run(closed, tmp_path)


def test_switched_off(tmp_path: Path) -> None:
    """An application that is not metered since somebody has switched that off says so too."""
    assert (
        "CmdrData usage metering is switched off by CMDRDATA_ENABLED: calls make spans and no usage events\n"
        == run(BUILD, tmp_path, CMDRDATA_ENABLED="false")
    )


def test_neither_key_nor_endpoint(tmp_path: Path) -> None:
    """Who has not set a key is told in one warning that events stay here, and how to read them."""
    assert (
        "LOG WARNING CmdrData usage metering: destination local, "
        f"kept in {tmp_path / 'spool' / 'local'}, events without a customer are held. "
        "Neither CMDRDATA_API_KEY nor CMDRDATA_ENDPOINT is set, so usage events stay on this machine: "
        "cmdrdata usage shows them\n"
        == run(BASIC.format("WARNING") + BUILD, tmp_path, CMDRDATA_API_KEY="")
    )


def test_a_misspelt_variable(tmp_path: Path) -> None:
    """A variable that has no effect is told once, beside the start, and its value never is."""
    told = run(BUILD, tmp_path, CMDRDATA_API_KEYFILE="secret", CMDRDATA_ENABLE="false")
    assert [
        "CmdrData: CMDRDATA_API_KEYFILE is no setting and has no effect; did you mean CMDRDATA_API_KEY_FILE?",
        "CmdrData: CMDRDATA_ENABLE is no setting and has no effect; did you mean CMDRDATA_ENABLED?",
    ] == told.splitlines()[:2]
    assert 3 == len(told.splitlines())


def test_many_accounts(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of accounts that clients bring along only the first is said aloud; at INFO the log has them all."""
    for number in range(3):
        CmdrDataSpanExporter(f"{KEY}{number}", of_process=False)
    assert 1 == len(caplog.records)
    with caplog.at_level(logging.INFO, "cmdrdata"):
        CmdrDataSpanExporter(f"{KEY}3", of_process=False)
        CmdrDataSpanExporter(f"{KEY}3", of_process=False)
    assert 2 == len(caplog.records)
    assert ("", "") == capsys.readouterr()


def test_a_line_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The same line again says nothing new."""
    for number in (1, 1, 2):
        announce(logging.INFO, "line %d", number)
    assert ["line 1", "line 2"] == caplog.messages


@pytest.mark.parametrize("option", ["skip_dep_check", "raise_exception_on_conflict"])
def test_opentelemetry_loads_the_instrumentor(
    option: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its loader gets no exception, with which it would give up all other instrumentations; code of its own does."""
    monkeypatch.setenv("CMDRDATA_API_KEY", "tk-short")
    instrumentor = CmdrDataInstrumentor()
    instrumentor.instrument(**{option: True})
    [message] = caplog.messages
    assert message.startswith(
        "CmdrData: NOTHING WILL BE METERED: CMDRDATA_API_KEY has 8 characters;"
    )
    assert not instrumentor.is_instrumented_by_opentelemetry
    with pytest.raises(ConfigurationError):
        instrumentor.instrument()
