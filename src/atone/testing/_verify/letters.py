"""The broker as one life of the worker sees it: commands and replies that are lost, doubled, delayed or refused.

Owns how each kind of fault is done to a command step, whose calls are messages. Must not choose them: the run says
which one hits which message. Made by `run` for each life, around a broker in memory that the participants share.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, cast

from atone._messaging import headers
from atone._messaging.envelope import reason_body, reply_message
from atone.broker import Broker, Delivery, Message, Parked, Published
from atone.testing._verify.calls import Running
from atone.testing._verify.scenarios import Called, Fault, Kind


class RunningByMessage(Running, Protocol):
    """What messages need of their run, beside what calls need."""

    def sent(self, step: str, called: Called, attempt: int) -> None:
        """Remember that a command went out."""
        ...

    def timeout_seconds(self, step: str, called: Called) -> float:
        """Return how long the saga waits for the answer."""
        ...


class BrokerOfOneLife:
    """Pass everything on to `inner`, which stays open when this one is closed."""

    def __init__(self, inner: Broker, run: RunningByMessage) -> None:
        self._inner, self._run = inner, run

    @property
    def message_bytes_max(self) -> int:
        """See `Broker`."""
        return self._inner.message_bytes_max

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """See `Broker`."""
        said = ", ".join(message.topic for message in messages)
        await self._run.point(f"before {said} is published")
        published = [await self._publish(message) for message in messages]
        await self._run.point(f"after {said} was published")
        return published

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """See `Broker`."""
        await self._inner.declare(group, topics)

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[Delivery]:
        """See `Broker`."""
        deliveries = cast("AsyncGenerator[Delivery, None]", self._inner.deliveries(group, in_flight=in_flight))
        async with aclosing(deliveries):
            async for delivery in deliveries:
                fault = self._fault(delivery.message)
                if fault is not None and fault.kind is Kind.REPLY_LOST:
                    await delivery.ack()
                else:
                    yield delivery

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """See `Broker`."""
        return await self._inner.parked(group, limit=limit)

    async def unpark(self, group: str, message_id: str) -> bool:
        """See `Broker`."""
        return await self._inner.unpark(group, message_id)

    def _fault(self, message: Message) -> Fault | None:
        """Return what goes wrong with a command or its reply; attempts are counted by the message, not here."""
        said = message.headers
        if said.get(headers.KIND) not in (headers.COMMAND, headers.REPLY):
            return None
        called: Called = "compensation" if said[headers.OPERATION] == headers.COMPENSATION else "action"
        return self._run.fault(said[headers.STEP], called, int(said[headers.ATTEMPT]), None)

    async def _publish(self, message: Message) -> Published:
        said = message.headers
        if said.get(headers.KIND) != headers.COMMAND:
            return (await self._inner.publish([message]))[0]
        called: Called = "compensation" if said[headers.OPERATION] == headers.COMPENSATION else "action"
        self._run.sent(said[headers.STEP], called, int(said[headers.ATTEMPT]))
        fault = self._fault(message)
        later = partial(self._inner.publish, [message])
        match None if fault is None else fault.kind:
            case Kind.REJECTED:
                body = reason_body("refused, by the test")
                refusal = reply_message(
                    message, outcome=headers.REJECTED, body=body, source="the test", at=self._run.now()
                )
                return (await self._inner.publish([refusal]))[0]
            case Kind.FAILS:
                return Published.DURABLE  # it never arrives; the saga waits for an answer, then asks again
            case Kind.LATE:
                wait = self._run.timeout_seconds(said[headers.STEP], called) + 0.9 * self._run.late_grace_seconds
                self._run.world.do_after(wait, later)
                return Published.DURABLE
            case Kind.LATE_AFTER_END:
                self._run.world.do_at_the_end(later)
                return Published.DURABLE
            case Kind.TWICE:
                await self._inner.publish([message])
                return (await self._inner.publish([message]))[0]
            case _:
                return (await self._inner.publish([message]))[0]


def pending(server: Any) -> int:
    """Count what a broker in memory has and nobody has settled."""
    return sum(len(group.items) for group in server.groups.values())
