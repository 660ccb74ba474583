"""One timer for the ends of all calls: each is heard at its time, in order, unless it was lifted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from atone._runtime.deadlines import Deadlines, End


class TurnedClock:
    """An event loop's clock and timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> TurnedTimer:
        timer = when, callback
        self.timers.append(timer)
        return TurnedTimer(self, timer)

    def turn_to(self, now: float) -> None:
        """Let time pass; timers fire at their own moments."""
        while due := [timer for timer in self.timers if timer[0] <= now]:
            first = min(due, key=lambda timer: timer[0])
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = now


def after(deadlines: Deadlines, seconds: float, passed: Callable[[], object]) -> End:
    """Set one end."""
    end = End()
    deadlines.after(seconds, end, lambda ended: passed() if ended is end else None)
    return end


class TurnedTimer:
    def __init__(self, clock: TurnedClock, timer: tuple[float, Callable[[], None]]) -> None:
        self._clock, self._timer = clock, timer

    def cancel(self) -> None:
        if self._timer in self._clock.timers:
            self._clock.timers.remove(self._timer)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> TurnedClock:
    """A clock that the deadlines of a test take for their loop."""
    turned = TurnedClock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: turned)
    return turned


def test_each_end_is_heard_at_its_own_moment_whatever_came_before_it(clock: TurnedClock) -> None:
    """An end that is set later and comes earlier moves the timer."""
    deadlines, heard = Deadlines(), list[tuple[str, float]]()
    after(deadlines, 30, lambda: heard.append(("late", clock.now)))
    after(deadlines, 2, lambda: heard.append(("early", clock.now)))
    after(deadlines, 10, lambda: heard.append(("middle", clock.now)))
    clock.turn_to(200)
    assert heard == [("early", 102), ("middle", 110), ("late", 130)]
    assert (len(deadlines), clock.timers) == (0, [])


def test_a_lifted_end_is_not_heard_and_the_next_one_keeps_its_time(clock: TurnedClock) -> None:
    """Lifting the first end does not lose the timer for the second."""
    deadlines, heard = Deadlines(), list[float]()
    first = after(deadlines, 2, lambda: heard.append(0.0))
    after(deadlines, 10, lambda: heard.append(clock.now))
    deadlines.lift(first)
    deadlines.lift(first)
    clock.turn_to(200)
    assert heard == [110]


def test_one_that_fails_does_not_hold_up_the_others(clock: TurnedClock, caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is logged."""
    deadlines, heard = Deadlines(), list[float]()

    def fails() -> None:
        raise ValueError("on purpose")

    after(deadlines, 1, fails)
    after(deadlines, 1, lambda: heard.append(clock.now))
    clock.turn_to(150)
    assert heard == [101]
    assert "on purpose" in caplog.text


def test_an_end_may_set_another_one(clock: TurnedClock) -> None:
    """As a time-out does, for the time that the call has to end."""
    deadlines, heard = Deadlines(), list[float]()
    after(deadlines, 5, lambda: after(deadlines, 1, lambda: heard.append(clock.now)))
    after(deadlines, 60, lambda: heard.append(clock.now))
    clock.turn_to(200)
    assert heard == [106, 160]


def test_lifted_ends_do_not_pile_up_behind_one_that_stands_long(clock: TurnedClock) -> None:
    """Half a heap of lifted ends is thrown away; what stands is still heard."""
    deadlines, heard = Deadlines(), list[float]()
    after(deadlines, 1000, lambda: heard.append(clock.now))
    for _ in range(10_000):
        deadlines.lift(after(deadlines, 2000, lambda: None))
    assert len(deadlines) < 1000
    clock.turn_to(5000)
    assert heard == [1100]


def test_nothing_is_heard_after_a_closing(clock: TurnedClock) -> None:
    """And no timer is left in the loop."""
    deadlines, heard = Deadlines(), list[float]()
    after(deadlines, 5, lambda: heard.append(clock.now))
    deadlines.close()
    assert clock.timers == []
    clock.turn_to(200)
    assert heard == []
