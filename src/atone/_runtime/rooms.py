"""How many sagas may be here: in all, and of each definition that has a bound of its own.

Owns the counts. Must not know a saga: it hears names. Kept by the worker, asked before a start and before each claim.
A claim under way may bring as many as it was allowed; until it is over, that room is nobody else's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from atone._runtime.limits import Limits


class Promise(NamedTuple):
    """What a claim may bring: so many in all, and of the definitions that are named at most so many."""

    total: int
    by_name: Mapping[str, int]


_NOTHING = Promise(0, {})


class Rooms:
    """The bounds of one worker, and what is taken of them."""

    def __init__(self, limits: Limits) -> None:
        self._most = limits.sagas_in_flight_max
        self._bounds = limits.bounds_by_name
        self._total = 0
        self._taken: Counter[str] = Counter()
        self._promised = _NOTHING

    def has(self, name: str) -> bool:
        """Whether a saga of this definition may begin here, beside those that a claim under way may bring."""
        if self._total + self._promised.total >= self._most:
            return False
        bound = self._bounds.get(name)
        return bound is None or self._taken[name] + self._promised.by_name.get(name, 0) < bound

    def is_full(self, name: str) -> bool:
        """Whether no saga of this definition may begin here until another one has left."""
        return self._total >= self._most or self._taken[name] >= self._bounds.get(name, self._total + 1)

    def take(self, name: str) -> None:
        """Count a saga that is here now."""
        self._total += 1
        if name in self._bounds:
            self._taken[name] += 1

    def give(self, name: str) -> None:
        """Count one that is not here any more."""
        self._total -= 1
        if name in self._bounds:
            self._taken[name] -= 1

    def clear(self) -> None:
        """Start to count anew: all have gone."""
        self._total = 0
        self._taken.clear()

    def promise(self, page: int) -> Promise:
        """Set aside what a claim may bring, `page` sagas at most; `settle` ends it."""
        by_name = {name: max(0, bound - self._taken[name]) for name, bound in self._bounds.items()}
        self._promised = Promise(max(0, min(page, self._most - self._total)), by_name)
        return self._promised

    def settle(self) -> None:
        """The claim is over; what it brought has been counted."""
        self._promised = _NOTHING
