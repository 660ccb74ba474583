"""Messages over NATS JetStream: one stream for the topics, a durable pull consumer for each group.

Owns what the port asks for, in JetStream's words. The topics' stream keeps a message until all groups that hear it have
settled it; a second stream keeps what is parked and who has declared what. Must not decide what a message means. How
safe a confirmed message is depends on the server's `sync_interval` and replicas. Called through `open_broker`.
"""

# pyright: reportUnknownMemberType=false
# nats-py leaves some of its parameters without types; what it returns is typed.

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Generator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import Self, cast

import nats.errors
import nats.js.errors
from nats.js import api

from atone.broker import Message, Parked, Published
from atone.brokers import _nats_wire as wire
from atone.brokers._hosts import hosts_of
from atone.brokers._nats_connection import ASK_SECONDS, Connection, uncancelled
from atone.brokers._nats_pull import Member, NatsDelivery, Pull
from atone.errors import BrokerError

_EXAMPLE = "nats://user:password@host:4222,other:4222?stream=ATONE"
_OPTIONS = frozenset({"stream", "replicas", "patience_seconds", "tls"})
_HEADERS_BYTES = 16 * 1024  # of a message's largest size, kept free for its headers
_ALL_HEADERS_BYTES_MAX = 60 * 1024  # the server never answers to more than 64 KiB, and parking adds a few
_TOGETHER = 500  # messages on their way to the server at once
_PENDING_MAX = 20_000  # given and not settled, of a whole group; delayed ones are among them
_TOO_LARGE = 10054


