"""The gate: when anything may be sent, by a table and whatever answers come."""

from __future__ import annotations

import heapq
import itertools
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cmdrdata_exporter.delivery import Outcome, Verdict
from cmdrdata_exporter.delivery.backoff import PROBE_AFTER
from cmdrdata_exporter.delivery.gate import CERTAIN, DOUBTFUL, REST, Entry, Gate
from tests.delivery.samples import (
    BROKEN,
    DELIVERED,
    DUPLICATE,
    FORBIDDEN,
    REFUSED,
    UNAUTHORIZED,
    UNAVAILABLE,
    Clock,
)

LIMIT = 8
UNREACHABLE = Outcome(Verdict.RETRY, "NewConnectionError", unreachable=True)


@pytest.fixture(autouse=True)
def longest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backoff is as long as it may be."""
    monkeypatch.setattr("cmdrdata_exporter.delivery.backoff.uniform", lambda low, high: high)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]


class Asked:
    """A gate, its clock, and attempts that leave it in the order in which they entered."""

    def __init__(self, limit: int = LIMIT, **options: Any) -> None:
        self.clock = Clock()
        self.gate = Gate(limit, clock=self.clock, **options)
        self._entries: list[tuple[Entry, bytes]] = []
        self._keys = map(b"%d".__mod__, itertools.count())

    @property
    def under_way(self) -> int:
        """How many attempts have entered and not left."""
        return len(self._entries)

    def enter(self, key: bytes | None = None) -> bool:
        """Say whether an attempt may begin, of another event each time if none is named."""
        entry = self.gate.enter()
        if entry is not None:
            self._entries.append((entry, next(self._keys) if key is None else key))
        return entry is not None

    def leave(self, outcome: Outcome, number: int = 0) -> Outcome:
        """End the attempt that began first, or another one."""
        return self.gate.leave(*self._entries.pop(number), outcome)

    def answer(
        self, *outcomes: Outcome, every: float = 0.0, key: bytes | None = None
    ) -> list[float]:
        """
        Attempt one thing after the other, each as soon as it may be; return the seconds waited before each.

        Args:
            outcomes: what comes of each.
            every: how many seconds pass after each.
            key: of the event; another one each time if none is named.
        """
        waits: list[float] = []
        for outcome in outcomes:
            waits.append(self.gate.delay())
            self.clock.now += waits[-1]
            assert self.enter(key)
            self.leave(outcome)
            self.clock.now += every
        return waits

    def fail(self, outcome: Outcome = UNAVAILABLE, key: bytes | None = None) -> None:
        """Have as many events fail, or one so often, as say that something is wrong."""
        self.answer(*[outcome] * PROBE_AFTER, every=DOUBTFUL / (PROBE_AFTER - 1), key=key)

    def say(self, key: bytes, outcome: Outcome) -> Verdict:
        """Attempt one event, and return what is made of the outcome."""
        assert self.enter(key)
        return self.leave(outcome).verdict

    def at_once(self) -> int:
        """Return how many attempts may begin now."""
        number = 0
        while self.gate.enter():
            number += 1
        self.gate._under_way -= number
        return number


def retry_after(seconds: float, verdict: Verdict = Verdict.RETRY) -> Outcome:
    """Return an answer that asks to wait."""
    return Outcome(verdict, "HTTP 429", retry_after=seconds)


def test_the_start() -> None:
    """Where that is asked for, few attempts begin until the first success, and twice as many with each further one."""
    asked = Asked(first=2)
    assert (asked.at_once(), asked.gate.room(0), asked.gate.room(2)) == (2, 2, 0)
    asked.answer(DELIVERED)
    assert asked.at_once() == 4
    asked.answer(DELIVERED)
    assert (asked.at_once(), asked.gate.room(0)) == (LIMIT, 2 * LIMIT)


def test_a_rest() -> None:
    """After a while without a success few attempts begin again until the next one."""
    asked = Asked(first=2)
    asked.answer(DELIVERED, DELIVERED)
    asked.clock.now += REST - 1
    assert (asked.at_once(), asked.gate.room(0)) == (LIMIT, 2 * LIMIT)
    asked.clock.now += 1
    assert (asked.gate.room(0), asked.at_once()) == (2, 2)
    asked.answer(DELIVERED)
    assert asked.at_once() == 4


def test_a_backend_that_cannot_be_reached() -> None:
    """Without a connection it is no event's fault: a few failures, however fast, say that the backend is down."""
    asked = Asked()
    asked.answer(*[UNREACHABLE] * (PROBE_AFTER - 1))
    assert (asked.gate.in_trouble, asked.gate.delay()) == (False, 0)
    asked.answer(UNREACHABLE)
    assert (asked.gate.in_trouble, asked.at_once(), asked.gate.delay()) == (True, 0, 0.5)


