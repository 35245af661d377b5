"""
Writes `docs/reference/versions.md` from `tox.ini`, the constraints of its environments and `pyproject.toml`.

    python -m tests.versions_page
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "versions.md"
NEWEST = "newest"
SUITES = ("py", "otel-", "openai-1", "openai-2")
"""How the names of those environments begin that run the whole suite, each with versions of its own."""

_BEGINNING = """\
# Tested versions
`python -m tests.versions_page` makes this page from `tox.ini` and `pyproject.toml`; a test says when it is old.
Every change passes all of these before it is accepted.
*Newest* is what the package index had on the day of the test.
"""


def page() -> str:
    """Return the page."""
    return "\n".join([_BEGINNING, *_suites(), *_others(), *_allowed()])


def _tox() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string((ROOT / "tox.ini").read_text(encoding="utf-8"))
    return parser


def environments() -> list[str]:
    """Return the names of the environments that `tox` runs."""
    lines = _tox()["tox"]["env_list"].split("\n")
    return [name for line in lines if line for name in expanded(line.strip())]


def expanded(name: str) -> list[str]:
    """Return the names for which one with braces stands."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", name)
    if found is None:
        return [name]
    return [f"{found[1]}{part.strip()}{found[3]}" for part in found[2].split(",")]


def _suites() -> Iterator[str]:
    yield "## The whole suite"
    yield "| environment | Python | openai | OpenTelemetry |"
    yield "|---|---|---|---|"
    pythons = dict(_of_factors("base_python"))
    constraints = dict(_of_factors("constraints"))
    for name in environments():
        if name.startswith(SUITES) and name in pythons:
            file = constraints.get(name)
            held = (ROOT / file).read_text(encoding="utf-8") if file else ""
            versions = [_version(held, package) for package in ("openai", "opentelemetry-api")]
            yield f"| `{name}` | {pythons[name].removeprefix('python')} | {' | '.join(versions)} |"
    yield ""


def _of_factors(option: str) -> Iterator[tuple[str, str]]:
    """Yield what an option of `testenv` is for each environment that it names."""
    for line in _tox()["testenv"][option].split("\n"):
        if line.strip():
            names, _, value = line.partition(": ")
            yield from ((name.strip(), value.strip()) for name in names.split(","))


def _version(constraints: str, package: str) -> str:
    found = re.search(rf"^{package}==(.+)$", constraints, re.MULTILINE)
    return found[1] if found else NEWEST


def _others() -> Iterator[str]:
    parser = _tox()
    sections = {
        name: section
        for section in parser.sections()
        for name in _sections(section.removeprefix("testenv:"))
    }
    yield "## Beside other packages"
    yield "| environment | what is tested | openai |"
    yield "|---|---|---|"
    for name in environments():
        if name not in sections:
            continue
        section = parser[sections[name]]
        deps = [line.strip() for line in section.get("deps", "").split("\n")]
        openai = [dep.partition(": ")[2] or dep for dep in deps if _is_openai(dep, name)]
        if openai and not name.startswith(("py", "openai-1.0")):
            asked = re.sub(r"^openai(\[[^\]]*\])?", "", openai[0])
            yield f"| `{name}` | {section['description']} | {f'`{asked}`' if asked else NEWEST} |"
    yield ""


def _sections(header: str) -> list[str]:
    """Return the environments of a section of `tox.ini`."""
    return [name for part in header.split("|") for name in expanded(part)]


def _is_openai(dependency: str, environment: str) -> bool:
    """Whether a line of dependencies asks for openai in an environment."""
    factor, _, asked = dependency.rpartition(": ")
    in_it = not factor or factor in environment.split("-")
    return in_it and re.match(r"openai(\[|[<>=]|$)", asked) is not None


def _allowed() -> Iterator[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    yield "## What may be installed"
    yield "| package | versions |"
    yield "|---|---|"
    [python] = re.findall(r'^requires-python = "(.+)"$', text, re.MULTILINE)
    yield f"| Python | `{python}` |"
    before, _, _ = text.partition("[project.entry-points")
    requirements = re.findall(
        r'"([a-z0-9-]+)([<>=][^";]+)[^"]*"', before.split("dependencies = [", 1)[1]
    )
    # The first that asks for a package is the least: the demo needs a later openai than metering does.
    for package, versions in sorted(dict(reversed(requirements)).items()):
        yield f"| {package} | `{versions}` |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
