"""Starts under way: each waits until its first turn is durable, and no more wait than were allowed.

Owns the queue's bound, which is what a process feels when its store can't keep up: a start that would be one too many
is refused at once, with nothing written. Must not know a saga. Kept by the worker, and by the starter.
"""

from __future__ import annotations

import asyncio
from typing import Any

from atone._runtime.outcomes import Outcomes
from atone.errors import Overloaded
from atone.store import TurnResult


class Answer:
    """What becomes of one start; None: nobody knows, so look whether it is there.

    With `outcomes` the future goes on to wait for the saga's end, once its first turn is durable.
    """

    __slots__ = ("_outcomes", "_starts", "future", "key")

    def __init__(self, starts: Starts, outcomes: Outcomes | None) -> None:
        self._starts, self._outcomes = starts, outcomes
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.key = b""

    def set(self, result: TurnResult | None) -> None:
        """Give the answer; a second one changes nothing."""
        self._starts.discard(self)
        if self.future.done():
            return
        if self._outcomes is not None and result is TurnResult.APPLIED:
            self._outcomes.join(self.key, self.future)
        else:
            self.future.set_result(result)

    def leave(self) -> None:
        """Wait no longer; who is cut off gives up the place, while the turn is written all the same."""
        self._starts.discard(self)
        if self._outcomes is not None:
            self._outcomes.forget(self.key, self.future)


class Starts:
    """At most `most` at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: set[Answer] = set()
        self.discard = self._answers.discard

    def enter(self, outcomes: Outcomes | None = None) -> Answer:
        """Return what waits for one start, until it is answered or left.

        Raises:
            Overloaded: Too many wait already. Nothing was written.
        """
        if len(self._answers) >= self._most:
            raise Overloaded(
                f"{self._most} starts wait for the store already; nothing was written. Try again later, or start fewer "
                "at a time; the bound is Limits(starts_waiting_max=)."
            )
        answer = Answer(self, outcomes)
        self._answers.add(answer)
        return answer

    def answer_all(self) -> None:
        """Tell every start under way that nobody knows whether it was written: look, or send it again."""
        for answer in tuple(self._answers):
            answer.set(None)
