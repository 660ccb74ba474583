"""What a group hears from NATS: a durable pull consumer that is asked for as much as there is room for.

Owns the requests that are open at the server, what has come ahead, and which deliveries nobody has ended yet. After a
lost connection it asks again; what was on its way comes again by itself. Called by the NATS adapter.
"""

# pyright: reportUnknownMemberType=false
# nats-py leaves some of its parameters without types; what it returns is typed.

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from time import monotonic
from typing import NamedTuple

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from atone.broker import Message
from atone.brokers._nats_connection import Connection, uncancelled
from atone.brokers._nats_wire import Names, message_from
from atone.brokers._texts import whole_number
from atone.errors import BrokerError

Park = Callable[["NatsDelivery", str, str], Awaitable[None]]

_EXPIRES_SECONDS = 20.0
_HEARTBEAT_SECONDS = 2.0
_SILENCE_SECONDS = 3 * _HEARTBEAT_SECONDS
_REFUSED_SECONDS = 0.25
_NANO = 1_000_000_000
_ALIVE, _EXPIRED = "100", "408"


class NatsDelivery:
    """One message in the hands of a group's member."""

    def __init__(self, pull: Pull, raw: Msg, names: Names) -> None:
        meta = raw.metadata
        topic = names.topic_of(raw.subject)
        self.message: Message = message_from(topic, raw.data, raw.headers, f"{meta.stream}:{meta.sequence.stream}")
        self.attempt = max(1, meta.num_delivered)
        self.sequence = meta.sequence.stream
        self.until = monotonic() + pull.patience_seconds
        self._pull = pull
        self._reply = raw.reply

    async def ack(self) -> None:
        """Settle it."""
        await self._end(b"+ACK")

    async def retry(self, *, after_seconds: float = 0.0) -> None:
        """Give it back."""
        delay = json.dumps({"delay": int(after_seconds * _NANO)}) if after_seconds > 0 else ""
        await self._end(f"-NAK {delay}".strip().encode())

    async def park(self, reason: str) -> None:
        """Put it away, and settle it when it surely is there."""
        await self._pull.park(self, self._pull.group, reason)
        await self._end(b"+ACK")

    async def _end(self, word: bytes) -> None:
        if self._pull.forget(self):
            await self._pull.say(self._reply, word)


class Member(NamedTuple):
    """How a group's member hears: the consumer at the server, its patience, and how much at once."""

    consumer: str
    patience_seconds: float
    in_flight: int


