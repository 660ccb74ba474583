"""Decoders of what comes over a network: messages of each broker, events, replies, headers of HTTP and of traces.

Anybody may have sent them, so nothing is too odd. A message that a broker adapter reads is never refused: it becomes a
`Message` whose texts are texts, whatever it was. Collected by `decoders`.
"""

# ruff: noqa: E501, PERF401, SIM300 - samples and tables are read better in one line

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import httpx
from starlette.requests import Request

from atone._messaging.envelope import Command, command_message, read_reply, reason_of, reply_message
from atone._messaging.events import from_message, to_message
from atone._messaging.over_http import read_action, read_compensation
from atone._runtime.replies import _reason_of_some_type
from atone._runtime.trace_context import headers_of as trace_headers_of
from atone._runtime.trace_context import read_headers, read_text
from atone.broker import Message
from atone.brokers import _kafka_wire, _nats_wire, _rabbit_wire, _redis_entries
from atone.codec import Codec
from atone.errors import Reject, RetryAfter
from atone.integrations import fastapi, faststream
from atone.integrations.httpx import raise_for_answer
from atone.integrations.opentelemetry import _context_of
from tests.choreography.shop import OrderPlaced
from tests.fuzz.engine import SECRET, Broken, Decoder
from tests.fuzz.mutate import fields_of, joined, text_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _expect(fine: object, what: str) -> None:
    if not fine:
        raise Broken(what)


