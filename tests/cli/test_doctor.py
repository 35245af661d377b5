"""`cmdrdata doctor` finds each of its faults when it is made, and nothing where all is well."""

from __future__ import annotations

import email.utils
import json
import os
import re
import shlex
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from cmdrdata_exporter.cli.destination import Refusal
from cmdrdata_exporter.cli.doctor import backend, environment, spool
from cmdrdata_exporter.cli.doctor.command import python_of
from cmdrdata_exporter.cli.doctor.findings import (
    ERROR,
    NOTE,
    SEVERITIES,
    WARNING,
    Finding,
    Surroundings,
)
from cmdrdata_exporter.delivery.spool.directory import Directory
from cmdrdata_exporter.settings import Settings
from tests.cli.conftest import Run
from tests.ledgers import ENDPOINT, KEY, fill, record

RunJson = Callable[..., tuple[int, Any]]

DISTRO = {
    "opentelemetry_configurator": {
        "configurator": "opentelemetry.distro:OpenTelemetryConfigurator"
    },
    "opentelemetry_distro": {"distro": "opentelemetry.distro:OpenTelemetryDistro"},
    **{
        f"opentelemetry_{signal}_exporter": {"otlp_proto_grpc": "…", "otlp_proto_http": "…"}
        for signal in ("traces", "metrics", "logs")
    },
    "opentelemetry_instrumentor": {
        "cmdrdata": "opentelemetry_instrumentation_cmdrdata:CmdrDataInstrumentor"
    },
}
VERSIONS = {"openai": "3.57.0", "opentelemetry-sdk": "1.45.0"}


