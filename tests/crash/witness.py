"""What a tormented process was told, in a file that survives it: by its callers' side, and by the store.

Owns the notes and a store that writes down each commit that was not simply applied: refused, because the worker is
dead or the saga somebody else's, or in doubt, because no answer came. Must not change an answer; it may keep one back.
Used by `child`.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atone.errors import StoreUnavailable, WorkerDead
from atone.store import Claimed, Lease, Store, StoredPlan, Turn, TurnResult
from atone.telemetry import Observer
from atone.testing.through import Through


class Notes:
    """Lines of JSON, each written before anything else can happen."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, **what: Any) -> None:
        """Append one line; it survives a SIGKILL that comes right after."""
        os.write(self._file, (json.dumps(what) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Refusals(Observer):
    """Notes what the product itself counts as refused stale writes."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def writes_refused(self, why: str, turns: int) -> None:
        self._notes.write(counted=why, turns=turns)


class Witness(Through):
    """The port, around `inner`. Times are the machine's, by `time.time`: the server on this machine has the same.

    `late_news_seconds` keeps it from whoever renews or claims that the worker is dead.
    """

    def __init__(self, inner: Store, notes: Notes, late_news_seconds: float = 0.0) -> None:
        super().__init__(inner)
        self._notes, self._late_seconds = notes, late_news_seconds

    async def commit(self, worker: str | None, turns: Sequence[Turn]) -> Sequence[TurnResult]:
        begun = time.time()
        try:
            results = await self.inner.commit(worker, turns)
        except WorkerDead:
            self._notes.write(refused="dead", turns=len(turns), worker=worker)
            raise
        except asyncio.CancelledError:  # the news of its death came another way before the answer
            self._notes.write(refused="unheard", turns=len(turns), worker=worker)
            raise
        except StoreUnavailable as error:
            ids = [turn.commit_id.hex() for turn in turns]
            self._notes.write(in_doubt=ids, begun=begun, at=time.time(), why=str(error))
            raise
        for result, times in Counter(results).items():
            if result in (TurnResult.NOT_MINE, TurnResult.CONFLICT):
                self._notes.write(refused=result.value, turns=times, worker=worker)
        return results

    def renew(self, worker: str | None, lease_seconds: float, *, register: Sequence[StoredPlan] | None = None) -> Lease:
        try:
            return self.inner.renew(worker, lease_seconds, register=register)
        except WorkerDead:
            time.sleep(self._late_seconds)
            raise

    async def claim(self, worker: str, **wish: Any) -> Claimed:
        try:
            return await self.inner.claim(worker, **wish)
        except WorkerDead:
            await asyncio.sleep(self._late_seconds)
            raise