class Pull:
    """The deliveries of one member of a group."""

    def __init__(self, connection: Connection, group: str, member: Member, park: Park) -> None:
        self.group = group
        self.park = park
        self.patience_seconds = member.patience_seconds
        self._connection = connection
        self._ask_subject = f"$JS.API.CONSUMER.MSG.NEXT.{connection.names.stream}.{member.consumer}"
        self._in_flight = member.in_flight
        self._ahead: deque[Msg] = deque()
        self._held: set[NatsDelivery] = set()
        self._asked = 0
        self._heard_at = 0.0
        self._ask_after = 0.0
        self._life = -1
        self._wake = asyncio.Event()
        self._inbox: Subscription | None = None
        self._client: Client | None = None
        self._is_over = False
        self._problem: BrokerError | None = None

    async def deliveries(self) -> AsyncGenerator[NatsDelivery, None]:
        """Yield for as long as the connection is wanted."""
        self._connection.heard.add(self._wake.set)
        try:
            while self._connection.is_open and not self._is_over:
                await self._listen()
                await self._ask()
                while self._ahead and len(self._held) < self._in_flight:
                    delivery = NatsDelivery(self, self._ahead.popleft(), self._connection.names)
                    self._held.add(delivery)
                    yield delivery
                    await self._ask()
                await self._rest()
        finally:
            self._connection.heard.discard(self._wake.set)
            if self._connection.is_open:
                await self._stop()

    def forget(self, delivery: NatsDelivery) -> bool:
        """Take a delivery as ended; whether it was not, before."""
        known = delivery in self._held
        self._held.discard(delivery)
        self._wake.set()
        return known

    async def say(self, reply: str, word: bytes) -> None:
        """Tell the server about one delivery; while it is away, nothing: it will be given again."""
        try:
            await self._connection.client.publish(reply, word)
        except (nats.errors.Error, OSError):
            return

    async def give_back(self) -> None:
        """Hear no more, and give back whatever nobody has ended."""
        await self._stop()
        if self._held and not self._connection.client.is_connected:
            await self._connection.wait_for_server()
        for delivery in tuple(self._held):
            await delivery.retry()

    async def _listen(self) -> None:
        """Have an inbox on the client of now; what an earlier one was asked for has gone with it."""
        if self._life == self._connection.life:
            return
        self._life = self._connection.life
        self._asked = 0
        client = self._connection.client
        if self._inbox is not None and self._client is client:
            return  # it subscribes again by itself
        try:
            self._inbox, self._client = await client.subscribe(client.new_inbox(), cb=self._take), client
        except (nats.errors.Error, OSError):
            self._life = -1

    async def _take(self, raw: Msg) -> None:
        """Hear the server: a message, or a word about what it was asked for."""
        self._heard_at = monotonic()
        if raw.reply.startswith("$JS.ACK."):
            self._asked = max(0, self._asked - 1)
            self._ahead.append(raw)
            self._wake.set()
            return
        headers = raw.headers or {}
        status = headers.get("Status")
        if status == _ALIVE:
            return
        left = headers.get("Nats-Pending-Messages", "")
        self._asked = max(0, self._asked - whole_number(left, self._asked))
        if status != _EXPIRED:
            self._ask_after = self._heard_at + _REFUSED_SECONDS
        if "Consumer Deleted" in headers.get("Description", ""):
            self._problem = BrokerError(f"The consumer of the group {self.group} was deleted. Declare it again.")
        self._wake.set()

    async def _ask(self) -> None:
        room = self._in_flight - len(self._held) - len(self._ahead) - self._asked
        # A few messages at a time would be a request for each; the server keeps the rest of an earlier one open.
        if room <= 0 or (self._asked and room < self._in_flight // 4):
            return
        client = self._connection.client
        if self._inbox is None or not client.is_connected or monotonic() < self._ask_after:
            return
        request = {
            "batch": room, "expires": int(_EXPIRES_SECONDS * _NANO), "idle_heartbeat": int(_HEARTBEAT_SECONDS * _NANO),
        }  # fmt: skip
        try:
            await client.publish(self._ask_subject, json.dumps(request).encode(), reply=self._inbox.subject)
        except (nats.errors.Error, OSError):
            return
        self._asked += room
        self._heard_at = monotonic()

    async def _rest(self) -> None:
        """Wait until something may have changed; after a long silence, forget what the server was asked for."""
        if self._problem is not None:
            raise self._problem
        pause = self._ask_after - monotonic()
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with what it waits for.
            async with asyncio.timeout(pause if pause > 0 else _HEARTBEAT_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            now = monotonic()
            if self._asked and now - self._heard_at > _SILENCE_SECONDS:
                self._asked = 0
            # The server has lost patience with these: it gives them again, here or elsewhere.
            self._held = {one for one in self._held if one.until > now}
        self._wake.clear()

    async def _stop(self) -> None:
        """Ask for no more, and give back what has come ahead."""
        inbox, self._inbox = self._inbox, None
        self._is_over = True
        if inbox is not None and self._connection.client.is_connected:
            try:
                # What the server has sent until now is still heard; what is given back then goes to somebody else.
                await uncancelled(inbox.drain())  # type: ignore[no-untyped-call]
            except (TimeoutError, nats.errors.Error, OSError):
                pass  # the connection is gone, and with it what was asked for
        while self._ahead:
            await self.say(self._ahead.popleft().reply, b"-NAK")