class NatsBroker:
    """A broker on NATS JetStream, server 2.10 or newer.

    The URL is `nats://user:password@host:4222`, several hosts with commas between them, or a token in the user's place.
    Options: `stream` (ATONE), which is also, in lower case, the first word of all subjects; `replicas` (1) of streams
    that are made here; `patience_seconds` (60), after which a delivery that nobody has ended is given again; `tls=1`.
    A stream that is there is used as it is.
    """

    def __init__(self, url: str) -> None:
        """Take the URL; nothing is connected yet.

        Raises:
            BrokerError: The URL can't be read.
        """
        hosts = hosts_of(url, _EXAMPLE, 4222, _OPTIONS)
        stream = hosts.options.get("stream", "ATONE")
        if not stream.replace("-", "").replace("_", "").isalnum() or not stream.isascii():
            raise BrokerError("The stream of a NATS URL takes letters, digits, - and _ only. Name it so.")
        self._names = wire.Names(stream, stream.lower())
        self._patience_seconds = hosts.number("patience_seconds", 60.0, least=0.1)
        self._connection = Connection(hosts, self._names, hosts.number("replicas", 1, least=1))
        self._heard: set[str] = set()
        self._pulls: set[Pull] = set()
        self._publishing = asyncio.Lock()

    @property
    def message_bytes_max(self) -> int:
        """What the server takes, less some room for headers."""
        return max(1024, self._connection.client.max_payload - _HEADERS_BYTES)

    async def __aenter__(self) -> Self:
        """Connect, and make the streams if they are not there."""
        await self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what nobody has ended, and disconnect."""
        try:
            for pull in self._pulls:
                await pull.give_back()
        finally:
            self._pulls.clear()
            await self._connection.close()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Published]:
        """Publish in this order and wait for all confirmations."""
        self._connection.check()
        return await uncancelled(self._publish(messages))

    async def _publish(self, messages: Sequence[Message]) -> list[Published]:
        async with self._publishing:  # two at once would mix their order
            with self._asking():
                await self._look_who_hears({message.topic for message in messages})
                results: list[Published] = []
                for begin in range(0, len(messages), _TOGETHER):
                    results += await self._publish_some(messages[begin : begin + _TOGETHER])
        return results

    async def _publish_some(self, messages: Sequence[Message]) -> list[Published]:
        results = [Published.DURABLE] * len(messages)
        confirmations: dict[asyncio.Future[api.PubAck], int] = {}
        for place, message in enumerate(messages):
            headers = wire.headers_of(message, wire.known_as(message))
            whole = len(message.body) + wire.header_bytes(headers)
            is_too_large = len(message.body) > self.message_bytes_max or whole > self._connection.client.max_payload
            if is_too_large or wire.header_bytes(headers) > _ALL_HEADERS_BYTES_MAX:
                results[place] = Published.REFUSED
            elif self._connection.is_interest and message.topic not in self._heard:
                results[place] = Published.NOBODY
            else:
                future = await self._connection.context.publish_async(
                    self._names.topic(message.topic), message.body, headers=headers
                )
                confirmations[future] = place
        await self._confirmed(confirmations, results)
        return results

    async def _confirmed(self, confirmations: dict[asyncio.Future[api.PubAck], int], results: list[Published]) -> None:
        """Wait for all of them; what is lost with the connection is not waited for."""
        over = asyncio.Event()
        missing = len(confirmations)

        def one(_: asyncio.Future[api.PubAck]) -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                over.set()

        for future in confirmations:
            future.add_done_callback(one)
        self._connection.heard.add(over.set)
        try:
            if confirmations:
                async with asyncio.timeout(ASK_SECONDS):
                    await over.wait()
        finally:
            self._connection.heard.discard(over.set)
            unconfirmed = [future for future in confirmations if not future.done()]
            for future in unconfirmed:
                future.cancel()
        if unconfirmed:
            raise self._connection.unavailable("the connection was lost before everything was confirmed")
        for future, place in confirmations.items():
            problem = future.exception()
            if isinstance(problem, nats.js.errors.APIError) and problem.err_code == _TOO_LARGE:
                results[place] = Published.REFUSED
            elif problem is not None:
                raise problem

    async def declare(self, group: str, topics: Collection[str]) -> None:
        """Have a group's consumer hear these topics too."""
        self._connection.check()
        with self._asking():
            for topic in topics:
                await self._connection.context.publish(self._names.declared(group, topic))
            wanted = await self._declared(group)
            # Whoever declares for the same group at the same time may put the consumer back; the last one to write sees
            # all that is declared and mends it.
            while not await self._hears(group, wanted):
                await self._set_consumer(group, wanted)
                wanted = await self._declared(group)

    async def _declared(self, group: str) -> set[str]:
        """Return the subjects that a group is to hear."""
        names = self._names
        info = await self._connection.context.stream_info(names.kept, subjects_filter=names.declared(group))
        begin = names.declared(group, "x")[:-1]
        found = info.state.subjects or {}
        return {f"{names.prefix}.{subject.removeprefix(begin)}" for subject in found} | {names.again(group)}

    async def _hears(self, group: str, wanted: set[str]) -> bool:
        try:
            info = await self._connection.context.consumer_info(self._names.stream, wire.consumer_name(group))
        except nats.js.errors.NotFoundError:
            return False
        return _subjects(info.config) >= wanted

    async def _set_consumer(self, group: str, wanted: set[str]) -> None:
        config = api.ConsumerConfig(
            name=wire.consumer_name(group), durable_name=wire.consumer_name(group), filter_subjects=sorted(wanted),
            deliver_policy=api.DeliverPolicy.NEW, ack_policy=api.AckPolicy.EXPLICIT, ack_wait=self._patience_seconds,
            max_deliver=-1, max_ack_pending=_PENDING_MAX,
        )  # fmt: skip
        await self._connection.context.add_consumer(self._names.stream, config)

    async def _look_who_hears(self, topics: set[str]) -> None:
        """Learn which topics some group hears; a topic that nobody hears is asked about again each time."""
        if not self._connection.is_interest or topics <= self._heard:
            return
        context = self._connection.context
        begin = f"{self._names.prefix}."
        seen = -1
        offset = 0
        while seen:
            page = await context.consumers_info(self._names.stream, offset)
            seen = len(page)
            offset += seen
            for info in page:
                self._heard |= {self._names.topic_of(one) for one in _subjects(info.config) if one.startswith(begin)}

    async def deliveries(self, group: str, *, in_flight: int = 100) -> AsyncIterator[NatsDelivery]:
        """Yield what the group's consumer has for this member."""
        member = Member(wire.consumer_name(group), self._patience_seconds, in_flight)
        with self._asking():
            try:
                await self._connection.context.consumer_info(self._names.stream, member.consumer)
            except nats.js.errors.NotFoundError:
                raise BrokerError(f"The group {group} has declared nothing. Call declare() first.") from None
        pull = Pull(self._connection, group, member, self._park)
        self._pulls.add(pull)
        async with aclosing(pull.deliveries()) as deliveries:
            async for delivery in deliveries:
                yield delivery

    async def _park(self, delivery: NatsDelivery, group: str, reason: str) -> None:
        message = delivery.message
        again = f"parked:{wire.consumer_name(group)}:{delivery.sequence}"
        headers = wire.parked_headers(message, _short(reason), delivery.attempt, again)
        with self._asking():
            await self._connection.context.publish(
                self._names.parked(group, message.id), message.body, headers=headers, timeout=ASK_SECONDS
            )

    async def parked(self, group: str, *, limit: int = 100) -> Sequence[Parked]:
        """Return what is in the group's dead-letter place, oldest first."""
        self._connection.check()
        found: list[Parked] = []
        sequence = 1
        with self._asking():
            while len(found) < limit:
                raw = await self._next_parked(group, sequence)
                if raw is None or raw.seq is None:
                    break
                sequence = raw.seq + 1
                found.append(_parked(raw))
        return found

    async def _next_parked(self, group: str, sequence: int) -> api.RawStreamMsg | None:
        try:
            return await self._connection.context.get_msg(
                self._names.kept, seq=sequence, subject=self._names.parked(group), next=True
            )
        except nats.js.errors.NotFoundError:
            return None

    async def unpark(self, group: str, message_id: str) -> bool:
        """Give a parked message to the group again, and to no other."""
        self._connection.check()
        context, names = self._connection.context, self._names
        with self._asking():
            try:
                raw = await context.get_msg(names.kept, subject=names.parked(group, message_id))
            except nats.js.errors.NotFoundError:
                return False
            message = _parked(raw).message
            assert raw.seq is not None, "it stands in the stream"
            headers = wire.headers_of(message, f"again:{wire.consumer_name(group)}:{raw.seq}")
            # In this order: at worst it is given again and still parked, never neither.
            await context.publish(names.again(group, message.topic), message.body, headers=headers)
            await context.delete_msg(names.kept, raw.seq)
        return True

    @contextmanager
    def _asking(self) -> Generator[None, None, None]:
        """Turn what can go wrong with the server into the port's errors."""
        try:
            yield
        except nats.js.errors.APIError as error:
            raise self._connection.unavailable(error.description or error) from None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise self._connection.unavailable(error) from None


def _subjects(config: api.ConsumerConfig) -> set[str]:
    single = {config.filter_subject} if config.filter_subject else set[str]()
    return single | set(config.filter_subjects or ())


def _parked(raw: api.RawStreamMsg) -> Parked:
    headers = cast("Mapping[str, str]", raw.headers or {})
    about = wire.about_parked(headers)
    message = wire.message_from(about.topic, raw.data or b"", headers, f"parked:{raw.seq}")
    at = raw.time.timestamp() if raw.time is not None else 0.0
    return Parked(message, about.reason, about.attempts, at)


def _short(reason: str) -> str:
    """Return as much of a reason as fits into the room for headers."""
    return reason if len(reason) <= 2000 else f"{reason[:1999]}…"
