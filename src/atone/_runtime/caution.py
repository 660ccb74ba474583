"""Room for attempts that have ended their process before, so that whoever ends it again takes few others along.

Owns how many of them may be under way at once: the fewer chances one has left, the fewer stand beside it, and a last
chance is had alone. Sagas that were lost once or twice with others' are not held up. Must not know what is called, nor
count a loss: `_core` says how many chances are left. Kept by the worker, asked by its runners.
"""

from __future__ import annotations

from collections.abc import Callable

ROOM = 16
_SHARE_BY_CHANCES = {0: ROOM, 1: ROOM // 4, 2: 1}


class Caution:
    """Shares of one room; nobody waits for a share of nothing."""

    def __init__(self) -> None:
        self._held: dict[bytes, int] = {}
        self._waiting: dict[Callable[[], None], None] = {}  # a queue in which nobody stands twice
        # Who was refused a share of more than one: small ones that come and go would leave it no room for ever.
        self._next: bytes | None = None

    def admits(self, key: bytes, chances: int | None) -> bool:
        """Whether an attempt of this saga with so many chances left may begin now; None: it was never lost."""
        share, held = _share_of(chances), self._held.get(key, 0)
        is_in_turn = held > 0 or self._next in (None, key)
        if share == 0 or (is_in_turn and self._taken() - held + share <= ROOM):
            self.give_way(key)
            return True
        if share > 1 and self._next is None:
            self._next = key
        return False

    def give_way(self, key: bytes) -> None:
        """Let others in again, if this saga was to be the next: it waits for something else, or for nothing."""
        if self._next == key:
            self._next = None

    def hold(self, key: bytes, chances: int | None) -> None:
        """Take the share for what a saga has under way from now on, and give back what it had."""
        self.give_way(key)
        before, share = self._held.pop(key, 0), _share_of(chances)
        if share:
            self._held[key] = share
        if share >= before:
            return
        # Each is asked once: one that does not fit yet stands in line again.
        for wake in list(self._waiting):
            if self._taken() >= ROOM:
                return
            if self._waiting.pop(wake, self) is None:
                wake()

    def wait(self, wake: Callable[[], None]) -> None:
        """Have `wake` called once when there is some room; who waits already keeps its place."""
        self._waiting.setdefault(wake)

    def _taken(self) -> int:
        return sum(self._held.values())


def _share_of(chances: int | None) -> int:
    # Below 0 if the definition allows fewer losses than it did.
    return 0 if chances is None else _SHARE_BY_CHANCES.get(max(chances, 0), 0)
