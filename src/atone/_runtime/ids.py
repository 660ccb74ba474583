"""Ids made by this process: saga keys, worker ids, commit ids, request ids.

All are made before the write that uses them, so that the same write can be sent again. A saga key begins with the time
in milliseconds, which keeps new rows together in the index; it is no secret and no capability.
"""

from __future__ import annotations

import itertools

from atone.machine import machine, new_name


class SagaKeys:
    """Keys for the sagas that one worker starts; the random bits of many are drawn at once, for a draw is a syscall.

    Made by a worker for itself: a process that was forked has a worker of its own, and so bits of its own.
    """

    def __init__(self) -> None:
        self._bits: bytes = b""
        self._at = 0
        self._random_bytes, self._time = machine().random_bytes, machine().time

    def next(self) -> bytes:
        """Return 16 bytes that sort by the time they were made: 48 bits of milliseconds, 80 random bits."""
        if self._at == len(self._bits):
            self._bits, self._at = self._random_bytes(10 * 256), 0
        begin = self._at
        self._at = end = begin + 10
        return int(self._time() * 1000).to_bytes(6, "big") + self._bits[begin:end]


def new_worker_id() -> str:
    """Return a worker id that no other start, here or elsewhere, will ever have."""
    return f"{machine().pid}-{new_name(8)}"


def new_request_id() -> str:
    """Return an id for a request whose sender gave none."""
    return new_name()


class CommitIds:
    """Commit ids of one worker: 8 random bytes, then a counter."""

    def __init__(self) -> None:
        self._prefix = machine().random_bytes(8)
        self._counter = itertools.count(1)

    def next(self) -> bytes:
        """Return 16 bytes never returned before."""
        return self._prefix + next(self._counter).to_bytes(8, "big")
