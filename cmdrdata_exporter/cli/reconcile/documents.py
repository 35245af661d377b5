"""
The provider's side from documents: pages of the usage API, and the export of the usage page.

Pure but for the reading of files. Columns and fields that are not known are left alone; what lacks those that are
needed is refused.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cmdrdata_exporter.cli.reconcile.lines import FIELDS, LayoutError, TheirLine
from cmdrdata_exporter.cli.reconcile.surfaces import (
    BY_NAME,
    REQUESTS,
    SURFACES,
    Surface,
    adds_up,
    converted,
)

PAGE = (
    'a page of the usage API, {"object": "page", "data": [{"start_time": ..., "end_time": ..., "results": [...]}]}; '
    "several pages may follow one another, or be in one list"
)
_TELLING = {
    "images": "images",
    "characters": "audio_speeches",
    "seconds": "audio_transcriptions",
    "num_sessions": "code_interpreter_sessions",
    "usage_bytes": "vector_stores",
    "output_tokens": "completions",
}
"""The column that only one surface has."""
EXPORT = (
    "the activity export of OpenAI's usage page, with the columns start_time, end_time and one of: "
    f"{', '.join(_TELLING)}, input_tokens, num_requests"
)
_MONEY = (
    "it has costs, not usage; choose the activity, not the cost, before you export, "
    "or ask the usage API instead of the costs API"
)
_OBJECT = re.compile(r"organization\.(usage\.([a-z_]+)|costs)\.result")
_NUMBERS = frozenset(
    name
    for surface in SURFACES
    for rule in surface.rules
    for name in (*rule.fields, *rule.otherwise)
)
_IDENTITY = (
    *(field for fields in FIELDS.values() for field in fields),
    "user_id",
    "api_source",
    "context_level",
    "size",
    "source",
    "vector_store_id",
)
"""Their fields that tell one line of a bucket from another."""
_MODERATION = re.compile(r"(text|omni)-moderation")


class Documents:
    """
    Documents that are read one after another, so that nothing is counted twice.

    Raises:
        LayoutError: from each of its methods, where something is not what it should be.
    """

    def __init__(self) -> None:
        self._number = 0
        self._seen: dict[tuple[Any, ...], tuple[int, str]] = {}
        self._goes_on: dict[str, str] = {}
        self.notes: list[str] = []

    def finish(self) -> list[str]:
        """Return what must be known of the documents as a whole."""
        return self.notes + [
            f"{name}: its last page of {surface} says that there are more; the usage of those is missing here"
            for surface, name in self._goes_on.items()
        ]

    def file(self, path: Path) -> Iterator[TheirLine]:
        """Yield the lines of a file."""
        name = path.name
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise LayoutError(
                f"{name} is no text; expected is {PAGE}; or {EXPORT}. An export that is a zip file must be unpacked"
            ) from None
        if text.lstrip()[:1] in ("{", "["):
            for document in _documents(text, name):
                yield from self.page(document, name)
        else:
            yield from self._export(text, name)

    def page(
        self, document: object, name: str, surface: Surface | None = None
    ) -> Iterator[TheirLine]:
        """
        Yield the lines of one page of the usage API.

        Args:
            document: its JSON.
            name: where it is from, for messages.
            surface: what was asked for. Default: what its results say.
        """
        page = _object(document, name)
        buckets = page.get("data")
        if not isinstance(buckets, list):
            raise LayoutError(f'{name} has no list "data"; expected is {PAGE}')
        self._number += 1
        read: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        for one in cast("list[object]", buckets):
            bucket = _object(one, name)
            results = bucket.get("results", bucket.get("result"))
            if not isinstance(results, list):
                raise LayoutError(f'{name}: a bucket has no list "results"; expected is {PAGE}')
            read.append(
                (bucket, [_object(result, name) for result in cast("list[object]", results)])
            )
        told = [_surface(result, name) for _, results in read for result in results]
        of_all = surface or (told[0] if told else _named(name))
        if of_all is None:
            self.notes.append(
                f"{name}: a page has no usage, and does not say of what; it is left out"
            )
            return
        if page.get("has_more") is True:
            self._goes_on[of_all.name] = name
        else:
            self._goes_on.pop(of_all.name, None)
        for bucket, results in read:
            start, end = _time(bucket, "start_time", name), _time(bucket, "end_time", name)
            yield TheirLine(of_all.name, start, end)
            for result in results:
                yield self._line(_surface(result, name), start, end, result, name)

    def _export(self, text: str, name: str) -> Iterator[TheirLine]:
        """Yield the lines of an export."""
        head = text.partition("\n")[0]
        delimiter = max(",\t;", key=head.count)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        columns = [column.strip() for column in rows.fieldnames or ()]
        rows.fieldnames = columns
        if {"amount_value", "line_item"} & set(columns):
            raise LayoutError(f"{name}: {_MONEY}")
        if not {"start_time", "end_time"} <= set(columns):
            raise LayoutError(f"{name} has the columns {_listed(columns)}; expected is {EXPORT}")
        self._number += 1
        try:
            read = list(rows)
        except csv.Error as error:
            raise LayoutError(f"{name} is no whole CSV: {error}; expected is {EXPORT}") from None
        if not _NUMBERS & set(columns):
            # OpenAI exports a time without usage so.
            if set(columns) <= {"start_time", "end_time", "start_time_iso", "end_time_iso"}:
                self.notes.append(
                    f"{name}: the export has no usage, and does not say of what; it is left out"
                )
                return
            raise LayoutError(f"{name} has the columns {_listed(columns)}; expected is {EXPORT}")
        surface = _of_columns(columns, read, name)
        for row in read:
            start, end = _time(row, "start_time", name), _time(row, "end_time", name)
            yield TheirLine(surface.name, start, end)
            if any(row.get(column) for column in _NUMBERS):
                yield self._line(surface, start, end, row, name)

    def _line(
        self, surface: Surface, start: int, end: int, result: Mapping[str, Any], name: str
    ) -> TheirLine:
        told = {
            field: amount
            for field in _NUMBERS
            if (amount := _number(result.get(field), field, name)) is not None
        }
        units = converted(surface, told)
        if not units.keys() - {REQUESTS}:
            needed = next(rule.fields[0] for rule in surface.rules if rule.unit != REQUESTS)
            raise LayoutError(
                f"{name}: a result of {surface.name} has no {needed}; expected is {PAGE}"
            )
        # Two lines of one document may be alike, since an export splits some; of two documents they are the same one.
        identity = (str(result.get(field) or "").strip().lower() for field in _IDENTITY)
        key = (surface.name, start, end, *identity)
        number, before = self._seen.setdefault(key, (self._number, name))
        if number != self._number:
            raise LayoutError(
                f"the usage of {surface.name} from {start} to {end} is in {before} and again in {name}, "
                "and would be counted twice; give each page or export once"
            )
        # What a surface cannot be grouped by is not compared, though it be told.
        said = {field: result[field] for field in surface.groups if field in result}
        return TheirLine(
            surface.name,
            start,
            end,
            model=_text(said.get("model")),
            tier="batch" if _is_true(said.get("batch")) else _text(said.get("service_tier")),
            project=_text(said.get("project_id")),
            key=_text(said.get("api_key_id")),
            units=units,
            is_odd=not adds_up(told),
            told=frozenset(
                dimension
                for dimension, fields in FIELDS.items()
                if any(said.get(field) not in (None, "") for field in fields)
            ),
        )


def _documents(text: str, name: str) -> Iterator[object]:
    """Yield the pages of a text: one after another, or in lists."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace() or text[at] == ",":
            at += 1
            continue
        try:
            found, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise LayoutError(f"{name} is no whole JSON: {error}; expected is {PAGE}") from None
        if not isinstance(found, list):
            yield found
            continue
        entries = cast("list[Any]", found)
        if entries and all(isinstance(one, dict) and "start_time" in one for one in entries):
            yield {"data": entries}  # The buckets alone.
        else:
            yield from entries


