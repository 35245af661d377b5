"""
Every block of code in the documentation is run or compared by a test, is commands that exist, or is plain text.

A block that is none of these fails here, and so does an entry below whose block has gone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

from cmdrdata_exporter import settings
from cmdrdata_exporter.cli.commands import cmdrdata
from tests import help_page, python_page, settings_page, versions_page
from tests import test_docs as examples

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"))
)

TESTED = {
    ("README.md", "python"): "tests/test_docs.py",
    ("docs/add-an-endpoint.md", "py"): "tests/test_add_an_endpoint.py",
    ("docs/commands.md", "console"): "tests/cli/test_commands_page.py",
    ("docs/commands.md", "json"): "tests/cli/test_watching.py",
    ("docs/content.md", "python"): "tests/test_docs.py",
    ("docs/customers.md", "python"): "tests/test_docs.py",
    ("docs/delivery.md", "python"): "tests/test_docs.py",
    ("docs/metering.md", "python"): "tests/clients/test_openai_2.py",
    ("docs/migration.md", "python"): "tests/test_docs.py",
    ("docs/money.md", "console"): "tests/cli/test_usage_cost.py",
    ("docs/money.md", "toml"): "tests/cli/test_usage_cost.py",
    ("docs/quickstart.md", "console"): "tests/site/test_quickstart.py",
    ("docs/quickstart.md", "python"): "tests/site/test_quickstart.py",
    ("docs/quickstart.md", "text"): "tests/site/test_quickstart.py",
    ("docs/reconcile.md", "console"): "tests/cli/test_reconcile_page.py",
    ("docs/reference/commands.md", "text"): "tests/test_docs_blocks.py",
    ("docs/reference/python.md", "py"): "tests/test_docs_blocks.py",
}
"""Of each page and language, the test that runs its blocks or compares what they show."""

PLAIN = {
    "CONTRIBUTING.md": ("opentelemetry_instrumentation_cmdrdata/   every OpenAI call becomes",),
    "docs/architecture.md": ("application",),
    "docs/commands.md": (
        "$ CMDRDATA_API_KEY_FILE=/run/secrets/cmdrdata cmdrdata drain",
        "2026-11-21T18:33:20Z default-705ddb24c323: 2 held, no customer",
    ),
    "docs/customers.md": ("$ cmdrdata held list",),
    "docs/delivery.md": (
        "~/.local/state/cmdrdata/",
        "# /etc/systemd/system/cmdrdata-drain.service",
        "spec:",
        "lifecycle:",
    ),
    "docs/fleet.md": ("Python, with our instrumentation",),
    "docs/fleet-ledger.md": ("CREATE ROLE auditor", "postgresql://meter@db.example/usage?sslmode"),
    "docs/kafka.md": ("# /etc/cmdrdata/kafka.properties",),
    "docs/migration.md": ("from cmdrdata",),
    # Parts of examples/node, which tests/fleet/test_other_languages.py runs.
    "docs/other-languages.md": (
        "register('@opentelemetry",
        "onStart(span)",
        "process.once('beforeExit'",
        "stream: true,",
    ),
    "docs/monitoring.md": ("from opentelemetry import metrics",),
}
"""How the blocks begin that no test runs: pictures, files of other programs, and what other packages had."""

OTHERS = frozenset(
    [
        "cd",
        "export",
        "git",
        "jq",
        "kubectl",
        "node",
        "npm",
        "pre-commit",
        "prometheus",
        "promtool",
        "pyinstaller",
        "source",
        "ssh",
        "twine",
    ]
)
"""Programs of others, whose arguments are theirs."""


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(*found)
        for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def is_plain(page: str, block: Block) -> bool:
    """Say whether a block of a page is one that no test runs."""
    return block.text.lstrip().startswith(PLAIN.get(page, ()))


@pytest.mark.parametrize("page", PAGES)
def test_blocks(page: str) -> None:
    """A block that no other test knows is a row of commands that exist, with options that exist."""
    wrong: list[str] = []
    for block in blocks(page):
        # Commands without what they print are checked here, too.
        shows = block.language != "console" or block.text.startswith("$ ")
        if is_plain(page, block) or (shows and (page, block.language) in TESTED):
            continue
        assert block.language in ("", "console", "sh"), f"{page}: say what tests {block}"
        wrong += [f"{line}: {fault}" for line in lines_of(block.text) if (fault := fault_of(line))]
    assert [] == wrong


def test_each_entry_has_its_block() -> None:
    """What is said above is said of blocks that there are, and of tests that know the page."""
    there = {(page, block.language) for page in PAGES for block in blocks(page)}
    assert [] == sorted(TESTED.keys() - there)
    assert [] == [
        (page, beginning)
        for page, beginnings in PLAIN.items()
        for beginning in beginnings
        if not any(block.text.lstrip().startswith(beginning) for block in blocks(page))
    ]
    for (page, _), test in TESTED.items():
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8"), (page, test)


@pytest.mark.parametrize(
    "page", sorted({page for page, language in TESTED if language == "python"})
)
def test_every_example_is_run(page: str) -> None:
    """Of a page whose examples `test_docs` runs, no section is left out."""
    if TESTED[page, "python"] != "tests/test_docs.py":
        return
    run = "\n".join(
        examples.examples(name)
        for name in {**examples.PAGES, **examples.ELSEWHERE}
        if name.partition("#")[0] == page
    )
    for block in blocks(page):
        assert block.language != "python" or block.text.strip() in run


@pytest.mark.parametrize("page", PAGES)
def test_settings_are_known(page: str) -> None:
    """Every variable of ours in a block is one, but for those of other packages."""
    named = {
        name
        for block in blocks(page)
        if block.language != "py"
        for name in re.findall(r"\bCMDRDATA_[A-Z_]+\b", block.text)
    }
    assert set() == named - {*settings.NAMES, *settings.OF_COMMANDS}


def lines_of(text: str) -> Iterator[str]:
    """Yield the commands of a block: a line each, or more where a backslash ends it."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            yield line


