"""Room for plain functions: an intent is committed only when its call can begin, and a call needs a thread.

Owns the count of threads that are taken, and who waits for one. Must not know what is called. Kept by the worker; a
runner takes a slot with the write that holds the intent, and the call gives it back when its thread has really ended.
"""

from __future__ import annotations

from collections.abc import Callable


class Slots:
    """At most `most` taken at once; one saga may exceed it by its own parallel steps, never by waiting ones."""

    def __init__(self, most: int) -> None:
        self._most = self._free = most
        self._waiting: dict[Callable[[], None], None] = {}  # a queue in which nobody stands twice

    @property
    def none_left(self) -> bool:
        """Whether nothing that needs a slot may begin now."""
        return self._free <= 0

    def take(self, count: int) -> None:
        """Take slots for calls whose intents are about to be written."""
        self._free -= count

    def give(self, count: int) -> None:
        """Give slots back, and wake those who wait, the longest first, as long as one is free."""
        # A worker that died starts to count anew, while threads of its former life still give back.
        self._free = min(self._free + count, self._most)
        # Whoever is woken takes its slot at once, or does not want it any more: then the next one has it.
        while self._waiting and self._free > 0:
            wake = next(iter(self._waiting))
            del self._waiting[wake]
            wake()

    def wait(self, wake: Callable[[], None]) -> None:
        """Have `wake` called once when a slot is free; who waits already keeps its place."""
        self._waiting.setdefault(wake)
