"""`cmdrdata demo`, end to end: real processes, real HTTP on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cmdrdata_exporter.cli.commands import cmdrdata
from cmdrdata_exporter.cli.demo.command import (
    APPLICATION,
    environment,
    program,
    run_program,
    steps_of,
    with_openai,
)
from cmdrdata_exporter.cli.demo.standin import OpenAIStandIn
from cmdrdata_exporter.cli.status import STATES
from tests.cli.conftest import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    Demo = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = Path(sys.executable).with_name("cmdrdata")
STEPS = [
    "1. A chat",
    "2. A stream",
    "3. Embeddings",
    "4. A chat again",
    "5. A failed chat",
]
USAGE = {
    "by": ["customer"],
    "since": None,
    "until": None,
    "rows": [
        {
            "customer": "acme",
            "events": 2,
            "units": {
                "input_tokens": 2060,
                "output_tokens": 156,
                "total_tokens": 2216,
                "cache_read_input_tokens": 2048,
                "reasoning_output_tokens": 128,
            },
        },
        {
            "customer": "globex",
            "events": 3,
            "units": {
                "input_tokens": 1037,
                "output_tokens": 79,
                "total_tokens": 1116,
                "cache_read_input_tokens": 1024,
                "reasoning_output_tokens": 64,
            },
        },
    ],
    "total": {
        "events": 5,
        "units": {
            "input_tokens": 3097,
            "output_tokens": 235,
            "total_tokens": 3332,
            "cache_read_input_tokens": 3072,
            "reasoning_output_tokens": 192,
        },
    },
    "only": None,
    "states": {**dict.fromkeys(STATES, 0), "delivered": 5},
    "dropped_before": 0,
    "incomplete_usage": {"missing": 0, "partial": 0},
    "not_imported": 0,
}


def of(name: str) -> dict[str, Any]:
    """Return how usage of one destination is named."""
    return {"destination": name, "destinations": [name]}


REPORT = """\


What the application printed ───────────────────────────────────────────────────
chat: You said 'Say hello to Acme in five words.' and I have nothing to add.
stream: You said 'Count from one to five.' and I have nothing to add.
embeddings: 2 vectors
chat: You said 'Say hello to Globex in five words.' and I have nothing to add.
failed, as it should: 404 model_not_found

Each call, its span and its event ──────────────────────────────────────────────
 The call           Its span                     The event at CmdrData
────────────────────────────────────────────────────────────────────────────────
 1. A chat          chat gpt-5-mini              acme, gpt-5-mini-2025-08-07
                    0123456789abcdef             1,031 in, 1,024 of them cached
                    N ms                         79 out, 64 of them reasoning
                                                 succeeded, usage reported

 2. A stream        chat gpt-5-mini              acme, gpt-5-mini-2025-08-07
                    0123456789abcdef             1,029 in, 1,024 of them cached
                    N ms                         77 out, 64 of them reasoning
                                                 succeeded, usage reported

 3. Embeddings      embeddings                   globex, text-embedding-3-small
                    text-embedding-3-small       6 in
                    0123456789abcdef             succeeded, usage reported
                    N ms

 4. A chat again    chat gpt-5-mini              globex, gpt-5-mini-2025-08-07
                    0123456789abcdef             1,031 in, 1,024 of them cached
                    N ms                         79 out, 64 of them reasoning
                                                 succeeded, usage reported

 5. A failed chat   chat gpt-unknown             globex, gpt-unknown
                    0123456789abcdef             failed: invalid_request (404)
                    N ms                         usage not_applicable

Usage per customer: cmdrdata usage ─────────────────────────────────────────────
                                               Cache read   Reasoning
                     Input   Output    Total        input      output
Customer   Events   tokens   tokens   tokens       tokens      tokens
─────────────────────────────────────────────────────────────────────
acme            2    2,060      156    2,216        2,048         128
globex          3    1,037       79    1,116        1,024          64

Total           5    3,097      235    3,332        3,072         192

Where every event is: cmdrdata status ──────────────────────────────────────────

demo-0123456789ab ──────────────────────────────────────────────────────────────
Events go to http://127.0.0.1:PORT/api/events, account demo.
Kept in HOME/spool/demo-0123456789ab.
No process sends them now.

      5 recorded