def _pairs(fields: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """Return fields as names and values."""
    return list(zip(fields[::2], fields[1::2], strict=False))


def _texts(fields: Sequence[bytes]) -> dict[str, str]:
    return {text_of(name): text_of(value) for name, value in _pairs(fields)}


def message_from(data: bytes) -> Message:
    """Return a message of an input: id, topic, key, body, then headers."""
    id_, topic, key, body, *rest = [*fields_of(data), b"", b"", b"", b""]
    return Message(text_of(id_), text_of(topic), text_of(key), body, _texts(rest))


def of_message(message: Message) -> bytes:
    """Return the input that a message comes of."""
    headers = [one for pair in message.headers.items() for one in pair]
    return joined(message.id, message.topic, message.key, message.body, *headers)


def a_message(found: Any) -> None:
    """Check that what an adapter has read is a message; a foreign one may have odd texts, but texts."""
    _expect(isinstance(found, Message) and isinstance(found.body, bytes), "it is no message")
    texts = (found.id, found.topic, found.key, *found.headers, *found.headers.values())
    _expect(all(isinstance(one, str) for one in texts), "a text of the message is none")
    _expect(1 <= len(found.id) <= 200, "an id that is too short or too long")


# -- Atone's own messages

_COMMAND = Command(
    "default", "PlaceOrder", "order-1", "reserve", "action", 1, "key-1", "reserve", 1, "atone.replies", "orders", 1.0,
    None, {"traceparent": TRACE},
)  # fmt: skip


def _replies() -> list[bytes]:
    asked = command_message(_COMMAND, "inventory.reserve", b'{"sku":"a"}', saga_key=b"k")
    said = [reply_message(asked, outcome="succeeded", body=b'{"id":1}', source="inventory", at=2.0)]
    said.append(reply_message(asked, outcome="rejected", body=b'{"reason":"none left"}', source="inventory", at=2.0))
    return [of_message(one) for one in said]


def _reply(data: bytes) -> Any:
    reply = read_reply(message_from(data))
    if reply.succeeded:
        value = Codec().plain.schema(object).decode(reply.body or b"null")
        Codec().schema(object).encode(value)
    else:
        _expect(_reason_of_some_type(reply.body), "a refusal without a reason")
        reason_of(reply.body)
    return reply


def _events() -> list[bytes]:
    body = b'{"item":"book","cents":100,"fails_at":""}'
    told = {
        "atone-kind": "event", "atone-name": "order.placed", "atone-version": "1", "atone-tenant": "default", "atone-at": "1.5",
        "atone-saga": "shop", "atone-saga-id": "s-1", "atone-cause": "m0", "atone-source": "orders", "traceparent": TRACE,
        "tracestate": "a=b,c=d",
    }  # fmt: skip
    foreign = {"atone-saga-id": "s-1"}
    return [of_message(Message("m1", "order.placed", "s-1", body, headers)) for headers in (told, foreign)]


def _event(data: bytes) -> Any:
    event = from_message(message_from(data), "shop")
    if event is not None:
        Codec().schema(OrderPlaced).decode(event.body)
    return event


def _event_again(event: Any) -> None:
    if event is not None:
        again = from_message(to_message(event), "shop")
        at = again is not None and (abs(again.at - event.at) < 1e-5 or not event.at)
        _expect(
            at and again._replace(at=0.0) == event._replace(at=0.0),
            "an event is another one after a trip there and back",
        )


def _trace(data: bytes) -> Any:
    parent, state = (*fields_of(data), b"")[:2]
    found = read_headers({"traceparent": text_of(parent), "tracestate": text_of(state)})
    read_text(text_of(data))
    _context_of(text_of(data))
    return found


def _trace_again(found: Any) -> None:
    if found is not None:
        _expect(read_text(found.text) == found, "a trace context is another one after a trip there and back")
        _expect(dict(trace_headers_of(found.text)) == found.headers, "its headers are other ones")
        span = _context_of(found.text)
        _expect(span is not None and span.is_valid, "OpenTelemetry is given a context that is none")


# -- brokers

_MESSAGES = (
    Message("m-1", "stock.reserved", "order-1", b'{"a":1}', {"atone-kind": "event", "x": "é %"}),
    Message("m 2", "a", "\ud800 key", b"\x00\xff", {}),
)


def _kafka_samples() -> list[bytes]:
    found = []
    for one in _MESSAGES:
        for headers in (_kafka_wire.headers_of(one), _kafka_wire.parked_headers(one, "why", 3)):
            flat = [part for name, value in headers for part in (name, value)]
            found.append(joined(one.topic, one.key, one.body, *flat))
    return [*found, joined("t", b"", b"", "Atone-Attempts", "9" * 30)]


def _kafka(data: bytes) -> Any:
    topic, key, value, *rest = [*fields_of(data), b"", b"", b""]
    headers = [(text_of(name), text or None) for name, text in _pairs(rest)]
    about = _kafka_wire.about_parked(headers)  # type: ignore[arg-type] - a foreign header may have no value
    _expect(isinstance(about.reason, str) and about.attempts >= 0, "attempts are no number")
    declared = _kafka_wire.declaration_from(value)
    _expect(declared is None or all(isinstance(one, str) for one in declared), "a declaration of no texts")
    return _kafka_wire.message_from(text_of(topic), key or None, value, headers, "topic-0-1")  # type: ignore[arg-type]


def _nats_samples() -> list[bytes]:
    found = []
    for one in _MESSAGES:
        for headers in (_nats_wire.headers_of(one), _nats_wire.parked_headers(one, "why %", 3, "x")):
            found.append(joined("atone." + one.topic, one.body, *[part for pair in headers.items() for part in pair]))
    return [*found, joined("atone.~again.g.stock.reserved", b"")]


def _nats(data: bytes) -> Any:
    subject, body, *rest = [*fields_of(data), b"", b""]
    headers = _texts(rest)
    about = _nats_wire.about_parked(headers)
    _expect(isinstance(about.reason, str) and about.attempts >= 0, "attempts are no number")
    topic = _nats_wire.Names("ATONE", "atone").topic_of(text_of(subject))
    return _nats_wire.message_from(topic, body, headers or None, "1")


def _rabbit_samples() -> list[bytes]:
    found = []
    for one in _MESSAGES:
        sent = _rabbit_wire.amqp_of(one, attempts=2, reason="why", at=1.5)
        flat = [part for name, value in sent.headers.items() for part in (name, str(value))]
        found.append(joined(one.id, one.topic, one.body, *flat))
    return [*found, joined("", "t", b"x", "x-delivery-count", "i:3", "x-death", "l:1", "nested", "t:a")]


def _amqp_value(value: bytes) -> Any:
    """Return a value of AMQP's own types; a prefix names the odd ones."""
    match value[:2]:
        case b"i:":
            text = text_of(value[2:])
            return int(text) if text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) < 19 else 0
        case b"l:":
            return [value[2:], {"x": [None, True]}]
        case b"t:":
            return {"count": 1, "queue": value[2:]}
        case b"n:":
            return None
        case b"b:":
            return value[2:]
        case b"o:":
            return True
        case _:
            return text_of(value)


