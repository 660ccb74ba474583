"""Serving participants: a service that reacts to events, for as long as it is open.

Owns the wiring of broker, database, relay, consumers and timers, and `start`, which begins a choreographed saga in the
caller's transaction. Must not decide anything about a saga. Called by services: in a FastAPI lifespan, or as the body
of a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from atone._choreography.events import spec_of
from atone._choreography.participant import Participant
from atone._choreography.whole import Choreography
from atone._connections.face import finish
from atone._core.keys import part_of_saga, part_of_step
from atone._messaging.events import DEFAULT_TENANT, Event
from atone._messaging.relay import Relay
from atone._participant.bound import Bound, Kept, Types, group_of, kind_of
from atone._participant.commanded import Commanded
from atone._participant.consumer import Consumer
from atone._participant.database import Database
from atone._participant.sending import Sending
from atone._participant.suspects import Suspects
from atone._participant.tables import ServiceTables
from atone._participant.taking import Taking
from atone._participant.timer import Timer
from atone._runtime.arguments import checked_name
from atone._runtime.trace_context import read_headers
from atone.broker import Broker
from atone.brokers import open_broker
from atone.errors import ArgumentsDiffer, ConflictingStart, DefinitionError
from atone.outbox import Relaying

_COMMITTED_SOON_SECONDS = 0.02

__all__ = ["Service", "ServiceTables", "serve", "start", "start_blocking"]


def serve(
    choreography: Choreography,
    *participants: Participant,
    database: Any,
    broker: str | Broker,
    tables: ServiceTables | None = None,
    in_flight: int = 32,
    poll_seconds: float = 1.0,
    grace_seconds: float = 10.0,
) -> Service:
    """Return a service to be entered: `async with serve(orders, Inventory(), database=engine, broker="nats://..."):`.

    `database` is an engine or a pool (SQLAlchemy, asyncpg, psycopg), or a function that returns a context manager which
    yields a connection in a transaction and commits when it is left. Synchronous ones run in threads, with plain
    handlers. `broker` is a URL, or a broker that is open and stays yours. The tables of `tables` are made if they are
    not there. At most `in_flight` events are handled at once for each participant; leaving lets them end within
    `grace_seconds`. Without participants only what `start` has written is sent.

    Raises:
        DefinitionError: A participant is none of the choreography's, or `database` is nothing that can be used.
    """
    return Service(choreography, participants, database, broker, tables or ServiceTables(), in_flight, poll_seconds,
                   grace_seconds)  # fmt: skip


async def start(
    choreography: Choreography,
    connection: Any,
    event: Any,
    *,
    saga_id: str,
    tables: ServiceTables | None = None,
    tenant: str = DEFAULT_TENANT,
    trace_headers: Any = None,
) -> None:
    """Begin a saga with its first event, within your transaction on `connection`; it goes out once you have committed.

    The event is relayed by any process that serves with the same tables. The same start again is harmless.

    Raises:
        ConflictingStart: This saga was started with another event. Nothing was written.
        DefinitionError: The event begins no saga of this choreography.
    """
    tables = tables or ServiceTables()
    kind = kind_of(event)
    if not any(choreography.event_types[name] is kind for name in choreography.event_map.starts):
        begin = ", ".join(choreography.event_map.starts)
        raise DefinitionError(f"{kind.__qualname__} begins no saga of {choreography.name}. Give one of: {begin}.")
    saga_id, tenant = checked_name("saga_id", saga_id), checked_name("tenant", tenant)
    types = Types(choreography, tables.codec)
    name = spec_of(kind).name
    trace = read_headers(trace_headers) if trace_headers else None
    nothing = Event("", "", 1, choreography.name, saga_id, b"", trace=trace, tenant=tenant)
    key = f"{part_of_saga(tenant, choreography.name, saga_id)}.{part_of_step('', 'start')}"

    async def publish(line: Any, _name: str, _body: str) -> Kept:
        await Sending(types, "", tables).events(line, nothing, ("start",), [event])
        return Kept()

    # What is compared is not encrypted: that would be another text each time.
    body = types.bare(name, types.body(event, saga_id)[1], saga_id).decode()
    try:
        await tables.barrier.action(connection, key, publish, name, body, returns=Kept, writes=False)
    except ArgumentsDiffer as wrong:
        raise ConflictingStart(
            f"The {choreography.name} saga {saga_id!r} was started with another event. "
            "Start with the same event, or take another saga_id."
        ) from wrong


def start_blocking(
    choreography: Choreography,
    connection: Any,
    event: Any,
    *,
    saga_id: str,
    tables: ServiceTables | None = None,
    tenant: str = DEFAULT_TENANT,
    trace_headers: Any = None,
) -> None:
    """Do the same as `start` on a synchronous connection."""
    finish(
        start(
            choreography,
            connection,
            event,
            saga_id=saga_id,
            tables=tables,
            tenant=tenant,
            trace_headers=trace_headers,
        )
    )


class Service:
    """A service that is open for as long as it is entered; made by `serve`."""

    def __init__(
        self,
        choreography: Choreography,
        participants: Sequence[Participant],
        database: Any,
        broker: str | Broker,
        tables: ServiceTables,
        in_flight: int,
        poll_seconds: float,
        grace_seconds: float,
    ) -> None:
        self._choreography, self._tables = choreography, tables
        self._bound = [_bound(choreography, one, tables) for one in participants]
        self._database = Database(database)
        self._suspects = Suspects(tables.inbox, self._database)
        self._given = broker
        self._in_flight, self._poll_seconds, self._grace_seconds = in_flight, poll_seconds, grace_seconds
        self._stack = AsyncExitStack()
        self._relay: Relay | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(self._database.close)
            broker = self._given
            if isinstance(broker, str):
                broker = await stack.enter_async_context(open_broker(broker))
            await self._database.run(self._tables.create)
            await self._declare_all(broker)
            relay = Relay(Relaying(self._tables.outbox, self._database), broker)
            # Given to the stack before it begins: if the next one can't, nothing goes on behind the caller's back.
            stack.push_async_callback(relay.close, grace_seconds=self._grace_seconds)
            for bound in self._bound:
                for consumer in self._consumers(bound, broker, relay):
                    stack.push_async_callback(consumer.close, grace_seconds=self._grace_seconds)
                    await consumer.start()
            relay.start()
            self._relay = relay
            for bound in self._bound:
                timer = Timer(
                    bound, self._tables, self._database, poll_seconds=self._poll_seconds, on_commit=relay.nudge
                )
                timer.start()
                stack.push_async_callback(timer.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def start(
        self, connection: Any, event: Any, *, saga_id: str, tenant: str = DEFAULT_TENANT, trace_headers: Any = None
    ) -> None:
        """Begin a saga within your transaction on `connection`; see `atone.serving.start`. Sent a little sooner."""
        await start(
            self._choreography,
            connection,
            event,
            saga_id=saga_id,
            tables=self._tables,
            tenant=tenant,
            trace_headers=trace_headers,
        )
        if self._relay is not None:  # the caller commits in a moment; whatever comes later is found by the relay itself
            asyncio.get_running_loop().call_later(_COMMITTED_SOON_SECONDS, self._relay.nudge)

    async def _declare_all(self, broker: Broker) -> None:
        """Declare what every participant hears, whoever serves it: what is sent before it is up must wait for it."""
        events = self._choreography.event_map
        for name in events.participants:
            await broker.declare(group_of(events, name), events.hears(name))

    def _consumers(self, bound: Bound, broker: Broker, relay: Relay) -> list[Consumer]:
        """Hear the choreography's events, and the commands of orchestrators."""
        taking = Taking(bound, self._tables, self._database, relay.nudge, self._suspects)
        commanded = Commanded(bound, self._tables, self._database, relay.nudge, self._suspects)
        return [
            Consumer(broker, bound.group, bound.map.hears(bound.name), taking.take, in_flight=self._in_flight),
            Consumer(broker, commanded.group, commanded.topics, commanded.take, in_flight=self._in_flight),
        ]


def _bound(choreography: Choreography, participant: Participant, tables: ServiceTables) -> Bound:
    known = choreography.participants.get(type(participant).__participant__)
    if known is not type(participant):
        raise DefinitionError(
            f"{type(participant).__qualname__} is no participant of {choreography.name}. "
            f"Give objects of: {', '.join(one.__name__ for one in choreography.participants.values())}."
        )
    return Bound(choreography, participant, tables.codec)
