"""What one saga is to its clients, one call at a time: the sequential specification of start, event, cancel and get.

Owns the rules: a start counts once, an event once for each id, a durable cancel keeps the pivot from beginning, a final
saga never changes. What the saga does by itself between calls is allowed at any time, in the order that the definition
in sagas.py gives. Pure; must not know how any of it is done.

Calls and their answers:

    ("start", input)            "started" or "conflict"
    ("event", id)               "appended", "duplicate", "kept" (there is no saga yet), "over" (it is final)
    ("cancel", id)              "appended", "over", "unknown" (there is no saga)
    ("answer", id)              what the saga's owner said to that cancel: "applied" or "too_late"
    ("get",)                    `Seen`, or "unknown"
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

ABSENT, FORWARD, SHIPPING, SHIPPED, BACK = "absent", "forward", "shipping", "shipped", "back"
COMPLETED, COMPENSATED = "completed", "compensated"
FINAL = (COMPLETED, COMPENSATED)
STATUS_OF = {
    FORWARD: ("pending", "running"),
    SHIPPING: ("running",),
    SHIPPED: ("running",),
    BACK: ("compensating",),
    COMPLETED: ("completed",),
    COMPENSATED: ("compensated",),
}
ANSWER_OF = {SHIPPED: "too_late", COMPLETED: "too_late", BACK: "applied", COMPENSATED: "applied"}


class Seen(NamedTuple):
    """What a get shows: status, version of the journal, ids of the requests in it, the event that was taken."""

    given: int
    status: str
    version: int
    requests: tuple[str, ...]
    taken: str | None
    shipped: bool


class SagaState(NamedTuple):
    """`early` and `requests` are ids of what is kept for the saga and what is in its journal.

    `version` is the newest that was seen; of a final saga it is the last one, once it was seen.
    """

    phase: str = ABSENT
    given: int | None = None
    early: frozenset[str] = frozenset()
    requests: frozenset[str] = frozenset()
    cancels: frozenset[str] = frozenset()
    taken: str | None = None
    version: int = 0
    last: int | None = None


class OneSaga:
    """The specification."""

    def initial(self) -> SagaState:
        """Return the state before the first call."""
        return SagaState()

    def after(self, state: SagaState, asked: tuple[Hashable, ...], answer: Hashable | None) -> Iterable[SagaState]:
        """Return the states that may follow."""
        call = {"start": _start, "event": _event, "cancel": _cancel, "answer": _answer, "get": _get}[str(asked[0])]
        for grown in grown_from(state):
            yield from call(grown, asked, answer)


def grown_from(state: SagaState) -> set[SagaState]:
    """Return every state that the saga may have come to by itself."""
    found, left = {state}, [state]
    while left:
        for new in _moves(left.pop()):
            if new not in found:
                found.add(new)
                left.append(new)
    return found


def _moves(state: SagaState) -> Iterator[SagaState]:
    """Yield what the saga may do next."""
    match state.phase:
        case "forward" if state.cancels:
            yield state._replace(phase=BACK)
        case "forward" if state.taken is not None:
            yield state._replace(phase=SHIPPING)
        case "forward":
            events = (state.early | state.requests) - state.cancels
            yield from (
                state._replace(taken=one, early=state.early - {one}, requests=state.requests | {one})
                for one in events
            )  # fmt: skip
        case "shipping":
            yield state._replace(phase=SHIPPED)
        case "shipped":
            yield state._replace(phase=COMPLETED)
        case "back":
            yield state._replace(phase=COMPENSATED)
        case _:
            return


def _start(state: SagaState, asked: tuple[Hashable, ...], answer: Hashable | None) -> Iterator[SagaState]:
    given = asked[1]
    assert isinstance(given, int)
    if state.phase == ABSENT:
        if answer in (None, "started"):
            yield state._replace(phase=FORWARD, given=given)
    elif answer in (None, "started" if state.given == given else "conflict"):
        yield state


def _event(state: SagaState, asked: tuple[Hashable, ...], answer: Hashable | None) -> Iterator[SagaState]:
    event = str(asked[1])
    is_known = event in state.early | state.requests
    if is_known:
        if answer in (None, "duplicate"):
            yield state
    elif state.phase == ABSENT:
        if answer in (None, "kept"):
            yield state._replace(early=state.early | {event})
    elif state.phase in FINAL:
        if answer in (None, "over"):
            yield state
    elif answer in (None, "appended"):
        yield state._replace(requests=state.requests | {event})


def _cancel(state: SagaState, asked: tuple[Hashable, ...], answer: Hashable | None) -> Iterator[SagaState]:
    cancel = str(asked[1])
    if state.phase == ABSENT:
        if answer in (None, "unknown"):
            yield state
    elif state.phase in FINAL:
        if answer in (None, "over"):
            yield state
    elif answer in (None, "appended"):
        yield state._replace(requests=state.requests | {cancel}, cancels=state.cancels | {cancel})


def _answer(state: SagaState, asked: tuple[Hashable, ...], answer: Hashable | None) -> Iterator[SagaState]:
    if answer is None or (asked[1] in state.cancels and ANSWER_OF.get(state.phase) == answer):
        yield state


def _get(state: SagaState, asked: tuple[Hashable, ...], answer: Hashable | None) -> Iterator[SagaState]:
    if not isinstance(answer, Seen):
        if answer is None or state.phase == ABSENT:
            yield state
        return
    if state.phase == ABSENT or not _shows(state, answer):
        return
    last = answer.version if state.phase in FINAL else None
    if state.last in (None, last):
        seen = {"early": state.early - {*answer.requests}, "requests": state.requests | {*answer.requests}}
        yield state._replace(**seen, version=answer.version, last=last)


def _shows(state: SagaState, seen: Seen) -> bool:
    """Tell whether a get of a saga in this state may show that."""
    shown = frozenset(seen.requests)
    return (
        seen.given == state.given
        and seen.status in STATUS_OF[state.phase]
        and seen.version >= state.version
        and seen.shipped == (state.phase in (SHIPPED, COMPLETED))
        and seen.taken == state.taken
        and len(shown) == len(seen.requests)
        and state.requests <= shown <= state.requests | state.early
    )