def surroundings(
    environ: dict[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    versions: dict[str, str] | None = None,
    entry_points: dict[str, dict[str, str]] | None = None,
    python: tuple[int, int] = (3, 12),
) -> Surroundings:
    """Return the surroundings of an application in which nothing is wrong, but for what is given."""
    groups = {**DISTRO, **(entry_points or {})}
    installed = {**VERSIONS, **(versions or {})}

    def entry_points_of(group: str) -> dict[str, str]:
        return groups.get(group, {})

    def version_of(distribution: str) -> str | None:
        return installed.get(distribution)

    given = {"CMDRDATA_API_KEY": KEY, **(environ or {})}
    return Surroundings(given, arguments, entry_points_of, version_of, python)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    """A set-up as the docs have it is healthy, with the oldest versions that are supported as with the newest."""
    assert [] == environment.check(surroundings())
    oldest = {"openai": "1.0.0", "opentelemetry-sdk": "1.28.0"}
    assert [] == environment.check(surroundings(versions=oldest, python=(3, 10)))


FAULTS = [
    (surroundings(python=(3, 14)), "python-untested", WARNING, "Python 3.14 is newer"),
    (surroundings(versions={"openai": "4.0.0"}), "openai-untested", WARNING, "openai 4.0 is newer"),
    (
        surroundings(versions={"opentelemetry-sdk": "1.27.0"}),
        "opentelemetry-old",
        ERROR,
        "opentelemetry-sdk 1.27 is too old. Run pip install -U 'opentelemetry-sdk>=1.28'.",
    ),
    (
        surroundings(versions={"openai": "0.28.1"}),
        "nothing-metered",
        ERROR,
        "openai 0.28.1 is too old to be metered. Run pip install 'openai>=1.0'.",
    ),
    (
        surroundings(arguments=("python", "-I", "app.py")),
        "nothing-metered",
        ERROR,
        "Python is started with -I, -E or -S, so it does not load OpenTelemetry. Leave that option out.",
    ),
    (
        surroundings(arguments=("--traces_exporter", "jaeger", "python", "app.py")),
        "nothing-metered",
        ERROR,
        "the traces exporter jaeger",
    ),
    (
        surroundings({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis,cmdrdata"}),
        "nothing-metered",
        ERROR,
        "which switches cmdrdata off. Take it out of there.",
    ),
    (
        surroundings(entry_points={"opentelemetry_configurator": {}}),
        "no-distro",
        NOTE,
        "Events are made all the same. For spans, run pip install opentelemetry-distro.",
    ),
    (
        surroundings(entry_points={"opentelemetry_metrics_exporter": {}}),
        "otlp-missing",
        NOTE,
        "Set OTEL_METRICS_EXPORTER=none, or pip install opentelemetry-exporter-otlp-proto-grpc.",
    ),
    (
        surroundings({"CMDRDATA_UNATTRIBUTED": "maybe"}),
        "setting",
        ERROR,
        "CMDRDATA_UNATTRIBUTED is 'maybe'. Expected one of: hold, send.",
    ),
    (surroundings({"CMDRDATA_API_KEY": "sk-" + "a" * 40}), "setting", ERROR, "a key of OpenAI"),
    (
        surroundings({"CMDRDATA_API_KEY": "", "CMDRDATA_API_KEY_FILE": "/nowhere/key"}),
        "setting",
        ERROR,
        "/nowhere/key",
    ),
    (
        surroundings({"CMDRDATA_SPOL_DIR": "/x"}),
        "unknown-setting",
        WARNING,
        "CMDRDATA_SPOL_DIR is no setting and has no effect. Did you mean CMDRDATA_SPOOL_DIR?",
    ),
    (
        surroundings({"CMDRDATA_ENABLED": "false"}),
        "switched-off",
        WARNING,
        "no call makes an event",
    ),
    (surroundings({"CMDRDATA_API_KEY": ""}), "local", NOTE, "events stay on this host"),
    (
        surroundings({"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}),
        "content-setting",
        WARNING,
        "is 'true', which captures nothing. Set one of NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT.",
    ),
    (
        surroundings({"OPENAI_BASE_URL": "http://vllm.internal:8000/v1"}),
        "stream-usage",
        WARNING,
        "is auto, and vllm.internal is no host that it asks",
    ),
    (
        surroundings({"CMDRDATA_STREAM_USAGE": "never"}),
        "stream-usage",
        WARNING,
        "is never: streams",
    ),
    (
        surroundings(
            entry_points={
                "opentelemetry_instrumentor": {
                    "openai": "opentelemetry.instrumentation.openai:OpenAIInstrumentor"
                }
            }
        ),
        "two-instrumentations",
        NOTE,
        "Each call is billed once all the same. For one span a call, set "
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=openai.",
    ),
    (
        surroundings(versions={"litellm": "1.80.0"}),
        "past-the-sdk",
        WARNING,
        "litellm is installed, whose calls do not all go through the openai SDK.",
    ),
    (
        surroundings({"OTEL_TRACES_SAMPLER": "traceidratio"}),
        "spans-limited",
        NOTE,
        "OTEL_TRACES_SAMPLER is 'traceidratio'",
    ),
    (surroundings({"OTEL_SDK_DISABLED": "TRUE"}), "spans-limited", NOTE, "OTEL_SDK_DISABLED"),
    (
        surroundings({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "8"}),
        "spans-limited",
        NOTE,
        "Events are made of every call.",
    ),
]


@pytest.mark.parametrize(
    ("found", "name", "severity", "words"), FAULTS, ids=[f"{n}-{w[:20]}" for _, n, _, w in FAULTS]
)
def test_faults_of_an_environment(
    found: Surroundings, name: str, severity: str, words: str
) -> None:
    """Each makes one finding, which says what is wrong and what to do, and has no key in it."""
    [finding] = environment.check(found)
    assert (name, severity) == (finding.id, finding.severity)
    assert words in f"{finding.what} {finding.remedy}"
    assert finding.what.endswith(".")
    assert finding.remedy.endswith((".", "?"))
    assert "a" * 40 not in repr(finding)


@pytest.mark.parametrize("url", ["http://[", "https://[x]/v1", "localhost:8000/v1", "//", "\x1b"])
def test_odd_base_urls(url: str) -> None:
    """What is no URL is the SDK's to refuse."""
    assert [] == environment.check(surroundings({"OPENAI_BASE_URL": url}))


def test_what_is_meant_to_be_is_no_finding() -> None:
    """Samplers that keep all, hosts that are asked, other instrumentations that are off, packages whose spans bill."""
    openai = {"openai": "opentelemetry.instrumentation.openai_v2:OpenAIInstrumentor"}
    assert [] == environment.check(
        surroundings(
            {
                "OTEL_TRACES_SAMPLER": "parentbased_always_on",
                "OPENAI_BASE_URL": "https://eu.api.openai.com/v1",
                "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "openai",
                "OTEL_TRACES_EXPORTER": "otlp,cmdrdata",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
            },
            versions={"litellm": "1.80.0"},
            entry_points={
                "opentelemetry_instrumentor": openai,
                "opentelemetry_traces_exporter": {"otlp_proto_grpc": "…", "cmdrdata": "…"},
            },
        )
    )


# --- The endpoint ------------------------------------------------------------------------------


class Answering(BaseHTTPRequestHandler):
    """Answers as its server is told, and notes what it is asked."""

    server: Backend  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        """Answer."""
        self.server.asked.append(f"{self.command} {self.path} {self.headers['authorization']}")
        self.send_response_only(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        """Take an event, which no check may send."""
        raise AssertionError(self.path)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Be quiet."""


class Backend(ThreadingHTTPServer):
    """A backend on loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.status = 405
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        """Where events are posted."""
        return f"http://127.0.0.1:{self.server_port}/api/events"


@pytest.fixture
def server() -> Iterator[Backend]:
    """A backend that knows no GET."""
    with Backend() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(url: str, environ: dict[str, str] | None = None, timeout: float = 5.0) -> list[Finding]:
    """Return what is found when an endpoint is asked."""
    settings = Settings.read({"CMDRDATA_API_KEY": KEY, "CMDRDATA_ENDPOINT": url, **(environ or {})})
    return list(backend.check(settings, timeout=timeout, now=time.time()))


@pytest.mark.parametrize(
    ("status", "headers", "name"),
    [
        (200, {"content-type": "application/json"}, None),
        (204, {}, None),
        (400, {}, None),
        (200, {"content-type": "text/html; charset=utf-8"}, "endpoint-wrong"),
        (302, {"location": "http://127.0.0.1:9/"}, "endpoint-moved"),
        (401, {}, "key-refused"),
        (403, {}, "key-refused"),
        (404, {}, "endpoint-wrong"),
        (429, {}, "backend-trouble"),
        (503, {}, "backend-trouble"),
        (405, {"date": "Sat, 01 Jan 2000 00:00:00 GMT"}, "clock"),
        (405, {"date": "Sat, 01 Jan 2000 00:00:00 -0000"}, "clock"),
        (405, {"date": "yesterday"}, None),
    ],
)
def test_answers_of_an_endpoint(
    status: int, headers: dict[str, str], name: str | None, server: Backend
) -> None:
    """One GET with the key tells who is there; it posts nothing, and follows no redirect."""
    server.status, server.headers = status, headers
    found = asked(server.url)
    assert ([] if name is None else [name]) == [finding.id for finding in found]
    assert [f"GET /api/events Bearer {KEY}"] == server.asked
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("apart", "found"), [(-50, []), (50, []), (-70, ["clock"]), (70, ["clock"])]
)
def test_clocks_apart(apart: int, found: list[str], server: Backend) -> None:
    """A minute between this host's clock and the server's is borne, either way, and no more."""
    server.headers = {"date": email.utils.formatdate(time.time() + apart)}
    assert found == [finding.id for finding in asked(server.url)]


def test_an_endpoint_that_is_not_there() -> None:
    """Nobody listens, or nobody has that name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [refused] = asked(f"http://127.0.0.1:{port}/api/events")
    assert ("unreachable", ERROR) == (refused.id, refused.severity)
    [unknown] = asked("https://nobody.invalid/api/events")
    assert "its name is not known" in unknown.what


def test_an_endpoint_that_speaks_no_tls(server: Backend) -> None:
    """TLS that fails is told from a network that does."""
    [finding] = asked(server.url.replace("http:", "https:"))
    assert "its certificate is not accepted, or TLS fails" in finding.what
    assert [] == server.asked


@pytest.mark.parametrize("name", ["delivery/loopback.pem", "faults/expired.pem"])
def test_an_endpoint_whose_certificate_nobody_knows(
    name: str, server: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets no key; what is wrong with the certificate is said, and how it is made known."""
    certificate = Path(__file__).parents[1] / name
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")
    is_expired = "expired" in name
    if is_expired:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    [finding] = asked(url)
    why = "certificate has expired" if is_expired else "self-signed certificate"
    assert finding == Finding(
        "unreachable",
        ERROR,
        f"{url} cannot be reached: its certificate is not accepted, or TLS fails ({why}).",
        "Install the certificate of its authority, or name it in SSL_CERT_FILE.",
    )
    assert [] == server.asked
    if not is_expired:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert [] == asked(url)
        assert [f"GET /api/events Bearer {KEY}"] == server.asked


def test_an_endpoint_that_says_nothing() -> None:
    """What does not answer in time is no answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        [finding] = asked(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)
    assert "nothing came within 0.2 s" in finding.what


def test_a_proxy_that_makes_no_tunnel(server: Backend) -> None:
    """That is said of the proxy, without the password in its URL."""
    proxy = f"http://user:a-secret-word@127.0.0.1:{server.server_port}"
    [finding] = asked("https://backend.invalid/api/events", {"HTTPS_PROXY": proxy})
    assert "the proxy makes no tunnel" in finding.what
    assert "a-secret-word" not in repr(finding)


def test_events_that_stay_here_have_no_endpoint() -> None:
    """Without key and endpoint nothing is asked."""
    assert [] == list(backend.check(Settings.read({}), timeout=1.0, now=0.0))


# --- The spool directory -----------------------------------------------------------------------


def kept(path: Path, environ: dict[str, str] | None = None) -> list[Finding]:
    """Return what is found of a spool directory."""
    given = {"CMDRDATA_API_KEY": KEY, "CMDRDATA_ENDPOINT": ENDPOINT, **(environ or {})}
    return list(spool.check(Settings.read(given, spool_dir=path), path))


def test_a_spool_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    """It can be made, and a check does not make it: it would belong to whoever checks."""
    assert [] == kept(tmp_path / "not" / "yet")
    assert [] == list(tmp_path.iterdir())


def test_a_spool_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """A link, a file, one that others write: events would be kept in memory."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    for name in ("file", "link", "shared"):
        [finding] = kept(tmp_path / name)
        assert ("spool-unusable", ERROR) == (finding.id, finding.severity)
        assert "Set CMDRDATA_SPOOL_DIR to a directory" in finding.remedy


@pytest.mark.parametrize("which", ["spool", "destination"])
def test_a_spool_directory_of_another_user(
    which: str, remote: Directory, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Be it all of it or the directory of the destination: this user's events would be kept in memory."""
    spool.chmod(stat.S_IRWXU)
    assert [] == kept(spool)
    path = spool if which == "spool" else remote.path
    own = Path.lstat

    def lstat(asked: Path) -> os.stat_result:
        found = own(asked)
        # Only root could give it away.
        return os.stat_result((*found[:4], 4711, *found[5:])) if asked == path else found

    monkeypatch.setattr(Path, "lstat", lstat)
    [finding] = kept(spool)
    assert finding == Finding(
        "spool-unusable",
        ERROR,
        f"'{path}' belongs to user 4711, this process is user {os.geteuid()}. Events are kept in "
        "memory, and what is not delivered when the process ends goes to its log.",
        "Set CMDRDATA_SPOOL_DIR to a directory that only this user can write, for instance a new one inside it.",
    )


def test_a_spool_directory_of_nobody(run_json: RunJson, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that there is not has no home."""
    monkeypatch.setattr(environment, "CHECKS", ())
    code, document = run_json("doctor", "--offline", "--spool-dir", "~no-such-user-4711/spool")
    assert (1, ["spool-unusable"]) == (code, [one["id"] for one in document["findings"]])


def test_what_else_is_in_a_spool_directory(tmp_path: Path) -> None:
    """Files are no directories that others enter, also where a path needs quotes."""
    path = tmp_path / "it's. here"
    (path / "inner").mkdir(mode=0o755, parents=True)
    path.chmod(0o700)
    (path / "file").touch(0o644)
    (path / "link").symlink_to(tmp_path)
    [finding] = kept(path)
    assert f"Run chmod 700 {shlex.quote(str(path / 'inner'))}." == finding.remedy
    path.chmod(0o777)
    [finding] = kept(path)
    assert f'"{path}" can be written by other users.' in finding.what
    assert finding.remedy.startswith("Set CMDRDATA_SPOOL_DIR to a directory")


def test_a_spool_directory_that_others_enter(spool: Path) -> None:
    """Who uses what is nobody else's business."""
    spool.chmod(0o755)
    [finding] = kept(spool)
    assert ("spool-open", WARNING) == (finding.id, finding.severity)
    assert f"Run chmod 700 {spool}." == finding.remedy
    spool.chmod(stat.S_IRWXU)
    assert [] == kept(spool)


@pytest.mark.parametrize(("free", "severity"), [(1000, ERROR), (100 << 20, WARNING)])
def test_a_disk_that_is_full(
    free: int, severity: str, spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below what outcomes need, new events go to the log."""
    real = os.statvfs(spool)
    fields = list(real)
    fields[4] = free // real.f_frsize

    def statvfs(_: object) -> os.statvfs_result:
        return os.statvfs_result(fields)

    monkeypatch.setattr(os, "statvfs", statvfs)
    spool.chmod(0o700)
    [finding] = kept(spool)
    assert ("disk-full", severity) == (finding.id, finding.severity)


def test_events_that_nobody_delivers(remote: Directory, spool: Path) -> None:
    """Those of another destination, and one's own where no application drains."""
    fill(remote, [record(1, "acme")])
    assert [] == [finding for finding in kept(spool) if finding.id == "nobody-drains"]
    for environ in ({"CMDRDATA_ACCOUNT": "another"}, {"CMDRDATA_DRAIN": "none"}):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            [finding] = kept(spool, environ)
        assert ("nobody-drains", ERROR) == (finding.id, finding.severity)
        assert f"1 event of {remote.path.name} waits" in finding.what


def test_what_status_says_needs_a_person(remote: Directory, spool: Path) -> None:
    """Held events, dead letters and the like are findings, too."""
    fill(remote, [record(1, None)])
    [finding] = kept(spool)
    assert (
        "needs-you",
        WARNING,
        f"Destination {remote.path.name}: 1 held, no customer.",
        "Run cmdrdata held list, then cmdrdata assign.",
    ) == finding


# --- The command -------------------------------------------------------------------------------


def test_the_command(
    server: Backend, spool: Path, monkeypatch: pytest.MonkeyPatch, run: Run, run_json: RunJson
) -> None:
    """Errors end with status 1, warnings only where they are to; the document has what the reader sees."""
    spool.chmod(0o700)
    monkeypatch.setenv("CMDRDATA_API_KEY", KEY)
    monkeypatch.setenv("CMDRDATA_ENDPOINT", server.url)
    for signal in ("TRACES", "METRICS", "LOGS"):
        monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    monkeypatch.setattr(environment, "CHECKS", (environment.settings,))
    checked = "Checked: versions, settings, other instrumentations, the spool directory"
    done = run("doctor")
    assert (0, f"{checked}, the\nendpoint.\nNothing to do.\n") == (done.returncode, done.stdout)
    server.status = 500
    assert (0, {"errors": 0, "warnings": 1, "notes": 0}) == _counts(run_json("doctor"))
    assert (1, {"errors": 0, "warnings": 1, "notes": 0}) == _counts(run_json("doctor", "--strict"))
    server.status = 401
    done = run("doctor")
    assert (
        1,
        f"""\
error: key-refused
  {server.url} refuses the key (401).
  Check the key and the account. Events are kept until it is accepted.

{checked}, the
endpoint.
Found: 1 error.
""",
    ) == (done.returncode, done.stdout)
    requests = len(server.asked)
    assert 0 == run("doctor", "--offline").returncode
    assert requests == len(server.asked)


@pytest.mark.parametrize("columns", [1, 2, 60, 120])
def test_terminals(columns: int, spool: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """Lines fit into terminals of each width; one that says it has next to none is written to all the same."""
    spool.mkdir(mode=0o755, exist_ok=True)
    spool.chmod(0o755)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://proxy.example/v1")
    monkeypatch.setattr(environment, "CHECKS", (environment.streams, environment.settings))
    monkeypatch.setenv("COLUMNS", str(columns))
    done = run("doctor", "--offline")
    assert 0 == done.returncode
    text = " ".join(done.stdout.split())
    for part in (
        "warning: stream-usage CMDRDATA_STREAM_USAGE is auto, and proxy.example is no host that it asks: "
        "streams tell no tokens unless the application asks for them. Set CMDRDATA_STREAM_USAGE=always if the "
        "server knows stream_options.include_usage.",
        "note: local There is neither a key nor an endpoint, so events stay on this host. Set CMDRDATA_API_KEY "
        "where they are to be delivered.",
        "Found: 2 warnings, 1 note.",
    ):
        assert columns < 60 or part in text
    assert max(map(len, done.stdout.splitlines())) <= max(columns, 22)


def _counts(ran: tuple[int, Any]) -> tuple[int, dict[str, int]]:
    code, document = ran
    assert sum(document[f"{severity}s"] for severity in SEVERITIES) == len(document["findings"])
    return code, {name: document[name] for name in ("errors", "warnings", "notes")}


def test_the_python_of_the_application(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Python of a command looks around; the command is not run."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    look = ("doctor", "--offline", "--json", "--")
    found = _ids(run(*look, sys.executable, "-I", "app.py"))
    assert {"nothing-metered", "spans-limited"} <= set(found)
    empty = tmp_path / "python"
    empty.touch(0o755)
    instrument = ("opentelemetry-instrument", "--traces_exporter", "none")
    probed = f"'{sys.executable}' -m cmdrdata_exporter.cli.doctor.probe"
    for script, expected in (
        ("echo \"No module named 'cmdrdata_exporter'\" >&2; exit 1", "not-installed"),
        ("echo 3.12", "not-installed"),
        ("exit 7", "not-looked-at"),
        ("kill -9 $$", "not-looked-at"),
        # What is installed there may print something of its own.
        (f"echo hello; {probed}; echo bye", "spans-limited"),
    ):
        empty.write_text(f"#!/bin/sh\n{script}\n")
        for before in ((), instrument):
            ids = _ids(run(*look, *before, str(empty), "app.py"), 0 if "hello" in script else 1)
            assert expected in ids, script
    assert 2 == run(*look, *instrument).returncode


def test_options_of_a_command(run: Run) -> None:
    """What comes after the command is the command's; what comes before it is ours, and has to be an option."""
    mistyped = run("doctor", "--ofline")
    assert (2, True) == (mistyped.returncode, "--ofline" in mistyped.stderr)
    for dashes in ((), ("--",)):
        done = run(
            "doctor", "--offline", "--json", *dashes, sys.executable, "-I", "app.py", "--json"
        )
        assert "nothing-metered" in _ids(done)


def _ids(done: subprocess.CompletedProcess[str], code: int = 1) -> list[str]:
    assert code == done.returncode
    return [finding["id"] for finding in json.loads(done.stdout)["findings"]]


def test_which_python_runs_a_program(tmp_path: Path) -> None:
    """A Python itself, or that of the first line, also by `env`; nothing else can be asked."""
    program = tmp_path / "serve"
    for first, python in (
        (f"#!{sys.executable}", sys.executable),
        (f"#!/usr/bin/env {sys.executable}", sys.executable),
        (f"#!/usr/bin/env -S PYTHONUNBUFFERED=1 {sys.executable} -u", sys.executable),
    ):
        program.write_text(f"{first}\n")
        program.chmod(0o755)
        assert python == python_of(str(program))
    assert sys.executable == python_of(sys.executable)
    program.write_text("#!/bin/sh\n")
    for other in (str(program), "no-such-program-anywhere"):
        with pytest.raises(Refusal):
            python_of(other)


def test_docs_name_each_finding() -> None:
    """docs/troubleshooting.md has a row for each finding that there is in the code, and no other."""
    folder = Path(backend.__file__).parent
    code = "".join(path.read_text() for path in folder.glob("*.py"))
    docs = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
    assert set(re.findall(r'inding(?:_of|\.\w+)?\(\s*"([a-z-]+)"', code)) == set(
        re.findall(r"^\|[^|]*\| `([a-z-]+)` \|", docs, re.MULTILINE)
    )
