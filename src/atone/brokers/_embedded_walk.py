"""How much one claim of the embedded broker looks at, so that it costs the same however many messages wait.

First the oldest messages are looked at; if others have the keys of all of these, some of the keys, from where the last
look at keys ended. What one look doesn't reach, a later one does. Must not know a database. Called by both kinds of
messages.
"""

from __future__ import annotations

from collections.abc import Sequence

WOKEN_MAX = 500
_LOOKED_AT_MORE = 100


def looked_at_for(limit: int) -> int:
    """Return how many messages, or keys, are looked at for `limit` that may be taken."""
    return limit + _LOOKED_AT_MORE


class Walk:
    """Goes round the keys of each group, a stretch at a time."""

    def __init__(self) -> None:
        self._begins: dict[str, bytes] = {}

    def begin(self, group: str) -> bytes:
        """Return the first key that may be looked at now."""
        return self._begins.get(group, b"")

    def went(self, group: str, keys: Sequence[bytes], at_most: int) -> None:
        """Remember which keys were looked at; with fewer than `at_most` these were the last ones."""
        self._begins[group] = keys[-1] + b"\x00" if len(keys) >= at_most else b""

    def pause(self, group: str) -> float | None:
        """Return how long to wait if nothing was found: not at all while there are keys left in this round."""
        return 0.0 if self.begin(group) else None