def test_open() -> None:
    """At the start as many attempts may be under way as there are to be, and twice as many are prepared."""
    asked = Asked()
    assert asked.at_once() == LIMIT
    assert [asked.gate.room(prepared) for prepared in (0, LIMIT, 2 * LIMIT, 99)] == [16, 8, 0, 0]
    assert (asked.gate.paused, asked.gate.in_trouble, asked.gate.reason) == (False, False, None)
    assert [asked.enter() for _ in range(LIMIT + 1)] == [True] * LIMIT + [False]
    asked.leave(DELIVERED)
    assert asked.enter()


@pytest.mark.parametrize("outcome", [DELIVERED, DUPLICATE, REFUSED], ids=repr)
def test_a_backend_that_answers(outcome: Outcome) -> None:
    """Whatever is a verdict on an event says that the backend is there."""
    asked = Asked()
    failures = PROBE_AFTER - 1
    asked.answer(*[UNAVAILABLE] * failures, outcome, *[BROKEN] * failures, every=1)
    assert (asked.gate.failures, asked.gate.in_trouble) == (4, False)
    asked.answer(outcome)
    assert asked.at_once() == LIMIT


def test_probing() -> None:
    """After failures of different events one attempt at a time is made, at intervals that double up to a minute."""
    asked = Asked()
    asked.fail()
    assert (asked.gate.in_trouble, asked.gate.paused, asked.gate.reason) == (
        True,
        False,
        "HTTP 503",
    )
    asked.clock.now += 60
    waits = asked.answer(*[BROKEN] * 10)
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert asked.at_once() == 0
    assert asked.gate.room(0) == 0
    asked.clock.now += 60
    assert asked.at_once() == 1
    assert [asked.gate.room(prepared) for prepared in (0, 1)] == [1, 0]


def test_a_few_failures_in_a_moment() -> None:
    """Of events of which many fail whenever they come, a few in a row do by chance: that is no trouble, many are."""
    asked = Asked()
    asked.answer(*[BROKEN] * (CERTAIN - 1))
    assert (asked.gate.in_trouble, asked.gate.delay()) == (False, 0)
    asked.answer(BROKEN)
    assert (asked.gate.in_trouble, asked.gate.delay()) == (True, 0.5)


def test_few_events_that_fail_again_and_again() -> None:
    """What may be the fault of a few events is told, and holds up no other one."""
    asked = Asked()
    for key in (b"a", b"b", b"c", b"d"):
        asked.fail(key=key)
    assert (asked.gate.in_trouble, asked.gate.paused, asked.gate.delay()) == (True, False, 0)
    assert asked.at_once() == LIMIT - 4 * LIMIT * 2 // CERTAIN
    asked.answer(DELIVERED)
    assert (asked.gate.in_trouble, asked.gate.reason) == (False, None)


