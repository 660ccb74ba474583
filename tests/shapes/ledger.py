"""The ledger of the shapes' participants: append-only, and all that they remember.

Owns its lines and two places to keep them: in memory, and in a file that every process of a run appends to, each line
durable before the participant answers. What a participant decides, it decides on the lines so far and writes in one
step. Must not know a shape. Used by `services`, and by whoever judges a run.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from atone.testing.invariants import Called, Effect

CALLED, EFFECT, FAILED, NOTE = "called", "effect", "failed", "note"
REPEATED, NOTHING, LATE = "repeated", "nothing", "late"


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One line. `kind`: called (user code was), effect, repeated (the key was known), nothing (an undo of nothing: the
    action will be refused), late (an action that was), failed (the participant broke), note (from outside).
    """

    kind: str
    saga_id: str
    step: str
    operation: str = ""
    attempt: int = 0
    key: str = ""
    action_key: str = ""
    moves: dict[str, int] = {}

    def __str__(self) -> str:
        attempt = f"attempt {self.attempt}" if self.attempt else ""
        return f"{self.kind} {self.saga_id} {self.step} {self.operation} {attempt}".rstrip()


class Book:
    """The lines so far, and what a participant looks up in them."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.by_key: dict[str, Line] = {}
        self.undone: set[str] = set()
        self.times: Counter[tuple[str, str, str, str]] = Counter()

    def add(self, line: Line) -> None:
        """Take one more line in."""
        self.lines.append(line)
        self.times[line.kind, line.saga_id, line.step, line.operation] += 1
        if line.kind in (EFFECT, NOTHING):
            self.by_key[line.key] = line
            if line.action_key:
                self.undone.add(line.action_key)

    def has(self, kind: str, saga_id: str, step: str, operation: str = "action") -> int:
        """Return how often such a line stands here."""
        return self.times[kind, saga_id, step, operation]


Decide: TypeAlias = Callable[[Book], Line]


class Ledger(Protocol):
    """Where the lines are kept."""

    def write(self, decide: Decide) -> Line:
        """Append what `decide` makes of the book; nobody appends between its look and its line."""
        ...

    def book(self) -> Book:
        """Return the book as it is now."""
        ...


class MemoryLedger:
    """Lines in this process; shared by threads."""

    def __init__(self) -> None:
        self._book, self._lock = Book(), threading.Lock()

    def write(self, decide: Decide) -> Line:
        """See `Ledger`."""
        with self._lock:
            line = decide(self._book)
            self._book.add(line)
            return line

    def book(self) -> Book:
        """See `Ledger`."""
        return self._book


class FileLedger:
    """Lines of JSON in a file that all processes of a run append to; one is durable before `write` returns.

    A line that a kill has torn is cut off by whoever writes next: nobody was told of it.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._book, self._read, self._sync = Book(), 0, sync
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def write(self, decide: Decide) -> Line:
        """See `Ledger`."""
        with self._locked():
            self._catch_up()
            line = decide(self._book)
            data = msgspec.json.encode(line) + b"\n"
            os.ftruncate(self._file, self._read)
            os.pwrite(self._file, data, self._read)
            if self._sync:
                os.fdatasync(self._file)
            self._read += len(data)
            self._book.add(line)
            return line

    def book(self) -> Book:
        """See `Ledger`."""
        with self._locked():
            self._catch_up()
            return self._book

    def _catch_up(self) -> None:
        size = os.fstat(self._file).st_size
        news = os.pread(self._file, size - self._read, self._read)
        whole = news[: news.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._book.add(msgspec.json.decode(line, type=Line))
        self._read += len(whole)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)


def effects_in(lines: list[Line]) -> list[Effect]:
    """Return the effects, as `check_invariants` wants them."""
    return [Effect(one.saga_id, one.step, one.operation, one.moves) for one in lines if one.kind == EFFECT]


def calls_in(lines: list[Line]) -> list[Called]:
    """Return the calls of user code."""
    return [Called(one.saga_id, one.step, one.operation, one.attempt) for one in lines if one.kind == CALLED]
