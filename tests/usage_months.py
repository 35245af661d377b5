"""
A fabricated month of calls, as both sides have it: as events in a ledger, and as OpenAI's usage API counts them.

The provider's numbers are added up call by call as its documentation defines them, without the code that reads them.
What only one side has is made on purpose: see `GAPS`.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cmdrdata_exporter.delivery import Header
from cmdrdata_exporter.delivery.open_jobs import OpenJob
from cmdrdata_exporter.delivery.spool.records import encode_event
from cmdrdata_exporter.events import UsageEvent, encode
from cmdrdata_exporter.key_hash import key_hash

YEAR, MONTH, DAYS = 2026, 10, 31
FIRST, LAST = "2026-10-01", "2026-10-31"
MINI, OMNI = "gpt-5-mini-2025-08-07", "gpt-4o-2024-08-06"
REALTIME, EMBEDDING = "gpt-realtime-2025-08-28", "text-embedding-3-small"
WHISPER, TTS, IMAGE, UNSEEN = "whisper-1", "tts-1", "dall-e-3", "o4-mini-2025-04-16"
PROJECTS = ("proj_shop", "proj_lab")
KEYS = {"key_shop": "wxYZ", "key_lab": "_-09"}
"""Of each key the id, and the last characters."""


@dataclass(frozen=True)
class Call:
    """A call as it was. Tokens are inclusive, as answers tell them."""

    day: int
    model: str
    endpoint: str
    input: int = 0
    output: int = 0
    cached: int = 0
    audio: int = 0
    cached_audio: int = 0
    spoken: int = 0
    """Of the output."""
    units: Mapping[str, float] = field(default_factory=dict[str, float])
    """What is counted in other units than tokens."""
    project: str = PROJECTS[0]
    key: str = "key_shop"
    tier: str = "default"

    @property
    def surface(self) -> str:
        """Where the provider counts it."""
        return {
            "embeddings": "embeddings",
            "images.generate": "images",
            "audio.speech": "audio_speeches",
            "audio.transcriptions": "audio_transcriptions",
        }.get(self.endpoint, "completions")


def moment(day: int, seconds: int = 43_200) -> int:
    """Return a time of the month in Unix seconds."""
    return int(dt.datetime(YEAR, MONTH, 1, tzinfo=dt.timezone.utc).timestamp()) + (
        (day - 1) * 86_400 + seconds
    )


def calls(number: int) -> Iterator[Call]:
    """Yield so many calls, spread over the month, the same ones each time."""
    chance = random.Random(7)
    for index in range(number):
        day = 1 + index % DAYS
        project, key = (PROJECTS[0], "key_shop") if index % 3 else (PROJECTS[1], "key_lab")
        whose: dict[str, Any] = {"project": project, "key": key}
        tokens = chance.randrange(10, 5000)
        match index % 20:
            case 0:
                yield Call(day, EMBEDDING, "embeddings", tokens, **whose)
            case 1:
                seconds = chance.randrange(1, 300)
                units = {"audio_seconds": seconds}
                yield Call(day, WHISPER, "audio.transcriptions", units=units, **whose)
            case 2:
                yield Call(day, TTS, "audio.speech", units={"characters": tokens}, **whose)
            case 3:
                yield Call(day, IMAGE, "images.generate", units={"images": 1 + index % 3}, **whose)
            case 4 | 5:
                yield Call(
                    day,
                    REALTIME,
                    "realtime",
                    tokens,
                    tokens // 3,
                    tokens // 4,
                    tokens // 2,
                    tokens // 8,
                    tokens // 6,
                    **whose,
                )
            case 6 | 7 | 8 | 9:
                yield Call(day, OMNI, "responses", tokens, tokens // 5, tokens // 10, **whose)
            case _:
                tier = "flex" if index % 7 == 0 else "default"
                yield Call(
                    day,
                    MINI,
                    "chat.completions",
                    tokens,
                    tokens // 2,
                    tokens // 3,
                    tier=tier,
                    **whose,
                )


class Provider:
    """What the provider counts, as its usage API tells it: numbers that exclude each other."""

    def __init__(self) -> None:
        self.buckets: dict[tuple[str, int], dict[tuple[Any, ...], dict[str, float]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(float))
        )
        """By surface and day, by what it may be grouped by."""

    def count(self, call: Call, *, times: int = 1, batch: bool = False) -> None:
        """Count a call, or `times` alike in a batch."""
        group = (call.model, call.project, call.key, batch, call.tier)
        told = self.buckets[call.surface, call.day][group]
        told["num_model_requests"] += times
        for name, amount in self._fields(call).items():
            told[name] += amount * times

    def count_tool(self, surface: str, day: int, field: str, amount: float) -> None:
        """Count what no model does."""
        group = ("" if surface != "web_searches" else OMNI, PROJECTS[0], "key_shop", False, "")
        self.buckets[surface, day][group][field] += amount

    @staticmethod
    def _fields(call: Call) -> dict[str, float]:
        match call.surface:
            case "embeddings":
                return {"input_tokens": call.input}
            case "images":
                return {"images": call.units["images"]}
            case "audio_speeches":
                return {"characters": call.units["characters"]}
            case "audio_transcriptions":
                return {"seconds": call.units["audio_seconds"]}
            case _:
                return {
                    "input_tokens": call.input,
                    "input_uncached_tokens": call.input - call.cached,
                    "input_cached_tokens": call.cached,
                    "input_cache_write_tokens": 0,
                    "input_text_tokens": call.input - call.cached - call.audio + call.cached_audio,
                    "input_cached_text_tokens": call.cached - call.cached_audio,
                    "input_audio_tokens": call.audio - call.cached_audio,
                    "input_cached_audio_tokens": call.cached_audio,
                    "input_image_tokens": 0,
                    "input_cached_image_tokens": 0,
                    "output_tokens": call.output,
                    "output_text_tokens": call.output - call.spoken,
                    "output_audio_tokens": call.spoken,
                    "output_image_tokens": 0,
                }

    def page(
        self, surface: str, first: int, last: int, group_by: Sequence[str], more: str | None = None
    ) -> dict[str, Any]:
        """Return a page of the usage API: the buckets of days of the month."""
        names = ("model", "project_id", "api_key_id", "batch", "service_tier")
        buckets: list[dict[str, Any]] = []
        for day in range(first, last + 1):
            results: dict[tuple[Any, ...], dict[str, Any]] = {}
            for group, amounts in self.buckets.get((surface, day), {}).items():
                shown = tuple(
                    value if name in group_by else None
                    for name, value in zip(names, group, strict=True)
                )
                result = results.setdefault(
                    shown,
                    {
                        "object": f"organization.usage.{surface}.result",
                        **dict(zip(names, shown, strict=True)),
                        "user_id": None,
                    },
                )
                for name, amount in amounts.items():
                    result[name] = result.get(name, 0) + amount
            buckets.append(
                {
                    "object": "bucket",
                    "start_time": moment(day, 0),
                    "end_time": moment(day + 1, 0),
                    "results": list(results.values()),
                }
            )
        return {
            "object": "page",
            "data": buckets,
            "has_more": more is not None,
            "next_page": more,
        }


SURFACES = (
    "completions",
    "embeddings",
    "images",
    "audio_speeches",
    "audio_transcriptions",
    "web_searches",
    "vector_stores",
)
"""Those that the fabricated month has."""


class Month:
    """
    A month of calls on both sides.

    Args:
        number: of calls that both sides have alike.
        gaps: whether what is in `GAPS` is made.
    """

    def __init__(self, number: int, *, gaps: bool = True) -> None:
        self.provider = Provider()
        self.records: list[bytes] = []
        self.jobs: list[OpenJob] = []
        self._ids = itertools.count(1)
        for call in calls(number):
            self.both(call)
        if gaps:
            self._make_gaps()

    def both(self, call: Call) -> None:
        """Have a call on both sides."""
        self.provider.count(call)
        self.event(call)

    def event(self, call: Call, *, status: str = "reported", host: str = "api.openai.com") -> None:
        """Record the event of a call."""
        usage: dict[str, Any] = {
            "cache_read_input_tokens": call.cached,
            "audio_input_tokens": call.audio,
            "audio_output_tokens": call.spoken,
            **call.units,
        }
        usage = {name: amount for name, amount in usage.items() if amount}
        at = moment(call.day)
        number = next(self._ids)
        event = UsageEvent(
            id=f"{number:032x}",
            customer_id="acme",
            provider="openai",
            model=call.model,
            endpoint=call.endpoint,
            usage_status=status,
            input_tokens=call.input,
            output_tokens=call.output,
            total_tokens=call.input + call.output,
            usage=usage,
            metadata={
                "usage_status": status,
                "endpoint": call.endpoint,
                "server_address": host,
                "service_tier": call.tier,
                "request_model": call.model,
                "openai_project": call.project,
                "openai_key_hash": key_hash(KEYS[call.key]),
            },
            timestamp=at,
            start_time=at,
            end_time=at,
            duration_ms=0,
        )
        header = Header(
            customer="acme",
            model=call.model,
            endpoint=call.endpoint,
            status=status,
            units={
                "input_tokens": call.input,
                "output_tokens": call.output,
                "total_tokens": event.total_tokens,
                **usage,
            },
            day=f"{YEAR}-{MONTH:02}-{call.day:02}",
        )
        self.records.append(encode_event(event.id, header, encode(event)))

    def _make_gaps(self) -> None:
        chat = Call(3, MINI, "chat.completions", 1000, 200, 100)
        for _ in range(37):  # of a process that is not metered
            self.provider.count(chat)
        answer = Call(7, OMNI, "responses", 500, 50)
        for _ in range(5):
            self.provider.count(answer)
            self.event(Call(7, OMNI, "responses"), status="missing")
        for _ in range(4):
            self.provider.count(Call(12, MINI, "chat.completions", 300, 80))
            self.event(Call(12, MINI, "chat.completions", 300, 20), status="partial")
        for _ in range(20):
            self.provider.count(Call(15, UNSEEN, "chat.completions", 100, 900))
        for _ in range(2):
            self.provider.count(Call(17, EMBEDDING, "embeddings", 700))
            self.event(Call(17, EMBEDDING, "embeddings"), status="missing")
        for _ in range(3):
            self.provider.count(Call(17, EMBEDDING, "embeddings", 900))
        self.provider.count(Call(20, MINI, "batches", 400, 100), times=500, batch=True)
        self.jobs.append(open_job("batch_1", moment(19)))
        for _ in range(30):
            self.provider.count(Call(22, OMNI, "responses", 2000, 300))
            self.event(Call(22, OMNI, "responses", 2000, 300), host="gateway.internal")
        self.provider.count(Call(24, MINI, "chat.completions", 4321, 123))
        self.event(Call(25, MINI, "chat.completions", 4321, 123))
        for _ in range(8):
            self.provider.count(Call(26, OMNI, "responses", 600, 60))
            self.event(Call(26, "gpt-4o", "responses", 600, 60))
        self.provider.count(Call(27, OMNI, "batches", 50, 5), times=40, batch=True)
        units = {"batch_requests": 40}
        self.event(Call(28, OMNI, "batches", 2000, 200, units=units))
        self.provider.count_tool("web_searches", 9, "num_requests", 12)
        self.provider.count_tool("vector_stores", 9, "usage_bytes", 1_000_000)

    def documents(self, group_by: Sequence[str] = ("model",)) -> list[str]:
        """Return the provider's side as the text of files, one for each surface, of two pages each."""
        return [
            json.dumps(self.provider.page(surface, 1, 16, group_by, more="page_2"))
            + "\n"
            + json.dumps(self.provider.page(surface, 17, DAYS, group_by))
            for surface in SURFACES
        ]