def test_what_fails_while_others_pass() -> None:
    """Events that fail again although another one has passed meanwhile are no trouble of the backend's."""
    asked = Asked()
    poisonous = [b"a%d" % number for number in range(2 * PROBE_AFTER)]
    for key in poisonous:
        asked.answer(BROKEN, key=key)
    asked.answer(DELIVERED)
    for key in poisonous * 9:
        asked.answer(BROKEN, key=key, every=1)
    assert (asked.gate.failures, asked.gate.in_trouble, asked.at_once()) == (0, False, LIMIT)
    # Others are, and until something passes whatever fails then is an answer to a probe.
    asked.fail()
    assert asked.gate.in_trouble


def test_what_began_before_another_one_passed() -> None:
    """An attempt that never ends says nothing about a backend that has answered another one meanwhile."""
    asked = Asked(64)
    assert all(asked.enter() for _ in range(61))
    asked.leave(DELIVERED, -1)
    asked.clock.now += 10
    for _ in range(60):
        asked.leave(BROKEN)
    assert (asked.gate.failures, asked.gate.in_trouble) == (0, False)


def test_fewer_while_attempts_fail() -> None:
    """A backend that goes down under a full load gets little more than what was under way."""
    asked = Asked(32)
    begun = 0
    for _ in range(200):
        while asked.enter():
            begun += 1
        if not asked.under_way:
            break
        asked.leave(UNAVAILABLE)
    assert asked.gate.in_trouble
    assert begun <= 32 + 2


def test_the_slow_start() -> None:
    """A success ends probing, and each further one doubles how many attempts may be under way."""
    asked = Asked()
    asked.fail()
    asked.clock.now += 60
    allowed: list[int] = []
    for _ in range(5):
        asked.answer(DELIVERED)
        allowed.append(asked.at_once())
    assert allowed == [2, 4, 8, 8, 8]
    assert (asked.gate.in_trouble, asked.gate.reason, asked.gate.failures) == (False, None, 0)


def test_failures_that_were_under_way_together() -> None:
    """What was under way when probing began is no answer to a probe."""
    asked = Asked(64)
    assert [asked.enter() for _ in range(64)] == [True] * 64
    for _ in range(64):
        asked.leave(UNAVAILABLE)
    assert (asked.gate.failures, asked.gate.delay()) == (64, 0.5)


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


def test_a_pause_in_which_the_backend_fails() -> None:
    """A backend that refuses the key and then does not answer at all is asked as rarely."""
    asked = Asked()
    asked.answer(UNAUTHORIZED)
    waits = asked.answer(*[UNAVAILABLE] * 9)
    assert waits == [60, 0.5, 1, 2, 4, 8, 16, 32, 60]
    assert (asked.gate.paused, asked.gate.reason) == (True, "HTTP 503")


def test_refusals_that_were_under_way_together() -> None:
    """Many attempts that meet the same wrong key are one refusal."""
    asked = Asked()
    assert [asked.enter() for _ in range(LIMIT)] == [True] * LIMIT
    for _ in range(LIMIT):
        asked.leave(UNAUTHORIZED)
    assert asked.gate.delay() == 60
    asked.clock.now += 60
    assert asked.at_once() == 1


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.MISCONFIGURED], ids=str)
def test_retry_after(verdict: Verdict) -> None:
    """Nothing begins inside the time for which the backend asked, whatever else succeeds meanwhile."""
    asked = Asked()
    assert [asked.enter() for _ in range(3)] == [True] * 3
    asked.leave(retry_after(3600.0, verdict))
    asked.leave(DELIVERED)
    asked.leave(retry_after(1.0, verdict))
    assert asked.gate.delay() == 3600
    asked.clock.now += 3599.9
    assert not asked.enter()
    assert asked.gate.room(0) == 0
    asked.clock.now += 0.1
    assert asked.enter()


@pytest.mark.parametrize("seconds", [0.0, None])
def test_no_time_to_wait(seconds: float | None) -> None:
    """A time that is over already shuts nothing."""
    asked = Asked()
    asked.answer(Outcome(Verdict.RETRY, "HTTP 503", retry_after=seconds))
    assert asked.gate.delay() == 0


