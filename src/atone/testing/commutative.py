"""Show that operations commute: run them in every order on a connection, and compare what stands at the end.

Owns the orders and the comparison. Must not keep what it wrote: each order is taken back. Called by the tests of
services that mark an action with `atone.isolation.commutative`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple, cast

from atone._connections.face import Face, awaited, face_of, finish
from atone.errors import BarrierMisplaced, DefinitionError
from atone.isolation import Commutative

__all__ = ["NotCommutative", "check_commutative", "check_commutative_blocking"]

ORDERS_MAX = 10_000

_MARK = "SAVEPOINT atone_commutative"
_BACK = "ROLLBACK TO SAVEPOINT atone_commutative"
_FORGET = "RELEASE SAVEPOINT atone_commutative"


class NotCommutative(AssertionError):
    """Two orders of the same operations end differently, or an undo leaves something behind."""


class _Done(NamedTuple):
    """One step of an order: which operation, and whether it is done or undone."""

    operation: int
    undoes: bool


async def check_commutative(
    connection: Any, calls: Sequence[tuple[Commutative[..., Any], tuple[Any, ...]]], state: Callable[[Any], Any]
) -> int:
    """Run these calls in every order, each undone or not, and return how many orders that were.

    `connection` is in a transaction of yours, on a scratch database: everything is taken back, and you roll back at the
    end. A call is an action with its arguments, without the connection. `state(connection)` returns what stands, as
    something that can be compared. An undo comes after its action; what was undone must leave no trace.

    Raises:
        NotCommutative: With two orders and what each left.
        DefinitionError: An action is not marked, has no compensation, or there are too many calls.
    """
    _check(calls)
    face = face_of(connection)
    if not await face.joins():
        raise BarrierMisplaced("The connection is in no transaction. Begin one; what is done here is taken back.")
    seen = 0
    for undone in product((False, True), repeat=len(calls)):
        # What is undone leaves what there would be if it had never come.
        first = tuple(_Done(at, False) for at, undoes in enumerate(undone) if not undoes)
        wanted = await _run(face, connection, calls, first, state)
        for order in _orders(undone):
            ended = await _run(face, connection, calls, order, state)
            seen += 1
            if ended != wanted:
                raise NotCommutative(
                    f"The order makes a difference. {_told(calls, first)} left {wanted!r}, but {_told(calls, order)} "
                    f"left {ended!r}. Lock what they share, or add and take away instead of writing what was read."
                )
    return seen


def check_commutative_blocking(
    connection: Any, calls: Sequence[tuple[Commutative[..., Any], tuple[Any, ...]]], state: Callable[[Any], Any]
) -> int:
    """Do the same on a synchronous connection; see `check_commutative`."""
    return finish(check_commutative(connection, calls, state))


def _check(calls: Sequence[tuple[Any, tuple[Any, ...]]]) -> None:
    for action, _ in calls:
        if not isinstance(action, Commutative) or cast("Any", action).undo is None:
            raise DefinitionError(f"{action!r} is not @commutative with a .compensation. Mark the pair.")
    if len(calls) < 2 or sum(_count(undone) for undone in product((False, True), repeat=len(calls))) > ORDERS_MAX:
        raise DefinitionError("Give two to four calls: one alone has no order, and more have too many.")


def _count(undone: tuple[bool, ...]) -> int:
    total, orders = 0, 1
    for undoes in undone:
        # Each further operation goes between the steps that are there: one place of n + 1, or two of them in order.
        places = total + 1
        orders *= places * (places + 1) // 2 if undoes else places
        total += 2 if undoes else 1
    return orders


def _orders(undone: tuple[bool, ...]) -> Iterator[tuple[_Done, ...]]:
    """Return every order of the operations, and of the undos after their own."""

    def rest(done: tuple[_Done, ...]) -> Iterator[tuple[_Done, ...]]:
        following = [
            step
            for at, undoes in enumerate(undone)
            for step in (_Done(at, False), _Done(at, True))
            if step not in done and (not step.undoes or (undoes and _Done(at, False) in done))
        ]
        if not following:
            yield done
        for step in following:
            yield from rest((*done, step))

    return rest(())


async def _run(face: Face, connection: Any, calls: Any, order: tuple[_Done, ...], state: Callable[[Any], Any]) -> Any:
    results: dict[int, Any] = {}
    await face.run(_MARK)
    try:
        for at, undoes in order:
            action, arguments = calls[at]
            if undoes:
                await awaited(action.undo(connection, results[at], *arguments))
            else:
                results[at] = await awaited(action(connection, *arguments))
        return await awaited(state(connection))
    finally:
        await face.run(_BACK)
        await face.run(_FORGET)


def _told(calls: Any, order: tuple[_Done, ...]) -> str:
    if not order:
        return "nothing"
    return ", ".join(f"{'undo of ' if step.undoes else ''}{_call(calls[step.operation])}" for step in order)


def _call(call: tuple[Any, tuple[Any, ...]]) -> str:
    action, arguments = call
    return f"{action.__name__}{arguments!r}"
