"""What an event comes to in a participant, within the transaction that takes it in: undos, reactions, what is sent.

Owns the calls behind the barrier, what they publish, what is expected of others from then on, and the saga's row. Must
not judge the event, and must not begin or end the transaction. Made anew for each delivery by `taking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from atone._choreography.values import Reaction
from atone._connections.face import Face
from atone._core import event_guard as guard
from atone._messaging import headers
from atone._messaging.events import Event
from atone._participant.bound import Bound, Kept
from atone._participant.calling import Call, UndoCall
from atone._participant.ledger import Whose
from atone._participant.remembering import stored, with_heard, with_run, with_undone
from atone._participant.sending import Sending
from atone._participant.tables import ServiceTables


class Handling:
    """Handle one event in one transaction."""

    def __init__(
        self,
        bound: Bound,
        tables: ServiceTables,
        sending: Sending,
        connection: Any,
        face: Face,
        whose: Whose,
        event: Event,
        attempt: int,
        known: guard.Known,
    ) -> None:
        self._bound, self._tables, self._sending = bound, tables, sending
        self._connection, self._face, self._whose = connection, face, whose
        self._event, self._attempt, self._known = event, attempt, known
        self._results: dict[guard.Ran, Kept] = {}

    async def take_in(
        self,
        incoming: guard.Incoming,
        undos: Sequence[guard.Undoing],
        reactions: Sequence[str],
        gives_up: Sequence[str],
    ) -> None:
        """Remember the event, and do what was judged, in this order.

        Raises:
            MessageError: The event's body is none of its type.
            Raised: A handler raised.
        """
        before = self._waiting()
        self._known = with_heard(self._known, incoming)
        event = self._event
        value = self._bound.types.value(event.name, event.body, event.saga_id) if undos or reactions else None
        for undoing in undos:
            await self._undo(value, undoing)
        for reaction in reactions:
            await self._react(value, reaction)
        for reaction in gives_up:
            await self._give_up(reaction)
        await self._expect(before)
        await self._tables.ledger.write(self._face, self._whose, stored(self._known))

    async def _react(self, value: Any, reaction: str) -> None:
        event = self._event
        key = self._bound.key(event, reaction, event.id, headers.ACTION)
        call = Call(self._bound, self._bound.code[reaction], self._context(value, key))
        await self._tables.barrier.action(self._connection, key, call, event.body.decode(), returns=Kept, writes=False)
        names = await self._sending.events(self._connection, event, (reaction, event.id), call.emitted or ())
        run = guard.Ran(reaction, event.id, did=guard.did_something(self._bound.map, names))
        self._results[run] = call.kept
        self._known = with_run(self._known, run, names)

    async def _undo(self, value: Any, undoing: guard.Undoing) -> None:
        event, run = self._event, undoing.ran
        key = self._bound.key(event, undoing.undo, run.event_id, headers.COMPENSATION)
        call = UndoCall(self._bound, self._bound.code[undoing.undo], self._context(value, key))
        action_key = self._bound.key(event, run.reaction, run.event_id, headers.ACTION)
        await self._tables.barrier.compensation(
            self._connection, key, call, event.body.decode(), action_key=action_key, returns=Kept, writes=False
        )
        names = await self._sending.events(self._connection, event, (undoing.undo, run.event_id), call.emitted or ())
        self._known = with_undone(self._known, run, names)

    async def _give_up(self, reaction: str) -> None:
        event, bound = self._event, self._bound.spec(reaction).at_most
        assert bound is not None, "it has reached a bound"
        instead = [self._bound.types.make(bound.otherwise)]
        names = await self._sending.events(self._connection, event, (reaction, event.id, "bound"), instead)
        self._known = with_run(self._known, guard.Ran(reaction, event.id, did=False), names)

    def _context(self, value: Any, key: str) -> Reaction[Any]:
        event = self._event
        trace = {} if event.trace is None else event.trace.headers
        return Reaction(value, event.saga_id, event.id, self._connection, key, self._attempt, trace, event.tenant)

    def _waiting(self) -> dict[guard.Ran, guard.Expected]:
        return {one.ran: one for one in guard.expected(self._bound.map, self._bound.name, self._known)}

    async def _expect(self, before: dict[guard.Ran, guard.Expected]) -> None:
        """Write down what is expected from now on, and take out what has come or is no longer wanted."""
        after, ledger = self._waiting(), self._tables.ledger
        for run in before.keys() - after.keys():
            await ledger.came(self._face, self._whose, run.reaction, run.event_id)
        trace = "" if self._event.trace is None else self._event.trace.text
        for run in after.keys() - before.keys():
            kept = self._tables.codec.schema(Kept).encode(self._results.get(run, Kept())).decode()
            await ledger.expect(
                self._face,
                self._whose,
                run.reaction,
                cause=run.event_id,
                trace=trace,
                result=kept,
                seconds=after[run].seconds,
            )
