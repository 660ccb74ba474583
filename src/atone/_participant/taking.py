"""One delivery in one transaction: taken in, judged, handled behind the barrier, answered through the outbox.

Owns the order of these and what is written when; what to do with an event is `_core.event_guard`'s to say. Nothing of a
delivery is durable unless all of it is, except the count of its failures, which is written after the rollback. Must not
acknowledge anything: it says how the delivery ends. Called by the participant's consumer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from atone._codec.problems import describe, type_name
from atone._core import event_guard as guard
from atone._core.retry import Retry, delay_seconds
from atone._messaging import headers
from atone._messaging.events import Event, from_message
from atone._participant.bound import Bound
from atone._participant.calling import Raised
from atone._participant.consumer import Again, Aside, Done, Ending
from atone._participant.database import Database
from atone._participant.handling import Handling
from atone._participant.ledger import Whose
from atone._participant.remembering import remembered
from atone._participant.sending import Sending
from atone._participant.sql import joined
from atone._participant.suspects import Suspects, Unexplained
from atone._participant.tables import ServiceTables
from atone.broker import Delivery
from atone.errors import ArgumentsDiffer, AtoneError, BarrierMisplaced, MessageError, PayloadError, Reject, RetryAfter

log = logging.getLogger("atone.participant")

# An event that came too early waits for about a quarter of an hour in all.
PATIENCE = Retry(attempts=40, initial=0.05, factor=2.0, maximum=30.0, jitter=0.2)
# What goes wrong outside of a handler is tried again soon, and for about a quarter of an hour.
TROUBLE = Retry(attempts=30, initial=0.05, factor=2.0, maximum=60.0)
# What no repeat can mend: the message, or the code, must be changed first.
_HOPELESS = (MessageError, PayloadError, ArgumentsDiffer, BarrierMisplaced, Reject)


class _PutOff(Exception):
    """The event is to come again; nothing of it counts yet."""


class _Refused(Exception):
    """The event can't be right; nothing of it counts."""


class Taking:
    """Take in what one participant is given. `on_commit` is called after each transaction that may have sent."""

    def __init__(
        self,
        bound: Bound,
        tables: ServiceTables,
        database: Database,
        on_commit: Callable[[], None] = lambda: None,
        suspects: Suspects | None = None,
    ) -> None:
        self._bound, self._tables, self._database, self._on_commit = bound, tables, database, on_commit
        self._suspects = suspects or Suspects(tables.inbox, database)
        self._sending = Sending(bound.types, bound.name, tables)

    async def take(self, delivery: Delivery) -> Ending:
        """Take a delivery in, and return how it ends. What it raises is the database's trouble, not the message's."""
        try:
            event = from_message(delivery.message, self._bound.map.name)
        except MessageError as unreadable:
            return Aside(str(unreadable))
        if event is None or event.kind == headers.LIFECYCLE:
            return Done()
        group = self._bound.group
        handle, give_up = partial(self._taken, event, delivery, alone=True), partial(self._aside, event, "")
        try:
            try:
                return await self._taken(event, delivery)
            except Unexplained:
                return await self._suspects.alone(group, event.id, event.name, handle, give_up)
        except BaseException:
            self._suspects.survived(group, event.id)
            raise

    async def _taken(self, event: Event, delivery: Delivery, *, alone: bool = False) -> Ending:
        try:
            await self._database.run(partial(self._within, event, delivery, alone))
        except Unexplained:
            raise
        except _PutOff as early:
            return await self._put_off(event, str(early))
        except _Refused as wrong:
            await self._count(event)  # so that it is told if it is taken in later after all
            return await self._aside(event, "", str(wrong))
        except Exception as error:  # noqa: BLE001 - whatever it is: it counts if the database can still be written
            return await self._failed(event, error)
        self._on_commit()
        return Done()

    async def _within(self, event: Event, delivery: Delivery, alone: bool, connection: Any) -> None:
        face = await joined(connection)
        whose = Whose(event.tenant, event.choreography, self._bound.name, event.saga_id)
        known = remembered(await self._tables.ledger.lock(face, whose))
        failed_before = await self._tables.inbox.begin(connection, self._bound.group, event.id)
        if failed_before is None:
            return
        if not alone:
            self._suspects.check(self._bound.group, event.id, delivery, failed_before)
        incoming = guard.Incoming(event.id, event.name, event.version)
        handling = Handling(
            self._bound, self._tables, self._sending, connection, face, whose, event, delivery.attempt, known
        )
        match guard.judge(self._bound.map, self._bound.name, known, incoming):
            case guard.Run(reactions, gives_up):
                await handling.take_in(incoming, (), reactions, gives_up)
            case guard.Undo(undos, reactions):
                await handling.take_in(incoming, undos, reactions, ())
            case guard.Defer(missing):
                raise _PutOff(f"{event.name} has to come after {', '.join(missing)}, which has not come")
            case guard.Ignore(why):
                await self._sending.note(connection, "ignored", event, "", why.value)
            case guard.Refuse(_, reason):
                raise _Refused(reason)
        if failed_before:  # it may have been parked meanwhile, and is no longer
            await self._sending.note(connection, "taken_in", event, "", "")
        await self._tables.inbox.end(connection, self._bound.group, event.id)

    # -- after a rollback

    async def _put_off(self, event: Event, why: str) -> Ending:
        tries = await self._count(event, deferred=True)
        if tries.deferrals >= PATIENCE.attempts:
            return await self._aside(
                event, "", f"{why} in all the time that it was put off. Look after that one first."
            )
        return Again(delay_seconds(PATIENCE, tries.deferrals, event.id))

    async def _failed(self, event: Event, error: Exception) -> Ending:
        path, cause, retry = self._bound.group, cast("BaseException", error), TROUBLE
        if isinstance(error, Raised):
            path, cause, retry = error.path, error.error, self._bound.by_path(error.path).retry
        tries = await self._count(event)
        log.warning("%s failed on %s, %d times so far: %s", path, event.name, tries.failures, type_name(cause))
        if isinstance(cause, _HOPELESS) or tries.failures >= retry.attempts:
            handler = path.rpartition(".")[2]
            return await self._aside(event, handler, f"{path} failed {tries.failures} times: {told(cause)}")
        if isinstance(cause, RetryAfter):
            return Again(cause.seconds)
        return Again(delay_seconds(retry, tries.failures, event.id))

    async def _count(self, event: Event, *, deferred: bool = False) -> Any:
        group, inbox = self._bound.group, self._tables.inbox
        return await self._database.run(lambda line: inbox.count(line, group, event.id, deferred=deferred))

    async def _aside(self, event: Event, handler: str, why: str) -> Ending:
        """Tell the saga view, and set the message aside."""
        reason = why[:2000]
        await self._database.run(lambda line: self._sending.note(line, "parked", event, handler, reason))
        self._on_commit()
        return Aside(reason)


def told(error: BaseException) -> str:
    """Say what went wrong, whatever the exception does when asked. It goes to people who may see messages, as a parked
    one is.
    """
    problem = describe(error)
    kind = problem.type.rpartition(".")[2]  # where it was defined says nothing to them
    return problem.message if isinstance(error, AtoneError | Reject) else f"{kind}: {problem.message}"
