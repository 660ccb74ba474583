"""What happened in a run, line by line with the time: calls, faults, deaths, and the journal in words.

Owns the lines. Must not keep payloads: what the journal holds of them is left out. Written by `run`, shown by `report`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atone._core.facts import ACTION
from atone._core.journal import AttemptRejected, AttemptUnknown
from atone._core.plan import Plan
from atone._runtime.wire import decode_entries
from atone.store import Store
from atone.testing.clock import VirtualClock
from atone.testing.invariants import read_histories

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

    def failure(self) -> str | None:
        """Return what failed last, of a saga that no step has refused."""
        told = [entry for _, what in self._known if not isinstance(what, str) for entry in decode_entries(what[1])]
        if any(isinstance(entry, AttemptRejected) and entry.operation is ACTION for entry in told):
            return None
        failed = [entry for entry in told if isinstance(entry, AttemptUnknown) and entry.operation is ACTION]
        return f"{failed[-1].step} ended with {failed[-1].problem}" if failed else None

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


async def journals(store: Store) -> list[str]:
    """Return what the journal of each saga in a store says, one line for each thing; times are since its start."""
    from atone.cli.words import Narrator

    lines: list[str] = []
    for found in await read_histories(store):
        lines.append(f"{found.summary.name}/{found.summary.saga_id} is {found.summary.status}")
        narrator, began_at = Narrator(), found.summary.created_at
        for row in found.rows:
            told = [said.text for entry in decode_entries(row.entries) for said in narrator.tell(entry, row.at)]
            lines += [f"{row.at - began_at:10.3f} s  journal {row.version}: {text}" for text in told]
    return lines