# This event, or all of them


def test_one_event_that_is_forbidden() -> None:
    """An event that is forbidden before and after another one has passed is refused, and nothing pauses."""
    asked = Asked()
    assert asked.say(b"a", FORBIDDEN) == Verdict.RETRY
    # Nothing is known as long as no other one has come.
    assert asked.say(b"a", FORBIDDEN) == Verdict.RETRY
    assert asked.say(b"b", DELIVERED) == Verdict.DELIVERED
    assert asked.say(b"a", FORBIDDEN) == Verdict.REFUSED
    assert (asked.gate.paused, asked.gate.in_trouble, asked.gate.reason) == (False, False, None)
    assert asked.at_once() == LIMIT
    # Replayed, it is nothing special.
    assert asked.say(b"a", FORBIDDEN) == Verdict.RETRY


def test_an_account_that_is_forbidden_for_a_while() -> None:
    """What was forbidden with everything else is accepted when everything is: none of it is refused."""
    asked = Asked()
    keys = [b"%d" % number for number in range(20)]
    for key in keys:
        asked.clock.now += asked.gate.delay() or 0.1
        assert asked.say(key, FORBIDDEN) == Verdict.RETRY
    assert (asked.gate.paused, asked.gate.reason) == (True, "HTTP 403: blocked")
    asked.clock.now += 300
    verdicts = {asked.say(key, DELIVERED) for key in keys}
    assert (verdicts, asked.gate.paused) == ({Verdict.DELIVERED}, False)


def test_an_account_that_is_forbidden_again() -> None:
    """An event that is tried again when everything is forbidden once more is not refused for that."""
    asked = Asked()
    assert asked.say(b"a", FORBIDDEN) == Verdict.RETRY
    assert asked.say(b"b", DELIVERED) == Verdict.DELIVERED
    assert asked.say(b"c", FORBIDDEN) == Verdict.RETRY
    assert asked.say(b"a", FORBIDDEN) == Verdict.RETRY


def test_a_success_that_began_before() -> None:
    """What passes after an event was forbidden, but began before, may have been sent before the account was."""
    asked = Asked()
    assert asked.enter(b"a")
    assert asked.enter(b"b")
    asked.leave(FORBIDDEN)
    asked.leave(DELIVERED)
    assert asked.say(b"a", FORBIDDEN) == Verdict.RETRY


def test_a_refusal_lets_nobody_through() -> None:
    """A firewall may answer 400 as well: only a delivery says that the account may send."""
    asked = Asked()
    assert asked.say(b"a", FORBIDDEN) == Verdict.RETRY
    assert asked.say(b"b", REFUSED) == Verdict.REFUSED
    assert asked.say(b"a", FORBIDDEN) == Verdict.RETRY


def test_a_pause_in_doubt() -> None:
    """Where everything is forbidden others are tried soon at first, then as rarely as with a wrong key."""
    asked = Asked()
    asked.fail(FORBIDDEN)
    assert asked.gate.paused
    asked.clock.now += 60
    waits = asked.answer(*[FORBIDDEN] * 9)
    assert waits == [0, 1, 2, 4, 8, 60, 120, 240, 300]
    assert asked.at_once() == 0
    asked.answer(DELIVERED)
    assert (asked.gate.paused, asked.gate.in_trouble) == (False, False)


# Whatever comes


