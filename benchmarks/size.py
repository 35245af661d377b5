"""
Count the product's code: lines without blanks, comments and docstrings, by room and by what they are for.

    python benchmarks/size.py
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from statistics import median

from printing import Target, table, targets

ROOT = Path(__file__).parent.parent
ROOMS = {
    "instrumentation": "opentelemetry_instrumentation_cmdrdata",
    "exporter core": "cmdrdata_exporter",
    "delivery": "cmdrdata_exporter/delivery",
    "cli": "cmdrdata_exporter/cli",
    "demo": "cmdrdata_exporter/cli/demo",
}
"""Each without the ones below it that are rooms of their own."""
PRODUCT = ("instrumentation", "exporter core", "delivery")
CODE_TARGET, METHODS_TARGET, LINES_TARGET = 5600, 20, 350
"""The most code lines of the product, methods of a class, and lines of a file."""

_I, _E = "opentelemetry_instrumentation_cmdrdata", "cmdrdata_exporter"
FEATURES = {
    "the call and the openai SDK": (f"{_I}/*",),
    "events, customers, settings, the exporter": (f"{_E}/*",),
    "delivery, and its ledger": (f"{_E}/delivery/*",),
    "delivery by HTTP": (f"{_E}/delivery/http/*",),
    "the commands": (f"{_E}/cli/*",),
    "the demo": (f"{_E}/cli/demo/*",),
    "WebSocket sessions": (f"{_I}/openai/websockets/*", f"{_I}/shared.py"),
    "content of calls": (
        f"{_I}/openai/content/*",
        *(f"{_I}/{name}.py" for name in ("bounds", "capture", "content", "conversations")),
    ),
    "names of predecessors": (f"{_I}/neatlogs.py", f"{_I}/r4u.py"),
    "delivery to Kafka": (f"{_E}/delivery/kafka/*",),
    "events that are found": (
        f"{_E}/delivery/spool/index*.py",
        f"{_E}/cli/event*.py",
    ),
    "the ledger of a fleet": (f"{_E}/fleet/*", f"{_E}/cli/fleet*.py"),
    "the gateway": (f"{_E}/fleet/gateway/*", f"{_E}/cli/gateway.py"),
    "prices": (f"{_E}/prices/*", f"{_E}/cli/usage/costs.py"),
    "usage reports": (f"{_E}/cli/usage/*",),
    "the dashboard": (f"{_E}/cli/dashboard/*",),
    "reconcile": (f"{_E}/cli/reconcile/*",),
    "doctor": (f"{_E}/cli/doctor/*",),
}
"""What a file is for: that of the longest pattern which fits it."""
TARGETED = tuple(FEATURES)[:4]
"""What there was when `CODE_TARGET` was set. What came later is the rest: no line of it has a target."""

_NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Room:
    """What was counted in a room."""

    files: int = 0
    code: int = 0
    functions: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """The code lines of each, and its name."""
    classes: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """The methods of each, and its name."""
    long_files: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Those over `LINES_TARGET` lines, blanks and all."""


def code_lines(source: str, tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that have code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        # Those below a name are docstrings as well.
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def count(room: Room, path: Path) -> None:
    """Add a file to its room."""
    source = path.read_text()
    tree = ast.parse(source)
    lines = code_lines(source, tree)
    room.files += 1
    room.code += len(lines)
    if (length := len(source.splitlines())) > LINES_TARGET:
        room.long_files.append((length, str(path.relative_to(ROOT))))
    for node in ast.walk(tree):
        if isinstance(node, _Function):
            within = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            room.functions.append((len(lines.intersection(within)), node.name))
        elif isinstance(node, ast.ClassDef):
            methods = sum(isinstance(each, _Function) for each in node.body)
            room.classes.append((methods, node.name))


def files(name: str) -> Iterator[Path]:
    """Return the files of a room."""
    folder = ROOT / ROOMS[name]
    below = [ROOT / other for other in ROOMS.values() if other.startswith(f"{ROOMS[name]}/")]
    for path in sorted(folder.rglob("*.py")):
        if not any(path.is_relative_to(other) for other in below):
            yield path


def feature_of(path: Path) -> str:
    """Return what a file is for."""
    name = str(path.relative_to(ROOT))
    fitting = [
        (len(pattern), feature)
        for feature, patterns in FEATURES.items()
        for pattern in patterns
        if fnmatch(name, pattern)
    ]
    return max(fitting)[1]


def by_feature() -> dict[str, Room]:
    """Return what was counted of each feature."""
    found = {feature: Room() for feature in FEATURES}
    for name in ROOMS:
        for path in files(name):
            count(found[feature_of(path)], path)
    return found


def main() -> None:
    """Run the command."""
    rooms = {name: Room() for name in ROOMS}
    for name, room in rooms.items():
        for path in files(name):
            count(room, path)
    rows = [
        [
            name,
            str(room.files),
            f"{room.code:,}",
            str(len(room.functions)),
            f"{median([length for length, _ in room.functions] or [0]):.0f}",
            "{0[1]} {0[0]}".format(max(room.functions, default=(0, ""))),
            "{0[1]} {0[0]}".format(max(room.classes, default=(0, ""))),
        ]
        for name, room in rooms.items()
    ]
    header = ["room", "files", "code", "functions", "median", "longest", "most methods"]
    print(table(header, rows))
    features = by_feature()
    whole = sum(room.code for room in features.values())
    rows = [
        [name, str(room.files), f"{room.code:,}", f"{room.code / whole:.0%}"]
        for name, room in features.items()
    ]
    print(table(["what it is for", "files", "code", "of all"], rows))
    product = [rooms[name] for name in PRODUCT]
    long_files = [each for room in product for each in room.long_files]
    methods, largest = max(each for room in product for each in room.classes)
    found = [
        Target(
            "code lines of the product without CLI and demo",
            sum(room.code for room in product),
            CODE_TARGET,
            digits=0,
        ),
        Target(
            "of it, what there was when that was set",
            sum(features[name].code for name in TARGETED),
            CODE_TARGET,
            digits=0,
        ),
        Target(f"methods of the largest class, {largest}", methods, METHODS_TARGET, digits=0),
        Target(f"files over {LINES_TARGET} lines", len(long_files), 0, digits=0),
    ]
    print(targets(found))
    many = [each for room in product for each in room.classes if each[0] > METHODS_TARGET]
    for number, name in sorted(many, reverse=True):
        print(f"{number:5} methods: {name}")
    for length, path in sorted(long_files, reverse=True):
        print(f"{length:5} lines: {path}")


if __name__ == "__main__":
    main()
