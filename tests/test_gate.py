"""When anything may be sent at all, on a clock that is set by hand."""

from __future__ import annotations

import pytest

from cmdrdata_exporter.delivery import gate as module
from cmdrdata_exporter.delivery.gate import Gate
from cmdrdata_exporter.delivery.http import Outcome, Verdict

DELIVERED = Outcome(Verdict.DELIVERED, "HTTP 202")
REFUSED = Outcome(Verdict.REFUSED, "HTTP 400")
UNAVAILABLE = Outcome(Verdict.RETRY, "HTTP 503")
UNAUTHORIZED = Outcome(Verdict.MISCONFIGURED, "HTTP 401")
HOUR = 3600.0


class Clock:
    """A clock that stands until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Attempts:
    """Attempts through a gate, each by hand."""

    def __init__(self, limit: int = 32, probe_interval: float = 60.0) -> None:
        self.clock = Clock()
        self.gate = Gate(limit, probe_interval=probe_interval, clock=self.clock)

    def begin(self) -> list[int]:
        """Begin as many as may be under way now."""
        begun: list[int] = []
        while (entered := self.gate.enter()) is not None:
            begun.append(entered)
        return begun

    def end(self, begun: list[int], outcome: Outcome) -> None:
        """End attempts."""
        for entered in begun:
            self.gate.leave(entered, outcome)

    def probe(self, outcome: Outcome) -> float:
        """Wait until an attempt may begin, make it, and return for how long that was."""
        waited = self.gate.delay()
        self.clock.now += waited
        begun = self.begin()
        assert 1 == len(begun)
        self.end(begun, outcome)
        return waited


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance takes the longest time that it may."""

    def longest(least: float, most: float) -> float:
        return most

    monkeypatch.setattr(module.random, "uniform", longest)


def test_retry_after_holds_whatever_succeeds() -> None:
    """After an answer with Retry-After nothing begins until then, not even after successes of what was under way."""
    attempts = Attempts()
    begun = attempts.begin()
    assert 32 == len(begun)
    attempts.end(begun[:1], Outcome(Verdict.RETRY, "HTTP 429", retry_after=HOUR))
    attempts.end(begun[1:], DELIVERED)
    assert (0, HOUR, 0) == (
        len(attempts.begin()),
        attempts.gate.delay(),
        attempts.gate.room(0),
    )
    attempts.clock.now += HOUR - 0.001
    assert [] == attempts.begin()
    attempts.clock.now += 0.001
    assert 32 == len(attempts.begin())


def test_a_shorter_retry_after_shortens_nothing() -> None:
    """Of two answers that ask for patience the longer one counts."""
    attempts = Attempts()
    first, second, *_ = attempts.begin()
    attempts.gate.leave(first, Outcome(Verdict.RETRY, "HTTP 429", retry_after=60.0))
    attempts.gate.leave(second, Outcome(Verdict.RETRY, "HTTP 429", retry_after=1.0))
    assert 60.0 == attempts.gate.delay()


def test_probing() -> None:
    """After five failures in a row one attempt at a time is made, at intervals that grow up to a minute."""
    attempts = Attempts()
    begun = attempts.begin()
    attempts.end(begun[:4], UNAVAILABLE)
    assert not attempts.gate.in_trouble
    attempts.end(begun[4:], UNAVAILABLE)
    assert attempts.gate.in_trouble
    assert [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] == [
        attempts.probe(UNAVAILABLE) for _ in range(9)
    ]


def test_what_was_under_way_together_failed_once() -> None:
    """Attempts that end late, one after the other, count once: what a probe waits for grows only with probes."""
    attempts = Attempts()
    begun = attempts.begin()
    for entered in begun:
        attempts.gate.leave(entered, UNAVAILABLE)
        attempts.clock.now += 10.0
    assert (0.0, 5) == (attempts.gate.delay(), attempts.gate.failures)
    attempts.probe(UNAVAILABLE)
    assert 1.0 == attempts.gate.delay()


def test_the_way_back() -> None:
    """After a success that ends the trouble the attempts at a time double with each further one."""
    attempts = Attempts(limit=8)
    attempts.end(attempts.begin(), UNAVAILABLE)
    attempts.probe(DELIVERED)
    assert not attempts.gate.in_trouble
    numbers: list[int] = []
    for _ in range(3):
        begun = attempts.begin()
        numbers.append(len(begun))
        attempts.end(begun[:1], DELIVERED)
        attempts.end(begun[1:], REFUSED)
    assert [2, 8, 8] == numbers


def test_a_pause() -> None:
    """While the key is refused one attempt is made every one to five minutes, whatever else was under way."""
    attempts = Attempts()
    begun = attempts.begin()
    for entered in begun:
        attempts.gate.leave(entered, UNAUTHORIZED)
        attempts.clock.now += 1.0
    assert attempts.gate.paused
    assert 60.0 - 32 == attempts.gate.delay()
    attempts.clock.now -= 32.0
    assert [60.0, 120.0, 240.0, 300.0, 300.0] == [attempts.probe(UNAUTHORIZED) for _ in range(5)]
    assert "HTTP 401" == attempts.gate.reason
    attempts.probe(DELIVERED)
    assert (False, None, 0.0) == (
        attempts.gate.paused,
        attempts.gate.reason,
        attempts.gate.delay(),
    )


def test_failures_while_paused() -> None:
    """A backend that is down while the key is refused is still asked, and a success ends both."""
    attempts = Attempts()
    attempts.end(attempts.begin(), UNAUTHORIZED)
    for _ in range(7):
        attempts.probe(UNAVAILABLE)
    assert attempts.gate.paused
    attempts.probe(DELIVERED)
    assert not attempts.gate.in_trouble


def test_room() -> None:
    """With the gate wide open each attempt has a successor prepared; otherwise no more than may begin."""
    attempts = Attempts()
    assert (64, 24, 0) == tuple(attempts.gate.room(prepared) for prepared in (0, 40, 70))
    attempts.end(attempts.begin(), UNAVAILABLE)
    assert 0 == attempts.gate.room(0)
    attempts.clock.now += 0.5
    assert (1, 0) == (attempts.gate.room(0), attempts.gate.room(1))