def _rabbit(data: bytes) -> Any:
    id_, routing_key, body, *rest = [*fields_of(data), b"", b"", b""]
    amqp: Any = SimpleNamespace(
        headers={text_of(name): _amqp_value(value) for name, value in _pairs(rest)},
        message_id=text_of(id_) or None,
        routing_key=text_of(routing_key) or None,
        body=body,
        correlation_id=None,
        timestamp=None,
        type=None,
    )
    note = _rabbit_wire.note_of(amqp)
    _expect(isinstance(note.reason, str) and 0 <= note.at < 1e11, "a note with a time that is none")
    _expect(_rabbit_wire.attempts_of(amqp) >= 0, "fewer attempts than none")
    return _rabbit_wire.message_of(amqp)


def _redis_samples() -> list[bytes]:
    found = []
    for one in _MESSAGES[:1]:
        fields = [part if isinstance(part, bytes) else str(part) for part in _redis_entries.fields_of(one)]
        found += [joined(*fields), joined(*fields, "~id", "m-2", "~topic", "t", "~attempts", "3", "~reason", "why")]
    return [*found, joined("__data__", "{}")]


def _redis(data: bytes) -> Any:
    fields = dict(_pairs(fields_of(data)))
    places = _redis_entries.Places("atone", "g")
    _expect(_redis_entries.attempts_of(fields) >= 0, "fewer attempts than none")
    return _redis_entries.message_of(places, places.topic("t"), "1-0", fields)


def _streamed(data: bytes) -> Any:
    """A message as FastStream shows it: of NATS, Kafka and RabbitMQ by their raw message, of Redis as a mapping."""
    which, topic, id_, body, *rest = [*fields_of(data), b"", b"", b"", b""]
    headers: Mapping[str, Any] = _texts(rest)
    raws: tuple[Callable[[], Any], ...] = (
        lambda: SimpleNamespace(subject=text_of(topic)),
        lambda: SimpleNamespace(topic=text_of(topic), partition=1, offset=len(id_), key=id_ or None),
        lambda: SimpleNamespace(routing_key=text_of(topic), message_id=text_of(id_) or None),
        lambda: {"channel": text_of(topic), "data": dict(_pairs(rest)), "message_ids": [id_] if id_ else []},
    )
    shown: Any = SimpleNamespace(
        raw_message=raws[len(which) % 4](), headers=headers, body=body, clear_cache=lambda: None
    )
    return faststream.read_message(shown)


def _streamed_samples() -> list[bytes]:
    head = ("Atone-Id", "m1", "atone-kind", "event", "Atone-Key", "k", "Nats-Msg-Id", "m%201")
    own = ("id", "m1", "body", "{}", "h:atone-kind", "event")
    return [
        joined("", "stock", "", "{}", *head), joined("x", "stock", "k", "{}"), joined("xx", "queue", "m2", "{}", *head[:4]),
        joined("xxx", "atone:topic:stock", "1-0", "{}", *own),
    ]  # fmt: skip


def _is_message(found: Any) -> None:
    texts = (found.id, found.topic, found.key, *found.headers, *found.headers.values())
    _expect(all(isinstance(one, str) for one in texts) and found.id, "a text of the message is none")


# -- HTTP


def _calls() -> list[bytes]:
    own = ("idempotency-key", "a%20b", "atone-saga-id", "order-1", "atone-attempt", "3", "traceparent", TRACE)
    return [
        joined("", *own),
        joined("x", *own, "atone-action-key", "k%25"),
        joined("", *own, "idempotency-key", "twice"),
    ]


def _call(data: bytes) -> Any:
    """Read a request's headers, once as Starlette gives them and once as plain lists."""
    which, *rest = fields_of(data)
    pairs = [(name.lower(), value) for name, value in _pairs(rest)]
    request = Request({"type": "http", "headers": pairs, "method": "POST", "path": "/"})

    def values(name: str) -> list[str]:
        return [value.decode("latin-1") for found, value in pairs if found.decode("latin-1") == name]

    if len(which) % 2:
        call: Any = asyncio.run(fastapi.compensation_call(request))
        _expect(call == read_compensation(values), "two readers of the same headers disagree")
    else:
        call = asyncio.run(fastapi.saga_call(request))
        _expect(call == read_action(values), "two readers of the same headers disagree")
    return call


def _call_is_sound(call: Any) -> None:
    _expect(1 <= len(call.idempotency_key) and "\0" not in call.idempotency_key, "a key that is none")
    _expect(call.attempt is None or call.attempt >= 1, "an attempt below 1")


def _answers() -> list[bytes]:
    body = f'{{"type":"about:blank","status":409,"detail":"{SECRET[:3]}","code":"rejected"}}'
    return [
        joined("409", "application/problem+json", "", body), joined("503", "text/plain", "7", "later"),
        joined("429", "application/problem+json; x=y", "1", "{}"), joined("200", "", "", ""),
    ]  # fmt: skip