def _object(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LayoutError(
            f"{name} has {type(value).__name__} in the place of an object; expected is {PAGE}"
        )
    return cast("dict[str, Any]", value)


def _surface(result: Mapping[str, Any], name: str) -> Surface:
    said = result.get("object")
    found = _OBJECT.fullmatch(said) if isinstance(said, str) else None
    if found is not None and found[1] == "costs":
        raise LayoutError(f"{name}: {_MONEY}")
    surface = None if found is None else BY_NAME.get(found[2])
    if surface is None:
        known = ", ".join(BY_NAME)
        raise LayoutError(
            f'{name} has a result whose "object" is {said!r:.80}; expected is '
            f'"organization.usage.X.result", where X is one of: {known}'
        )
    return surface


def _named(name: str) -> Surface | None:
    """Return the surface that a file's name begins with, as the exports are named; None where it is none."""
    return next((surface for surface in SURFACES if name.lower().startswith(surface.name)), None)


def _of_columns(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], name: str) -> Surface:
    for column, surface in _TELLING.items():
        if column in columns:
            return BY_NAME[surface]
    if "num_requests" in columns:
        return BY_NAME["web_searches" if "num_model_requests" in columns else "file_searches"]
    named = _named(name)
    if named is not None:
        return named
    # Embeddings and moderations have the same columns.
    models = {_text(row.get("model")) for row in rows} - {""}
    moderates = {_MODERATION.match(model) is not None for model in models}
    if len(moderates) == 1 and "input_tokens" in columns:
        return BY_NAME["moderations" if moderates.pop() else "embeddings"]
    raise LayoutError(
        f"{name} has the columns {_listed(columns)}, which several exports have; "
        "give the file the name that it had, which begins with embeddings or moderations for instance"
    )


def _listed(columns: Sequence[str]) -> str:
    return repr(", ".join(columns))[:300]


def _time(bucket: Mapping[str, Any], field: str, name: str) -> int:
    seconds = _number(bucket.get(field), field, name)
    if seconds is None or not 0 < seconds < 253402300800:
        raise LayoutError(
            f"{name}: {field} is {bucket.get(field)!r:.40}; expected are Unix seconds, 1764547200 for instance"
        )
    return int(seconds)


def _number(value: object, field: str, name: str) -> float | None:
    """Return an amount, an integer where it is one; None where there is none."""
    if value is None or value == "":
        return None
    number: float | None = None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        try:
            number = int(value) if value.strip().isdecimal() else float(value)
        except ValueError:
            number = None
    if number is None or not math.isfinite(number) or number < 0:
        raise LayoutError(
            f"{name}: {field} is {value!r:.40}; expected is a number that is not negative"
        )
    return int(number) if number == int(number) else number


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")
