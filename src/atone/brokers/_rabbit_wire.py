"""What stands in RabbitMQ: the names of exchanges and queues, and how a message is one of AMQP.

Owns names, arguments and headers, which are a stored format: a queue that was declared otherwise is refused by the
server. Must not speak to it. Called by the other parts of the RabbitMQ adapter.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from aio_pika import DeliveryMode
from aio_pika import Message as AmqpMessage
from aio_pika.abc import AbstractIncomingMessage

from atone.broker import Message
from atone.brokers._texts import moment_of

# Headers of ours; all others of a message are the publisher's, but for what the server itself writes.
_OURS = "x-atone-"
_KEY, _TOPIC, _ATTEMPTS, _REASON, _AT = "key", "topic", "attempts", "reason", "at"
_THE_SERVERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "x-opt-")

# A server that counts redeliveries would drop a message at its own limit (20 from 4.0 on); when to park is ours to say.
_DELIVERIES_MAX = 1_000_000_000
_DELAY_MS_LEAST = 20
# All headers go in one frame. Who sends a larger one than 128 KiB, the server's default, is disconnected; a part of it
# is kept free for what is written on a parked message.
HEADER_BYTES_MAX = 100 * 1024
_REASON_CHARACTERS_MAX = 2000
_DELAY_MS_MAX = 40 * 24 * 3600 * 1000  # the server's bound is 49 days
_UNUSED_MS = 24 * 3600 * 1000


class Names(NamedTuple):
    """Names below one prefix."""

    prefix: str

    def queue(self, group: str) -> str:
        """Name the queue of a group."""
        return f"{self.prefix}.group.{group}"

    def parked(self, group: str) -> str:
        """Name the dead-letter queue of a group."""
        return f"{self.prefix}.group.{group}.parked"

    def later(self, delay_ms: int) -> str:
        """Name the exchange and the queue of what waits so long."""
        return f"{self.prefix}.later.{delay_ms}"


QUEUE: Mapping[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": _DELIVERIES_MAX}


def later_queue(delay_ms: int) -> dict[str, Any]:
    """Return the arguments of a queue that gives each message back to the queue it names, after a while.

    It goes by itself when nobody has declared it for longer than anything waits in it.
    """
    return {
        "x-queue-type": "quorum",
        "x-message-ttl": delay_ms,
        "x-expires": delay_ms + _UNUSED_MS,
        "x-dead-letter-exchange": "",  # by the routing key of the message, which is the name of its queue
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def delay_ms_of(after_seconds: float) -> int:
    """Return one of few delays, not less and at most a fifth more: each has a queue of its own."""
    wanted = min(max(math.ceil(after_seconds * 1000), 1), _DELAY_MS_MAX)
    step = max(0, math.ceil(4 * math.log2(wanted / _DELAY_MS_LEAST) - 1e-9))
    return max(wanted, round(_DELAY_MS_LEAST * 2 ** (step / 4))) if step < 120 else wanted


def amqp_of(message: Message, *, attempts: int = 0, reason: str | None = None, at: float | None = None) -> AmqpMessage:
    """Return a message for the server, which is to keep it on disk."""
    headers: dict[str, Any] = dict(message.headers)
    headers[_OURS + _KEY] = message.key
    headers[_OURS + _TOPIC] = message.topic
    if attempts:
        headers[_OURS + _ATTEMPTS] = attempts
    if reason is not None:
        headers[_OURS + _REASON] = reason if len(reason) <= _REASON_CHARACTERS_MAX else f"{reason[:1999]}…"
        headers[_OURS + _AT] = repr(at)
    return AmqpMessage(message.body, headers=headers, message_id=message.id, delivery_mode=DeliveryMode.PERSISTENT)


def header_bytes(message: Message) -> int:
    """Return what a message takes beside its body, at most."""
    texts = (message.id, message.topic, message.key, *message.headers, *message.headers.values())
    return sum(len(text.encode("utf-8", "surrogatepass")) + 8 for text in texts)


def message_of(amqp: AbstractIncomingMessage) -> Message:
    """Read a message. One without an id is known by all that is in it, since the server gives it none."""
    headers = {str(name): _text(value) for name, value in amqp.headers.items()}
    topic = headers.get(_OURS + _TOPIC, amqp.routing_key or "")
    id_ = amqp.message_id or ""
    if not (0 < len(id_) <= 200 and id_.isascii() and id_.isprintable()):
        said = [id_, topic, amqp.correlation_id, amqp.timestamp, amqp.type, sorted(_published(headers).items())]
        id_ = hashlib.sha256(repr(said).encode() + amqp.body).hexdigest()
    return Message(id_, topic, headers.get(_OURS + _KEY, ""), amqp.body, _published(headers))


def attempts_of(amqp: AbstractIncomingMessage) -> int:
    """Return how often the group had been given it before this time, in this queue and before it came here."""
    counted = max(_number(amqp, "x-delivery-count"), _number(amqp, "x-acquired-count"))
    return _number(amqp, _OURS + _ATTEMPTS) + counted


class Note(NamedTuple):
    """What is written on a parked message."""

    reason: str
    attempts: int
    at: float


def note_of(amqp: AbstractIncomingMessage) -> Note:
    """Read why and when a message was parked."""
    return Note(
        reason=_text(amqp.headers.get(_OURS + _REASON, "")),
        attempts=_number(amqp, _OURS + _ATTEMPTS),
        at=moment_of(_text(amqp.headers.get(_OURS + _AT, "0"))),
    )


def _published(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith((_OURS, *_THE_SERVERS))}


def _number(amqp: AbstractIncomingMessage, name: str) -> int:
    value = amqp.headers.get(name, 0)
    return max(0, value) if isinstance(value, int) else 0


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else str(value)
