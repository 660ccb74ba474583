"""Is a history of concurrent calls linearizable? Wing and Gong's search, with Lowe's memory of what was tried.

Owns the search and nothing of what is called: a specification says which states may follow a call and its answer. A
call without an answer stays open: it may have taken effect at any time after it was made, or never. Pure; used by the
recorder and by the checker's own tests.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar

State = TypeVar("State", bound=Hashable)


@dataclass(frozen=True)
class Call:
    """One call of one client: `asked` and `answer` are data that the specification knows; times are monotonic.

    `answer` None: nobody knows what became of it, and `returned` is infinite.
    """

    asked: tuple[Hashable, ...]
    answer: Hashable | None
    invoked: float
    returned: float = inf

    @property
    def is_open(self) -> bool:
        """Whether it had no answer."""
        return self.answer is None


class Specification(Protocol[State]):
    """What one object does when it is called by one client at a time; it may do one of several things."""

    def initial(self) -> State:
        """Return the state before the first call."""
        ...

    def after(self, state: State, asked: tuple[Hashable, ...], answer: Hashable | None) -> Iterable[State]:
        """Return the states that may follow, none if that answer is not possible; of an open call those of any."""
        ...


@dataclass(frozen=True)
class Verdict(Generic[State]):
    """`order` is one that explains the history, as places in it; None: there is none.

    `stuck_after` is then the longest order that can be explained, and `looked_at` how many nodes were searched.
    """

    order: tuple[int, ...] | None
    stuck_after: tuple[int, ...]
    looked_at: int

    @property
    def holds(self) -> bool:
        """Whether the history is linearizable."""
        return self.order is not None


class TooHard(Exception):
    """The search was given up; make the history shorter or its clients fewer."""


def check(specification: Specification[State], history: Sequence[Call], *, looks_max: int = 200_000) -> Verdict[State]:
    """Search for an order of the calls that the specification explains and that no real time contradicts.

    Raises:
        TooHard: There was no verdict after `looks_max` nodes.
    """
    ended = sum(1 << at for at, call in enumerate(history) if not call.is_open)
    tried: set[tuple[int, frozenset[State]]] = set()
    longest: tuple[int, ...] = ()
    stack: list[tuple[tuple[int, ...], int, frozenset[State]]] = [((), 0, frozenset([specification.initial()]))]
    while stack:
        order, done, states = stack.pop()
        if done & ended == ended:
            return Verdict(order, order, len(tried))
        if len(order) > len(longest):
            longest = order
        for at in reversed(candidates(history, done)):
            call = history[at]
            then = frozenset(new for old in states for new in specification.after(old, call.asked, call.answer))
            node = (done | 1 << at, then)
            if then and node not in tried:
                tried.add(node)
                stack.append(((*order, at), *node))
        if len(tried) > looks_max:
            raise TooHard(f"no verdict after {looks_max} nodes of a history of {len(history)} calls")
    return Verdict(None, longest, len(tried))


def candidates(history: Sequence[Call], done: int) -> list[int]:
    """Return the calls that may be next: made before any other one that is not done has returned."""
    left = [at for at in range(len(history)) if not done >> at & 1]
    until = min((history[at].returned for at in left), default=inf)
    found = [at for at in left if history[at].invoked <= until]
    # Answered ones first: they have to be explained, an open one need not.
    return sorted(found, key=lambda at: (history[at].is_open, history[at].returned))
