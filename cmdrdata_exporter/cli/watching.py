"""`cmdrdata status --watch`: the same every few seconds, one line for each change, notices to a webhook."""

from __future__ import annotations

import json
import math
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click
from rich.console import Console
from rich.text import Text

from cmdrdata_exporter import clocks
from cmdrdata_exporter.cli.terminal import Json, Terminal, cell, now, plural, say
from cmdrdata_exporter.cli.webhook import Webhook

BEGINS, OVER = "begins", "over"
"""What may be said of something that needs a person."""

GONE = "its directory is not there any more"
"""What is said of a destination that was there."""

Need = tuple[str | None, str]
"""The name of a destination (None: of all of them), and one of `NEEDS`."""

Show = Callable[[Console, Json], None]

_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Change(NamedTuple):
    """Something begins to need a person, or is over."""

    event: str
    need: Need
    account: str | None
    text: str


def needs_of(found: Json) -> dict[Need, tuple[str | None, str]]:
    """Return all that needs a person, with the account and what is said of it."""
    needs: dict[Need, tuple[str | None, str]] = {
        (destination["name"], kind): (destination["account"], text)
        for destination in found["destinations"]
        for kind, text in destination["needs"].items()
    }
    if found["unusable"]:
        needs[None, "unusable"] = None, found["unusable"]
    return needs


class Needs:
    """What needs a person, from one look to the next."""

    def __init__(self) -> None:
        self._known: dict[Need, tuple[str | None, str]] = {}
        self._accounts: dict[str, str] = {}
        """Of each destination that was ever seen."""

    def changes(self, found: Json) -> Iterator[Change]:
        """Yield what has changed since the last look, which this one follows."""
        needs = needs_of(found)
        there = {
            destination["name"]: destination["account"] for destination in found["destinations"]
        }
        self._accounts |= there
        for name in self._accounts.keys() - there:
            needs[name, "gone"] = self._accounts[name], GONE
        for need, (account, text) in self._known.items():
            name, _ = need
            if need in needs:
                continue
            if (name, "unreadable") in needs or (name, "gone") in needs:
                # Whether it is over is not known.
                needs[need] = account, text
            else:
                yield Change(OVER, need, account, text)
        for need, (account, text) in needs.items():
            if need not in self._known:
                yield Change(BEGINS, need, account, text)
        self._known = needs


class Watching:
    """
    Looks again and again, until Ctrl-C or SIGTERM.

    Args:
        look: returns what `cmdrdata status --json` prints.
        show: shows that to a reader.
        show_briefly: shows what matters most of it, where there is little room.
        every: how many seconds from one look to the next.
        webhook: where to POST what changes, None: nowhere.
        as_json: whether each change is a line of JSON.

    Raises:
        Refusal: the environment asks for a proxy that cannot be used.
    """

    def __init__(
        self,
        look: Callable[[], Json],
        show: Show,
        show_briefly: Show,
        every: float,
        webhook: str | None,
        *,
        as_json: bool,
    ) -> None:
        self._look = look
        self._show = show
        self._show_briefly = show_briefly
        self._every = every
        self._webhook = None if webhook is None else Webhook(webhook)
        self._as_json = as_json
        self._console = Terminal()
        self._draws = (
            self._console.is_terminal and not self._console.is_dumb_terminal and not as_json
        )
        self._needs = Needs()
        self._seen: set[str] = set()
        self._told: str | None = None
        """What was said last of the webhook."""

    def run(self) -> Json:
        """Look until the end; return what was seen last."""
        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell that starts it in the background has Ctrl-C ignored.
            signal.signal(number, signal.default_int_handler)
        found = self._look()
        try:
            if self._draws:
                self._console.clear()
            while True:
                self._take(found)
                self._wait(found)
                found = self._look()
        except KeyboardInterrupt:
            if self._webhook is not None and self._webhook.waiting:
                notices = plural(self._webhook.waiting, "notice")
                say(f"{notices} could not be sent to {self._webhook.host}.", err=True)
            return found

    def _take(self, found: Json) -> None:
        at, host = now(), socket.gethostname()
        for change in self._needs.changes(found):
            (name, kind), text = change.need, change.text
            body = {
                "id": uuid.uuid4().hex,
                "event": change.event,
                "at": at,
                "host": host,
                "destination": name,
                "account": change.account,
                "kind": kind,
                "text": text,
            }
            if self._webhook is not None:
                self._webhook.add(body)
            if self._as_json:
                click.echo(json.dumps(body))
            elif not self._draws:
                over = "over: " if change.event == OVER else ""
                say(f"{at} {name or found['spool_dir']}: {over}{text}")
        if not (self._draws or self._as_json):
            for destination in found["destinations"]:
                if destination["name"] not in self._seen and not destination["needs"]:
                    say(f"{at} {destination['name']}: nothing needs you")
        self._seen |= {destination["name"] for destination in found["destinations"]}

    def _wait(self, found: Json) -> None:
        """Draw, and post what is to be posted, until the next look."""
        until = clocks.monotonic() + self._every
        if self._draws:
            self._draw(found)
        while True:
            wait = math.inf
            if self._webhook is not None:
                wait = self._webhook.send()
                self._tell(found)
            remaining = until - clocks.monotonic()
            if remaining <= 0:
                return
            time.sleep(min(wait, remaining))

    def _tell(self, found: Json) -> None:
        """Tell what becomes of the webhook, where that has changed."""
        webhook = self._webhook
        told = None if webhook is None else webhook.describe()
        if webhook is None or told == self._told:
            return
        self._told = told
        if self._draws:
            self._draw(found)
        else:
            say(f"{now()} {told or f'Webhook at {webhook.host}: it answers again'}", err=True)

    # On a terminal

    def _draw(self, found: Json) -> None:
        """Draw over what was there: all of it, or what matters most where there is little room."""
        width, height = self._console.size
        lines = self._lines(found, self._show)
        if _height(lines, width) >= height:
            lines = self._lines(found, self._show_briefly)
        while len(lines) > 1 and _height(lines, width) >= height:
            lines = [*lines[:-2], "(Use a taller terminal to see all.)"]
        shown = "".join(f"{line}{_REST_OF_LINE}\n" for line in lines)
        self._console.file.write(f"{_HOME}{shown}{_REST_OF_SCREEN}")
        self._console.file.flush()

    def _lines(self, found: Json, show: Show) -> list[str]:
        with self._console.capture() as captured:
            self._console.print(
                cell(f"{now()}, every {self._every:g} s until Ctrl-C", "dim"), end=""
            )
            if self._told is not None:
                self._console.print()
                self._console.print(cell(self._told, "yellow"), end="")
            self._console.print()
            show(self._console, found)
        return captured.get().splitlines()


def _height(lines: list[str], width: int) -> int:
    """Return how many lines of a terminal some lines take."""
    return sum(max(1, math.ceil(Text.from_ansi(line).cell_len / width)) for line in lines)
