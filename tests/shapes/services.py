"""The participants that shapes call: they honour keys, refuse what comes after its undo, and break as they are told.

Owns what becomes of one call, as one line of the ledger. Each call passes crash points: before and after it is noted,
and before and after its effect. `pause` lets others run there. Must not know a saga's plan. Called by the definitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from atone import CannotTell, Context, Landed, NotLanded, Reject, Tried
from tests.shapes.ledger import CALLED, EFFECT, FAILED, LATE, NOTE, NOTHING, REPEATED, Book, Ledger, Line

CUSTOMER = "customer"
CENTS = 100


class Snag(Exception):
    """The participant broke, without saying whether it had its effect."""


class TooLate(Exception):
    """The action came after its undo, and had no effect."""


def no_point(_: str) -> None:
    """Pass a crash point that nobody watches."""


class Services:
    """All participants of a shape. `point` is called by name wherever a process may die around an effect.

    `ignores_keys` breaks them on purpose, for a test that wants to see it found. `guards` says of a saga's id and a
    step whether its participant refuses what comes after its undo; one that does not knows keys again and nothing
    else, so what comes too late has its effect, and whoever judges the ledger sees it.
    """

    def __init__(
        self,
        ledger: Ledger,
        point: Callable[[str], None] = no_point,
        *,
        ignores_keys: bool = False,
        guards: Callable[[str, str], bool] = lambda saga_id, step: True,
    ) -> None:
        self.ledger, self.point, self.ignores_keys, self.guards = ledger, point, ignores_keys, guards

    async def act(self, ctx: Context[Any], step: str, cents: int = CENTS) -> str:
        """Have the action's effect once for its key: the customer pays `cents` to the step's account."""
        self.called(ctx, step, "action")
        await asyncio.sleep(0)
        told = self.take(ctx, step, cents)
        await asyncio.sleep(0)
        return told

    async def undo(self, ctx: Context[Any], step: str, tried: Tried[Any]) -> None:
        """Give back what the action took, once; if it took nothing, see to it that it never will."""
        self.called(ctx, step, "compensation")
        await asyncio.sleep(0)
        self.give_back(ctx, step, tried)
        await asyncio.sleep(0)

    def called(self, ctx: Context[Any], step: str, operation: str) -> None:
        """Note that user code was called, before anything else happens in it."""
        self._write(f"call of {step}", lambda _: Line(CALLED, ctx.saga_id, step, operation, ctx.attempt))

    def take(self, ctx: Context[Any], step: str, cents: int = CENTS) -> str:
        """Have the action's effect.

        Raises:
            TooLate: It was undone before.
        """
        key, saga_id, attempt = ctx.idempotency_key, ctx.saga_id, ctx.attempt
        moves = {CUSTOMER: -cents, step: cents} if cents else {}

        def decide(book: Book) -> Line:
            is_late = key in book.undone and self.guards(saga_id, step)
            kind = LATE if is_late else REPEATED if key in book.by_key else EFFECT
            return Line(EFFECT if self.ignores_keys else kind, saga_id, step, "action", attempt, key, "", moves)

        if self._write(f"effect of {step}", decide).kind == LATE:
            raise TooLate(f"{step} was undone before")
        return f"{step} of {saga_id}"

    def give_back(self, ctx: Context[Any], step: str, tried: Tried[Any]) -> None:
        """Have the compensation's effect."""
        key, saga_id, attempt, of = ctx.idempotency_key, ctx.saga_id, ctx.attempt, tried.idempotency_key

        def decide(book: Book) -> Line:
            done = book.by_key.get(of)
            kind = REPEATED if key in book.by_key else EFFECT if done is not None else NOTHING
            if self.ignores_keys:
                kind = EFFECT
            moves = {} if done is None else {account: -cents for account, cents in done.moves.items()}
            return Line(kind, saga_id, step, "compensation", attempt, key, of, moves)

        self._write(f"undo of {step}", decide)

    def breaks(self, ctx: Context[Any], step: str, operation: str, times: int) -> bool:
        """Whether the participant is broken, which it is so many times, whoever asks."""
        if self.ledger.book().has(FAILED, ctx.saga_id, step, operation) >= times:
            return False
        self._write(f"break of {step}", lambda _: Line(FAILED, ctx.saga_id, step, operation, ctx.attempt))
        return True

    def fail(self, ctx: Context[Any], step: str, operation: str = "action", times: int = 1_000_000) -> None:
        """Break so many times.

        Raises:
            Snag: The participant is broken.
        """
        if self.breaks(ctx, step, operation, times):
            raise Snag(f"the {operation} of {step} broke")

    def refuse(self, step: str) -> None:
        """Say that the action surely has no effect.

        Raises:
            Reject: Always.
        """
        raise Reject(f"{step} is refused")

    def find(self, tried: Tried[Any], step: str, saga_id: str) -> Landed[str] | NotLanded | CannotTell:
        """Say whether the action has landed: what a probe asks."""
        landed = tried.idempotency_key in self.ledger.book().by_key
        return Landed(f"{step} of {saga_id}") if landed else NotLanded()

    def note(self, saga_id: str, what: str) -> None:
        """Write down something from outside, once."""
        if not self.noted(saga_id, what):
            self._write(f"note {what}", lambda _: Line(NOTE, saga_id, what))

    def noted(self, saga_id: str, what: str) -> bool:
        """Whether that was written down."""
        return self.ledger.book().has(NOTE, saga_id, what, "") > 0

    def _write(self, what: str, decide: Callable[[Book], Line]) -> Line:
        self.point(f"before {what}")
        line = self.ledger.write(decide)
        self.point(f"after {what}")
        return line


def balances_of(lines: list[Line], saga_id: str) -> Mapping[str, int]:
    """Return what each account has from a saga; those at nought are left out."""
    total: dict[str, int] = {}
    for line in lines:
        if line.kind == EFFECT and line.saga_id == saga_id:
            for account, cents in line.moves.items():
                total[account] = total.get(account, 0) + cents
    return {account: cents for account, cents in total.items() if cents}
