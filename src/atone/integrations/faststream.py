"""FastStream: a subscriber that takes each of Atone's messages in once, in its own transaction, and answers commands.

Owns the middleware, and how a FastStream message is one of Atone's on NATS JetStream, Kafka, RabbitMQ and Redis
Streams. The message is acknowledged after the commit, never before. Must not begin a saga or decide anything about one.
Called by FastStream, for services that live there. Needs the `faststream` extra.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NoReturn, cast

import msgspec

try:
    from faststream import BaseMiddleware, Context, StreamMessage
    from faststream.exceptions import AckMessage, HandlerException, NackMessage, RejectMessage
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError('FastStream is missing. Run: pip install "atone[faststream]"') from missing

from atone._connections.face import face_of
from atone._messaging import headers
from atone._messaging.envelope import reason_body, reply_message
from atone._participant.database import Database
from atone._runtime.trace_context import read_headers
from atone.barrier import Barrier
from atone.broker import Message
from atone.brokers._texts import unquoted
from atone.errors import AlreadyCompensated, ArgumentsDiffer, BarrierMisplaced, MessageError, PayloadError, Reject
from atone.inbox import Inbox
from atone.outbox import ServiceOutbox

__all__ = ["Call", "SagaCall", "SagaMiddleware", "read_message"]

log = logging.getLogger("atone.participant")

_CONTEXT = "atone_call"
# Names of the id and the key on NATS, Kafka and RabbitMQ, in lower case. What a server or an adapter adds is no header.
_IDS = ("atone-id", "nats-msg-id", "x-atone-id")
_KEYS = ("atone-key", "x-atone-key")
_TOPICS = ("atone-topic", "x-atone-topic")
_OWN = {*_IDS, *_KEYS, *_TOPICS}
_HOPELESS = (MessageError, PayloadError, ArgumentsDiffer, BarrierMisplaced)
_ENDED = (
    "The handler of {topic} ended the transaction that it was given and then refused, so the answer can't be that "
    "nothing was done. Leave commit and rollback to Atone, and settle this saga by hand."
)


@dataclass(frozen=True)
class Call:
    """What a handler gets beside its message: whose it is, and the connection of the transaction that it stands in.

    `idempotency_key` is the command's, or the message's id for an event. `action_key` is set for a compensation: the
    key of what it undoes; `tried` is then what that action returned, as plain JSON. Send `trace_headers` along.
    """

    message: Message
    connection: Any
    idempotency_key: str
    saga_id: str | None
    action_key: str | None
    trace_headers: Mapping[str, str]
    tried: Any = None


# `async def reserve(order: Order, call: SagaCall) -> Reservation`
SagaCall = Annotated[Call, Context(_CONTEXT)]


class SagaMiddleware:
    """Handle each message once, in a transaction of `database`, and acknowledge it when that is committed.

    `database` is an asynchronous engine or pool (SQLAlchemy, asyncpg, psycopg), or a function that returns an
    asynchronous context manager which yields a connection in a transaction. `consumer` names this service in its inbox
    and as the source of its answers. A command is guarded by the barrier, by the key that it carries; what the handler
    returns is its answer, `Reject` a refusal, and both go out through the outbox, which a relay of yours empties. After
    `attempts_max` failures a message is rejected, which a broker may be set up to keep in a dead-letter place.

    Use it as a middleware of a FastStream broker, router or subscriber whose messages come with acknowledgements:
    `NatsBroker(url, middlewares=[SagaMiddleware(pool, consumer="inventory")])`. Any ack policy will do but ACK_FIRST.
    """

    def __init__(
        self,
        database: Any,
        *,
        consumer: str,
        inbox: Inbox | None = None,
        outbox: ServiceOutbox | None = None,
        barrier: Barrier | None = None,
        attempts_max: int = 10,
    ) -> None:
        self.database = Database(database)
        self.consumer = consumer
        self.inbox = inbox or Inbox()
        self.outbox = outbox or ServiceOutbox()
        self.barrier = barrier or Barrier()
        self.attempts_max = attempts_max

    async def create_tables(self) -> None:
        """Make the three tables, if they are not there; or put their `table_sql` into your migrations."""

        async def work(connection: Any) -> None:
            for table in (self.inbox, self.outbox, self.barrier):
                await table.create_table(connection)

        await self.database.run(work)

    def __call__(self, msg: Any, /, *, context: Any) -> _Scope:
        return _Scope(msg, context=context, owner=self)


class _Scope(BaseMiddleware[Any, Any]):
    """One message on its way through."""

    def __init__(self, msg: Any, /, *, context: Any, owner: SagaMiddleware) -> None:
        super().__init__(msg, context=context)
        self._owner = owner

    async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]) -> Any:
        try:
            message = read_message(msg)
        except MessageError as unreadable:
            log.warning("%s was given what it can't read, and rejects it: %s", self._owner.consumer, unreadable)
            await msg.reject()
            raise RejectMessage from unreadable
        handling = _Handling(self._owner, self.context, call_next, msg, message)
        try:
            is_new, result = await self._owner.database.run(handling.within)
        except HandlerException:
            raise  # the handler's own word on how this ends, after its transaction is rolled back
        except Exception as error:  # noqa: BLE001 - whatever it is: it counts, and the message comes again
            await self._failed(msg, message, error)
        await msg.ack()  # here and not by a policy: after the commit, and whatever the policy is
        if not is_new:
            raise AckMessage  # nothing may be published for a message that was handled before
        return result

    async def _failed(self, msg: StreamMessage[Any], message: Message, error: Exception) -> NoReturn:
        owner = self._owner
        kind = type(error).__name__
        try:
            tries = await owner.database.run(partial(_count, owner, message.id))
        except Exception as away:  # noqa: BLE001 - the database's word on that is in the first error
            log.warning("%s failed at %s: %s, then %s", owner.consumer, message.topic, kind, type(away).__name__)
            tries = 0
        else:
            log.warning("%s failed at %s, %d times so far: %s", owner.consumer, message.topic, tries, kind)
        if tries >= owner.attempts_max or isinstance(error, _HOPELESS):
            await msg.reject()
            raise RejectMessage from error
        await msg.nack()
        raise NackMessage from error


async def _count(owner: SagaMiddleware, message_id: str, connection: Any) -> int:
    return (await owner.inbox.count(connection, owner.consumer, message_id)).failures


@dataclass(frozen=True)
class _Handling:
    """One message in one transaction."""

    owner: SagaMiddleware
    context: Any
    call_next: Callable[[Any], Awaitable[Any]]
    msg: StreamMessage[Any]
    message: Message

    async def within(self, connection: Any) -> tuple[bool, Any]:
        """Return whether this is the first time, and what the handler returned."""
        owner = self.owner
        if await owner.inbox.begin(connection, owner.consumer, self.message.id) is None:
            return False, None
        result = await self._handled(connection)
        await owner.inbox.end(connection, owner.consumer, self.message.id)
        return True, result

    async def _handled(self, connection: Any) -> Any:
        if self.message.headers.get(headers.KIND) != headers.COMMAND:
            return await self._handle(connection, self.message.id)
        outcome, body = await self._answer(connection)
        reply = reply_message(self.message, outcome=outcome, body=body, source=self.owner.consumer, at=time.time())
        await self.owner.outbox.add(connection, [reply])
        return None

    async def _answer(self, connection: Any) -> tuple[str, bytes]:
        given = self.message.headers
        key, action_key = given.get(headers.IDEMPOTENCY_KEY), given.get(headers.ACTION_KEY)
        if key is None:
            raise MessageError(f"A command on {self.message.topic} carries no key. Send it as `@command` does.")
        is_undo = given.get(headers.OPERATION) == headers.COMPENSATION
        if is_undo and action_key is None:
            raise MessageError(f"A compensation on {self.message.topic} does not say of what. Send it as Atone does.")
        try:
            if is_undo and action_key is not None:
                await self._undo(connection, key, action_key)
                return headers.SUCCEEDED, b"null"
            result = await self.owner.barrier.action(
                connection, key, partial(self._act, key), self._told(), writes=False
            )
        except AlreadyCompensated as late:
            return headers.REJECTED, reason_body(str(late))
        except Reject as refused:
            if not await face_of(connection).is_inside():
                raise BarrierMisplaced(_ENDED.format(topic=self.message.topic)) from refused
            return headers.REJECTED, reason_body(refused.reason)
        return headers.SUCCEEDED, msgspec.json.encode(result)

    async def _undo(self, connection: Any, key: str, action_key: str) -> None:
        async def undo(joined: Any, tried: Any, _: str) -> None:
            await self._handle(joined, key, action_key, tried)

        await self.owner.barrier.compensation(connection, key, undo, self._told(), action_key=action_key, writes=False)

    async def _act(self, key: str, connection: Any, _: str) -> Any:
        return _plain(await self._handle(connection, key))

    async def _handle(self, connection: Any, key: str, action_key: str | None = None, tried: Any = None) -> Any:
        found = read_headers(self.message.headers)
        call = Call(
            self.message,
            connection,
            key,
            self.message.headers.get(headers.SAGA_ID),
            action_key,
            {} if found is None else found.headers,
            tried,
        )
        with self.context.scope(_CONTEXT, call):
            return await self.call_next(self.msg)

    def _told(self) -> str:
        """Return the arguments, which under one key are always the same."""
        return self.message.body.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode()


def read_message(msg: StreamMessage[Any]) -> Message:
    """Return what a FastStream message is to Atone: its id, topic, key and headers, however this broker carries them.

    Raises:
        MessageError: It has no id that is the same whenever it comes, so nobody could tell a second delivery.
    """
    raw: Any = msg.raw_message
    if isinstance(raw, dict):
        return _of_redis(msg, cast("dict[str, Any]", raw))
    given = {str(name).lower(): _text(value) for name, value in msg.headers.items()}
    if "nats-msg-id" in given and "atone-key" in given:  # as Atone writes texts that NATS can't carry
        given = {name: unquoted(value) for name, value in given.items()}
    topic = _first(given, _TOPICS) or str(
        getattr(raw, "subject", None) or getattr(raw, "topic", None) or getattr(raw, "routing_key", None) or ""
    ).removeprefix("atone.")
    found = _first(given, _IDS) or str(getattr(raw, "message_id", None) or "") or _offset(raw)
    if not found:
        raise MessageError(f"A message on {topic} has no id. Publish with the header Atone-Id, or through Atone.")
    key = _first(given, _KEYS) or _text(getattr(raw, "key", None) or "")
    return Message(found, topic, key, _body(msg), {name: text for name, text in given.items() if name not in _OWN})


def _of_redis(msg: StreamMessage[Any], raw: Mapping[str, Any]) -> Message:
    """Read an entry of a stream; one of Atone's has fields of its own, which FastStream would show as the body."""
    fields: Mapping[bytes, bytes] = raw["data"] if isinstance(raw.get("data"), Mapping) else {}
    topic = str(raw.get("channel", "")).removeprefix("atone:topic:")
    if fields.get(b"id") and b"body" in fields:
        texts = {_text(name): value for name, value in fields.items()}
        msg.body = texts["body"]
        msg.clear_cache()
        said = {name.removeprefix("h:"): _text(value) for name, value in texts.items() if name.startswith("h:")}
        return Message(_text(texts["id"]), topic, _text(texts.get("key", b"")), texts["body"], said)
    given = {str(name).lower(): _text(value) for name, value in msg.headers.items()}
    entries = raw.get("message_ids") or ()
    found = _first(given, _IDS) or (_text(entries[0]) if entries else "")
    if not found:
        raise MessageError(f"A message on {topic} has no id. Read a stream, or publish with the header Atone-Id.")
    rest = {name: text for name, text in given.items() if name not in _OWN}
    return Message(found, topic, _first(given, _KEYS), _body(msg), rest)


def _offset(raw: Any) -> str:
    """Return a Kafka record's place, which names it for ever."""
    offset = getattr(raw, "offset", None)
    return f"{raw.topic}-{raw.partition}-{offset}" if isinstance(offset, int) else ""


def _first(given: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((given[name] for name in names if given.get(name)), "")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _body(msg: StreamMessage[Any]) -> bytes:
    return msg.body if isinstance(msg.body, bytes) else _text(msg.body).encode()


def _plain(result: Any) -> Any:
    """Return a handler's result as plain JSON, which is stored and sent."""
    return msgspec.to_builtins(result, enc_hook=_model)


def _model(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise NotImplementedError(f"{type(value).__qualname__} can't be an answer")
    return dump(mode="json")