=     5 delivered
+     0 local
+     0 pending
+     0 in flight
+     0 held
+     0 dead
+     0 dropped

Disk: N KiB of 1.0 GiB (0%).

Nothing needs you.

What you just saw ──────────────────────────────────────────────────────────────
Each call made one span, for your tracing tools, and one usage event, for the
bill: the streamed one and the failed one too. Every event says who pays,
because the application said so with customer_context(). None of them carries a
prompt or a reply. Usage and status come from the ledger on this machine's disk,
where each event is kept until CmdrData has accepted it.
OpenAI and CmdrData were stand-ins on this machine; replies and token counts are
made up.

Next steps ─────────────────────────────────────────────────────────────────────
In your code, where it is known who is asking:
    from cmdrdata_exporter import customer_context
    with customer_context("your-customer"):
In the shell that starts it, with opentelemetry-distro installed:
    export CMDRDATA_API_KEY=<your key> CMDRDATA_CUSTOMER_ID=<of other calls>
    export OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none
    OTEL_TRACES_EXPORTER=cmdrdata opentelemetry-instrument python your_app.py
Beside an OTLP pipeline that you already have:
    OTEL_TRACES_EXPORTER=otlp,cmdrdata
Every event whole, as JSON:
    cmdrdata demo --json
This demo again, with the real OpenAI and your OPENAI_API_KEY:
    cmdrdata demo --live
