"""What a turn sends along: the messages that are written into the outbox with it.

Owns which messages those are and how they are written; `_core.events` says what happened. Their ids come from the
saga's key and the turn's version, so a turn that is sent again carries the same ones. Must not decide, publish, or put
a payload into an event. Called wherever a turn is made.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from atone._core.commands import Decision
from atone._core.events import LifecycleEvent, is_beginning, lifecycle_events
from atone._core.journal import Entry
from atone._core.keys import part_of_saga
from atone._core.state import SagaState
from atone._messaging import headers
from atone._runtime.bound import BoundSaga
from atone._runtime.sending import SOURCE, commands_of
from atone._runtime.trace_context import headers_of
from atone.broker import Message
from atone.errors import DefinitionError

EVENT_VERSION = "1"
_PREFIX = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*(?<!.{101})")


class Sending(NamedTuple):
    """What this orchestrator sends: lifecycle events to topics that begin with `events`, or none if it is None.

    Commands are answered on the topic `replies`; without one, no definition here has any.
    """

    events: str | None = None
    replies: str | None = None


def sending_of(
    *, events: bool, prefix: str, runs: bool, has_broker: bool, commanding: str | None = None
) -> Sending | None:
    """Return what an orchestrator that was made like this sends; None if nothing.

    `commanding` names a definition with commands, if there is one.

    Raises:
        DefinitionError: The prefix is none of a topic, or nobody would ever publish the events or the commands.
    """
    if not _PREFIX.fullmatch(prefix):
        raise DefinitionError(f"topic_prefix={prefix!r} begins no topic. Use a-z, 0-9, '.', '-' and '_', at most 100.")
    if events and runs and not has_broker:
        raise DefinitionError("events=True needs a broker to publish them on; give broker= too, or leave events out.")
    if commanding is not None and runs and not has_broker:
        raise DefinitionError(
            f"{commanding} sends commands, and there is nothing to send them with. Give broker= too: a server's URL "
            f"such as nats://host:4222, or the store's own, which needs no server."
        )
    replies = None if commanding is None else f"{prefix}.replies"
    return Sending(prefix if events else None, replies) if events or replies else None


class Told(msgspec.Struct, omit_defaults=True):
    """The body of a lifecycle event. `version` is the journal row that it comes from, `at` when that was decided."""

    event: str
    tenant: str
    saga: str
    saga_id: str
    definition_version: int
    version: int
    at: float
    step: str | None = None
    attempt: int | None = None
    trigger: str | None = None


def messages_of(
    sending: Sending, bound: BoundSaga, key: bytes, before: SagaState | None, decision: Decision, now: float
) -> tuple[Message, ...]:
    """Return what a turn sends along; `before` is the saga that it was decided on, and None at a start."""
    saga = decision.saga
    version = 1 if before is None else before.version + 1
    commands = () if sending.replies is None else commands_of(bound, key, decision, now, sending.replies)
    return commands + events_of(sending, bound, key, before or saga, decision.entries, version, now)


def events_of(
    sending: Sending,
    bound: BoundSaga,
    key: bytes,
    saga: SagaState,
    entries: Sequence[Entry],
    version: int,
    now: float,
) -> tuple[Message, ...]:
    """Return the lifecycle events of a row; `saga` is the one before it, or the very first one."""
    if sending.events is None:
        return ()
    happened = lifecycle_events(bound.plan, None if is_beginning(entries) else saga, entries)
    return tuple(
        _event(sending.events, bound, saga, one, f"{key.hex()}-{version}-{place}", version, now)
        for place, one in enumerate(happened)
    )


def key_of(saga: SagaState) -> str:
    """Return the key that all messages of a saga share, so that they are published in order."""
    return part_of_saga(saga.tenant, saga.name, saga.saga_id)


def _event(
    prefix: str, bound: BoundSaga, saga: SagaState, event: LifecycleEvent, message_id: str, version: int, now: float
) -> Message:
    told = Told(
        event.name, saga.tenant, saga.name, saga.saga_id, bound.plan.version, version, now, *event[1:]
    )  # fmt: skip
    named = {
        headers.KIND: headers.LIFECYCLE,
        headers.NAME: event.name,
        headers.VERSION: EVENT_VERSION,
        headers.TENANT: saga.tenant,
        headers.SAGA: saga.name,
        headers.SAGA_ID: saga.saga_id,
        headers.SOURCE: SOURCE,
        headers.AT: repr(now),
        **headers_of(saga.trace),
    }
    return Message(message_id, f"{prefix}.{event.name}", key_of(saga), msgspec.json.encode(told), named)