class Poisonous:
    """A backend that fails a share of events whenever they come, after a time; the others take 20 ms each."""

    def __init__(self, share: float, seconds: float) -> None:
        self.asked = Asked(32)
        self._chance = random.Random(18)
        self._share, self._seconds = share, seconds

    def deliver(self, good: int) -> float:
        """Deliver so many good events, in the order in which they come; return the seconds it takes."""
        asked, chance = self.asked, self._chance
        delivered = 0
        under_way: list[tuple[float, int, Entry, bool]] = []
        for number in itertools.count():
            bad = chance.random() < self._share
            while (entry := asked.gate.enter()) is None:
                ends, _, first, fails = (
                    heapq.heappop(under_way)
                    if under_way
                    else (asked.clock.now + asked.gate.delay(), 0, None, False)
                )
                asked.clock.now = max(asked.clock.now, ends)
                if first is None:
                    continue
                asked.gate.leave(first, b"%d" % first.turn, BROKEN if fails else DELIVERED)
                delivered += not fails
            if delivered >= good:
                return asked.clock.now - 1000
            ends = asked.clock.now + (self._seconds if bad else 0.02)
            heapq.heappush(under_way, (ends, number, entry, bad))
        raise AssertionError


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("seconds", [0.02, 1.0])
def test_a_poisonous_share(share: float, seconds: float) -> None:
    """Where some events fail whenever they come, with an error or without an answer, the others take little longer."""
    good = 10_000
    # What the attempts take with all senders at work, and as much again.
    ideal = (good * 0.02 + good * share / (1 - share) * seconds) / 32
    assert Poisonous(share, seconds).deliver(good) <= 1.5 * ideal


class AnyAnswers(RuleBasedStateMachine):
    """Senders that ask whenever they like, and answers of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Asked()
        self.clock, self.gate = self.asked.clock, self.asked.gate
        self.not_before = 0.0

    @rule(key=st.sampled_from([b"a", b"b", b"c", None]))
    def enter(self, key: bytes | None) -> None:
        """Ask."""
        if self.asked.enter(key):
            assert self.clock.now >= self.not_before
            assert self.gate.delay() == 0
            # One at a time, beside what began before that.
            assert not (self.gate.paused or self.gate._probes) or self.asked.under_way == 1

    @precondition(lambda self: self.asked.under_way)  # pyright: ignore[reportUnknownLambdaType]
    @rule(
        outcome=st.sampled_from([DELIVERED, REFUSED, UNAUTHORIZED, FORBIDDEN, UNAVAILABLE, BROKEN]),
        data=st.data(),
    )
    def leave(self, outcome: Outcome, data: st.DataObject) -> None:
        """Come back."""
        number = data.draw(st.integers(0, self.asked.under_way - 1))
        paused = self.gate.paused
        found = self.asked.leave(outcome, number)
        if outcome.verdict is Verdict.FORBIDDEN:
            assert found.verdict in (Verdict.RETRY, Verdict.REFUSED)
        else:
            assert found is outcome
        if outcome.verdict in (Verdict.DELIVERED, Verdict.REFUSED):
            assert not self.gate.in_trouble
            assert self.gate.reason is None
        elif outcome.verdict is Verdict.MISCONFIGURED:
            assert self.gate.paused
            # In a pause, what began before it is no answer to a probe: that may be due already.
            assert paused or self.gate.delay() > 0

    @precondition(lambda self: self.asked.under_way)  # pyright: ignore[reportUnknownLambdaType]
    @rule(seconds=st.sampled_from([0.0, 1.0, 30.0, 3600.0]))
    def leave_and_wait(self, seconds: float) -> None:
        """Come back with a time to wait."""
        self.asked.leave(retry_after(seconds))
        self.not_before = max(self.not_before, self.clock.now + seconds)

    @rule(seconds=st.sampled_from([0.1, 1.0, 60.0, 300.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.now += seconds

    @invariant()
    def bounds(self) -> None:
        """Never more than allowed is under way, and never longer than an hour is nothing sent."""
        assert self.asked.under_way == self.gate._under_way <= LIMIT
        assert 1 <= self.gate._allowed <= LIMIT
        assert self.gate.delay() <= 3600.001
        assert 0 <= self.gate.room(0) <= 2 * LIMIT


TestAnyAnswers = AnyAnswers.TestCase
TestAnyAnswers.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
