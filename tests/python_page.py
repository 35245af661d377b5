"""
Writes `docs/reference/python.md` from the public names of both packages: signatures and docstrings.

    python -m tests.python_page

The sources are read, not the objects: what a class inherits from openai or OpenTelemetry is theirs to describe.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "python.md"
PACKAGES = ("cmdrdata_exporter", "opentelemetry_instrumentation_cmdrdata")

_Function = ast.FunctionDef | ast.AsyncFunctionDef

_BEGINNING = """\
# Python
`python -m tests.python_page` makes this page from the sources; a test says when it is old.
Only what is named here is public: see [compatibility](../compatibility.md#names-in-python).
Examples are in [who pays](../customers.md).
"""


def page() -> str:
    """Return the page."""
    lines: list[str] = [_BEGINNING]
    described: dict[str, str] = {}
    for package in PACKAGES:
        lines += [f"## {package}", ""]
        public = importlib.import_module(package)
        for name in public.__all__:
            if name in described:
                lines += [f"`{name}` is that of [{described[name]}](#{name.lower()}).", ""]
            elif name == "__version__":
                lines += [f"### {name}", "The version of the distribution.", ""]
            else:
                lines += _described(name, getattr(public, name).__module__)
                described[name] = package
    return "\n".join(lines).rstrip() + "\n"


def _described(name: str, module: str) -> Iterator[str]:
    """Yield the lines about a public name, which a module of ours defines."""
    source = (ROOT / Path(*module.split("."))).with_suffix(".py")
    if not source.exists():
        source = source.with_suffix("") / "__init__.py"
    [found] = (
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, (ast.ClassDef, *_functions()))
        if node.name == name and not _is_overload(node)
    )
    yield f"### {name}"
    if isinstance(found, ast.ClassDef):
        yield from _of_class(found)
    else:
        yield from _of_function(found, name)


def _of_class(definition: ast.ClassDef) -> Iterator[str]:
    methods = [node for node in definition.body if isinstance(node, _functions())]
    beginning = [method for method in methods if method.name == "__init__"]
    fields = [
        ast.unparse(node)
        for node in definition.body
        if isinstance(node, ast.AnnAssign) and not ast.unparse(node.target).startswith("_")
    ]
    bases = ", ".join(b for b in map(ast.unparse, definition.bases) if not b.startswith("_"))
    yield _code(
        f"class {definition.name}" + (f"({bases})" if bases else ""),
        *(_signature(method, definition.name) for method in beginning if not _is_overload(method)),
        *(f"    {field}" for field in fields),
    )
    yield from _text(definition)
    for method in methods:
        if not method.name.startswith("_") and ast.get_docstring(method):
            yield f"#### {definition.name}.{method.name}"
            yield from _of_function(method, method.name)


def _of_function(definition: _Function, name: str) -> Iterator[str]:
    decorators = list(map(ast.unparse, definition.decorator_list))
    if "property" in decorators and definition.returns:
        yield _code(f"{name}: {ast.unparse(definition.returns)}")
    else:
        marks = [f"@{mark}" for mark in decorators if mark in ("classmethod", "staticmethod")]
        yield _code(*marks, _signature(definition, name))
    yield from _text(definition)


def _signature(definition: _Function, name: str) -> str:
    """Return how something is called, an argument on a line each where it is long; without `self` and `cls`."""
    parts = [part for part in _parts(definition.args) if part not in ("self", "cls")]
    # A class is called, and returns what its name says.
    has_result = definition.returns is not None and definition.name != "__init__"
    result = f" -> {ast.unparse(definition.returns)}" if has_result and definition.returns else ""
    before = "async " if isinstance(definition, ast.AsyncFunctionDef) else ""
    line = f"{before}{name}({', '.join(parts)}){result}"
    if len(line) <= 80:
        return line
    inside = "".join(f"    {part},\n" for part in parts)
    return f"{before}{name}(\n{inside}){result}"


def _parts(arguments: ast.arguments) -> list[str]:
    """Return the arguments of a signature one by one, each as it is written."""
    parts: list[str] = []
    depth = 0
    for piece in ast.unparse(arguments).split(", "):
        if depth:
            parts[-1] += f", {piece}"
        else:
            parts.append(piece)
        depth += len(re.findall(r"[\[({]", piece)) - len(re.findall(r"[\])}]", piece))
    return [re.sub(r"^([^=]*:[^=]*)=", r"\1 = ", part) for part in parts if part]


def _text(definition: ast.ClassDef | _Function) -> Iterator[str]:
    """Yield a docstring as Markdown: its sections are headed in bold, and indented lines are code."""
    said = inspect.cleandoc(ast.get_docstring(definition) or "")
    yield re.sub(
        r"^(Args|Raises|Returns|Yields):\n((?:    .*\n?)+)", _section, said, flags=re.MULTILINE
    )
    yield ""


def _section(found: re.Match[str]) -> str:
    """Return a section of a docstring as a list."""
    rows = re.sub(r"\n {4,}", " ", inspect.cleandoc(found[2])).splitlines()
    listed = [re.sub(r"^([\w*]+): ", r"`\1`: ", " ".join(row.split())) for row in rows]
    return f"**{found[1]}**\n\n" + "".join(f"- {row}\n" for row in listed)


def _code(*lines: str) -> str:
    return "\n".join(["```py", *lines, "```", ""])


def _functions() -> tuple[type[ast.FunctionDef], type[ast.AsyncFunctionDef]]:
    return (ast.FunctionDef, ast.AsyncFunctionDef)


def _is_overload(node: ast.ClassDef | _Function) -> bool:
    return any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
