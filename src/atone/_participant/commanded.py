"""The same participant, asked by an orchestrator: a command calls one reaction or undo, and its answer goes back.

Owns what topic each handler is asked on (`participant.handler`), one transaction for each command, and what a result is
as a reply: an event that it publishes is the answer, a failure event a refusal. The guard is the barrier, by the keys
that the command carries; nothing of a choreography is touched. Must not acknowledge. Called by a consumer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec

from atone._choreography.values import Reaction
from atone._codec.problems import type_name
from atone._core.retry import delay_seconds
from atone._messaging import headers
from atone._messaging.envelope import reason_body, reply_message
from atone._participant.bound import Bound, Kept
from atone._participant.calling import Call, Raised, UndoCall
from atone._participant.consumer import Again, Aside, Done, Ending
from atone._participant.database import Database
from atone._participant.sql import joined
from atone._participant.suspects import Suspects, Unexplained
from atone._participant.tables import ServiceTables
from atone._participant.taking import TROUBLE, told
from atone._runtime.arguments import ID_LENGTH_MAX, is_name
from atone._runtime.trace_context import read_headers
from atone.broker import Delivery, Message
from atone.errors import (
    AlreadyCompensated,
    ArgumentsDiffer,
    BarrierMisplaced,
    MessageError,
    PayloadError,
    Reject,
    RetryAfter,
)
from atone.machine import machine

log = logging.getLogger("atone.participant")

_HOPELESS = (MessageError, PayloadError, ArgumentsDiffer, BarrierMisplaced)


class Commanded:
    """Carry out commands for one participant. `on_commit` is called after each transaction that may have sent."""

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
        self.group = f"{bound.name}.commands"
        self._handlers = {f"{bound.name}.{name}": name for name in bound.code}
        self.topics = tuple(self._handlers)

    async def take(self, delivery: Delivery) -> Ending:
        """Carry a command out, and return how its delivery ends."""
        message = delivery.message
        handle = partial(self._taken, message, delivery, alone=True)
        try:
            try:
                return await self._taken(message, delivery)
            except Unexplained:
                return await self._suspects.alone(self.group, message.id, message.topic, handle, _aside)
        except BaseException:
            self._suspects.survived(self.group, message.id)
            raise

    async def _taken(self, message: Message, delivery: Delivery, *, alone: bool = False) -> Ending:
        try:
            await self._database.run(partial(self._within, message, delivery, alone))
        except Unexplained:
            raise
        except MessageError as unreadable:
            return Aside(str(unreadable))
        except Exception as error:  # noqa: BLE001 - whatever it is: it counts if the database can still be written
            return await self._failed(message, error)
        self._on_commit()
        return Done()

    async def _within(self, message: Message, delivery: Delivery, alone: bool, connection: Any) -> None:
        await joined(connection)
        if not is_name(message.id):  # nor could its failures be counted
            raise MessageError(f"The command's id is no text of 1 to {ID_LENGTH_MAX} characters without NUL.")
        failed_before = await self._tables.inbox.begin(connection, self.group, message.id)
        if failed_before is None:
            return
        if not alone:
            self._suspects.check(self.group, message.id, delivery, failed_before)
        carried = message.headers
        if carried.get(headers.KIND) != headers.COMMAND or headers.IDEMPOTENCY_KEY not in carried:
            raise MessageError(f"What came to {message.topic} is no command. Send it as `@command` does.")
        handler = self._handlers[message.topic]
        value = self._value(handler, message)
        context = Reaction(
            value,
            carried.get(headers.SAGA_ID, ""),
            message.id,
            connection,
            carried[headers.IDEMPOTENCY_KEY],
            delivery.attempt,
            _trace(carried),
            carried.get(headers.TENANT, "default"),
        )
        outcome, body = await self._answer(handler, context, message)
        reply = reply_message(message, outcome=outcome, body=body, source=self._bound.name, at=machine().time())
        await self._tables.outbox.add(connection, [reply])
        await self._tables.inbox.end(connection, self.group, message.id)

    def _value(self, handler: str, message: Message) -> Any:
        spec, name = self._bound.spec(handler), message.headers.get(headers.NAME, "")
        if name not in spec.listens:
            raise MessageError(
                f"{spec.path} is asked with {name!r}, and takes {' or '.join(spec.listens)}. Build one of these."
            )
        version = self._bound.map.by_name[name].version
        if message.headers.get(headers.VERSION, "1") != str(version):
            raise MessageError(
                f"{name} came in another version than {version}, which is known here. Deploy one that is."
            )
        return self._bound.types.plain(name, message.body)

    async def _answer(self, handler: str, context: Reaction[Any], message: Message) -> tuple[str, bytes]:
        """Return the outcome and the body of the answer. A refusal surely had no effect."""
        code = self._bound.code[handler]
        body = message.body.decode()
        try:
            if code.spec.undo_of is not None:
                await self._undo(code, context, body, message)
                return headers.SUCCEEDED, b"null"
            call = Call(self._bound, code, context)
            kept = await self._tables.barrier.action(
                context.connection, context.idempotency_key, call, body, returns=Kept, writes=False
            )
        except AlreadyCompensated as late:
            return headers.REJECTED, reason_body(str(late))
        except Raised as raised:
            if isinstance(raised.error, Reject):
                return headers.REJECTED, reason_body(raised.error.reason)
            raise
        return self._reply(kept, context.saga_id)

    async def _undo(self, code: Any, context: Reaction[Any], body: str, message: Message) -> None:
        action_key = message.headers.get(headers.ACTION_KEY)
        if action_key is None:
            raise MessageError(
                f"{code.spec.path} undoes, and the command does not say what. Send it as a compensation."
            )
        await self._tables.barrier.compensation(
            context.connection,
            context.idempotency_key,
            UndoCall(self._bound, code, context),
            body,
            action_key=action_key,
            returns=Kept,
            writes=False,
        )

    def _reply(self, kept: Kept, saga_id: str) -> tuple[str, bytes]:
        bodies = [msgspec.Raw(self._bound.types.bare(one.name, one.body.encode(), saga_id)) for one in kept.events]
        failures = [at for at, one in enumerate(kept.events) if one.name in self._bound.map.failures]
        if failures:
            at = failures[0]
            said: Any = msgspec.json.decode(bodies[at])
            return headers.REJECTED, msgspec.json.encode({"reason": kept.events[at].name, **said})
        if kept.is_many:
            return headers.SUCCEEDED, msgspec.json.encode(bodies)
        return headers.SUCCEEDED, bytes(bodies[0]) if bodies else b"null"

    async def _failed(self, message: Message, error: Exception) -> Ending:
        handler = self._handlers.get(message.topic, "")
        cause = error.error if isinstance(error, Raised) else error
        group, inbox = self.group, self._tables.inbox
        tries = await self._database.run(lambda line: inbox.count(line, group, message.id))
        log.warning("%s failed, %d times so far: %s", message.topic, tries.failures, type_name(cause))
        retry = self._bound.spec(handler).retry if isinstance(error, Raised) else TROUBLE
        if isinstance(cause, _HOPELESS) or tries.failures >= retry.attempts:
            return Aside(f"{message.topic} failed {tries.failures} times: {told(cause)}"[:2000])
        if isinstance(cause, RetryAfter):
            return Again(cause.seconds)
        return Again(delay_seconds(retry, tries.failures, message.id))


async def _aside(why: str) -> Ending:
    return Aside(why)


def _trace(carried: Mapping[str, str]) -> Mapping[str, str]:
    found = read_headers(carried)
    return {} if found is None else found.headers