def open_job(job_id: str, since: float) -> OpenJob:
    """Return a batch whose end was not seen."""
    return OpenJob(
        key=bytes(16),
        host="api.openai.com",
        port=443,
        endpoint="batches",
        job_id=job_id,
        path=f"/batches/{job_id}",
        since=since,
        until=since,
        model=None,
        payer={},
        facts={},
    )


def cause(code: str, text: str, number: int | None = None, **units: float) -> dict[str, Any]:
    """Return a cause as the report has it."""
    return {"cause": code, "text": text, "number": number, "units": units}


GAPS: tuple[dict[str, Any], ...] = (
    {
        "of": (3, MINI),
        "differences": {
            "requests": -37,
            "input_tokens": -37_000,
            "cache_read_input_tokens": -3_700,
            "output_tokens": -7_400,
        },
        "causes": [],
        "unexplained": {
            "input_tokens": -37_000,
            "cache_read_input_tokens": -3_700,
            "output_tokens": -7_400,
            "requests": -37,
        },
    },
    {
        "of": (7, OMNI),
        "differences": {"input_tokens": -2_500, "output_tokens": -250},
        "causes": [cause("no_usage", "5 calls reported no usage", 5)],
        "unexplained": {},
    },
    {
        "of": (9, OMNI),
        "differences": {"web_search_calls": -12},
        "causes": [
            cause(
                "not_metered", "no web search calls were recorded in this time", web_search_calls=12
            )
        ],
        "unexplained": {},
    },
    {
        "of": (12, MINI),
        "differences": {"output_tokens": -240},
        "causes": [cause("part_of_usage", "4 calls reported a part of the usage", 4)],
        "unexplained": {},
    },
    {
        "of": (15, UNSEEN),
        "differences": {"requests": -20, "input_tokens": -2_000, "output_tokens": -18_000},
        "causes": [
            cause(
                "not_metered",
                "nothing of this model was recorded in this time",
                input_tokens=2_000,
                output_tokens=18_000,
            )
        ],
        "unexplained": {},
    },
    {
        "of": (17, EMBEDDING),
        "differences": {"requests": -3, "input_tokens": -4_100},
        "causes": [cause("no_usage", "2 calls reported no usage", 2)],
        "unexplained": {"input_tokens": -4_100, "requests": -3},
    },
    {
        "of": (20, MINI),
        "differences": {"requests": -500, "input_tokens": -200_000, "output_tokens": -50_000},
        "causes": [cause("open_jobs", "1 job not seen to end: run cmdrdata jobs --poll", 1)],
        "unexplained": {},
    },
    {
        "of": (22, OMNI),
        "differences": {"requests": -30, "input_tokens": -60_000, "output_tokens": -9_000},
        "causes": [
            cause(
                "other_host",
                "usage at gateway.internal, which is not counted here",
                input_tokens=60_000,
                output_tokens=9_000,
            )
        ],
        "unexplained": {},
    },
    {
        "of": (24, MINI),
        "differences": {"requests": -1, "input_tokens": -4_321, "output_tokens": -123},
        "causes": [
            cause(
                "next_day",
                "the same amounts are more here on 2026-10-25: calls that went over midnight",
                input_tokens=4_321,
                output_tokens=123,
            )
        ],
        "unexplained": {},
    },
    {
        "of": (25, MINI),
        "differences": {"requests": 1, "input_tokens": 4_321, "output_tokens": 123},
        "causes": [
            cause(
                "next_day",
                "the same amounts are missing here on 2026-10-24: calls that went over midnight",
                input_tokens=4_321,
                output_tokens=123,
            )
        ],
        "unexplained": {},
    },
    {
        "of": (26, "gpt-4o"),
        "differences": {"requests": 8, "input_tokens": 4_800, "output_tokens": 480},
        "causes": [
            cause(
                "other_name",
                f"missing here under the name {OMNI}",
                input_tokens=4_800,
                output_tokens=480,
            )
        ],
        "unexplained": {},
    },
    {
        "of": (26, OMNI),
        "differences": {"requests": -8, "input_tokens": -4_800, "output_tokens": -480},
        "causes": [
            cause(
                "other_name",
                "more here under the name gpt-4o",
                input_tokens=4_800,
                output_tokens=480,
            )
        ],
        "unexplained": {},
    },
    {
        "of": (27, OMNI),
        "differences": {"requests": -40, "input_tokens": -2_000, "output_tokens": -200},
        "causes": [
            cause(
                "jobs_seen_later",
                "more here on 2026-10-28, when the end of jobs was seen",
                input_tokens=2_000,
                output_tokens=200,
            )
        ],
        "unexplained": {},
    },
    {
        "of": (28, OMNI),
        "differences": {"requests": 40, "input_tokens": 2_000, "output_tokens": 200},
        "causes": [
            cause(
                "jobs_seen_later",
                "missing here on 2026-10-27: jobs whose end was seen later",
                input_tokens=2_000,
                output_tokens=200,
            )
        ],
        "unexplained": {},
    },
)
"""What the report must say of each row that differs, in its order, and of no other one."""