def fault_of(line: str) -> str | None:
    """Return what is wrong with a line of commands, None where nothing is."""
    words: list[list[str]] = [[]]
    # `<your key>` is for the reader to fill in.
    lexer = shlex.shlex(re.sub(r"<[\w ]+>", "x", line), posix=True, punctuation_chars="|&;>")
    lexer.whitespace_split = True
    for word in lexer:
        if word in ("|", "&&", ";"):
            words.append([])
        else:
            words[-1].append(word)
    return next(filter(None, map(_fault_of_command, words)), None)


def _fault_of_command(words: list[str]) -> str | None:
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if not words:
        return None
    program, *arguments = words
    program = Path(program).name
    if program == "opentelemetry-instrument":
        return _fault_of_command(arguments)
    if program == "cmdrdata":
        return _fault_of_ours(arguments)
    if program == "pip":
        return _fault_of_extras(arguments)
    if program == "tox":
        return _fault_of_environment(arguments)
    if program in ("python", "python3"):
        return _fault_of_module(arguments)
    return None if program in OTHERS else f"nothing tests {program}"


def _fault_of_ours(arguments: list[str]) -> str | None:
    command: click.Command = cmdrdata
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for word in own:
        if isinstance(command, click.Group) and not word.startswith("-"):
            if word not in command.commands:
                return f"there is no command {word}"
            command = command.commands[word]
        elif re.match(r"--?[a-z]", word):
            names = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
            if word.partition("=")[0] not in {*names, "--help", "-h"}:
                return f"{command.name} has no option {word}"
    if own != arguments:
        return _fault_of_command(arguments[len(own) + 1 :])
    return None


def _fault_of_extras(arguments: list[str]) -> str | None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    known = set(re.findall(r"^([\w-]+) = \[", project, re.MULTILINE))
    asked = {
        extra
        for argument in arguments
        if argument.startswith((".", "opentelemetry-instrumentation-cmdrdata"))
        for extra in re.findall(r"[\w-]+", argument.partition("[")[2])
    }
    groups = {arguments[at + 1] for at, word in enumerate(arguments) if word == "--group"}
    unknown = (asked | groups) - known
    return f"there is no extra or group {unknown}" if unknown else None


def _fault_of_environment(arguments: list[str]) -> str | None:
    if "-e" not in arguments:
        return None
    name = arguments[arguments.index("-e") + 1]
    sections = re.findall(
        r"^\[testenv:(.+)\]$", (ROOT / "tox.ini").read_text("utf-8"), re.MULTILINE
    )
    known = {one for header in sections for one in versions_page.expanded(header)}
    known |= set(versions_page.environments())
    return None if name in known else f"tox has no environment {name}"


def _fault_of_module(arguments: list[str]) -> str | None:
    if arguments[:1] != ["-m"] or not arguments[1].startswith("tests."):
        return None
    path = ROOT / Path(*arguments[1].split(".")).with_suffix(".py")
    return None if path.exists() else f"there is no {arguments[1]}"


@pytest.mark.parametrize("made", [settings_page, help_page, python_page, versions_page])
def test_pages_that_are_made(made: Any) -> None:
    """The reference is what the code says today: `settings.md`, `commands.md`, `python.md`, `versions.md`."""
    assert made.page() == made.PAGE.read_text(encoding="utf-8"), f"run: python -m {made.__name__}"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("cmdrdata usage --by customer --csv > usage.csv", None),
        ("cmdrdata usage --nonsense", "usage has no option --nonsense"),
        ("cmdrdata nonsense", "there is no command nonsense"),
        ("cmdrdata events list --follow | jq .", None),
        ("cmdrdata doctor --strict -- cmdrdata nonsense", "there is no command nonsense"),
        ("pip install '.[cli]' openai", None),
        ("pip install '.[nonsense]'", "there is no extra or group {'nonsense'}"),
        (".venv/bin/tox -e nonsense", "tox has no environment nonsense"),
        ("A=1 nonsense", "nothing tests nonsense"),
        ("python -m tests.nonsense", "there is no tests.nonsense"),
    ],
)
def test_faults_are_seen(line: str, fault: str | None) -> None:
    """A command that is not there is told from one that is."""
    assert fault == fault_of(line)