"""


def without_chance(report: str) -> str:
    """Replace what differs from run to run, and keep the columns."""
    report = re.sub(r"\b[0-9a-f]{16}\b", "0123456789abcdef", report)
    report = re.sub(r"demo-[0-9a-f]{12}", "demo-0123456789ab", report)
    report = re.sub(r"in /\S+/spool/", "in HOME/spool/", report)
    report = re.sub(r"127.0.0.1:\d+", "127.0.0.1:PORT", report)
    report = re.sub(r"\d+ KiB", "N KiB", report)
    return re.sub(r"\b\d+ ms *", lambda cell: "N ms".ljust(len(cell[0])), report)


def unpadded(report: str) -> str:
    """Remove the blanks that fill each line."""
    return "".join(f"{line.rstrip()}\n" for line in report.splitlines())


@pytest.fixture
def demo(capsys: pytest.CaptureFixture[str]) -> Demo:
    """Run the command in this process, where it can be patched; its application has its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as end:
            cmdrdata(["demo", *arguments])
        assert isinstance(end.value.code, int)
        return subprocess.CompletedProcess(arguments, end.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an application of the test's own in the place of the demo's; only it uses stderr."""
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    path = tmp_path / "app.py"
    monkeypatch.setattr("cmdrdata_exporter.cli.demo.command.APPLICATION", path)
    return path


@pytest.fixture(scope="module")
def report() -> subprocess.CompletedProcess[str]:
    """Run the console script once, in a shell set up for something else entirely."""
    elsewhere = {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_TRACES_SAMPLER": "always_off",
        "CMDRDATA_ENABLED": "false",
        "CMDRDATA_CUSTOMER_ID": "initech",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "https_proxy": "socks5://127.0.0.1:9",
    }
    return subprocess.run(
        [PROGRAM, "demo"],
        env={**os.environ, **elsewhere, "COLUMNS": "80"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_demo_shows_every_call_with_its_span_and_event(
    report: subprocess.CompletedProcess[str],
) -> None:
    """The whole of what a newcomer sees, whatever the settings of the shell."""
    assert "" == report.stderr
    assert 0 == report.returncode
    _, seen = report.stdout.split("opentelemetry-instrument python chat_app.py", 1)
    # With its directory, unless that is on the PATH.
    assert REPORT == unpadded(without_chance(seen)).replace(f"{PROGRAM} demo", "cmdrdata demo")


def test_command_that_is_shown_works(report: subprocess.CompletedProcess[str]) -> None:
    """The command has every setting without which OpenTelemetry would not start."""
    command = report.stdout[: report.stdout.index("opentelemetry-instrument python chat_app.py")]
    assert command.rstrip("\\\n ").endswith("OTEL_METRICS_EXPORTER=none OTEL_LOGS_EXPORTER=none")


@pytest.mark.parametrize("path", [True, False])
def test_commands_to_go_on_with_can_be_run(
    path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the PATH does not have the program, it is named as it was started."""
    started = tmp_path / "cmdrdata"
    started.touch(0o700)
    monkeypatch.setattr(sys, "argv", [str(started), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path) if path else "")
    assert program() == ("cmdrdata" if path else str(started))


def test_reader_that_has_read_enough() -> None:
    """A closed pipe ends the demo quietly, as `| head` does."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        finished = subprocess.run(
            [PROGRAM, "demo"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (0, "") == (finished.returncode, finished.stderr)


def test_demo_shows_the_application_it_runs(report: subprocess.CompletedProcess[str]) -> None:
    """The source is the file that runs, and needs no more than 80 columns."""
    assert APPLICATION.read_text() in unpadded(report.stdout)


def test_json_is_one_document(demo: Demo) -> None:
    """A script gets one JSON document: each call with one event that names its span, and totals."""
    result = demo("--json")
    assert (0, "") == (result.returncode, result.stderr)
    assert "five words" not in result.stdout, "a prompt"
    assert "nothing to add" not in result.stdout, "a reply"
    document = json.loads(result.stdout)
    assert ["calls", "usage", "status"] == list(document)
    assert STEPS == [call["call"] for call in document["calls"]]
    for call in document["calls"]:
        [event] = call["events"]
        named = {key: event["metadata"][key] for key in ("trace_id", "span_id")}
        assert named == {key: call["span"][key] for key in named}
    events: list[Any] = [call["events"][0] for call in document["calls"]]
    assert ["pro", "pro", None, None, None] == [event["metadata"].get("plan") for event in events]
    [destination] = document["status"]["destinations"]
    assert {**of(destination["name"]), **USAGE} == document["usage"]
    assert {"recorded": 5, **dict.fromkeys(STATES, 0), "delivered": 5} == destination["events"]
    assert (None, []) == (destination["sending"]["leader"], destination["attention"])


def test_live_calls_the_openai_of_the_caller(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live keeps the caller's key and base URL, and says beforehand that the calls are paid."""
    with OpenAIStandIn() as openai:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{openai.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-caller")
        result = demo("--live", "--json")
    assert "--live: 5 small calls to OpenAI, paid with your key.\n" == result.stderr
    assert 0 == result.returncode
    usage = json.loads(result.stdout)["usage"]
    assert {**of(usage["destination"]), **USAGE} == usage


def test_live_needs_a_key(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key nothing is started, and the message says which variable to set."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    result = demo("--live")
    assert (2, "") == (result.returncode, result.stdout)
    assert "Error: --live calls the real OpenAI: set OPENAI_API_KEY" in result.stderr


def test_call_without_an_event_is_a_failure(demo: Demo, application: Path) -> None:
    """Status 1, the call by name, and what the application wrote to its stderr."""
    application.write_text(
        "# 1. A call that is never made\nimport sys\nprint('oh', file=sys.stderr)"
    )
    expected = (
        "Error: not every call produced exactly one event.\n"
        "  1. A call that is never made: no span\n"
        "The end of its stderr:\noh\n"
    )
    result = demo("--json")
    assert (1, expected) == (result.returncode, result.stderr)
    document = json.loads(result.stdout)
    assert [{"call": "1. A call that is never made", "span": None, "events": []}] == document[
        "calls"
    ]
    assert [] == document["usage"]["rows"]
    assert 0 == document["status"]["destinations"][0]["events"]["recorded"]


def test_crash_of_the_application_is_explained(demo: Demo, application: Path) -> None:
    """The status and the end of its traceback, but no table of half a run."""
    application.write_text("# 1. A call\nraise SystemExit('no more')")
    result = demo("--json")
    expected = "Error: the application failed with status 1.\nThe end of its stderr:\nno more\n"
    assert (1, "", expected) == (result.returncode, result.stdout, result.stderr)


def test_silent_crash_is_explained(demo: Demo, application: Path) -> None:
    """An application that dies without a word is not given words."""
    application.write_text("import os\nos._exit(3)")
    expected = "Error: the application failed with status 3.\nIt wrote nothing to its stderr.\n"
    assert expected == demo("--json").stderr


def test_hanging_application_is_ended(
    demo: Demo, application: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo never hangs: it ends the application after its time and says so."""
    application.write_text("import threading\nthreading.Event().wait()")
    monkeypatch.setattr("cmdrdata_exporter.cli.demo.command.TIMEOUT_SECONDS", 0.1)
    result = demo("--json")
    assert (1, "") == (result.returncode, result.stdout)
    assert result.stderr.startswith("Error: the application did not end within 0.1 seconds.\n")


def test_missing_launcher_is_explained(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without opentelemetry-instrument the message says where it was looked for."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = f"Error: opentelemetry-instrument is neither in {tmp_path} nor on the PATH.\n"
    result = demo("--json")
    assert (1, expected) == (result.returncode, result.stderr)


def test_environment_of_the_application() -> None:
    """Only what the demo sets of OTEL_*, CMDRDATA_* and, with a stand-in, OPENAI_* and proxies."""
    caller = {
        "HOME": "/home/me",
        "OTEL_TRACES_SAMPLER": "always_off",
        "CMDRDATA_CUSTOMER_ID": "initech",
        "OPENAI_ORG_ID": "org-1",
        "ALL_PROXY": "http://proxy",
    }
    others = {point.name for point in entry_points(group="opentelemetry_instrumentor")}
    common = {
        "HOME": "/home/me",
        "CMDRDATA_API_KEY": "tk-made-up-for-the-demo",
        "CMDRDATA_ENDPOINT": "http://127.0.0.1:1/api/events",
        "CMDRDATA_ACCOUNT": "demo",
        "CMDRDATA_SPOOL_DIR": "/home/me/spool",
        "OTEL_TRACES_EXPORTER": "console,cmdrdata",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ",".join(sorted(others - {"cmdrdata"})),
        "PYTHONIOENCODING": "utf-8",
    }
    backend, spool = "http://127.0.0.1:1", Path("/home/me/spool")
    assert common | {
        "OPENAI_BASE_URL": "http://127.0.0.1:2/v1",
        "OPENAI_API_KEY": "sk-made-up",
    } == environment(caller, backend, "http://127.0.0.1:2", spool)
    assert common | {"OPENAI_ORG_ID": "org-1", "ALL_PROXY": "http://proxy"} == environment(
        caller, backend, None, spool
    )


def test_steps_are_the_numbered_comments() -> None:
    """What the table calls a call is written beside it in the source."""
    assert STEPS == steps_of(APPLICATION.read_text())


CALL = """
import os, sys
from openai import OpenAI
answer = OpenAI().chat.completions.create(
    model="gpt-5-mini", messages=[{"role": "user", "content": "Hello!"}]
)
print(answer.choices[0].message.content, os.environ["CMDRDATA_ACCOUNT"])
sys.exit(3)
"""


def test_a_program_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It calls the stand-in past any proxy, keeps its own settings, and its exit status is the demo's."""
    monkeypatch.setenv("CMDRDATA_ACCOUNT", "mine")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    result = subprocess.run(
        [PROGRAM, "demo", "--", sys.executable, "-c", CALL],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (3, "") == (result.returncode, result.stderr)
    assert "You said 'Hello!' and I have nothing to add. mine\n" == result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "--", "true"], "--live and --json are for the demo's own application only"),
        (["--", "no-such-program"], "no-such-program cannot be run: No such file or directory"),
    ],
)
def test_program_that_cannot_be_run(arguments: list[str], said: str, run: Run) -> None:
    """What cannot be done is said in one line, with status 2."""
    result = run("demo", *arguments)
    assert (2, "") == (result.returncode, result.stdout)
    assert result.stderr.endswith(f"\nError: {said}\n")


def test_program_that_is_killed() -> None:
    """A program that a signal has ended has the status that a shell gives it."""
    assert 128 + 9 == run_program(["sh", "-c", "kill -9 $$"])


def test_hosts_without_a_proxy_stay_so() -> None:
    """What the caller reaches without a proxy is reached without one."""
    made = with_openai({"no_proxy": "intranet", "OPENAI_API_KEY": "sk-mine"}, "http://127.0.0.1:2")
    assert made == {
        "OPENAI_BASE_URL": "http://127.0.0.1:2/v1",
        "OPENAI_API_KEY": "sk-made-up",
        "NO_PROXY": "intranet,127.0.0.1",
        "no_proxy": "intranet,127.0.0.1",
    }
