"""Commands and replies as messages: which headers they carry, and what a message must carry to be one.

Owns the envelope, as data in and data out. Ids are made of what a message is about, so that whoever sends it again
sends the same one. Reading is strict about what is needed and blind to headers that it does not know. Must not decode a
body or know a saga's state. Used by the runtime, which sends commands and hears replies, and by participants.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

import msgspec

from atone._messaging import headers
from atone.broker import NO_HEADERS, Message
from atone.errors import MessageError

_OPERATIONS = (headers.ACTION, headers.COMPENSATION)
_OUTCOMES = (headers.SUCCEEDED, headers.REJECTED)
_MESSAGE = "A message that is no {what}: {why}. Whoever sent it has to see docs/guide.md, Commands."
REASON_CHARACTERS_MAX = 2000


class Command(NamedTuple):
    """A command as it is sent: one attempt of one operation of one step. `key` is the operation's idempotency key.

    `action_key` is set for a compensation: the key of the action that it undoes. `trace` holds W3C headers.
    """

    tenant: str
    saga: str
    saga_id: str
    step: str
    operation: str
    attempt: int
    key: str
    name: str
    version: int
    reply_to: str
    source: str
    at: float
    action_key: str | None = None
    trace: Mapping[str, str] = NO_HEADERS


class Reply(NamedTuple):
    """A participant's answer; `body` is the encoded result, or the refusal. `id` is the message's own."""

    id: str
    tenant: str
    saga: str
    saga_id: str
    step: str
    operation: str
    attempt: int
    succeeded: bool
    source: str
    body: bytes


def command_message(command: Command, topic: str, body: bytes, *, saga_key: bytes = b"") -> Message:
    """Return a command as a message; the commands of one step of one saga are published in order.

    Those of different steps are not: a participant that nobody runs must not hold up the undoing of another's work.
    `saga_key` is the saga's own in its store, so that equal names in two stores make no equal messages.
    """
    said = {
        headers.KIND: headers.COMMAND,
        headers.NAME: command.name,
        headers.VERSION: str(command.version),
        headers.TENANT: command.tenant,
        headers.SAGA: command.saga,
        headers.SAGA_ID: command.saga_id,
        headers.STEP: command.step,
        headers.OPERATION: command.operation,
        headers.ATTEMPT: str(command.attempt),
        headers.IDEMPOTENCY_KEY: command.key,
        headers.REPLY_TO: command.reply_to,
        headers.SOURCE: command.source,
        headers.AT: f"{command.at:.6f}",
        **command.trace,
    }
    if command.action_key is not None:
        said[headers.ACTION_KEY] = command.action_key
    order = _digest(command.tenant, command.saga, command.saga_id, command.step)
    return Message(f"c.{_digest(saga_key.hex(), command.key)}.{command.attempt}", topic, order, body, said)


def reply_message(command: Message, *, outcome: str, body: bytes, source: str, at: float) -> Message:
    """Return the answer to a command: `outcome` is succeeded or rejected, a rejection's body {"reason": "..."}.

    The same command always has the same answer's id, so that an answer given twice counts once.

    Raises:
        MessageError: The command says nothing of what an answer has to repeat.
    """
    given = command.headers
    repeated = (headers.TENANT, headers.SAGA, headers.SAGA_ID, headers.STEP, headers.OPERATION, headers.ATTEMPT)
    said = {name: _text(given, name, headers.COMMAND) for name in (*repeated, headers.IDEMPOTENCY_KEY)}
    said |= {name: given[name] for name in (headers.TRACEPARENT, headers.TRACESTATE) if name in given}
    said |= {
        headers.KIND: headers.REPLY,
        headers.OUTCOME: outcome,
        headers.CAUSE: command.id,
        headers.SOURCE: source,
        headers.AT: f"{at:.6f}",
    }
    return Message(f"r.{_digest(command.id)}", _text(given, headers.REPLY_TO, headers.COMMAND), command.key, body, said)


def read_reply(message: Message) -> Reply:
    """Return what a message answers.

    Raises:
        MessageError: It is no reply, or lacks something that a reply must say.
    """
    given, what = message.headers, headers.REPLY
    if given.get(headers.KIND) != headers.REPLY:
        raise _wrong(what, f"its header {headers.KIND} is {given.get(headers.KIND)!r:.40}")
    operation = _one_of(given, headers.OPERATION, _OPERATIONS)
    outcome = _one_of(given, headers.OUTCOME, _OUTCOMES)
    attempt = _text(given, headers.ATTEMPT, what)
    if not (attempt.isascii() and attempt.isdigit() and len(attempt) < 10):
        raise _wrong(what, f"its header {headers.ATTEMPT} is {attempt!r:.40}, no number")
    about = (headers.TENANT, headers.SAGA, headers.SAGA_ID, headers.STEP)
    tenant, saga, saga_id, step = (_text(given, name, what) for name in about)
    return Reply(
        message.id,
        tenant,
        saga,
        saga_id,
        step,
        operation,
        int(attempt),
        outcome == headers.SUCCEEDED,
        given.get(headers.SOURCE) or "a participant",
        message.body,
    )


class _Refusal(msgspec.Struct):
    reason: str


def reason_of(body: bytes) -> str:
    """Return the reason that a rejection's body gives in words.

    Raises:
        MessageError: It gives none.
    """
    try:
        return msgspec.json.decode(body, type=_Refusal).reason[:REASON_CHARACTERS_MAX] or "refused"
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _wrong("rejection", 'its body is not {"reason": "..."}') from None


def reason_body(reason: str) -> bytes:
    """Return a rejection's body."""
    return msgspec.json.encode(_Refusal(reason))


def _digest(*parts: str) -> str:
    told = "".join(f"{len(part)}-{part}" for part in parts)
    return blake2b(told.encode(), digest_size=16).hexdigest()


def _text(given: Mapping[str, str], name: str, what: str) -> str:
    found = given.get(name)
    if not found:
        raise _wrong(what, f"it has no header {name}")
    return found


def _one_of(given: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    found = given.get(name)
    if found not in allowed:
        raise _wrong(headers.REPLY, f"its header {name} is {found!r:.40}, not {' or '.join(allowed)}")
    return found


def _wrong(what: str, why: str) -> MessageError:
    return MessageError(_MESSAGE.format(what=what, why=why))
