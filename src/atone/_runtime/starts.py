"""Starts under way: each waits until its first turn is durable, and no more wait than were allowed.

Owns the queue's bound, which is what a process feels when its store can't keep up: a start that would be one too many
is refused at once, with nothing written. Must not know a saga. Kept by the worker, and by the starter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from atone.errors import Overloaded
from atone.store import TurnResult


class Answer:
    """What becomes of one start; None: nobody knows, so look whether it is there."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[TurnResult | None] = asyncio.get_running_loop().create_future()

    def set(self, result: TurnResult | None) -> None:
        """Give the answer; a second one changes nothing."""
        if not self.future.done():
            self.future.set_result(result)


class Starts:
    """At most `most` at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: set[Answer] = set()

    @contextmanager
    def waiting(self) -> Generator[Answer, None, None]:
        """Wait within the block; who is cut off gives up the place, while the turn is written all the same.

        Raises:
            Overloaded: Too many wait already. Nothing was written.
        """
        if len(self._answers) >= self._most:
            raise Overloaded(
                f"{self._most} starts wait for the store already; nothing was written. Try again later, or start fewer "
                "at a time; the bound is Limits(starts_waiting_max=)."
            )
        answer = Answer()
        self._answers.add(answer)
        try:
            yield answer
        finally:
            self._answers.discard(answer)

    def answer_all(self) -> None:
        """Tell every start under way that nobody knows whether it was written: look, or send it again."""
        for answer in self._answers:
            answer.set(None)
