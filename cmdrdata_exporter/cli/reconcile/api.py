"""
The provider's side from its API, by the openai SDK: read only, page by page.

The admin key goes to the provider alone, or to what `--base-url` names; never to what the application's
OPENAI_BASE_URL names, which may be a gateway. It is in no message.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from cmdrdata_exporter.cli.base_url import OPENAI, require_safe
from cmdrdata_exporter.cli.destination import Refusal
from cmdrdata_exporter.cli.reconcile.documents import Documents
from cmdrdata_exporter.cli.reconcile.keys import Keys
from cmdrdata_exporter.cli.reconcile.lines import DAY_SECONDS, FIELDS, TheirLine
from cmdrdata_exporter.cli.reconcile.surfaces import SURFACES, Surface

if TYPE_CHECKING:
    from typing_extensions import Self

KEY = "OPENAI_ADMIN_KEY"
BUCKETS = 31
"""Days of one page, the most that the API gives."""
PAGES = 1000
"""Pages of one surface at most: a server that always has more is none."""
TRIES = 8
"""How often a page is asked for."""
LONGEST_WAIT = 600.0
"""Seconds to wait for a limit at most."""
TIMEOUT = 60.0
"""Seconds that an answer may take."""


Progress = Callable[[str, float], object]
"""Is told what is done now, and which share of all is done."""


class UsageApi:
    """
    The usage API of one organization; a context manager.

    Args:
        base_url: where it is. Default: OpenAI.
        progress: is told how it goes.
        wait: waits for a number of seconds.

    Raises:
        Refusal: there is no key or no SDK, or the key must not be sent there; from the methods, that it gives no usage.
    """

    def __init__(
        self,
        base_url: str | None = None,
        progress: Progress = lambda _, __: None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        if find_spec("openai") is None:
            raise Refusal(
                "--from-api needs the openai package; run: pip install openai, or give a file of usage"
            )
        key = os.environ.get(KEY, "").strip()
        if not key:
            raise Refusal(
                f"{KEY} is not set; --from-api asks with an admin key, which an owner of the organization makes at "
                "https://platform.openai.com/settings/organization/admin-keys"
            )
        if not (key.isascii() and key.isprintable()):
            raise Refusal(f"{KEY} holds characters that no key has; copy it anew")
        require_safe(base_url or OPENAI, "--base-url")
        import openai

        self._errors = openai
        self._progress = progress
        self._done = 0.0
        self._wait = wait
        try:
            options: dict[str, Any] = {"admin_api_key": key, "api_key": "none"}
            self._client: Any = openai.OpenAI(
                base_url=base_url or OPENAI, timeout=TIMEOUT, max_retries=0, **options
            )
        except TypeError:
            self._client = None
        if not hasattr(getattr(self._client, "admin", None), "organization"):
            raise Refusal(
                f"openai {openai.__version__} knows no admin API; upgrade it, or give a file of usage"
            )
        self.documents = Documents()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def lines(self, by: tuple[str, ...], since: str, until: str) -> Iterator[TheirLine]:
        """
        Yield the usage of each day of a time.

        Args:
            by: what to group by.
            since: the first UTC day.
            until: the last one.
        """
        start, end = _seconds(since), _seconds(until) + DAY_SECONDS
        usage = self._client.admin.organization.usage.with_raw_response
        asked = [surface for surface in SURFACES if hasattr(usage, surface.method)]
        for surface in SURFACES:
            if surface not in asked:
                self.documents.notes.append(
                    f"Usage of {surface.name} was not asked for: this openai package has no method for it."
                )
        for number, surface in enumerate(asked):
            self._done = number / len(asked)
            fields = [
                field for name in by for field in FIELDS.get(name, ()) if field in surface.groups
            ]
            method = getattr(usage, surface.method)
            for line in self._pages(surface, method, start, end, fields):
                # It was asked to group by all of it, also where nothing has a key, for instance.
                yield line._replace(told=frozenset(by))

    def _pages(
        self, surface: Surface, method: Any, start: int, end: int, fields: list[str]
    ) -> Iterator[TheirLine]:
        given: dict[str, Any] = {
            "start_time": start,
            "end_time": end,
            "bucket_width": "1d",
            "limit": BUCKETS,
        }
        if fields:
            given["group_by"] = fields
        for _ in range(PAGES):
            self._progress(f"asking for {surface.name.replace('_', ' ')}", self._done)
            page = self._asked(method, given, surface.name)
            if page is None:
                self.documents.notes.append(
                    f"Usage of {surface.name} is not known to this server (404): it is left out."
                )
                return
            if "page" not in given:
                # A day that the API leaves out had no usage: it was asked for.
                for day in range(start, end, DAY_SECONDS):
                    yield TheirLine(surface.name, day, day + DAY_SECONDS)
            yield from self.documents.page(page, f"the usage API's {surface.name}", surface)
            after = page.get("next_page")
            if page.get("has_more") is not True:
                return
            if not isinstance(after, str) or after == given.get("page"):
                break
            given["page"] = after
        raise Refusal(f"the usage API does not end: {surface.name} has more and more pages")

    def keys(self) -> Keys:
        """Return the keys of all projects."""
        keys, organization = Keys(), self._client.admin.organization
        projects = organization.projects
        for project in self._listed(projects.with_raw_response.list, {"include_archived": True}):
            method = projects.api_keys.with_raw_response.list
            keys.add(self._listed(method, {"project_id": project.get("id")}))
        return keys

    def _listed(self, method: Any, given: dict[str, Any]) -> Iterator[dict[str, Any]]:
        given = {**given, "limit": 100}
        for _ in range(PAGES):
            page = self._asked(method, given, "projects and keys")
            listed = cast("list[dict[str, Any]]", (page or {}).get("data") or [])
            yield from listed
            if page is None or page.get("has_more") is not True or not listed:
                return
            given["after"] = listed[-1].get("id")

    def _asked(self, method: Any, given: Mapping[str, Any], what: str) -> dict[str, Any] | None:
        """Return what a request is answered with, tried again where that may help; None where the server lacks it."""
        errors, failure = self._errors, "no answer"
        for tried in range(TRIES):
            wait = min(2.0**tried, 60.0)
            try:
                found: object = json.loads(method(**given).content)
                if isinstance(found, dict):
                    return cast("dict[str, Any]", found)
                failure = "an answer that is no object"
            except ValueError:
                failure = "an answer that is no JSON"
            except errors.NotFoundError:
                return None
            except (errors.AuthenticationError, errors.PermissionDeniedError) as error:
                raise Refusal(
                    f"the usage API refuses {KEY} ({error.status_code}); expected is an admin key of the "
                    "organization, sk-admin-..., that may read usage (api.usage.read) and projects"
                ) from None
            except errors.APIStatusError as error:
                failure = f"HTTP {error.status_code}"
                if error.status_code != 429 and error.status_code < 500:
                    break
                asked = _retry_after(error.response.headers)
                if asked is not None and asked > LONGEST_WAIT:
                    failure += f", to be tried again in {asked:.0f} s only"
                    break
                wait = wait if asked is None else asked
            except errors.APIConnectionError as error:
                failure = type(error).__name__
            if tried < TRIES - 1:
                self._progress(f"waiting for {wait:.0f} s, as asked", self._done)
                self._wait(wait)
        raise Refusal(f"the usage API gives no usage of {what}: {failure}; try again later")


def _retry_after(headers: Any) -> float | None:
    """Return how many seconds a server asks to wait, None where it does not say."""
    for name, of_a_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / of_a_second
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        then = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, then.timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _seconds(day: str) -> int:
    return int(
        dt.datetime.combine(dt.date.fromisoformat(day), dt.time(), dt.timezone.utc).timestamp()
    )
