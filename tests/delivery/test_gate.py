"""The gate: when anything may be sent, by a table and whatever answers come."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cmdrdata_exporter.delivery.gate import PROBE_AFTER, Gate
from cmdrdata_exporter.delivery.http import Outcome, Verdict
from tests.delivery.samples import (
    BROKEN,
    DELIVERED,
    DUPLICATE,
    REFUSED,
    UNAUTHORIZED,
    UNAVAILABLE,
    Clock,
)

LIMIT = 8


@pytest.fixture(autouse=True)
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backoff is as long as it may be."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]


class InOrder:
    """A gate that attempts leave in the order in which they entered it."""

    def __init__(self, **options: Any) -> None:
        self.gate = Gate(LIMIT, **options)
        self._entered: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gate, name)

    def enter(self) -> bool:
        """Say whether an attempt may begin."""
        entered = self.gate.enter()
        if entered is not None:
            self._entered.append(entered)
        return entered is not None

    def leave(self, outcome: Outcome) -> None:
        """End the attempt that began first."""
        self.gate.leave(self._entered.pop(0), outcome)

    def undo(self) -> None:
        """Take back the attempt that began last."""
        self._entered.pop()
        self.gate._under_way -= 1


class Asked:
    """A gate and its clock."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.gate = InOrder(clock=self.clock, **options)

    def answer(self, *outcomes: Outcome) -> list[float]:
        """Attempt one thing after the other, each as soon as it may be; return the seconds waited before each."""
        waits: list[float] = []
        for outcome in outcomes:
            waits.append(self.gate.delay())
            self.clock.now += waits[-1]
            assert self.gate.enter()
            self.gate.leave(outcome)
        return waits

    def at_once(self) -> int:
        """Return how many attempts may begin now."""
        number = 0
        while self.gate.enter():
            number += 1
        for _ in range(number):
            self.gate.undo()
        return number


def retry_after(seconds: float, verdict: Verdict = Verdict.RETRY) -> Outcome:
    """Return an answer that asks to wait."""
    return Outcome(verdict, "HTTP 429", retry_after=seconds)


def test_open() -> None:
    """At the start as many attempts may be under way as there are to be, and twice as many are prepared."""
    asked = Asked()
    assert asked.at_once() == LIMIT
    assert [asked.gate.room(prepared) for prepared in (0, LIMIT, 2 * LIMIT, 99)] == [16, 8, 0, 0]
    assert (asked.gate.paused, asked.gate.in_trouble, asked.gate.reason) == (False, False, None)
    assert [asked.gate.enter() for _ in range(LIMIT + 1)] == [True] * LIMIT + [False]
    asked.gate.leave(DELIVERED)
    assert asked.gate.enter()


@pytest.mark.parametrize("outcome", [DELIVERED, DUPLICATE, REFUSED], ids=repr)
def test_a_backend_that_answers(outcome: Outcome) -> None:
    """Whatever is a verdict on an event says that the backend is there."""
    asked = Asked()
    asked.answer(*[UNAVAILABLE] * (PROBE_AFTER - 1), outcome, *[BROKEN] * (PROBE_AFTER - 1))
    assert (asked.gate.failures, asked.gate.in_trouble) == (4, False)
    assert asked.at_once() == LIMIT


def test_probing() -> None:
    """After five failures in a row one attempt at a time is made, at intervals that double up to a minute."""
    asked = Asked()
    assert asked.answer(*[UNAVAILABLE] * PROBE_AFTER) == [0.0] * PROBE_AFTER
    assert (asked.gate.in_trouble, asked.gate.paused, asked.gate.reason) == (
        True,
        False,
        "HTTP 503",
    )
    assert asked.at_once() == 0
    assert asked.gate.room(0) == 0
    waits = asked.answer(*[BROKEN] * 10)
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    asked.clock.now += 60
    assert asked.at_once() == 1
    assert [asked.gate.room(prepared) for prepared in (0, 1)] == [1, 0]


def test_the_slow_start() -> None:
    """A success ends probing, and each further one doubles how many attempts may be under way."""
    asked = Asked()
    asked.answer(*[UNAVAILABLE] * 7)
    asked.clock.now += 60
    allowed: list[int] = []
    for _ in range(5):
        asked.answer(DELIVERED)
        allowed.append(asked.at_once())
    assert allowed == [2, 4, 8, 8, 8]
    assert (asked.gate.in_trouble, asked.gate.reason, asked.gate.failures) == (False, None, 0)


def test_failures_that_were_under_way_together() -> None:
    """What was under way when probing began is no answer to a probe."""
    asked = Asked()
    assert [asked.gate.enter() for _ in range(LIMIT)] == [True] * LIMIT
    for _ in range(LIMIT):
        asked.gate.leave(UNAVAILABLE)
    assert (asked.gate.failures, asked.gate.delay()) == (PROBE_AFTER, 0.5)


