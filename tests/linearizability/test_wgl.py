"""The checker of histories says yes to histories that have an explanation and no to those that have none."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from itertools import permutations
from random import Random

import pytest

from tests.linearizability.wgl import Call, TooHard, candidates, check


class Register:
    """A register that holds one number; the textbook's example."""

    def initial(self) -> int:
        return 0

    def after(self, state: int, asked: tuple[Hashable, ...], answer: Hashable | None) -> Iterable[int]:
        if asked[0] == "write":
            value = asked[1]
            assert isinstance(value, int)
            yield value
        elif answer in (None, state):
            yield state


def write(value: int, invoked: float, returned: float | None) -> Call:
    return (
        Call(("write", value), None, invoked) if returned is None else Call(("write", value), "ok", invoked, returned)
    )


def read(value: int, invoked: float, returned: float) -> Call:
    return Call(("read",), value, invoked, returned)


LINEARIZABLE = {
    "nothing was called": [],
    "one after the other": [write(1, 0, 1), read(1, 2, 3)],
    "a read beside a write sees the old": [write(1, 0, 9), read(0, 1, 2)],
    "a read beside a write sees the new": [write(1, 0, 9), read(1, 1, 2)],
    "two reads beside a write see old, then new": [write(1, 0, 9), read(0, 1, 2), read(1, 3, 4)],
    "two writes at once, in either order": [write(1, 0, 9), write(2, 0, 9), read(1, 10, 11)],
    "and each in turn": [write(1, 0, 9), write(2, 0, 9), read(2, 3, 4), read(1, 5, 6), read(1, 10, 11)],
    "an open write that took effect late": [write(1, 0, None), read(0, 1, 2), read(0, 50, 51), read(1, 60, 61)],
    "an open write that never took effect": [write(1, 0, None), read(0, 50, 51)],
}
NOT_LINEARIZABLE = {
    "a stale read": [write(1, 0, 1), read(0, 2, 3)],
    "a read of what was never written": [write(1, 0, 1), read(2, 2, 3)],
    "new, then old again": [write(1, 0, 9), read(1, 1, 2), read(0, 3, 4)],
    "two readers who disagree on the order": [
        write(1, 0, 9), write(2, 0, 9), read(1, 10, 11), read(2, 12, 13),
    ],
    "an effect before its call": [read(1, 0, 1), write(1, 2, 3)],
    "an open write that was undone": [write(1, 0, None), read(1, 1, 2), read(0, 3, 4)],
    "an open write with an effect before its call": [read(1, 0, 1), write(1, 2, None)],
}  # fmt: skip


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_a_history_with_an_explanation_holds(name: str) -> None:
    """The order that is found explains it, whatever the order in which the calls are listed."""
    for history in some_orders(LINEARIZABLE[name]):
        verdict = check(Register(), history)
        assert verdict.holds
        assert verdict.order is not None
        assert_explains(history, verdict.order)


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_a_history_without_an_explanation_does_not_hold(name: str) -> None:
    """However the calls are listed."""
    for history in some_orders(NOT_LINEARIZABLE[name]):
        assert not check(Register(), history).holds


def test_the_checker_agrees_with_trying_every_order() -> None:
    """Random histories of five calls, right and wrong ones, against all permutations."""
    chance, verdicts = Random(7), set[bool]()
    for _ in range(400):
        history = [random_call(chance) for _ in range(5)]
        expected = any(is_explained(history, order) for order in some_of(len(history)))
        assert check(Register(), history).holds is expected
        verdicts.add(expected)
    assert verdicts == {True, False}


def test_a_search_without_end_is_given_up() -> None:
    """Rather no verdict than a suite that stands still."""
    history = [write(number, 0, 9) for number in range(12)] + [read(99, 10, 11)]
    with pytest.raises(TooHard):
        check(Register(), history, looks_max=100)


def test_what_has_returned_comes_before_what_was_called_later() -> None:
    """Only calls that began before any other one returned may be next."""
    history = [write(1, 0, 5), write(2, 4, 9), write(3, 6, 7), write(4, 0, None)]
    assert candidates(history, 0) == [0, 1, 3]
    assert candidates(history, 0b1) == [2, 1, 3]


def some_orders(history: list[Call]) -> Iterator[list[Call]]:
    yield history
    yield history[::-1]


def random_call(chance: Random) -> Call:
    invoked = chance.random()
    returned = invoked + chance.random() / 2
    if chance.random() < 0.5:
        return write(chance.randint(1, 2), invoked, None if chance.random() < 0.2 else returned)
    return read(chance.randint(0, 2), invoked, returned)


def some_of(count: int) -> Iterator[tuple[int, ...]]:
    for length in range(count + 1):
        yield from permutations(range(count), length)


def is_explained(history: list[Call], order: tuple[int, ...]) -> bool:
    """Tell whether that order explains the history; open calls may be left out."""
    if any(at not in order and not call.is_open for at, call in enumerate(history)):
        return False
    for place, at in enumerate(order):
        if any(history[later].returned < history[at].invoked for later in order[place + 1 :]):
            return False
    value = 0
    for at in order:
        call = history[at]
        if call.asked[0] == "write":
            written = call.asked[1]
            assert isinstance(written, int)
            value = written
        elif call.answer != value:
            return False
    return True


def assert_explains(history: list[Call], order: tuple[int, ...]) -> None:
    assert is_explained(history, order)
