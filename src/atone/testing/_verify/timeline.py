"""What happened in a run, line by line with the time: calls, faults, deaths, and the journal in words.

Owns the lines. Must not keep payloads: what the journal holds of them is left out. Written by `run`, shown by `report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atone._core.plan import Plan
from atone._runtime.wire import decode_entries
from atone.testing.clock import VirtualClock

if TYPE_CHECKING:
    from atone.cli.words import Narrator


class Timeline:
    """Lines in the order in which things happened."""

    def __init__(self, clock: VirtualClock, plan: Plan) -> None:
        self._clock, self._plan = clock, plan
        self._began_at = clock.time()
        self._narrator: Narrator | None = None
        self._known: list[tuple[float, str | tuple[int, bytes]]] = []

    @property
    def lines(self) -> list[str]:
        """All lines, as text; the journal is put into words only now, for most runs are never looked at."""
        return [f"{at:10.3f} s  {text}" for at, what in self._known for text in self._words(what)]

    def add(self, what: str) -> None:
        """Write a line now."""
        self._known.append((self._clock.time() - self._began_at, what))

    def tell(self, version: int, entries: bytes) -> None:
        """Write what a journal row says; version 0 is a request from outside."""
        self._known.append((self._clock.time() - self._began_at, (version, entries)))

    def _words(self, what: str | tuple[int, bytes]) -> list[str]:
        if isinstance(what, str):
            return [what]
        from atone.cli.words import Narrator

        self._narrator = self._narrator or Narrator(self._plan)
        version, entries = what
        where = f"journal {version}" if version else "journal"
        at = self._clock.time()
        return [
            f"    {where}: {said.text}" for entry in decode_entries(entries) for said in self._narrator.tell(entry, at)
        ]
