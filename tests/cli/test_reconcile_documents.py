"""The provider's side: every unit as its documentation defines it, whichever way it comes, and nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter.cli.reconcile.documents import Documents
from cmdrdata_exporter.cli.reconcile.keys import Keys, read_keys
from cmdrdata_exporter.cli.reconcile.lines import LayoutError, TheirLine, Theirs
from cmdrdata_exporter.cli.reconcile.surfaces import BY_NAME, adds_up, converted, surface_of
from cmdrdata_exporter.key_hash import key_hash

DAY = 1_759_622_400
"""2025-10-05T00:00:00Z."""
COMPLETIONS_COLUMNS = [
    *("start_time", "end_time", "start_time_iso", "end_time_iso"),
    *(
        "project_id",
        "num_model_requests",
        "user_id",
        "api_key_id",
        "model",
        "batch",
        "service_tier",
    ),
    *("input_tokens", "output_tokens", "input_cached_tokens", "input_uncached_tokens"),
    *("input_text_tokens", "output_text_tokens", "input_cached_text_tokens"),
    *("input_audio_tokens", "input_cached_audio_tokens", "output_audio_tokens"),
    *("input_image_tokens", "input_cached_image_tokens", "output_image_tokens"),
]
"""The columns of an export of October 2025."""


def bucket(*results: dict[str, Any], start: int = DAY) -> dict[str, Any]:
    """Return a bucket of one day."""
    return {
        "object": "bucket",
        "start_time": start,
        "end_time": start + 86_400,
        "results": [*results],
    }


def result(surface: str = "completions", **fields: Any) -> dict[str, Any]:
    """Return a result."""
    return {"object": f"organization.usage.{surface}.result", "num_model_requests": 2, **fields}


def page(*buckets: dict[str, Any], more: bool = False) -> dict[str, Any]:
    """Return a page."""
    return {"object": "page", "data": [*buckets], "has_more": more}


CHAT = result(input_tokens=1000, output_tokens=50, model="gpt-5-mini")


def lines(path: Path, text: str, documents: Documents | None = None) -> list[TheirLine]:
    """Return the lines of a file that have usage."""
    path.write_text(text, encoding="utf-8")
    return [line for line in (documents or Documents()).file(path) if line.units]


@pytest.mark.parametrize(
    ("surface", "told", "expected"),
    [
        pytest.param(
            "completions",
            {
                "num_model_requests": 3,
                "input_tokens": 1000,
                "input_uncached_tokens": 700,
                "input_cached_tokens": 200,
                "input_cache_write_tokens": 100,
                "input_text_tokens": 500,
                "input_cached_text_tokens": 120,
                "input_audio_tokens": 150,
                "input_cached_audio_tokens": 60,
                "input_image_tokens": 50,
                "input_cached_image_tokens": 20,
                "output_tokens": 90,
                "output_text_tokens": 60,
                "output_audio_tokens": 25,
                "output_image_tokens": 5,
            },
            {
                "requests": 3,
                "input_tokens": 1000,
                "cache_read_input_tokens": 200,
                "cache_write_input_tokens": 100,
                # Ours have what was read from the cache, theirs do not.
                "audio_input_tokens": 150 + 60,
                "image_input_tokens": 50 + 20,
                "output_tokens": 90,
                "audio_output_tokens": 25,
                "image_output_tokens": 5,
            },
            id="all-parts",
        ),
        pytest.param(
            "completions",
            {
                "input_uncached_tokens": 700,
                "input_cached_tokens": 200,
                "input_cache_write_tokens": 100,
                "output_tokens": 9,
            },
            {
                "input_tokens": 700 + 200 + 100,
                "cache_read_input_tokens": 200,
                "cache_write_input_tokens": 100,
                "output_tokens": 9,
            },
            id="parts-alone",
        ),
        pytest.param(
            "completions",
            {"input_tokens": 10, "output_tokens": 0, "input_audio_tokens": 4},
            {"input_tokens": 10, "output_tokens": 0, "audio_input_tokens": 4},
            id="what-is-not-told-is-not-zero",
        ),
        pytest.param(
            "completions",
            {"input_tokens": 10, "input_cached_audio_tokens": 4},
            {"input_tokens": 10},
            id="a-part-of-a-part",
        ),
        pytest.param("embeddings", {"input_tokens": 8}, {"input_tokens": 8}, id="embeddings"),
        pytest.param("moderations", {"input_tokens": 8}, {"moderated_tokens": 8}, id="moderations"),
        pytest.param("images", {"images": 3}, {"images": 3}, id="images"),
        pytest.param("audio_speeches", {"characters": 70}, {"characters": 70}, id="speeches"),
        pytest.param("audio_transcriptions", {"seconds": 9}, {"audio_seconds": 9}, id="seconds"),
        pytest.param(
            "web_searches",
            {"num_requests": 4, "num_model_requests": 2},
            {"web_search_calls": 4},
            id="web",
        ),
        pytest.param("file_searches", {"num_requests": 4}, {"file_search_calls": 4}, id="files"),
        pytest.param(
            "code_interpreter_sessions",
            {"num_sessions": 4},
            {"code_interpreter_sessions": 4},
            id="sessions",
        ),
        pytest.param("vector_stores", {"usage_bytes": 4}, {"vector_store_bytes": 4}, id="bytes"),
    ],
)
def test_their_units_become_ours(
    surface: str, told: dict[str, float], expected: dict[str, float]
) -> None:
    """Their parts exclude each other, ours are part of a total: each rule adds up what belongs together."""
    assert expected == converted(BY_NAME[surface], told)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"input_tokens": 10}, True),
        ({"input_tokens": 10, "input_uncached_tokens": 6, "input_cached_tokens": 4}, True),
        ({"input_tokens": 10, "input_uncached_tokens": 10, "input_cached_tokens": 4}, False),
    ],
)
def test_whether_their_parts_add_up(told: dict[str, float], expected: bool) -> None:
    """Where their total is told with its parts, it is seen whether it has them all."""
    assert adds_up(told) is expected


@pytest.mark.parametrize(
    ("endpoint", "unit", "expected"),
    [
        ("chat.completions", "input_tokens", "completions"),
        ("batches", "requests", "completions"),
        ("embeddings", "input_tokens", "embeddings"),
        ("embeddings", "requests", "embeddings"),
        ("decisions", "output_tokens", "decisions"),
        ("images.generate", "images", "images"),
        ("images.generate", "requests", "images"),
        ("images.generate", "input_tokens", "completions"),
        ("audio.transcriptions", "audio_seconds", "audio_transcriptions"),
        ("responses", "web_search_calls", "web_searches"),
    ],
)
def test_where_ours_are_counted_there(endpoint: str, unit: str, expected: str) -> None:
    """What an event uses is looked for where the provider counts it."""
    assert expected == surface_of(endpoint, unit)


def test_an_export(tmp_path: Path) -> None:
    """The export of the usage page is read, whatever separates its columns and whatever else it has."""
    values: dict[str, Any] = {
        "start_time": DAY,
        "end_time": DAY + 86_400,
        "project_id": "proj_1",
        "num_model_requests": "10.0",
        "user_id": "user-1",
        "api_key_id": "key_1",
        "model": "gpt-4o-2024-08-06",
        "batch": "FALSE",
        "service_tier": "default",
        "input_tokens": "59200.0",
        "output_tokens": "10646.0",
        "input_cached_tokens": "5760.0",
        "input_uncached_tokens": "53440.0",
        "output_audio_tokens": "0.0",
    }
    columns = [*COMPLETIONS_COLUMNS, "a_new_column"]
    row = [str(values.get(column, "")) for column in columns]
    empty = [str(DAY + 86_400), str(DAY + 172_800), *[""] * (len(columns) - 2)]
    expected = TheirLine(
        "completions",
        DAY,
        DAY + 86_400,
        model="gpt-4o-2024-08-06",
        tier="default",
        project="proj_1",
        key="key_1",
        units={
            "requests": 10,
            "input_tokens": 59_200,
            "cache_read_input_tokens": 5_760,
            "output_tokens": 10_646,
            "audio_output_tokens": 0,
        },
        told=frozenset({"model", "tier", "project", "key"}),
    )
    for separator in (",", "\t", ";"):
        text = "\ufeff" + "\r\n".join(separator.join(line) for line in (columns, row, row, empty))
        # The export splits what is alike: both lines count.
        assert [expected, expected] == lines(tmp_path / "usage.csv", text)
        days = Theirs(("day",))
        days.add(Documents().file(tmp_path / "usage.csv"), since=None, until=None)
        assert {"completions": {"2025-10-05", "2025-10-06"}} == days.days


@pytest.mark.parametrize(
    ("name", "columns", "values", "expected"),
    [
        ("a.csv", "model,images", "dall-e-3,2", "images"),
        ("a.csv", "model,characters", "tts-1,2", "audio_speeches"),
        ("a.csv", "model,seconds", "whisper-1,2", "audio_transcriptions"),
        ("a.csv", "usage_bytes", "2", "vector_stores"),
        ("a.csv", "num_sessions", "2", "code_interpreter_sessions"),
        ("a.csv", "num_requests,num_model_requests", "2,1", "web_searches"),
        ("a.csv", "num_requests", "2", "file_searches"),
        ("a.csv", "model,input_tokens", "text-embedding-3-small,2", "embeddings"),
        ("a.csv", "model,input_tokens", "omni-moderation-latest,2", "moderations"),
        ("embeddings_usage_2025.csv", "input_tokens", "2", "embeddings"),
    ],
)
def test_what_an_export_is_of(
    name: str, columns: str, values: str, expected: str, tmp_path: Path
) -> None:
    """An export does not say what it is of; its columns do, else its models, else the name that it came with."""
    text = f"start_time,end_time,{columns}\n{DAY},{DAY + 60},{values}\n"
    (line,) = lines(tmp_path / name, text)
    assert expected == line.surface


@pytest.mark.parametrize("form", ["one", "in a row", "a list", "the buckets alone"])
def test_pages(form: str, tmp_path: Path) -> None:
    """Pages may be one or several, in whichever way they were kept."""
    second = bucket({**CHAT, "model": "gpt-4o"}, start=DAY + 86_400)
    pages = [page(bucket(CHAT), more=True), page(second)]
    text = {
        "one": json.dumps(page(bucket(CHAT), second)),
        "in a row": "\n".join(map(json.dumps, pages)),
        "a list": json.dumps(pages),
        "the buckets alone": json.dumps([bucket(CHAT), second]),
    }[form]
    documents = Documents()
    assert [("2025-10-05", "gpt-5-mini"), ("2025-10-06", "gpt-4o")] == [
        (line.day, line.model) for line in lines(tmp_path / "usage.json", text, documents)
    ]
    assert [] == documents.finish()


def test_a_page_after_which_there_are_more(tmp_path: Path) -> None:
    """What is missing in a file is said."""
    documents = Documents()
    lines(tmp_path / "usage.json", json.dumps(page(bucket(CHAT), more=True)), documents)
    assert [
        "usage.json: its last page of completions says that there are more; the usage of those is missing here"
    ] == documents.finish()


def test_nothing_of_nothing(tmp_path: Path) -> None:
    """A page or an export without usage says only where it is said of what."""
    documents = Documents()
    assert [] == lines(tmp_path / "a.json", json.dumps(page(bucket())), documents)
    empty = "start_time,end_time,start_time_iso,end_time_iso\n"
    assert [] == lines(tmp_path / "b.csv", f"{empty}{DAY},{DAY + 60},,\n", documents)
    assert [
        "a.json: a page has no usage, and does not say of what; it is left out",
        "b.csv: the export has no usage, and does not say of what; it is left out",
    ] == documents.finish()


def test_a_batch_is_a_tier(tmp_path: Path) -> None:
    """What ran in a batch is of that tier, whatever else is said."""
    batched = {**CHAT, "batch": True, "service_tier": "default"}
    (line,) = lines(tmp_path / "usage.json", json.dumps(page(bucket(batched))))
    assert "batch" == line.tier


def test_the_same_usage_twice(tmp_path: Path) -> None:
    """A line that is in two pages, or two files, would count twice, so it is refused."""
    documents, text = Documents(), json.dumps(page(bucket(CHAT)))
    lines(tmp_path / "a.json", text, documents)
    with pytest.raises(LayoutError, match=r"is in a\.json and again in b\.json"):
        lines(tmp_path / "b.json", text, documents)
    other = json.dumps(page(bucket({**CHAT, "project_id": "proj_2"})))
    assert 1 == len(lines(tmp_path / "c.json", other, documents))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no whole JSON"),
        ('{"data": 7}', 'has no list "data"'),
        ("[7]", "has int in the place of an object"),
        (json.dumps(page({"start_time": DAY, "end_time": DAY})), 'a bucket has no list "results"'),
        (
            json.dumps(page(bucket({"object": "organization.usage.dreams.result"}))),
            "is one of: completions, decisions",
        ),
        (
            json.dumps(page(bucket({"object": "organization.costs.result"}))),
            "it has costs, not usage",
        ),
        (json.dumps(page(bucket(result()))), "has no input_tokens"),
        (json.dumps(page(bucket({**CHAT, "input_tokens": -1}))), "input_tokens is -1"),
        (json.dumps(page(bucket({**CHAT, "input_tokens": True}))), "input_tokens is True"),
        (json.dumps(page(bucket({**CHAT, "input_tokens": "NaN"}))), "input_tokens is 'NaN'"),
        (json.dumps(page(bucket(CHAT, start=0))), "expected are Unix seconds"),
        ("date,model,cost\n", "has the columns 'date, model, cost'"),
        ("start_time,end_time,amount_value,line_item\n", "it has costs, not usage"),
        ("start_time,end_time,colour\n", "one of: images, characters"),
        (f"start_time,end_time,input_tokens\n{DAY},{DAY + 60},5\n", "which several exports have"),
        (f'start_time,end_time,images\n{DAY},{DAY + 60},"5\n', "is no whole CSV"),
        ("", "has the columns ''"),
    ],
)
def test_what_is_no_usage(text: str, message: str, tmp_path: Path) -> None:
    """What is not laid out as it should be is refused, with what is expected."""
    with pytest.raises(LayoutError, match=message) as raised:
        lines(tmp_path / "usage.txt", text)
    assert (
        "expected" in str(raised.value)
        or "choose" in str(raised.value)
        or "give" in str(raised.value)
    )


def test_what_is_no_text(tmp_path: Path) -> None:
    """A file that is packed is not guessed at."""
    path = tmp_path / "usage.zip"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(
        LayoutError, match=r"usage\.zip is no text; expected is .* must be unpacked"
    ):
        list(Documents().file(path))


def test_a_bucket_of_two_days() -> None:
    """What is of more than one UTC day cannot be compared by the day."""
    theirs = Theirs(("day",))
    for start, end in ((DAY, DAY + 86_401), (DAY + 3600, DAY + 90_000)):
        with pytest.raises(LayoutError, match="is of more than one UTC day"):
            theirs.add([TheirLine("completions", start, end)], since=None, until=None)
    theirs.add([TheirLine("completions", DAY + 86_340, DAY + 86_400)], since=None, until=None)
    assert {"completions": {"2025-10-05"}} == theirs.days


def test_keys(tmp_path: Path) -> None:
    """A key is known by its last four characters, if so many are shown; those with the same are not told apart."""
    path = tmp_path / "keys.json"
    path.write_text(
        json.dumps(
            {
                "data": [
                    {"id": "key_1", "redacted_value": "sk-proj-...aBc9"},
                    {"id": "key_2", "redacted_value": "sk-svcacct-********aBc9"},
                    {"id": "key_3", "redacted_value": "sk-...ab1"},
                    {"id": "key_4", "redacted_value": "sk-abcd"},
                    {"id": "key_5"},
                ]
            }
        )
    )
    keys = read_keys(path)
    assert (key_hash("aBc9"), "key_3") == (keys.hash_of("key_1"), keys.hash_of("key_3"))
    assert ("key_1 or key_2", "other") == (keys.name_of(key_hash("aBc9")), keys.name_of("other"))
    assert 3 == keys.unknown
    assert "key_1" == Keys().hash_of("key_1")


@pytest.mark.parametrize("text", ["{}", "7", '[{"id": 1}, 2]', "sk-proj-secret"])
def test_what_are_no_keys(text: str, tmp_path: Path) -> None:
    """A file that is no list of keys may be anything, so nothing of it is shown."""
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(LayoutError, match=r"keys\.json is no list of keys; expected") as raised:
        read_keys(path)
    assert "secret" not in str(raised.value)
