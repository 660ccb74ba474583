"""Which offsets of a partition are ended, and how far its committed offset may go: never past one that is not.

Pure: no client, no clock. A crash therefore gives everything again that follows the first one that was not ended.
Called by a group's member in the Kafka adapter.
"""

from __future__ import annotations

from collections import deque

YOUNG_MAX = 200


class Window:
    """The offsets of one partition that were taken and can't be committed yet."""

    def __init__(self) -> None:
        self.is_lost = False
        self.position: int | None = None
        self._taken: deque[int] = deque()
        self._open: set[int] = set()
        self._given = 0

    def __len__(self) -> int:
        return len(self._taken)

    @property
    def is_young(self) -> bool:
        """Whether what was given last is among the first since the partition is ours: a dead member may have had it.

        What it had follows its committed offset, and most of what it ended is behind that.
        """
        return self._given <= YOUNG_MAX

    def take(self, offset: int) -> None:
        """Note that an offset was given to somebody; they come in rising order, perhaps with gaps."""
        self._given += 1
        self._taken.append(offset)
        self._open.add(offset)

    def end(self, offset: int) -> bool:
        """Note that it is ended; whether the position moved."""
        self._open.discard(offset)
        before = self.position
        while self._taken and self._taken[0] not in self._open:
            self.position = self._taken.popleft() + 1
        return self.position != before