@pytest.mark.parametrize(
    ("interval", "waits"),
    [
        (60.0, [0, 60, 120, 240, 300, 300, 300]),
        (1.0, [0, 1, 2, 4, 8, 16, 32]),
        (300.0, [0, 300, 300, 300, 300, 300, 300]),
    ],
)
def test_pauses(interval: float, waits: list[float]) -> None:
    """While the backend refuses the key one attempt is made every one to five minutes; a success ends that."""
    asked = Asked(probe_interval=interval)
    assert asked.answer(*[UNAUTHORIZED] * 7) == waits
    assert (asked.gate.paused, asked.gate.in_trouble, asked.gate.reason) == (True, True, "HTTP 401")
    asked.answer(DELIVERED)
    assert (asked.gate.paused, asked.gate.in_trouble, asked.gate.reason) == (False, False, None)
    assert asked.at_once() == 2
    assert asked.answer(UNAUTHORIZED, UNAUTHORIZED) == [0, interval]


def test_refusals_that_were_under_way_together() -> None:
    """Many attempts that meet the same wrong key are one refusal."""
    asked = Asked()
    assert [asked.gate.enter() for _ in range(LIMIT)] == [True] * LIMIT
    for _ in range(LIMIT):
        asked.gate.leave(UNAUTHORIZED)
    assert asked.gate.delay() == 60
    asked.clock.now += 60
    assert asked.at_once() == 1


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.MISCONFIGURED], ids=str)
def test_retry_after(verdict: Verdict) -> None:
    """Nothing begins inside the time for which the backend asked, whatever else succeeds meanwhile."""
    asked = Asked()
    assert [asked.gate.enter() for _ in range(3)] == [True] * 3
    asked.gate.leave(retry_after(3600.0, verdict))
    asked.gate.leave(DELIVERED)
    asked.gate.leave(retry_after(1.0, verdict))
    assert asked.gate.delay() == 3600
    asked.clock.now += 3599.9
    assert not asked.gate.enter()
    assert asked.gate.room(0) == 0
    asked.clock.now += 0.1
    assert asked.gate.enter()


@pytest.mark.parametrize("seconds", [0.0, None])
def test_no_time_to_wait(seconds: float | None) -> None:
    """A time that is over already shuts nothing."""
    asked = Asked()
    asked.answer(Outcome(Verdict.RETRY, "HTTP 503", retry_after=seconds))
    assert asked.at_once() == LIMIT


class AnyAnswers(RuleBasedStateMachine):
    """Senders that ask whenever they like, and answers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.gate = InOrder(clock=self.clock)
        self.under_way = 0
        self.not_before = 0.0
        self.in_a_row = 0

    @rule()
    def enter(self) -> None:
        """Ask."""
        if self.gate.enter():
            assert self.clock.now >= self.not_before
            assert self.gate.delay() == 0
            self.under_way += 1
            # In trouble one at a time, beside what began before that.
            assert not self.gate.in_trouble or self.under_way == 1

    @precondition(lambda self: self.under_way)  # pyright: ignore[reportUnknownLambdaType]
    @rule(
        outcome=st.sampled_from([DELIVERED, REFUSED, UNAUTHORIZED, UNAVAILABLE, BROKEN]),
    )
    def leave(self, outcome: Outcome) -> None:
        """Come back."""
        self.under_way -= 1
        self.gate.leave(outcome)
        failed = outcome.verdict is Verdict.RETRY
        self.in_a_row = self.in_a_row + 1 if failed else 0
        if outcome.verdict in (Verdict.DELIVERED, Verdict.REFUSED):
            assert not self.gate.in_trouble
            assert self.gate.reason is None
        elif outcome.verdict is Verdict.MISCONFIGURED:
            assert self.gate.paused
            assert self.gate.delay() > 0

    @precondition(lambda self: self.under_way)  # pyright: ignore[reportUnknownLambdaType]
    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, 3600.0]))
    def leave_and_wait(self, seconds: float) -> None:
        """Come back with a time to wait."""
        self.under_way -= 1
        self.gate.leave(retry_after(seconds))
        self.not_before = max(self.not_before, self.clock.now + seconds)

    @rule(seconds=st.sampled_from([0.1, 1.0, 60.0, 300.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds

    @invariant()
    def bounds(self) -> None:
        """Never more than allowed is under way, and never longer than an hour is nothing sent."""
        assert self.under_way == self.gate._under_way <= LIMIT
        assert 1 <= self.gate._allowed <= LIMIT
        assert self.gate.delay() <= 3600.001
        assert 0 <= self.gate.room(0) <= 2 * LIMIT


TestAnyAnswers = AnyAnswers.TestCase
TestAnyAnswers.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