def _answer(data: bytes) -> Any:
    status, kind, later, content = (*fields_of(data), b"", b"", b"", b"")[:4]
    number = int(status) if status.isdigit() and len(status) == 3 and 100 <= int(status) < 600 else 500
    headers = [(b"content-type", kind.replace(b"\n", b"")), (b"retry-after", later.replace(b"\n", b""))]
    asked = httpx.Request("POST", "http://127.0.0.1/")
    return raise_for_answer(httpx.Response(number, headers=headers, content=content, request=asked))


DECODERS = (
    Decoder(
        "reply",
        (
            "atone._messaging.envelope:read_reply", "atone._messaging.envelope:reason_of",
            "atone._runtime.replies:_reason_of_some_type", "atone._runtime.replies:_reason",
            "atone._runtime.replies:Replies._payload",
        ),
        _replies,
        _reply,
    ),
    Decoder(
        "event",
        (
            "atone._messaging.events:from_message", "atone._messaging.events:_version", "atone._messaging.events:_at",
            "atone._participant.bound:Types.value", "atone._participant.bound:Types.plain",
        ),
        _events,
        _event,
        check=_event_again,
    ),
    Decoder(
        "trace",
        (
            "atone._runtime.trace_context:read_headers", "atone._runtime.trace_context:read_text",
            "atone._runtime.trace_context:_read", "atone._runtime.trace_context:_tracestate",
            "atone.integrations.opentelemetry:_context_of",
        ),
        lambda: [joined(TRACE, "a=b,c=d"), joined(TRACE.replace("00-", "01-") + "-more", ""), f"{TRACE} a=b".encode()],
        _trace,
        check=_trace_again,
    ),
    Decoder(
        "kafka",
        (
            "atone.brokers._kafka_wire:message_from", "atone.brokers._kafka_wire:about_parked",
            "atone.brokers._kafka_wire:declaration_from", "atone.brokers._kafka_wire:_text",
        ),
        _kafka_samples,
        _kafka,
        check=a_message,
    ),
    Decoder(
        "nats",
        (
            "atone.brokers._nats_wire:message_from", "atone.brokers._nats_wire:about_parked",
            "atone.brokers._texts:unquoted", "atone.brokers._texts:whole_number", "atone.brokers._nats_wire:Names.topic_of",
        ),
        _nats_samples,
        _nats,
        check=a_message,
    ),
    Decoder(
        "rabbitmq",
        (
            "atone.brokers._rabbit_wire:message_of", "atone.brokers._rabbit_wire:note_of",
            "atone.brokers._rabbit_wire:attempts_of", "atone.brokers._texts:moment_of",
        ),
        _rabbit_samples,
        _rabbit,
        check=a_message,
        words=(b"i:-1", b"i:99", b"l:x", b"t:x", b"n:", b"b:\xff", b"o:", b"x-atone-at", b"x-atone-attempts"),
    ),
    Decoder(
        "redis",
        ("atone.brokers._redis_entries:message_of", "atone.brokers._redis_entries:attempts_of"),
        _redis_samples,
        _redis,
        check=a_message,
        words=(b"~attempts", b"~id", b"~topic", b"h:"),
    ),
    Decoder(
        "faststream",
        (
            "atone.integrations.faststream:read_message", "atone.integrations.faststream:_of_redis",
            "atone.integrations.faststream:_offset",
        ),
        _streamed_samples,
        _streamed,
        check=_is_message,
        words=(b"x", b"xx", b"xxx", b"atone-key", b"Nats-Msg-Id", b"%ed%a0%80"),
    ),
    Decoder(
        "http-call",
        (
            "atone._messaging.over_http:read_action", "atone._messaging.over_http:read_compensation",
            "atone._messaging.over_http:_text", "atone._messaging.over_http:_attempt",
            "atone.integrations.fastapi:saga_call", "atone.integrations.fastapi:compensation_call",
        ),
        _calls,
        _call,
        check=_call_is_sound,
    ),
    Decoder(
        "http-answer",
        (
            "atone.integrations.httpx:raise_for_answer", "atone.integrations.httpx:_problem_of",
            "atone.integrations.httpx:_retry_after",
        ),
        _answers,
        _answer,
        (Reject, RetryAfter, httpx.HTTPStatusError),
    ),
)  # fmt: skip
